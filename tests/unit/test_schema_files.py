"""Schemas as users write them: in several files, malformed, misspelt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchimport.errors import UsageError
from batchimport.schema import RecordSchema
from batchimport.schema.diagnose import likely_mistakes
from batchimport.schema.load import load_schema

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
INTEGER = {"type": "integer"}


def test_a_schema_in_several_files_becomes_one(tmp_path: Path) -> None:
    """Files beside it are found by relative reference, or under the address of its own `$id`."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "zip.json").write_text('{"type": "string", "pattern": "^[0-9]{5}$"}')
    address = {"properties": {"zip": {"$ref": "parts/zip.json"}}, "$defs": {"x": INTEGER}}
    (tmp_path / "address.json").write_text(json.dumps(address))
    user = {"properties": {"a": {"$ref": "address.json"}, "n": {"$ref": "address.json#/$defs/x"}}}
    for own in ({}, {"$id": "https://example.com/schemas/user.json"}):
        (tmp_path / "user.json").write_text(json.dumps({**own, **user}))
        document = load_schema(tmp_path / "user.json")
        schema = RecordSchema(document)
        assert [column.kind for column in schema.columns] == ["json", "integer"]
        assert schema.accepts({"a": {"zip": "01234"}, "n": 1})
        found = schema.errors({"a": {"zip": "1"}, "n": "x"})
        assert [(error.field, error.code) for error in found] == [
            ("a.zip", "pattern"),
            ("n", "type"),
        ]


DIALECTS = ["2020-12", DRAFT_4, DRAFT_4.replace("4", "6"), DRAFT_7]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("neighbours_say", [True, False], ids=["said", "not said"])
def test_a_reference_at_the_root_of_a_file_leads_into_it(
    tmp_path: Path, dialect: str, neighbours_say: bool
) -> None:
    """Up to draft 7 it hides all that stands beside it, its file's address included."""
    says = {"$schema": dialect} if "draft" in dialect else {}
    shelf = "definitions" if says else "$defs"
    zip_code = {"$ref": f"#/{shelf}/A", shelf: {"A": {"$ref": "digits.json#/x"}}}
    user = {
        "$ref": f"#/{shelf}/user",
        shelf: {"user": {"properties": {"zip": {"$ref": "zip.json"}, "n": {"$ref": "n.json"}}}},
    }
    ignored = {"type": "integer"} if says else {}
    for name, schema in (
        ("zip.json", {**zip_code, **ignored}),
        ("digits.json", {"x": {"type": "string", "pattern": "^[0-9]+$"}}),
        ("n.json", INTEGER),
    ):
        (tmp_path / name).write_text(json.dumps({**(says if neighbours_say else {}), **schema}))
    (tmp_path / "user.json").write_text(json.dumps({**says, **user}))
    schema = RecordSchema(load_schema(tmp_path / "user.json"))
    assert schema.accepts({"zip": "01234", "n": 1})
    assert [error.field for error in schema.errors({"zip": "x", "n": "x"})] == ["n", "zip"]
    assert {column.name: column.kind for column in schema.columns} == {
        "zip": "string",
        "n": "integer",
    }


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_file_that_is_referred_to_may_be_true_or_false(tmp_path: Path, dialect: str) -> None:
    """Every value, or none."""
    says = {"$schema": dialect} if "draft" in dialect else {}
    user = {"properties": {"a": {"$ref": "any.json"}, "b": {"$ref": "none.json"}}}
    for name, schema in (("any", True), ("none", False), ("user", {**says, **user})):
        (tmp_path / f"{name}.json").write_text(json.dumps(schema))
    schema = RecordSchema(load_schema(tmp_path / "user.json"))
    assert schema.accepts({"a": 1})
    assert [error.field for error in schema.errors({"a": 1, "b": 1})] == ["b"]


def test_files_of_several_drafts_keep_their_own_rules(tmp_path: Path) -> None:
    """A file says of itself how its keywords are to be read."""
    old = {"$schema": DRAFT_4, "type": "integer", "minimum": 3, "exclusiveMinimum": True}
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "user.json").write_text('{"properties": {"v": {"$ref": "old.json"}}}')
    schema = RecordSchema(load_schema(tmp_path / "user.json"))
    assert [schema.accepts({"v": value}) for value in (3, 4)] == [False, True]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('{"properties": {"a/b": {"minimum": "1"}}}', "at /properties/a~1b/minimum", "number"),
        ('{"properties": {"a": {"type": "strin"}}}', "at /properties/a/type", 'type: "strin"'),
        ('{"properties": {"a": {"$ref": "#/$defs/b"}}}', "at /properties/a/$ref", 'no "#/$defs'),
        ('{"allOf": [{"$ref": "other.json"}]}', "at /allOf/0/$ref", 'no "other.json"'),
        ('{"allOf": [{"$ref": "https://a.b/c#/d"}]}', "at /allOf/0/$ref", 'no "https'),
        ('{"$schema": "https://a.b/c"}', "at /$schema", "unknown dialect"),
        ('{"properties": {"a": {"pattern": "("}}}', "at /properties/a/pattern", "regex"),
        ('{"properties": {}, "properties": {}}', "", 'the key "properties" is twice'),
        ('{"minimum": NaN}', "", "JSON has no number NaN"),
        ("[]", "", "not a JSON Schema"),
        ("{", "", "not JSON"),
        ('{"not":' * 5000 + "{}" + "}" * 5000, "", "recursion"),
    ],
    ids=range(12),
)
def test_a_malformed_schema_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str, message: str
) -> None:
    """The file, where in it, and what is wrong."""
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_schema(path)
    assert caught.value.where == f"--schema {path} {place}".strip()
    assert message in caught.value.message


@pytest.mark.parametrize(("text", "accepted"), [("true", True), ("false", False)])
def test_a_schema_may_be_true_or_false(tmp_path: Path, text: str, accepted: bool) -> None:
    """They take every record, or none."""
    path = tmp_path / "s.json"
    path.write_text(text)
    schema = RecordSchema(load_schema(path))
    assert schema.columns == ()
    assert schema.accepts({"a": 1}) is accepted


def test_keywords_that_look_misspelt_are_noted() -> None:
    """With their place and what may be meant; names of properties and other data are no keywords."""
    document = {
        "properties": {
            "minimun": {"minimun": 1, "x-note": "minimun"},
            "b": {"items": {"maxlength": 2}, "enum": [{"requird": 1}], "format": "uuuid"},
        },
        "additionalproperties": False,
        "examples": [{"typo": {"propertis": 1}}],
        "$defs": {"c": {"anyOf": [{"type": "string", "patern": "a"}]}},
    }
    assert likely_mistakes(document) == (
        "--schema at /properties/minimun/minimun: this keyword has no effect; is minimum meant?",
        "--schema at /properties/b/items/maxlength: this keyword has no effect; is maxLength meant?",
        "--schema at /properties/b/format: the format uuuid is unknown and not checked",
        "--schema at /additionalproperties: this keyword has no effect; is additionalProperties meant?",
        "--schema at /$defs/c/anyOf/0/patern: this keyword has no effect; is pattern meant?",
    )
    assert likely_mistakes(True) == ()
