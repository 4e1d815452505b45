"""What is removed of jobs that are over: ledger, rejects and state. The rows of their tables stay.

One line of the ledger stays, which knows the content of the job, so that it is not imported into the
table a second time.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from batchimport import failpoints
from batchimport.errors import (
    NoSuchDestinationError,
    RefusedError,
    UnknownJobError,
    hint_for,
)
from batchimport.jobs.identify import refuse_if_owned
from batchimport.policy.progress import is_resumable
from batchimport.sinks import open_sink, redact
from batchimport.sinks.base import FORGOTTEN, SinkOptions
from batchimport.system import owner_id, owner_is_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchimport.sinks.base import JobRecord, Sink
    from batchimport.state.directory import StateDirectory


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ledger is."""

    destination: str
    ledger_schema: str | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """What was removed of a job, or would be.

    Attributes:
        chunks: Rows of the ledger.
        rejects: Rejected records, in the ledger.
        rejects_file: A file of rejects that the user placed, and that stays.
    """

    job_id: str
    destination: str
    table: str
    chunks: int = 0
    rejects: int = 0
    rejects_file: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Removal:
    """Removes jobs from their ledgers and from the state directory.

    Attributes:
        has_ended: Says whether the owner of a job has ended; None where that cannot be known.
        completely: The line that knows a job's content goes, too.
        rejects_only: Only the rejects go.
        dry_run: Nothing goes.
    """

    state: StateDirectory
    has_ended: Callable[[str], bool | None] = owner_is_gone
    completely: bool = False
    rejects_only: bool = False
    dry_run: bool = False

    def forget(self, job_id: str, place: Place) -> Gone:
        """Remove one job.

        Raises:
            UnknownJobError: If neither the ledger nor the state directory knows it.
            RefusedError: If it is unfinished, or another program runs it.
        """
        document = self.state.load(job_id)
        with _opened(place, may_lack=document is not None) as sink:
            known = sink.jobs() if sink is not None else []
            record = next((each for each in known if each.job_id == job_id), None)
            if sink is not None and record is not None:
                return self._remove(record, sink, place)
        if document is None:
            ids = [each.job_id for each in known]
            raise UnknownJobError(
                "no such job there",
                where=f"job {job_id}",
                hint=hint_for(job_id, ids, "check --to and --ledger-schema"),
            )
        if sink is not None and is_resumable(document["progress"]["status"]):
            raise RefusedError(
                "the job is unfinished, and there is no ledger that knows it",
                where=f"job {job_id}",
                hint="check --to and --ledger-schema",
            )
        table = str(document.get("job", {}).get("table", ""))
        gone = Gone(job_id, redact(place.destination), table, rejects_file=self._placed(job_id))
        self._remove_state(job_id)
        return gone

    def prune(self, place: Place, age: timedelta, only: frozenset[str] | None = None) -> Pruned:
        """Remove the jobs of a ledger that were over that long ago.

        Args:
            only: The jobs to look at; None: all.
        """
        pruned = Pruned([], {})
        with _opened(place, may_lack=only is not None) as sink:
            known = sink.jobs() if sink is not None else []
            for record in known:
                is_meant = only is None or record.job_id in only
                if sink is None or not is_meant or not _is_older(record.updated_at, age):
                    continue
                if record.state == FORGOTTEN and not self.completely and only is None:
                    continue
                try:
                    pruned.gone.append(self._remove(record, sink, place))
                except RefusedError as error:
                    pruned.kept[record.job_id] = error.message
        for job_id in (only or frozenset()) - {record.job_id for record in known}:
            document = self.state.load(job_id) or {}  # the ledger has forgotten it, or is gone
            is_old = _is_older(str(document.get("saved_at")), age)
            if is_old and not is_resumable(document["progress"]["status"]):
                table = str(document.get("job", {}).get("table", ""))
                pruned.gone.append(Gone(job_id, redact(place.destination), table))
                self._remove_state(job_id)
        return pruned

    def _remove(self, record: JobRecord, sink: Sink, place: Place) -> Gone:
        self._refuse_unfinished(record, sink)
        job_id = record.job_id
        gone = Gone(
            job_id,
            redact(place.destination),
            str(record.configuration.get("table", "")),
            rejects_file=self._placed(job_id),
        )
        if self.dry_run:
            committed = sink.committed(job_id)
            chunks = 0 if self.rejects_only else len(committed)
            return replace(gone, chunks=chunks, rejects=sum(row.failed for row in committed))
        if self.rejects_only:
            rejects = sink.remove_rejects(record)
            self.state.remove_file(job_id, "rejects.jsonl")
            return replace(gone, rejects=rejects)
        removed = sink.forget(record, completely=self.completely)
        failpoints.reach("before-removing-state")
        self._remove_state(job_id)
        return replace(gone, chunks=removed.chunks, rejects=removed.rejects)

    def _refuse_unfinished(self, record: JobRecord, sink: Sink) -> None:
        if record.is_over:
            return
        refuse_if_owned(record, sink, owner_id(), self.has_ended)
        job_id = record.job_id
        raise RefusedError(
            "the job is unfinished: its ledger is what keeps the rest from being imported twice",
            where=f"job {job_id}",
            hint=f"finish it with `batchimport resume {job_id}`, or begin it again with `run` and "
            "--restart; then forget it",
        )

    def _placed(self, job_id: str) -> str | None:
        """Return the path of a rejects file that is not in the state directory."""
        document = self.state.load(job_id) or {}
        path = document.get("options", {}).get("rejects_path")
        return str(path) if path else None

    def _remove_state(self, job_id: str) -> None:
        if not (self.dry_run or self.rejects_only):
            self.state.remove(job_id)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune has done in one ledger.

    Attributes:
        kept: Why jobs that are old enough were kept, by their ids.
    """

    gone: list[Gone]
    kept: dict[str, str]


@contextmanager
def _opened(place: Place, *, may_lack: bool) -> Iterator[Sink | None]:
    """Open a destination; None if it is gone, and may be."""
    try:
        sink = open_sink(place.destination, SinkOptions(False, place.ledger_schema))
    except NoSuchDestinationError:
        if not may_lack:
            raise
        yield None
        return
    with closing(sink):
        yield sink


def _is_older(when: str, age: timedelta) -> bool:
    try:
        return datetime.now(UTC) - datetime.fromisoformat(when) >= age
    except (ValueError, TypeError):  # not a time of the ledger
        return False
