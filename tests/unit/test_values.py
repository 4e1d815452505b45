"""Values as people write them, and the keys that records have: what is read, and what is rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import UsageError
from batchimport.jobs.start import infer
from batchimport.model import SourceOptions
from batchimport.sources.opening import open_source
from tests.helpers.reading import codes, read_all

ENVELOPE = (
    '{"next": null, "data": {"n": 2, "text": "] \\" }", "items": [\n'
    '  {"id": 1, "a": {"b": 1.10, "c": "x"}},\n  {"id": 2, "a": null}\n]}, "rest": [1, {"a": 2}]}\n'
)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a file and return its path."""

    def write(text: str, name: str = "u.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def notes(path: Path, **options: Any) -> str:
    """Return what is said about a file."""
    given = SourceOptions(**options)
    source = open_source([str(path)], given)
    try:
        return "\n".join([*source.notes, *infer(source, None, given).notes])
    finally:
        source.close()


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1.234,50", "7,25", "-0,5"], [1234.5, 7.25, -0.5]),
        (["1,5", "2,25"], [1.5, 2.25]),
        (["1,234.50", "7.25", ".5"], [1234.5, 7.25, 0.5]),
        (["1'234.5", "2"], [1234.5, 2.0]),
        (["1 234,5", "12,75"], [1234.5, 12.75]),
        (["1,234,567", "12"], [1234567, 12]),
        (["1.234", "2.345"], [1.234, 2.345]),
        (["1,234", "2,345"], ["1,234", "2,345"]),
        (["192.168.100.200", "192.168.100.201"], ["192.168.100.200", "192.168.100.201"]),
        (["1,5", "x"], ["1,5", "x"]),
    ],
)
def test_marks_of_numbers_are_found_where_they_are_certain(
    write: Any, cells: list[str], values: list[Any]
) -> None:
    """Else the cells stay text."""
    path = write("a;b\n" + "".join(f"{cell};x\n" for cell in cells))
    assert [row["a"] for row in read_all(path)[0]] == values


def test_columns_that_contradict_each_other_are_text(write: Any) -> None:
    """It is said, with the options that decide."""
    path = write("a;b\n1,5;1.25\n2,5;2.75\n")
    assert read_all(path)[0][0] == {"a": "1,5", "b": 1.25}
    assert "say --decimal and --thousands" in notes(path)
    assert read_all(path, decimal=",")[0][0] == {"a": 1.5, "b": "1.25"}


def test_a_list_in_quotes_is_no_number(write: Any) -> None:
    """Where a comma is the delimiter, only more than one kind of mark proves a decimal comma."""
    path = write('a,b\n"3,12","1.234,5"\n"1,7","2,5"\n')
    assert read_all(path)[0][0] == {"a": 3.12, "b": 1234.5}
    path = write('a,b\n"3,12",x\n"1,7",y\n')
    assert read_all(path)[0][0] == {"a": "3,12", "b": "x"}
    assert "--decimal ," in notes(path)


def test_a_number_of_another_form_is_rejected(write: Any) -> None:
    """Not read as another number."""
    schema = {"properties": {"a": {"type": "number"}, "b": {"type": "integer"}}}
    path = write("a;b\n1,5;1.000\n1.5;1\n1.234,5;1,0\nx;2\n")
    rows, rejects = read_all(path, schema, decimal=",", thousands=".", limit=2)
    assert rows == [{"a": 1.5, "b": 1000}, {"a": 1234.5, "b": 1}]
    assert codes(rejects) == ["type", "type"]


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_comments_are_no_records(write: Any, limit: int) -> None:
    """Wherever they stand, except inside quotes; lines are counted with them."""
    path = write('# x\na,b\n# "\n1,"x\n# y"\n#\n3\n# end')
    rows, rejects = read_all(path, limit=limit, comment="#")
    assert rows == [{"a": 1, "b": "x\n# y"}]
    assert [(each.line, each.raw) for each in rejects] == [(7, b"3")]


def test_ragged_records_are_padded(write: Any) -> None:
    """What lacks is null, also where another cell means null; a cell too many must be empty."""
    path = write("a,b,c\n1,2\n3\n4,5,6,,\n7,8,9,x\n1,2,3\n")
    rows, rejects = read_all(path, ragged="pad", null_string="-")
    assert rows == [{"a": 1, "b": 2}, {"a": 3}, {"a": 4, "b": 5, "c": 6}, {"a": 1, "b": 2, "c": 3}]
    assert codes(rejects) == ["too_many_fields"]
    path_of_deferred = write(
        'a,b,c\n"q",r,s\nx\x01,y\n', "d.csv"
    )  # what has \x01 is read by itself
    rows, _ = read_all(path_of_deferred, ragged="pad", null_string="-")
    assert rows[1:] == [{"a": "x\x01", "b": "y"}]
    assert codes(read_all(path)[1]) == ["too_few_fields"] * 2 + ["too_many_fields"] * 2


def test_a_delimiter_at_the_end_of_all_records_is_dropped(write: Any) -> None:
    """Also with one in the header, or without a header; a value there is a reject."""
    for head, names in (("a,b,\n", {}), ("a,b\n", {}), ("", {"header": False})):
        path = write(head + "1,x,\n" * 400 + "2,y\n3,z,q\n")
        rows, rejects = read_all(path, **names)
        assert [list(row.values()) for row in rows[-2:]] == [[1, "x"], [2, "y"]]
        assert codes(rejects) == ["too_many_fields"]


@pytest.mark.parametrize("delimiter", ["||", "::", "\\x01", "\\u001f", "§", "\\t"])
@pytest.mark.parametrize("size", [1, 100])
def test_delimiters_may_be_long_or_control_characters(
    write: Any, delimiter: str, size: int
) -> None:
    """Quotes and single characters of them are text as usual."""
    mark = delimiter.encode().decode("unicode_escape") if "\\" in delimiter else delimiter
    lines = [["id", "b", "c"], ["1", "x|y:z", ""], ["2", f'"q{mark}""r\n"', "5"], ["3", "", "7"]]
    path = write("\n".join(mark.join(line) for line in lines))
    rows, rejects = read_all(path, delimiter=delimiter, limit=size)
    assert rows == [
        {"id": 1, "b": "x|y:z"},
        {"id": 2, "b": f'q{mark}"r\n', "c": 5},
        {"id": 3, "c": 7},
    ]
    assert not rejects


def test_the_text_format_of_copy_is_read(write: Any) -> None:
    r"""Escapes are characters, `\N` is null, an empty field is an empty string, `\.` is the end."""
    path = write('1\tA\\tB\\\\\\n"\t\\N\n2\t\t\\x41\\101\n\\N\t\\\\N\t\n\\.\n')
    rows, rejects = read_all(path, format="copy")
    assert rows == [
        {"column_1": 1, "column_2": 'A\tB\\\n"'},
        {"column_1": 2, "column_2": "", "column_3": "AA"},
        {"column_2": "\\N", "column_3": ""},
    ]
    assert not rejects


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["31.12.2023", "1.2.2024"], ["2023-12-31", "2024-02-01"]),
        (["12/31/2023", "02/01/2024"], ["2023-12-31", "2024-02-01"]),
        (["31.12.2023 14:05", "01.02.2024 00:00"], ["2023-12-31T14:05:00", "2024-02-01T00:00:00"]),
        (["01/02/2024", "03/04/2024"], ["01/02/2024", "03/04/2024"]),
        (["31.12.2023", "31.12.23"], ["31.12.2023", "31.12.23"]),
        (
            ["2024-01-02 03:04:05", "2024-01-02 03:04:06"],
            ["2024-01-02 03:04:05", "2024-01-02 03:04:06"],
        ),
    ],
)
def test_the_order_of_day_and_month_is_found(
    write: Any, cells: list[str], values: list[str]
) -> None:
    """Where some value is certain and all fit; else the cells are text, and it is said."""
    path = write("a,d\n" + "".join(f"x,{cell}\n" for cell in cells))
    assert [row["d"] for row in read_all(path)[0]] == values
    is_read = values != cells
    assert ("dates, written" in notes(path)) == is_read
    if not is_read and len(cells[1]) > 8:
        assert "--date-format" in notes(path) or "date-time" in notes(path)


def test_dates_are_read_by_the_formats_that_are_given(write: Any) -> None:
    """Several of them, ISO 8601 as well; what is none of them, or no date, is rejected."""
    schema = {"properties": {"d": {"type": "string", "format": "date"}}}
    path = write("a,d\n1,31.12.2023\n2,12/31/2023\n3,2024-01-02\n4,31.02.2024\n5,x\n6,31.12.23\n")
    rows, rejects = read_all(path, schema, date_formats=("%d.%m.%Y", "%m/%d/%Y"), limit=2)
    assert [row.get("d") for row in rows] == ["2023-12-31", "2023-12-31", "2024-01-02"]
    assert codes(rejects) == ["format"] * 3
    path = write('{"d": "31.12.2023 23:00 +0100"}\n{"d": "01.02.2024 00:00 Z"}\n', "d.jsonl")
    rows, _ = read_all(path, date_formats=("%d.%m.%Y %H:%M %z",))
    assert [row["d"] for row in rows] == ["2023-12-31T22:00:00Z", "2024-02-01T00:00:00Z"]


@pytest.mark.parametrize("text", ["%d.%m", "%q", "day", "%d.%m.%Y %", "%Y-%m-%d %M"])
def test_a_format_that_is_none_is_refused(write: Any, text: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match="--date-format"):
        read_all(write("a,b\n1,2\n"), date_formats=(text,))


def test_a_type_by_name_is_read_from_json_as_well(write: Any) -> None:
    """Digits stay as they are written; what cannot be read is rejected."""
    lines = [
        '{"zip": 1234.10, "n": "12", "b": "yes", "t": 1700000000, "u": {"a": 1.10}}',
        '{"zip": "01", "n": 7.0, "b": 0, "t": "2024-01-02 03:04"}',
        '{"zip": true, "n": 1e3, "b": "maybe", "t": "soon"}',
        '{"zip": null, "n": 1e3}',
    ]
    path = write("\n".join(lines), "u.jsonl")
    types = ("zip=string", "n=integer", "b=boolean", "t=date-time", "u=json")
    for limit in (1, 100):
        rows, rejects = read_all(path, types=types, limit=limit)
        assert rows == [
            {"zip": "1234.10", "n": 12, "b": True, "t": "2023-11-14T22:13:20Z", "u": '{"a": 1.10}'},
            {"zip": "01", "n": 7, "b": False, "t": "2024-01-02T03:04:00"},
        ]
        assert [each.raw.decode() for each in rejects] == lines[2:]


@pytest.mark.parametrize("name", ["u.csv", "u.jsonl"])
@pytest.mark.parametrize("limit", [1, 100])
def test_keys_are_renamed_and_selected(write: Any, name: str, limit: int) -> None:
    """Errors name the column as the user calls it; keys that are left out are not kept elsewhere."""
    text = "id,x,y,z\n1,2,a,b\n2,c,d,e\n"
    if name == "u.jsonl":
        text = '{"id":1,"x":2,"y":"a","z":"b"}\n{"id":2,"x":"c","y":"d","new":1}\n'
    schema = {"properties": {"no": {"type": "integer"}, "y": {}}, "required": ["no"]}
    options = {"rename": ("x=no",), "columns": ("y", "no")}
    rows, rejects = read_all(write(text, name), schema, limit=limit, **options)
    assert rows == [{"no": 2, "y": '"a"'}]
    assert [(each.errors[0].field, each.errors[0].code) for each in rejects] == [("no", "type")]
    rows, rejects = read_all(write(text.replace('"c"', "3").replace("c,", "3,"), name), **options)
    assert next(list(row.items()) for row in rows) == [("y", "a"), ("no", 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": ("ix=a",)}, "no column ix; did you mean x"),
        ({"columns": ("id", "xy")}, "no column xy"),
        ({"types": ("y=integer",)}, "no column y"),
        ({"types": ("x=int",)}, "'int' is not one of"),
        ({"rename": ("id=x",)}, "are both called x"),
        ({"rename": ("id",)}, "is not of the form"),
        ({"flatten": True}, "is csv: only json, jsonl have this option"),
        ({"records": "a"}, "is csv: only json, jsonl have this option"),
        ({"thousands": ",", "decimal": ","}, "is the same as --decimal"),
    ],
)
def test_options_that_fit_nothing_are_refused(
    write: Any, options: dict[str, Any], message: str
) -> None:
    """With what was probably meant."""
    with pytest.raises(UsageError) as error:
        read_all(write("id,x\n1,2\n"), **options)
    assert message in f"{error.value}; {error.value.hint}"


@pytest.mark.parametrize("limit", [1, 100])
def test_records_inside_of_an_envelope_are_read_and_flattened(write: Any, limit: int) -> None:
    """Numbers keep their digits in what stays JSON; lines and bytes are those of the file."""
    path = write(ENVELOPE, "e.json")
    rows, _ = read_all(path, records="data.items", flatten=True, limit=limit)
    assert rows == [{"id": 1, "a.b": 1.1, "a.c": "x"}, {"id": 2}]
    schema = {"properties": {"id": {"type": "string"}}}
    _, rejects = read_all(path, schema, records="data.items", limit=limit)
    assert [(each.line, each.byte_offset) for each in rejects] == [
        (at, ENVELOPE.index(f'{{"id": {at - 1}')) for at in (2, 3)
    ]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (ENVELOPE, "data.itms", "there is no key itms"),
        (ENVELOPE, "data.n", "data.n is not an array"),
        (ENVELOPE, "rest.x", "rest is not a JSON object"),
        (ENVELOPE + ENVELOPE, "data.items", "more follows the first JSON object"),
        ('{"a": [1', "b", "malformed"),
    ],
)
def test_an_envelope_without_the_array_is_refused(
    write: Any, text: str, path: str, message: str
) -> None:
    """Nothing is taken for it, and nothing after it is lost."""
    with pytest.raises(UsageError, match=message):
        read_all(write(text, "e.json"), records=path)


def test_flat_keys_that_meet_are_rejected(write: Any) -> None:
    """A key twice in a nested object, or as it is written and by its nesting."""
    lines = ['{"a": {"b": 1}}', '{"a": {"b": 1, "b": 2}}', '{"a.b": 1, "a": {"b": 2}}', '{"a": {}}']
    rows, rejects = read_all(write("\n".join(lines), "f.jsonl"), flatten=True)
    assert rows == [{"a.b": 1}, {}]
    assert codes(rejects) == ["duplicate_key"] * 2
    assert [json.loads(each.raw)["a"] for each in rejects] == [{"b": 2}, {"b": 2}]


def test_the_report_says_why_a_column_has_its_type(write: Any) -> None:
    """With nulls, and an example of what was not of the type."""
    path = write("id,n,d\n1,1.5,31.12.2023\n2,abc,01.01.2024\n3,,02.01.2024\n")
    source = open_source([str(path)], SourceOptions())
    report = infer(source, None, SourceOptions()).report
    source.close()
    assert report == (
        "id  integer    3 integers",
        "n   string     1 decimal, 1 string, such as 'abc', 1 null",
        "d   date       3 dates",
    )


@pytest.mark.parametrize(
    ("text", "types", "found", "rejected"),
    [
        ("31.12.2024 01.02.2024 n/a", "v=date", ["2024-12-31", "2024-02-01"], 1),
        ("12/31/2024 01/02/2024 2024-05-06", "v=date", ["2024-12-31", "2024-01-02", "2024-05-06"], 0),
        ("2024/05/06 2024/05/07", "v=date", ["2024-05-06", "2024-05-07"], 0),
        ("2024-05-06 2024-05-07 01/02/2024", "v=date", ["2024-05-06", "2024-05-07"], 1),
        ("31.12.2024T10:00 01.02.2024T11:12:13 02.01.2024", "v=date-time",
         ["2024-12-31T10:00:00", "2024-02-01T11:12:13", "2024-01-02T00:00:00"], 0),
        ("1,5 2,25 x", "v=number", [1.5, 2.25], 1),
        ("1.234,5 7 x", "v=number", [1234.5, 7.0], 1),
        ("1,234 7", "v=integer", [1234, 7], 0),
        ("1.000 7", "v=integer", [1, 7], 0),
        ("ja nein x", "v=boolean", [True, False], 1),
    ],
)  # fmt: skip
def test_a_type_is_read_as_the_column_is_written(
    tmp_path: Path, text: str, types: str, found: list[Any], rejected: int
) -> None:
    """What the file shows of dates and numbers holds for a type by the user's word, in CSV as in JSON."""
    place = tmp_path / "v.csv"
    place.write_text("id;v\n" + "".join(f"{at};{each}\n" for at, each in enumerate(text.split())))
    rows, rejects = read_all(place, types=(types,))
    assert ([row["v"] for row in rows], len(rejects)) == (found, rejected)
    if "date" in types:
        place = tmp_path / "v.jsonl"
        place.write_text("".join(json.dumps({"v": each}) + "\n" for each in text.split()))
        rows, rejects = read_all(place, types=(types,))
        assert ([row["v"] for row in rows], len(rejects)) == (found, rejected)


def test_a_date_that_may_be_read_in_two_ways_is_asked_about(tmp_path: Path) -> None:
    """Nothing is imported; with the format it is."""
    place = tmp_path / "v.csv"
    place.write_text("v\n01/02/2024\n03/04/2024\n")
    with pytest.raises(UsageError, match=r"may be written %d/%m/%Y or %m/%d/%Y"):
        read_all(place, types=("v=date",))
    rows, _ = read_all(place, types=("v=date",), date_formats=("%m/%d/%Y",))
    assert rows == [{"v": "2024-01-02"}, {"v": "2024-03-04"}]
