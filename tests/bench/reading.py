"""Read a CSV file whole by `polars.read_csv`, or chunk by chunk as an import does: one contestant.

    python -m tests.bench.reading polars|chunks|cut FILE

`polars.read_csv` neither looks for bad records nor hashes. Prints the seconds of the reading alone.
"""

from __future__ import annotations

import json
import sys
import time

import polars as pl

from batchimport.model import Chunk, Position, SourceOptions
from batchimport.schema import RecordSchema, infer_schema
from batchimport.sources.base import Source
from batchimport.sources.opening import open_source

LIMIT, MAX_BYTES = 20_000, 1 << 25  # chunks as large as an import into a database makes them


def _cut(source: Source) -> list[Chunk]:
    chunks: list[Chunk] = []
    while chunk := source.cut(chunks[-1].end if chunks else Position(), LIMIT, MAX_BYTES):
        chunks.append(chunk)
    return chunks


def main() -> None:
    """Do it once."""
    way, path = sys.argv[1:]
    source = open_source([path], SourceOptions())
    schema = RecordSchema(infer_schema(source.sample(10_000), text=True), inferred=True)
    chunks = _cut(source)
    began, cpu = time.monotonic(), time.process_time()
    if way == "polars":
        pl.read_csv(path)
    elif way == "cut":
        _cut(source)
    else:
        for chunk in chunks:
            source.read(chunk, schema)
    took = {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu}
    source.close()
    print(json.dumps(took))  # noqa: T201 - read by the benchmark


if __name__ == "__main__":
    main()
