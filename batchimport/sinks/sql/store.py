"""How a chunk is stored in a database, and how a run ends: a claimed job, whatever the dialect."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from batchimport import failpoints
from batchimport.errors import DataError, TransientError
from batchimport.model import ABSENT, EXTRA_COLUMN, ChunkResult, FieldError
from batchimport.schema import Column
from batchimport.sinks.sql import statements
from batchimport.sinks.sql.cells import read
from batchimport.sinks.sql.circles import circles
from batchimport.sinks.sql.completion import complete
from batchimport.sinks.sql.table import with_columns
from batchimport.sinks.sql.target import RECORD, Outcomes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchimport.sinks.base import JobRecord, SinkHints, StoreRequest
    from batchimport.sinks.sql.circles import ForeignKey, Key
    from batchimport.sinks.sql.dialect import ChunkTransaction, Dialect
    from batchimport.sinks.sql.target import Refused, Target


PROBES = 100
"""Rows that are looked for by one statement."""


class SqlClaim:
    """A job that this process may store into, at one epoch.

    Attributes:
        record: The job as the ledger has it.
        hints: What suits its table.
        surplus: Rows that the table had too many when the job was claimed to replay its rejects.
    """

    surplus = 0

    def __init__(
        self, database: Dialect, record: JobRecord, target: Target, hints: SinkHints
    ) -> None:
        self.record, self.hints = record, hints
        self._database, self._target = database, target

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit ledger row, rows and rejects in one transaction, or nothing of them."""
        placed, target = self._placed(request)
        if target.on_conflict == "update":
            frame = _marked(placed.frame, set(request.frame.columns), target)
            placed = replace(placed, frame=frame)
        if request.together:
            return self._store_circles(placed, target)
        return self._commit(placed, target)

    def _commit(self, request: StoreRequest, target: Target) -> ChunkResult:
        """Store a chunk into a table that has all of its columns.

        The ledger row comes first, so that of two attempts at the same chunk the second one waits
        for the first, and then finds the row.
        """
        seconds = request.timeout_seconds
        with self._database.chunk_transaction(self.record, target, seconds) as transaction:
            transaction.fence()
            if not transaction.begin(request):
                known = transaction.overlapping(request.chunk)
                return statements.already_committed(
                    request.chunk, known, [part for part, _ in request.parts]
                )
            failpoints.reach("after-ledger-row")
            outcomes = (
                transaction.store_rows(request.frame, request.chunk.offset)
                if request.frame.height
                else Outcomes()
            )
            failpoints.reach("after-rows")
            result = transaction.insert_rejects(request, outcomes)
            failpoints.reach("before-commit")
        return result

    def _store_circles(self, request: StoreRequest, target: Target) -> ChunkResult:
        """Commit those rows that refer to one another in a circle; leave the others as they are.

        They are inserted, whatever `--on-conflict` says: a row whose key is there needs no circle.
        """
        database, stored = self._database, 0
        numbers = [request.rejecter(place, ()).record for place in range(request.frame.height)]
        names = dict(zip(target.frame_names, target.table_names, strict=True))
        frame = request.frame.select(target.frame_names).rename(names)
        keys, unique = database.foreign_keys(target.table), database.unique_keys(target.table)
        seconds = request.timeout_seconds
        with suppress(DataError), database.chunk_transaction(self.record, target, seconds) as own:
            own.fence()
            places = circles(frame, keys, unique, partial(_present, own))
            if places:
                frame, numbers_of = frame[places], [numbers[place] for place in places]
                for chunk, records in request.together:
                    mine = tuple(set(records).intersection(numbers_of))
                    part = replace(request, chunk=chunk, rejects=(), filtered=0, replayed=mine)
                    part = replace(part, frame=frame.head(len(mine)))  # how many they are
                    if mine and not own.begin(part):
                        raise TransientError("another attempt has stored these records")
                    if mine:
                        own.insert_rejects(part, Outcomes())
                failpoints.reach("after-ledger-row")
                if not own.insert_together(frame):
                    raise DataError("the table does not take them together")
                if target.on_conflict == "update":
                    record = pl.Series(RECORD, numbers_of, dtype=pl.Int64)
                    own.insert(target.keys, frame.select(target.key).with_columns(record))
                failpoints.reach("after-rows")
                failpoints.reach("before-commit")
            stored = len(places)
        return ChunkResult(request.chunk, stored, len(numbers) - stored, 0, request.digest)

    def _placed(self, request: StoreRequest) -> tuple[StoreRequest, Target]:
        """Read cells as their columns hold them, and find a place for keys that have no column."""
        frame, columns, unread = read(request.frame, self._target.columns)
        request = without(replace(request, frame=frame), unread)
        target = replace(self._target, columns=columns)
        frame = with_extra(request.frame, target.missing)
        request = replace(request, frame=frame)
        if EXTRA_COLUMN not in frame.columns or EXTRA_COLUMN in target.frame_names:
            return request, target
        if target.new_columns == "extra":
            return request, with_columns(self._database, target, [Column(EXTRA_COLUMN, "json")])
        extra = frame.get_column(EXTRA_COLUMN)
        keys = {place: _raw_items(extra[place]) for place in extra.is_not_null().arg_true()}
        frame, adds = frame.drop(EXTRA_COLUMN), target.new_columns == "add"
        # A key that differs from a column only in case, or beyond what is kept of a name, cannot be
        # added as a column.
        place_of = {
            name: self._database.shortened(name).lower()
            for items in keys.values()
            for name in items
        }
        taken = dict.fromkeys((name.lower() for name in target.table_names), "")
        for name in sorted(place_of):
            taken.setdefault(place_of[name], name)
        refused = {
            place: [_unknown(name, items[name]) for name in unknown]
            for place, items in keys.items()
            if (unknown := [name for name in items if not adds or taken[place_of[name]] != name])
        }
        if adds:
            names = sorted(name for name in place_of if taken[place_of[name]] == name)
            new = [Column(name, "json") for name in names]
            target = with_columns(self._database, target, new)
            frame = frame.with_columns(
                pl.Series(
                    column.name,
                    [keys.get(place, {}).get(column.name) for place in range(frame.height)],
                    dtype=pl.String,
                )
                for column in new
            )
        return without(replace(request, frame=frame), refused), target

    def finish(self, state: str, total_items: int | None) -> int | None:
        """Record how the run ended; return how many rows too many the table has.

        With the completion comes what belongs to it: the move of `--atomic`, and `--after-sql`. Neither
        is done twice if this is called again since nobody heard of its commit.
        """
        job_id, database = self.record.job_id, self._database
        with database.transaction():
            database.hold(self.record)
            record = database.record_of(job_id)
            mismatch = database.surplus(record)
            mismatch = None if mismatch is None else mismatch - self.surplus
            if mismatch:  # never "completed", not even for a moment: the process may be killed
                state = "interrupted"
            if state == "completed" != record.state:
                complete(database, record)
            database.run(
                f"UPDATE {database.tables.jobs} SET state = ?, heartbeat_at = ?, "
                "total_items = coalesce(?, total_items) WHERE job_id = ?",
                (state, statements.now(), total_items, job_id),
            )
            if state == "completed" and not self._has_rejects():
                database.run(f"DROP TABLE IF EXISTS {database.keys_table(job_id)}")
        return mismatch

    def _has_rejects(self) -> bool:
        """Say whether some record may still be replayed: then it matters who wrote each key last."""
        query = f"SELECT 1 FROM {self._database.tables.rejects} WHERE job_id = ? LIMIT 1"
        return bool(self._database.rows(query, (self.record.job_id,)))


def _present(transaction: ChunkTransaction, key: ForeignKey, wanted: Sequence[Key]) -> set[Key]:
    """Return those of some values that the columns have which a foreign key refers to."""
    found: set[Key] = set()
    same = " AND ".join(f"{statements.quote(name)} = ?" for name in key.parent_names)
    one = f"CASE WHEN EXISTS (SELECT 1 FROM {key.parent} WHERE {same}) THEN 1 ELSE 0 END"
    for at in range(0, len(wanted), PROBES):
        piece = wanted[at : at + PROBES]
        columns = ", ".join(f"{one} AS c{place}" for place in range(len(piece)))
        values = [transaction.parameter(value) for each in piece for value in each]
        row = transaction.rows(f"SELECT {columns}", values)[0]
        found.update(each for each, is_there in zip(piece, row, strict=True) if is_there)
    return found


def _marked(frame: pl.DataFrame, known: set[str], target: Target) -> pl.DataFrame:
    """Add columns that no record has; what came into the frame late is absent where it is null.

    Args:
        known: Columns that the frame had before.
    """
    lacking = [name for name in target.frame_names if name not in frame.columns]
    frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in lacking)
    late = {name for name in target.frame_names if name not in known}
    return frame.with_columns(
        (pl.lit(value=True) if name in late else pl.col(ABSENT + name)).alias(ABSENT + name)
        & pl.col(name).is_null()
        for name in target.frame_names
        if name in late or ABSENT + name in known
    )


def without(request: StoreRequest, refused: Refused) -> StoreRequest:
    """Return a chunk without the rows that are refused, which become rejects."""
    if not refused:
        return request
    kept = [place for place in range(request.frame.height) if place not in refused]
    made = [request.rejecter(place, refused[place]) for place in sorted(refused)]
    return replace(
        request,
        frame=request.frame[kept],
        numbers=None if request.numbers is None else request.numbers.gather(kept),
        rejects=[*request.rejects, *made],
        rejecter=lambda place, errors: request.rejecter(kept[place], errors),
    )


def with_extra(frame: pl.DataFrame, missing: Sequence[Column]) -> pl.DataFrame:
    """Move the values of columns that the table does not have into the column `_extra`."""
    found = [column for column in missing if column.name in frame.columns]
    if not found:
        return frame
    kinds = {column.name: column.kind for column in found}
    extra = frame.get_column(EXTRA_COLUMN) if EXTRA_COLUMN in frame.columns else [None] * len(frame)
    texts = [
        _joined(row, kinds, text)
        for row, text in zip(frame.select(list(kinds)).iter_rows(named=True), extra, strict=True)
    ]
    frame = frame.drop(list(kinds))
    if not any(texts):
        return frame
    return frame.with_columns(pl.Series(EXTRA_COLUMN, texts, dtype=pl.String))


def _joined(row: Mapping[str, object], kinds: Mapping[str, str], extra: str | None) -> str | None:
    """Return the values of a row as a JSON object, with those that are in `_extra`."""
    pairs = [extra.strip()[1:-1].strip()] if extra else []
    for name, value in row.items():
        if value is not None:
            text = value if kinds[name] == "json" else json.dumps(value, ensure_ascii=False)
            pairs.append(f"{json.dumps(name, ensure_ascii=False)}:{text}")
    pairs = [pair for pair in pairs if pair]
    return "{" + ",".join(pairs) + "}" if pairs else None


def _raw_items(text: str) -> dict[str, str]:
    """Return the values of a JSON object as they are written, nulls apart."""
    texts = ((name, bytes(raw).decode()) for name, raw in _decode_items(text).items())
    return {name: raw for name, raw in texts if raw != "null"}


_decode_items = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _unknown(name: str, text: str) -> FieldError:
    message = (
        "the table has no column for this key: --new-columns add makes one, --new-columns extra "
        "keeps it in a column _extra"
    )
    return FieldError("unknown_key", name, message, text[:200])
