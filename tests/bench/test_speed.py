"""How fast an import is beside the destination's own bulk loader: whole processes, turn by turn.

    pytest -m bench -s tests/bench

Each race is run several times, both sides after each other so that a busy machine is as busy for both,
and the ratio of the medians is printed beside its target. The records are the same; what is done with
them is not: an import validates them, and its rows are accounted for.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.make_records import COLUMNS, csv_line, csv_row, make
from tests.helpers.cli import COMMAND, SAMPLE, environment
from tests.helpers.postgres import PSQL

RECORDS = int(os.environ.get("BATCHIMPORT_BENCH_RECORDS", "200000"))
ROUNDS = int(os.environ.get("BATCHIMPORT_BENCH_ROUNDS", "5"))
Command = Sequence[str]


@dataclass(frozen=True)
class Sources:
    """The same good records as JSON lines and as CSV."""

    jsonl: Path
    csv: Path


@dataclass(frozen=True)
class Race:
    """An import against a loader.

    Attributes:
        address: Of the destination, given an empty directory or a server.
        loader: The other side's command, given the sources, and the same place.
        target: The ratio that the import should not exceed.
        tool: The program that the loader needs, if it is not a Python package.
    """

    address: Callable[[Path], str]
    loader: Callable[[Sources, str], Command]
    target: float
    tool: str = ""


def python(code: str, *values: object) -> Command:
    return [sys.executable, "-c", code, *map(str, values)]


TYPES = "id bigint, email text, name text, age bigint, score float, active {boolean}, plan text, "
TYPES += "signup_date {date}, created_at {time}, external_id {uuid}, phone text, "
TYPES += "address {json}, tags {json}"
IN_SQLITE = {"boolean": "integer"} | dict.fromkeys(("date", "time", "uuid", "json"), "text")
IN_POSTGRES = {name: name for name in ("boolean", "date", "uuid")}
IN_POSTGRES |= {"time": "timestamptz", "json": "jsonb"}


def sqlite_import(sources: Sources, address: str) -> Command:
    make_table = f"CREATE TABLE users ({TYPES.format(**IN_SQLITE)})"
    path = address.removeprefix("sqlite:///")
    return ["sqlite3", path, "-cmd", make_table, f".import --csv --skip 1 {sources.csv} users"]


def postgres_copy(sources: Sources, address: str) -> Command:
    make_table = f"CREATE TABLE users ({TYPES.format(**IN_POSTGRES)})"
    copy = f"\\copy users FROM '{sources.csv}' (FORMAT csv, HEADER)"
    return [PSQL, "-q", address, "-c", make_table, "-c", copy]


def duckdb_read_json(sources: Sources, address: str) -> Command:
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[2]); c.execute('CREATE TABLE users AS "
        "SELECT * FROM read_json(?, format = ''newline_delimited'')', [sys.argv[1]]); c.close()"
    )
    return python(code, sources.jsonl, address.removeprefix("duckdb:///"))


def polars_sink(sources: Sources, address: str) -> Command:
    code = "import polars as pl, sys; pl.scan_ndjson(sys.argv[1]).sink_parquet(sys.argv[2])"
    return python(code, sources.jsonl, address.removeprefix("parquet:///") + ".parquet")


RACES = {
    "SQLite: sqlite3 .import of CSV": Race(
        lambda path: f"sqlite:///{path}/users.db", sqlite_import, 0.9, "sqlite3"
    ),
    "PostgreSQL: psql \\copy of CSV": Race(lambda _: "", postgres_copy, 1.0, PSQL),
    "DuckDB: its own read_json": Race(
        lambda path: f"duckdb:///{path}/users.duckdb", duckdb_read_json, 2.0
    ),
    "Parquet: polars scan_ndjson().sink_parquet()": Race(
        lambda path: f"parquet:///{path}/users", polars_sink, 1.3
    ),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    found = Sources(folder / "users.jsonl", folder / "users.csv")
    with found.jsonl.open("w", encoding="utf-8") as lines, found.csv.open("w") as rows:
        rows.write(",".join(COLUMNS) + "\n")
        for line, record, _ in make(RECORDS, 0, 1):
            lines.write(line + "\n")
            rows.write(csv_line(csv_row(record)) + "\n")
    return found


def seconds(command: Command, folder: Path) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=folder, env=environment(), capture_output=True)
    return time.monotonic() - began


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", RACES)
def test_speed(name: str, sources: Sources, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Print both medians and their ratio."""
    race = RACES[name]
    if race.tool and not shutil.which(race.tool):
        pytest.skip(f"there is no {race.tool}")
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(ROUNDS):
        for side, taken in times.items():
            folder = tmp_path / f"{side}{number}"
            folder.mkdir()
            address = race.address(folder) or request.getfixturevalue("postgres").new_database()
            ours = [*COMMAND, "run", str(sources.jsonl), "--to", address, "--quiet"]
            ours += ["--schema", str(SAMPLE / "users.schema.json")]
            command = ours if side == "ours" else race.loader(sources, address)
            taken.append(seconds(command, folder))
            shutil.rmtree(folder)
    ours, theirs = (statistics.median(each) for each in times.values())
    spread = " ".join(f"{each:.2f}" for each in times["ours"])
    print(  # noqa: T201 - what it is for
        f"\n{name}: {RECORDS:,} records, ours {ours:.2f} s, theirs {theirs:.2f} s, "
        f"ratio {ours / theirs:.2f} (target {race.target}); ours each time: {spread}"
    )
