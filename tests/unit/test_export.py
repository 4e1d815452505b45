"""The rejects file: lines made column by column are those made one by one."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchimport.errors import FatalError
from batchimport.jobs.export import lines_of
from batchimport.model import FieldError, Reject
from batchimport.sinks.sql import statements
from batchimport.state.json_text import json_line

TEXTS = st.text() | st.sampled_from(
    ["", "a", "\\u0041", 'a"b\\', "é", "\ud83d", "\0", "\x7f\x85\u2028", "}"]
)
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXTS
ERRORS = st.builds(FieldError, st.just("enum") | TEXTS, TEXTS, TEXTS, VALUES)
STORABLE = st.text(st.characters(exclude_categories=["Cs"]))
REJECTS = st.builds(
    Reject,
    st.integers(0, 2**63 - 1),
    STORABLE,
    st.none() | st.integers(1, 9),
    st.integers(0, 9),
    st.sampled_from(["parse", "store"]),
    st.lists(ERRORS, min_size=1, max_size=3).map(tuple),
    st.binary() | TEXTS.map(lambda text: text.encode(errors="replace")),
)


@given(st.lists(REJECTS, min_size=1, max_size=8))
def test_lines_by_column_are_lines_one_by_one(rejects: list[Reject]) -> None:
    """Whatever rejects hold, and however their neighbours must be written."""
    rows = statements.rejects_frame("users-1", rejects)
    known = statements.rejects(rows.rows())
    text, errors = lines_of(rows)
    assert text == b"".join(json_line(reject.to_dict()) for reject in known)
    found = [[(error.code, error.field) for error in each] for each in errors]
    assert found == [[(error.code, error.field) for error in each.errors] for each in known]


@pytest.mark.parametrize("errors", ["", "[]", "[{}]", '[{"code": "a"}]', "[],[]", "{"])
def test_a_row_that_was_changed_by_hand_is_said(errors: str) -> None:
    """What is no list of errors is no line of the file."""
    rows = statements.rejects_frame(
        "users-1", [Reject(0, "a", 1, 0, "parse", (FieldError("a", "", ""),), b"")]
    )
    with pytest.raises(FatalError, match="_batchimport_rejects cannot be read"):
        lines_of(rows.with_columns(pl.lit(errors).alias("errors")))
