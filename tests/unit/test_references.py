"""Where a schema says what: behind references, in every branch, in every draft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import UsageError
from batchimport.schema import Column, RecordSchema
from tests.helpers.reading import codes, read_all

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
USER = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
INTEGER, TEXT = {"type": "integer"}, {"type": "string"}


def kinds(document: dict[str, Any]) -> dict[str, str]:
    return {column.name: column.kind for column in RecordSchema(document).columns}


@pytest.mark.parametrize(
    "document",
    [
        {"$ref": "#/$defs/user", "$defs": {"user": USER}},
        {"$ref": "#user", "$defs": {"user": {**USER, "$anchor": "user"}}},
        {"$id": "https://a.b/c", "$ref": "d", "$defs": {"user": {**USER, "$id": "d"}}},
        {"allOf": [{"$ref": "#/$defs/user"}, {}], "$defs": {"user": USER}},
        {"$schema": DRAFT_7, "$ref": "#/definitions/user", "definitions": {"user": USER}},
        {"$schema": DRAFT_4, "id": "https://a.b/c", "$ref": "#/x", "x": USER},
    ],
    ids=str,
)
def test_columns_are_found_behind_references(document: dict[str, Any]) -> None:
    """A root that only refers to the record's schema, as generators write it."""
    [column] = RecordSchema(document).columns
    assert (column.name, column.kind, column.required) == ("id", "integer", True)


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ({"enum": ["a", "b"]}, "string"),
        ({"enum": ["a", None]}, "string"),
        ({"enum": [1, 2.5]}, "number"),
        ({"enum": [1, "a"]}, "json"),
        ({"const": True}, "boolean"),
        ({"$ref": "#/$defs/day"}, "date"),
        ({"allOf": [{"type": ["integer", "string"]}, {"type": ["integer", "null"]}]}, "integer"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer"),
        ({"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]}, "uuid"),
        ({"anyOf": [{"type": "string", "format": "uuid"}, {"type": "string"}]}, "string"),
        ({"$ref": "old"}, "string"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, "number"),
        ({"oneOf": [{"type": "integer"}, {"minLength": 1}]}, "json"),
        ({"type": "number", "enum": [1]}, "integer"),
        ({"$ref": "#/properties/v"}, "json"),
        ({"anyOf": [{"$ref": "#/properties/v"}, {"type": "integer"}]}, "json"),
        ({"type": ["integer", "string"]}, "json"),
        (True, "json"),
        (False, "json"),
    ],
    ids=str,
)
def test_a_kind_holds_every_value_that_may_be_valid(rule: Any, kind: str) -> None:
    """By all that the schema says about the property, with an eye to circles."""
    day = {"type": "string", "format": "date"}
    old = {"$id": "old", "$schema": DRAFT_7, "type": "string", "format": "uuid"}
    assert kinds({"properties": {"v": rule}, "$defs": {"day": day, "old": old}}) == {"v": kind}


def test_properties_of_branches_are_columns() -> None:
    """A property has a type only where no branch lets it have another."""
    document = {
        "properties": {"a": TEXT},
        "oneOf": [
            {"properties": {"b": INTEGER, "c": INTEGER}},
            {"properties": {"b": INTEGER, "c": TEXT}},
        ],
        "if": {"required": ["d"]},
        "then": {"properties": {"e": INTEGER}},
        "dependentSchemas": {"a": {"properties": {"f": TEXT}}},
    }
    found = {"a": "string", "b": "integer", **dict.fromkeys("cdef", "json")}
    assert kinds(document) == found


def test_words_beside_a_reference_count_from_2019_on() -> None:
    """Older drafts ignore them."""
    rule = {"type": "integer", "$ref": "#/definitions/any"}
    document = {"properties": {"v": rule}, "definitions": {"any": {}}}
    assert kinds({"$schema": DRAFT_7, **document}) == {"v": "json"}
    assert kinds(document) == {"v": "integer"}


def test_branches_that_refer_to_each_other_end() -> None:
    """Each of two schemas has both as alternatives."""
    document = circle("anyOf", 2)
    assert kinds(document) == {"v": "json"}


def circle(word: str, size: int) -> dict[str, Any]:
    """Return a schema of schemas that each list all of them."""
    branches = [{"$ref": f"#/$defs/n{at}"} for at in range(size)]
    every = {word: [*branches, {"properties": {"v": INTEGER}}]}
    return {word: branches, "$defs": {f"n{at}": every for at in range(size)}}


def tower(levels: int, *words: str, draft: str | None = None) -> dict[str, Any]:
    """Return a schema of levels that refer to the next one twice; the words take turns."""
    key = "definitions" if draft else "$defs"
    definitions: dict[str, Any] = {f"n{levels}": INTEGER}
    for at in range(levels):
        twice = [{"$ref": f"#/{key}/n{at + 1}"}] * 2
        definitions[f"n{at}"] = {words[at % len(words)]: twice}
    dialect = {"$schema": draft} if draft else {}
    return {**dialect, "properties": {"v": {"$ref": f"#/{key}/n0"}}, key: definitions}


TOO_COMPLEX = [
    tower(13, "anyOf"),
    tower(25, "allOf", "anyOf"),
    tower(25, "oneOf", draft=DRAFT_7),
    tower(200, "allOf"),
    circle("anyOf", 30),
    circle("allOf", 9),
]


@pytest.mark.parametrize("document", TOO_COMPLEX, ids=range(len(TOO_COMPLEX)))
def test_a_schema_with_too_many_paths_is_refused(document: dict[str, Any]) -> None:
    """At once: to judge one record by it would take gigabytes."""
    with pytest.raises(UsageError, match="too complex: more than 10,000 schemas") as caught:
        RecordSchema(document)
    assert caught.value.where
    assert caught.value.where.startswith("schema at /")


def test_unevaluated_properties_double_the_paths() -> None:
    """The validator walks them once more, at every level."""
    document = tower(8, "allOf")
    RecordSchema(document)
    for at in range(8):
        document["$defs"][f"n{at}"]["unevaluatedProperties"] = False
    with pytest.raises(UsageError, match="too complex"):
        RecordSchema(document)


@pytest.mark.parametrize("word", ["properties", "patternProperties"])
def test_levels_of_a_record_are_not_paths(word: str) -> None:
    """They end where the record ends; recursive schemas have no end of them."""
    levels = {
        f"n{at}": {word: {name: {"$ref": f"#/$defs/n{at + 1}"} for name in "ab"}}
        for at in range(25)
    }
    document = {"$ref": "#/$defs/n0", "$defs": {**levels, "n25": {"$ref": "#"}}}
    RecordSchema(document)


@pytest.mark.parametrize("name", ["_extra", "__record__", "", "a\0b"])
def test_names_that_no_column_can_have_are_kept_besides(tmp_path: Path, name: str) -> None:
    """They are checked like all others, and kept with the keys that have no column."""
    source = tmp_path / "records.jsonl"
    records = [{"id": 1, name: 2}, {"id": 2, name: "x"}]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    rows, rejects = read_all(source, {"properties": {"id": INTEGER, name: INTEGER}})
    assert [json.loads(row["_extra"]) for row in rows] == [{name: 2}]
    assert codes(rejects) == ["type"]


def test_bounds_of_draft_4_are_no_numbers(tmp_path: Path) -> None:
    """There `exclusiveMinimum` is true or false."""
    rule = {"type": "integer", "minimum": 3, "exclusiveMinimum": True}
    source = tmp_path / "records.jsonl"
    source.write_text('{"v": 2}\n{"v": 3}\n{"v": 4}\n')
    nested = {"type": "object", "properties": {"v": rule}}
    assert [row["v"] for row in read_all(source, {"$schema": DRAFT_4, **nested})[0]] == [4]
    source.write_text('{"o": {"v": 3}}\n{"o": {"v": 4}}\n')
    rows, _ = read_all(source, {"$schema": DRAFT_4, "properties": {"o": nested}})
    assert [row["o"] for row in rows] == ['{"v": 4}']


def test_required_names_have_columns() -> None:
    """Even when nothing else is said about them."""
    columns = RecordSchema({"required": ["id"]}).columns
    assert columns == (Column("id", "json", required=True, nullable=True),)


def test_a_pattern_that_runs_away_is_no_verdict() -> None:
    """It is given up, and the record is rejected, since nobody knows whether it is valid."""
    document = {"properties": {"v": {"pattern": "^(?=x)(x+x+)+(?=y)y$"}}}
    [error] = RecordSchema(document).errors({"v": "x" * 60})
    assert (error.code, error.field) == ("unverifiable", "v")
