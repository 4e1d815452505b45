"""Compressed text, and text in other encodings: the same records as when it is plain."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import re
import sys
import threading
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchimport.errors import BatchImportError, FatalError, UsageError
from batchimport.model import SourceOptions
from batchimport.sources.bytes import unpack
from batchimport.sources.bytes.file import BLOCK_BYTES, TextFile
from batchimport.sources.bytes.unpack import UnpackedFile, open_text
from batchimport.sources.opening import open_source
from tests.helpers.properties import tried
from tests.helpers.reading import codes, read_all

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
SUFFIX = {"gzip": ".gz", "zstd": ".zst", "bz2": ".bz2", "xz": ".xz"}
JSONL = b'{"id": 1, "s": "a"}\n{"id": 2, "s": "\xc3\xa9"}\n\n{"id": "x"}\n{"id": 3, "s": null}'
SCHEMA: dict[str, Any] = {
    "properties": {"id": {"type": "integer"}, "s": {"type": ["string", "null"]}}
}


def notes_of(place: Path, **options: Any) -> str:
    source = open_source([str(place)], SourceOptions(**options))
    source.close()
    return "; ".join(source.notes)


@pytest.mark.parametrize("kind", PACK)
def test_compressed_lines_give_the_same_rows(tmp_path: Path, kind: str) -> None:
    """By content, whatever the name; in several members, with zeros behind the last one."""
    plain = tmp_path / "users.jsonl"
    plain.write_bytes(JSONL)
    expected = read_all(plain, SCHEMA)
    assert len(expected[0]) == 3
    packed = tmp_path / f"users.jsonl{SUFFIX[kind]}"
    packed.write_bytes(b"".join(PACK[kind](JSONL[at : at + 20]) for at in range(0, len(JSONL), 20)))
    rows, rejects = read_all(packed, SCHEMA)
    assert rows == expected[0]
    assert [reject.byte_offset for reject in rejects] == [r.byte_offset for r in expected[1]]
    assert f"compression: {kind}" in notes_of(packed)
    misnamed = tmp_path / "users.jsonl.data"
    misnamed.write_bytes(PACK[kind](JSONL))
    assert read_all(misnamed, SCHEMA, limit=1, max_bytes=5, format="jsonl")[0] == expected[0]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("damage", ["truncated", "changed", "followed"])
def test_a_damaged_archive_is_refused(tmp_path: Path, kind: str, damage: str) -> None:
    """Before anything is imported, in one line that says where."""
    noise = random.Random(1).randbytes(3000).hex().encode()
    data = PACK[kind](b'{"s": "' + noise + b'"}\n' + JSONL)
    middle = len(data) // 2
    place = tmp_path / f"users.jsonl{SUFFIX[kind]}"
    place.write_bytes(
        {
            "truncated": data[:-30],
            "changed": data[:middle] + bytes([data[middle] ^ 0xFF]) * 8 + data[middle + 8 :],
            "followed": data + b"and more that is no archive",
        }[damage]
    )
    if (kind, damage) == ("zstd", "changed"):
        place.write_bytes(data[:4] + b"\xff" * 8 + data[12:])
    with pytest.raises(FatalError, match=r"too soon|damaged"):
        read_all(place, SCHEMA)


def test_an_archive_of_another_kind_than_was_said(tmp_path: Path) -> None:
    """It is an error; with `none` the bytes are taken as they are."""
    place = tmp_path / "users.jsonl.gz"
    place.write_bytes(gzip.compress(JSONL))
    with pytest.raises(FatalError):
        read_all(place, SCHEMA, compression="xz")
    assert not read_all(place, SCHEMA, compression="none")[0]
    place.write_bytes(JSONL)
    assert len(read_all(place, SCHEMA)[0]) == 3


@pytest.mark.parametrize("kind", PACK)
def test_an_archive_is_damaged_wherever_it_is_cut(tmp_path: Path, kind: str) -> None:
    """Also within its first bytes, or before them; one of nothing that is whole is an empty source."""
    place = tmp_path / f"users.csv{SUFFIX[kind]}"
    data = PACK[kind](b"")
    for size in range(len(data)):
        place.write_bytes(data[:size])
        with pytest.raises(FatalError, match=r"too soon|is empty"):
            open_source([str(place)], SourceOptions())
    place.write_bytes(data)
    assert read_all(place, SCHEMA) == ([], [])
    place.write_bytes(b"")
    assert read_all(place, SCHEMA, compression="none") == ([], [])
    with pytest.raises(FatalError, match="too soon"):
        open_source([str(place)], SourceOptions(compression=kind))


def test_what_has_the_name_of_an_archive(tmp_path: Path) -> None:
    """A text is read as one, what is neither is refused; pzstd begins a file with a frame of its own."""
    for name, data in (
        ("a.zip", b"PK"),
        ("a.tar.gz", b"\x1f"),
        ("a.tar", b""),
        ("a.gz", bytes(99)),
    ):
        place = tmp_path / name
        place.write_bytes(data)
        with pytest.raises(FatalError, match=r"too soon|is empty|not text"):
            open_source([str(place)], SourceOptions())
    place.write_bytes("id,s\n1,é\n".encode())
    assert read_all(place, SCHEMA)[0] == [{"id": 1, "s": "é"}]
    place = tmp_path / "users.jsonl"
    place.write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0size" + PACK["zstd"](JSONL))
    assert len(read_all(place, SCHEMA)[0]) == 3


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that unpacks out of all proportion, in bounded memory."""
    monkeypatch.setattr(unpack, "EXPANSION_COUNTS_AFTER", 1 << 22)
    place = tmp_path / "users.jsonl.gz"
    packer = zlib.compressobj(9, wbits=31)
    place.write_bytes(
        b"".join(packer.compress(b"x" * (1 << 20)) for _ in range(8)) + packer.flush()
    )
    with pytest.raises(UsageError, match="500 times"):
        read_all(place, SCHEMA)


def test_a_long_line_in_an_archive_is_one_reject(tmp_path: Path) -> None:
    """It is passed piece by piece; its neighbours are stored."""
    place = tmp_path / "users.jsonl.gz"
    place.write_bytes(
        gzip.compress(b'{"id": 1}\n' + b"\n".join([b"x" * (5 << 20), b'{"id": 2}\n']))
    )
    rows, rejects = read_all(place, SCHEMA, max_record_bytes=1000)
    assert [row["id"] for row in rows] == [1, 2]
    assert codes(rejects) == ["record_too_long"]


def test_any_place_can_be_read_by_many_at_once(tmp_path: Path) -> None:
    """Each thread gets the bytes of the unpacked text."""
    data = random.Random(2).randbytes(9 * BLOCK_BYTES + 17)
    place = tmp_path / "noise.zst"
    place.write_bytes(zstd.compress(data, 1))
    text = open_text(TextFile(str(place)), SourceOptions(encoding="utf-8"), "csv")
    assert isinstance(text, UnpackedFile)
    wrong: list[int] = []

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            at, count = chance.randrange(len(data) + 9), chance.randrange(2 * BLOCK_BYTES)
            if text.read_at(at, count) != data[at : at + count]:
                wrong.append(at)
        if b"".join(text.blocks(BLOCK_BYTES - 1)) != data[BLOCK_BYTES - 1 :]:
            wrong.append(-1)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, text.size) == ([], len(data))
    text.close()


def test_an_archive_is_unpacked_into_the_folder_without_a_trace(tmp_path: Path) -> None:
    """The file has no name, so that even a killed process leaves nothing."""
    place, folder = tmp_path / "users.jsonl.gz", tmp_path / "state" / "spool"
    place.write_bytes(gzip.compress(JSONL))
    text = open_text(TextFile(str(place)), SourceOptions(), "jsonl", folder)
    assert (text.read_at(0, 1000), list(folder.iterdir())) == (JSONL, [])
    text.close()


def test_no_room_to_unpack_is_an_error_that_says_where(tmp_path: Path) -> None:
    """Before anything is imported."""
    place = tmp_path / "users.jsonl.gz"
    place.write_bytes(gzip.compress(JSONL))
    with pytest.raises(FatalError, match=r"cannot be unpacked into .*users\.jsonl\.gz/spool"):
        open_text(TextFile(str(place)), SourceOptions(), "jsonl", place / "spool")


TEXT = "id;name\r\n1;Zoë Müller\r\n2;“quoted” · 5 €\r\n3;à la carte\r\n"
ROWS = [
    {"id": 1, "name": "Zoë Müller"},
    {"id": 2, "name": "“quoted” · 5 €"},
    {"id": 3, "name": "à la carte"},
]


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("utf-32-le", "utf-32-le"),
        ("utf-32-be", "utf-32-be"),
        ("windows-1252", "windows-1252"),
    ],
)
def test_the_encoding_is_found_and_can_be_said(tmp_path: Path, encoding: str, note: str) -> None:
    """Both ways give the same rows, at every chunk size."""
    place = tmp_path / "names.csv"
    place.write_bytes(TEXT.encode(encoding))
    assert read_all(place) == (ROWS, [])
    assert read_all(place, limit=1, max_bytes=3, encoding=encoding) == (ROWS, [])
    assert (f"encoding: {note}" if note else "delimiter") in notes_of(place)
    assert ("encoding" in notes_of(place)) == bool(note)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_json_lines_in_utf_16(tmp_path: Path, encoding: str) -> None:
    """Found with and without a byte order mark, compressed or not."""
    place = tmp_path / "users.jsonl"
    for pack in (bytes, gzip.compress):
        place.write_bytes(pack(JSONL.decode().encode(encoding)))
        rows, rejects = read_all(place, SCHEMA)
        assert [row["id"] for row in rows] == [1, 2, 3]
        assert (rejects[0].line, rejects[0].raw) == (4, b'{"id": "x"}')


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc3(", b"caf\xc3", b"\x81", b"\xc3\xa9 and caf\xe9", b"\xed\xa0\x80"]
)
def test_damaged_utf_8_stays_utf_8(tmp_path: Path, bad: bytes) -> None:
    """What no Western text has, or comes beside valid characters, costs its own record."""
    place = tmp_path / "names.csv"
    place.write_bytes(b"i,s\n1,a\n2," + bad + b"\n3,c\n")
    rows, rejects = read_all(place)
    assert rows == [{"i": 1, "s": "a"}, {"i": 3, "s": "c"}]
    assert (codes(rejects), rejects[0].raw) == (["invalid_utf8"], b"2," + bad)


@pytest.mark.parametrize(
    ("encoding", "names", "asked"),
    [
        ("windows-1254", "Şişli Kadıköy İstanbul Üsküdar", ["windows-1254", "windows-1252"]),  # noqa: RUF001 - Turkish
        ("windows-1254", "Kadıköy", ["windows-1254", "windows-1252"]),  # noqa: RUF001 - Turkish
        ("windows-1250", "Jiří Řehoř Dvořák Novák", ["windows-1250", "windows-1252"]),
        ("windows-1250", "Győr Székesfehérvár Pécs", ["windows-1250", "windows-1252"]),
        ("windows-1257", "Rīga Liepāja Jūrmala Cēsis", ["windows-1257", "windows-1252"]),
        ("windows-1250", "Łódź Wałęsa Kraków Gdańsk", ["windows-1250"]),
        ("windows-1251", "Москва Тула Самара Пермь", ["windows-1251"]),
        ("koi8-r", "Москва Тула Самара Пермь", ["koi8-r"]),
        ("windows-1252", "Þórður Guðrún Ásgeir Sæmundur", []),
        ("windows-1252", "mère garçon hôtel été Noël Müller Peña Sørensen Åse João Ações", []),
        ("windows-1252", "cœur sœur ŒUVRE œil été", []),
        ("windows-1252", "10_m² 5_€ nº_3 España", []),
    ],
)
def test_where_several_code_pages_are_plausible_the_user_is_asked(
    tmp_path: Path, encoding: str, names: str, asked: list[str]
) -> None:
    """With a line as each of them reads it; what only Western texts have is not asked about."""
    place, words = tmp_path / "names.csv", names.split()
    text = "i,s\n" + "".join(f"{at},{word}\n" for at, word in enumerate(words))
    place.write_bytes(text.encode(encoding))
    if not asked:
        assert [row["s"] for row in read_all(place)[0]] == words
        return
    with pytest.raises(UsageError) as caught:
        read_all(place)
    assert re.findall(r"([a-z0-9-]+) \('", str(caught.value)) == asked
    assert str(caught.value.hint) == f"say which: --encoding {asked[0]}"
    assert words[0] in str(caught.value)
    assert [row["s"] for row in read_all(place, encoding=encoding)[0]] == words


JAPANESE = "東京都千代田区 大阪府大阪市 山田太郎 これは日本語です カタカナ"
CHINESE = "北京市朝阳区 李明 王小红 这是一个中文测试 有限责任公司"
TRADITIONAL = "臺北市信義區 陳大文 林美麗 這是一個中文測試 資料庫設計"
KOREAN = "서울특별시 김철수 이영희 한국어시험입니다 데이터베이스"
RUSSIAN = "Москва Пётр Привет"


@pytest.mark.parametrize(
    ("encoding", "names", "asked"),
    [
        ("shift_jis", JAPANESE, "shift_jis"),
        ("cp932", JAPANESE + " 髙橋①", "cp932"),
        ("euc_jp", JAPANESE, "euc_jp"),
        ("gbk", CHINESE, "gbk"),
        ("gb18030", TRADITIONAL + " \u3402", "gb18030"),
        ("big5", TRADITIONAL, "big5"),
        ("euc_kr", KOREAN, "euc_kr"),
        ("utf-16-le", JAPANESE, "utf-16-le"),
        ("utf-16-be", JAPANESE, "utf-16-be"),
        ("utf-7", RUSSIAN, "utf-7"),
        ("hz", CHINESE, "hz"),
    ],
)
def test_text_of_several_bytes_a_character_is_asked_about(
    tmp_path: Path, encoding: str, names: str, asked: str
) -> None:
    """With a line as it would be read, the likeliest first; it is read as is said then."""
    place, words = tmp_path / "names.csv", names.split()
    text = "i,s\n" + "".join(f"{at},{word}\n" for at, word in enumerate(words))
    place.write_bytes(text.encode(encoding))
    with pytest.raises(UsageError, match=f"may be {asked}") as caught:
        read_all(place)
    assert f"--encoding {asked}" in str(caught.value.hint)
    assert asked == "hz" or words[0] in str(caught.value)
    assert [row["s"] for row in read_all(place, encoding=encoding)[0]] == words


@pytest.mark.parametrize(
    ("encoding", "given", "seen"),
    [
        ("utf-8", "utf-16", "utf-8"),
        ("utf-8", "utf-32-be", "utf-8"),
        ("windows-1252", "utf-16-le", "windows-1252"),
        ("utf-16", "utf-8", "utf-16"),
        ("utf-16-be", "ascii", "utf-16-be"),
        ("utf-16-le", "latin-1", "utf-16-le"),
        ("utf-16-le", "utf-16-be", "utf-16-le"),
        ("utf-16", "utf-16-be", "utf-16"),
        ("utf-32", "utf-16", "utf-32"),
    ],
)
def test_what_a_text_looks_like_is_said_if_another_encoding_is(
    tmp_path: Path, encoding: str, given: str, seen: str
) -> None:
    """Before a garbled row is stored; what may be meant is a note."""
    place = tmp_path / "names.csv"
    place.write_bytes(TEXT.encode(encoding))
    with pytest.raises(UsageError, match=f"is not {given}: it looks like {seen} \\('") as caught:
        read_all(place, encoding=given)
    assert str(caught.value.hint).startswith(f"--encoding {seen}, or leave")
    place.write_bytes(TEXT.encode())
    assert "iso8859-1 (the text is valid UTF-8, too)" in notes_of(place, encoding="latin-1")
    place.write_bytes("上海市".encode("utf-16-be"))  # no line end, and no zero
    assert notes_of(place, encoding="utf-16-be").startswith("encoding: utf-16-be;")


def test_a_mixture_and_damage_ask_no_question(tmp_path: Path) -> None:
    """Half of the lines in UTF-8, cut characters, phone numbers: each line by itself."""
    place = tmp_path / "names.csv"
    words = JAPANESE.split()
    both = [word.encode(way) for word in words for way in ("shift_jis", "utf-8", "utf-8")]
    place.write_bytes(b"s\n" + b"\n".join(both) + b"\n")
    rows, rejects = read_all(place)
    assert ([row["s"] for row in rows], len(rejects)) == (
        [w for w in words for _ in "12"],
        len(words),
    )
    place.write_bytes(b"s\n" + b"".join(word.encode()[:-1] + b"\n" for word in words))
    assert codes(read_all(place)[1]) == ["invalid_utf8"] * len(words)
    place.write_bytes(b"s,t\n" + b"".join(b"+12%d5551234,+49aB%d\n" % (at, at) for at in range(9)))
    assert read_all(place)[1] == []


@pytest.mark.parametrize(("encoding", "text"), [("iso2022_jp", "東京"), ("iso2022_kr", "서울")])
def test_seven_bits_may_be_no_ascii(tmp_path: Path, encoding: str, text: str) -> None:
    """Then all bytes are valid UTF-8, and the text is not."""
    place = tmp_path / "names.csv"
    place.write_bytes(f"i,s\n1,{text}\n".encode(encoding))
    with pytest.raises(UsageError) as caught:
        read_all(place)
    assert f"--encoding {encoding}" in str(caught.value.hint)
    assert read_all(place, encoding=encoding)[0] == [{"i": 1, "s": text}]


@pytest.mark.parametrize("encoding", ["windows-1251", "shift_jis", "cp850", "cp437"])
def test_what_is_no_western_text_is_not_taken_for_it(tmp_path: Path, encoding: str) -> None:
    """Its records are rejected until its encoding is named; then they are right."""
    name = {"windows-1251": "Привет", "shift_jis": "日本", "cp850": "fatigué", "cp437": "Köln"}[
        encoding
    ]
    place = tmp_path / "names.csv"
    place.write_bytes(f"i,s\n1,{name}\n2,b\n".encode(encoding))
    rows, rejects = read_all(place)
    assert (rows, codes(rejects)) == ([{"i": 2, "s": "b"}], ["invalid_utf8"])
    assert read_all(place, encoding=encoding)[0][0] == {"i": 1, "s": name}


@pytest.mark.parametrize(
    ("encoding", "line"),
    [("utf-16-le", b"2,\x00\xd8\n"), ("windows-1252", b"2,\x81\n"), ("shift_jis", b"2,\x81\xff\n")],
)
def test_what_an_encoding_does_not_know_is_rejected(
    tmp_path: Path, encoding: str, line: bytes
) -> None:
    """Alone, and never replaced by something else."""
    place = tmp_path / "names.csv"
    if encoding == "utf-16-le":
        line = "2,".encode(encoding) + b"\x00\xd8" + "\n".encode(encoding)
    place.write_bytes("i,s\n1,a\n".encode(encoding) + line + "3,c".encode(encoding))
    rows, rejects = read_all(place, encoding=encoding)
    assert rows == [{"i": 1, "s": "a"}, {"i": 3, "s": "c"}]
    assert codes(rejects) == ["invalid_utf8"]


def test_half_a_character_at_the_end_is_rejected(tmp_path: Path) -> None:
    """UTF-16 with an odd number of bytes."""
    place = tmp_path / "names.csv"
    place.write_bytes("i,s\n1,a\n2,b".encode("utf-16") + b"x")
    rows, rejects = read_all(place)
    assert (rows, codes(rejects)) == ([{"i": 1, "s": "a"}], ["invalid_utf8"])


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "idna", "a\0"])
def test_an_unknown_encoding_is_refused(tmp_path: Path, name: str) -> None:
    """With the names of some that there are."""
    place = tmp_path / "names.csv"
    place.write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no such encoding"):
        notes_of(place, encoding=name)


@pytest.mark.parametrize(
    "data", [bytes(5000), random.Random(3).randbytes(5000), b"\x89PNG\r\n\x1a\n" + b"x,y\n" * 9]
)
def test_binary_data_are_refused(tmp_path: Path, data: bytes) -> None:
    """Whatever they are called."""
    place = tmp_path / "names.csv"
    place.write_bytes(data)
    with pytest.raises(UsageError):
        notes_of(place)


@tried(60)
@given(
    cells=st.lists(st.text(alphabet='aé€😀,"\n\r ', max_size=5), min_size=2, max_size=12),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-be"]),
    kind=st.sampled_from(list(PACK)),
    limit=st.integers(1, 3),
)
def test_any_text_comes_through(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[str],
    encoding: str,
    kind: str,
    limit: int,
) -> None:
    """Compressed and encoded anyhow, cut anywhere, it gives the rows of the plain file."""
    folder = tmp_path_factory.mktemp("any")
    lines = ['"{}","{}"'.format(*(c.replace('"', '""') for c in pair)) for pair in pairwise(cells)]
    text = "x,y\n" + "\r\n".join(lines)
    plain, packed = folder / "plain.csv", folder / "packed.csv"
    plain.write_bytes(text.encode())
    packed.write_bytes(PACK[kind](text.encode(encoding)))
    options = {"delimiter": ",", "quote": '"'}
    expected = read_all(plain, **options)
    assert read_all(packed, limit=limit, max_bytes=7, encoding=encoding, **options) == expected


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    """A plain one when it is read; what was appended since the start is not looked at."""
    place = tmp_path / "users.jsonl"
    place.write_bytes(JSONL)
    text = TextFile(str(place))
    place.write_bytes(JSONL + b"\nmore")
    assert b"".join(text.blocks()) == JSONL
    place.write_bytes(JSONL[:9])
    with pytest.raises(BatchImportError, match="shorter"):
        text.read_at(0, 100)
    text.close()
