"""What is told of a job in its report, as data: `batchimport report --json` prints it.

Its size is bounded, however large the job is. Time is counted in seconds of work: the pause between two
runs takes none.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchimport.display.units import parse_time
from batchimport.jobs.finish import outcome_counts
from batchimport.model import EXTRA_COLUMN, Job
from batchimport.policy.plan import find_gaps
from batchimport.schema import notes_about

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchimport.jobs.known import Known
    from batchimport.model import Committed, Reject
    from batchimport.sinks.base import JobRecord

VERSION = 1
EXAMPLES = 10
"""Rejects that are shown for each reason."""
MOST_REASONS = 100
MOST_KINDS = 10_000
"""Reasons that are counted apart."""
MOST_EXAMPLES = 5_000
"""Examples that are kept in all; beyond them, each further reason has one."""
MOST_BUCKETS = 80
CHUNKS_PER_BUCKET = 3
MOST_SAMPLES = 400
MOST_EVENTS = 100
MOST_TEXT = 500
"""Characters of a record or value that are shown."""
_FACTS = {each for each in Job.__dataclass_fields__ if each not in ("destination", "schema")}
_SAMPLE = ("records", "in_flight", "chunk_size", "cpu_usage", "memory_usage")
_SHOWN = {"retried", "given_up", "waited"}


@dataclass(slots=True)
class Reason:
    """A field and a code that records were rejected for."""

    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Rejected:
    """The rejects of a job.

    Attributes:
        reasons: By field (empty for the whole record) and code.
        kept: Examples that are kept.
    """

    records: int = 0
    errors: int = 0
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)
    kept: int = 0

    def add(self, reject: Reject) -> None:
        """Count a reject; keep it as an example if its reason needs one."""
        self.records += 1
        for error in reject.errors:
            self.errors += 1
            key = (error.field, error.code)
            if key not in self.reasons and len(self.reasons) >= MOST_KINDS:
                continue
            reason = self.reasons.setdefault(key, Reason())
            reason.count += 1
            if len(reason.examples) < (EXAMPLES if self.kept < MOST_EXAMPLES else 1):
                self.kept += 1
                reason.examples.append(
                    {
                        "record": reject.record,
                        "source": reject.source,
                        "line": reject.line,
                        "stage": reject.stage,
                        "message": _cut(error.message),
                        "raw": _cut(reject.raw[: 4 * MOST_TEXT].decode(errors="replace")),
                    }
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the most frequent reasons first."""
        ranked = sorted(self.reasons.items(), key=lambda item: (-item[1].count, item[0]))
        shown = [
            {"field": name, "code": code, "count": reason.count, "examples": reason.examples}
            for (name, code), reason in ranked[:MOST_REASONS]
        ]
        counted = sum(reason.count for _, reason in ranked[:MOST_REASONS])
        return {
            "records": self.records,
            "errors": self.errors,
            "reasons": shown,
            "errors_of_other_reasons": self.errors - counted,
        }


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """What the destination knows of a job."""

    record: JobRecord
    committed: Sequence[Committed]
    rejected: Rejected


def report_of(
    known: Known,
    ledger: LedgerFacts | None,
    events: Sequence[dict[str, Any]],
    document: dict[str, Any] | None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the report.

    Args:
        ledger: None if the destination cannot be read.
        events: What was recorded while the job ran; none on another host.
        document: The checkpoint; None if there is none.
        notes: What is missing in the report, and why.
    """
    committed = ledger.committed if ledger else ()
    began = ledger.record.created_at if ledger else known.begun_at
    clock = WorkClock(began, committed, events)
    accounts = _accounts(known, ledger)
    facts = (ledger.record.configuration if ledger else (document or {}).get("job")) or {}
    return {
        "version": VERSION,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "notes": list(notes),
        "job": _job(known, accounts, clock.total),
        "accounts": accounts,
        "runs": _runs(known, clock.runs(committed, events)),
        "timeline": _timeline(clock, committed),
        "samples": _samples(clock, events),
        "events": _events(clock, events),
        "rejects": ledger.rejected.to_dict() if ledger else None,
        "columns": _columns(ledger) if ledger else [],
        "column_notes": _column_notes(ledger, facts),
        "schema": ledger.record.schema if ledger else facts.get("schema"),
        "configuration": {key: facts[key] for key in facts if key in _FACTS},
        "options": (document or {}).get("options") or {},
    }


def _job(known: Known, accounts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return what `status` says, with the ledger's numbers: a checkpoint may be a second older."""
    outcomes = [accounts[name] for name in ("successful", "failed", "filtered")]
    total = accounts["total_items"]
    percentage = min(100.0, round(100 * sum(outcomes) / total, 2)) if total else None
    return known.to_dict() | {
        "total_items": total,
        "processed_items": sum(outcomes),
        "successful_items": outcomes[0],
        "failed_items": outcomes[1],
        "progress_percentage": known.progress.progress_percentage
        if percentage is None
        else percentage,
        "duration_seconds": max(known.duration_seconds or 0.0, round(seconds, 3)) or None,
    }


def _runs(known: Known, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs; how a completed job ended is known without its events."""
    if runs and runs[-1]["status"] is None and known.progress.status.startswith("completed"):
        runs[-1]["status"] = known.progress.status
    return runs


def _accounts(known: Known, ledger: LedgerFacts | None) -> dict[str, Any]:
    progress = known.progress
    if ledger is None:
        filtered = progress.processed_items - progress.successful_items - progress.failed_items
        return {
            "total_items": progress.total_items,
            "successful": progress.successful_items,
            "failed": progress.failed_items,
            "filtered": filtered,
            "balanced": None,
        }
    rows, record = ledger.committed, ledger.record
    total = record.total_items if record.total_items is not None else progress.total_items
    outcomes = {
        name: sum(getattr(row, name) for row in rows)
        for name in ("successful", "failed", "filtered")
    }
    return {
        "total_items": total,
        **outcomes,
        **outcome_counts(rows),
        "chunks": len(rows),
        "gaps": len(find_gaps(record.size, [row.chunk for row in rows])),
        "balanced": None if total is None else total == sum(outcomes.values()),
    }


# -- time -----------------------------------------------------------------------------------------


def _seconds(text: object) -> float | None:
    """Return a recorded time as seconds since 1970; None if it is none."""
    time = parse_time(text)
    return time.timestamp() if time else None


class WorkClock:
    """Maps times to seconds of work.

    A run begins where the recorded events say so, or where the ledger has a new epoch; it ends with the
    last thing that is known of it.

    Args:
        began: When the job was claimed first.
    """

    def __init__(
        self,
        began: str | None,
        committed: Sequence[Committed],
        events: Sequence[dict[str, Any]],
    ) -> None:
        stored = sorted(
            (at, row.epoch) for row in committed if (at := _seconds(row.committed_at)) is not None
        )
        told = [(at, event) for event in events if (at := _seconds(event["at"])) is not None]
        starts = {at for at, event in told if event.get("event") == "began"}
        first = _seconds(began)
        last_epoch, last = None, first if first is not None else float("-inf")
        for at, epoch in stored:
            if epoch != last_epoch and not any(last <= start <= at for start in starts):
                starts.add(last if last_epoch is None and first is not None else at)
            last_epoch, last = epoch, at
        times = sorted({*starts, *(at for at, _ in stored), *(at for at, _ in told)})
        self._starts = sorted(starts)
        until = [*self._starts[1:], float("inf")][: len(self._starts)]
        self._ends = [times[bisect_left(times, end) - 1] for end in until]
        self._before = [0.0]
        for start, end in zip(self._starts, self._ends, strict=True):
            self._before.append(self._before[-1] + end - start)

    @property
    def total(self) -> float:
        """Seconds of work in all."""
        return self._before[-1]

    def second(self, text: object) -> float | None:
        """Return the second of work of a time; None if it is in no run."""
        at = _seconds(text)
        number = self._run(at)
        if at is None or number is None:
            return None
        return self._before[number] + min(at, self._ends[number]) - self._starts[number]

    def _run(self, at: float | None) -> int | None:
        number = bisect_right(self._starts, at) - 1 if at is not None else -1
        return number if number >= 0 else None

    def runs(
        self, committed: Sequence[Committed], events: Iterable[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return begin, end and outcome of each run."""
        records: Counter[int | None] = Counter()
        chunks: Counter[int | None] = Counter()
        for row in committed:
            number = self._run(_seconds(row.committed_at))
            records[number] += row.chunk.records
            chunks[number] += 1
        ended = {
            self._run(_seconds(event["at"])): event
            for event in events
            if event.get("event") == "ended"
        }
        return [
            {
                "began_at": _iso(start),
                "ended_at": _iso(end),
                "second": round(self._before[number], 3),
                "seconds": round(end - start, 3),
                "chunks": chunks[number],
                "records": records[number],
                "status": _cut(ended.get(number, {}).get("status")),
                "error": _cut(ended.get(number, {}).get("error")),
            }
            for number, (start, end) in enumerate(zip(self._starts, self._ends, strict=True))
        ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _timeline(clock: WorkClock, committed: Sequence[Committed]) -> list[dict[str, Any]]:
    """Return what was committed in equal parts of the time, so many that each has several chunks."""
    placed = [(at, row) for row in committed if (at := clock.second(row.committed_at)) is not None]
    count = min(MOST_BUCKETS, len(placed) // CHUNKS_PER_BUCKET)
    if count < 1 or clock.total <= 0:
        return []
    width = clock.total / count
    parts: list[list[Committed]] = [[] for _ in range(count)]
    for at, row in placed:
        parts[min(count - 1, int(at / width))].append(row)
    return [
        {
            "second": round(number * width, 3),
            "seconds": round(width, 3),
            "chunks": len(rows),
            "records": (records := sum(row.chunk.records for row in rows)),
            "records_per_second": round(records / width, 1),
            "records_per_chunk": round(records / len(rows)) if rows else None,
            "rejected": sum(row.failed for row in rows),
            "retried_chunks": sum(row.attempt > 1 for row in rows),
        }
        for number, rows in enumerate(parts)
    ]


def _samples(clock: WorkClock, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    samples = [event for event in events if event.get("event") == "sample"]
    step = max(1, -(-len(samples) // MOST_SAMPLES))
    placed = ((clock.second(event["at"]), event) for event in samples[::step])
    return [
        {"second": round(at, 3), **{name: _number(event.get(name)) for name in _SAMPLE}}
        for at, event in placed
        if at is not None
    ]


def _number(value: object) -> float | None:
    """Return a recorded number, short; None if it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if isinstance(value, int) else round(value, 4)


def _events(clock: WorkClock, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return retries, waits and chunks that were given up, and the reasons of chunk sizes."""
    shown: list[dict[str, Any]] = []
    retries, waited = 0, 0.0
    for event in events:
        kind, at = event.get("event"), clock.second(event["at"])
        if at is None or kind not in _SHOWN:
            continue
        retries += kind == "retried"
        waited += (_number(event.get("seconds")) or 0.0) if kind == "waited" else 0.0
        shown.append(
            {
                "at": event["at"],
                "second": round(at, 3),
                "event": kind,
                "record": _number(event.get("record")),
                "records": _number(event.get("records")),
                "attempt": _number(event.get("attempt")),
                "seconds": _number(event.get("seconds")),
                "error": _cut(event.get("error")),
            }
        )
    decisions = [
        {
            "second": round(at, 3),
            "chunk_size": _number(event.get("chunk_size")),
            "in_flight": _number(event.get("allowed_in_flight")),
            "reason": _cut(event["reason"]),
        }
        for event in events
        if "reason" in event and (at := clock.second(event["at"])) is not None
    ]
    return {
        "retries": retries,
        "waited_seconds": round(waited, 3),
        "shown": shown[:MOST_EVENTS],
        "not_shown": max(0, len(shown) - MOST_EVENTS),
        "decisions": decisions[:MOST_EVENTS],
    }


# -- columns --------------------------------------------------------------------------------------


def _columns(ledger: LedgerFacts) -> list[dict[str, Any]]:
    """Return the columns of the table, each with the number of errors in it."""
    errors: Counter[str] = Counter()
    for (name, _), reason in ledger.rejected.reasons.items():
        errors[name] += reason.count
    return [
        {
            "name": column.name,
            "type": column.kind,
            "nullable": column.nullable or not column.required,
            "inferred": column.inferred,
            "errors": sum(
                count
                for name, count in errors.items()
                if name == column.name or name.startswith((f"{column.name}.", f"{column.name}["))
            ),
        }
        for column in ledger.record.columns
        if column.name != EXTRA_COLUMN
    ]


def _column_notes(ledger: LedgerFacts | None, facts: dict[str, Any]) -> list[str]:
    if ledger is None or facts.get("schema") is not None:
        return []
    return list(notes_about(ledger.record.schema))


def _cut(text: object) -> str | None:
    if text is None:
        return None
    whole = str(text)
    return whole if len(whole) <= MOST_TEXT else whole[: MOST_TEXT - 1] + "…"
