"""The engine on many machines: workflow, activities, worker and client of Temporal.

Imported on use only; raises UsageError if the extra `temporal` is not installed.
"""

from batchimport.errors import UsageError

try:
    import temporalio as _  # noqa: F401 - imported to see whether it is there
except ImportError as error:
    raise UsageError(
        "the Temporal engine is not installed",
        where="--engine temporal",
        hint="pip install 'batchimport[temporal]'",
    ) from error
