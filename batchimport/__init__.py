"""Import files of millions of records into a database, every record exactly once.

The Python API is `import_file`; it is loaded on first use, so that this package stays light.
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


_HOMES = {
    "Outcome": "batchimport.jobs.finish",
    "Request": "batchimport.jobs.identify",
    "import_file": "batchimport.importer",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
