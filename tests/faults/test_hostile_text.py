"""Text that attacks: it stays text, wherever it stands, and acts on no terminal and no database."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cli import Workdir
from tests.helpers.destinations import make_destination
from tests.helpers.forked import call
from tests.helpers.naughty import NAMES, VALUES

TEXTS = {
    "properties": {"id": {"type": "integer"}, "text": {"type": "string"}},
    "additionalProperties": False,
}
HARMLESS = {"\n"}


def assert_harmless(shown: str) -> None:
    """Check that nothing in it can act on a terminal."""
    bad = {
        letter
        for letter in shown
        if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") and letter not in HARMLESS
    }
    assert not bad, (bad, shown)


DATABASES = ("sqlite", "postgresql", "mysql", "duckdb")
"""In this order: MySQL gets no name with characters of four bytes, which it has not."""


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_values_come_back_as_they_were(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, suffix: str
) -> None:
    """In every sink, from both kinds of source."""
    place = make_destination(kind, tmp_path, lambda: request.getfixturevalue("postgres"))
    records = [{"id": at, "text": value} for at, value in enumerate(VALUES)]
    if suffix == "jsonl":
        text = "".join(json.dumps(record) + "\n" for record in records)
    else:
        stream = io.StringIO()
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([["id", "text"], *([each["id"], each["text"]] for each in records)])
        text = stream.getvalue()
    (tmp_path / f"users.{suffix}").write_bytes(text.encode())
    (tmp_path / "s.json").write_text(json.dumps(TEXTS))
    words = ["run", f"users.{suffix}", "--to", place.address, "--schema", "s.json", "--json"]
    ended = call(tmp_path, *words, "--progress", "none")
    assert ended.code == 0, ended
    assert sorted(place.rows("users")) == list(enumerate(VALUES))


def test_names_of_columns_and_tables(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Are names and nothing else; the databases share them out, and each has the worst in its contract."""
    place = make_destination(kind, tmp_path, lambda: request.getfixturevalue("postgres"))
    for name in NAMES[DATABASES.index(kind) :: 4] if kind in DATABASES else NAMES[:1]:
        (tmp_path / "u.jsonl").write_text(json.dumps({"id": 1, name: "x"}) + "\n")
        words = ["run", "u.jsonl", "--to", place.address, "--table", name, "--progress", "none"]
        ended = call(tmp_path, *words)
        assert ended.code == 0, (name, ended)
        assert_harmless(ended.out + ended.err)
        assert [row[:2] for row in place.rows(name.replace('"', '""'))] == [(1, "x")], name


def test_what_is_shown_acts_on_no_terminal(workdir: Workdir) -> None:
    """Run, rejects, jobs and status, of a file whose name, keys and values all attack."""
    evil = "a\x1b[2J\u202e[bold]'; --"
    lines = [json.dumps({"id": value, evil: value, "text": value}) for value in VALUES]
    path = workdir.write(f"{evil}.jsonl", "\n".join([*lines, *VALUES, "\x1b]0;t\x07"]) + "\n")
    schema = {"properties": {"id": {"type": "integer"}, evil: {"type": "string", "maxLength": 3}}}
    workdir.write("s.json", json.dumps(schema))
    ended = workdir.call("run", path, "--schema", "s.json", "--to", "sqlite:///e.db", "--verbose")
    assert ended.code == 3
    assert_harmless(ended.out + ended.err)
    (job,) = json.loads(workdir.call("jobs", "--json").out)
    for words in (["rejects", job["job_id"]], ["jobs"], ["status"], ["rejects", evil]):
        ended = workdir.call(*words)
        assert_harmless(ended.out + ended.err)


@pytest.mark.parametrize(
    "option", ["--job-id", "--to", "--schema", "--transform", "--key", "--sql"]
)
def test_errors_about_options_act_on_no_terminal(workdir: Workdir, option: str) -> None:
    """A line that shows what was given, made harmless."""
    workdir.lines("u.jsonl", [{"id": 1}])
    ended = workdir.call("run", "u.jsonl", option, "\x1b[2J\u202e[bold]x[/bold]\n\x07")
    assert ended.code == 2
    assert_harmless(ended.out + ended.err)


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(?=(a+)+$)a", "^(?!(a+)+b)(a+)+$", "(a*)*b"]
)
def test_patterns_that_blow_up_do_not(workdir: Workdir, pattern: str) -> None:
    """Every record has a verdict at once, whatever the expression is."""
    workdir.lines("u.jsonl", [{"id": at, "text": "a" * 40 + "!"} for at in range(20)])
    workdir.write("s.json", json.dumps({"properties": {"text": {"pattern": pattern}}}))
    began = time.process_time()
    ended = workdir.call("run", "u.jsonl", "--schema", "s.json", "--json")
    assert time.process_time() - began < 20
    assert ended.summary["successful"] + ended.summary["failed"] == 20, ended
    assert re.search("completed", ended.summary["status"])


def test_all_names_as_keys_of_one_record(tmp_path: Path) -> None:
    """Are columns."""
    place = make_destination("sqlite", tmp_path, lambda: None)
    record: dict[str, Any] = dict.fromkeys(NAMES, "x")
    (tmp_path / "u.jsonl").write_text(json.dumps(record) + "\n")
    ended = call(tmp_path, "run", "u.jsonl", "--to", place.address, "--quiet")
    assert ended.code == 0, ended
    assert place.rows("u") == [("x",) * len(NAMES)]
