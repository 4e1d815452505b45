"""Nothing is called completed that does not add up."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from batchimport.errors import AccountsError
from batchimport.jobs.finish import reconcile
from batchimport.model import Chunk, Committed, FieldError, Position, Reject
from batchimport.sinks.sql import statements
from batchimport.state.json_text import json_text


def done(first: int, last: int, successful: int, failed: int = 0, filtered: int = 0) -> Committed:
    chunk = Chunk(Position(first * 10, first, first + 1), Position(last * 10, last, last + 1))
    return Committed(chunk, successful, failed, filtered, "")


def test_what_adds_up_passes() -> None:
    """A tiling ledger with an outcome for each record; a limit may leave the tail."""
    reconcile([done(0, 5, 3, 1, 1), done(5, 9, 4)], 90, 9, None)
    reconcile([done(0, 5, 5)], 90, 5, 5)
    reconcile([], 0, 0, None)


@pytest.mark.parametrize(
    ("ledger", "total"),
    [
        ([done(0, 5, 5)], 9),
        ([done(0, 5, 5)], 5),
        ([done(0, 4, 4), done(5, 9, 4)], 9),
        ([done(0, 4, 4), done(5, 9, 4)], 8),
        ([done(0, 5, 5), done(4, 9, 5)], 9),
        ([done(0, 5, 4), done(5, 9, 4)], 9),
        ([done(0, 9, 9)], 10),
        ([done(0, 9, 9)], None),
    ],
    ids=[
        "tail",
        "tail-uncounted",
        "gap",
        "gap-uncounted",
        "overlap",
        "outcome",
        "count",
        "uncounted",
    ],
)
def test_what_does_not_add_up_is_never_completed(
    ledger: list[Committed], total: int | None
) -> None:
    """Whatever is missing, doubled or uncounted."""
    with pytest.raises(AccountsError):
        reconcile(ledger, 90, total, None)


@pytest.mark.parametrize("value", ["é", "\ud800", float("inf"), 2**70, None, 1.5, "\0"])
def test_a_reject_comes_out_of_the_ledger_as_it_went_in(value: object) -> None:
    """Whether this version wrote its errors or an earlier one did, in JSON of its own kind."""
    error = FieldError("type", "name", "is not an integer", value)
    given = Reject(3, "users.jsonl", None, 70, "validate", (error,), b"{}\xff")
    row = statements.rejects_frame("users-1", [given]).row(0)
    earlier = (*row[:6], json.dumps([error.to_dict()]), *row[7:])
    assert statements.rejects([earlier]) == [given]
    stored = None if value == float("inf") else value  # which JSON cannot say
    assert statements.rejects([row]) == [replace(given, errors=(replace(error, value=stored),))]
    assert row[6].isascii()
    written = json_text(given.to_dict())
    assert json.loads(written)["errors"] == [error.to_dict() | {"value": stored}]
