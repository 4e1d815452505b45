"""What is peculiar to PostgreSQL: its types, its catalogue, and what its errors mean."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from batchimport.errors import (
    BatchImportError,
    DataError,
    DestinationAwayError,
    DestinationNotUpError,
    FatalError,
    TransientError,
)
from batchimport.model import FieldError
from batchimport.sinks.sql.target import TableColumn

if TYPE_CHECKING:
    from batchimport.schema import Kind
    from batchimport.sinks.sql.target import Family

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
_AWAY = ("08", "57P01", "57P02", "57P03")
_TRANSIENT = ("40001", "40P01", "53", "57014", "55P03", "25P03")
_DATA = ("22", "23", "54", "P0001")
"""Also a value too large for an index (54), and a trigger that refuses the row (P0001)."""
PING_SECONDS = 2
"""How long a server that did not answer is asked whether it is there."""
NOT_THE_ROW = "^(08|25|40|53|55P|57|58|XX)"
"""SQLSTATEs of the connection, the server, its disk and memory, and other transactions."""
RAISED = r"\m(RAISE|ASSERT)$"
"""The end of the line that says where an error arose, if a function raised it on purpose."""
_REFUSED = {
    "28": "check user, password and pg_hba.conf",
    "3D": "create the database first, or name another one",
    "3F": "create the schema first, or name another one",
    "54011": "name the columns that you want in a --schema: other keys are kept in the column _extra",
    "25006": "connect to the primary, or as a role that may write",
    "42501": "grant the role what it needs; --ledger-schema moves the ledger to another schema",
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
    "44000": "check",
    "42501": "policy",
}
_FAMILIES: dict[str, Family] = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "boolean": "boolean",
    "date": "date",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "instant",
}
_CATEGORIES: dict[Kind, str] = {"integer": "NSBD", "number": "NS", "boolean": "BS", "json": "SA"}
"""Categories of pg_type that take a kind of column, JSON types apart. Strings go into every type:
PostgreSQL reads them strictly, and refuses the row if they do not have the type's form."""


def translate(error: psycopg.Error, where: str) -> BatchImportError:
    """Return the error of ours that a driver error means, by its SQLSTATE."""
    state = error.sqlstate or ""
    message = (error.diag.message_primary or str(error)).strip().splitlines()
    text = message[0] if message else type(error).__name__
    if state.startswith(_DATA) and state != "54011":  # too many columns
        return DataError(text)
    is_lost = not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if is_lost or (state and state.startswith(_AWAY)):
        return DestinationAwayError(text, where, was_connected=True)
    if not state or state.startswith(_TRANSIENT):
        return TransientError(text, where=where)
    hint = next((hint for code, hint in _REFUSED.items() if state.startswith(code)), None)
    return FatalError(f"PostgreSQL says: {text} ({state})", where=where, hint=hint)


def is_of_a_row(error: psycopg.Error) -> bool:
    """Say whether an error may be the fault of a row, whatever code a trigger gave it."""
    state, context = error.sqlstate, error.diag.context or ""
    if not state:  # the connection is lost
        return False
    is_raised = context.partition("\n")[0].endswith((" RAISE", " ASSERT"))
    return is_raised or not re.match(NOT_THE_ROW, state)


def opening(error: psycopg.Error, address: str, where: str) -> BatchImportError:
    """Return the error of ours that a failed connection means."""
    ours = translate(error, where)
    if not isinstance(ours, TransientError):
        return ours
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if "failed: " in line), ours.message)
    reason = reason.rpartition("failed: ")[2].removeprefix("FATAL:").strip()
    hint = "check the address and the server"
    kind = DestinationNotUpError if _may_come_up(address) else DestinationAwayError
    return kind(f"cannot connect: {reason}", server_of(address), hint)


def _may_come_up(address: str) -> bool:
    """Say whether no server answers at a host that is known, or one that is starting.

    A server that refuses user or password does answer.
    """
    given = conninfo_to_dict(address)
    try:
        for host in str(given.get("host") or "").split(","):
            if host and not host.startswith("/") and not given.get("hostaddr"):
                socket.getaddrinfo(host, None)
    except OSError:
        return False
    probe = make_conninfo(address, connect_timeout=PING_SECONDS)
    return pq.PGconn.ping(probe.encode()) in (pq.Ping.REJECT, pq.Ping.NO_RESPONSE)


def server_of(address: str) -> str:
    """Return what users call the server of an address."""
    given = conninfo_to_dict(address)
    host = str(
        given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "localhost"
    )
    port = str(given.get("port") or os.environ.get("PGPORT") or "5432")
    return f"PostgreSQL at {host}:{port}"


def reason(state: str, message: str | None, detail: str | None, column: str | None) -> FieldError:
    """Return the reason why a row was refused, from the parts of PostgreSQL's error."""
    key = re.match(r"Key \((.+?)\)=", detail or "")
    field = column or (key[1] if key else "")
    text = ": ".join(part for part in (message, detail) if part)
    code = _CODES.get(state) or ("type" if state.startswith("22") else "trigger")
    return FieldError(code, field, text[:500])


@dataclass(frozen=True, slots=True)
class PostgresColumn(TableColumn):
    """A column of a PostgreSQL table.

    Attributes:
        base: Its type without length or domain, as SQL.
        category: As in pg_type: N number, S string, B boolean, A array, …
    """

    base: str
    category: str

    @property
    def is_exact(self) -> bool:
        """Say whether it holds numbers of any length exactly as they are written."""
        return self.base == "numeric"

    @property
    def family(self) -> Family:
        """Say what it holds, as far as PostgreSQL is to be given it read."""
        return "text" if self.category == "S" else _FAMILIES.get(self.base, "other")

    def takes(self, kind: Kind) -> bool:
        """Say whether values of this kind fit the type; PostgreSQL reads strings strictly."""
        allowed = _CATEGORIES.get(kind)
        if not allowed or self.category in allowed or self.base in ("json", "jsonb"):
            return True
        return kind == "json" and self.is_exact


CATALOGUE = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod),
           NOT a.attnotnull OR a.atthasdef OR a.attidentity <> '',
           a.attgenerated <> '' OR a.attidentity = 'a',
           format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, -1),
           t.typcategory::text
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(?) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum"""

WAYS = """
    SELECT c.relkind IN ('r', 'p') AND NOT row_security_active(c.oid) AND NOT EXISTS (
             SELECT 1 FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '3'),
           EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgtype & 7 = 7 AND NOT t.tgisinternal
             AND (t.tgrelid = c.oid OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))))
    FROM pg_class c WHERE c.oid = to_regclass(?)"""
"""Whether COPY does what INSERT would do (it knows no rules and no policies), and whether the table
has triggers before rows are inserted, which may leave them out."""

UNIQUE_KEYS = """
    SELECT i.indexrelid::bigint, a.attname
    FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attnum = k.number
    WHERE i.indrelid = to_regclass(?) AND a.attrelid = i.indrelid AND k.place <= i.indnkeyatts
      AND i.indisunique AND i.indimmediate AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL"""
"""Index and column of the unique indexes that ON CONFLICT can name."""


FOREIGN_KEYS = """
    SELECT pg_get_constraintdef(oid), confrelid = conrelid FROM pg_constraint
    WHERE conrelid = to_regclass(?) AND contype = 'f' ORDER BY conname"""
REFERENCES = """
    SELECT c.confrelid::regclass::text, c.confrelid = c.conrelid,
      (SELECT array_agg(a.attname::text ORDER BY k.place)
       FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
       JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number),
      (SELECT array_agg(a.attname::text ORDER BY k.place)
       FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
       JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number)
    FROM pg_constraint c
    WHERE c.conrelid = to_regclass(?) AND c.contype = 'f' AND c.conparentid = 0 ORDER BY c.conname"""
"""Parent, whether it is the table itself, the columns and the parent's columns of each foreign key."""
OWN_REFERENCE = re.compile(r"REFERENCES (?:[^\s(\"]|\"(?:[^\"]|\"\")*\")+\(")

INDEXES = """
    SELECT format('%I.%I', n.nspname, c.relname), pg_get_indexdef(c.oid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.indrelid = to_regclass(?) AND c.relkind = 'i' AND NOT c.relispartition AND i.indisvalid
      AND NOT (i.indisunique OR i.indisexclusion OR i.indisclustered OR i.indisreplident)
    ORDER BY c.relname"""

REFERRED_TO = """
    SELECT (SELECT array_agg(a.attname::text ORDER BY k.place)
            FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number)
    FROM pg_constraint c WHERE c.confrelid = to_regclass(?) AND c.contype = 'f'
      AND c.conrelid <> c.confrelid ORDER BY c.conname"""
"""The columns that each foreign key of another table refers to."""


def array_literal(text: str | None) -> str | None:
    """Return a JSON array as PostgreSQL writes arrays; anything else is left for it to refuse."""
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
