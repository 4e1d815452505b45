"""Chunks on as many machines as you like: the workflow, its activities, its worker, its client.

Imported only when it is asked for.
"""

from batchimport.errors import UsageError

try:
    import temporalio as _  # noqa: F401 - to say in words that it is missing
except ImportError as error:
    raise UsageError(
        "the Temporal engine is not installed",
        where="--engine temporal",
        hint="pip install 'batchimport[temporal]'",
    ) from error
