"""What is plainly not the file that was meant is refused before anything is changed."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.helpers.cli import Workdir
from tests.helpers.tables import query

OTHERS = {
    "an HTML page": "\n<!DOCTYPE html>\n<html><body>502 Bad Gateway, try again</body></html>\n",
    "XML": "<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>\n",
    "XML or HTML": "<users>\n<user id='1'/>\n</users>\n",
    "a PDF document": "%PDF-1.7\n1 0 obj\n",
    "a file of SQL statements": "--\n-- a dump\n--\n\nSET x = 0;\nINSERT INTO u VALUES (1, 'a');\n",
    "a pointer to a file in Git LFS": "version https://git-lfs.github.com/spec/v1\nsize 12\n",
    "YAML": "users:\n  - id: 1\n    name: Ann, Bob\n  - id: 2\n",
    "JSON": '{"error": "not found"}\n',
    "text of fixed width": "id   name       city\n1    Ann        Rome\n20   Christine  Oslo\n",
    "an Avro file": b"Obj\x01\x02\x16avro.schema",
    "an ORC file": b"ORC\n\x0b\x00\x00",
    "a RAR archive": b"Rar!\x1a\x07\x00",
}
TABLES = [
    "<TICKER>,<PER>,<DATE>\nA,D,20200101\n",
    "ORCID,name\n1,a\n",
    "set,count\na,1\n",
    "create table,notes\nx,y\n",
    "note\nfix: a\nmend: b\n",
    "name\nAnn  B\nBob  C\nEve  D\n",
    "time: utc,value\n12:00,1\n",
]


def names_of_rows(workdir: Workdir) -> list[str]:
    return [row[0] for row in query(workdir.path / "u.db", "SELECT name FROM u")]


def give(workdir: Workdir) -> None:
    workdir.write("u.csv", "id,name\n1,Ann\n2,Bob\n")
    workdir.run("u.csv")


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_file_leaves_the_table_as_it_is(workdir: Workdir, name: str) -> None:
    """Exit 2 with its name, also compressed."""
    give(workdir)
    content = OTHERS[name]
    data = content if isinstance(content, bytes) else content.encode()
    workdir.write("u.csv", data)
    workdir.write("z.csv.gz", gzip.compress(data))
    for file in ("u.csv", "z.csv.gz"):
        ended = workdir.call(
            "run", file, "--to", "sqlite:///u.db", "--table", "u", "--if-exists", "truncate"
        )
        assert (ended.code, f"is {name}, not csv" in ended.err) == (2, True), ended.err
    assert names_of_rows(workdir) == ["Ann", "Bob"]


def test_format_overrides(workdir: Workdir) -> None:
    """A text that looks like another kind of file is read as the option says."""
    workdir.write("u.csv", "<a>x</a>,b\n1,2\n")
    assert workdir.call("run", "u.csv").code == 2
    assert workdir.run("u.csv", "--format", "csv")["successful"] == 1


@pytest.mark.parametrize("content", TABLES)
def test_a_table_is_not_taken_for_something_else(workdir: Workdir, content: str) -> None:
    """Headers and cells that begin like markup, SQL, YAML or a magic number."""
    workdir.write("u.csv", content)
    assert workdir.run("u.csv")["successful"] == content.count("\n") - 1


def test_a_header_without_a_known_name(workdir: Workdir) -> None:
    """Neither in the schema nor in the table: the first record was taken for the header."""
    give(workdir)
    workdir.write("bad.csv", "x,c\n2,4\n")
    workdir.write("s.json", json.dumps({"properties": {"id": {}, "name": {}}}))
    to = ("--to", "sqlite:///u.db", "--table", "u")
    for options in ((), ("--schema", "s.json"), ("--if-exists", "truncate")):
        ended = workdir.call("run", "bad.csv", *to, *options)
        assert (ended.code, "no name in its header (x, c)" in ended.err) == (2, True), ended.err
        assert "--no-header" in ended.err
    assert names_of_rows(workdir) == ["Ann", "Bob"]


def test_one_column_is_said(workdir: Workdir) -> None:
    """A delimiter that was not found shows as one column."""
    workdir.write("u.csv", "id§name\n1§Ann\n")
    assert "read as one column, 'id§name'" in workdir.call("run", "u.csv").err


@pytest.mark.parametrize("sink", ["sqlite:///u.db", "duckdb:///u.duckdb", "parquet:///u"])
@pytest.mark.parametrize("mode", ["truncate", "replace"])
@pytest.mark.parametrize("content", ["", "id,name\n"])
def test_a_source_without_records_empties_the_table(
    workdir: Workdir, sink: str, mode: str, content: str
) -> None:
    """And says so; a header alone says nothing of the types of the columns."""
    workdir.write("u.csv", "id,name\n1,Ann\n")
    workdir.run("u.csv", "--to", sink)
    workdir.write("u.csv", content)
    ended = workdir.call("run", "u.csv", "--to", sink, "--if-exists", mode)
    assert (ended.code, "completed: the source has no record" in ended.out) == (0, True), ended.err
    assert f"--if-exists {mode} leaves the table empty" in ended.err
    workdir.write("u.csv", "id,name\n7,Eve\n")
    assert workdir.run("u.csv", "--to", sink)["successful"] == 1
    if sink.startswith("sqlite"):
        assert query(workdir.path / "u.db", "SELECT id, name FROM u") == [(7, "Eve")]


def test_too_few_records_are_refused(workdir: Workdir) -> None:
    """Before the table is emptied; enough of them are not, whatever their number."""
    give(workdir)
    for content, found in (("", "no record"), ("id,name\n3,Eve\n", "1 records")):
        workdir.write("u.csv", content)
        ended = workdir.call("run", "u.csv", "--if-exists", "truncate", "--min-records", "2")
        assert (ended.code, f"the source has {found}" in ended.err) == (6, True), ended.err
    assert names_of_rows(workdir) == ["Ann", "Bob"]
    workdir.write("u.csv", "id,name\n3,Eve\n4,Kim\n")
    workdir.run("u.csv", "--if-exists", "truncate", "--min-records", "2")
    assert names_of_rows(workdir) == ["Eve", "Kim"]
    again = workdir.call("run", "u.csv", "--if-exists", "truncate", "--min-records", "3")
    assert again.code == 6, "a completed job is no excuse"


def test_a_source_that_had_only_a_header_may_grow(workdir: Workdir) -> None:
    """Its records go into the table's columns."""
    give(workdir)
    to = ("--to", "sqlite:///u.db", "--table", "u", "--if-source-changed", "append")
    workdir.write("more.csv", "id,name\n")
    workdir.run("more.csv", *to)
    workdir.write("more.csv", "id,name\n3,Eve\n")
    workdir.run("more.csv", *to)
    assert names_of_rows(workdir) == ["Ann", "Bob", "Eve"]
