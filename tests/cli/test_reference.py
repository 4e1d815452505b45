"""docs/reference.md and docs/schemas say what the program does."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import jsonschema_rs
import pytest

from batchimport.model import FieldError, Progress, Reject, Summary
from tests.helpers import reference
from tests.helpers.cli import SAMPLE, Workdir


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
