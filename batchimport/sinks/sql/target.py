"""The table that a job stores into, as a database describes it, and what the table did with rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from batchimport.model import ABSENT, INDEX

if TYPE_CHECKING:
    import polars as pl

    from batchimport.model import (
        FieldError,
        NewColumns,
        OnConflict,
    )
    from batchimport.schema import Column, Kind


Rows = list[tuple[Any, ...]]

Family = Literal["text", "integer", "number", "boolean", "date", "timestamp", "instant", "other"]
"""What a column of a table holds, as far as cells are read for it; `timestamp` is one without a zone, `instant`
one with it, `integer` one of at most 64 bits."""

Refused = dict[int, "list[FieldError]"]
"""Rows that the table refuses, by their 0-based place in the frame, with the reasons."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a table did with the rows of a chunk, counted by the database; the others were inserted.

    Attributes:
        refused: Rows that the table refuses, with the reasons.
        updated: Number of rows that changed or replaced a row that was there.
        ignored: Number of rows that `--on-conflict ignore` left out.
        skipped: Number of rows that a trigger, a rule or a conflict clause of the table left out.
    """

    refused: Refused = field(default_factory=dict)
    updated: int = 0
    ignored: int = 0
    skipped: int = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """What the ledger keeps, in the order of `OUTCOME_COLUMNS`."""
        return self.updated, self.ignored, self.skipped


RECORD = INDEX
"""Column of a table of keys: number of the record that wrote the key last. No table of a user has
a column of this name."""


@dataclass(frozen=True, slots=True)
class TableColumn(ABC):
    """A column of an existing table, as the catalogue describes it.

    Attributes:
        type_name: Its type, to show to the user.
        is_filled: It may be left out: it has a default, is generated, or may be null.
        is_generated: It takes no values.
    """

    name: str
    type_name: str
    is_filled: bool
    is_generated: bool

    @abstractmethod
    def takes(self, kind: Kind) -> bool:
        """Say whether values of this kind fit the type, so that none is changed or lost.

        A string may be taken by a type that reads it strictly, and refuses the row if it cannot.
        """

    @property
    def is_exact(self) -> bool:
        """Say whether it holds numbers of any length exactly as they are written."""
        return False

    @property
    def family(self) -> Family:
        """Say what it holds, as far as cells are read for it."""
        return "other"


@dataclass(frozen=True, slots=True)
class Target:
    """The table of a job, and how rows get into it.

    Attributes:
        table: Its name as the user gave it.
        name: Its name as SQL.
        columns: Each column of a frame with the table's own column that it goes to.
        key: The table's own names of the columns of `--key`.
        keys: Name, as SQL, of the table that knows which record wrote each key last.
        new_columns: What becomes of keys that it has no column for.
        missing: Columns of a frame that it does not have.
    """

    table: str
    name: str
    columns: tuple[tuple[Column, TableColumn], ...]
    on_conflict: OnConflict
    key: tuple[str, ...]
    keys: str
    new_columns: NewColumns = "extra"
    missing: tuple[Column, ...] = ()

    @property
    def frame_names(self) -> list[str]:
        """Names of the columns in a frame."""
        return [column.name for column, _ in self.columns]

    @property
    def table_names(self) -> list[str]:
        """Names of the same columns in the table."""
        return [own.name for _, own in self.columns]

    def absent_in(self, frame: pl.DataFrame) -> dict[str, str]:
        """Return the table's columns that some row of a frame leaves alone, and which column says so."""
        return {
            own.name: ABSENT + column.name
            for column, own in self.columns
            if ABSENT + column.name in frame.columns
        }


class LedgerTables(NamedTuple):
    """Names of the ledger's tables, as SQL."""

    jobs: str
    chunks: str
    rejects: str
