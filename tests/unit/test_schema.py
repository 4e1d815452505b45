"""JSON Schema: compiled rules never accept what the validator refuses, and every error is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchimport.errors import UsageError
from batchimport.schema import RecordSchema, infer_schema
from tests.helpers.reading import read_all

RULES: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 5},
    {"type": ["integer", "null"], "maximum": 2**60, "minimum": -(2**60)},
    {"type": "integer", "multipleOf": 3},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
    {"type": "string", "minLength": 1, "maxLength": 2},
    {"type": "string", "pattern": "^[a-c]+$"},
    {"type": ["string", "null"], "enum": ["a", "b", None]},
    {"type": ["string", "null"], "enum": ["a", "b"]},
    {"const": 1},
    {"const": None},
    {"enum": [1, "a", None, [1]]},
    {"type": "boolean", "const": True},
    {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
    {
        "type": "object",
        "properties": {
            "a": {"type": "string", "pattern": "^[ab]$", "maxLength": 2},
            "b": {"type": "integer", "minimum": 1},
        },
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "integer", "exclusiveMaximum": 2}, "minItems": 1},
    {"type": "array", "items": {"type": "array", "items": {"type": "null"}}},
    {"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 2}]},
    {"not": {"type": "string"}},
    {"type": "string", "not": {"const": "a"}},
    {"$ref": "#/$defs/small"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uri"},
    {},
    True,  # type: ignore[list-item]
    False,  # type: ignore[list-item]
]
values = (
    st.none()
    | st.booleans()
    | st.integers(-3, 7)
    | st.sampled_from([2.5, 0.0, 1.0, 2**60, 2**60 + 1, -(2**60) - 1, 1e300])
    | st.text(alphabet="abcd\u00e9\U0001f600", max_size=3)
    | st.sampled_from(
        ["2024-02-29", "2023-02-29", "0000-01-01", "2024-01-01T00:00:00Z", "2024-01-01T24:00:00Z"]
        + ["2024-12-31T23:59:60Z", "2024-01-01t00:00:00z", "2024-01-01T00:00:00.1+05:30", "a@b.c"]
        + ["a@b", "a.@b.c", '"a b"@c.d', "a@[1.2.3.4]", "x@-a.b", "1.2.3.4", "256.1.1.1"]
        + ["6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3e", "http://a/b", "a b", "2024-1-01", "x@a.b\n"]
    )
    | st.lists(st.integers(0, 2), max_size=3)
    | st.dictionaries(
        st.sampled_from("ab"), st.integers(0, 2) | st.text("ab\n", max_size=2), max_size=2
    )
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schema") / "records.jsonl"


@settings(max_examples=500, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    found=st.lists(values, min_size=1, max_size=6),
    required=st.booleans(),
)
def test_compiled_rules_have_the_validators_verdicts(
    place: Path, rule: Any, found: list[Any], required: bool
) -> None:
    """For every rule and value: accepted if and only if the validator accepts the record."""
    document = {
        "type": "object",
        "properties": {"v": rule},
        "required": ["v"] if required else [],
        "$defs": {"small": {"type": "integer", "maximum": 3}},
    }
    records = [{"v": value} for value in found] + [{}]
    place.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    schema = RecordSchema(document)
    assert schema.vectorised
    good = [record for record in records if not schema.errors(record)]
    rows, rejects = read_all(place, document)
    assert len(rows) == len(good)
    assert len(rejects) == len(records) - len(good)


def test_every_error_of_a_record_is_told() -> None:
    """Path, code and value of each, nested ones too."""
    schema = RecordSchema(
        {
            "required": ["id", "name"],
            "additionalProperties": False,
            "properties": {
                "id": {"type": "integer"},
                "name": {},
                "tags": {"items": {"type": "string"}},
                "address": {"properties": {"zip": {"minLength": 5}}},
            },
        }
    )
    found = schema.errors({"id": "x", "tags": ["a", 1], "address": {"zip": "1"}, "more": 0})
    assert [(error.field, error.code) for error in found] == [
        ("address.zip", "min_length"),
        ("id", "type"),
        ("more", "additional_properties"),
        ("name", "required"),
        ("tags[1]", "type"),
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"type": "strin"},
        {"properties": {"a": {"minimum": "1"}}},
        {"$ref": "#/$defs/nowhere"},
        {"properties": {"a": {"pattern": "("}}},
    ],
)
def test_a_malformed_schema_is_refused(document: dict[str, Any]) -> None:
    """Before the job, with the place."""
    with pytest.raises(UsageError, match="not a valid JSON Schema") as caught:
        RecordSchema(document)
    assert caught.value.where.startswith("schema at /")


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        (["1", "-20", None], {"type": ["integer", "null"]}),
        (["1", "2.50"], {"type": ["number", "null"]}),
        (["007", "1"], {"type": ["string", "null"]}),
        (["1e5"], {"type": ["string", "null"]}),
        (["NaN", "1.0"], {"type": ["string", "null"]}),
        (["+49 30", "12"], {"type": ["string", "null"]}),
        (["true", "false"], {"type": ["boolean", "null"]}),
        (["true", "FALSE"], {"type": ["string", "null"]}),
        (["yes", "no"], {"type": ["string", "null"]}),
        (["9223372036854775808"], {"type": ["string", "null"]}),
        (["0.1234567890123456789"], {"type": ["string", "null"]}),
        (["2024-02-03"] * 20, {"type": ["string", "null"], "format": "date"}),
        (["2024-02-03"] * 20 + ["soon"], {"type": ["string", "null"]}),
        ([None], {"type": ["string", "null"]}),
    ],
)
def test_cells_are_typed_as_a_careful_person_would(
    cells: list[str | None], rule: dict[str, Any]
) -> None:
    """What would lose a digit or a zero stays text."""
    document = infer_schema(({"v": cell} for cell in cells), text=True)
    assert document["properties"]["v"] == rule


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ([1, 2.5, None], {"type": ["number", "null"]}),
        ([1, 2**60], {"type": ["integer", "null"]}),
        ([1, "a"], {}),
        ([1, 2**70], {}),
        ([2.5, 2**60], {}),
        ([{"a": 1}], {"type": ["object", "null"]}),
        ([[1]], {"type": ["array", "null"]}),
        ([True, None], {"type": ["boolean", "null"]}),
        ([None], {}),
    ],
)
def test_json_values_are_typed_without_loss(found: list[Any], rule: dict[str, Any]) -> None:
    """Mixed types become JSON, never a guess."""
    assert infer_schema({"v": value} for value in found)["properties"]["v"] == rule
