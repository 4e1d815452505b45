"""The rejects of a job as a file: a JSON object a line, made column by column from the ledger's rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport import failpoints
from batchimport.jobs.finish import outcome_counts
from batchimport.sinks.sql import statements
from batchimport.state.files import write_atomically
from batchimport.state.json_text import json_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batchimport.model import Reject, Summary
    from batchimport.sinks.base import Sink

EXAMPLES = 5
ROWS = 1000
"""Rejects that are written at once; each of them may be as long as a record may be."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The rejects of a job.

    Attributes:
        path: The file that was written; None if none was.
        examples: A few rejects for different reasons.
        codes: Number of rejects by the code of their first error.
        fields: Number of errors by field and code; the field of the whole record is empty.
        outcomes: Fields of the summary: records by what the destination did with them.
    """

    path: str | None = None
    examples: tuple[Reject, ...] = ()
    codes: dict[str, int] = field(default_factory=dict)
    fields: dict[str, dict[str, int]] = field(default_factory=dict)
    outcomes: dict[str, Any] = field(default_factory=dict)

    def fill(self, summary: Summary) -> Summary:
        """Return a summary with what is known of the rejects."""
        return replace(
            summary,
            rejects_by_code=self.codes,
            rejects_by_field=self.fields,
            rejects_file=self.path,
            **self.outcomes,
        )


def export_rejects(sink: Sink, job_id: str, path: Path | None) -> Exported:
    """Write the rejects of a job to a file, one JSON object a line, in order of record.

    Args:
        path: None writes nothing.

    Raises:
        FatalError: If the file cannot be written.
    """
    outcomes = outcome_counts(sink.committed(job_id))
    if path is None:
        return Exported(outcomes=outcomes)
    reasons = _Reasons()

    def texts() -> Iterator[bytes]:
        for page in sink.reject_frames(job_id):
            for rows in page.iter_slices(ROWS):
                failpoints.reach("during-export")
                text, errors = lines_of(rows)
                reasons.add(rows, errors)
                yield text

    write_atomically(path, texts())
    return Exported(str(path), reasons.examples(), reasons.by_code(), reasons.by_field(), outcomes)


def lines_of(rows: pl.DataFrame) -> tuple[bytes, Sequence[Sequence[_Error]]]:
    """Return rows of the ledger as lines of the rejects file, and the errors of each.

    The errors are JSON already, as `json_text` writes it. Rows that need another look are decoded and
    encoded again one by one.
    """
    errors = _errors_of(rows)
    if errors is None:
        rejects = statements.rejects(rows.rows())
        lines = pl.Series(map(_line, rejects), dtype=pl.String)
        errors = [
            [_Error(each.code, each.field, "") for each in reject.errors] for reject in rejects
        ]
    else:
        lines = rows.select(_LINE).to_series()
        places = rows.select(_NEEDS_A_LOOK).to_series().arg_true()
        if len(places):
            again = map(_line, statements.rejects(rows[places].rows()))
            lines = lines.scatter(places, pl.Series(again, dtype=pl.String))
    whole: bytes = lines.str.join("\n").cast(pl.Binary).item()
    return whole + b"\n", errors


def _line(reject: Reject) -> str:
    return json_line(reject.to_dict()).decode().removesuffix("\n")


class _Error(msgspec.Struct):
    """What is counted of an error."""

    code: str
    field: str
    message: str


_decode_errors = msgspec.json.Decoder(list[list[_Error]]).decode


def _errors_of(rows: pl.DataFrame) -> list[list[_Error]] | None:
    """Return the errors of rows; None if they must be decoded one by one: one is not plain JSON."""
    try:
        errors = _decode_errors(f"[{rows.get_column('errors').str.join(',').item()}]")
    except (msgspec.DecodeError, RecursionError):
        return None
    return errors if len(errors) == rows.height and all(errors) else None


def _quoted(name: str) -> pl.Expr:
    """Return a column of strings as JSON, followed by a brace."""
    return pl.struct(name).struct.json_encode().str.strip_prefix(f'{{"{name}":')


_LINE = pl.concat_str(
    pl.lit('{"record": '),
    pl.col("record"),
    pl.lit(', "source": '),
    _quoted("source").str.strip_suffix("}"),
    pl.lit(', "line": '),
    pl.col("line").cast(pl.String).fill_null("null"),
    pl.lit(', "byte_offset": '),
    pl.col("byte_offset"),
    pl.lit(', "stage": '),
    _quoted("stage").str.strip_suffix("}"),
    pl.lit(', "errors": '),
    pl.col("errors"),
    pl.lit(', "raw": '),
    _quoted("raw"),
)
_NEEDS_A_LOOK = (
    (pl.col("raw_is_base64") != 0)
    | pl.col("errors").str.contains("\\u", literal=True)  # escaped: not every database holds it
    | pl.col("errors").str.contains("\n", literal=True)  # of a row that was changed by hand
)


class _Reasons:
    """What records were rejected for: counted, with the first record of each field and code."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], Reject] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._codes: Counter[str] = Counter()

    def add(self, rows: pl.DataFrame, errors: Sequence[Sequence[_Error]]) -> None:
        """Count the errors of rows of the ledger."""
        self._codes.update(each[0].code for each in errors)
        found = Counter((error.field, error.code) for each in errors for error in each)
        if not found.keys() <= self._first.keys():
            for place, each in enumerate(errors):
                for error in each:
                    if (error.field, error.code) not in self._first:
                        row = rows.row(place)
                        self._first[error.field, error.code] = statements.rejects([row])[0]
        self._counts.update(found)

    def by_code(self) -> dict[str, int]:
        """Return the number of rejects by the code of their first error."""
        return dict(sorted(self._codes.items()))

    def by_field(self) -> dict[str, dict[str, int]]:
        """Return the number of errors by field and code."""
        fields: dict[str, dict[str, int]] = {}
        for (name, code), count in sorted(self._counts.items()):
            fields.setdefault(name, {})[code] = count
        return fields

    def examples(self) -> tuple[Reject, ...]:
        """Return examples of the most frequent reasons, in the order of their records."""
        frequent = sorted(self._first, key=lambda reason: -self._counts[reason])
        examples = {self._first[reason].record: self._first[reason] for reason in frequent}
        chosen = list(examples.values())[:EXAMPLES]
        return tuple(sorted(chosen, key=lambda reject: reject.record))
