"""Lines decoded by their shape: the outcome is the same as that of decoding line by line."""

from __future__ import annotations

import json
import re
from calendar import isleap
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchimport.errors import UsageError
from batchimport.model import Chunk, Position, Reject, SourceOptions
from batchimport.pipeline.chunk import judge
from batchimport.schema import RecordSchema, infer_schema
from batchimport.sources import json_shapes as shapes
from batchimport.sources.opening import open_source
from tests.bench.make_records import make
from tests.helpers.cli import SAMPLE
from tests.helpers.outcomes import assert_one_outcome
from tests.helpers.properties import tried
from tests.helpers.reading import codes
from tests.unit.test_verdicts import EVERY, RECORDS, documents

Outcome = tuple[list[dict[str, Any]], list[Reject], list[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


def chunks_of(path: Path, limit: int, **options: Any) -> Iterator[tuple[Any, Chunk]]:
    source = open_source([str(path)], SourceOptions(**options))
    at = Position()
    try:
        while chunk := source.cut(at, limit, 1 << 20):
            yield source, chunk
            at = chunk.end
    finally:
        source.close()


def outcome(
    path: Path, schema: RecordSchema, limit: int, *, by_shapes: bool, **options: Any
) -> Outcome:
    """Return rows in order, rejects and digests; shapes are learned from few lines, or never."""
    shapes.shapes_of.cache_clear()
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    digests: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "LEAST_LINES", 1 if by_shapes else 1 << 60)
        patch.setattr(shapes, "LEAST_TAKEN", 1 << 20)
        for source, chunk in chunks_of(path, limit, **options):
            batch = source.read(chunk, schema)
            frame, more = judge(batch, schema)
            assert frame.height + len(more) == chunk.records
            rows += frame.to_dicts()
            rejects += more
            digests.append(batch.digest)
    return rows, rejects, digests


def compare(
    path: Path, document: dict[str, Any], lines: list[bytes], limit: int = 1000, **options: Any
) -> Outcome:
    """Assert that shapes make no difference, in lines and in an array; return the outcome."""
    schema = RecordSchema(document)
    found: Outcome = ([], [], [])
    for name, data in (
        ("u.jsonl", b'{"first": 1}\n' + b"\n".join(lines) + b"\n"),
        ("u.json", b"[\n" + b",\n".join([b'{"first": 1}', *lines]) + b"\n]"),
    ):
        file = path / name
        file.write_bytes(data)
        try:
            slow = outcome(file, schema, limit, by_shapes=False, **options)
        except UsageError:  # bytes that end the array
            continue
        found = outcome(file, schema, limit, by_shapes=True, **options)
        assert repr(found) == repr(slow), (document, lines)  # -0.0 is not 0.0
    return found


def taken(document: dict[str, Any], lines: list[bytes]) -> list[bool]:
    """Say which lines a shape takes, once shapes are learned."""
    shape = shapes.Shapes(RecordSchema(document))
    texts = shapes.split(b"\n".join(lines))
    assert texts is not None
    _, left = shape.decode(texts)
    return [not each for each in left.to_list()]


SIMPLE = (
    "^[A-Z]{2}-[0-9]+$",
    "^[a-z]*[a-z]$",
    "^a?b$",
    "^[0-9]{5}$",
    "^$",
    "^x{0,3}$",
    "^a",
    "a|b",
)
NESTED: list[Any] = [
    True,
    {"type": "string", "minLength": 1, "maxLength": 3},
    {"type": ["integer", "null"]},
    {"type": "number"},
    {"type": ["string", "null"], "enum": ["a", "b"]},
    {"const": "a"},
    {"type": "string", "pattern": "^[0-9]{5}$"},
    {"type": "string", "format": "date"},
    {"type": "array", "items": {"type": ["integer", "null"]}},
    {"type": "array", "minItems": 1},
    {"type": "object"},
]
RULES: list[Any] = [
    *NESTED,
    False,
    {},
    {"type": "integer"},
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 100},
    {"type": "integer", "enum": [1, 2]},
    {"type": "number", "maximum": 1.5},
    {"type": ["number", "null"]},
    {"type": ["boolean", "null"]},
    {"type": "string"},
    {"type": ["string", "null"], "maxLength": 2},
    {"type": "string", "minLength": 1},
    {"type": "string", "enum": ["free", "freed", "plus", "plan", ""]},
    {"type": "string", "enum": ["é", "a\nb", "😀"]},
    {"enum": ["a", None]},
    {"type": "string", "enum": [1, "a"]},
    *({"type": "string", "pattern": pattern} for pattern in SIMPLE),
    *({"type": "string", "format": name} for name in ("date", "date-time", "uuid", "email")),
    *({"type": "string", "format": name} for name in ("ipv4", "uri", "time")),
    {"type": "string", "format": "date", "pattern": "^[0-9]{4}-02"},
    {"type": ["array", "object", "null"]},
    {"type": "null"},
    {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {"anyOf": [{"type": "object", "required": ["a"]}, {"type": "null"}]},
    {"type": "object", "properties": {"a": {}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": ["a"]}}},
    {"type": "object", "properties": {"a": {"type": "integer"}}},
    {"$ref": "#/$defs/d"},
    {"type": ["integer", "string"]},
    {"not": {"type": "string"}},
]
TEXTS = (
    *(
        "",
        "a",
        "b",
        "ab",
        "free",
        "freed",
        "plus",
        "é",
        "a\nb",
        "\0",
        "\x7f",
        "\u2028",
        "\x85",
        "😀",
    ),
    *("AB-12", "12345", "xx", "xxxx", "\\", '"', 'a": 1, "b', "🚀" * 3, "\ufffd", "\ufeff"),
    *(
        "2024-02-28",
        "2024-02-29",
        "2023-02-29",
        "2023-02-30",
        "2024-01-31",
        "0000-01-01",
        "2024-13-01",
    ),
    *(
        "2024-02-28T23:59:60Z",
        "2024-02-28T10:00:00Z",
        "2024-02-28t10:00:00z",
        "2024-02-28T24:00:00Z",
    ),
    *("2024-02-28T10:00:00.123456789+23:59", "2024-02-28T10:00:00.5-24:00", "2024-02-28 10:00:00Z"),
    *(
        "a@b.c",
        "a.b@c-d.ef",
        "a@b",
        ".a@b.c",
        "a" * 70 + "@b.cd",
        "a" * 55 + "@b.cd",
        "a@-b.c",
        "a@b-.c",
    ),
    *("6f1ed002-ab5b-4cf6-9c51-0e4e5a5c5b3e", "6F1ED002-ab5b-4cf6-9c51-0e4e5a5c5b3", "x" * 300),
    *("1.2.3.4", "01.2.3.4", "256.1.1.1", "249.199.99.0", "10:00:00Z", "http://a.b/c"),
)
RAW = (
    *("1", "-0", "-0e1", "-0E-1", "0", "01", "1.0", "-1", "99", "100", "1e2", "1E400", "-1e400", "0.1", "-0.0", "1.", ".5"),
    *("9" * 18, "9" * 19, "9223372036854775807", "-9223372036854775808", "9007199254740993"),
    *("0.1234567890123456789", "5e-324", "1e-400", "123456789012345.5", "NaN", "-Infinity", "+1", "1_0"),
    *("true", "false", "null", "True", "nul", "[]", "{}", "[1, null]", '["a","b"]', "[[1]]", "[[[1]]]"),
    *('{"a": 1}', '{"a":1,"b":"é"}', '{"b": 2, "a": 1}', '{"a": {"a": [1, {"a": null}]}}', "[{}, 1]"),
    *('{"a": null}', '{"a": "a"}', '{"a": "b"}', '{"a": 1.0}', '{"b": 1}', '{"a": [], "c": {}}'),
    *('{"a": 1, "a": 2}', '{"\\u0061": 1}', '[1, ]', '{"a": 1,}', '{"a" : 1}', "[ ]", '[1e999]'),
    *(r'"\u0061"', r'"\ud83d\ude00"', r'"\ud83d"', r'"\ud83d\u0041"', r'"\q"', r'"\u12"', r'"\/\b"'),
    *(r'"\\"', r'"\u0000"', '"\t"', '"a', "'a'", r'["\q"]', r'{"\ud800": 1}', '["\x01"]', r'"\"'),
    *(json.dumps(text) for text in TEXTS),
    *(json.dumps(text, ensure_ascii=False) for text in TEXTS),
)  # fmt: skip
KEYS = ("a", "b.*", 'q"\\', "é", "c d", "^x$", "(", "😀", "", "\n")
values = st.sampled_from(RAW)
separators = st.sampled_from([(", ", ": "), (",", ":"), (",", ": "), (" ,", " :"), (", ", ":\t")])
TAILS = ("", "", "", "\r", " ", "}", ",", "\r\r", "\ufeff")


@st.composite
def rules(draw: st.DrawFn) -> Any:
    if draw(st.integers(0, 2)):
        return draw(st.sampled_from(RULES))
    inner = st.dictionaries(st.sampled_from("ab"), st.sampled_from(NESTED), max_size=2)
    rule: dict[str, Any] = {"type": draw(st.sampled_from(["object", ["object", "null"]]))}
    rule["properties"] = draw(inner)
    if draw(st.booleans()):
        rule["required"] = ["a"]
    if draw(st.booleans()):
        rule["additionalProperties"] = draw(st.booleans())
    return rule


@st.composite
def jobs(draw: st.DrawFn) -> tuple[dict[str, Any], list[bytes]]:
    """Draw a schema, and lines of which most have one of a few shapes."""
    names = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
    document: dict[str, Any] = {
        "properties": {"first": True} | {name: draw(rules()) for name in names},
        "$defs": {"d": draw(rules())},
    }
    if draw(st.booleans()):
        document["additionalProperties"] = draw(st.booleans())
    if draw(st.booleans()):
        document["minProperties"] = 0  # not vectorised
    orders = draw(st.lists(st.permutations(names), min_size=1, max_size=2))
    lines = []
    for _ in range(draw(st.integers(1, 12))):
        order = draw(st.sampled_from(orders))
        comma, colon = draw(separators)
        ascii_ = draw(st.booleans())
        pairs = [json.dumps(name, ensure_ascii=ascii_) + colon + draw(values) for name in order]
        line = "{" + comma.join(pairs) + "}" + draw(st.sampled_from(TAILS))
        lines.append(line.encode())
    mutated = draw(st.sampled_from(lines))
    at = draw(st.integers(0, len(mutated)))
    junk = draw(st.binary(max_size=2)).replace(b"\n", b"")
    lines.append(mutated[:at] + junk + mutated[at + draw(st.integers(0, 2)) :])
    return document, lines


@tried(150)
@given(job=jobs(), limit=st.sampled_from([3, 1000]))
def test_any_lines_of_any_schema(place: Path, job: Any, limit: int) -> None:
    """Rows, rejects, their order and the digest are the same with shapes and without."""
    compare(place, *job, limit=limit)


@tried(60)
@given(job=jobs(), kind=st.sampled_from(["jsonl", "json"]), between=st.integers(0, 3))
def test_any_lines_have_one_outcome(place: Path, job: Any, kind: str, between: int) -> None:
    """The one they have when each is judged by itself, at every chunk size, with shapes and without."""
    document, lines = job
    path = place / f"one.{kind}"
    if kind == "jsonl":
        mark = (b"\n", b"\r\n", b"\n\n", b"\n \t\n")[between]
        path.write_bytes(mark.join([b'{"first": 1}', *lines]))
    else:
        mark = (b",\n", b",", b" ,\r\n", b"\n,")[between]
        path.write_bytes(b"[" + mark.join([b'{"first": 1}', *lines]) + b"]")
    schema = RecordSchema(document)
    for least in (1, 1 << 60):
        shapes.shapes_of.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shapes, "LEAST_LINES", least)
            patch.setattr(shapes, "LEAST_TAKEN", 1 << 20)
            try:
                source = open_source([str(path)], SourceOptions())
            except UsageError:  # bytes that end the array
                return
            with closing(source):
                assert_one_outcome(source, schema)


@pytest.mark.parametrize("typed", [True, False], ids=["declared", "inferred"])
def test_a_minus_zero_has_one_outcome(place: Path, *, typed: bool) -> None:
    """`-0` has a sign or none, however its line is decoded."""
    path = place / "zero.jsonl"
    path.write_bytes(b'{"a": 1.5}\n{"a": -0}\n{"a": -0}\n{"a": -0.0}')
    document = {"properties": {"a": {"type": "number"}}}
    schema = (
        RecordSchema(document) if typed else RecordSchema(infer_schema([{"a": 1.5}]), inferred=True)
    )
    with closing(open_source([str(path)], SourceOptions())) as source:
        assert_one_outcome(source, schema)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=20_000, deadline=None)
@given(job=jobs(), limit=st.sampled_from([3, 1000]))
def test_any_lines_of_any_schema_for_long(place: Path, job: Any, limit: int) -> None:
    """The same, for as long as one cares to wait."""
    compare(place, *job, limit=limit)


@tried(60)
@given(document=documents(), records=st.lists(RECORDS, max_size=6))
def test_schemas_of_any_words(place: Path, document: Any, records: list[dict[str, Any]]) -> None:
    """References, combinations, dialects: what a pattern cannot say is left to the validator."""
    try:
        compare(place, document, [json.dumps(each).encode() for each in [*records, *EVERY]])
    except UsageError:  # a schema that is malformed
        return


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: json.dumps(rule)[:50])
def test_each_value_under_each_rule(place: Path, rule: Any) -> None:
    """Alone in its line, so that nothing else decides."""
    lines = [f'{{"v": {value}}}'.encode() for value in RAW]
    document = {"properties": {"v": rule, "first": True}, "$defs": {"d": RULES[1]}}
    for limit in (40, 1000):  # no order of keys is too rare to be learned; some line has the format
        compare(place, document, lines, limit=limit)


@pytest.mark.parametrize("inferred", [True, False])
def test_digits_of_numbers(place: Path, inferred: bool) -> None:
    """Where a column was only inferred, no digit may go."""
    lines = [b'{"v": 0.5}'] * 30 + [f'{{"v": {value}}}'.encode() for value in RAW]
    file = place / "digits.jsonl"
    file.write_bytes(b"\n".join(lines))
    schema = RecordSchema({"properties": {"v": {"type": "number"}}}, inferred=inferred)
    slow, fast = (outcome(file, schema, 1000, by_shapes=flag) for flag in (False, True))
    assert repr(slow) == repr(fast)
    assert ("number_out_of_range" in codes(fast[1])) is True


def test_places_of_lines(place: Path) -> None:
    """Long lines, blank ones, CRLF, a byte order mark, bytes that are not UTF-8."""
    document = {"properties": {"v": {"type": "string"}}}
    good, long = b'{"v": "a"}', b'{"v": "' + b"x" * 90 + b'"}'
    lines = [good, b"", long, b" \t", good + b"\r", long + b"\r", b"\r", b'{"v": 1}', good]
    for first in (good, b"\xef\xbb\xbf" + good):
        for more in (b"\xff", b'{"v": "\xff"}', b"\xc3", good):
            file = place / "places.jsonl"
            file.write_bytes(b"\n".join([first, *lines, more]))
            schema = RecordSchema(document)
            for limit in (3, 100):
                slow, fast = (
                    outcome(file, schema, limit, by_shapes=flag, max_record_bytes=60)
                    for flag in (False, True)
                )
                assert fast == slow
                assert codes(fast[1])[:3] == ["record_too_long", "record_too_long", "type"]
                for reject in fast[1]:
                    before = file.read_bytes()[: reject.byte_offset]
                    assert file.read_bytes()[reject.byte_offset :].startswith(reject.raw)
                    assert before.count(b"\n") + 1 == reject.line
    compare(place, document, [good, long, good], max_record_bytes=60)


def generated(count: int, bad: float) -> tuple[dict[str, Any], list[bytes]]:
    document = json.loads((SAMPLE / "users.schema.json").read_text())
    return document, [line.encode() for line, _, _ in make(count, bad, 7)]


def test_good_records_are_taken_and_bad_ones_are_not(place: Path) -> None:
    """All of the generator's good records have one of two shapes."""
    document, lines = generated(600, 0)
    assert all(taken(document, lines))
    document, lines = generated(2000, 0.3)
    rows, rejects, _ = compare(place, document, lines)
    assert len(rejects) > 400
    accepted = {
        line for line, is_taken in zip(lines, taken(document, lines), strict=True) if is_taken
    }
    assert accepted.isdisjoint(reject.raw for reject in rejects)
    assert len(accepted) == len(rows)


@pytest.mark.parametrize("year", [1900, 2000, 2023, 2024])
def test_every_day_of_the_calendar_but_one_is_taken(year: int) -> None:
    """A date is taken if and only if it exists, apart from 29 February, which the validator judges."""
    days = [f"{year}-{month:02}-{day:02}" for month in range(14) for day in range(33)]
    columns = {"day": {"format": "date"}, "at": {"format": "date-time"}}
    document = {"properties": {name: {"type": "string", **rule} for name, rule in columns.items()}}
    lines = [f'{{"day": "{day}", "at": "{day}T00:00:00Z"}}'.encode() for day in days]
    known = {f"{date(year, 1, 1) + timedelta(n)}" for n in range(366 if isleap(year) else 365)} - {
        f"{year}-02-29"
    }
    is_taken = taken(document, lines)
    assert {day for day, is_one in zip(days, is_taken, strict=True) if is_one} == known


def test_a_nested_shape_of_its_own() -> None:
    """Objects that nest deeper than patterns go are taken if their keys come in order."""
    line = b'{"a": {"b": {"c": [{"d": 1}], "e": {"f": [1, "x"]}}, "g": null}}'
    assert taken({"properties": {"a": {"type": "object"}}}, [line] * 9) == [True] * 9


def test_lines_are_not_cut_until_one_is_asked_for(tmp_path: Path) -> None:
    """A chunk whose lines all have a shape makes no list of them."""
    document, lines = generated(shapes.LEAST_LINES, 0)
    path = tmp_path / "u.jsonl"
    path.write_bytes(b"\n".join(lines))
    schema = RecordSchema(document)
    for source, chunk in chunks_of(path, 10_000):
        batch = source.read(chunk, schema)
        assert batch.valid is not None
        assert (batch.valid.height, batch.frame.height, batch.deferred) == (len(lines), 0, [])
        assert "lines" not in vars(batch.raw_records)


def test_small_chunks_are_decoded_by_shapes_once_patterns_pay() -> None:
    """Chunks of wide records are small; a source that is small has no patterns made."""
    shape = shapes.Shapes(RecordSchema({"properties": {"a": {"type": "integer"}}}))
    lines = shapes.LEAST_LINES // 2
    assert [shape.suit(lines) for _ in range(3)] == [False, True, True]
    assert not shape.suit(shapes.LEAST_AT_ONCE - 1)


def test_shapes_are_given_up_where_they_do_not_pay() -> None:
    """Keys in ever other orders; few patterns are made, and soon no line is tried."""
    names = [f"k{at}" for at in range(40)]
    schema = RecordSchema({"properties": {name: {"type": "integer"} for name in names}})
    shape = shapes.Shapes(schema)
    orders = [names[at:] + names[:at] for at in range(40)]
    lines = [json.dumps(dict.fromkeys(orders[at * at % 37], 1)) for at in range(20_000)]
    texts = shapes.split("\n".join(lines).encode())
    assert texts is not None
    for _ in range(3):
        assert shape.suit(len(texts))
        shape.decode(texts.str.replace("k", "x", literal=True))
    assert not shape.suit(len(texts))
    assert len(shape.known) <= shapes.MOST_SHAPES


def test_a_shape_that_comes_later_is_not_taken_for_more_bad_lines() -> None:
    """Lines that are left are searched for shapes again once there are more of them than before."""
    shape = shapes.Shapes(RecordSchema({"properties": {n: {"type": "integer"} for n in "ab"}}))
    good, bad, other = ['{"a":1,"b":1}'], ['{"a":"x"}'], ['{"b":1,"a":1}']
    shown = [95 * good + 5 * bad] * 2 + [95 * good + 5 * other, 80 * good + 20 * other]
    for lines, known in zip(shown, (1, 1, 1, 2), strict=True):
        shape.decode(pl.Series(lines))
        assert len(shape.known) == known


def test_good_lines_without_a_shape_are_found_after_bad_ones(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pattern takes 29 February; where the typed decoder has seen bad lines only, it tries few chunks."""
    document = {"properties": {"day": {"type": "string", "format": "date"}}}
    good, bad, late = (b'{"day": "2024-02-%b"}' % day for day in (b"01", b"41", b"29"))
    lines = [good, good, bad, good] + 20 * [good, good, late, good]
    rows, rejects, _ = compare(place, document, lines, 4)
    assert (len(rows), [reject.raw for reject in rejects]) == (84, [bad])
    monkeypatch.setattr(shapes, "LEAST_LINES", 1)
    path = place / "late.jsonl"
    path.write_bytes(b"\n".join(lines))
    schema = RecordSchema(document)
    deferred = [len(source.read(chunk, schema).deferred) for source, chunk in chunks_of(path, 4)]
    assert deferred == 8 * [1] + 13 * [0]


def test_most_frequent_shapes_are_learned_first() -> None:
    """Of more orders of keys than are kept, those that most lines have."""
    names = [f"k{at}" for at in range(30)]
    schema = RecordSchema(infer_schema([dict.fromkeys(names, 1)]))
    shape = shapes.Shapes(schema)
    lines = [json.dumps({name: 1}) for at, name in enumerate(names) for _ in range(at + 2)]
    texts = shapes.split("\n".join(lines).encode())
    assert texts is not None
    _, left = shape.decode(texts)
    assert len(shape.known) == shapes.MOST_SHAPES
    assert left.to_list() == [
        at < 30 - shapes.MOST_SHAPES for at in range(30) for _ in range(at + 2)
    ]


def test_lines_with_many_keys_are_proven_in_pieces(place: Path) -> None:
    """A piece ends at a key; where that key also stands in a value before, the line is deferred."""
    names = [f"k{at}" for at in range(40)]
    document = {"properties": {name: {"type": ["string", "null"]} for name in names}}
    document["properties"] |= {"k1": {"type": "object"}, "k39": {"type": "integer"}}
    good = dict.fromkeys(names, "é") | {"k1": {"a": 1}, "k39": 1}
    changes = [{}, {"k1": {"k5": 1}}, {"k2": '"k5":'}, {"k39": "x"}, {"k20": 1}, {"k14": None}]
    lines = [
        json.dumps(good | change, separators=separator).encode()
        for change in changes
        for separator in ((", ", ": "), (",", ":"))
    ]
    compare(place, document, lines)
    is_taken = taken(document, [lines[0]] * 9 + lines)[9:]
    assert is_taken == [
        True,
        True,
        False,
        False,
        True,
        True,
        False,
        False,
        False,
        False,
        True,
        True,
    ]


def test_patterns_are_small() -> None:
    """At most 15 values in a pattern, and no table of states beyond what the engine keeps."""
    names = [f"column_{at}" for at in range(200)]
    for rule in ({"type": "string"}, {}, {"type": "string", "format": "date-time"}):
        patterns = RecordSchema({"properties": dict.fromkeys(names, rule)}).patterns
        pattern = patterns.pattern(tuple((name, None) for name in names))
        assert pattern is not None
        assert all(re.compile(piece).groups <= 16 for piece in pattern.pieces)
        assert len(pattern.pieces) == len(pattern.cuts) + 1 > 200 / 15
    nested = tuple((name, None) for name in names)
    assert RecordSchema({"properties": {"a": {}}}).patterns.pattern((("a", nested),)) is None
