"""Deliberate mistakes: a named test must notice each of them, or it proves nothing.

`tests/faults/test_breaks.py` makes one mistake at a time, in a process of its own, and runs the tests
that must fail. `python -m tests.helpers.breaks NAME run …` is the command line with a mistake.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from batchimport import cli, failpoints, importer, system
from batchimport.cli import run
from batchimport.display import escape
from batchimport.engines.local import LocalEngine
from batchimport.errors import BatchImportError
from batchimport.jobs import finish, identify, stored
from batchimport.model import Chunk, ChunkResult
from batchimport.pipeline import chunk
from batchimport.policy import plan, stop_rules
from batchimport.sinks import redact
from batchimport.sinks.mysql.rows import MysqlTransaction
from batchimport.sinks.mysql.session import Session as MysqlSession
from batchimport.sinks.mysql.sink import MysqlSink
from batchimport.sinks.parquet import bucket, bucket_ledger, store
from batchimport.sinks.parquet import ledger as parquet_ledger
from batchimport.sinks.postgres import sink as postgres_sink
from batchimport.sinks.postgres.rows import PostgresTransaction
from batchimport.sinks.sql import completion, statements
from batchimport.sinks.sql.circles import circles
from batchimport.sinks.sql.dialect import ChunkTransaction, Dialect
from batchimport.sinks.sql.ledger import SqlSink
from batchimport.sinks.sql.store import SqlClaim
from batchimport.sinks.sqlite import sink as sqlite_sink
from batchimport.sinks.sqlite.rows import SqliteTransaction
from batchimport.sources.joined import JoinedRecords
from batchimport.sources.json_decoder import TypedDecoder
from batchimport.sources.jsonl.source import LineRecords
from batchimport.sources.parquet.footer import Footer
from batchimport.sources.text_lines import Lines
from batchimport.state import directory, files
from batchimport.state.files import TemporaryFile
from tests.helpers.cli import COMMAND

made = ""
"""The mistake of this process; those that it starts for its tests make the same one."""


def make(name: str) -> None:
    """Make a mistake in this process and in the commands that it runs; the empty name makes none."""
    global made  # noqa: PLW0603 - a process makes one mistake
    if name:
        made = name
        COMMAND[1:] = ["-m", "tests.helpers.breaks", name]
        BREAKS[name].make()


@dataclass(frozen=True)
class Break:
    """A mistake.

    Attributes:
        says: What is wrong then, for docs/promises.md.
        make: Make it in this process.
        tests: The tests that must fail, as pytest takes them.
        words: What each failure must say, as a regular expression: it fails for this reason.
    """

    says: str
    make: Callable[[], object]
    tests: Sequence[str]
    words: str


def _replace(function: Any, substitute: Any) -> None:
    """Put a function in the place of another one, in all modules that have imported it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("batchimport"):
            for key, value in list(vars(module).items()):
                if value is function:
                    setattr(module, key, substitute)


# -- exactly once --------------------------------------------------------------------------------


def _ledger_after_the_data() -> None:
    store = SqlClaim.store

    def store_twice(self: SqlClaim, request: Any) -> Any:
        result = store(self, request)
        failpoints.reach("before-commit")
        values = statements.chunk_values(self.record.job_id, request, result, self.record.epoch)
        self._database.run(
            f"INSERT INTO {self._database.tables.chunks} ({statements.CHUNK_COLUMNS}) "
            f"VALUES ({statements.marks(values)})",
            values,
        )
        return result

    ChunkTransaction.insert_chunk = lambda *_: True  # type: ignore[method-assign]
    SqlClaim.store = store_twice  # type: ignore[method-assign]


def _overlap_not_looked_for() -> None:
    def insert(self: ChunkTransaction, _: Chunk, values: tuple[Any, ...]) -> bool:
        self.run(
            f"INSERT INTO {self.tables.chunks} ({statements.CHUNK_COLUMNS}) "
            f"VALUES ({statements.marks(values)}) ON CONFLICT DO NOTHING",
            values,
        )
        return True

    def insert_ignoring(self: MysqlTransaction, _: Chunk, values: tuple[Any, ...]) -> bool:
        self.run(
            f"INSERT IGNORE INTO {self.tables.chunks} ({statements.CHUNK_COLUMNS}) "
            f"VALUES ({statements.marks(values)})",
            values,
        )
        return True

    ChunkTransaction.insert_chunk = insert  # type: ignore[method-assign]
    MysqlTransaction.insert_chunk = insert_ignoring  # type: ignore[method-assign]
    PostgresTransaction.insert_chunk = insert  # type: ignore[method-assign]
    parquet_ledger.ParquetLedger.overlapping = lambda *_: []  # type: ignore[method-assign]


def _no_epoch_check() -> None:
    Dialect.hold = lambda *_: None  # type: ignore[method-assign]
    PostgresTransaction.fence = lambda _: None  # type: ignore[method-assign]
    MysqlSink.hold = lambda *_: None  # type: ignore[method-assign]
    MysqlTransaction.fence = lambda _: None  # type: ignore[method-assign]
    parquet_ledger.ParquetLedger.hold = lambda *_: None  # type: ignore[method-assign]
    bucket_ledger.Jobs.held = lambda jobs, record: jobs.entries[record.job_id]  # type: ignore[method-assign]


def _fence_without_share() -> None:
    rows = PostgresTransaction.rows

    def unlocked(self: PostgresTransaction, statement: str, *values: Any) -> Any:
        return rows(self, statement.replace(" FOR SHARE", ""), *values)

    PostgresTransaction.rows = unlocked  # type: ignore[method-assign]


def _mysql_fence_unlocked() -> None:
    rows = MysqlTransaction.rows

    def unlocked(self: MysqlTransaction, statement: str, *values: Any) -> Any:
        return rows(self, statement.replace("LOCK IN SHARE MODE", ""), *values)

    MysqlTransaction.rows = unlocked  # type: ignore[method-assign]


def _mysql_warnings_ignored() -> None:
    load = MysqlSession.load
    MysqlSession.load = lambda *given: load(*given) or True  # type: ignore[method-assign]


def _interval_off_by_one() -> None:
    find_gaps = plan.find_gaps

    def late(size: int, committed: Iterable[Chunk]) -> Any:
        gaps = find_gaps(size, committed)
        return [(replace(at, position=at.position + bool(at.record)), end) for at, end in gaps]

    plan.find_gaps = late


def _restart_forgets_first() -> None:
    claim = SqlSink.claim

    def in_two_steps(
        self: Any, job: Any, record: Any, owner: str, instead_of: Any = (), *more: Any
    ) -> Any:
        with self.transaction():
            for old in instead_of:
                self._forget(old)
        failpoints.reach("after-forgetting")
        return claim(self, job, record, owner, (), *more)

    SqlSink.claim = in_two_steps  # type: ignore[method-assign]


def _owners_asked_last() -> None:
    refuse = stored.refuse_stored_content

    def late(job: Any, source: Any, sink: Any, *more: Any) -> None:
        found = sink.has_rows(job.table)
        sink.has_rows = lambda _: found
        refuse(job, source, sink, *more)

    _replace(refuse, late)


def _new_tables_not_seen() -> None:
    def exclude(self: Any) -> None:
        self.rows("SELECT pg_advisory_xact_lock(?)", (postgres_sink._CLAIMS,))

    postgres_sink.PostgresSink.exclude_claims = exclude  # type: ignore[method-assign]


# -- rejects and accounts ------------------------------------------------------------------------


def lose_a_line(patch: Callable[[Any, str, Any], object] = setattr) -> None:
    """Cut and read as if the last line of a chunk were not there.

    Args:
        patch: As `setattr`.
    """
    take, init = Lines._take, LineRecords.__init__

    def take_less(self: Lines, masked: bytes, end: int, limit: int) -> tuple[int, int, int]:
        size, records, lines = take(self, masked, end, limit)
        return size, records - (records > 1), lines

    def hold_less(
        self: LineRecords,
        name: str,
        chunk: Chunk,
        columns: Any,
        data: bytes,
        *rest: Any,
        **more: Any,
    ) -> None:
        lines = data.splitlines(keepends=True)
        less = b"".join(lines[:-1]) if len(lines) > 1 else data
        init(self, name, chunk, columns, less, *rest, **more)

    patch(Lines, "_take", take_less)
    patch(LineRecords, "__init__", hold_less)


def _replayed_and_kept() -> None:
    ChunkTransaction.take_rejects = lambda *_: True  # type: ignore[method-assign]


def _replayed_twice() -> None:
    take = ChunkTransaction.take_rejects

    def take_again(self: ChunkTransaction, request: Any) -> bool:
        return take(self, request) or True

    ChunkTransaction.take_rejects = take_again  # type: ignore[method-assign]


def _places_mixed_up() -> None:
    JoinedRecords._at = lambda self, index: (self._parts[-1], 0)  # type: ignore[method-assign]


def _counted_for_the_first_part() -> None:
    outcomes_of_parts = statements.outcomes_of_parts

    def careless(request: Any, rejects: Any, refused: Any = ()) -> list[ChunkResult]:
        found = outcomes_of_parts(request, rejects, refused)
        first = replace(found[0], failed=sum(part.failed for part in found))
        return [first, *(replace(part, failed=0) for part in found[1:])]

    _replace(outcomes_of_parts, careless)


def _no_part_by_itself() -> None:
    each = LocalEngine._import_each

    async def never(self: LocalEngine, chunks: Sequence[Chunk], turn: Any) -> bool:
        return len(chunks) > 1 or await each(self, chunks, turn)

    LocalEngine._import_each = never  # type: ignore[method-assign]


def _ledger_of_circles_first() -> None:
    insert = SqliteTransaction.insert_together

    def late(self: SqliteTransaction, frame: Any) -> bool:
        self.run("COMMIT")
        self.run("BEGIN IMMEDIATE")
        return insert(self, frame)

    SqliteTransaction.insert_together = late  # type: ignore[method-assign]


def _count_not_compared() -> None:
    reconcile = finish.reconcile

    def trusting(committed: Any, size: int, total: Any, limit: Any) -> None:
        del total
        reconcile(committed, size, sum(row.chunk.records for row in committed), limit)

    _replace(reconcile, trusting)


def _row_count_not_compared() -> None:
    Dialect.surplus = lambda *_: 0  # type: ignore[method-assign]
    parquet_ledger.ParquetLedger.foreign_rows = lambda _: 0  # type: ignore[method-assign]
    bucket_ledger.BucketLedger.foreign_rows = lambda _: 0  # type: ignore[method-assign]


def _repeated_keys_accepted() -> None:
    TypedDecoder._lines_with_repeated_keys = lambda *_: []  # type: ignore[method-assign]


def _given_up_is_no_failure() -> None:
    stop_rules.StopRule.incomplete = lambda _: None  # type: ignore[method-assign]


def _rerun_is_green() -> None:
    finished = importer._Run._finished

    def green(self: Any, summary: Any, code: int, *more: Any) -> Any:
        return finished(self, summary, 0 if summary.status == "already_completed" else code, *more)

    importer._Run._finished = green  # type: ignore[method-assign]


# -- on disk -------------------------------------------------------------------------------------


def _no_sync(is_kind: Callable[[int], bool]) -> None:
    """Do not wait until files of a kind, by their mode, are on disk."""
    sync = os.fsync

    def lazy(descriptor: int) -> None:
        if not is_kind(os.fstat(descriptor).st_mode):
            sync(descriptor)

    os.fsync = lazy  # type: ignore[assignment]


def _part_not_synced() -> None:
    @contextmanager
    def writing(self: TemporaryFile) -> Any:
        with open(self._descriptor, "wb", closefd=False) as stream:
            yield stream

    TemporaryFile.writing = writing  # type: ignore[method-assign]


def _sqlite_not_synced() -> None:
    sqlite_sink._PRAGMAS = (*sqlite_sink._PRAGMAS[:3], "PRAGMA synchronous=OFF")


def _postgres_not_synced() -> None:
    asked = "CASE WHEN current_setting('synchronous_commit') = 'off'"
    assert asked in postgres_sink._SESSION
    postgres_sink._SESSION = postgres_sink._SESSION.replace(asked, "CASE WHEN false")


def _report_not_written() -> None:
    write = files.write_atomically

    def careless(*arguments: Any) -> None:
        with suppress(BatchImportError):
            write(*arguments)

    _replace(write, careless)


# -- state, and what is shown ----------------------------------------------------------------------


def _later_format_believed() -> None:
    job_record = statements.job_record

    def trusting(row: Sequence[Any]) -> Any:
        return job_record([*row[:17], statements.FORMAT_VERSION])

    statements.job_record = trusting


def _fact_without_a_default() -> None:
    statements.JOB_COLUMNS += ", new_fact"


def _damage_believed() -> None:
    def trusting(self: Any, job_id: str) -> Any:
        with suppress(OSError, ValueError, RecursionError, KeyError, AttributeError):
            document = json.loads((self.folder(job_id) / "job.json").read_bytes())
            document.pop("digest")
            return document

    directory.StateDirectory.load = trusting  # type: ignore[method-assign]


def _pipe_is_a_failure() -> None:
    def strict(outcome: Any, output: Any, report: Any) -> None:
        del report
        assert output.json_
        sys.stdout.write(json.dumps(outcome.summary.to_dict()))
        sys.stdout.flush()

    run._report = strict


def _names_not_quoted() -> None:
    _replace(statements.quote, lambda name: f'"{name}"')


def _partial_records_wipe() -> None:
    _replace(chunk._with_absent, lambda done, batch: done.frame)


def _polars_reads_all_types() -> None:
    Footer.plain_columns = lambda self: []  # type: ignore[method-assign]


_CONTRACT = "tests/contract/test_sinks.py::"
_MYSQL = "tests/contract/test_mysql.py::"
_ONCE = "tests/contract/test_once.py::"
_FAULTS = "tests/faults/"
_EVERY_SINK = ("sqlite", "duckdb", "postgresql", "parquet", "mysql", "s3")

BREAKS: dict[str, Break] = {
    "partial-records-wipe": Break(
        "an update sets the columns to null whose keys a record lacks",
        _partial_records_wipe,
        ["tests/engine/test_finish.py::test_an_update_leaves_alone_what_a_record_lacks"],
        "assert",
    ),
    "polars-reads-all-types": Break(
        "timestamps of Spark beyond the year 2262 are read as Polars reads them",
        _polars_reads_all_types,
        ["tests/unit/test_parquet_source.py::test_timestamps_of_spark_have_all_years"],
        "assert",
    ),
    "ledger-after-the-data": Break(
        "the rows are committed first, and their ledger row in a transaction of its own",
        _ledger_after_the_data,
        [f"{_FAULTS}test_failpoints.py::test_killed_at_every_chunk[sqlite]"],
        "but the ledger says",
    ),
    "overlap-not-looked-for": Break(
        "an attempt does not look whether an earlier one has committed the chunk",
        _overlap_not_looked_for,
        [
            f"{_CONTRACT}test_the_contract[sqlite-a_chunk_that_overlaps_is_refused]",
            f"{_FAULTS}test_failpoints.py::test_an_attempt_that_breaks_is_tried_again[sqlite]",
        ],
        r"was not raised|assert",
    ),
    "interval-off-by-one": Break(
        "a resumed job begins a byte after the end of what is committed",
        _interval_off_by_one,
        [f"{_FAULTS}test_failpoints.py::test_killed_at_every_chunk[sqlite]"],
        "left with [17]",
    ),
    "restart-forgets-first": Break(
        "`--restart` forgets the old ledger in one transaction, and begins the new one in another",
        _restart_forgets_first,
        [f"{_FAULTS}test_failpoints.py::test_killed_over_a_restart[sqlite]"],
        "but the ledger says",
    ),
    "others-go-on": Break(
        "a killed job goes on in a table that another job has emptied since",
        lambda: _replace(completion.end_others, lambda *_, **__: None),
        [
            f"{_ONCE}test_a_killed_job_does_not_go_on_in_a_table_that_was_emptied[sqlite]",
        ],
        r"== \(6, True\)",
    ),
    "owners-asked-last": Break(
        "what is in the table is asked before who is at work, who may have ended by then",
        _owners_asked_last,
        [f"{_FAULTS}test_starts.py::test_one_that_ends_while_it_is_looked_at[sqlite-1]"],
        "DID NOT RAISE",
    ),
    "new-tables-not-seen": Break(
        "a claim in PostgreSQL that has waited believes what its session remembers of tables",
        _new_tables_not_seen,
        [f"{_FAULTS}test_starts.py::test_a_claim_that_waited_sees_the_tables_of_the_other"],
        r"assert \[False\] == \[True\]",
    ),
    "no-epoch-check": Break(
        "a process may commit whose job was taken over by another",
        _no_epoch_check,
        [
            f"{_CONTRACT}test_the_contract[{kind}-a_stopped_owner_that_wakes_up_cannot_commit]"
            for kind in _EVERY_SINK
        ],
        "was not raised",
    ),
    "places-not-taken": Break(
        "a claim in an object store leaves the places of parts free that the last owner has announced",
        lambda: setattr(store.StoreSink, "_void", lambda *_: False),
        [
            f"{_FAULTS}test_object_store.py::test_a_part_that_{what}"
            for what in ("comes_after_the_next_claim_is_refused", "was_removed_does_not_come_again")
        ],
        "DID NOT RAISE",
    ),
    "conditions-not-checked": Break(
        "an object store that ignores conditions is taken for one that honours them",
        lambda: setattr(bucket.Bucket, "check_conditions", lambda *_: None),
        [f"{_FAULTS}test_object_store.py::test_a_store_that_does_not_know_conditions_is_refused"],
        "DID NOT RAISE",
    ),
    "fence-without-a-lock": Break(
        "PostgreSQL checks the epoch, but lets another process claim the job before the commit",
        _fence_without_share,
        [f"{_CONTRACT}test_nobody_claims_a_job_while_its_chunk_is_being_stored"],
        r"assert \[0\] == \[1\]",
    ),
    "rejects-swallowed": Break(
        "rejects are counted, but not stored",
        lambda: setattr(SqliteTransaction, "insert", lambda *_: None),
        ["tests/cli/test_run.py::test_the_sample_is_imported_with_every_kind_of_reject"],
        r"assert 0 == \d+",
    ),
    "replayed-and-kept": Break(
        "a reject that is replayed is stored, and stays in the rejects",
        _replayed_and_kept,
        [f"{_FAULTS}test_replay.py::test_an_attempt_that_breaks_is_tried_again[sqlite]"],
        "but the ledger says",
    ),
    "replayed-twice": Break(
        "an attempt at a replay does not look whether an earlier one has taken the rejects",
        _replayed_twice,
        [f"{_FAULTS}test_replay.py::test_an_attempt_that_breaks_is_tried_again[sqlite]"],
        "but the ledger says",
    ),
    "places-mixed-up": Break(
        "a reject of a chunk of several files names the record of another file",
        _places_mixed_up,
        [
            "tests/contract/test_together.py::"
            f"test_what_is_read_together_is_what_each_part_is[1000-{which}]"
            for which in ("jsonl-texts0-options0", "csv-texts3-options3")
        ],
        "assert",
    ),
    "counted-for-the-first-part": Break(
        "the rejects of a chunk of several files are counted for the first of them",
        _counted_for_the_first_part,
        ["tests/contract/test_together.py::test_each_part_has_its_own_row_in_the_ledger[sqlite]"],
        "assert",
    ),
    "no-part-by-itself": Break(
        "files that cannot be imported together are not imported one by one",
        _no_part_by_itself,
        [
            f"tests/contract/test_together.py::{test}"
            for test in (
                "test_what_a_trigger_skips_is_counted_for_its_own_file",
                "test_a_file_that_cannot_be_read_takes_none_with_it",
            )
        ],
        "1 parts of the source are not committed",
    ),
    "circles-not-looked-for": Break(
        "records that refer to one another in a circle stay rejects",
        lambda: _replace(circles, lambda *_: []),
        [f"{_FAULTS}test_orphans.py::test_random_references_end_alike[sqlite]"],
        r"assert \{6\} == \{0, 1",
    ),
    "ledger-of-circles-first": Break(
        "a circle of records leaves the rejects in one transaction, and is stored in another",
        _ledger_of_circles_first,
        [f"{_FAULTS}test_orphans.py::test_killed_while_a_circle_is_stored[before-commit]"],
        r"stored \(0, 0\), but the ledger says \(2, 0\)",
    ),
    "record-lost-in-cutting": Break(
        "a chunk of JSON lines has one line less than it should",
        lose_a_line,
        [
            "tests/contract/test_sources.py::test_the_contract[jsonl-chunks_of_any_size_give_the_same]"
        ],
        r"> +assert .*(range\(61\)|== whole)",
    ),
    "count-not-compared": Break(
        "the records are counted, but the count is not compared with the outcomes",
        _count_not_compared,
        ["tests/contract/test_counting.py::test_a_lost_record_ends_with_exit_7"],
        r"assert [03] == 7",
    ),
    "row-count-not-compared": Break(
        "rows that no ledger accounts for are not noticed at the end of a job",
        _row_count_not_compared,
        [
            f"{_CONTRACT}test_rows_that_nobody_accounts_for_are_noticed[{kind}]"
            for kind in _EVERY_SINK
        ],
        "assert 0 == 1",
    ),
    "repeated-keys-accepted": Break(
        "the fast way accepts a record that the validator would reject",
        _repeated_keys_accepted,
        ["tests/unit/test_jsonl.py", "-k", "duplicate_key"],
        "duplicate_key",
    ),
    "digests-not-compared": Break(
        "a source whose committed part has changed is continued",
        lambda: _replace(identify.verify_unchanged, lambda *_: None),
        ["tests/cli/test_growth.py::test_bytes_that_changed_in_the_midst_are_found"],
        "== 6",
    ),
    "given-up-is-no-failure": Break(
        "a job with chunks that were given up ends as if it had rejects alone",
        _given_up_is_no_failure,
        ["tests/cli/test_run.py::test_chunks_that_were_given_up_fail_the_job"],
        "assert [037] == 1",
    ),
    "rerun-is-green": Break(
        "the same command again, after a job with rejects, exits with 0",
        _rerun_is_green,
        ["tests/cli/test_run.py::test_the_sample_is_imported_with_every_kind_of_reject"],
        "already_completed",
    ),
    "no-file-sync": Break(
        "files get their names before their content is on disk",
        lambda: _no_sync(stat.S_ISREG),
        [
            f"{_FAULTS}test_durability.py::test_new_names_are_synced[{kind}]"
            for kind in ("sqlite", "parquet")
        ],
        "Left contains",
    ),
    "no-directory-sync": Break(
        "files get their names, and the directory is not synced",
        lambda: _no_sync(stat.S_ISDIR),
        [
            f"{_FAULTS}test_durability.py::test_new_names_are_synced[{kind}]"
            for kind in ("sqlite", "parquet")
        ],
        "Left contains",
    ),
    "part-not-synced": Break(
        "a part of a Parquet dataset is linked before its content is on disk",
        _part_not_synced,
        [f"{_FAULTS}test_durability.py::test_new_names_are_synced[parquet]"],
        "Left contains",
    ),
    "sqlite-not-synced": Break(
        "SQLite commits with `synchronous=OFF`",
        _sqlite_not_synced,
        [f"{_CONTRACT}test_a_commit_of_sqlite_is_on_disk"],
        r"assert \[\(0,\)\] == \[\(3,\)\]",
    ),
    "mysql-fence-without-a-lock": Break(
        "MySQL checks the epoch, but lets another process claim the job before the commit",
        _mysql_fence_unlocked,
        [f"{_MYSQL}test_nobody_claims_a_job_while_its_chunk_is_being_stored"],
        r"assert \[0\] == \[1\]",
    ),
    "mysql-warnings-ignored": Break(
        "what MySQL changes or leaves out as it loads rows is taken for stored",
        _mysql_warnings_ignored,
        [f"{_MYSQL}test_the_table_decides_whichever_way_rows_take[1-1]"],
        "assert",
    ),
    "postgres-not-synced": Break(
        "PostgreSQL keeps `synchronous_commit=off` where the server or the address sets it",
        _postgres_not_synced,
        [f"{_CONTRACT}test_a_commit_is_on_disk_whatever_the_default"],
        "off",
    ),
    "full-disk-not-reported": Break(
        "a rejects file or summary that cannot be written is left out in silence",
        _report_not_written,
        [f"{_FAULTS}test_disk.py::test_a_full_disk_for_a_report[sqlite---summary]"],
        r"assert \(3, 0\) == \(1, 2\)",
    ),
    "few-files-not-refused": Break(
        "a process that may open only a few more files begins all the same",
        lambda: _replace(system.refuse_few_files, lambda: None),
        [f"{_FAULTS}test_disk.py::test_too_few_file_descriptors[sqlite]"],
        r"assert 3 == 1",
    ),
    "panic-not-caught": Break(
        "the panic of a Rust library ends the process as it likes",
        lambda: _replace(chunk.process_chunk, inspect.unwrap(chunk.process_chunk)),
        [f"{_FAULTS}test_disk.py::test_a_library_that_panics"],
        r"PanicException|\(7, 'failed', 1000\)",
    ),
    "pipe-is-a-failure": Break(
        "a closed pipe on standard output makes a completed import fail",
        _pipe_is_a_failure,
        [f"{_FAULTS}test_streams.py::test_streams_that_are_closed[| true-False]"],
        r"assert \(1, False\)",
    ),
    "escape-sequences-shown": Break(
        "text from the data reaches the terminal as it is",
        lambda: _replace(escape.safe, lambda text, limit=80: str(text)),
        [f"{_FAULTS}test_hostile_text.py::test_what_is_shown_acts_on_no_terminal"],
        r"x1b",
    ),
    "names-not-quoted": Break(
        "a quote in the name of a column or table ends the name",
        _names_not_quoted,
        [f'{_CONTRACT}test_any_name_is_a_name[sqlite-quo"te]'],
        "syntax error",
    ),
    "password-shown": Break(
        "the address is shown and recorded with its password",
        lambda: _replace(redact, str),
        ["tests/cli/test_postgres.py::test_the_password_appears_nowhere"],
        r"canary",
    ),
    "footer-key-renamed": Break(
        "the ledger in Parquet footers has another key than in earlier versions",
        lambda: setattr(parquet_ledger, "CHUNK", "batchimport.part"),
        [f"{_FAULTS}test_old_state.py::test_an_old_dataset_is_resumed"],
        r"\(False, 0\) == \(True, 24\)",
    ),
    "fact-without-a-default": Break(
        "the ledger has a new column, which ledgers of earlier versions lack",
        _fact_without_a_default,
        [
            f"{_FAULTS}test_old_state.py::test_an_old_job_is_resumed",
        ],
        "'failed', False|no such column",
    ),
    "later-format-believed": Break(
        "a ledger that a later version wrote is read as if it were known",
        _later_format_believed,
        [f"{_FAULTS}test_old_state.py::test_a_later_ledger_is_refused_in_words"],
        "assert 3 == 1",
    ),
    "damage-believed": Break(
        "a damaged checkpoint is read without comparing its digest",
        _damage_believed,
        [f"{_FAULTS}test_old_state.py::test_a_damaged_checkpoint_harms_nobody"],
        r"is believed",
    ),
    "owner-not-asked": Break(
        "a job is claimed although the process that runs it is alive",
        lambda: _replace(identify.refuse_if_owned, lambda *_: None),
        ["tests/cli/test_run.py::test_restart_leaves_a_job_that_runs_elsewhere_alone[sqlite]"],
        "== 6",
    ),
    "hang-up-kills": Break(
        "a terminal that hangs up ends the process without draining",
        lambda: setattr(signal, "getsignal", lambda _: signal.SIG_IGN),
        [f"{_FAULTS}test_streams.py::test_a_terminal_that_hangs_up[False]"],
        "assert -1 == ",
    ),
}

if __name__ == "__main__":
    make(sys.argv.pop(1))
    cli.main()
