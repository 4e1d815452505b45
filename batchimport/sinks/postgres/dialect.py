"""What is peculiar to PostgreSQL: its types, its catalogue, and what its errors mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from batchimport.errors import (
    BatchImportError,
    DataError,
    FatalError,
    TransientError,
    UsageError,
)
from batchimport.model import FieldError
from batchimport.sinks.sql import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from batchimport.schema import Column, Kind

TYPES: dict[Kind, str] = {
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "string": "text",
    "date": "date",
    "date-time": "timestamptz",
    "uuid": "uuid",
    "json": "jsonb",
}
_TRANSIENT = ("08", "40001", "40P01", "53", "57P01", "57P02", "57P03", "57014", "55P03", "25P03")
_DATA = ("22", "23", "54", "P0001")
"""Also a value too large for an index (54), and a trigger that refuses the row (P0001)."""
_REFUSED = {
    "28": "check user, password and pg_hba.conf",
    "3D": "make the database first, or name another one",
    "3F": "make the schema first, or name another one",
    "54011": "name those that you want in a --schema: the other keys are kept in the column _extra",
    "25006": "connect to the primary, or as a role that may write",
    "42501": "grant the role what it needs; the ledger may be elsewhere: --ledger-schema",
}
_CODES = {
    "23505": "unique",
    "23502": "not_null",
    "23514": "check",
    "23503": "foreign_key",
    "23P01": "exclusion",
    "22001": "too_long",
    "22003": "out_of_range",
    "54000": "too_long",
    "P0001": "trigger",
}
_CATEGORIES: dict[Kind, str] = {"integer": "NS", "number": "NS", "boolean": "BS", "json": "SA"}
"""Categories of pg_type that may take a kind of column, JSON types apart. Texts go into every type:
PostgreSQL reads them strictly, and refuses the record if they have not its form."""


def translate(error: psycopg.Error, where: str) -> BatchImportError:
    """Say what a driver error means for the runner, by its SQLSTATE."""
    state = error.sqlstate or ""
    message = (error.diag.message_primary or str(error)).strip().splitlines()
    text = message[0] if message else type(error).__name__
    if state.startswith(_DATA):
        return DataError(text)
    if not state or state.startswith(_TRANSIENT):
        return TransientError(text, where=where)
    hint = next((hint for code, hint in _REFUSED.items() if state.startswith(code)), None)
    return FatalError(f"PostgreSQL says: {text} ({state})", where=where, hint=hint)


def opening(error: psycopg.Error, where: str) -> BatchImportError:
    """Say what an error at the first connection means: there is no reason to wait."""
    found = translate(error, where)
    if isinstance(found, TransientError):
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else found.message
        return FatalError(f"cannot connect: {reason}", where, "check the address and the server")
    return found


def field_error(error: psycopg.Error) -> FieldError:
    """Say why a row was refused: code, column, and PostgreSQL's own message."""
    diag = error.diag
    return reason(error.sqlstate or "", diag.message_primary, diag.message_detail, diag.column_name)


def reason(state: str, message: str | None, detail: str | None, column: str | None) -> FieldError:
    """Say why a row was refused, from the parts of PostgreSQL's error."""
    key = re.match(r"Key \((.+?)\)=", detail or "")
    field = column or (key[1] if key else "")
    text = ": ".join(part for part in (message, detail) if part)
    return FieldError(_CODES.get(state, "type"), field, text[:500])


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column as the catalogue describes it.

    Attributes:
        base: Its type without length or domain, as SQL.
        category: What pg_type calls it: N number, S string, B boolean, A array, …
        is_filled: It has a value when none is given: default, identity, generated, or null.
    """

    name: str
    type_name: str
    base: str
    category: str
    is_filled: bool
    is_generated: bool

    @property
    def is_exact(self) -> bool:
        """Say whether it holds numbers of any length as they are written."""
        return self.base == "numeric"


CATALOGUE = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod),
           format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, -1),
           t.typcategory::text,
           NOT a.attnotnull OR a.atthasdef OR a.attidentity <> '',
           a.attgenerated <> '' OR a.attidentity = 'a'
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(?) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum"""

UNIQUE_KEYS = """
    SELECT i.indexrelid::bigint, a.attname
    FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attnum = k.number
    WHERE i.indrelid = to_regclass(?) AND a.attrelid = i.indrelid AND k.place <= i.indnkeyatts
      AND i.indisunique AND i.indimmediate AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL"""
"""Index and column of what ON CONFLICT can name."""


def match_columns(
    table: str, known: Sequence[TableColumn], columns: Sequence[Column]
) -> dict[str, TableColumn]:
    """Return the table's own column for each of ours.

    Names that SQL would fold (unquoted ones are lower case) match whatever their case.

    Raises:
        UsageError: If the table cannot take the columns.
    """
    names = {each.name: each for each in known}
    folded = {each.name.lower(): each for each in known if each.name == each.name.lower()}
    matched: dict[str, TableColumn] = {}
    missing: list[str] = []
    for column in columns:
        found = names.get(column.name) or folded.get(column.name.lower())
        if found is None:
            missing.append(column.name)
            continue
        _check_fit(table, found, column)
        same = [name for name, each in matched.items() if each is found]
        if same:
            raise UsageError(
                f"{same[0]} and {column.name} would both go into column {found.name}",
                where=table,
                hint="rename one of them with --transform or --sql",
            )
        matched[column.name] = found
    statements.refuse_missing(table, missing)
    taken = {each.name for each in matched.values()}
    needed = [each.name for each in known if not each.is_filled and each.name not in taken]
    statements.refuse_unfilled(table, needed)
    return matched


def _check_fit(table: str, found: TableColumn, column: Column) -> None:
    allowed = _CATEGORIES.get(column.kind)
    fits = not allowed or found.category in allowed or found.base in ("json", "jsonb")
    fits = fits or (column.kind == "json" and found.is_exact)
    if found.is_generated or not fits:
        reason = (
            "is generated and takes no values"
            if found.is_generated
            else f"of type {found.type_name} cannot take {column.kind} values"
        )
        raise UsageError(
            f"column {found.name} {reason}",
            where=table,
            hint="name the type in a --schema, or change it with --transform or --sql",
        )


def array_literal(text: str | None) -> str | None:
    """Return a JSON array as PostgreSQL writes arrays; what is none is left for it to refuse."""
    if text is None or not text.lstrip().startswith("["):
        return text
    return f"{{{','.join(map(_element, _decode_items(text)))}}}"


_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _element(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode()
    if text == "null":
        return "NULL"
    if text.startswith("["):
        return array_literal(text) or ""
    if text.startswith('"'):
        text = msgspec.json.decode(raw)
    elif not text.startswith("{"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
