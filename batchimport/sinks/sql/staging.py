"""`--atomic`: a job fills a table of its own, whose rows are moved at once when it is completed.

Until then the user's table has its old rows; whatever is killed, the filled table waits for the next
run. The move is a part of the transaction that completes the job. The user's table stays, with its
views, grants, indexes and foreign keys, wherever it can take the rows: they are deleted and inserted,
so that readers never wait. Only where `--if-exists replace` changes its columns is it dropped, and the
filled one gets its name.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchimport import failpoints
from batchimport.errors import FatalError, UsageError
from batchimport.model import EXTRA_COLUMN
from batchimport.sinks.base import STAGED
from batchimport.sinks.sql.table import exists_already, fits, prepare_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Job
    from batchimport.schema import Column
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.dialect import Dialect


def begin(database: Dialect, job: Job, record: JobRecord) -> dict[str, Any]:
    """Create the table that the job fills; return what its configuration keeps of that.

    Raises:
        UsageError: If the table cannot take the records, or must not exist.
    """
    exists = database.exists(job.table)
    if exists and job.if_exists == "fail":
        raise exists_already(job)
    staged = replace(job, table=_beside(job.table, record.job_id), if_exists="append", atomic=False)
    keeps = exists and (job.if_exists == "truncate" or fits(database, job, record.columns))
    if keeps:
        _refuse_lost_keys(database, job, record.columns)
        database.create_like(job.table, staged.table)
    try:
        prepare_table(database, staged, record.columns)
    except UsageError as error:
        error.where = job.table if error.where == staged.table else error.where
        error.hint = error.hint and error.hint.replace(
            database.name(staged.table), database.name(job.table)
        )
        raise
    return {"table": staged.table, "keeps": keeps, "existed": exists}


def publish(database: Dialect, record: JobRecord) -> None:
    """Move the rows of a completed job into its table, as a part of a transaction.

    Raises:
        FatalError: If the table has not taken all of them, or exists since the job began.
    """
    staged, table = record.configuration[STAGED], str(record.configuration["table"])
    filled = str(staged["table"])
    if not database.exists(filled):  # a source without records, and no table
        return
    rows = database.count(filled)
    if staged["keeps"]:
        _move(database, record, filled, table)
        database.run(f"DROP TABLE {database.name(filled)}")
    else:
        _swap(database, filled, table, existed=staged["existed"])
    found = database.count(table)
    if found != rows:
        raise FatalError(
            f"a trigger, rule or policy of the table let {found:,} of {rows:,} rows in",
            where=table,
            hint="the old rows are still there; import without --atomic",
        )
    failpoints.reach("after-publishing")


def _swap(database: Dialect, filled: str, table: str, *, existed: bool) -> None:
    if database.exists(table):
        if not existed:
            raise FatalError(
                "another program has made the table since the job began",
                where=table,
                hint="drop or rename it, and run the same command again",
            )
        database.run(f"DROP TABLE {database.name(table)}")
    database.rename_table(filled, table)


def _move(database: Dialect, record: JobRecord, filled: str, table: str) -> None:
    """Replace the rows of a table by those of another one.

    Where other tables refer to a key of it, rows whose key stays are updated, not deleted: else what
    refers to them would stand in the way, or be deleted, too.
    """
    written = {EXTRA_COLUMN, *(column.name.lower() for column in record.columns)}
    there = {own.name for own in database.columns(table)}
    names = []
    for own in database.columns(filled):
        if own.name not in there:  # a column that a chunk has added
            database.run(
                f"ALTER TABLE {database.name(table)} {database.adding} {database.quote(own.name)} "
                f"{own.type_name}"
            )
        if own.name not in there or own.name.lower() in written:
            names.append(own.name)
    source, target = database.name(filled), database.name(table)
    keys = database.keys_referred_to(table)
    if not keys:
        database.run(f"DELETE FROM {target}")
    if not names:
        return
    columns = database.column_list(names)
    insert = f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {source} WHERE 1 = 1"
    if keys:
        pairs = (f"f.{name} = {target}.{name}" for name in map(database.quote, keys[0]))
        database.run(
            f"DELETE FROM {target} WHERE NOT EXISTS "
            f"(SELECT 1 FROM {source} f WHERE {' AND '.join(pairs)})"
        )
        others = [database.quote(name) for name in names if name not in keys[0]]
        values = ", ".join(f"{name} = excluded.{name}" for name in others)
        then = f"DO UPDATE SET {values}" if values else "DO NOTHING"
        insert += f" ON CONFLICT ({database.column_list(keys[0])}) {then}"
    database.run(insert)


def _refuse_lost_keys(database: Dialect, job: Job, columns: Sequence[Column]) -> None:
    given = {column.name.lower() for column in columns}
    for key in database.keys_referred_to(job.table) if columns else ():
        missing = [name for name in key if name.lower() not in given]
        if missing:
            raise UsageError(
                f"other tables refer to {', '.join(missing)}, which no record has",
                where=job.table,
                hint="import without --atomic, or make it with --transform or --sql",
            )


def _beside(table: str, job_id: str) -> str:
    """Return the name of the table that a job fills, in the schema of its own table."""
    schema, dot, _ = table.rpartition(".")
    return f"{schema}{dot}_batchimport_new_{hashlib.sha256(job_id.encode()).hexdigest()[:12]}"
