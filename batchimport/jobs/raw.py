"""Rejected records as a file of their source's format, to be edited and imported like any other."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.json_records import on_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchimport.jobs.replaying import Forms
    from batchimport.model import Job, Reject
    from batchimport.sources.base import Form


def refuse_different_forms(rejects: Iterable[Reject], forms: Forms) -> None:
    """Refuse rejects that do not fit into one file.

    Raises:
        UsageError: If they are of files with different headers or dialects.
    """
    known: Form | None = None
    for reject in rejects if forms.differ else ():
        form = forms.of(reject.source)
        if known not in (None, form):
            raise UsageError(
                f"the rejects are of files with different headers: that of {reject.source} is another",
                where="--raw",
                hint="use --json; `batchimport replay --from` takes these lines once `raw` is edited",
            )
        known = form


def raw_records(rejects: Iterable[Reject], forms: Forms, job: Job) -> Iterator[bytes]:
    """Yield the records of rejects, each with its line end, below the header if the format has one.

    A delimited file has the dialect, the header and the `--encoding` of its source; all other formats
    become JSON Lines.
    """
    known: Form | None = None
    encode = _encoder(job.options.encoding)
    end = b"\n"
    for reject in rejects:
        form = forms.of(reject.source)
        if known is None:
            header = str(form.get("header", ""))
            end = b"\r\n" if header.endswith("\r\n") else b"\n"
            if header:
                yield encode(header.rstrip("\r\n").encode() + end)
        known = form
        yield encode((reject.raw if "header" in form else on_one_line(reject.raw)) + end)


class _Encoder:
    """Writes text in another encoding, which may begin with a byte order mark."""

    def __init__(self, encoding: str) -> None:
        self._encode = codecs.getincrementalencoder(encoding)().encode

    def __call__(self, text: bytes) -> bytes:
        """Return text in the encoding; as it is, if that has not its characters."""
        try:
            return self._encode(text.decode())
        except UnicodeError:
            return text


def _encoder(encoding: str | None) -> _Encoder:
    try:
        return _Encoder(encoding or "utf-8")
    except LookupError:
        return _Encoder("utf-8")
