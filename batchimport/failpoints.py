"""Named points at which a test kills, stops or fails this process; inert unless asked for.

`BATCHIMPORT_FAILPOINTS="after-commit=kill@3,before-finish=stop"` kills at the third chunk that was
committed, and stops before the job is finished. Without `@N` it is the first pass that counts.
"""

from __future__ import annotations

import signal
import threading

from batchimport.errors import TransientError, UsageError

VARIABLE = "BATCHIMPORT_FAILPOINTS"
POINTS = (
    "before-claim",
    "during-removal",  # of a job that is forgotten, one file of several is gone
    "after-forgetting",  # --restart has deleted an old ledger, inside of the same transaction
    "after-table",  # table made, truncated or replaced, inside of the transaction of the claim
    "after-claim",
    "before-store",  # a chunk is ready to be stored
    "after-ledger-row",
    "after-rows",
    "before-commit",
    "after-commit",
    "before-finish",
    "after-finish",
    "during-export",  # a reject goes into the rejects file
    "file-written",  # checkpoint, rejects or summary are on disk under a temporary name
    "file-renamed",
)
ACTIONS = ("kill", "stop", "error")

_lock = threading.Lock()
_armed: dict[str, tuple[str, int]] = {}
_passes: dict[str, int] = {}


def arm(text: str) -> None:
    """Say what happens where; an empty text disarms all points.

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
    # To this thread: it must not go on while another one takes the signal.
    signal.raise_signal(signal.SIGKILL if action == "kill" else signal.SIGSTOP)
