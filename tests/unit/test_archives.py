"""Members of archives are files like any other; what an archive should not do is refused in words."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from batchimport.errors import BatchImportError
from batchimport.model import SourceOptions
from batchimport.sources.bytes import archive, unpack
from batchimport.sources.opening import open_source
from batchimport.sources.paths import find_sources, name_of, stem_of

LINES = {
    "a.jsonl": b'{"id": 1}\n{"id": 2}\n',
    "b.jsonl.gz": gzip.compress(b'{"id": 3}\n'),
    "sub/c.jsonl": b'{"id": 4}\n',
    "sub/._c.jsonl": b"junk",
    "README.txt": b"read me",
}


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        made.mkdir("sub")
        for name, data in files.items():
            made.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return path


KINDS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "x.zip": zipped,
    "bz.zip": lambda path, files: zipped(path, files, zipfile.ZIP_BZIP2),
    "x.tar": tarred,
    "x.tar.gz": lambda path, files: tarred(path, files, "w:gz"),
    "x.tar.xz": lambda path, files: tarred(path, files, "w:xz"),
}


def ids_of(words: list[str]) -> list[int]:
    source = open_source(find_sources(words), SourceOptions())
    try:
        records = [record["id"] for record in source.sample(None)]
        assert source.count() == len(records)
        return records
    finally:
        source.close()


def refusal_of(word: str) -> str:
    with pytest.raises(BatchImportError) as refused:
        ids_of([word])
    return f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_files(tmp_path: Path, kind: str) -> None:
    """By name, pattern and folder, compressed or not; called by their own names."""
    path = KINDS[kind](tmp_path / kind, {f"./{name}": data for name, data in LINES.items()})
    if kind.endswith(".zip"):
        KINDS[kind](path, LINES)
    assert ids_of([f"{path}!/a.jsonl"]) == [1, 2]
    assert ids_of([f"{path}!/sub/c.jsonl", f"{path}!/*.jsonl*", f"{path}!/a.jsonl"]) == [4, 1, 2, 3]
    assert ids_of([f"{path}!/**/*.jsonl"]) == [1, 2, 4]
    assert ids_of([f"{path}!/sub/"]) == [4]
    assert ids_of([f"{tmp_path}/*{path.suffix}!/a.jsonl"]) == [1, 2]
    assert "inside are: README.txt, a.jsonl, b.jsonl.gz" in refusal_of(f"{path}!/*.csv")
    assert "did you mean a.jsonl?" in refusal_of(f"{path}!/a.json")
    assert "archive of 4 files" in refusal_of(str(path))
    assert name_of(*find_sources([f"{path}!/sub/c.jsonl"])) == "c.jsonl"


def test_an_archive_of_one_file_is_that_file(tmp_path: Path) -> None:
    """What is not of a known format beside it does not count; the format is that of the member."""
    path = zipped(tmp_path / "users.zip", {"users.csv": b"id\n7\n8\n", "LICENSE": b"free"})
    source = open_source([str(path)], SourceOptions())
    assert (source.format, source.count(), stem_of(str(path))) == ("csv", 2, "users")
    assert "member of the archive: users.csv" in source.notes
    plain = tmp_path / "plain.csv"
    plain.write_bytes(b"id\n7\n8\n")
    same = open_source([str(plain)], SourceOptions())
    assert same.contents == source.contents
    assert same.fingerprint == source.fingerprint
    for each in (source, same):
        each.close()


@pytest.mark.parametrize("name", ["../a.csv", "/a.csv", "x/../../a.csv", "..\\a.csv", "C:\\a.csv"])
@pytest.mark.parametrize("kind", [zipped, tarred])
def test_names_that_climb_are_refused(tmp_path: Path, kind: Callable[..., Path], name: str) -> None:
    """Also where another member is named."""
    path = kind(tmp_path / "x", {"ok.csv": b"id\n1\n", name: b"id\n1\n"})
    assert f"leads out of the archive: {name}" in refusal_of(f"{path}!/ok.csv")


def test_what_is_no_whole_file_is_refused(tmp_path: Path) -> None:
    """Links, devices, one name twice; nothing of it is read."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as made:
        for name, kind in (
            ("l.csv", tarfile.SYMTYPE),
            ("h.csv", tarfile.LNKTYPE),
            ("p.csv", tarfile.FIFOTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            made.addfile(entry)
        made.addfile(tarfile.TarInfo("two.csv"))
        made.addfile(tarfile.TarInfo("./two.csv"))
    assert "is a link" in refusal_of(f"{path}!/l.csv")
    assert "is a link" in refusal_of(f"{path}!/h*.csv")
    assert "is a device or a pipe" in refusal_of(f"{path}!/p.csv")
    assert "more than once" in refusal_of(f"{path}!/two.csv")
    (tmp_path / "a.csv").write_text("id\n1\n")
    assert "is no archive" in refusal_of(f"{tmp_path}/a.csv!/*.csv")
    assert "no such file" in refusal_of(f"{tmp_path}/none.zip!/*.csv")


def patched(path: Path, at: int, value: int) -> None:
    """Change a number in the only entry of a zip: in its own header, and in the directory."""
    data = bytearray(path.read_bytes())
    for start, mark in ((6, b"PK\x03\x04"), (8, b"PK\x01\x02")):
        struct.pack_into("<H", data, data.index(mark) + start + at, value)
    path.write_bytes(data)


def test_what_is_packed_twice_is_named(tmp_path: Path) -> None:
    """An archive in an archive, and what was compressed twice, is not taken for damaged text."""
    inner = zipped(tmp_path / "in.zip", {"a.csv": b"a,b\n1,2\n"}).read_bytes()
    twice = gzip.compress(gzip.compress(b"a,b\n1,2\n"))
    packed = [
        *(
            zipped(tmp_path / f"{at}.zip", {name: inner})
            for at, name in enumerate(["a.zip", "a.csv"])
        ),
        tarred(tmp_path / "x.tar", {"in.zip": inner}),
        tmp_path / "a.csv.gz",
    ]
    packed[-1].write_bytes(twice)
    for path in packed:
        with pytest.raises(BatchImportError, match=r"is packed twice: in it is (zip|gzip) data"):
            ids_of([str(path)])


def test_methods_that_are_not_read_are_named(tmp_path: Path) -> None:
    """Encryption, and what other programs compress with."""
    for at, value, said in ((0, 1, "is encrypted"), (2, 9, "deflate64"), (2, 97, "number 97")):
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("a.csv", "id\n1\n")
        patched(path, at, value)
        assert said in refusal_of(f"{path}!/*.csv")


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
def test_a_damaged_archive_is_not_read(tmp_path: Path, kind: str) -> None:
    """Cut off anywhere, it is refused, or all of the member is there and right."""
    path = KINDS[kind](
        tmp_path / kind, {"a.jsonl": LINES["a.jsonl"] * 99, "b.jsonl": b'{"id": 1}\n'}
    )
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for cut in range(end // 20, end, end // 20):
        path.write_bytes(whole[:cut])
        assert refusal_of(f"{path}!/a.jsonl")
    if kind == "x.zip":
        data = bytearray(whole)
        data[data.index(b"a.jsonl") + 15] ^= 255
        path.write_bytes(data)
        assert "archive is damaged" in refusal_of(f"{path}!/a.jsonl")


def test_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ratio, by the room on the disk, by the number of members; members must not share bytes."""
    monkeypatch.setattr(unpack, "EXPANSION_COUNTS_AFTER", 1_000_000)
    for kind in ("x.zip", "x.tar.gz"):
        bomb = KINDS[kind](tmp_path / kind, {"a.jsonl": b"\n" * 5_000_000})
        assert "more than 500 times its size" in refusal_of(f"{bomb}!/a.jsonl")
        if kind != "x.zip":
            assert "more than 500 times its size" in refusal_of(f"{bomb}!/*.jsonl")
    path = zipped(tmp_path / "y.zip", {"a.csv": b"id\n1\n"})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: usage._replace(free=4))
    assert "cannot be unpacked" in refusal_of(f"{path}!/a.csv")
    monkeypatch.undo()
    monkeypatch.setattr(archive, "MOST_MEMBERS", 3)
    many = tarred(tmp_path / "many.tar", {f"{at}.csv": b"id\n" for at in range(4)})
    assert "more than 3 members" in refusal_of(f"{many}!/1.csv")
    twice = zipped(tmp_path / "z.zip", {"a.csv": b"id\n1\n", "b.csv": b"id\n1\n"})
    data = bytearray(twice.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, data.index(b"a.csv") - 31)
    twice.write_bytes(data)
    assert "overlap" in refusal_of(f"{twice}!/a.csv")


def test_archives_are_closed_with_their_last_member(tmp_path: Path) -> None:
    """Each is opened once for all of its members, and no descriptor is left."""
    files = {f"{at}.jsonl": b'{"id": 1}\n' for at in range(70)}
    path = tarred(tmp_path / "x.tar.gz", files, "w:gz")
    before = len(list(Path("/dev/fd").iterdir()))
    assert ids_of([f"{path}!/*.jsonl"]) == [1] * 70
    refusal_of(f"{path}!/none.csv")
    assert len(list(Path("/dev/fd").iterdir())) == before
