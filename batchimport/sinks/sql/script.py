"""The user's own SQL, cut into statements: what stands in quotes, comments and bodies is not cut."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchimport.errors import FatalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
      | [eE]'(?:[^'\\]|\\.|'')*'
      | '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
      | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
      | (?P<word>[^\W\d][\w$]*)
      | (?P<end>;)
      | .""",
    re.VERBOSE | re.DOTALL,
)
_OF_TRANSACTIONS = {"BEGIN", "COMMIT", "ROLLBACK", "END", "ABORT", "START", "SAVEPOINT", "RELEASE"}
_HAVE_BODIES = {"TRIGGER", "FUNCTION", "PROCEDURE"}
SHOWN = 60
"""Characters of a statement that an error shows."""


def statements_of(text: str, option: str) -> list[str]:
    """Return the statements of a script, without those that are empty.

    Raises:
        UsageError: If there is none, or one that begins or ends a transaction: they are a part of one.
    """
    found = list(_cut(text))
    if not found:
        raise UsageError("has no statement", where=option)
    for words, statement in found:
        if words[0] in _OF_TRANSACTIONS:
            raise UsageError(
                f"begins or ends a transaction: {shown(statement)}",
                where=option,
                hint="leave it out: the statements are a part of the job's own transaction",
            )
    return [statement for _, statement in found]


def failed(number: int, count: int, statement: str, option: str, message: str) -> FatalError:
    """Return the error for a statement that the database refuses.

    Args:
        number: Which one it is, from 1.
        count: How many there are.
    """
    left = {
        "--after-sql": "correct it and run the same command again: all records are stored, and only "
        "this is left",
        "--before-sql": "nothing was changed; correct it and run the same command again",
    }
    which = f"statement {number} of {count}" if count > 1 else "the statement"
    return FatalError(f"{which} failed ({shown(statement)}): {message}", option, left.get(option))


def shown(statement: str) -> str:
    """Return a statement on one line, cut off if it is long."""
    line = " ".join(statement.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _cut(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield the words of each statement, in upper case, and its text."""
    words: list[str] = []
    start = at = 0
    is_empty, in_body, since_end = True, False, list[str]()
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token is not None  # noqa: S101 - its last branch takes any character
        at = token.end()
        if token["space"]:
            continue
        if token["dollar"]:  # as PostgreSQL quotes bodies
            close = text.find(token["dollar"], at)
            at = len(text) if close < 0 else close + len(token["dollar"])
        if token["word"]:
            words.append(token["word"].upper())
            since_end.append(words[-1])
            in_body = in_body or _opens_body(words)
        if token["end"] and in_body and since_end != ["END"]:
            since_end = []
            continue
        if token["end"]:
            if not is_empty:
                yield words or [""], text[start : at - 1].strip()
            words, start, is_empty, in_body, since_end = [], at, True, False, []
            continue
        is_empty = False
    if not is_empty:
        yield words or [""], text[start:].strip()


def _opens_body(words: list[str]) -> bool:
    """Say whether a body of several statements begins: of a trigger, or `BEGIN ATOMIC`."""
    is_made = words[0] == "CREATE" and not _HAVE_BODIES.isdisjoint(words[:6])
    return is_made and words[-1] == "BEGIN"
