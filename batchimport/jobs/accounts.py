"""The last check before "completed" is said: every record of the source has one outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport.errors import AccountsError
from batchimport.policy.plan import find_gaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchimport.model import Committed

_HINT = "nothing is lost: run the same command again, and report this"


def reconcile(
    committed: Sequence[Committed], size: int, total: int | None, limit: int | None
) -> None:
    """Check that the ledger tiles the source and that the records add up.

    Args:
        size: Positions of the source.
        total: Records of the source (of the job, if it has a limit), counted independently.
        limit: The most records that the job may import.

    Raises:
        AccountsError: If not.
    """
    records = sum(row.chunk.records for row in committed)
    outcomes = sum(row.successful + row.failed + row.filtered for row in committed)
    gaps = find_gaps(size, [row.chunk for row in committed])
    if gaps and records != limit:
        raise AccountsError(f"{len(gaps)} parts of the source are not committed", hint=_HINT)
    if not records == outcomes == total:
        raise AccountsError(
            f"the source has {total} records, the ledger {records}, outcomes {outcomes}",
            hint=_HINT,
        )
