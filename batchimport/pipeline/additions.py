"""Columns that say where a record is from: `--add-column`.

They are added to valid records before the transform, so that it sees them; a schema does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batchimport.errors import UsageError
from batchimport.model import INDEX
from batchimport.rules import pairs_of
from batchimport.schema.columns import RESERVED, Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Kind, SourceOptions
    from batchimport.sources.base import Batch

_KINDS: dict[str, Kind] = {"record": "integer", "line": "integer", "loaded_at": "date-time"}


@dataclass(frozen=True, slots=True)
class Additions:
    """The columns to add, by what is in them.

    Attributes:
        job_id: The job; `loaded_at` is when it began, in ISO 8601: the same in all of its runs.
    """

    wanted: tuple[tuple[str, str], ...] = ()
    job_id: str = ""
    loaded_at: str = ""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns."""
        return tuple(Column(name, _KINDS.get(what, "string")) for name, what in self.wanted)

    def refuse_known(self, columns: Sequence[Column]) -> None:
        """Refuse a column that the records have themselves.

        Raises:
            UsageError: If there is one.
        """
        known = {column.name for column in columns}
        for name, _ in self.wanted:
            if name in RESERVED:
                raise UsageError(f"a column cannot be called {name}", where="--add-column")
            if name in known:
                raise UsageError(
                    f"the records have a key {name} themselves",
                    where="--add-column",
                    hint="choose another name, or --rename the key",
                )

    def add_to(self, frame: pl.DataFrame, batch: Batch) -> pl.DataFrame:
        """Return the valid records of a chunk with the columns."""
        if not self.wanted:
            return frame
        indices = frame.get_column(INDEX)
        values = [self._values(what, indices, batch).alias(name) for name, what in self.wanted]
        return frame.with_columns(values)

    def _values(self, what: str, indices: pl.Series, batch: Batch) -> pl.Series:
        if what in ("file", "record", "line"):
            name = "source" if what == "file" else what
            rejects = (batch.raw_records.reject(index, "store", ()) for index in indices)
            places = [getattr(reject, name) for reject in rejects]
            return pl.Series(places, dtype=pl.String if what == "file" else pl.Int64)
        own = {"job": self.job_id, "loaded_at": self.loaded_at}
        value = own.get(what) or _constant(what)
        return pl.Series([value], dtype=pl.String).new_from_index(0, len(indices))


NOTHING = Additions()


def additions(options: SourceOptions, job_id: str = "", loaded_at: str = "") -> Additions:
    """Return the columns that options ask for."""
    wanted = pairs_of("--add-column", options.add_columns)
    return Additions(tuple(wanted.items()), job_id, loaded_at)


def _constant(text: str) -> str:
    """Return a constant without the quotes that may be around it."""
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text
