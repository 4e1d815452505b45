"""JSON Schema: compiled rules never accept what the validator refuses; every error is reported."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchimport.errors import UsageError
from batchimport.schema import RecordSchema, infer_schema
from batchimport.schema.infer import Inference
from tests.helpers.reading import codes, read_all

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
VALUES: list[Any] = [
    *(None, True, False, *range(-3, 8), 2.5, 2.6, 0.0, 1.0, 3.0, 1e300),
    *(2**60, 2**60 + 1, -(2**60), -(2**60) - 1),
    *("", "a", "b", "c", "d", "ab", "abc", "a\n", "\u00e9\u00e9", "\U0001f600\U0001f600", "abd"),
    *("2024-02-29", "2023-02-29", "0000-01-01", "2024-1-01", "2024-02-29\n", "\uff12024-02-29"),
    *("2024-01-01T00:00:00Z", "2024-01-01T24:00:00Z", "2024-12-31T23:59:60Z"),
    *("2024-01-01t00:00:00z", "2024-01-01T00:00:00.1+05:30", "2024-01-01 00:00:00Z"),
    *("2023-02-29T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00+24:00"),
    *(
        "a@b.c",
        "a@b",
        "a.@b.c",
        ".a@b.c",
        '"a b"@c.d',
        "a@[1.2.3.4]",
        "x@-a.b",
        "x@a-.b",
        "x@a.b\n",
    ),
    *("1.2.3.4", "256.1.1.1", "http://a/b", "a b", "x" * 300 + "@a.b"),
    *(
        "6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3e",
        "6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3",
        "6F1ED002" * 4,
    ),
    *([], [1], [2], [1, 1], [1, 2], ["a"], [[None]], [[]], [None]),
    *({}, {"a": 1}, {"a": "a"}, {"a": "a\n"}, {"a": "c"}, {"b": 1}, {"b": 0}, {"b": 1.0}),
    *({"a": "b", "b": 2}, {"a": "b", "x": 2}, {"a": None}),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schema") / "records.jsonl"


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_compiled_rules_have_the_validators_verdicts(
    place: Path, rule: Any, required: bool
) -> None:
    """For every rule and value: accepted if and only if the validator accepts the record."""
    document = {
        "type": "object",
        "properties": {"v": rule, "at": {"type": "integer"}},
        "required": ["v"] if required else [],
        "$defs": {"small": {"type": "integer", "maximum": 3}},
    }
    records = [{"v": value, "at": at} for at, value in enumerate(VALUES)] + [{"at": len(VALUES)}]
    place.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    schema = RecordSchema(document)
    assert schema.vectorised
    good = {record["at"] for record in records if not schema.errors(record)}
    rows, rejects = read_all(place, document)
    too_large = {r.record for r in rejects if r.errors[0].code == "integer_out_of_range"}
    assert {row["at"] for row in rows} == good - too_large
    assert {reject.record for reject in rejects} == set(range(len(records))) - good | too_large
    slow_rows, slow_rejects = read_all(place, {**document, "minProperties": 0})
    assert (slow_rows, slow_rejects) == (rows, rejects)


def test_every_error_of_a_record_is_reported() -> None:
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
        (["1e5", "7"], {"type": ["string", "null"]}),
        (["1e-05", "0.5", "7"], {"type": ["number", "null"]}),
        (["1.5e-07"], {"type": ["number", "null"]}),
        (["0.30000000000000004", "0.1"], {"type": ["number", "null"]}),
        (["1.0e999"], {"type": ["string", "null"]}),
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
        ([Decimal("1.10"), Decimal("0.30000000000000004")], {"type": ["number", "null"]}),
        ([Decimal("0.12345678901234567890123")], {}),
        ([Decimal("1e999"), 1], {}),
        ([Decimal("1e999999999999999999"), 1], {}),
    ],
)
def test_json_values_are_typed_without_loss(found: list[Any], rule: dict[str, Any]) -> None:
    """Mixed types become JSON, never a guess."""
    assert infer_schema({"v": value} for value in found)["properties"]["v"] == rule


@pytest.mark.parametrize("slow", [{}, {"minProperties": 0}], ids=["fast", "slow"])
def test_a_number_beyond_a_double_is_kept_where_it_can_be(tmp_path: Path, slow: Any) -> None:
    """In a column without a type and besides; in a column of numbers it is a reject."""
    source = tmp_path / "r.jsonl"
    source.write_text('{"any": 1e999, "n": 1}\n{"more": [-1e999]}\n{"n": 1e999}\n')
    document = {"properties": {"any": {}, "n": {"type": "number"}}, **slow}
    rows, rejects = read_all(source, document)
    assert rows == [{"any": "1e999", "n": 1.0}, {"_extra": '{"more":[-1e999]}'}]
    assert codes(rejects) == ["number_out_of_range"]


ENORMOUS = "1e1000000000000000000"


@pytest.mark.parametrize("slow", [{}, {"minProperties": 0}], ids=["fast", "slow"])
@pytest.mark.parametrize("kind", ["number", "integer"])
def test_a_number_beyond_every_type_is_one_reject(tmp_path: Path, kind: str, slow: Any) -> None:
    """Its exponent has more digits than Python's decimals take; neighbours are stored."""
    source = tmp_path / "r.jsonl"
    numbers = [ENORMOUS, "1", f"-{ENORMOUS}", "1e999999999", "0e1000000000000000000"]
    source.write_text("".join(f'{{"v": {number}}}\n' for number in numbers))
    rows, rejects = read_all(source, {"properties": {"v": {"type": kind}}, **slow})
    assert rows == [{"v": 1}, {"v": 0}]
    assert [reject.record for reject in rejects] == [0, 2, 3]
    assert codes(rejects) == [f"{kind}_out_of_range"] * 3
    bounded = {"type": kind, "maximum": 5, "minimum": 0}
    rows, rejects = read_all(source, {"properties": {"v": bounded}, **slow})
    assert rows == [{"v": 1}, {"v": 0}]
    assert codes(rejects) == ["maximum", "minimum", "maximum"]


@pytest.mark.parametrize("slow", [{}, {"minProperties": 0}], ids=["fast", "slow"])
def test_a_number_beyond_every_type_is_kept_as_json(tmp_path: Path, slow: Any) -> None:
    """In a column without a type, as it is written."""
    source = tmp_path / "r.jsonl"
    source.write_text(f'{{"any": {ENORMOUS}}}\n{{"more": [{ENORMOUS}]}}\n')
    rows, rejects = read_all(source, {"properties": {"any": {}}, **slow})
    assert rows == [{"any": ENORMOUS}, {"_extra": f'{{"more":[{ENORMOUS}]}}'}]
    assert rejects == []


def test_a_number_too_small_for_an_integer_is_none(tmp_path: Path) -> None:
    """A double makes 0 of it, which is an integer."""
    source = tmp_path / "r.jsonl"
    source.write_text('{"v": 1e-400}\n{"v": 10e-1}\n')
    rows, rejects = read_all(source, {"properties": {"v": {"type": "integer"}}})
    assert rows == [{"v": 1}]
    assert codes(rejects) == ["type"]


WRITTEN = [
    *("1", "-1.5", "1.10", "0.30000000000000004", "1e5", "1E-7", "1.0", "1e300", "-0.0"),
    *("9007199254740991", "9007199254740993", "123456789012345678901234567890", "1e16"),
    *(
        "0.12345678901234567890123",
        "1.00000000000000000001",
        "9007199254740992.5",
        "12345678.9012345678",
    ),
]
KEPT = [Decimal(text) for text in WRITTEN if Decimal(repr(float(text))) == Decimal(text)]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("inferred", [True, False])
def test_no_number_loses_a_digit_silently(tmp_path: Path, suffix: str, inferred: bool) -> None:
    """Where numbers were inferred, all digits count; where they were asked for, integers do."""
    source = tmp_path / f"v.{suffix}"
    form = "{}\n" if suffix == "csv" else '{{"v": {}}}\n'
    header = "v\n" if suffix == "csv" else ""
    source.write_text(header + "".join(form.format(text) for text in WRITTEN))
    schema = RecordSchema({"properties": {"v": {"type": "number"}}}, inferred=inferred)
    rows, rejects = read_all(source, schema)
    refused = {reject.record for reject in rejects}
    integers = {at for at, text in enumerate(WRITTEN) if text.isdigit()}
    lossy = {at for at, text in enumerate(WRITTEN) if Decimal(text) not in KEPT}
    assert refused == (lossy if inferred else lossy & integers)
    kept = [float(text) for at, text in enumerate(WRITTEN) if at not in refused]
    assert [row["v"] for row in rows] == kept
    assert all(("--infer-rows all" in str(reject.errors)) is inferred for reject in rejects)


@pytest.mark.parametrize(("form", "end"), [("date", ""), ("date-time", "T10:00:00Z")])
def test_the_dates_that_are_accepted_are_those_there_are(form: str, end: str) -> None:
    """The pattern knows the lengths of months and the leap years: no date is left to the validator."""
    years = [0, 4, 1900, 1904, 2000, 2023, 2024, 2100, 9999]
    days = [(year, month, day) for year in years for month in range(14) for day in range(33)]
    texts = [f"{year:04}-{month:02}-{day:02}{end}" for year, month, day in days]
    schema = RecordSchema({"properties": {"x": {"type": "string", "format": form}}})
    accepted = schema.accepts_rows(pl.DataFrame({"x": texts})).to_list()
    assert accepted == [schema.accepts({"x": text}) for text in texts]


def test_an_envelope_says_where_its_records_are() -> None:
    """Only a single record is one; among others, an array of objects is a value."""
    envelope = {"meta": {"n": 2}, "data": {"items": [{"a": 1}, {"a": 2}], "more": []}}
    alone = Inference([envelope])
    assert "an array of 2 objects: --records data.items" in "".join(alone.notes(alone.document))
    several = Inference([envelope, envelope])
    assert not several.notes(several.document)
