"""How a file is written is found out by looking, and said; the cases are those of public corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import UsageError
from batchimport.model import SourceOptions
from batchimport.sources.opening import open_source
from tests.helpers.reading import Rows, codes, read_all


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dialect") / "records.csv"


def notes_of(place: Path, **options: Any) -> str:
    source = open_source([str(place)], SourceOptions(**options))
    source.close()
    return "; ".join(source.notes)


TWO: Rows = [{"a": "x", "b": "y z"}, {"a": "v", "b": "w"}]


@pytest.mark.parametrize(
    ("text", "note", "rows"),
    [
        ("a,b\nx,y z\nv,w\n", "comma", TWO),
        ("a;b\nx;y z\nv;w\n", "semicolon", TWO),
        ("a\tb\nx\ty z\nv\tw\n", "tab", TWO),
        ("a|b\nx|y z\nv|w\n", "pipe", TWO),
        ('"a";"b"\n"x";"y z"\n"v";"w"\n', "semicolon", TWO),
        ("'a','b'\n'x','y z'\n'v','w'\n", "single quote", TWO),
        ("a;b\n1,5;2,5\n3,5;4,5\n", "semicolon", [{"a": 1.5, "b": 2.5}, {"a": 3.5, "b": 4.5}]),
        ("a,b\n1,'x, y'\n2,'it''s'\n", "single quote", [{"a": 1, "b": "x, y"}, {"a": 2, "b": "it's"}]),
        ("a,b\n1,'tis\n2,'twas\n", "comma", [{"a": 1, "b": "'tis"}, {"a": 2, "b": "'twas"}]),
        ('a,b\n1,"p, \\"q\\""\n', "backslash", [{"a": 1, "b": 'p, "q"'}]),
        ('a,b\n1,"\\"q\\"\nr"\n2,s\n', "backslash", [{"a": 1, "b": '"q"\nr'}, {"a": 2, "b": "s"}]),
        ('a,b\n1,"C:\\"\n2,"D:\\"\n', "comma", [{"a": 1, "b": "C:\\"}, {"a": 2, "b": "D:\\"}]),
        ("a,b\n1,p\\,q\n2,r\n", "backslash", [{"a": 1, "b": "p,q"}, {"a": 2, "b": "r"}]),
        ('a, b\n1, "p, q"\n', "spaces", [{"a": 1, "b": "p, q"}]),
        ("a,b\n1, p\n2,q \n", "comma", [{"a": 1, "b": " p"}, {"a": 2, "b": "q "}]),
        ("x y z\n1 2 3\n4 5 6\n", "space", [{"x": 1, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 6}]),
        ("one two three\nfour five six\n", "comma", [{"one two three": "four five six"}]),
        ("t\n12:30:05\n12:30:06\n", "comma", [{"t": "12:30:05"}, {"t": "12:30:06"}]),
        ("a,b\nx;1,y;1\nz;2,w;2\n", "comma", [{"a": "x;1", "b": "y;1"}, {"a": "z;2", "b": "w;2"}]),
        ("n, f;i\nx, y;1\nz, w;2\n", "semicolon", [{"n, f": "x, y", "i": 1}, {"n, f": "z, w", "i": 2}]),
        ("col\nit's\n'quoted'\n", "comma", [{"col": "it's"}, {"col": "'quoted'"}]),
        ('"a"\n"\'\'"\n"x; y"\n"z; w"\n', "comma", [{"a": "''"}, {"a": "x; y"}, {"a": "z; w"}]),
        ("url\nhttp://x?a=1;b=2\ny\n", "comma", [{"url": "http://x?a=1;b=2"}, {"url": "y"}]),
        ("k,q\nA,'x'\nB,'y'\nC,'z'\n", "comma", [{"k": k, "q": q} for k, q in (("A", "'x'"), ("B", "'y'"), ("C", "'z'"))]),
        ("a,b\n1,x\n2,'it''s'\n", "single quote", [{"a": 1, "b": "x"}, {"a": 2, "b": "it's"}]),
        ("'a','b'\n1,2\n3,4\n", "single quote", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        ("a\tb\n1\t'x\ny'\n2\tz\n", "single quote", [{"a": 1, "b": "x\ny"}, {"a": 2, "b": "z"}]),
        ("a||b||c\n1||x||2\n3||y||\n", "'||'", [{"a": 1, "b": "x", "c": 2}, {"a": 3, "b": "y"}]),
        ('a\t\tb\n1\t\t"x\ty"\n2\t\tz\n', "'\\t\\t'", [{"a": 1, "b": "x\ty"}, {"a": 2, "b": "z"}]),
        ("a|b|c\n1||2\n3||\n", "pipe", [{"a": 1, "c": 2}, {"a": 3}]),
        ("a^b\n1^x\n2^y\n", "caret", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ("a\x01b\n1\x01x\n2\x01y\n", "x01", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ('"SEP=;"\na;b\n1;2\n', "not part of the table: 1", [{"a": 1, "b": 2}]),
        ("sep=^\r\na^b\r\n1^2\r\n", "not part of the table: 1", [{"a": 1, "b": 2}]),
        ("a,b\r1,2\r3,4\r", "comma", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        ("a,b\r\n1,2\n3,4\r5,6", "comma", [{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": 5, "b": 6}]),
        ('a,b\n1,"p\rq\r\nr"\n', "comma", [{"a": 1, "b": "p\rq\r\nr"}]),
    ],
)  # fmt: skip
def test_the_way_a_file_is_written_is_found(place: Path, text: str, note: str, rows: Rows) -> None:
    """Delimiter, quote, escape, padding, line ends; and the user is told."""
    place.write_bytes(text.encode())
    assert read_all(place) == (rows, [])
    assert note in notes_of(place)
    assert read_all(place, limit=1, max_bytes=3) == (rows, [])


@pytest.mark.parametrize(
    ("given", "mark"),
    [
        *((each, "\t") for each in ("\\t", "\\\\t", "\t", "tab", "TAB", "\\x09", "\\u0009", "\\011", "0x09")),
        *((each, "\x1f") for each in ("\\x1f", "\\x1F", "\\\\x1f", "\\037", "0x1f")),
        ("\\", "\\"), ("semicolon", ";"), ("pipe", "|"), ("\\t\\t", "\t\t"), ("|x|", "|x|"),
    ],
)  # fmt: skip
def test_a_delimiter_as_people_type_it(place: Path, given: str, mark: str) -> None:
    """A shell hands on a backslash as it is, some files double it; a name is one of those in notes."""
    place.write_text(f"a{mark}b\nx{mark}y z\nv{mark}w\n")
    assert read_all(place, delimiter=given) == (TWO, [])
    for no_delimiter in ("\\n", "\\r", "\\0", "\\x00", "0x0a"):
        with pytest.raises(UsageError, match="--delimiter: cannot be"):
            read_all(place, delimiter=no_delimiter)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a\nx\n\ny\n", [{"a": "x"}, {}, {"a": "y"}]),
        ("a,b\nx,y\n\n\nz,w\n\n", [{"a": "x", "b": "y"}, {"a": "z", "b": "w"}]),
        ("\n\na,b\nx,y\n", [{"a": "x", "b": "y"}]),
        ('a\n""\nx\n', [{"a": ""}, {"a": "x"}]),
        ("a,b\n1,x\n2,y", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ("a,b\n,\n", [{}]),
        ("a,b,\n1,2\n3,4\n", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        ("a,b\n", []),
        ("a\n", []),
        ("", []),
        ("\n\n", []),
    ],
)
def test_edges_of_files(place: Path, text: str, rows: Rows) -> None:
    """Blank lines are records only where a record has one field; delimiters may end lines."""
    place.write_bytes(text.encode())
    assert read_all(place) == (rows, [])
    assert read_all(place, limit=1, max_bytes=2) == (rows, [])


def test_lines_before_the_header_are_left_out(place: Path) -> None:
    """If what follows is a table beyond doubt; it is said, and can be overruled."""
    place.write_text("Report of 2026\n# a, b\n\nid,name,zip\n1,x,007\n2,y,008\n", encoding="utf-8")
    rows, rejects = read_all(place)
    assert rows == [{"id": 1, "name": "x", "zip": "007"}, {"id": 2, "name": "y", "zip": "008"}]
    assert not rejects
    assert "before the header that are not part of the table: 3" in notes_of(place)
    assert read_all(place, skip_lines=3)[0] == rows
    assert codes(read_all(place, skip_lines=0)[1]) == ["too_many_fields"] * 4


def test_a_header_that_is_too_short_is_no_preamble(place: Path) -> None:
    """Records that do not fit it are rejects; none becomes the header instead."""
    place.write_text("a\n1,2,3\n4,5,6\n7,8,9\n", encoding="utf-8")
    rows, rejects = read_all(place)
    assert (rows, codes(rejects)) == ([], ["too_many_fields"] * 3)


def test_records_that_all_end_with_a_delimiter_are_read(place: Path) -> None:
    """The empty field after it is none, and the user is told."""
    place.write_text("a,b\n1,2,\n3,4,\n", encoding="utf-8")
    assert read_all(place) == ([{"a": 1, "b": 2}, {"a": 3, "b": 4}], [])
    assert "the delimiter at the end of each record is dropped" in notes_of(place)


def test_a_header_with_quotes_out_of_order_is_read_as_it_stands(place: Path) -> None:
    """Its records are not lost for that."""
    place.write_text('"a,b\n1,"x"\n2,"y"\n', encoding="utf-8")
    assert read_all(place) == ([{'"a': 1, "b": "x"}, {'"a': 2, "b": "y"}], [])
    assert "quotes are out of order" in notes_of(place)


@pytest.mark.parametrize("row", ['3,"z', '3,"z" w', '3, "z, w"', '3,"z \\"w"'])
def test_one_odd_row_does_not_change_how_all_others_are_read(place: Path, row: str) -> None:
    """Quotes stay quotes, spaces stay spaces."""
    lines = ['1,"x"', "2, y", '5,"c"', '6,"d"', '7,"e, f"', "8,'g'", "9,h", "10,i", "11,j", "12,k"]
    place.write_text("\n".join(["a,b", *lines, row, ""]), encoding="utf-8")
    rows, rejects = read_all(place)
    assert [found["b"] for found in rows][:6] == ["x", " y", "c", "d", "e, f", "'g'"]
    assert len(rows) + len(rejects) == 11


def test_without_a_header_most_records_say_how_many_columns_there_are(place: Path) -> None:
    """The first record may be the odd one."""
    place.write_text("1\n2,x\n3,y\n", encoding="utf-8")
    rows, rejects = read_all(place, header=False)
    assert rows == [{"column_1": 2, "column_2": "x"}, {"column_1": 3, "column_2": "y"}]
    assert codes(rejects) == ["too_few_fields"]


def test_decimal_commas_are_no_delimiters(place: Path) -> None:
    """Where both fit, what makes more numbers is the delimiter."""
    place.write_text("1,5;2,5\n3,0;4,0\n", encoding="utf-8")
    rows, _ = read_all(place, header=False)
    assert rows[0] == {"column_1": 1.5, "column_2": 2.5}


def test_a_delimiter_may_be_given_with_a_space(place: Path) -> None:
    """Then spaces around all fields are dropped."""
    place.write_text('a, b\n1, x\n2, "y, z"\n', encoding="utf-8")
    rows, _ = read_all(place, delimiter=", ")
    assert rows == [{"a": 1, "b": "x"}, {"a": 2, "b": "y, z"}]


def test_footers_are_rejected_with_their_count(place: Path) -> None:
    """They are no silent loss."""
    place.write_text("a,b\n1,2\nTotal: 1\n", encoding="utf-8")
    rows, rejects = read_all(place)
    assert (rows, codes(rejects)) == ([{"a": 1, "b": 2}], ["too_few_fields"])
    assert rejects[0].errors[0].message == "1 field where the header has 2"


def test_lines_are_numbered_whatever_ends_them(place: Path) -> None:
    """CR, LF and CRLF are one end each, inside of quotes, too."""
    place.write_bytes(b'a,b\r1,"x\ry"\r\n2\n3,"p\nq"\r4\r')
    _, rejects = read_all(place)
    assert [reject.line for reject in rejects] == [4, 7]
    assert [reject.raw for reject in rejects] == [b"2", b"4"]


def test_ten_thousand_columns(place: Path) -> None:
    """A header that is wider than what is looked at first is read all the same."""
    names = [f"column{at}" for at in range(10_000)]
    place.write_text(",".join(names) + "\n" + ",".join("1" * 10_000) + "\n", encoding="utf-8")
    rows, rejects = read_all(place)
    assert (rows, rejects) == ([dict.fromkeys(names, 1)], [])


def test_names_are_told_apart(place: Path) -> None:
    """From each other, and from the column that keeps what has no column."""
    place.write_text("a,a,,a_2,_extra,a\n1,2,3,4,5,6\n", encoding="utf-8")
    names = ["a", "a_3", "column_3", "a_2", "_extra_2", "a_4"]
    assert read_all(place) == ([dict(zip(names, range(1, 7), strict=True))], [])
    assert "field 5 of the header, '_extra', is called _extra_2" in notes_of(place)
    place.write_text(",".join(["x"] * 3000) + "\n", encoding="utf-8")
    assert notes_of(place).endswith("… and 2994 more such fields")
