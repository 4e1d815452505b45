"""Inferred types beside those of a table that exists already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchimport.policy.preparing import note
from batchimport.rules import pairs_of
from batchimport.schema.forms import WRITTEN, as_of_table, without_marks
from batchimport.schema.infer import TEXT, kind_in_words

if TYPE_CHECKING:
    from batchimport.model import Job, SourceOptions
    from batchimport.sinks.base import JobRecord, Sink


def beside_table(
    document: dict[str, Any], job: Job, sink: Sink, *, is_text: bool
) -> dict[str, Any]:
    """Return an inferred schema with what the job's table says of its columns.

    In a table of the user's own, the types of the columns are given. In one that imports made, they were
    inferred, too: what would have made such a column text is not read as a number there either.

    Args:
        is_text: The records are cells of delimited text.
    """
    is_new = job.if_exists == "replace" or not sink.columns_of(job.table)
    earlier = [] if is_new or not sink.made_here(job.table) else _earlier(job, sink)
    if is_text:
        document = _as_written(document, job, sink, earlier, is_new=is_new)
    is_given = not (is_new or earlier)
    return without_marks(document, sink.columns_of(job.table)) if is_given else document


def _earlier(job: Job, sink: Sink) -> list[JobRecord]:
    """Return the jobs that have filled the table, as far as they are remembered."""
    return [record for record in sink.jobs() if record.configuration.get("table") == job.table]


def _as_written(
    document: dict[str, Any], job: Job, sink: Sink, earlier: list[JobRecord], *, is_new: bool
) -> dict[str, Any]:
    """Return a schema in which cells that stay as they are written are strings.

    They go to a column of text, or are the key of a table that is made: 1.1 and 1.10 are two keys. A text
    column of dates takes them as the import that made it did.
    """
    texts = frozenset[str]() if job.if_exists == "replace" else sink.text_columns(job.table)
    dates = {
        column.name
        for record in earlier
        for column in record.columns
        if column.kind in ("date", "date-time")
    }
    numbers = _inferred_numbers(earlier)
    rules: dict[str, Any] = {}
    for name, rule in document.get("properties", {}).items():
        is_date = "x-date-format" in rule and name in dates
        if (name.lower() in texts and not is_date and not _is_asked(name, rule, job.options)) or (
            is_new and name in job.key and "number" in rule.get("type", ())
        ):
            rules[name] = dict(TEXT)
        elif rule == TEXT and name in numbers and not _is_asked(name, rule, job.options):
            kind = kind_in_words(numbers[name])
            note(f"column {name}: {kind}, as in the table; strings, also 007, are rejected")
            rules[name] = as_of_table(numbers[name])
        else:
            rules[name] = rule
    return document | {"properties": rules}


def _inferred_numbers(earlier: list[JobRecord]) -> dict[str, Any]:
    """Return the rules of columns that an import made numbers or booleans, since it had seen nothing else."""
    rules: dict[str, Any] = {}
    for record in earlier:
        is_as_read = not (record.configuration.get("transform") or record.configuration.get("sql"))
        rules |= record.schema.get("properties", {}) if is_as_read else {}
    return {
        name: rule
        for name, rule in rules.items()
        if isinstance(rule, dict) and "x-inferred" in rule and kind_in_words(rule) in WRITTEN
    }


def _is_asked(name: str, rule: dict[str, Any], options: SourceOptions) -> bool:
    """Say whether the user named the type of a column, or how its dates are written."""
    has_type = name in pairs_of("--type", options.types)
    return has_type or not set(rule.get("x-date-format", ())).isdisjoint(options.date_formats)
