"""Every error of batchimport, classified by what the runner does about it.

```
BatchImportError                        exit 1
├── UsageError                          exit 2
├── RefusedError                        exit 6
│   ├── SourceChangedError
│   ├── JobRunningElsewhereError
│   └── ConfigurationChangedError
├── AccountsError                       exit 7
├── FatalError                          exit 1
├── ChunkError                          the outcome of one attempt; never leaves the engine
│   ├── TransientError
│   └── DataError
└── Stop                                control flow, not failure
    ├── JobInterrupted                  exit 5
    └── TooManyRejects                  exit 4
```

Every parameter after `message` has a default, so that errors survive pickling.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class BatchImportError(Exception):
    """Root of the tree; the command line prints it and leaves with `exit_code`.

    Attributes:
        message: What happened, in one sentence.
        where: File, line and field, when there is one.
        hint: What the user can do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where, hint)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(BatchImportError):
    """The command cannot be carried out as given: stop before anything is written."""

    exit_code = 2


class RefusedError(BatchImportError):
    """Going on would break the promise: stop before anything is written."""

    exit_code = 6


class SourceChangedError(RefusedError):
    """The source is not the file that the unfinished job began with."""


class JobRunningElsewhereError(RefusedError):
    """Another process owns the job."""


class ConfigurationChangedError(RefusedError):
    """Schema, transform, table or format options differ from those the unfinished job began with."""


class AccountsError(BatchImportError):
    """The records do not add up at the end: never say "completed"."""

    exit_code = 7


class FatalError(BatchImportError):
    """The job cannot go on: drain, keep the ledger, stop."""


class ChunkError(BatchImportError):
    """One attempt at a chunk came to nothing; the engine decides what follows."""


class TransientError(ChunkError):
    """Try the chunk again after a wait: connection lost, lock held, deadlock, timeout."""


class DataError(ChunkError):
    """Never try again: find the records that the destination refuses, and reject them."""


class Stop(BatchImportError):  # noqa: N818 - a signal, not an error
    """The job ends early on purpose."""


class JobInterrupted(Stop):
    """SIGINT or SIGTERM: drain, keep the checkpoint, say how to resume."""

    exit_code = 5


class TooManyRejects(Stop):
    """`--max-errors` was passed: drain and stop."""

    exit_code = 4


def from_system(error: OSError) -> FatalError:
    """Say what the operating system refused, in our words."""
    return FatalError(
        f"the system says: {error.strerror or error}",
        where=str(error.filename) if error.filename else None,
        hint="mend the cause, then run the same command again: it goes on where it stopped",
    )


@contextmanager
def without_panics() -> Iterator[None]:
    """Make an error of a panic in a library that is written in Rust, which is no `Exception`.

    Each such library has its own class of them, and says more on standard error.

    Raises:
        FatalError: If there is one.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        text = " ".join(str(error).split())
        raise FatalError(
            f"a library broke down: {text}",
            hint="what it said above may tell its makers why; the same command goes on from here",
        ) from error


def find_class(name: str) -> type[BatchImportError]:
    """Return the class of a name in the tree; `FatalError` for a name that is not in it."""
    found: list[type[BatchImportError]] = [BatchImportError]
    for each in found:
        if each.__name__ == name:
            return each
        found += each.__subclasses__()
    return FatalError
