"""What reading CSV costs beside `polars.read_csv`, which neither looks for bad records nor hashes.

    pytest -n 0 -m bench -s tests/bench/test_reading.py

In CPU seconds of one process, turn by turn; chunks are as large as an import into a database makes them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from batchimport.model import Chunk, Position, SourceOptions
from batchimport.schema import RecordSchema, infer_schema
from batchimport.sources import open_source
from batchimport.sources.base import Source
from tests.bench.make_records import COLUMNS, csv_line, csv_row, make

RECORDS = int(os.environ.get("BATCHIMPORT_BENCH_RECORDS", "200000"))
ROUNDS = int(os.environ.get("BATCHIMPORT_BENCH_ROUNDS", "5"))
QUOTED = ("address", "tags")
LIMIT, MAX_BYTES = 20_000, 1 << 25


def write(path: Path, *, with_quotes: bool) -> None:
    kept = [at for at, name in enumerate(COLUMNS) if with_quotes or name not in QUOTED]
    with path.open("w", encoding="utf-8") as rows:
        rows.write(",".join(COLUMNS[at] for at in kept) + "\n")
        for _, record, _ in make(RECORDS, 0, 1):
            row = csv_row(record)
            rows.write(csv_line([row[at] for at in kept]) + "\n")


def cut(source: Source) -> list[Chunk]:
    chunks: list[Chunk] = []
    while chunk := source.cut(chunks[-1].end if chunks else Position(), LIMIT, MAX_BYTES):
        chunks.append(chunk)
    return chunks


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("with_quotes", [False, True], ids=["plain", "with JSON in quotes"])
def test_reading(tmp_path: Path, with_quotes: bool) -> None:
    """Print the medians and their ratios."""
    path = tmp_path / "users.csv"
    write(path, with_quotes=with_quotes)
    source = open_source([str(path)], SourceOptions())
    schema = RecordSchema(infer_schema(source.sample(10_000), text=True), inferred=True)
    chunks = cut(source)
    works: dict[str, Callable[[], object]] = {
        "polars": lambda: pl.read_csv(path),
        "cut": lambda: cut(source),
        "read": lambda: [len(source.read(chunk, schema).frame) for chunk in chunks],
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(cpu_seconds(work))
    source.close()
    polars, cutting, reading = (statistics.median(each) for each in times.values())
    print(  # noqa: T201 - what it is for
        f"\nCSV {'with JSON in quotes' if with_quotes else 'plain'}: {RECORDS:,} records, "
        f"polars {polars:.3f} s, reading chunks {reading:.3f} s, ratio {reading / polars:.2f} "
        f"(target 1.5); cutting besides {cutting:.3f} s, ratio {cutting / polars:.2f}"
    )
