"""docs/reference.md and docs/schemas say what the program does."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from batchimport.model import FieldError, Progress, Reject, Summary
from tests.helpers import reference
from tests.helpers.cli import ROOT, SAMPLE, Workdir


def schema_of(name: str) -> dict[str, Any]:
    return json.loads((reference.SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def check(name: str, *values: Any) -> None:
    """Compare values with a published schema."""
    place = f"{reference.SCHEMAS.as_uri()}/"
    validator = jsonschema_rs.Draft202012Validator(schema_of(name), base_uri=place)
    assert values
    for value in values:
        found = [
            f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)
        ]
        assert found == [], value


def test_the_reference_is_up_to_date() -> None:
    """The page is what `python -m tests.helpers.reference` writes."""
    assert reference.PAGE.read_text(encoding="utf-8") == reference.written()


@pytest.mark.parametrize(
    ("name", "kind"), [("summary", Summary), ("progress", Progress), ("reject", Reject)]
)
def test_the_schemas_have_the_fields(name: str, kind: type[Any]) -> None:
    """A field of the data has its schema, in the same order."""
    known = list(schema_of(name)["properties"])
    assert known[: len(fields(kind))] == [each.name for each in fields(kind)]
    if kind is Reject:
        errors = schema_of(name)["properties"]["errors"]["items"]
        assert list(errors["properties"]) == [each.name for each in fields(FieldError)]


def test_what_is_printed_is_as_published(workdir: Workdir) -> None:
    """Summaries, progress, jobs, rejects and reports have no other fields than their schemas say."""
    options = ("--to", "shop.db", "--json", "--progress", "json", "--chunk-size", "500")
    run = ("run", SAMPLE / "users.jsonl", "--schema", SAMPLE / "users.schema.json", "--job-id", "a")
    ended = workdir.call(*run, *options)
    workdir.write("bytes.jsonl", b'{"id": 1}\n{"id": "\xff"}\n')
    runs = [ended, workdir.call(*run, *options), workdir.call("run", "none.jsonl", *options)]
    runs += [workdir.call("run", "bytes.jsonl", *options, "--job-id", "b")]
    check("summary", *(each.summary for each in runs))
    check("progress", *map(json.loads, ended.err.splitlines()))
    check("progress", json.loads(workdir.call("status", "a", "--json").out))
    check("jobs", json.loads(workdir.call("jobs", "--json").out))
    for job in ("a", "b"):
        check("reject", *map(json.loads, workdir.call("rejects", job, "--json").out.splitlines()))
        check("report", json.loads(workdir.call("report", job, "--json").out))


def test_every_code_of_a_reject_is_explained() -> None:
    """docs/rejects.md has each code that the program gives to an error."""
    page = (reference.PAGE.parent / "rejects.md").read_text(encoding="utf-8")
    table = page.partition("## Codes")[2].partition("\n## ")[0]
    explained = set(re.findall(r"`(\w+)`", table))
    codes = set(chain(*map(codes_in, (ROOT / "batchimport").rglob("*.py"))))
    assert len(codes) > 40
    assert sorted(codes - explained) == []


def codes_in(path: Path) -> Iterator[str]:
    """Yield the codes that a module names: in calls, in assignments to `code`, in tables by error."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="FieldError" | "unreadable"), args=[first, *_]):
                yield from strings(first)
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                yield from strings(value)
            case ast.Assign(
                targets=[ast.Tuple(elts=[ast.Name(id="code"), *_])],
                value=ast.Tuple(elts=[value, *_]),
            ):
                yield from strings(value)
            case ast.Assign(targets=[ast.Name(id="_CODES")], value=ast.Dict(values=values)):
                for each in values:
                    yield from strings(each.elts[0] if isinstance(each, ast.Tuple) else each)
            case ast.Assign(targets=[ast.Name(id="_OWN_MESSAGES")], value=ast.Dict(keys=keys)):
                yield from chain(*map(strings, filter(None, keys)))


def strings(node: ast.expr) -> Iterator[str]:
    """Yield the strings that an expression may be."""
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.IfExp(body=one, orelse=other):
            yield from (*strings(one), *strings(other))
        case ast.BoolOp(values=values):
            yield from chain(*map(strings, values))
