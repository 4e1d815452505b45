"""How a delimited file is written is guessed as a careful person does, and read alike at every size."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchimport.errors import UsageError
from batchimport.jobs.start import infer
from batchimport.model import SourceOptions
from batchimport.schema import RecordSchema
from batchimport.sources.detect import check_is_meant
from batchimport.sources.opening import open_source
from tests.helpers.outcomes import assert_one_outcome
from tests.helpers.properties import tried
from tests.helpers.reading import Rows, codes, read_all


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guess") / "records.csv"


def notes_of(place: Path, **options: Any) -> str:
    source = open_source([str(place)], SourceOptions(**options))
    source.close()
    return "; ".join(source.notes)


def a_file(seed: int) -> tuple[bytes, SourceOptions]:
    """Return a delimited file of some dialect, with padding, quotes and raggedness here and there.

    Half of the files are odd in some other way, too: an option, comments, other line ends, blank lines, a
    header again, bytes that are not UTF-8, another encoding.
    """
    rng = random.Random(seed)
    delimiter = rng.choice([",", ",", ";", "\t", "|"])
    width, rows = rng.randint(1, 4), rng.randint(1, 12)
    odd = rng.choice([0.0, 0.05, 0.2, 0.5])
    texts = [
        "x",
        "y z",
        "5",
        "-1.5",
        "",
        '5"',
        "it's",
        f"p{delimiter} q",
        'say "hi"',
        "\u00e9",
        "a\nb",
    ]
    quoting = rng.random()
    if rng.random() < 0.4:  # columns of numbers, some of them missing
        texts = ["5", " 7", ".5", "-1.5", "0.10000000000000001", "12", "3", "1e3", "NA", "-", "  "]

    def cell() -> str:
        text = rng.choice(texts)
        if rng.random() < odd:
            return rng.choice(
                [f' "{text}"', f'"{text}" ', f'"{text}', f'{text}"', f" {text}", f"{text} "]
            )
        if any(mark in text for mark in (delimiter, '"', "\n")) or rng.random() < quoting:
            text = text.replace('"', '""')
            return f'"{text}"'
        return text

    def line() -> str:
        fields = width + (rng.choice([-1, 1]) if rng.random() < odd / 4 else 0)
        between = delimiter + rng.choice(["", " "]) * (rng.random() < odd)
        return between.join(cell() for _ in range(fields))

    extra, options = "", SourceOptions()
    is_odder = rng.random() < 0.5
    if is_odder:
        texts += rng.choice(ODDER_TEXTS)
        extra, options = rng.choice(ODDER_LINES)
    header = delimiter.join(f"n{at}" for at in range(width))
    lines = [header, *(line() for _ in range(rows))]
    if is_odder and rng.random() < 0.5:
        lines.insert(rng.randint(0, len(lines)), extra or rng.choice(["", header, " ", delimiter]))
    ends = ["\n", "\r\n", "\r"] if is_odder else ["\n", "\r\n"]
    text = rng.choice(ends).join(lines) + rng.choice(["", "\n"])
    if is_odder and rng.random() < 0.2:
        text = text.replace("\n", "\r\n", rng.randint(1, 3))
    encoding = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]) if is_odder else "utf-8"
    data = text.encode(encoding)
    if is_odder and rng.random() < 0.1 and encoding == "utf-8":
        at = rng.randint(len(header), len(data))
        data = data[:at] + b"\xff" + data[at:]
    return data, options


ODDER_TEXTS: list[list[str]] = [
    [],
    ["NULL", "\\N", "null"],
    ["31.12.2023", "01.02.2024", "2024-01-05"],
    ["1.234,5", "1,5", "1,234", "12.5"],
    ["a\\,b", 'a\\"b', "\\"],
    ["true", "FALSE", "0", "1"],
    ["'a'", "'a, b'", "it''s"],
    ["a\rb", "\u00a05", "\t", "\x01", "x^"],
    ["# c", "#"],
    ["12345678901234567890", "1e999", "007", "0.1", "-0"],
]
ODDER_LINES: list[tuple[str, SourceOptions]] = [
    ("", SourceOptions()),
    ("", SourceOptions()),
    ("# a comment", SourceOptions(comment="#")),
    ('# a "comment', SourceOptions(comment="#")),
    ("# a title", SourceOptions()),
    ("", SourceOptions(ragged="pad")),
    ("", SourceOptions(null_string=("NA", "x"))),
    ("", SourceOptions(null_string=("", "-", "NULL"))),
    ("", SourceOptions(quote="")),
    ("", SourceOptions(header=False)),
    ("", SourceOptions(decimal=",")),
    ("", SourceOptions(max_record_bytes=12)),
    ("", SourceOptions(types=("n0=string",))),
    ("", SourceOptions(types=("n0=integer",), ragged="pad")),
]


def check(place: Path, seed: int, most: int | None = None) -> None:
    """Check that a file has one outcome; what is refused has none."""
    data, options = a_file(seed)
    place.write_bytes(data)
    try:
        source = open_source([str(place)], options)
        schema = RecordSchema(infer(source, None, options).document, inferred=True)
    except UsageError:
        return
    with closing(source):
        assert_one_outcome(source, schema, most=most, seed=seed)


@tried(120)
@given(seed=st.integers(0, 2**32))
@example(seed=8009311)  # the names of its header are all empty, and so is its last record
def test_a_file_has_one_outcome(place: Path, seed: int) -> None:
    """Random quoting, padding, raggedness and oddities: the chunk size decides nothing."""
    check(place, seed)


ABC: Rows = [{"a": 1, "b": "x", "c": 5}, {"a": 2, "b": "y z", "c": 6}]


@pytest.mark.parametrize(
    "text",
    [
        "a, b, c\n1, x, 5\n2, y z, 6\n",
        "a,b,c\n1, x, 5\n2, y z, 6\n",
        "a ,b ,c\n1 ,x ,5\n2 ,y z ,6\n",
        "a | b | c\n1 | x | 5\n2 | y z | 6\n",
        "a: b: c\n1: x: 5\n2: y z: 6\n",
        'a, b, c\n1, "x", 5\n2, "y z", 6\n',
        "a,   b,       c\n1,   x,       5\n2,   y z,     6\n",
    ],
)
def test_spaces_around_delimiters_are_padding(place: Path, text: str) -> None:
    """They are no delimiter while another one fits, no part of texts, and numbers are numbers."""
    place.write_text(text, encoding="utf-8")
    assert read_all(place) == (ABC, [])
    assert "spaces around fields are dropped" in notes_of(place)


def test_a_quote_after_padding_opens_a_field_at_every_chunk_size(place: Path) -> None:
    """Polars reads a quote in the middle of a field as one that opens; it is not asked."""
    row = '1,"z",3\n'
    place.write_text(f'a,b,c\n{row * 10}"7", "x, y",4\n{row * 10}', encoding="utf-8")
    for limit in (1, 5, 1000):
        rows, rejects = read_all(place, limit=limit)
        assert rows[10] == {"a": 7, "b": "x, y", "c": 4}
        assert not rejects
    place.write_text(f'a,b,c\n1, z,3\n{row * 10}"7", "x, y",4\n{row * 10}', encoding="utf-8")
    for limit in (1, 5, 1000):
        rows, rejects = read_all(place, limit=limit)
        assert (rows[0]["b"], codes(rejects)) == (" z", ["too_many_fields"])


def test_quotes_that_enclose_nothing_are_text(place: Path) -> None:
    """A file of tabs may not know of quotes; one odd row among many says nothing else."""
    titles = ['"Heroes"', "Abc", '"Heroes" live', '"lone', 'z "x"']
    place.write_text(
        "n\ttitle\n" + "".join(f"{at}\t{t}\n" for at, t in enumerate(titles)), encoding="utf-8"
    )
    rows, rejects = read_all(place)
    assert ([row["title"] for row in rows], rejects) == (titles, [])
    assert "quotes are text" in notes_of(place)
    assert len(read_all(place, quote='"')[1]) == 2
    for delimiter in "\t,":
        place.write_text(
            f"n{delimiter}t\n" + f'1{delimiter}"x{delimiter}y"\n' * 9 + f'2{delimiter}"z\n',
            encoding="utf-8",
        )
        rows, rejects = read_all(place)
        assert (rows[0]["t"], codes(rejects)) == (f"x{delimiter}y", ["unclosed_quote"])


PENS: Rows = [
    {"name": n, "qty": q, "price": p}
    for n, q, p in (("pen", 2, 1.5), ("cup", 3, 2.5), ("pot", 4, 0.5))
]
BODY = "pen,2,1.5\ncup,3,2.5\npot,4,0.5\n"


@pytest.mark.parametrize(
    ("text", "note", "names"),
    [
        ("Invoices June,,,\n,,,\nname,qty,price,\n" + BODY.replace("\n", ",\n"), "not part of the table: 2", "name qty price"),
        ("# made by x\n# on y, by z\nname,qty,price\n" + BODY, "not part of the table: 2", "name qty price"),
        ("name,qty\n" + BODY, "the header has 2", "name qty column_3"),
        ("name,qty,price,x\n" + BODY, "the header has 4", "name qty price"),
        ("name,qty,price\n,(pcs),(EUR)\n" + BODY, "in two lines", "name|qty (pcs)|price (EUR)"),
        (",Order,\nname,qty,price\n" + BODY, "not part of the table: 1", "name qty price"),
        ("Report, of June\nname,qty,price\n" + BODY, "not part of the table: 1", "name qty price"),
        ("Sums, of June, in EUR\n\nname,qty,price\n" + BODY, "not part of the table: 2", "name qty price"),
        ("A title\nof two lines\n" + "name,qty,price\n".replace(",", ";") + BODY.replace(",", ";"), "not part of the table: 2", "name qty price"),
    ],
)  # fmt: skip
def test_the_header_is_found(place: Path, text: str, note: str, names: str) -> None:
    """Titles with empty cells, comments, damaged headers, units below the names."""
    place.write_text(text, encoding="utf-8")
    wanted = names.split("|") if "|" in names else names.split()
    rows, rejects = read_all(place)
    assert rows == [dict(zip(wanted, row.values(), strict=True)) for row in PENS]
    assert not rejects
    assert note in notes_of(place)


def test_comments_may_be_above_a_table_of_two_columns(place: Path) -> None:
    """A header that begins with a hash is a header."""
    place.write_text("# by x\nname,qty\nAnn,5\nBob,6\nCid,7\n", encoding="utf-8")
    assert read_all(place)[0][0] == {"name": "Ann", "qty": 5}
    place.write_text("#name,qty\nAnn,5\nBob,6\nCid,7\n", encoding="utf-8")
    assert read_all(place)[0][0] == {"#name": "Ann", "qty": 5}


def test_units_may_lack_above_numbers(place: Path) -> None:
    """A number has no unit if it only counts the rows."""
    place.write_text("n,kg,m\n,(kg),(m)\n1,5,1\n2,6,2\n", encoding="utf-8")
    assert read_all(place)[0][0] == {"n": 1, "kg (kg)": 5, "m (m)": 1}
    place.write_text("n,kg\n'1','5'\n2,6\n3,7\n", encoding="utf-8")
    assert read_all(place)[0][0] == {"n": "'1'", "kg": "'5'"}


def test_the_first_of_two_tables_is_no_preamble(place: Path) -> None:
    """However much longer the lines of the second one are."""
    long = "".join(f"{at},y,{at},some more text,a date,a place\n" for at in range(9))
    for first, rest in (
        ("id,name,city\n1,Ann,Rome\n2,Bob,Oslo\n", ",Rome"),
        ("id,name\n1,Ann\n2,Bob\n", ""),
    ):
        place.write_text(f"{first}\nk,a,b,c,d,e\n{long}", encoding="utf-8")
        rows, rejects = read_all(place)
        assert (rows[0], len(rows), len(rejects)) == (
            {"id": 1, "name": "Ann", **({"city": "Rome"} if rest else {})},
            2,
            10,
        )


@pytest.mark.parametrize("rows", ["1,x\n2,y\na,b\n3,z\n", "p,x\nq,y\na,b\nr,z\n"])
def test_a_repeated_header_is_no_record(place: Path, rows: str) -> None:
    """Concatenated files have one; the columns keep their types, and the line is a reject."""
    place.write_text("a,b\n" + rows, encoding="utf-8")
    for limit in (1, 1000):
        found, rejects = read_all(place, limit=limit)
        assert ([row["b"] for row in found], codes(rejects)) == (
            ["x", "y", "z"],
            ["repeated_header"],
        )


def test_a_file_without_a_header_keeps_its_first_record(place: Path) -> None:
    """Where that is certain; else it is said, with the option. Years are names."""
    place.write_text("1,6370,371\n2,6371,372\n3,6372,375\n", encoding="utf-8")
    rows, _ = read_all(place)
    assert rows[0] == {"column_1": 1, "column_2": 6370, "column_3": 371}
    assert "--header" in notes_of(place)
    assert len(read_all(place, has_header=True)[0]) == 2
    place.write_text("1,Ann,5\n1,Ann,5\n3,Cid,7\n", encoding="utf-8")
    assert len(read_all(place)[0]) == 2
    assert "--no-header" in notes_of(place)
    place.write_text("Ann,Rome,x\nBob,Rome,z\nAnn,Oslo,y\n", encoding="utf-8")
    assert "--no-header" in notes_of(place)
    place.write_text("name,type\nid,int\nname,text\n", encoding="utf-8")
    assert "header" not in notes_of(place)
    place.write_text("Ann,31.12.2023,x\nBob,01.01.2024,z\nCid,05.01.2024,y\n", encoding="utf-8")
    assert (len(read_all(place)[0]), "no header" in notes_of(place)) == (3, True)
    place.write_text("stop,08:00,09:00\na,08:05,09:05\nb,08:10,09:10\n", encoding="utf-8")
    assert len(read_all(place)[0]) == 2
    place.write_text("2019,2020,2021\n5,16,7\n8,19,10\n", encoding="utf-8")
    assert read_all(place)[0][0] == {"2019": 5, "2020": 16, "2021": 7}
    assert "header" not in notes_of(place)


@pytest.mark.parametrize("limit", [1, 1000])
@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ([".5", "-.5", "+2.5", "1.", "7"], [0.5, -0.5, 2.5, 1.0, 7.0]),
        (["  5", " 15", "115"], [5, 15, 115]),
        (["0.10000000000000001", "33.299999999999997", "1"], [0.1, 33.3, 1.0]),
        (["0.12345678901234567890", "1.5", "2"], ["0.12345678901234567890", "1.5", "2"]),
        (["9007199254740992.5", "1.5"], ["9007199254740992.5", "1.5"]),
        (["5", "NA", "7", "8", "   "], [5, None, 7, 8, None]),
        (["5.5", "-", "nan", "8", "9"], [5.5, None, None, 8.0, 9.0]),
        (["NA", "DE", "FR"], ["NA", "DE", "FR"]),
        (["NA", "-", "1"], ["NA", "-", "1"]),
        (["1", "-", "3", "1e3", "5"], ["1", "-", "3", "1e3", "5"]),
    ],
)
def test_numbers_are_read_as_people_write_them(
    place: Path, cells: list[str], values: list[Any], limit: int
) -> None:
    """Digits that a double keeps; what stands for a missing number, where nothing else can be meant."""
    place.write_text("n,v\n" + "".join(f"k,{cell}\n" for cell in cells), encoding="utf-8")
    rows, rejects = read_all(place, limit=limit)
    assert ([row.get("v") for row in rows], rejects) == (values, [])


@pytest.mark.parametrize("limit", [1, 1000])
def test_several_cells_may_mean_null(place: Path, limit: int) -> None:
    """An empty one only if it is among them; in quotes they are text."""
    place.write_text('a,b\n5,x\nNA,"NA"\nnone,\n8,z\n', encoding="utf-8")
    rows, _ = read_all(place, limit=limit, null_string=("NA", "none"))
    assert rows == [{"a": 5, "b": "x"}, {"b": "NA"}, {"b": ""}, {"a": 8, "b": "z"}]
    rows, _ = read_all(place, limit=limit, null_string=("NA", "none", ""))
    assert rows[2] == {}


def test_a_quote_in_a_comment_opens_nothing(place: Path) -> None:
    """What follows the comment is a record, also where both together look like one."""
    place.write_text('a,b\np,x\n#,"y\nz"\nq,#x\n', encoding="utf-8")
    for limit in (1, 2, 1000):
        rows, rejects = read_all(place, limit=limit, comment="#")
        assert (rows, codes(rejects)) == (
            [{"a": "p", "b": "x"}, {"a": "q", "b": "#x"}],
            ["too_few_fields"],
        )


def test_a_comment_above_the_header_may_be_any_bytes(place: Path) -> None:
    """Only the names must be valid text."""
    place.write_bytes(b"# caf\xe9\na,b\n1,\xc3\xa9\n2,y\n")
    rows, rejects = read_all(place, comment="#", encoding="utf-8")
    assert (rows, rejects) == ([{"a": 1, "b": "\u00e9"}, {"a": 2, "b": "y"}], [])


TABLE = "id,name,v\n" + "".join(f"{at},n{at},{at}.5\n" for at in range(8))
TAKEN = {"id": 3, "name": "n3", "v": 3.5}


def inferred_notes(place: Path, **options: Any) -> str:
    """Return what is said about the records of a file."""
    given = SourceOptions(**options)
    with closing(open_source([str(place)], given)) as source:
        return "; ".join(infer(source, None, given).notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TABLE + ",,\n" * 4, "without any value: 4 of 12 (they are stored; --sql 'SELECT * FROM records WHERE \"id\" IS NOT NULL'"),
        (TABLE + ",,\nSource: x,,\n", "at the end with nothing but a first value, as footnotes have: 1, such as 'Source: x' (they are stored; --sql 'SELECT * FROM records WHERE \"name\" IS"),
        ("id,city\n1,Rome\n2,\\N\n", "column city: '\\\\N' is text (--null-string"),
        ("id,name,v\n,,kg\n" + TABLE.partition("\n")[2], "of numbers, as units are (v 'kg'): --type v=number makes it a reject"),
    ],
)  # fmt: skip
def test_rows_that_are_stored_but_may_not_be_meant_are_said(
    place: Path, text: str, said: str
) -> None:
    """Rows of delimiters, padded footnotes, markers in a column of words; clean files say nothing."""
    place.write_text(text, encoding="utf-8")
    assert said in inferred_notes(place)
    place.write_text(TABLE, encoding="utf-8")
    assert not inferred_notes(place)
    place.write_text("id,x\n" + "n,1\nm,\n" * 3 + "o,\n" + "n,1\n" * 9 + "7,\n", encoding="utf-8")
    assert not inferred_notes(place)
    place.write_text("id,name,v\n", encoding="utf-8")
    assert not inferred_notes(place)
    place.write_text("id,v\n1,\n2,7\n3,8\n4,9\n5,true\n", encoding="utf-8")
    assert "as units are" not in inferred_notes(place)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (TABLE.replace("\n", "\n--,----,---\n", 1), "line of dashes"),
        ("| id | name | v |\n|---|:--:|--:|\n" + "".join(f"| {at} | n{at} | {at}.5 |\n" for at in range(8)), "line of dashes"),
        (TABLE.replace(",", "::"), "delimiter: '::'"),
        (TABLE.replace(",", "§"), "delimiter: '§'"),
        (TABLE.replace(",", "|~|"), "delimiter: '|~|'"),
        (TABLE.replace(",", "~|~"), "delimiter: '~|~'"),
        (TABLE.replace(",", "<>"), "delimiter: '<>'"),
        (TABLE.replace(",", "||"), "delimiter: '||'"),
        (TABLE.replace(",", "§§"), "delimiter: '§§'"),
        ("sep=;\n" + TABLE, "delimiter: comma"),
        ("A long title, with commas, in it.\n" + TABLE, "not part of the table: 1"),
        ("\ufeff\ufeff" + TABLE.replace("name", "\u200bname\u200b"), ""),
    ],
)  # fmt: skip
def test_a_table_is_read_in_spite_of_its_dress(place: Path, text: str, note: str) -> None:
    """Rules below names, rare delimiters, a wrong `sep=`, a sentence above, names with unseen padding."""
    place.write_text(text, encoding="utf-8")
    rows, rejects = read_all(place)
    assert (TAKEN in rows, len(rows), rejects) == (True, 8, [])
    assert note in notes_of(place)


def test_signs_around_a_delimiter_may_be_of_the_fields(place: Path) -> None:
    """Brackets, currencies, missing values and paths are no part of a delimiter."""
    for text, names in (
        ("[a],[b]\n[1],[2]\n[3],[4]\n", ["[a]", "[b]"]),
        ("a$,b$,c\n1$,2$,3\n4$,5$,6\n", ["a$", "b$", "c"]),
        ("1,-,2\n3,-,4\n5,-,6\n", ["1", "-", "2"]),
        ("a|b|c\n1|~|2\n1|~|3\n", ["a", "b", "c"]),
        ("//a//b\n//c//d\n//c//e\n", ["//a//b"]),
    ):
        place.write_text(text, encoding="utf-8")
        source = open_source([str(place)], SourceOptions())
        source.close()
        assert list(source.headers.values()) == [names]


@pytest.mark.parametrize("limit", [1, 1000])
def test_the_header_of_an_appended_file_is_no_record(place: Path, limit: int) -> None:
    """Each file that was appended begins with its own byte order mark."""
    for header in ('"id","name","v"\n', "id,name,v\n"):
        place.write_text(TABLE + "\ufeff" + header + "9,x,9.5\n", encoding="utf-8")
        rows, rejects = read_all(place, limit=limit)
        assert (rows[-1]["id"], codes(rejects)) == (9, ["repeated_header"])


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ('id,doc,v\n1,{"a": 1, "b": 2},3\n2,{"a": 1, "b": 2},3\n3,{"a": 1, "b": 2},3\n', "most records have 4 fields"),
        ("http://a.org\nhttp://b.org\nhttp://c.org\n", "one column"),
        ("std::a\nstd::b\nstd::c\n", "one column"),
        ("A,b,c\nid,name,v\n1,x,2\n2,y,3\n3,z,4\n", "--skip-lines 1"),
        ("1\tx\t\\N\n2\ty\tz\n\\.\n", "--format copy"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_said(place: Path, text: str, note: str) -> None:
    """No header is lost to a delimiter that only seems to fit; doubts name the option."""
    place.write_text(text, encoding="utf-8")
    assert note in notes_of(place)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("BEGIN:VCARD\nVERSION:3.0\nFN:Ann\nEND:VCARD\n", "a vCard"),
        ("; made by x\n[main]\na=1\nb=2\n", "an INI"),
        ("--- a/x.csv\n+++ b/x.csv\n@@ -1,2 +1,2 @@\n", "a patch"),
        ("<table border=1>\n<tr><td>1,2\n", "an HTML page"),
        ("-----BEGIN CERTIFICATE-----\nMIIB,\n", "a key"),
        ('\x1e{"id": 1}\n', "JSON"),
    ],
)
def test_what_is_no_table_is_refused(place: Path, text: str, name: str) -> None:
    """By how it begins."""
    with pytest.raises(UsageError, match=f"is {name}"):
        check_is_meant(place.name, "csv", text.encode())


def test_too_many_lines_skipped_are_noticed(place: Path) -> None:
    """A record is lost to the names then; an explicit header is not doubted."""
    place.write_text(TABLE, encoding="utf-8")
    assert "looks like data" in notes_of(place, skip_lines=3)
    assert "looks like data" not in notes_of(place, skip_lines=0)
    assert "looks like data" not in notes_of(place, skip_lines=3, has_header=True)


def test_a_footnote_below_a_long_table_is_said(place: Path) -> None:
    """Types are inferred from records that are spread over the file, and its end is not among them."""
    rows = "".join(f"{at},{'x' * 200},{at}\n" for at in range(21_000))
    for end, said in (
        ("Source: x,,\n", "'Source: x'"),
        (",,\n,,\n", "without any value: 2"),
        ("", ""),
    ):
        place.write_text("id,name,v\n" + rows + end, encoding="utf-8")
        assert ("at the end" in notes_of(place)) == bool(end)
        assert said in notes_of(place)
