"""The official JSON Schema Test Suite: each test's verdict, the instance stored as it was given."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import UsageError
from batchimport.model import EXTRA_COLUMN
from batchimport.schema import RecordSchema
from batchimport.schema.load import load_schema
from tests.helpers.cli import ROOT
from tests.helpers.reading import read_all

PACKED = ROOT / "tests" / "data" / "json_schema_test_suite.json.xz"
CONTENT: dict[str, Any] = json.loads(lzma.decompress(PACKED.read_bytes()))
SUITE: dict[str, list[dict[str, Any]]] = CONTENT["tests"]
DIALECTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
ELSEWHERE = "http://localhost:1234/"
OTHERWISE = {
    "draft2020-12/format.json": "expects that no format is asserted; all are here",
    "draft2020-12/vocabulary.json": "is in a dialect of its own",
}
NUMBERS = ("optional/bignum.json", "optional/float-overflow.json")
BEYOND_64_BITS = {"integer", "number", "all integers are multiples of 0.5, if overflow is handled"}
"""Groups with integers that no column of numbers holds: they are rejects."""


def records(group: dict[str, Any], path: str) -> list[tuple[Any, list[tuple[Any, bool]]]]:
    """Return the ways in which a group can be about records: schema, records with verdicts."""
    schema, dialect = group["schema"], DIALECTS[path.partition("/")[0]]
    tests = [(instance, valid) for _, instance, valid in group["tests"]]
    found: list[tuple[Any, list[tuple[Any, bool]]]] = []
    objects = [(instance, valid) for instance, valid in tests if isinstance(instance, dict)]
    if objects:
        root = schema
        if isinstance(schema, dict):
            address = {"$id": f"{ELSEWHERE}schema.json"} if ELSEWHERE in json.dumps(schema) else {}
            root = {"$schema": dialect, **address, **schema}
        found.append((root, objects))
    text = json.dumps(schema)
    if not any(word in text for word in ('"#', "$dynamicRef", '"$id"')):
        wrapper = {
            "$schema": dialect,
            "$id": f"{ELSEWHERE}schema.json",
            "properties": {"value": schema},
            "required": ["value"],
        }
        found.append((wrapper, [({"value": instance}, valid) for instance, valid in tests]))
    return found


def stored(row: dict[str, Any], schema: RecordSchema) -> dict[str, Any]:
    """Return the record that a row holds."""
    kinds = {column.name: column.kind for column in schema.columns}
    found = json.loads(row.pop(EXTRA_COLUMN, "{}"))
    for name, value in row.items():
        found[name] = json.loads(value) if kinds[name] == "json" else value
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The schemas that are elsewhere, as files."""
    root = tmp_path_factory.mktemp("suite")
    for name, schema in CONTENT["remotes"].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(schema), encoding="utf-8")
    return root


def load(document: Any, place: Path) -> dict[str, Any]:
    """Load a schema from a file in the place that its address says."""
    address = document.get("$id", "") if isinstance(document, dict) else ""
    folder = place / address.removeprefix(ELSEWHERE).rpartition("/")[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.json").write_text(json.dumps(document), encoding="utf-8")
    return load_schema(folder / "schema.json")


@pytest.mark.parametrize("path", [path for path in SUITE if path not in OTHERWISE])
def test_verdicts_of_the_official_suite(path: str, place: Path) -> None:
    """Accepted if and only if the suite says so, and nothing of what is accepted is lost."""
    for group in SUITE[path]:
        if path.endswith(NUMBERS) and group["description"] in BEYOND_64_BITS:
            continue
        for document, tests in records(group, path):
            given = load(document, place)
            source = place / "records.jsonl"
            source.write_text("".join(json.dumps(record) + "\n" for record, _ in tests))
            rows, rejects = read_all(source, given)
            bad = {reject.record for reject in rejects}
            assert bad == {at for at, (_, valid) in enumerate(tests) if not valid}, group
            good = [record for at, (record, _) in enumerate(tests) if at not in bad]
            kept = [stored(row, RecordSchema(given)) for row in rows]
            assert list(map(_without_nulls, kept)) == list(map(_without_nulls, good)), group


def test_another_dialect_is_refused(place: Path) -> None:
    """A schema in a dialect of its own cannot be checked, and is not accepted unchecked."""
    [group] = [each for each in SUITE["draft2020-12/vocabulary.json"] if "custom" in str(each)]
    with pytest.raises(UsageError, match="unknown dialect"):
        load(group["schema"], place)


def _without_nulls(record: dict[str, Any]) -> dict[str, Any]:
    """A missing key and null are the same in a table."""
    return {name: value for name, value in record.items() if value is not None}
