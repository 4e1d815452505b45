"""Checks that values of options have in common; an error names the option as the command line does."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from batchimport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHANGEABLE = ("after_sql", "analyze", "defer_indexes")
"""Fields of a job that may be others when it is continued."""
_TEXTS = {
    "--to": "destination",
    "--table": "table",
    "--key": "key",
    "--sql": "sql",
    "--before-sql": "before_sql",
    "--after-sql": "after_sql",
}
"""Fields of a job that have text, by option."""

TYPE_NAMES = {
    **dict.fromkeys(("int", "bigint", "smallint", "int64", "long"), "integer"),
    **dict.fromkeys(("float", "double", "real", "decimal", "numeric", "float64"), "number"),
    **dict.fromkeys(("text", "str", "varchar", "char"), "string"),
    **dict.fromkeys(("timestamp", "timestamptz", "datetime"), "date-time"),
    "bool": "boolean",
    **dict.fromkeys(("jsonb", "object", "array"), "json"),
}
"""What other programs call the types of columns."""

JOB_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_job_id(job_id: str, where: str | None = None) -> None:
    """Check that a string may be the id of a job: it names a folder.

    Raises:
        UsageError: If not.
    """
    if not JOB_ID_PATTERN.fullmatch(job_id):
        raise UsageError(
            f"not a job id: {job_id!r}",
            where=where,
            hint="letters, digits, dot, dash and underscore, at most 128 characters",
        )


def check_range(option: str, value: float | None, least: float, most: float | None = None) -> None:
    """Check that a value is within bounds; None always is.

    Raises:
        UsageError: If not.
    """
    if value is None or (value >= least and (most is None or value <= most)):
        return
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    raise UsageError(f"must be {bounds}, not {value}", where=option)


def check_choice(
    option: str, value: str | None, choices: Any, synonyms: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Check that a value is one of a Literal's; None always is.

    Args:
        synonyms: Other words for them, which are understood and not taken.

    Raises:
        UsageError: If not.
    """
    names = get_args(choices)
    if value is not None and value not in names:
        known = ", ".join(map(repr, names))
        meant = synonyms.get(value.lower())
        hint = f"did you mean {meant}?" if meant else None
        raise UsageError(f"{value!r} is not one of {known}", where=option, hint=hint)


def check_line(option: str, text: str | None) -> None:
    """Check that a text is not empty, and is on one line; None always is.

    Raises:
        UsageError: If not.
    """
    if text == "":
        raise UsageError("must not be empty", where=option)
    if text is not None and {"\r", "\n"} & set(text):
        raise UsageError("must not have a line end", where=option)


def check_names(option: str, names: Sequence[str]) -> None:
    """Check names of columns, which were given with commas between.

    Raises:
        UsageError: If one is empty, or given twice.
    """
    for name in names:
        if not name:
            hint = "such as id,name"
            raise UsageError("has an empty name", where=option, hint=hint)
        if names.count(name) > 1:
            raise UsageError(f"{name!r} is given twice", where=option)


def pairs_of(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """Return what `LEFT=RIGHT` says for each LEFT.

    Raises:
        UsageError: If a text is not such a pair, or a LEFT is there twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        left, equals, right = text.partition("=")
        if not (left and equals and right):
            raise UsageError(f"{text!r} is not of the form LEFT=RIGHT", where=option)
        if left in pairs:
            raise UsageError(f"{left!r} is given twice", where=option)
        pairs[left] = right
    return pairs


def check_atomic(if_exists: str, *, defers_indexes: bool) -> None:
    """Check what `--atomic` goes with.

    Raises:
        UsageError: If not.
    """
    if if_exists == "append":
        raise UsageError(
            "is for a table whose rows are all replaced",
            where="--atomic",
            hint="add --if-exists truncate or replace; or fail, if the table is new",
        )
    if defers_indexes:
        raise UsageError("is not for the table that --atomic fills", where="--defer-indexes")


def check_texts(job: object) -> None:
    """Check that the texts of a job are such that they can be stored.

    Raises:
        UsageError: If one is not UTF-8.
    """
    for option, name in _TEXTS.items():
        value = getattr(job, name) or ""
        text = value if isinstance(value, str) else "".join(value)
        if text != text.encode(errors="replace").decode():
            raise UsageError("is not valid UTF-8", where=option)
