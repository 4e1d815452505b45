"""The cases of the benchmark; the goals are those of the project's design."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from tests.bench import peers
from tests.bench.data import SMALL_FILES, Data, Source, facts_of_first
from tests.bench.destinations import Place
from tests.bench.peers import Peer, Tools
from tests.bench.race import Case, Contestant
from tests.helpers.cli import COMMAND, environment

NATIVE = {
    "sqlite": peers.SQLITE3,
    "postgresql": peers.PSQL,
    "duckdb": peers.DUCKDB,
    "parquet": peers.POLARS,
}
"""Each destination's own loader, the yardstick."""

GOALS = {"sqlite": 0.9, "postgresql": 1.25, "duckdb": 2.0, "parquet": 1.5}
FIXED = [(size, flying) for size in (2_000, 20_000, 100_000) for flying in (1, 3, 10)]
KILLED = -9


@dataclass(frozen=True)
class Bench:
    """What the cases are made of."""

    records: int
    data: Data
    tools: Tools

    def share(self, parts: int) -> int:
        """Return a part of the number of records, at least 20."""
        return max(20, self.records // parts)


def ours(source: Source, place: Place, *options: str, files: str = "") -> list[str]:
    """Return the command that imports JSON Lines."""
    command = [*COMMAND, "run", files or str(source.jsonl), "--to", place.address]
    schema = ["--schema", str(source.schema)] if source.schema else []
    return [*command, "--table", "users", "--quiet", *schema, *options]


def imported(
    source: Source, *options: str, name: str = "batchimport", files: str = ""
) -> Contestant:
    """Return an import as a contestant."""

    def command(place: Place) -> list[str]:
        return ours(source, place, *options, files=files)

    return Contestant(name, command, source.facts)


def loaded(bench: Bench, peer: Peer, source: Source, goal: float | None = None) -> Contestant:
    """Return another loader as a contestant."""
    program = peer.find(bench.tools)

    def command(place: Place) -> Sequence[str]:
        return peer.command(program or "", source, place)

    missing = "" if program else peer.install
    return Contestant(peer.name, command, source.facts, missing=missing, is_ours=False, goal=goal)


def compared(title: str, destination: str, source: Source, *contestants: Contestant) -> Case:
    """Return a case; its name comes from the registry."""
    records = source.facts.rows
    size = source.jsonl.stat().st_size
    return Case("", title, destination, contestants, records, size)


# -- against other loaders ------------------------------------------------------------------------


def users(destination: str, *others: Peer, bench: Bench) -> Case:
    source = bench.data.users(bench.records)
    native = loaded(bench, NATIVE[destination], source, GOALS[destination])
    rest = [loaded(bench, peer, source) for peer in others]
    title = f"users of 10 columns, JSON Lines into {destination}"
    return compared(title, destination, source, imported(source), native, *rest)


def records(destination: str, bench: Bench) -> Case:
    source = bench.data.records(bench.records)
    goal = {**GOALS, "sqlite": 1.0}[destination]
    native = loaded(bench, NATIVE[destination], source, goal)
    title = f"users with optional keys, nested values and formats into {destination}"
    return compared(title, destination, source, imported(source), native)


def from_csv(destination: str, bench: Bench) -> Case:
    source = bench.data.users(bench.records)
    goal = {**GOALS, "sqlite": 1.0}[destination]
    native = loaded(bench, NATIVE[destination], source, goal)
    mine = imported(replace(source, jsonl=source.csv))
    return compared(f"users, CSV into {destination}", destination, source, mine, native)


def wide(bench: Bench) -> Case:
    source = bench.data.wide(bench.share(10))
    native = loaded(bench, peers.SQLITE3, source)
    return compared("200 columns into SQLite", "sqlite", source, imported(source), native)


def tools(destination: str, *others: Peer, bench: Bench) -> Case:
    """Compare with tools of which some are slow: with a fifth of the records."""
    source = bench.data.users(bench.share(5))
    goals = {peers.SQLITE_UTILS.name: 0.1}
    rest = [loaded(bench, peer, source, goals.get(peer.name)) for peer in others]
    title = f"users into {destination}, beside tools for many databases"
    return compared(title, destination, source, imported(source), *rest)


def upsert(destination: str, peer: Peer, bench: Bench) -> Case:
    source = bench.data.users(bench.records)
    half = bench.data.half_of_users(bench.records)

    def before(place: Place) -> None:
        call(ours(half, place, "--key", "id"), place)

    mine = imported(source, "--key", "id", "--on-conflict", "update")
    contestants = [replace(each, before=before) for each in (mine, loaded(bench, peer, source))]
    title = f"users into {destination}, where half of the keys are there: update"
    return compared(title, destination, source, *contestants)


# -- against ourselves ----------------------------------------------------------------------------


def bad(share: float, goal: float | None, bench: Bench) -> Case:
    some = bench.data.users(bench.records, bad=share)
    none = bench.data.users(bench.records)
    mine = replace(imported(some, name=f"{share:.0%} bad"), codes=(3,))
    clean = replace(imported(none, name="no bad records"), goal=goal)
    return compared(f"{share:.0%} bad records into SQLite", "sqlite", none, mine, clean)


def small_files(bench: Bench, *, csv: bool = False) -> Case:
    source = bench.data.users(bench.records)
    source = replace(source, jsonl=source.csv) if csv else source
    number = min(SMALL_FILES, bench.records // 2)
    files = bench.data.split(source.jsonl, bench.records, number)
    many = imported(source, name=f"{number:,} files", files=files)
    one = imported(source, name="one file")
    title = f"many small files{' of CSV' * csv} as one job into SQLite"
    return compared(title, "sqlite", source, many, one)


def compressed(bench: Bench) -> Case:
    source = bench.data.users(bench.records)
    packed = bench.data.compressed(source)
    mine, plain = imported(packed, name="gzip"), imported(source, name="not compressed")
    native = replace(loaded(bench, peers.SQLITE3, packed), name="sqlite3 .import, CSV from gzip")
    return compared("compressed users into SQLite", "sqlite", source, mine, plain, native)


def start_run(bench: Bench) -> Case:
    source = bench.data.users(100)
    mine = replace(imported(source), goal_seconds=0.8)
    rest = [loaded(bench, peer, source) for peer in (peers.SQLITE3, peers.SQLITE_UTILS)]
    return compared("100 users into SQLite", "sqlite", source, mine, *rest)


def start_help(bench: Bench) -> Case:
    helped = Contestant("--help", lambda _: [*COMMAND, "--help"], goal_seconds=0.2)
    nothing = Contestant("python -c pass", lambda _: [sys.executable, "-c", "pass"])
    return Case("", "batchimport --help", "none", (helped, nothing))


def reading(bench: Bench) -> Case:
    """Compare the reading of CSV alone with a reader that neither validates nor hashes."""
    source = bench.data.records(bench.records)

    def reader(way: str) -> Contestant:
        command = [sys.executable, "-m", "tests.bench.reading", way, str(source.csv)]
        return Contestant(way, lambda _: command, own_clock=True)

    named = replace(reader("chunks"), name="reading in chunks")
    others = replace(reader("polars"), name="polars.read_csv", goal=1.5), reader("cut")
    return compared("reading CSV, no destination", "none", source, named, *others)


def resume(bench: Bench) -> Case:
    """Measure until the first new chunk is committed: by a kill at that point."""
    source = bench.data.users(bench.records)
    size = min(1_000, bench.share(20))
    options = ["--chunk-size", str(size), "--max-parallel", "1"]

    def after(chunks: int) -> Contestant:
        def before(place: Place) -> None:
            call(ours(source, place, *options), place, KILLED, **killed_at(chunks))

        mine = imported(source, *options, name=f"with {chunks:,} chunks in the ledger")
        expected = facts_of_first(source, (chunks + 1) * size)
        return replace(mine, before=before, expected=expected, codes=(KILLED,), extra=killed_at(1))

    last = replace(after(source.facts.rows // size - 2), goal_seconds=1.0)
    title = "continue a job in SQLite: until its first new chunk is committed"
    return compared(title, "sqlite", source, last, after(1))


def sizes(kind: str, hogs: int, bench: Bench) -> Case:
    """Compare the automatic sizes with each fixed size and number of chunks in flight."""
    source = {
        "narrow": lambda: bench.data.users(bench.share(5)),
        "wide": lambda: bench.data.wide(bench.share(20)),
        "heavy": lambda: bench.data.heavy(bench.share(200)),
    }[kind]()
    goal = 1 / 0.95
    fixed = [
        replace(
            imported(
                source, "--chunk-size", str(size), "--max-parallel", str(flying), "--adaptive", "off",
                name=f"{size:,} x {flying}",
            ),
            goal=goal,
        )
        for size, flying in FIXED
    ]  # fmt: skip
    beside = f", beside {hogs} CPU hog{'s' if hogs > 1 else ''}" if hogs else ""
    title = f"auto against fixed chunk size x chunks in flight, {kind} records into SQLite{beside}"
    case = compared(title, "sqlite", source, imported(source, name="auto"), *fixed)
    return replace(case, hogs=hogs, regret=True)


def growth(destination: str, bench: Bench, *, packed: bool = False) -> Case:
    few, many = (bench.data.users(number) for number in (bench.records, 10 * bench.records))
    if packed:
        few, many = bench.data.compressed(few), bench.data.compressed(many)
    of = "compressed records" if packed else "records"
    return grown(f"ten times the {of} into {destination}", destination, few, many)


def growth_of_ledger(bench: Bench) -> Case:
    few, many = bench.data.users(bench.share(10)), bench.data.users(bench.records)
    options = ("--chunk-size", "10")
    return grown(
        "ten times the chunks, of 10 records each, into SQLite", "sqlite", few, many, *options
    )


def growth_of_files(bench: Bench) -> Case:
    few, many = bench.data.users(bench.share(10)), bench.data.users(bench.records)
    number = min(5_000, bench.records // 2)
    split = bench.data.split
    names = (
        split(few.jsonl, few.facts.rows, number // 10),
        split(many.jsonl, many.facts.rows, number),
    )
    return grown("ten times the files into SQLite", "sqlite", few, many, files=names)


def grown(
    title: str,
    destination: str,
    few: Source,
    many: Source,
    *options: str,
    files: tuple[str, str] = ("", ""),
) -> Case:
    """Return the case that ten times as much takes ten times as long, in the same memory."""
    less = imported(few, *options, name=f"{few.facts.rows:,} records", files=files[0])
    more = imported(many, *options, name=f"{many.facts.rows:,} records", files=files[1])
    return compared(title, destination, many, more, replace(less, goal=10.0, memory_goal=1.1))


def killed_at(chunk: int) -> dict[str, str]:
    """Return the variable that kills an import after this commit."""
    return {"BATCHIMPORT_FAILPOINTS": f"after-commit=kill@{chunk}"}


def call(command: Sequence[str], place: Place, code: int = 0, **more: str) -> None:
    """Run a command that is not measured.

    Raises:
        RuntimeError: If it ends with another exit code.
    """
    ended = subprocess.run(
        command, cwd=place.folder, env=environment(**more), capture_output=True, check=False
    )
    if ended.returncode != code:
        raise RuntimeError(f"exit code {ended.returncode}: {ended.stderr.decode()}")


# -- the registry ---------------------------------------------------------------------------------

Builder = Callable[..., Case]
HOGS = max(1, (os.cpu_count() or 2) // 2)
CASES: dict[str, Builder] = {
    "users-sqlite": partial(users, "sqlite"),
    "users-postgresql": partial(users, "postgresql", peers.PGLOADER),
    "users-duckdb": partial(users, "duckdb"),
    "users-parquet": partial(users, "parquet"),
    **{f"records-{destination}": partial(records, destination) for destination in NATIVE},
    "csv-sqlite": partial(from_csv, "sqlite"),
    "csv-postgresql": partial(from_csv, "postgresql"),
    "wide": wide,
    "tools-sqlite": partial(tools, "sqlite", peers.SQLITE_UTILS, peers.CSVSQL, peers.SLING),
    "tools-postgresql": partial(tools, "postgresql", peers.SLING),
    "tools-duckdb": partial(tools, "duckdb", peers.DLT),
    "upsert-sqlite": partial(upsert, "sqlite", peers.SQLITE3_UPSERT),
    "upsert-postgresql": partial(upsert, "postgresql", peers.PSQL_UPSERT),
    "bad-5": partial(bad, 0.05, 1.25),
    "bad-50": partial(bad, 0.5, None),
    "small-files": small_files,
    "small-files-csv": partial(small_files, csv=True),
    "compressed": compressed,
    "reading": reading,
    "start-run": start_run,
    "start-help": start_help,
    "resume": resume,
}
"""What runs unless `--only` says otherwise."""

LONG: dict[str, Builder] = {
    **{
        f"sizes-{kind}{'-hog' * beside}": partial(sizes, kind, HOGS * beside)
        for kind in ("narrow", "wide", "heavy")
        for beside in (False, True)
    },
    **{f"growth-{destination}": partial(growth, destination) for destination in NATIVE},
    "growth-compressed": partial(growth, "sqlite", packed=True),
    "growth-ledger": growth_of_ledger,
    "growth-files": growth_of_files,
}
"""What takes long, and runs only when `--only` names it."""


def chosen(patterns: Sequence[str]) -> list[str]:
    """Return the names of the cases that a pattern names; of all but the long ones without any.

    Raises:
        ValueError: If a pattern names none.
    """
    names = [*CASES, *LONG]
    unknown = [each for each in patterns if not any(fnmatchcase(name, each) for name in names)]
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}; --list shows all")
    return [name for name in names if any(fnmatchcase(name, each) for each in patterns)] or [*CASES]


def build(names: Sequence[str], bench: Bench) -> Iterator[Case]:
    """Yield the cases; their sources are made when their turn comes."""
    for name in names:
        yield replace((CASES | LONG)[name](bench=bench), name=name)
