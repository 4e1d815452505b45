"""Any schema, any records: the fast way and the slow way give the validator's verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchimport.errors import UsageError
from batchimport.schema import RecordSchema
from batchimport.schema.errors import IN_ORDER, errors_of
from tests.helpers.properties import tried
from tests.helpers.reading import read_all

DIALECTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-04/schema#",
)
TEXTS = ("", "a", "b", "ab", "a\n", "é", "\U0001f600", "1", "2024-02-29", "2023-02-29", "a@b.c")
SCALARS = st.sampled_from([None, True, False, 0, 1, 2, 3, -1, 1.0, 1.5, 2.0, 1e300, *TEXTS])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
WORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
    "enum": st.lists(SCALARS, min_size=1, max_size=3, unique_by=json.dumps),
    "const": VALUES,
    "minimum": st.sampled_from([0, 1, 1.5, 2**53]),
    "maximum": st.sampled_from([1, 2.0, -(2**60)]),
    "exclusiveMinimum": st.sampled_from([0, 1.0, True]),
    "exclusiveMaximum": st.sampled_from([2, 3.5, False]),
    "multipleOf": st.sampled_from([1, 0.5, 2]),
    "minLength": st.sampled_from([1, 2]),
    "maxLength": st.sampled_from([0, 1]),
    "pattern": st.sampled_from(
        ["^a", "b$", "^[ab]+$", "^[^a]*$", ".", r"^\S$", "(?=a)", "a|b", "^.$"]
    ),
    "format": st.sampled_from(["date", "email", "uuid", "ipv4", "regex", "unknown"]),
    "minItems": st.just(1),
    "maxItems": st.just(1),
    "uniqueItems": st.booleans(),
    "required": st.sampled_from([["a"], ["a", "b"]]),
    "additionalProperties": st.booleans(),
    "title": st.just("x"),
    "$ref": st.sampled_from(["#/$defs/d", "#/properties/w", "#"]),
    "unheardOf": st.just({"type": 3}),
}


def _rules(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    words = {
        **WORDS,
        "items": inner,
        "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        "anyOf": st.lists(inner, min_size=1, max_size=2),
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "not": inner,
    }
    word = st.sampled_from(sorted(words))
    chosen = word.map(lambda name: [name]) | st.lists(word, max_size=3, unique=True)
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries({name: words[name] for name in names})
    )


NESTED = st.recursive(_rules(st.booleans()), _rules, max_leaves=3)
RULES = st.integers(0, 9).flatmap(lambda lot: NESTED if lot else st.booleans())
POOL: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, -1, 1.0, 1.5, 2.5, 1e300, -(2**53), 2**53 + 1, *TEXTS),
    *([], [1], ["a"], [1, 1], [1, 2], [1, 2, 3], [None, [1]], {}, {"a": 1}, {"b": "a"}),
    *({"a": "ab", "b": 2}, {"a": 1, "c": 1}, {"v": 1}, {"w": "a", "v": None}, [{"a": 2}]),
    *("6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3e", "1.2.3.4", "(", "a b", "aa\na", "2024-02-29\n"),
]
"""So that every rule meets a value on either side of it."""
EVERY = [{"v": value} for value in POOL] + [{"v": 1, "w": value} for value in POOL] + [{}, {"w": 1}]
RECORDS = st.dictionaries(st.sampled_from(["v", "w", "x"]), VALUES, max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    document = {
        "$schema": draw(st.sampled_from([DIALECTS[0], *DIALECTS])),
        "properties": {"v": draw(RULES), "w": draw(RULES)},
        "$defs": {"d": draw(RULES)},
    }
    if draw(st.booleans()):
        document["required"] = draw(st.sampled_from([["v"], ["v", "w"]]))
    if draw(st.booleans()):
        document["additionalProperties"] = draw(st.booleans())
    wrapping = draw(st.sampled_from(["none", "none", "reference", "all", "slow"]))
    if wrapping == "slow":
        return {**document, "minProperties": 0}
    if wrapping == "none":
        return document
    outer = {key: document.pop(key) for key in ("$schema", "$defs")}
    outer["$defs"]["record"] = document
    inside = {"$ref": "#/$defs/record"}
    more = {"properties": {"w": {"$ref": "#/$defs/record/properties/w"}}}
    outer["properties"] = more["properties"]
    return {**outer, **inside} if wrapping == "reference" else {**outer, "allOf": [inside, more]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdicts") / "records.jsonl"


def verdicts_are_the_validators(place: Path, document: Any, records: list[dict[str, Any]]) -> None:
    try:
        schema = RecordSchema(document)
    except UsageError:  # such as exclusiveMinimum of the wrong draft
        return
    place.write_text("".join(json.dumps(record) + "\n" for record in records))
    _, rejects = read_all(place, schema)
    refused = {reject.record: reject for reject in rejects}
    validator = jsonschema_rs.validator_for(document, validate_formats=True, offline=True)
    for at, record in enumerate(records):
        errors = schema.errors(record)
        assert schema.accepts(record) == (not errors)
        assert errors == tuple(sorted(errors_of(validator, record), key=IN_ORDER))
        too_large = at in refused and refused[at].errors[0].code == "integer_out_of_range"
        assert (at in refused) == bool(errors) or too_large, (document, record)
        if errors:
            assert refused[at].errors == errors


@tried(200)
@given(document=documents(), records=st.lists(RECORDS, min_size=1, max_size=6))
@example({"properties": {"v": {"$ref": "#"}}, "additionalProperties": False}, [{"v": {"w": 1}}])
@example({"properties": {"v": {"$ref": "#"}}, "required": ["w"]}, [{"w": 1, "v": {}}, {"v": {}}])
def test_any_schema_any_records(place: Path, document: Any, records: list[dict[str, Any]]) -> None:
    """Accepted if and only if the validator accepts it; rejected with its very errors."""
    verdicts_are_the_validators(place, document, [*records, *EVERY])


@pytest.mark.slow
@settings(max_examples=4_000, deadline=None)
@given(document=documents(), records=st.lists(RECORDS, min_size=1, max_size=6))
def test_many_schemas_many_records(
    place: Path, document: Any, records: list[dict[str, Any]]
) -> None:
    """The same, for as long as one cares to wait."""
    verdicts_are_the_validators(place, document, [*records, *EVERY])
