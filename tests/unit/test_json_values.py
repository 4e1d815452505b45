"""JSON arrays and values over several lines: elements are parted by a rule, whatever is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchimport.errors import UsageError
from batchimport.model import SourceOptions
from batchimport.sources.json import elements
from batchimport.sources.opening import open_source
from tests.helpers.properties import tried
from tests.helpers.reading import codes, read_all

SCHEMA: dict[str, Any] = {"properties": {"id": {"type": "integer"}, "any": {}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "records.json"


@pytest.fixture(params=[7, 64, 1 << 20])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of the file is looked at in one go."""
    monkeypatch.setattr(elements, "BLOCK_BYTES", request.param)


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize(
    ("text", "expected", "reasons"),
    [
        ("[]", [], []),
        (" [ \n ] \n", [], []),
        ('[{"id": 1}]', [1], []),
        ('\ufeff[{"id": 1},\n{"id": 2}\n]\n\n', [1, 2], []),
        ('[{"id":1},{"id":2},{"id":3},]', [1, 2, 3], []),
        ('[\n  {\n "id": 1}\n, {"id"\n:2} ]', [1, 2], []),
        ('[{"id": 1, "any": {"a]": "}\\\\"}},{"id": 2, "any": "\\"],{"}]', [1, 2], []),
        ('[1, null, "a,]", [2], {"id": 3}]', [3], ["not_an_object"] * 4),
        ('[{"id": 1}, {"id": NaN}, {"id": 3,}, {id: 4}, {"id": 5}]', [1, 5], ["malformed_json"] * 3),
        ('[{"id": 1},, {"id": 2}]', [1, 2], ["malformed_json"]),
        ('[{"id": 1} {"id": 2}, {"id": 3}]', [3], ["malformed_json"]),
        ('[{"id": 1}, {"id": 2}', [1, 2], ["truncated_array"]),
        ('[{"id": 1}, {"id": 2, "a', [1], ["malformed_json", "truncated_array"]),
        ('[{"id": 1}, ', [1], ["truncated_array"]),
        ("[", [], ["truncated_array"]),
        ('[{"id": 1}] tail', [1], ["malformed_json", "truncated_array"]),
        ('[{"id": 1}][{"id": 2}]', [1], ["malformed_json"]),
        ('[\n{"id": 1},\n{"id": 2, "a": "x},\n{"id": 3},\n{"id": [[4},\n{"id": 5}\n]', [1, 3, 5],
         ["malformed_json"] * 2),
        ('[\n {\n  "id": 1\n },\n {\n  "id": 2,\n  [\n },\n {\n  "id": 3\n }\n]', [1, 3],
         ["malformed_json"]),
        ('[{"id": 1}, {"id": [2}, {"id": 3}, {"id": 4}]', [1], ["malformed_json"]),
        ('[{"id": 1, "any": ' + "[" * 30 + "1,{}" + "]" * 30 + '}, {"id": 2}]', [1, 2], []),
        ('{\n"id": 1\n}\n{\n"id": 2\n}', [1, 2], []),
        ('{\n"id": 1\n},\n{\n"id": 2\n}\n,', [1, 2], []),
        ('{\n"id": 1}{"id": 2}  {"id": 3}\nx y\n{"id": 4}', [1, 2, 3, 4], ["malformed_json"]),
        ('{\n"id": 1\n}\n{\n"id": 2,\n\n{\n"id": 3\n}', [1, 3], ["malformed_json"]),
        ('{\n "id": 1\n}\n{\n "id": ]2\n}\n{\n "id": 3\n}', [1, 3], ["malformed_json"]),
        ('[{"id": 1},\n{"id": 2,\n"any": 1}]', [1, 2], []),
        ('\x1e{"id": 1}\n\x1e{\n"id": 2}\n\x1e{"id": 3\n\x1e{"id": 4}\n', [1, 2, 4], ["malformed_json"]),
        ('{"id": 1},\n{"id": 2},\n{"id": 3}\n', [1, 2, 3], []),
        ('{"id": 1, \n "id": 2\n}', [], ["duplicate_key"]),
        ('[{"id": "x\n"}]', [], ["malformed_json"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_elements_are_found(
    place: Path, text: str, expected: list[int], reasons: list[str], limit: int
) -> None:
    """What is well is stored, what is not is rejected; nothing is left out."""
    place.write_text(text, encoding="utf-8", newline="")
    rows, rejects = read_all(place, SCHEMA, limit=limit)
    assert (ids(rows), codes(rejects)) == (expected, reasons)
    for reject in rejects:
        assert place.read_bytes()[reject.byte_offset :].startswith(reject.raw)
        assert reject.line == text.encode().count(b"\n", 0, reject.byte_offset) + 1


def test_nested_values_lose_spaces_only_where_an_element_spans_lines(place: Path) -> None:
    """Numbers keep all of their digits."""
    nested = '{"n": 0.12345678901234567890123,\n "m": [1.10, 1e2]}'
    place.write_text(f'[{{"id": 1, "any": {nested}}}, {{"id": 2, "any": [1, 2.50]}}]')
    rows, _ = read_all(place, SCHEMA)
    assert rows[0]["any"] == '{"n":0.12345678901234567890123,"m":[1.10,1e2]}'
    assert rows[1]["any"] == "[1, 2.50]"


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize("joint", [", ", ",\n", "\n,\n  "])
def test_an_element_that_is_too_long_is_rejected_alone(place: Path, joint: str) -> None:
    """Its raw bytes are cut, its neighbours are stored."""
    texts = [json.dumps({"id": at, "any": "x" * (200_000 * (at == 2))}) for at in range(4)]
    place.write_text(f"[{joint.join(texts)}]")
    for max_bytes in (50, 1 << 20):
        rows, rejects = read_all(place, SCHEMA, max_record_bytes=1000, max_bytes=max_bytes)
        assert ids(rows) == [0, 1, 3]
        assert codes(rejects) == ["record_too_long"]
        assert len(rejects[0].raw) <= 65536


@pytest.mark.parametrize("text", ['"text"', "12", "null", "x"])
def test_a_lone_value_is_refused(place: Path, text: str) -> None:
    """It holds no records."""
    place.write_text(text)
    with pytest.raises(UsageError, match="begins with"):
        open_source([str(place)], SourceOptions(format="json"))


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.json", '{"id": 1}\n{"id": 2}\n', "jsonl"),
        ("a.json", '{"id": 1,\n{"id": 2}\n', "jsonl"),
        ("a.json", '{"id": 1}', "jsonl"),
        ("a.json", '{"id":\n1}', "json"),
        ("a.json", "[1]", "json"),
        ("a.jsonl", '[{"id": 1}]', "json"),
        ("a.jsonl", "[1]\n[2]\n", "jsonl"),
        ("a.jsonl", '{\n"id": 1}', "json"),
        ("a", '[\n{"id": 1}]', "json"),
        ("a", "[x],[y]\n1,2\n", "csv"),
        ("a.json-seq", '\x1e{"id": 1}\n\x1e{"id": 2}\n', "json"),
        ("a.jsonl", '{"id": 1},\n{"id": 2},\n', "json"),
        ("a.jsonl", '{"id": 1}\n,{"id": 2}\n', "json"),
        ("a.jsonl", '{"id": 1},\n{"id": 2}\n{"id": 3}\n', "jsonl"),
        ("a.jsonl", '{"id": 1}\r{"id": 2}\r', "json"),
    ],
)
def test_the_content_says_how_json_is_laid_out(
    tmp_path: Path, name: str, text: str, kind: str
) -> None:
    """Lines, an array, or values over several lines."""
    (tmp_path / name).write_text(text)
    source = open_source([str(tmp_path / name)], SourceOptions())
    source.close()
    assert source.format == kind


pieces = st.sampled_from(
    ['{"id": 1}', '{"id": 2, "any": [{"a": 1}, {"a": "]"}]}', '{\n  "id": 3\n}', '{"id": [}', "5"]
    + ['{"id": "x}', "", '"a,b"', "{", "]", '{"id": 4,\n"any": "\\""}', "[[[[[[[{}]]]]]]]"]
)
joints = st.sampled_from([",", ", ", ",\n", ",\n  ", "\n,", " "])


@tried(300)
@given(
    texts=st.lists(pieces, max_size=8),
    joint=joints,
    other=joints,
    ends=st.sampled_from(["[]", "[\n\n]", "[", "[]x", "  "]),
    size=st.tuples(st.integers(1, 4), st.integers(1, 60), st.integers(1, 40)),
)
@example(  # a separator inside of an element, and a comma that is none between two others
    texts=[*['{"id": 1}'] * 3, "{", '{"id": 4,\n"any": "\\""}', '{"id": 1}', '{"id": 1}'],
    joint=",\n",
    other=",",
    ends="[]",
    size=(2, 35, 40),
)
def test_chunks_of_any_size_give_the_same_elements(
    place: Path,
    texts: list[str],
    joint: str,
    other: str,
    ends: str,
    size: tuple[int, int, int],
) -> None:
    """Chunked parse equals whole parse: rows, rejects and their places."""
    begin, end = ends[:-1] if len(ends) == 2 else ends[:1], ends[1:]
    body = joint.join(texts[:5]) + (other if len(texts) > 5 else "") + joint.join(texts[5:])
    place.write_text(begin + body + end)
    options = {} if begin.startswith("[") else {"format": "json"}
    if not begin.startswith("[") and not body.lstrip().startswith("{"):
        return
    whole = read_all(place, SCHEMA, **options)
    before = elements.BLOCK_BYTES
    limit, max_bytes, elements.BLOCK_BYTES = size
    try:
        assert read_all(place, SCHEMA, limit=limit, max_bytes=max_bytes, **options) == whole
    finally:
        elements.BLOCK_BYTES = before


def test_a_file_that_is_regular_at_its_head_alone_is_not(place: Path) -> None:
    """Valid elements are never rejected, though two of them share a line further on."""
    lines = [f'{{"id": {at}, "any": "{"x" * 900}"}}' for at in range(1000)]
    shared = [f"{lines[at]}, {lines[at + 1]}" for at in range(500, 1000, 2)]
    place.write_text("[\n" + ",\n".join(lines[:500] + shared) + "\n]")
    rows, rejects = read_all(place, SCHEMA)
    assert (ids(rows), rejects) == (list(range(1000)), [])


@pytest.mark.parametrize("indent", [None, 1])
def test_a_sample_is_taken_from_all_over(place: Path, indent: int | None) -> None:
    """About as many as were asked for, the last ones among them."""
    records = [{"id": at, "any": {"at": "x" * 900}} for at in range(5000)]
    place.write_text(json.dumps(records, indent=indent))
    source = open_source([str(place)], SourceOptions())
    sample = [record["id"] for record in source.sample(200)]
    source.close()
    assert 150 <= len(sample) <= 250
    assert min(sample) < 100
    assert max(sample) > 4500
    assert len(set(sample)) == len(sample)


@pytest.mark.parametrize("inside", [3, 5000])
def test_a_separator_inside_of_an_element_separates_nothing(place: Path, inside: int) -> None:
    """A valid element is read as it is, wherever the separator first occurs in one."""
    elements = [f'{{"a": {at}}}' for at in range(60_000)]
    nested = ",\n".join(f'{{"x": {at}}}' for at in range(inside))
    elements[25_000] = f'{{"a": 25000, "s": [1,\n{nested}]}}'
    elements[27_000], elements[38_000] = '{"a": [1}', '{"a": 1'
    place.write_text("[\n" + ",\n".join(elements) + "\n]", encoding="utf-8")
    schema = {"properties": {"a": {"type": "integer"}}}
    for limit, max_bytes in ((1000, 1 << 20), (30_000, 1 << 24), (5000, 50_000)):
        rows, rejects = read_all(place, schema, limit=limit, max_bytes=max_bytes)
        missing = set(range(60_000)) - {row["a"] for row in rows}
        assert (len(rows), missing) == (59_998, {27_000, 38_000})
        assert [reject.record for reject in rejects] == [27_000, 38_000]
