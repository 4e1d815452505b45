"""All errors of batchimport, in classes by what follows from them.

```
BatchImportError                        exit 1
├── UsageError                          exit 2
│   ├── NoSuchDestinationError
│   └── UnknownJobError
├── RefusedError                        exit 6
│   ├── AlreadyStoredError
│   ├── RowsGoneError
│   ├── SourceChangedError
│   ├── JobRunningElsewhereError
│   └── ConfigurationChangedError
├── RecordsRejectedError                exit 3, only where it was asked for
├── AccountsError                       exit 7
├── FatalError                          exit 1
├── ChunkError                          one attempt failed; handled by the engine
│   ├── TransientError
│   │   └── DestinationAwayError        the job waits for it
│   │       └── DestinationLockedError  exit 6; also a JobRunningElsewhereError
│   └── DataError
└── Stop                                not a failure
    ├── JobInterrupted                  exit 5
    └── TooManyRejects                  exit 4
```

All parameters after `message` have defaults, so that errors can be pickled.
"""

from __future__ import annotations

from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class BatchImportError(Exception):
    """Base class; the command line prints it and exits with `exit_code`.

    Attributes:
        message: What happened, in one sentence.
        where: Place of the error: file, line and field, or an option.
        hint: What the user can do next.
        result: In Python, how the run ended that failed; None if it did not begin.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where, hint)
        self.message = message
        self.where = where
        self.hint = hint
        self.result: Any = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(BatchImportError):
    """The command is wrong: stop before anything is written."""

    exit_code = 2


class NoSuchDestinationError(UsageError):
    """There is no such database or directory, and it may not be created."""


class UnknownJobError(UsageError):
    """Neither the state directory nor the destination knows the job."""


class RefusedError(BatchImportError):
    """To continue would store records twice or lose some: stop before anything is written."""

    exit_code = 6


class AlreadyStoredError(RefusedError):
    """The table has the records of this source already, by another job."""


class RowsGoneError(RefusedError):
    """The destination no longer has the rows that the job stored."""


class SourceChangedError(RefusedError):
    """The source is not the file that the unfinished job was started with."""


class JobRunningElsewhereError(RefusedError):
    """Another process runs the job."""


class ConfigurationChangedError(RefusedError):
    """Schema, transform, table or format options differ from those of the unfinished job."""


class AccountsError(BatchImportError):
    """The counts of records do not add up at the end: the job is not completed."""

    exit_code = 7


class RecordsRejectedError(BatchImportError):
    """The job is completed, but has rejects."""

    exit_code = 3


class FatalError(BatchImportError):
    """The job cannot continue: finish the chunks in flight, keep the ledger, stop."""


class ChunkError(BatchImportError):
    """An attempt to import a chunk failed; the engine decides what follows."""


class TransientError(ChunkError):
    """Retry the chunk after a wait: connection lost, lock held, deadlock, timeout."""


class BehindGapError(ChunkError):
    """Do not retry: an earlier chunk was given up, and rows are to be stored in order."""


class DestinationAwayError(TransientError):
    """The destination cannot be reached: wait for it, and do the same again.

    Attributes:
        was_connected: The connection was lost while it was used.
    """

    def __init__(
        self,
        message: str,
        where: str | None = None,
        hint: str | None = None,
        *,
        was_connected: bool = False,
    ) -> None:
        super().__init__(message, where, hint)
        self.was_connected = was_connected


class DestinationNotUpError(DestinationAwayError):
    """The destination's server does not answer yet: it may be starting."""


class DestinationLockedError(DestinationAwayError, JobRunningElsewhereError):
    """Another program has locked the destination: wait until it is free."""


class DataError(ChunkError):
    """Do not retry: find the records that the destination refuses, and reject them."""


class Stop(BatchImportError):  # noqa: N818 - a signal, not an error
    """The job ends early, as the user wanted."""


class JobInterrupted(Stop):
    """SIGINT or SIGTERM: finish the chunks in flight, print how to resume."""

    exit_code = 5


class TooManyRejects(Stop):
    """More rejects than `--max-errors`: finish the chunks in flight and stop."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return what was probably meant by a word that is not among the known ones.

    Upper and lower case count the same; a known word that begins with the word is near enough.
    """
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    near += [each for each in by_lower if len(word) > 2 and each.startswith(word.lower())]
    return by_lower[near[0]] if near else None


def hint_for(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the hint about a word that is not known: what was probably meant, or else another hint."""
    near = did_you_mean(word, known)
    return f"did you mean {near}?" if near else otherwise


def from_system(error: OSError) -> FatalError:
    """Return the error for what the operating system refused."""
    return FatalError(
        f"the operating system reports: {error.strerror or error}",
        where=str(error.filename) if error.filename else None,
        hint="fix the cause, then run the same command again to continue",
    )


@contextmanager
def without_panics() -> Iterator[None]:
    """Turn the panic of a library written in Rust, which is no `Exception`, into an error.

    Each such library has its own `PanicException`, and prints details to stderr.

    Raises:
        FatalError: If a library panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        text = " ".join(str(error).split())
        raise FatalError(
            f"a library crashed: {text}",
            hint="the message above may help its maintainers; run the same command again to continue",
        ) from error


def find_class(name: str) -> type[BatchImportError]:
    """Return the class of that name; `FatalError` if this version has none."""
    classes: list[type[BatchImportError]] = [BatchImportError]
    for kind in classes:  # grows while it is read: the tree, level by level
        if kind.__name__ == name:
            return kind
        classes += kind.__subclasses__()
    return FatalError
