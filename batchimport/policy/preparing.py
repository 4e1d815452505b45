"""Tell whoever watches a run what is done before its import.

A file is unpacked, standard input is read, and a schema is inferred far below the code that knows the
run's observer. So the observer is a context variable there, not a parameter of every function between.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from batchimport.policy.events import Noted, Preparing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchimport.policy.events import Observer

_observer: ContextVar[Observer] = ContextVar("observer", default=lambda _: None)


@contextmanager
def watched_by(observer: Observer) -> Iterator[None]:
    """Let an observer hear what is announced in this thread meanwhile."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def announce(what: str, done: int = 0, total: int | None = None) -> None:
    """Say what is being done, and how many of its bytes are done."""
    _observer.get()(Preparing(what, done, total))


def note(text: str) -> None:
    """Tell the user something that changes nothing."""
    _observer.get()(Noted(text))


def metered(pieces: Iterable[bytes], what: str, total: int | None = None) -> Iterator[bytes]:
    """Yield the pieces, and announce how many bytes were taken."""
    done = 0
    announce(what, done, total)
    for piece in pieces:
        yield piece
        done += len(piece)
        announce(what, done, total)
