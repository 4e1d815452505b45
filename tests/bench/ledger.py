"""Measure the time for a chunk in each destination while its ledger grows.

    python -m tests.bench.ledger --rows 100000 --to sqlite

Chunks of one record, so that the ledger is nearly all of the work. The time should be flat.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from batchimport.sinks import open_sink
from batchimport.sinks.parquet.folder import Part
from tests.helpers.postgres import PostgresServer
from tests.helpers.stores import a_job, a_record, a_request, chunk, rows

CHUNKS = 200
_COLUMNS = (
    "job_id, lo, hi, first_record, records, first_line, next_line, successful, failed, filtered"
)
_COLUMNS += ", digest, epoch, attempt, committed_at"
_VALUES = "'users-1', n * 10, n * 10 + 10, n, 1, n, n + 1, 1, 0, 0, '', 1, 1, ''"
_SERIES = (
    "WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last} - 1) "
    "INSERT INTO {chunks} ({columns}) SELECT {values} FROM s"
)


def milliseconds(address: str, folder: Path, sizes: list[int]) -> list[float]:
    """Return the mean time for a chunk behind a ledger of each size."""
    sink: Any = open_sink(address)
    job = a_job(address)
    claim = sink.claim(job, a_record(job), "bench")
    at, taken = 0, []
    for size in sizes:
        if hasattr(sink, "tables"):
            sink.run(
                _SERIES.format(
                    first=at, last=size, chunks=sink.tables.chunks, columns=_COLUMNS, values=_VALUES
                )
            )
        else:
            claim.store(a_request(chunk(at, 1), rows(at)))
            whole = folder / Part("users-1", at * 10, at * 10 + 10).name
            for n in range(at + 1, size):
                shutil.copyfile(whole, folder / Part("users-1", n * 10, n * 10 + 10).name)
        began = time.monotonic()
        for n in range(size, size + CHUNKS):
            claim.store(a_request(chunk(n, 1), rows(n)))
        taken.append((time.monotonic() - began) / CHUNKS * 1000)
        at = size + CHUNKS
    sink.close()
    return taken


def main() -> None:
    """Print a line for each destination."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kinds = ("sqlite", "duckdb", "parquet", "postgresql")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the largest ledger")
    parser.add_argument("--to", action="append", choices=kinds)
    options = parser.parse_args()
    sizes = [1000, options.rows // 10, options.rows]
    for kind in options.to or kinds:
        with tempfile.TemporaryDirectory(prefix="batchimport-", ignore_cleanup_errors=True) as path:
            server = PostgresServer(Path(path)) if kind == "postgresql" else None
            address = server.new_database() if server else f"{kind}:///{path}/users"
            try:
                taken = milliseconds(address, Path(path) / "users", sizes)
            finally:
                if server:
                    server.stop()
        shown = ", ".join(f"{size:,}: {ms:.2f} ms" for size, ms in zip(sizes, taken, strict=True))
        print(f"{kind:10}  {shown}", flush=True)  # noqa: T201 - what this command is for


if __name__ == "__main__":
    main()
