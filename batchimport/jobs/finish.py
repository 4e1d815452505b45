"""How a job ends: the accounts are checked, the outcome is recorded, the rejects are written."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchimport import failpoints
from batchimport.errors import AccountsError
from batchimport.jobs.accounts import reconcile
from batchimport.sinks import redact
from batchimport.state.directory import STATE_PATH
from batchimport.state.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchimport.errors import BatchImportError
    from batchimport.jobs.identify import Request
    from batchimport.model import Job, Reject, Summary
    from batchimport.sinks.base import Claim, Sink

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        examples: The first rejects, to show.
        error: Why it did not end well, if so.
    """

    summary: Summary
    exit_code: int
    examples: tuple[Reject, ...] = ()
    error: BatchImportError | None = None


def resume_command(request: Request, job_id: str) -> str:
    """Return the command that continues a job, with all that it needs.

    A password is not printed: where the address had one, `PGPASSWORD` stands for it.
    """
    job, state = request.job, request.state.path
    words, prefix = ["batchimport", "resume", job_id], ""
    address = job.destination
    if address.startswith("postgres"):
        address = redact(address)
        prefix = "PGPASSWORD=... " if address != job.destination else ""
    if prefix or job.ledger_schema:
        words += ["--to", address]
    if job.ledger_schema:
        words += ["--ledger-schema", job.ledger_schema]
    if state != STATE_PATH:
        words += ["--state-dir", str(state)]
    return prefix + shlex.join(words)


@dataclass(frozen=True, slots=True)
class Exported:
    """The rejects of a job.

    Attributes:
        path: Where they were written; None if they were not.
        examples: The first few.
        codes: How many there are by the code of their first error.
    """

    path: str | None = None
    examples: tuple[Reject, ...] = ()
    codes: dict[str, int] = field(default_factory=dict)


def complete(sink: Sink, claim: Claim, job: Job, size: int, total: int | None) -> None:
    """Check the accounts and record that the job is completed.

    Args:
        size: Positions of the source.
        total: Records of the job, counted independently.

    Raises:
        AccountsError: If a record has no outcome or more than one, or the table has other rows.
    """
    reconcile(sink.committed(claim.record.job_id), size, total, job.limit)
    failpoints.reach("before-finish")
    surplus = claim.finish("completed", total)
    failpoints.reach("after-finish")
    if surplus:
        word = "more" if surplus > 0 else "fewer"
        raise AccountsError(
            f"the table has {abs(surplus):,} rows {word} than were stored",
            where=job.table,
            hint="did another program write to it while the job ran?",
        )


def export_rejects(sink: Sink, job_id: str, path: Path) -> Exported:
    """Write the rejects of a job to a file, one JSON object a line, in order of record.

    Raises:
        FatalError: If the disk does not take it.
    """
    examples: list[Reject] = []
    codes: Counter[str] = Counter()

    def lines() -> Iterator[bytes]:
        for reject in sink.rejects(job_id):
            failpoints.reach("during-export")
            if len(examples) < EXAMPLES:
                examples.append(reject)
            codes[reject.errors[0].code] += 1
            text = json.dumps(reject.to_dict(), ensure_ascii=False)
            yield text.encode(errors="replace") + b"\n"

    write_atomically(path, lines())
    return Exported(str(path), tuple(examples), dict(sorted(codes.items())))
