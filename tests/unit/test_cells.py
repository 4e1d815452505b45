"""Cells of delimited text: by the column and one at a time, with the same outcome."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchimport.errors import UsageError
from batchimport.model import INDEX
from batchimport.schema import RecordSchema, infer_schema
from batchimport.sources.base import UnreadableRecordError
from batchimport.sources.csv.dialect import CsvFormat
from batchimport.sources.csv.grammar import Dialect, FieldReader
from batchimport.sources.csv.regular import RegularForm
from batchimport.sources.csv.table import Table, value_of
from tests.helpers.properties import tried
from tests.helpers.reading import codes, read_all

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["i"],
    "properties": {
        "i": {"type": "integer"},
        "n": {"type": ["number", "null"]},
        "b": {"type": "boolean"},
        "s": {"type": "string"},
        "j": {"type": "array"},
        "m": {"type": ["integer", "string"]},
        "u": {},
    },
}
TEXTS = {"properties": {"x": {"type": ["string", "null"]}, "y": {"type": ["string", "null"]}}}
NUMBERS = {"properties": {"x": {"type": "integer"}, "y": {"type": ["number", "null"]}}}
HEADER = "i,n,b,s,j,m,u\n"
cell = st.sampled_from(
    [
        "",
        " ",
        "1",
        "007",
        "-5",
        "+3",
        "1.0",
        "2.5",
        "1e3",
        ".5",
        "nan",
        "inf",
        "1e999",
        "true",
        "False",
    ]
    + ["no", "x", "[1, 2]", "[1,", '{"a": 1}', "9223372036854775808", " 7 ", "1_0", "0x1", "NULL"]
    + ['q"q', "a,b", "new\nline", "null", "é"]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cells") / "records.csv"


def written(rows: list[list[str]], quoted: list[bool]) -> str:
    marks = iter(quoted * 100)
    return HEADER + "".join(
        ",".join(_cell(text, next(marks)) for text in row) + "\n" for row in rows
    )


def _cell(text: str, quoted: bool) -> str:
    needed = any(mark in text for mark in ',"\n')
    return '"' + text.replace('"', '""') + '"' if needed or quoted else text


@tried(300)
@given(
    rows=st.lists(st.lists(cell, min_size=6, max_size=8), max_size=6),
    quoted=st.lists(st.booleans(), min_size=1, max_size=5),
    null=st.sampled_from([None, "NULL"]),
)
def test_the_fast_way_agrees_with_the_slow(
    place: Path, rows: list[list[str]], quoted: list[bool], null: str | None
) -> None:
    """A schema that is not compiled, and says the same, has the same rows and rejects."""
    place.write_text(written(rows, quoted), encoding="utf-8")
    options = {"delimiter": ",", "null_string": null}
    fast = read_all(place, SCHEMA, **options)
    assert read_all(place, {**SCHEMA, "minProperties": 0}, **options) == fast
    assert read_all(place, SCHEMA, limit=1, max_bytes=5, **options) == fast


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1,,,,,,", {"i": 1}),
        ("007,1,yes,,,,", {"i": 7, "n": 1.0, "b": True}),
        ('1,,,"",,,', {"i": 1, "s": ""}),
        ("1,,,NA,,,", {"i": 1, "s": "NA"}),
        ('1,,,,"[1, 2]",,', {"i": 1, "j": "[1, 2]"}),
        ("1,,,,,007,12", {"i": 1, "m": '"007"', "u": '"12"'}),
        ("1,,,,,12,", {"i": 1, "m": "12"}),
        ("1.0,1e3,FALSE,x,,,", {"i": 1, "n": 1000.0, "b": False, "s": "x"}),
    ],
)
def test_cells_become_values(place: Path, row: str, expected: dict[str, Any]) -> None:
    """The narrowest type that the schema allows."""
    place.write_text(HEADER + row + "\n", encoding="utf-8")
    assert read_all(place, SCHEMA, delimiter=",") == ([expected], [])


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("1,,,,,", "too_few_fields"),
        ("1,,,,,,,", "too_many_fields"),
        ("x,,,,,,", "type"),
        (",,,,,,", "required"),
        ("1,nan,,,,,", "type"),
        ("1,,maybe,,,,", "type"),
        ("9223372036854775808,,,,,,", "integer_out_of_range"),
        ('1,,,"a"b,,,', "malformed_quote"),
        ('1,,,"open,,,', "unclosed_quote"),
    ],
)
def test_a_bad_row_is_rejected_alone(place: Path, row: str, code: str) -> None:
    """It shifts nothing and swallows nothing."""
    place.write_text(f"{HEADER}1,,,,,,\n\n{row}\n2,,,,,,\n", encoding="utf-8")
    rows, rejects = read_all(place, SCHEMA, delimiter=",")
    assert [found["i"] for found in rows] == [1, 2]
    assert codes(rejects) == [code]
    assert (rejects[0].record, rejects[0].line) == (1, 4)
    assert rejects[0].raw.decode() == row


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(place: Path, mark: str) -> None:
    """By what cuts the head into rows of one width."""
    other = ";" if mark == "," else ","
    place.write_text(f"a{mark}b\n1{mark}x{other} y\n2{mark}w\n", encoding="utf-8")
    assert read_all(place) == ([{"a": 1, "b": f"x{other} y"}, {"a": 2, "b": "w"}], [])


def test_bytes_that_are_no_text_are_rejected_alone(place: Path) -> None:
    """With their bytes."""
    place.write_bytes(b"i,s\n1,a\n2,\xff\n3,c\n")
    rows, rejects = read_all(place, SCHEMA)
    assert rows == [{"i": 1, "s": "a"}, {"i": 3, "s": "c"}]
    assert (codes(rejects), rejects[0].raw) == (["invalid_utf8"], b"2,\xff")


@pytest.mark.parametrize("head", ["x^2", "x\x01", "(", "\x1f", "\ufeff", "\ufeffx^"])
@pytest.mark.parametrize("limit", [1, 9])
def test_data_that_look_compressed_are_data(place: Path, head: str, limit: int) -> None:
    """Polars decompresses what begins like zlib, and drops a byte order mark, in each chunk."""
    rows = [[head, "1"], [head, "2"], ["a", head]]
    place.write_bytes(("x,y\n" + "".join(",".join(row) + "\n" for row in rows)).encode())
    found, rejects = read_all(place, TEXTS, limit=limit, delimiter=",")
    assert (found, rejects) == ([{"x": x, "y": y} for x, y in rows], [])


def test_header_options(place: Path) -> None:
    """Names may be missing, repeated or preceded by lines that are no records."""
    place.write_bytes(b"\xef\xbb\xbfreport of 2026\r\na,a,\r\n1,2,3\r\n")
    rows, _ = read_all(place, skip_lines=1)
    assert rows == [{"a": 1, "a_2": 2, "column_3": 3}]
    rows, _ = read_all(place, skip_lines=1, header=False)
    assert rows[1] == {"column_1": "1", "column_2": "2", "column_3": 3}


def test_unknown_columns_go_to_extra(place: Path) -> None:
    """A column that the schema does not name is kept."""
    place.write_text("i,more\n1,x\n2,\n", encoding="utf-8")
    rows, rejects = read_all(place, SCHEMA)
    assert rows == [{"i": 1, "_extra": '{"more": "x"}'}, {"i": 2}]
    assert not rejects
    closed = {**SCHEMA, "additionalProperties": False}
    assert codes(read_all(place, closed)[1]) == ["additional_properties"]


@pytest.mark.parametrize(
    "options", [{"delimiter": "a\nb"}, {"delimiter": "\\x00"}, {"quote": "\n"}, {"delimiter": '"'}]
)
def test_bad_dialects_are_refused(place: Path, options: dict[str, str]) -> None:
    """No line ends in them, a quote of one ASCII character, and not the same."""
    place.write_text("a,b\n", encoding="utf-8")
    with pytest.raises(UsageError):
        read_all(place, **options)


class EachByItself(Table):
    """Reads no chunk as a whole."""

    def decode_whole(self, data: bytes, count: int, *, is_plain: bool) -> None:
        return None


@tried(400)
@given(
    lines=st.lists(
        st.text(alphabet='a,"\n\r 1', max_size=14)
        | st.lists(
            st.sampled_from(["1", "2.5", '"3"', '""', "", " ", "\t", '" "', " 4"]),
            min_size=2,
            max_size=2,
        ).map(",".join),
        max_size=6,
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    schema=st.sampled_from([TEXTS, NUMBERS]),
    elsewhere=st.booleans(),
)
@example(lines=["1\ra,a", ",", "1,1"], end="\n", schema=TEXTS, elsewhere=False)
def test_a_chunk_as_a_whole_gives_what_its_records_give(
    place: Path, lines: list[str], end: str, schema: dict[str, Any], elsewhere: bool
) -> None:
    """What is read without looking at each record is what looking would have given.

    Also where the chunk was cut elsewhere, so that nothing is known of it.
    """
    place.write_bytes(("x,y" + end + end.join(lines)).encode())
    options = {"delimiter": ",", "quote": '"'}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchimport.sources.csv.source.Table", EachByItself)
        expected = read_all(place, schema, **options)
    with pytest.MonkeyPatch.context() as patch:
        if elsewhere:
            patch.setattr("batchimport.sources.text_lines.Lines.are_plain", lambda *_: False)
        assert read_all(place, schema, **options) == expected


@tried(300)
@given(rows=st.lists(st.tuples(cell, cell), min_size=1, max_size=8), crlf=st.booleans())
def test_regular_chunks_are_read_as_a_whole(
    place: Path, rows: list[tuple[str, str]], crlf: bool
) -> None:
    """The look at all of a chunk finds no fault where there is none."""
    texts = [[text.replace('"', "'") if text == 'q"q' else text for text in row] for row in rows]
    texts += [['say "hi"', ',"x'], ["a,", '",']]
    ending = "\r\n" if crlf else "\n"
    data = "".join(",".join(_cell(text, text != "") for text in row) + ending for row in texts)
    found = RegularForm(Dialect(","), 2).read_whole(data.encode(), len(texts), {})
    assert found is not None
    assert [list(row) for row in found.fill_null("").rows()] == texts


@pytest.mark.parametrize("mark", [",", ";", "\t", "|", " ", "^", "."])
def test_every_delimiter_is_read_as_a_whole(mark: str) -> None:
    """Also those that mean something in a pattern."""
    data = f'1{mark}"a{mark}b"\r\n2{mark}\r\n'.encode()
    found = RegularForm(Dialect(mark), 2).read_whole(data, 2, {"c0": pl.Int64()})
    assert found is not None
    assert found.rows() == [(1, f"a{mark}b"), (2, None)]


@pytest.mark.parametrize("types", [frozenset({"integer"}), frozenset({"number"})])
def test_polars_reads_numbers_as_we_do(types: frozenset[str]) -> None:
    """Whatever it takes for a number is one, and the same: all texts of up to three characters."""
    dtype = pl.Int64() if types == {"integer"} else pl.Float64()
    letters = "019 +-.eExX_infaNt\t\u0661"
    texts = ["".join(each) for size in (1, 2, 3) for each in product(letters, repeat=size)]
    texts += ["9223372036854775807", "9223372036854775808", "-9223372036854775809", "0" * 30 + "7"]
    data = "".join(f"x,{text}\n" for text in texts).encode()
    schema = {"x": pl.String(), "y": dtype}
    read = pl.read_csv(data, has_header=False, schema=schema, quote_char=None, ignore_errors=True)
    for found in (read.get_column("y"), pl.Series(texts).cast(dtype, strict=False)):
        assert found.count() > 60
        for text, value in zip(texts, found, strict=True):
            if value is not None and (types == {"integer"} or abs(value) < 2**53):
                assert value_of(text, types) == value, text


SEEN = {"i": ["1", "-2", "30"], "n": ["1.5", "-2", "1e5"], "b": ["true", "false", "true"]}
"""What the records looked like from which types were inferred."""
INFERRED = RecordSchema(
    {
        "properties": {
            "i": {"type": ["integer", "null"], "x-inferred": {"records": 3}},
            "n": {"type": ["number", "null"], "x-inferred": {"records": 3}},
            "b": {
                "type": ["boolean", "null"],
                "x-inferred": {"records": 3, "words": ["false", "true"]},
            },
        }
    },
    inferred=True,
)
later = st.sampled_from(
    [
        "0042",
        "-01",
        "+5",
        "00",
        "-0",
        "0",
        " 7 ",
        " 007",
        "42\n",
        "\u00a042",
        "1_000",
        "\u0663",
        "1.0",
    ]
    + ["007.5", "-01.5", "+2.5", "1e5", "1e0005", "1e-400", "1.23456789e-320", "5.", ".5", "1e400"]
    + ["1234567890123456789", "12345678901234567890", "0.10000000000000000001", "9007199254740993"]
    + ["true", "false", "True", "TRUE", " true", "yes", "t", "nan", "inf", "x", ""]
) | st.text(alphabet="0019+-.eE ", max_size=6)


@tried(900)
@given(
    rows=st.lists(st.tuples(later, later, later), min_size=1, max_size=4),
    quoted=st.sampled_from([False, False, True]),
    end=st.sampled_from(["\n", "\r\n"]),
)
@example(
    rows=[("0042", "1", "true"), ("1", "007.5", ""), ("1", "1", "TRUE")], quoted=False, end="\n"
)
@example(rows=[("1", "+0", "true"), ("+0", "1", "true")], quoted=False, end="\n")
@example(rows=[("+5", "1", "true"), ("1", "1e-400", "true")], quoted=False, end="\r\n")
@example(
    rows=[("1", "1", "true"), ("-01", "1", "true"), ("1", "+00", "true")], quoted=True, end="\n"
)
def test_what_would_have_made_a_column_text_is_no_other_value(
    rows: list[tuple[str, str, str]], quoted: bool, end: str
) -> None:
    """Where only some records were looked at: it is rejected, or stored as it is written, in any chunk."""
    dialect = Dialect(",", '"')
    table = Table(list(SEEN), INFERRED, CsvFormat(dialect, frozenset({""})))
    texts = [",".join(_cell(text, quoted) for text in row) for row in rows]
    lines = [(text + end).encode() for text in texts]
    slow: dict[int, dict[str, Any]] = {}
    for at, text in enumerate(texts):
        cells = FieldReader(dialect).read(text)
        try:
            if INFERRED.accepts(table.values(cells)):
                slow[at] = table.row(cells)
        except UnreadableRecordError:
            continue
    for at, row in slow.items():
        for (name, seen), text in zip(SEEN.items(), rows[at], strict=True):
            records = [{name: each} for each in [*seen, text]]
            kind = infer_schema(records, text=True)["properties"][name]["type"][0]
            assert kind != "string" or str(row.get(name, "")) == text.strip(" \t"), text
    whole = table.decode_whole(b"".join(lines), len(rows), is_plain=False)
    for frame, deferred in filter(None, [whole, table.decode(lines, ())]):
        assert frame.height + len(deferred) == len(rows)
        for found in frame.to_dicts():
            expected = slow[found.pop(INDEX)]
            assert {name: value for name, value in found.items() if value is not None} == expected


def test_integers_are_read_as_such_where_none_has_zeros_in_front() -> None:
    """The size of the data proves it, of every number of digits and sign."""
    form = RegularForm(Dialect(","), 2)
    numbers = [
        0,
        7,
        -7,
        *(sign * 10**at + by for at in range(1, 19) for by in (-1, 0, 1) for sign in (1, -1)),
    ]
    clean = [f"{number},x" for number in [*numbers, 2**63 - 1, -(2**63)]]
    for lines, end in product(
        ([*clean, "007,x"], [*clean, "+7,x"], [*clean, "-0,x"], clean), ("\n", "\r\n")
    ):
        data = "".join(line + end for line in lines).encode()
        cells = form.read_whole(data, len(lines), {"c0": pl.Int64()})
        assert cells is not None
        assert form.are_shortest(cells, data) is (lines == clean)
    for numbers in (
        range(70_000),
        range(70_000, -1, -7),
    ):  # of nothing but integers, in several pieces
        data = "".join(f"{number}\n" for number in numbers).encode()
        alone = RegularForm(Dialect(","), 1)
        cells = alone.read_whole(data, len(numbers), {"c0": pl.Int64()})
        assert cells is not None
        assert alone.are_shortest(cells, data)


def test_a_number_of_many_digits_is_not_read_as_a_whole(place: Path) -> None:
    """A column that was only inferred keeps every digit, or says so."""
    place.write_text("x\n1.5\n0.1000000000000000055511151231257827\n", encoding="utf-8")
    schema = RecordSchema({"properties": {"x": {"type": "number"}}}, inferred=True)
    rows, rejects = read_all(place, schema)
    assert (rows, codes(rejects)) == ([{"x": 1.5}], ["number_out_of_range"])


def test_a_record_that_is_too_long_is_the_same_after_blank_lines(place: Path) -> None:
    """Its line and its bytes do not depend on the chunk."""
    place.write_bytes(b"i,s\r\n\r\n\n1," + b"x" * 100 + b"\n\n")
    for limit in (1, 10):
        _, rejects = read_all(place, limit=limit, max_record_bytes=60)
        assert [(each.line, each.byte_offset, each.raw[:3]) for each in rejects] == [(4, 8, b"1,x")]
