"""What the Python API returns: how a run ended, and how far a job is."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from batchimport.cli.report import data_of
from batchimport.errors import FatalError
from batchimport.model import Progress, Summary
from batchimport.state.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    import polars as pl

    from batchimport.cli.recorded import Place
    from batchimport.jobs.finish import Outcome
    from batchimport.jobs.known import Known


@dataclass(frozen=True, slots=True, repr=False)
class Result(Summary):
    """How a run ended: the fields of the summary, the exit code, and the rejects.

    Attributes:
        exit_code: What the command line would have ended with.
    """

    exit_code: int = 0
    _place: Place | None = field(default=None, compare=False)
    _rejects_path: Path | None = field(default=None, compare=False)
    _replay: Callable[..., Result] | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        outcome: Outcome,
        place: Place,
        exit_code: int | None = None,
        replay: Callable[..., Result] | None = None,
    ) -> Self:
        """Return the result of an outcome.

        Args:
            place: Where the job is known.
            replay: What its method of this name calls.
        """
        summary = outcome.summary
        facts = {each.name: getattr(summary, each.name) for each in fields(Summary)}
        path = Path(summary.rejects_file).absolute() if summary.rejects_file else None
        code = outcome.exit_code if exit_code is None else exit_code
        return cls(**facts, exit_code=code, _place=place, _rejects_path=path, _replay=replay)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary, as `--json` prints it."""
        return Summary(
            **{name.name: getattr(self, name.name) for name in fields(Summary)}
        ).to_dict()

    def rejects(self) -> Iterator[dict[str, Any]]:
        """Yield the rejects, as they are in the rejects file, in order of record.

        Raises:
            FatalError: If that file is gone.
        """
        if self._rejects_path is None:
            return
        try:
            with self._rejects_path.open("rb") as file:
                yield from map(json.loads, file)
        except OSError as error:
            raise FatalError(
                f"the rejects file cannot be read: {error.strerror}",
                where=str(self._rejects_path),
                hint=f"batchimport.rejects({self.job_id!r}) reads them from the destination",
            ) from error

    def rejects_frame(self) -> pl.DataFrame:
        """Return the rejects as a frame with a row for each record.

        `errors` is a list of structs, so that `.explode("errors").unnest("errors")` gives a row for each
        error; their values are written as JSON.
        """
        return frame_of(self.rejects())

    def replay(self, **mended: Any) -> Result:
        """Process the rejects of the job again: `batchimport.replay`, where this run has kept them.

        Args:
            mended: `from_`, `schema`, `transform`, `sql`, `new_columns`, `where`, `dry_run`.
        """
        place, replay = cast("Place", self._place), cast("Callable[..., Result]", self._replay)
        return replay(
            self.job_id,
            to=place.ledger.to,
            ledger_schema=place.ledger.ledger_schema,
            state_dir=place.state.state_dir,
            **mended,
        )

    def report(self) -> Report:
        """Return the report of the job, as `batchimport report` makes it.

        Raises:
            UnknownJobError: If the job kept nothing: a dry run, or one that did not begin.
        """
        place = cast("Place", self._place)
        return Report(data_of(self.job_id, place.ledger, place.state))

    def __repr__(self) -> str:
        parts = [f"{self.status}", f"stored={self.successful:,}", f"rejected={self.failed:,}"]
        parts += [f"filtered={self.filtered:,}"] if self.filtered else []
        return f"<Result {self.job_id}: {' '.join(parts)} in {self.duration_seconds:.1f} s>"

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        facts = {
            "job": self.job_id,
            "outcome": self.status.replace("_", " "),
            "destination": f"{self.destination}, table {self.table}",
            "stored": f"{self.successful:,} of {self.total_processed:,}",
            "rejected": f"{self.failed:,}",
            "filtered": f"{self.filtered:,}" if self.filtered else "",
            "time": f"{self.duration_seconds:.1f} s, {self.records_per_second:,.0f} records/s",
            "rejects file": self.rejects_file or "",
        }
        reasons = [
            (name or "(record)", code, count)
            for name, codes in self.rejects_by_field.items()
            for code, count in codes.items()
        ]
        rows = [(name, value) for name, value in facts.items() if value]
        reasons.sort(key=lambda reason: -reason[2])
        text = _table(rows)
        return text + _table([("field", "reason", "records"), *reasons]) if reasons else text


def _table(rows: list[tuple[Any, ...]]) -> str:
    lines = (
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table>{''.join(lines)}</table>"


def frame_of(rejects: Iterator[dict[str, Any]]) -> pl.DataFrame:
    """Return rejects as a frame, whose columns do not depend on what they are."""
    import polars as pl  # noqa: PLC0415 - loaded on use

    errors = pl.Struct({name: pl.String() for name in ("code", "field", "message", "value")})
    columns = {
        "record": pl.Int64(),
        "source": pl.String(),
        "line": pl.Int64(),
        "byte_offset": pl.Int64(),
        "stage": pl.String(),
        "errors": pl.List(errors),
        "raw": pl.String(),
        "raw_base64": pl.String(),
    }
    rows = []
    for reject in rejects:
        for error in reject["errors"]:
            error["value"] = json.dumps(error["value"], ensure_ascii=False)
        rows.append(reject)
    return pl.DataFrame(rows, schema=columns)


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """A report of a job.

    Attributes:
        data: As `batchimport report --json` prints it.
    """

    data: dict[str, Any]

    @property
    def html(self) -> str:
        """One HTML file that needs nothing else."""
        from batchimport.display.page import page  # noqa: PLC0415 - imports the charts

        return page(self.data)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as an HTML file."""
        write_atomically(Path(path), [self.html.encode(errors="replace")])

    def _repr_html_(self) -> str:
        """Show it in a notebook, in a frame of its own."""
        text = html.escape(self.html)
        return f'<iframe srcdoc="{text}" style="width:100%;height:60em;border:0"></iframe>'


@dataclass(frozen=True, slots=True)
class JobStatus(Progress):
    """How far a job is, and what became of it: the fields that `status --json` prints."""

    sources: list[str] = field(default_factory=list)
    destination: str = ""
    table: str = ""
    begun_at: str | None = None
    ended_at: str | None = None
    duration_seconds: float | None = None
    runs: int | None = None
    error: str | None = None
    next_command: str | None = None

    @classmethod
    def of(cls, known: Known) -> Self:
        """Return what is known of a job."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in known.to_dict().items() if name in names})
