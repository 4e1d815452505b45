"""DuckDB: rows, ledger and rejects of a chunk in one transaction of one file, by way of Arrow."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from batchimport import failpoints
from batchimport.errors import BatchImportError, DataError
from batchimport.model import DRY_RUN, EXTRA_COLUMN
from batchimport.schema import Column
from batchimport.sinks.base import SinkHints, SinkOptions
from batchimport.sinks.duckdb.constraints import (
    CONSTRAINTS,
    UNIQUE,
    UNIQUE_INDEXES,
    Refusals,
    Refused,
)
from batchimport.sinks.duckdb.dialect import (
    CATALOGUE,
    ROW,
    TYPES,
    Reading,
    TableColumn,
    field_error,
    is_exact,
    match_columns,
    reading,
    table_column,
    translate,
    unquoted,
)
from batchimport.sinks.duckdb.file import Scratch, Stream, check_place, connect, path_of
from batchimport.sinks.duckdb.writing import Writing
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.ledger import Ledger
from batchimport.sinks.sql.statements import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.model import ChunkResult, Committed, Job, Reject
    from batchimport.sinks.base import JobRecord, StoreRequest

ROW_GROUP = 122_880
"""Rows that DuckDB compresses and writes as one; smaller transactions write them twice."""

_VIEW = "batchimport_frame"


class DuckdbSink(Ledger):
    """One DuckDB file, one connection, shared by the threads of this process.

    The file's lock keeps every other process out for as long as it is open.
    """

    hints = SinkHints(writers=1, preferred_records=ROW_GROUP)
    types = TYPES
    names_have_case = False

    def __init__(self, address: str, options: SinkOptions = SinkOptions()) -> None:
        super().__init__(options.ledger_schema)
        self.path = path_of(address)
        self._lock = threading.RLock()
        self._written: tuple[Column, ...] = ()
        self._columns: list[TableColumn] = []
        self._readings: dict[str, Reading] = {}
        check_place(self.path, create=options.create)
        self._scratch: Scratch | None = None
        if options.dry_run:
            self._scratch = Scratch(self.path)
            self.hints = replace(self.hints, delivery=DRY_RUN)
        self._connection = connect(self.path, self._scratch.path if self._scratch else self.path)

    # -- the job ------------------------------------------------------------------------------

    def join(self, job: Job, record: JobRecord) -> None:
        """Work on a job at the epoch of this record."""
        super().join(job, record)
        if record.columns:
            self._read_catalogue(record.columns)

    def _read_catalogue(self, columns: Sequence[Column]) -> None:
        """Learn how each column of a frame, shown as `c0`, `c1`, …, gets into the table."""
        self._written = tuple(columns)
        self._columns = self._catalogue(self._table)
        matched = match_columns(self._table, self._columns, columns)
        self._readings = {
            matched[column.name].name: reading(
                column.kind, matched[column.name].type_name, f"c{at}"
            )
            for at, column in enumerate(columns)
        }

    def _catalogue(self, table: str) -> list[TableColumn]:
        return [table_column(row) for row in self._rows(CATALOGUE, self._place(table))]

    def exact_columns(self, table: str) -> frozenset[str]:
        """Return the columns, in lower case, that hold numbers as they are written."""
        known = self._catalogue(table)
        return frozenset(each.name.lower() for each in known if is_exact(each.type_name))

    def _match(self, table: str, columns: Sequence[Column]) -> dict[str, str]:
        matched = match_columns(table, self._catalogue(table), columns)
        return {name: column.name for name, column in matched.items()}

    def _create_ledger(self) -> None:
        if self._ledger_schema:
            self._run(f"CREATE SCHEMA IF NOT EXISTS {quote(self._ledger_schema)}")
        super()._create_ledger()

    def _unique_keys(self, table: str) -> list[frozenset[str]]:
        place = self._place(table)
        constraints = [row[3] for row in self._rows(CONSTRAINTS, place) if row[0] in UNIQUE]
        indexes = [row[0] for row in self._rows(UNIQUE_INDEXES, place)]
        return [frozenset(map(unquoted, names)) for names in (*constraints, *indexes)]

    # -- a chunk ------------------------------------------------------------------------------

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them."""
        with self._lock:
            if EXTRA_COLUMN in request.frame.columns:
                self._ensure_extra_column()
            try:
                self._look_before(request.frame)
                return self._commit(request, {})
            except DataError:
                refused = self._refusals(request.frame)
            try:
                return self._commit(request, refused)
            except DataError:
                return self._commit(request, self._try_out(request, refused))

    def _commit(self, request: StoreRequest, refused: Refused) -> ChunkResult:
        chunk, frame = request.chunk, request.frame
        errors = {at: refused[at] for at in sorted(refused) if refused[at]}
        rejects = [*request.rejects, *(request.rejecter(at, why) for at, why in errors.items())]
        with self._transaction():
            job = self._fence()
            known = self._overlaps(job.job_id, request)
            if known:
                return statements.already_committed(chunk, known)
            result = statements.outcome(request, rejects, len(errors))
            values = statements.chunk_values(job.job_id, request, result, job.epoch)
            marks = ", ".join("?" * len(values))
            self._run(
                f"INSERT INTO {self._chunks} ({statements.CHUNK_COLUMNS}) VALUES ({marks})", values
            )
            failpoints.reach("after-ledger-row")
            stored = self._store_rows(_without(frame, refused), chunk.offset)
            failpoints.reach("after-rows")
            self._insert_rejects(job.job_id, rejects)
            if stored != result.successful:
                ignored = result.successful - stored
                result = statements.outcome(request, rejects, len(errors), ignored)
                self._run(
                    f"UPDATE {self._chunks} SET successful = ?, filtered = ? "
                    "WHERE job_id = ? AND lo = ?",
                    (result.successful, result.filtered, job.job_id, chunk.lo),
                )
            failpoints.reach("before-commit")
        return result

    def _overlaps(self, job_id: str, request: StoreRequest) -> list[Committed]:
        rows = self._rows(
            f"SELECT {statements.CHUNK_COLUMNS} FROM {self._chunks} WHERE job_id = ? AND lo < ? AND hi > ?",
            (job_id, request.chunk.hi, request.chunk.lo),
        )
        return [statements.committed(row) for row in rows]

    def _store_rows(self, frame: pl.DataFrame, offset: int) -> int:
        """Store rows; return how many were not left out.

        Args:
            offset: Number of the chunk's first record.
        """
        if frame.height == 0:
            return 0
        with self._shown(frame) as view:
            rows = Writing(self._name(self._table), self._readings, view, self._key)
            if self._on_conflict == "ignore":
                return int(self._rows(rows.append_new())[0][0])
            if self._on_conflict == "update":
                assert self._job is not None  # noqa: S101 - claim comes first
                keys = self._name(self._keys_table(self._job.job_id))
                self._run(rows.upsert(keys, offset))
                self._run(rows.remember(keys, offset))
            else:
                self._run(rows.append())
        return frame.height

    def _insert_rejects(self, job_id: str, rejects: Sequence[Reject]) -> None:
        if not rejects:
            return
        rows = [statements.reject_values(job_id, reject) for reject in rejects]
        names = statements.REJECT_COLUMNS.split(", ")
        types = {"line": pl.Int64}  # not only nulls where a source has no lines
        frame = pl.DataFrame(
            rows, names, schema_overrides=types, orient="row", infer_schema_length=None
        )
        with self._view(frame) as view:
            self._run(
                f"INSERT INTO {self._rejects} ({statements.REJECT_COLUMNS}) SELECT * FROM {view}"
            )

    def _ensure_extra_column(self) -> None:
        if EXTRA_COLUMN in self._readings:
            return
        known = self._catalogue(self._table)
        if EXTRA_COLUMN not in {each.name.lower() for each in known}:
            self._run(
                f"ALTER TABLE {self._name(self._table)} ADD COLUMN {quote(EXTRA_COLUMN)} JSON"
            )
        self._read_catalogue([*self._written, Column(EXTRA_COLUMN, "json")])

    # -- refused rows -------------------------------------------------------------------------

    def _look_before(self, frame: pl.DataFrame) -> None:
        """Look for values that DuckDB would store, but as other ones.

        Raises:
            DataError: If there is one, or if rows may be left out for later ones of the same key:
                then no constraint would look at them.
        """
        if self._on_conflict == "update":
            raise DataError("every row is to be judged")
        guards = [
            f"({each.value} IS NOT NULL AND NOT coalesce(TRY({each.guard}), false))"
            for each in self._readings.values()
            if each.guard
        ]
        if not guards:
            return
        with self._shown(frame) as view:
            if self._rows(f"SELECT 1 FROM {view} WHERE {' OR '.join(guards)} LIMIT 1"):
                raise DataError("a value would be changed")

    def _refusals(self, frame: pl.DataFrame) -> Refused:
        place = self._place(self._table)
        with self._shown(frame) as view:
            return Refusals(self._rows, place, self._columns, self._readings, view).find(
                self._on_conflict, self._key
            )

    def _try_out(self, request: StoreRequest, refused: Refused) -> Refused:
        """Find the rows that make the table fail by storing more and more of them, in vain.

        For faults that no query tells, so that few rows are left to find; after one of them the
        steps start small and double.
        """
        frame = request.frame
        refused, kept = dict(refused), list[int]()
        open_rows = [at for at in range(frame.height) if at not in refused]
        at, step = 0, frame.height
        while at < len(open_rows):
            piece = open_rows[at : at + step]
            error = self._trial(frame[[*kept, *piece]], request.chunk.offset)
            if error is None:
                kept += piece
                at, step = at + len(piece), step * 2
            elif len(piece) == 1:
                refused[piece[0]] = [field_error(error)]
                at, step = at + 1, 1
            else:
                step = max(1, len(piece) // 2)
        return refused

    def _trial(self, frame: pl.DataFrame, offset: int) -> DataError | None:
        """Store rows and undo it; return the error if there was one."""
        with self._lock:
            self._run("BEGIN")
            try:
                self._store_rows(frame, offset)
            except DataError as error:
                return error
            finally:
                self._run("ROLLBACK")
        return None

    # -- statements ---------------------------------------------------------------------------

    @contextmanager
    def _shown(self, frame: pl.DataFrame) -> Iterator[str]:
        """Show a chunk's frame to SQL: its rows by their number, its columns by their place."""
        given = [
            pl.col(column.name)
            if column.name in frame.columns
            else pl.repeat(None, frame.height, dtype=pl.String())
            for column in self._written
        ]
        placed = frame.select(value.alias(f"c{at}") for at, value in enumerate(given))
        with self._view(placed.with_row_index(ROW)) as view:
            yield view

    @contextmanager
    def _view(self, frame: pl.DataFrame) -> Iterator[str]:
        """Show a frame to SQL; a transaction that failed takes the view with it."""
        self._connection.register(_VIEW, Stream(frame))
        try:
            yield f"temp.{_VIEW}"
        finally:
            with suppress(duckdb.Error):
                self._connection.unregister(_VIEW)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._run("BEGIN")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                with suppress(BatchImportError):  # a COMMIT that failed has rolled back
                    self._run("ROLLBACK")
                raise

    def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        self._rows(statement, values)

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(statement, list(values)).fetchall()
            except duckdb.Error as error:
                raise translate(error, str(self.path)) from error

    def _is_ours(self, job_id: str, epoch: int) -> bool:
        """Say whether the epoch is the job's; writing it makes a claim of the same time fail."""
        return bool(
            self._rows(
                f"UPDATE {self._jobs} SET heartbeat_at = ? WHERE job_id = ? AND epoch = ? RETURNING 1",
                (statements.now(), job_id, epoch),
            )
        )

    def _exists(self, table: str) -> bool:
        return bool(
            self._rows(
                "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
                "AND schema_name = ? AND lower(table_name) = lower(?)",
                self._place(table),
            )
        )

    def _place(self, table: str) -> tuple[str, str]:
        """Return the schema and the name of a table; a dot parts them."""
        schema, dot, name = table.partition(".")
        return (schema, name) if dot and schema and name else ("main", table)

    def _name(self, table: str) -> str:
        return ".".join(map(quote, self._place(table)))

    def close(self) -> None:
        """Close the file; DuckDB then moves what is in its log into it."""
        self._connection.close()
        if self._scratch is not None:
            self._scratch.remove()


def _without(frame: pl.DataFrame, refused: Refused) -> pl.DataFrame:
    return frame[[at for at in range(frame.height) if at not in refused]] if refused else frame
