"""What the server of forks has imported: none of its children has to, and none copies it.

Imported by that server alone, see `tests/helpers/forked.py`.
"""

import gc
from typing import Any

import pytest
from typer.main import get_command

from batchimport import cli
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

# The parser and what converts each option are made once: two thirds of what a child does before its work.
command: Any = get_command(cli.app)
for each in (command, *command.commands.values()):
    for parameter in each.params:
        parameter.get_runtime_param()
cli.app = command

gc.freeze()  # a collection that looks at these objects copies their pages: as much again
