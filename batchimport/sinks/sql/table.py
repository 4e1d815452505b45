"""The user's table: created, emptied or checked before the first chunk, and found for each one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from batchimport.errors import (
    BatchImportError,
    DataError,
    TransientError,
    UsageError,
    did_you_mean,
    hint_for,
)
from batchimport.model import EXTRA_COLUMN
from batchimport.schema import Column
from batchimport.sinks.sql.cells import READ_FROM_JSON
from batchimport.sinks.sql.target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Job, NewColumns
    from batchimport.sinks.base import JobRecord
    from batchimport.sinks.sql.dialect import Dialect
    from batchimport.sinks.sql.target import TableColumn


def prepare_table(database: Dialect, job: Job, columns: Sequence[Column]) -> int | None:
    """Create the table, or make it ready as `--if-exists` says.

    Returns:
        How many rows it has, if all others will be the job's; else None.

    Raises:
        UsageError: If it cannot take the columns, has no unique index on the key, or must not
            exist.
    """
    _refuse_long_name(database, job.table)
    if not columns:  # an empty source
        return _empty_table(database, job)
    _refuse_shared(database, job.table, [column.name for column in columns])
    if job.if_exists == "replace":  # before it is dropped, which some databases cannot undo
        _refuse_too_many(database, job.table, len(columns))
    exists, name = database.exists(job.table), database.name(job.table)
    if exists and job.if_exists == "fail":
        raise exists_already(job)
    if exists and job.if_exists == "replace":
        database.run(f"DROP TABLE {name}")
    if exists and job.if_exists != "replace":
        match_columns(database, job, columns)
        if job.if_exists == "truncate":
            _empty(database, job)
    else:
        _create_table(database, job, columns)
    if job.key:
        _check_key(database, job, columns)
    only_ours = (not exists or job.if_exists != "append") and job.on_conflict != "update"
    return database.count(job.table) if only_ours else None


def _empty_table(database: Dialect, job: Job) -> int | None:
    """Make an existing table ready for no rows: whatever its columns are, they stay."""
    if not database.exists(job.table):
        return None
    if job.if_exists == "fail":
        raise exists_already(job)
    if job.if_exists == "append":
        return None
    _empty(database, job)
    return 0


def _empty(database: Dialect, job: Job) -> None:
    """Remove the rows of a table; what to do if other tables refer to them is said."""
    is_referred_to = bool(database.keys_referred_to(job.table))
    try:
        database.run(f"{database.emptying} {database.name(job.table)}")
    except TransientError:
        raise
    except BatchImportError as error:
        if is_referred_to:
            raise UsageError(
                f"other tables refer to it: {error.message}",
                where=job.table,
                hint="--atomic keeps the rows that they refer to, and replaces them at the end",
            ) from error
        raise


def exists_already(job: Job) -> UsageError:
    """Return the error for a table that must not exist."""
    return UsageError(
        "the table exists", where=job.table, hint="--if-exists append, truncate or replace"
    )


def find_target(database: Dialect, job: Job, record: JobRecord) -> Target:
    """Return how the rows of a job get into its table.

    Raises:
        UsageError: If the table does not take its columns any more.
    """
    columns = match_columns(database, job, record.columns) if record.columns else ()
    if columns and job.on_conflict == "update":  # a row that is there has what no record has
        unfilled = _unfilled(database.columns(job.table), columns)
        columns = (*columns, *((Column(own.name, "string"), own) for own in unfilled))
    taken = {column.name for column, _ in columns}
    own_names = {column.name: own.name for column, own in columns}
    return Target(
        job.table,
        database.name(job.table),
        columns,
        job.on_conflict,
        tuple(own_names[name] for name in job.key) if columns else (),
        database.keys_table(record.job_id),
        new_columns_of(database, job),
        tuple(column for column in record.columns if column.name not in taken),
    )


def new_columns_of(database: Dialect, job: Job) -> NewColumns:
    """Return what becomes of keys that the table has no column for."""
    if job.new_columns is not None:
        return job.new_columns
    keeps = database.made_table(job.table) or EXTRA_COLUMN in _by_name(database, job.table)
    return "extra" if keeps else "reject"


def fits(database: Dialect, job: Job, columns: Sequence[Column]) -> bool:
    """Say whether a table has just these columns, of types that take them; `_extra` apart."""
    known = {
        name: own for name, own in _by_name(database, job.table).items() if name != EXTRA_COLUMN
    }
    if not columns:
        return True
    pairs = [(column, known.get(database.folded(column.name))) for column in columns]
    is_keyed = not job.key or frozenset(job.key) in database.unique_keys(job.table)
    return (
        is_keyed
        and len(pairs) == len(known)
        and all(
            own is not None
            and own.takes(column.kind)
            and not own.is_generated
            and not (
                column.kind in ("string", "json") and own.family in ("integer", "number", "boolean")
            )
            for column, own in pairs
        )
    )


def with_columns(database: Dialect, target: Target, columns: Sequence[Column]) -> Target:
    """Return the target with more columns, which are added to the table where they are missing."""
    new = [column for column in columns if column.name not in target.frame_names]
    if not new:
        return target
    with database.transaction():  # of several processes one adds them
        _add_columns(database, target.table, new)
        known = _by_name(database, target.table)
    pairs = ((column, known[database.folded(column.name)]) for column in new)
    return replace(target, columns=(*target.columns, *pairs))


def _add_columns(database: Dialect, table: str, columns: Sequence[Column]) -> None:
    known = _by_name(database, table)
    new = [column for column in columns if database.folded(column.name) not in known]
    _refuse_too_many(database, table, len(known) + len(new))
    for column in new:
        database.run(
            f"ALTER TABLE {database.name(table)} {database.adding} {database.quote(column.name)} "
            f"{database.types[column.kind]}"
        )


def match_columns(
    database: Dialect, job: Job, columns: Sequence[Column]
) -> tuple[tuple[Column, TableColumn], ...]:
    """Pair each column with the existing table's own.

    Where names have case, a name that was created without quotes is in lower case and matches
    whatever the case of ours. With `--new-columns`, missing columns are added or left out.

    Raises:
        UsageError: If the table cannot take the columns without changing or losing values.
    """
    table, known = job.table, database.columns(job.table)
    exact = {own.name: own for own in known}
    folded = {
        own.name.lower(): own
        for own in known
        if not database.names_have_case or own.name == own.name.lower()
    }
    kept = {column.name: database.shortened(column.name) for column in columns}
    own_of = {name: exact.get(short) or folded.get(short.lower()) for name, short in kept.items()}
    missing = [column for column in columns if own_of[column.name] is None]
    if missing and job.new_columns == "add":
        _add_columns(database, table, missing)
        return match_columns(database, job, columns)
    if len(missing) == len(columns):  # another table, or another file, was meant
        _refuse_missing(table, [column.name for column in missing], list(exact))
    pairs = [(column, own) for column in columns if (own := own_of[column.name]) is not None]
    taken: dict[str, str] = {}
    for column, own in pairs:
        _check_fit(table, column, own)
        if own.name in taken:
            raise UsageError(
                f"{taken[own.name]} and {column.name} would both go into column {own.name}",
                where=table,
                hint="rename one of them with --rename OLD=NEW",
            )
        taken[own.name] = column.name
    if job.on_conflict != "update":
        _refuse_unfilled(table, [own.name for own in _unfilled(known, pairs)])
    return tuple(pairs)


def _unfilled(
    known: Sequence[TableColumn], pairs: Sequence[tuple[Column, TableColumn]]
) -> list[TableColumn]:
    """Return the table's columns that must have a value, and that no record has."""
    taken = {own.name for _, own in pairs}
    return [own for own in known if not own.is_filled and own.name not in taken]


def _refuse_long_name(database: Dialect, table: str) -> None:
    """Refuse a table whose name would be cut: another one may have the same beginning."""
    for part in table.split("."):
        if database.shortened(part) != part:
            raise UsageError(
                f"the name has {len(part.encode())} bytes, and {database.longest_name} are kept",
                where=table,
                hint="choose a shorter one with --table",
            )


_FEWER = (
    "import some of them (--columns id,name), or name those that get a column in a --schema: the others "
    "are kept in one, _extra; or choose another --to"
)


def _refuse_too_many(database: Dialect, table: str, columns: int) -> None:
    """Refuse a table that would have more columns than the database takes."""
    if database.most_columns is not None and columns > database.most_columns:
        raise UsageError(
            f"{columns:,} columns are more than a table of this database can have "
            f"({database.most_columns:,})",
            where=table,
            hint=_FEWER,
        )


def _refuse_shared(database: Dialect, table: str, names: Sequence[str]) -> None:
    """Refuse names that the database takes for one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(database.folded(name), name)
        if other != name:
            is_cut = database.shortened(name) != name or database.shortened(other) != other
            how = f"are equal in {database.longest_name} bytes" if is_cut else "differ only in case"
            raise UsageError(
                f"keys that {how} would share a column: {other}, {name}",
                where=table,
                hint="rename one of them with --rename OLD=NEW",
            )


def constraints_of(job: Job, columns: Sequence[Column]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a table that is made for a job demands of its rows.

    Returns:
        The columns of its primary key; and all that may not be null, in the table's order: those,
        and what a schema that was given requires. What a transform returns no schema describes.
    """
    names = {column.name for column in columns}
    key = job.key if names.issuperset(job.key) else ()
    filled = (
        column.name
        for column in columns
        if column.name in key or (column.required and not (column.nullable or column.inferred))
    )
    return key, tuple(filled)


def demands(job: Job, columns: Sequence[Column]) -> list[str]:
    """Return in words what a table that is made for a job demands of its rows."""
    key, filled = constraints_of(job, columns)
    others = [name for name in filled if name not in key]
    said = (("primary key", key), ("NOT NULL", others))
    return [f"{what} {', '.join(names)}" for what, names in said if names]


def _create_table(database: Dialect, job: Job, columns: Sequence[Column]) -> None:
    _refuse_too_many(database, job.table, len(columns))
    key, filled = constraints_of(job, columns)
    lines = [
        f"{database.quote(column.name)} {database.column_type(column, is_key=column.name in key)}"
        + (" NOT NULL" if column.name in filled else "")
        for column in columns
    ]
    if key:
        lines.append(f"PRIMARY KEY ({database.column_list(key)})")
    try:
        database.run(f"CREATE TABLE {database.name(job.table)} ({', '.join(lines)})")
    except DataError as error:  # there is no row: all columns together are too wide for one
        raise UsageError(
            f"a table of {len(columns):,} columns cannot be made: {error.message}",
            where=job.table,
            hint=_FEWER,
        ) from error


def _check_key(database: Dialect, job: Job, columns: Sequence[Column]) -> None:
    unknown = [key for key in job.key if key not in {column.name for column in columns}]
    if unknown:
        known = [column.name for column in columns]
        hint = hint_for(unknown[0], known, f"columns: {', '.join(known[:20])}")
        raise UsageError(f"no such column: {', '.join(unknown)}", where="--key", hint=hint)
    names = {column.name: own.name for column, own in match_columns(database, job, columns)}
    _refuse_missing(job.table, [name for name in job.key if name not in names], list(names))
    key = [names[name] for name in job.key]
    if frozenset(key) not in database.unique_keys(job.table):
        raise UsageError(
            f"--key {','.join(key)} needs a unique index on exactly these columns",
            where=job.table,
            hint=f"CREATE UNIQUE INDEX … ON {database.name(job.table)} ({database.column_list(key)})",
        )


def _refuse_missing(table: str, missing: Sequence[str], known: Sequence[str]) -> None:
    if missing:
        near = did_you_mean(missing[0], known)
        raise UsageError(
            f"the table has no column {', '.join(missing)}",
            where=table,
            hint=(f"did you mean {near}? " if near else "")
            + "--new-columns add makes them, extra keeps their values in a column _extra; or "
            "choose another --table",
        )


def _check_fit(table: str, column: Column, own: TableColumn) -> None:
    if own.is_generated:
        reason = "is generated and takes no values"
    elif column.kind == "json" and column.inferred and own.family in READ_FROM_JSON:
        return  # values of several types: each that cannot be read so is a reject
    elif not own.takes(column.kind):
        reason = f"of type {own.type_name} cannot take {column.kind} values"
    else:
        return
    raise UsageError(
        f"column {own.name} {reason}",
        where=table,
        hint="name the type in a --schema, or change it with --transform or --sql",
    )


def _refuse_unfilled(table: str, unfilled: Sequence[str]) -> None:
    if unfilled:
        raise UsageError(
            f"no record has {', '.join(unfilled)}, which may not be null in the table",
            where=table,
            hint="give it a default, or make it with --transform or --sql",
        )


def _by_name(database: Dialect, table: str) -> dict[str, TableColumn]:
    return {database.folded(own.name): own for own in database.columns(table)}


# -- a table like another one, by the definition that the database keeps -----------------------------

_NAME = r"""(?:"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|'(?:[^']|'')*'|[^\s("'`\[.;]+)"""
_PATH = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_TABLE = re.compile(rf"\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_PATH}", re.IGNORECASE)
_INDEX = re.compile(
    rf"\s*CREATE\s+UNIQUE\s+INDEX\s+(?:IF\s+NOT\s+EXISTS\s+)?{_PATH}\s+ON\s+{_PATH}",
    re.IGNORECASE,
)


def create_like(database: Dialect, definitions: Sequence[str], other: str) -> None:
    """Create an empty table with the columns, constraints and unique indexes of another one.

    Args:
        definitions: Of the other table, and then of its indexes.
        other: The name of the new table.
    """
    name = other.rpartition(".")[2] if database.has_schemas else other
    database.run(table_named(definitions[0], database.name(other)))
    for number, definition in enumerate(definitions[1:]):
        index = index_on(definition, database.quote(f"{name}_{number}"), database.name(other))
        if index is not None:
            database.run(index)


def table_named(definition: str, name: str) -> str:
    """Return the statement that creates a table like the one that is defined.

    Args:
        name: Of the other table, as SQL.
    """
    return _TABLE.sub(lambda _: f"CREATE TABLE {name}", definition, count=1)


def index_on(definition: str, index: str, table: str) -> str | None:
    """Return the statement that creates a like unique index on another table; None if it is not unique.

    Args:
        index: Its name, as SQL, as is that of the table.
    """
    if not _INDEX.match(definition):
        return None
    return _INDEX.sub(lambda _: f"CREATE UNIQUE INDEX {index} ON {table}", definition, count=1)
