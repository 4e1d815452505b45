"""docs/adding.md is true: followed to the letter, it makes a source and a destination that work."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from batchimport.failpoints import VARIABLE
from batchimport.sinks.base import Claim, Sink
from batchimport.sinks.registry import SINKS, Scheme
from batchimport.sinks.sql.dialect import ChunkTransaction, Dialect
from batchimport.sources.base import RawRecords, Source
from batchimport.sources.registry import FORMATS, Format
from tests.helpers.cli import ROOT, environment
from tests.helpers.toy_source import write_boxes

PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
WORDS = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", PROSE))))
RECORDS = [{"id": at, "name": f"user {at}"} for at in range(50)] + [{"id": "x"}, {"id": 7}]
SCHEMA = {"properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}
KILLED = -9


def _members(contract: type) -> set[str]:
    """Return what an adapter must have."""
    names = {*vars(contract), *getattr(contract, "__annotations__", {})}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("contract", [Source, RawRecords, Sink, Claim])
def test_the_page_says_what_each_method_guarantees(contract: type) -> None:
    """By its name; a method that is new in the contract is new on the page."""
    assert _members(contract) - WORDS == set()


@pytest.mark.parametrize("base", [Dialect, ChunkTransaction])
def test_the_page_says_what_a_dialect_brings(base: Any) -> None:
    """All that is abstract, and all facts with a default."""
    facts = {name for name in base.__annotations__ if not name.startswith("_")}
    assert (base.__abstractmethods__ | facts) - WORDS == set()


@pytest.mark.parametrize("entry", [Format, Scheme])
def test_the_page_says_what_an_entry_of_a_registry_has(entry: Any) -> None:
    """And the places that it names are there."""
    assert {field.name for field in fields(entry)} - WORDS == set()
    places = re.findall(r"^\| `((?:batchimport|tests|docs)/[\w/.]+)`", PAGE, re.MULTILINE)
    named = [place for place in places if "NAME" not in place]
    assert len(named) > 8
    assert [place for place in named if not (ROOT / place).exists()] == []


def test_the_package_does_not_know_the_toys() -> None:
    """A registry entry is all that they need."""
    assert not {"toy", "box"} & {*_names(SINKS), *_names(FORMATS)}
    text = "".join(path.read_text() for path in (ROOT / "batchimport").rglob("*.py"))
    assert not re.search(r"\btoy|\bBOX1\b", text)


def _names(registry: dict[str, Any]) -> set[str]:
    """Return the names that the package itself registers."""
    package = "batchimport."
    return {
        name
        for name, entry in registry.items()
        if getattr(entry, "sink", getattr(entry, "source", "")).startswith(package)
    }


ENTRY_POINTS = """\
[batchimport.sources]
box = toy_entries:BOX
csv = toy_entries:BOX
broken = tests.helpers.no_such_module:BOX
[batchimport.sinks]
toy = toy_entries:TOY
wrong = toy_entries:BOX
"""
MODULE = """\
from batchimport.sinks.registry import Scheme
from batchimport.sources.registry import Format

BOX = Format("tests.helpers.toy_source:BoxSource", (".box",), magic=b"BOX1")
TOY = Scheme("tests.helpers.toy_sink:ToySink", "toy:///path", is_path=True, on_one_host=True)
"""


def install(folder: Path) -> None:
    """Install a package that brings the toys; others of its entries cannot be used."""
    metadata = folder / "toys-1.0.dist-info"
    metadata.mkdir()
    (folder / "toy_entries.py").write_text(MODULE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)


def run(folder: Path, *words: Any, fault: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "batchimport", *map(str, words)],
        cwd=folder,
        env=environment(**{VARIABLE: fault, "PYTHONPATH": f"{ROOT}:{folder}"}),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    """By entry point: help, recognition, relative paths, kills and resumes: exactly once."""
    install(tmp_path)
    shown = " ".join(run(tmp_path, "run", "--help").stdout.split())
    assert "|box>" in shown
    assert "toy:///path" in shown
    (tmp_path / "users.box").write_bytes(
        write_boxes([json.dumps(each).encode() for each in RECORDS])
    )
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    words = ["run", "users.box", "--to", "toy:///users.toy", "--schema", "s.json", "--key", "id"]
    words += ["--chunk-size", 7, "--max-parallel", 2, "--json", "--quiet"]
    for point in ("after-rows", "after-commit"):  # at each point: the contract
        assert run(tmp_path, *words, fault=f"{point}=kill@2").returncode == KILLED, point
    ended = run(tmp_path, *words)
    assert ended.returncode == 3, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["total_items"], summary["successful"], summary["failed"]) == (52, 50, 2)
    assert (summary["resumed"], summary["delivery"]) == (True, "exactly-once")
    with closing(sqlite3.connect(tmp_path / "users.toy")) as connection:
        rows = connection.execute("SELECT id, name FROM users ORDER BY id").fetchall()
    assert rows == [(each["id"], each["name"]) for each in RECORDS[:50]]
    again = run(tmp_path, *words)
    assert (again.returncode, json.loads(again.stdout)["status"]) == (3, "already_completed")
    (tmp_path / "u.csv").write_text("id\n1\n")
    assert run(tmp_path, "run", "u.csv").returncode == 0, "a built-in format stays"
