"""What DuckDB's errors mean for the runner, and how values are read into columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batchimport.errors import (
    DataError,
    DestinationLockedError,
    FatalError,
    TransientError,
    UsageError,
)
from batchimport.sinks.duckdb.dialect import opening, reading, translate
from tests.helpers.cli import environment

LOCK = (
    'IO Error: Could not set lock on file "/d/u.duckdb": Conflicting lock is held in /usr/bin/python3 '
    "(PID 7) by user me. See also https://duckdb.org/docs"
)


@pytest.mark.parametrize(
    ("kind", "text", "meaning", "words"),
    [
        (duckdb.ConstraintException, "Constraint Error: Duplicate key", DataError, "Duplicate"),
        (duckdb.ConversionException, "Conversion Error: bad\n\nLINE 1: …", DataError, "bad"),
        (duckdb.OutOfRangeException, "Out of Range Error: too large", DataError, "too large"),
        (duckdb.TransactionException, "TransactionContext Error: Conflict", TransientError, "Conf"),
        (
            duckdb.TransactionException,
            'TransactionContext Error: Failed to commit: Could not write file "w": No space left',
            FatalError,
            "disk is full",
        ),
        (
            duckdb.TransactionException,
            'TransactionContext Error: Failed to commit: Could not write file "w": File too large',
            FatalError,
            "File too large",
        ),
        (duckdb.IOException, LOCK, DestinationLockedError, "another process"),
        (duckdb.CatalogException, "Catalog Error: no schema", UsageError, "no schema"),
        (duckdb.OutOfMemoryException, "Out of Memory Error: 1 GB", FatalError, "1 GB"),
        (
            duckdb.TransactionException,
            "TransactionContext Error: Failed to commit: failed to allocate data of size 64.0 KiB",
            FatalError,
            "allocate",
        ),
        (duckdb.FatalException, "FATAL Error: database is invalid", FatalError, "invalid"),
    ],
)
def test_errors_say_what_to_do(kind: Any, text: str, meaning: type, words: str) -> None:
    """By class; where that does not tell, by DuckDB's fixed words."""
    found = translate(kind(text), "/d/u.duckdb")
    assert type(found) is meaning
    assert words in found.message
    assert "LINE" not in found.message


INTERACTIVE = """
from pathlib import Path
import duckdb
from batchimport.sinks.duckdb.file import connect
for connection in (duckdb.connect(), connect(Path("u.duckdb"), Path("u.duckdb"))):
    print(*connection.execute("SELECT current_setting('enable_progress_bar')").fetchone())
"""


def test_it_draws_nothing_of_its_own(tmp_path: Path) -> None:
    """Where Python has no script, as in a notebook, DuckDB shows a progress bar on standard output."""
    command = [sys.executable, "-c", INTERACTIVE]
    said = subprocess.check_output(command, cwd=tmp_path, env=environment(), text=True)
    assert said.split() == ["True", "False"]


def test_who_holds_the_file_is_said() -> None:
    """By process id; a file that may not be opened is another matter."""
    assert "PID 7" in translate(duckdb.IOException(LOCK), "u").message
    denied = 'IO Error: Cannot open file "u": Permission denied'
    assert "cannot be written" in opening(duckdb.IOException(denied), "u").message


@pytest.mark.parametrize(
    ("kind", "type_name", "good", "bad"),
    [
        ("integer", "TINYINT", [127, -128], [128]),
        ("integer", "DOUBLE", [2**53], [2**53 + 1]),
        ("number", "INTEGER", [3.0], [3.5, 1e300]),
        ("string", "INTEGER", ["7", " -7 "], ["1.5", "7e1", "", "x"]),
        ("string", "DOUBLE", ["1e308", "inf"], ["1e309", "x"]),
        ("string", "DATE", ["2024-02-29"], ["2023-02-29", ""]),
        ("json", "DECIMAL(5,2)", ["1.10", "-999.99"], ["1000", '"x"', "true"]),
        ("json", "HUGEINT", ["170141183460469231731687303715884105727"], ["1.5", "x"]),
        ("json", "STRUCT(a INTEGER)", ['{"a": 1}'], ['{"a": "x"}', "[]"]),
        ("date-time", "TIMESTAMP", ["2024-01-01t00:00:00+01:00"], ["2024-01-01"[:7]]),
    ],
)
def test_only_what_fits_goes_in(kind: Any, type_name: str, good: list[Any], bad: list[Any]) -> None:
    """A value that would be stored as another one fails the guard, any other the cast."""
    with duckdb.connect() as connection:
        for value in [*good, *bad]:
            way = reading(kind, type_name, "$v")
            guard = f"coalesce(TRY({way.guard}), false)" if way.guard else "true"
            (row,) = connection.execute(
                f"SELECT TRY({way.cast}) IS NOT NULL AND {guard}".replace(
                    "$v", "CAST($v AS VARCHAR)" if isinstance(value, str) else "$v"
                ),
                {"v": value},
            ).fetchall()
            assert row[0] is (value in good), (kind, type_name, value)
