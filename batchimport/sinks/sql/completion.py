"""What belongs to the completion of a job, in one transaction: the move of `--atomic`, `--after-sql`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from batchimport import failpoints
from batchimport.errors import BatchImportError, FatalError, TransientError
from batchimport.sinks.base import AFTER_SQL_RAN, BEGAN_EMPTY, EMPTIED_AT, INDEXES, STAGED
from batchimport.sinks.sql import staging, statements
from batchimport.sinks.sql.script import failed, shown, statements_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.dialect import Dialect


def complete(database: Dialect, record: JobRecord) -> None:
    """Do what belongs to the completion of a job, in its transaction."""
    facts = record.configuration
    if STAGED in facts:
        record = _publish(database, record)
    if INDEXES in facts:
        record = _without(record, INDEXES)
        build_indexes(database, facts[INDEXES])
        _write(database, record)
    after = facts.get("after_sql")
    if after is not None and not facts.get(AFTER_SQL_RAN):
        record = replace(record, configuration=record.configuration | {AFTER_SQL_RAN: True})
        _write(database, record)
        with accounting(database, str(facts["table"])):
            run_script(database, after, "--after-sql")
        failpoints.reach("after-sql")


def _publish(database: Dialect, record: JobRecord) -> JobRecord:
    """Move the rows of a job with `--atomic` into its table; return its record."""
    table = str(record.configuration["table"])
    end_others(database, table, record.job_id)
    staging.publish(database, record)
    facts = record.configuration | {BEGAN_EMPTY: True, EMPTIED_AT: statements.now()}
    record = _without(replace(record, configuration=facts), STAGED)
    surplus = database.surplus(record) if database.exists(table) else 0
    if surplus:  # rows of others that were there when the job began
        record = replace(record, rows_before=(record.rows_before or 0) + surplus)
    _write(database, record)
    return record


def end_others(database: Dialect, table: str, job_id: str, *, with_rows: bool = False) -> None:
    """Let no unfinished job go on in a table from which the rows of others are gone.

    Args:
        job_id: The job that goes on.
        with_rows: Only jobs that have stored some.
    """
    jobs, chunks = database.tables.jobs, database.tables.chunks
    stored = f"(SELECT job_id FROM {chunks} WHERE successful > 0)"
    database.run(
        f"UPDATE {jobs} SET epoch = epoch + 1, state = 'interrupted' "
        "WHERE lower(table_name) = lower(?) AND state = 'running' AND job_id <> ? "
        f"AND configuration NOT LIKE ?{f' AND job_id IN {stored}' if with_rows else ''}",
        (table, job_id, f'%"{STAGED}": {{%'),
    )


def drop_indexes(database: Dialect, table: str) -> list[str]:
    """Drop the indexes that need not be there while rows are stored; return what builds them again."""
    found = database.deferrable_indexes(table) if database.exists(table) else []
    for name, _ in found:
        database.run(f"DROP INDEX {name}")
    return [definition for _, definition in found]


def build_indexes(database: Dialect, definitions: Sequence[str]) -> None:
    """Build indexes that were dropped.

    Raises:
        FatalError: If one cannot be built.
    """
    for definition in definitions:
        try:
            database.run(definition)
        except TransientError:
            raise
        except BatchImportError as error:
            raise FatalError(
                f"an index cannot be built again ({shown(definition)}): {error.message}",
                where="--defer-indexes",
                hint="all records are stored; fix the cause and run the same command again",
            ) from error


def _without(record: JobRecord, name: str) -> JobRecord:
    facts = {key: value for key, value in record.configuration.items() if key != name}
    return replace(record, configuration=facts)


def _write(database: Dialect, record: JobRecord) -> None:
    database.run(
        f"UPDATE {database.tables.jobs} SET configuration = ?, rows_before = ? WHERE job_id = ?",
        (json.dumps(record.configuration), record.rows_before, record.job_id),
    )


def run_script(database: Dialect, text: str, option: str) -> None:
    """Run the user's statements, as a part of a transaction.

    Raises:
        FatalError: If the database refuses one.
    """
    found = statements_of(text, option)
    for number, statement in enumerate(found, 1):
        try:
            database.run(statement)
        except TransientError:  # away, locked: the whole is done again
            raise
        except BatchImportError as error:
            raise failed(number, len(found), statement, option, error.message) from error


@contextmanager
def accounting(database: Dialect, table: str) -> Iterator[None]:
    """Let all jobs on a table know what the user's statements add to it or take from it."""
    before = database.count(table) if database.exists(table) else 0
    yield
    change = (database.count(table) if database.exists(table) else 0) - before
    if change:
        database.run(
            f"UPDATE {database.tables.jobs} SET rows_before = rows_before + ? "
            "WHERE lower(table_name) = lower(?) AND rows_before IS NOT NULL",
            (change, table),
        )
