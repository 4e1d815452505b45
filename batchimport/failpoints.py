"""Named points at which a test kills, stops or fails this process; inactive by default.

`BATCHIMPORT_FAILPOINTS="after-commit=kill@3,before-finish=stop"` kills the process after the third
commit, and stops it before the job is finished. Without `@N` it acts at the first pass.
"""

from __future__ import annotations

import signal
import threading

from batchimport.errors import TransientError, UsageError

VARIABLE = "BATCHIMPORT_FAILPOINTS"
POINTS = (
    "before-claim",
    "during-removal",  # one file of several of a forgotten job is deleted
    "after-forgetting",  # --restart or `forget` has deleted the ledger; the transaction is open
    "before-removing-state",  # `forget` has committed
    "after-table",  # table created, truncated or replaced; the claim's transaction is open
    "before-renaming",  # the claim is committed; its table has not its name yet (MySQL)
    "after-claim",
    "before-store",  # a chunk is ready to be stored
    "after-ledger-row",
    "after-rows",
    "before-commit",
    "after-commit",
    "before-finish",
    "after-publishing",  # the rows of --atomic are moved; the transaction that completes is open
    "after-sql",  # --after-sql was run; that transaction is open
    "after-finish",
    "during-export",  # before some rejects are written to the rejects file
    "file-written",  # checkpoint, rejects or summary: on disk under a temporary name
    "file-renamed",
)
ACTIONS = ("kill", "stop", "error")

_lock = threading.Lock()
_armed: dict[str, tuple[str, int]] = {}
_passes: dict[str, int] = {}


def arm(text: str) -> None:
    """Set what happens at which points; an empty string disarms all.

    Raises:
        UsageError: If a point or an action is unknown.
    """
    _armed.clear()
    _passes.clear()
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition("=")
        action, _, number = rest.partition("@")
        if name not in POINTS or action not in ACTIONS or not (number or "1").isdecimal():
            raise UsageError(
                f"not a failpoint: {part}",
                where=VARIABLE,
                hint=f"NAME=ACTION or NAME=ACTION@N; actions are {', '.join(ACTIONS)}",
            )
        _armed[name] = (action, int(number or 1))


def reach(name: str) -> None:
    """Pass a point.

    Raises:
        TransientError: If the action is `error`.
    """
    if name not in _armed:
        return
    action, number = _armed[name]
    with _lock:
        _passes[name] = _passes.get(name, 0) + 1
        if _passes[name] != number:
            return
    if action == "error":
        raise TransientError(f"failpoint {name}")
    # `raise_signal` delivers to this thread, which must not go on while another one takes it.
    signal.raise_signal(signal.SIGKILL if action == "kill" else signal.SIGSTOP)
