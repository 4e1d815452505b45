"""Import files of millions of records into a database, every record exactly once.

    job = Job(("/data/users.jsonl",), "sqlite:///users.db", "users")
    outcome = import_file(Request(job))

`import_file` and what it needs are loaded on first use, so that importing this package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchimport.errors import BatchImportError
from batchimport.model import Job, RunOptions, SourceOptions, Summary

if TYPE_CHECKING:
    from batchimport.importer import import_file
    from batchimport.jobs.finish import Outcome
    from batchimport.jobs.identify import Request

__version__ = "0.1.0"
__all__ = [
    "BatchImportError",
    "Job",
    "Outcome",
    "Request",
    "RunOptions",
    "SourceOptions",
    "Summary",
    "import_file",
]


_LOADED_ON_USE = {
    "Outcome": "batchimport.jobs.finish",
    "Request": "batchimport.jobs.identify",
    "import_file": "batchimport.importer",
}


def __getattr__(name: str) -> Any:
    if name in _LOADED_ON_USE:
        return getattr(import_module(_LOADED_ON_USE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
