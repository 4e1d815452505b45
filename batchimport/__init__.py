"""Import files of millions of records into a database, every record exactly once.

    result = import_file("users.jsonl", to="sqlite:///users.db", key="id")

The command line as functions: the options of `batchimport run` are keywords. What is named here is loaded
on first use, so that importing this package is quick.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from batchimport.errors import (
    AccountsError,
    AlreadyStoredError,
    BatchImportError,
    ConfigurationChangedError,
    FatalError,
    JobInterrupted,
    JobRunningElsewhereError,
    RecordsRejectedError,
    RefusedError,
    RowsGoneError,
    SourceChangedError,
    TooManyRejects,
    UnknownJobError,
    UsageError,
)

if TYPE_CHECKING:
    from batchimport.api import (
        aimport_file,
        import_file,
        jobs,
        rejects,
        replay,
        report,
        resume,
        status,
    )
    from batchimport.policy import events
    from batchimport.result import JobStatus, Report, Result

__version__ = "0.1.0"
__all__ = [
    "AccountsError",
    "AlreadyStoredError",
    "BatchImportError",
    "ConfigurationChangedError",
    "FatalError",
    "JobInterrupted",
    "JobRunningElsewhereError",
    "JobStatus",
    "RecordsRejectedError",
    "RefusedError",
    "Report",
    "Result",
    "RowsGoneError",
    "SourceChangedError",
    "TooManyRejects",
    "UnknownJobError",
    "UsageError",
    "aimport_file",
    "events",
    "import_file",
    "jobs",
    "rejects",
    "replay",
    "report",
    "resume",
    "status",
]


_LOADED_ON_USE = {
    **dict.fromkeys(
        ("aimport_file", "import_file", "jobs", "rejects", "replay", "report", "resume", "status"),
        "batchimport.api",
    ),
    **dict.fromkeys(("JobStatus", "Report", "Result"), "batchimport.result"),
}


def __getattr__(name: str) -> Any:
    if name in _LOADED_ON_USE:
        return getattr(import_module(_LOADED_ON_USE[name]), name)
    if name == "events":
        return import_module("batchimport.policy.events")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(ModuleType):
    """This package: its attributes `jobs` and `replay` are functions, also when modules of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LOADED_ON_USE and isinstance(value, ModuleType):
            return  # by the import system, which itself finds it in `sys.modules`
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
