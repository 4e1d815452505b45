"""Import files of millions of records into a database, every record exactly once.

The Python API is `import_file`; it is loaded on first use, so that this package stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchimport.errors import BatchImportError
from batchimport.job import Job, RunOptions, SourceOptions, Summary

if TYPE_CHECKING:
    from batchimport.importer import Outcome, Request, import_file

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


def __getattr__(name: str) -> Any:
    if name in ("Outcome", "Request", "import_file"):
        from batchimport import importer  # noqa: PLC0415 - imports Polars

        return getattr(importer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
