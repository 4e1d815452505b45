"""What the server of forks has imported: none of its children has to, and none copies it.

Imported by that server alone, see `tests/helpers/forked.py`.
"""

import gc
from contextlib import suppress

import pytest

from batchimport.cli import recorded, request, run
from batchimport.display import jobs, lines, report
from batchimport.schema import load
from batchimport.sinks.duckdb import sink as duckdb
from batchimport.sinks.mysql import sink as mysql
from batchimport.sinks.parquet import sink as parquet
from batchimport.sinks.parquet import store
from batchimport.sinks.postgres import sink as postgres
from batchimport.sinks.sqlite import sink as sqlite
from batchimport.sources import objects
from batchimport.sources.csv import source as csv_source
from batchimport.sources.jsonl import source as jsonl_source
from tests.helpers import destinations, forked, temporal

PRELOADED = (
    forked,
    destinations,
    temporal,
    pytest,
    run,
    request,
    recorded,
    load,
    lines,
    report,
    jobs,
    sqlite,
    duckdb,
    parquet,
    store,
    postgres,
    mysql,
    objects,
    csv_source,
    jsonl_source,
)

with suppress(
    ImportError
):  # the parser loads it with its first command: a good part of a child's time
    from typer import _adapters  # noqa: F401

gc.freeze()  # a collection that looks at these objects copies their pages: as much again
