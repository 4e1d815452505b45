"""Members of zip and tar archives, each a file of its own.

No member is ever written under its name. One of a tar lies in it as it is, and is read there by position;
a compressed tar is unpacked once for all of its members, one of a zip by itself, as a compressed file is.
"""

from __future__ import annotations

import io
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.errors import FatalError, UsageError, hint_for
from batchimport.object_store import is_url, matching
from batchimport.policy.preparing import metered
from batchimport.sources.bytes import compression
from batchimport.sources.bytes.file import TextFile, closed_on_error
from batchimport.sources.bytes.unpack import UnpackedFile, bounded, check_room
from batchimport.sources.registry import INSIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_MEMBERS = 100_000
SHOWN = 10
PIECE_BYTES = 1024 * 1024
BLOCK_BYTES = 512
"""Of a tar: a header, or what fills up a member."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OFFICE = re.compile(r"\[Content_Types\]\.xml|mimetype|Index/Document\.iwa")
"""Files by which an office document is known, which is a zip as well."""
_WORKBOOK = {"xl/workbook.xml", "xl/workbook.bin"}
_ODS = b"opendocument.spreadsheet"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}
_METHOD_NAMES = {9: "deflate64", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd", 99: "AES"}
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX/)")
_CLIMBS = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
"""The beginning of a name that leads out of the folder into which an archive is unpacked."""
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error),
    *(EOFError, OSError, ValueError, NotImplementedError),
)
"""What the libraries raise when an archive is not as it should be."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        problem: Why it cannot be read; empty if it can.
        position: Where its bytes begin, or its header.
        packed_bytes: What it takes up in the archive.
    """

    name: str
    size: int
    problem: str
    position: int
    packed_bytes: int


class Archive(ABC):
    """An archive that is open as long as one of its members is.

    Attributes:
        members: Its files, sorted by name.
        is_office: It is an office document, not an archive that somebody made.
    """

    is_office = False

    def __init__(self, file: TextFile, members: Iterable[Member]) -> None:
        self.file, self.path = file, file.path
        self.members = sorted(members, key=lambda member: member.name)
        self.users = 0

    def member(self, name: str) -> Member:
        """Return the member of a name.

        Raises:
            UsageError: If there is none, several, or it cannot be read.
        """
        found = [member for member in self.members if member.name == name]
        where = f"{self.path}{INSIDE}{name}"
        if not found:
            hint = hint_for(name, [member.name for member in self.members], self.listing())
            raise UsageError("the archive has no such member", where=where, hint=hint)
        problem = "is in the archive more than once" if len(found) > 1 else found[0].problem
        if problem:
            hint = "unpack it, and import the file"
            raise UsageError(problem, where=where, hint=hint)
        return found[0]

    def find(self, pattern: str) -> list[str]:
        """Return the names that a pattern, or a folder that ends with a slash, means.

        Hidden files are meant only by their very name.

        Raises:
            UsageError: If there are none.
        """
        names = list(dict.fromkeys(member.name for member in self.members))
        found = [
            name for name in matching(pattern, names) if name == pattern or not _HIDDEN.search(name)
        ]
        if not found:
            where = f"{self.path}{INSIDE}{pattern}"
            raise UsageError("no member of the archive matches", where=where, hint=self.listing())
        return found

    def _visible(self) -> list[str]:
        return [member.name for member in self.members if not _HIDDEN.search(member.name)]

    def listing(self) -> str:
        """Say what is inside."""
        names = self._visible()
        more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
        return f"inside are: {', '.join(names[:SHOWN])}{more}" if names else "nothing is inside"

    def only(self, suffixes: Sequence[str], *, is_named: bool) -> str:
        """Return the name of the one member that holds records: by its suffix, or since it is alone.

        Args:
            suffixes: Of files that hold records.
            is_named: Its members can be named.

        Raises:
            UsageError: If there is not exactly one.
        """
        names = self._visible()
        data = [
            name for name in names if compression.plain_name(name).lower().endswith(tuple(suffixes))
        ]
        chosen = data or names
        if len(chosen) == 1:
            return chosen[0]
        ending = Path(compression.plain_name(chosen[0])).suffix if chosen else ""
        raise UsageError(
            f"is an archive of {len(names):,} files",
            where=self.path,
            hint=f"{self.listing()}. "
            + (
                f"Name one of them, or a pattern: '{self.path}{INSIDE}**/*{ending}'"
                if is_named
                else "Unpack it"
            ),
        )

    @abstractmethod
    def open(self, member: Member, folder: Path | None) -> TextFile:
        """Open a member."""

    def release(self) -> None:
        """Close the archive after the last of its members."""
        self.users -= 1
        if self.users == 0:
            self.close()

    def close(self) -> None:
        """Close the archive."""
        self.file.close()

    def _damaged(self, error: Exception, name: str = "") -> FatalError:
        return FatalError(
            f"the archive is damaged: {error}",
            where=f"{self.path}{INSIDE}{name}" if name else self.path,
            hint="get the file again; nothing of it was imported",
        )


class Archives:
    """The archives of a job: each is opened once, as long as one of its members is open."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._open: dict[str, Archive] = {}

    def open(self, path: str, name: str) -> TextFile:
        """Open a member of an archive."""
        archive = self._open.get(path)
        if archive is None or not archive.users:
            file = open_bytes(path, self._folder)
            archive = open_archive(file, self._folder)
            if archive is None:
                file.close()
                raise _no_archive(path)
        return self._member(archive, name)

    def only_member(self, file: TextFile, suffixes: Sequence[str], *, is_named: bool) -> TextFile:
        """Return the one file in an archive that holds records; a file that is no archive as it is.

        Args:
            file: Closed here unless it is returned.
            suffixes: Of files that hold records.
            is_named: It is a file by itself, so that its members can be named.
        """
        if is_workbook(file):
            return file
        archive = open_archive(file, self._folder)
        if archive is None:
            return file
        if archive.is_office:
            archive.close()
            hint = "import what it was exported from, or export a table of it as CSV"
            raise UsageError("is an Office document", where=archive.path, hint=hint)
        with closed_on_error(archive):
            name = archive.only(suffixes, is_named=is_named)
        member = self._member(archive, name)
        member.notes = (*member.notes, f"member of the archive: {name}")
        return member

    def _member(self, archive: Archive, name: str) -> TextFile:
        self._open[archive.path] = archive
        archive.users += 1
        try:
            return archive.open(archive.member(name), self._folder)
        except BaseException:
            archive.release()
            raise


class _PlacedMember(TextFile):
    """A member whose bytes lie in the archive as they are."""

    is_on_disk = False

    def __init__(self, archive: Archive, member: Member) -> None:
        self._archive, self._position = archive, member.position
        self.path = f"{archive.path}{INSIDE}{member.name}"
        self.size = member.size
        self.modified = f"{archive.file.modified}-{member.position}"
        self.fingerprint = self.content = self._fingerprint()
        self.begin = self._after_byte_order_mark()

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`; fewer only at the end."""
        count = max(0, min(count, self.size - position))
        return self._archive.file.read_at(self._position + position, count)

    def close(self) -> None:
        """Close the archive, if no other member is open."""
        self._archive.release()


class _UnpackedMember(UnpackedFile):
    """A member that was decompressed into a temporary file."""

    def __init__(self, archive: Archive, *unpacked: Any) -> None:
        self._archive = archive
        super().__init__(*unpacked)
        self.fingerprint = self.content

    def close(self) -> None:
        """Close it, and the archive if no other member is open."""
        super().close()
        self._archive.release()


@dataclass(frozen=True, slots=True)
class _Packed:
    """What is known of a member of a zip before it is unpacked."""

    path: str
    modified: str
    size: int
    fingerprint: str = ""


class _Zip(Archive):
    def __init__(self, file: TextFile) -> None:
        self.path = file.path
        try:
            self._zip = opened_zip(file)
            entries = self._zip.infolist()
            super().__init__(file, _checked(map(_zip_member, entries), file.path))
            self._check_apart(entries)
        except DAMAGE as error:
            raise self._damaged(error) from error
        self._entries = {entry.header_offset: entry for entry in entries}
        self.is_office = any(_OFFICE.fullmatch(member.name) for member in self.members)

    def _check_apart(self, entries: Sequence[zipfile.ZipInfo]) -> None:
        """Refuse members that share bytes: so a small archive unpacks to anything."""
        for one, other in pairwise(sorted((e.header_offset, e.compress_size) for e in entries)):
            if sum(one) > other[0]:
                raise zipfile.BadZipFile("its members overlap")

    def open(self, member: Member, folder: Path | None) -> TextFile:
        """Unpack a member."""
        path = f"{self.path}{INSIDE}{member.name}"
        entry = self._entries[member.position]
        origin = _Packed(path, f"{self.file.modified}-{entry.CRC}", member.packed_bytes)
        check_room(member.size, path, folder)
        return _UnpackedMember(self, origin, self._pieces(entry, member), (), folder)

    def _pieces(self, entry: zipfile.ZipInfo, member: Member) -> Iterator[bytes]:
        def pieces() -> Iterator[bytes]:
            try:
                with self._zip.open(entry) as data:
                    while piece := data.read(PIECE_BYTES):
                        yield piece
            except DAMAGE as error:
                raise self._damaged(error, member.name) from error

        return metered(pieces(), f"unpacking {posixpath.basename(member.name)}", member.size)

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()
        super().close()


def _zip_member(entry: zipfile.ZipInfo) -> Member | None:
    if entry.is_dir():
        return None
    problem, method = "", entry.compress_type
    if stat.S_ISLNK(entry.external_attr >> 16):
        problem = "is a link"
    elif entry.flag_bits & 0x1:
        problem = "is encrypted"
    elif method not in _METHODS:
        name = _METHOD_NAMES.get(method, f"number {method}")
        problem = f"is compressed by a method that is not read in archives: {name}"
    return Member(
        entry.filename, entry.file_size, problem, entry.header_offset, entry.compress_size
    )


class _Tar(Archive):
    def __init__(self, file: TextFile) -> None:
        self.path = file.path
        try:
            with tarfile.open(
                fileobj=io.BufferedReader(_Bytes(file), PIECE_BYTES), mode="r:"
            ) as tar:
                super().__init__(file, _checked(map(_tar_member, tar), file.path))
                self._check_end(tar.offset)
        except DAMAGE as error:
            raise self._damaged(error) from error

    def _check_end(self, position: int) -> None:
        """Check that the last member is whole, and the mark of the end follows: `tarfile` does not."""
        end = self.file.read_at(position, BLOCK_BYTES)
        if end.strip(b"\0") or len(end) < BLOCK_BYTES:
            raise EOFError("it ends too soon, or has a broken header")

    def open(self, member: Member, folder: Path | None) -> TextFile:
        """Open a member where it lies."""
        del folder
        return _PlacedMember(self, member)


def _tar_member(entry: tarfile.TarInfo) -> Member | None:
    if entry.isdir():
        return None
    problem = ""
    if not entry.isreg():
        problem = "is a link" if entry.islnk() or entry.issym() else "is a device or a pipe"
    elif entry.sparse is not None:
        problem = "is a sparse file"
    return Member(entry.name, entry.size, problem, entry.offset_data, entry.size)


def _checked(members: Iterable[Member | None], path: str) -> Iterator[Member]:
    """Yield the files of an archive by plain names; refuse an archive that is made to do harm."""
    for at, member in enumerate(members):
        if at == MOST_MEMBERS:
            hint = "unpack it, and import the files"
            raise UsageError(f"has more than {MOST_MEMBERS:,} members", where=path, hint=hint)
        if member is None:
            continue
        if _CLIMBS.match(member.name):
            raise UsageError(
                f"has a member whose name leads out of the archive: {member.name}",
                where=path,
                hint="unpack it where that does no harm, and import the files",
            )
        yield replace(member, name=posixpath.normpath(member.name))


def open_archive(file: TextFile, folder: Path | None, *, to_list: bool = False) -> Archive | None:
    """Return the archive that a file is; None if it is none.

    Args:
        file: Closed with the archive, or here if it cannot be read; open if it is none.
        folder: Where to unpack a compressed tar.
        to_list: Only its names are wanted.
    """
    with closed_on_error(file):
        head = file.read_at(0, BLOCK_BYTES)
        if head.startswith(_ZIP):
            return _Zip(file)
        if _is_tar(head):
            return _Tar(file)
        if not _is_tar(_unpacked_head(file, head)):
            return None
        if to_list:
            return _Listed(file)
        tar = UnpackedFile(file, _decompressed(file), (), folder)
    file.close()
    with closed_on_error(tar):
        return _Tar(tar)


def opened_zip(file: TextFile) -> zipfile.ZipFile:
    """Return a file as a zip archive."""
    return zipfile.ZipFile(io.BufferedReader(_Bytes(file), PIECE_BYTES))


def is_workbook(file: TextFile) -> bool:
    """Say whether a file is a spreadsheet that is a zip archive: of Excel, or in OpenDocument."""
    if not file.read_at(0, len(_ZIP[0])).startswith(_ZIP[0]):
        return False
    try:
        with opened_zip(file) as made:
            names = set(made.namelist())
            if not names.isdisjoint(_WORKBOOK):
                return True
            return "mimetype" in names and _ODS in made.read("mimetype")
    except DAMAGE:
        return False


def members_of(path: str, pattern: str) -> list[str]:
    """Return the names of an archive's members that a pattern means, without unpacking them.

    Raises:
        UsageError: If there are none, or it is no archive.
    """
    file = open_bytes(path, None)
    archive = open_archive(file, None, to_list=True)
    if archive is None:
        file.close()
        raise _no_archive(path)
    with closing(archive):
        return archive.find(pattern)


class _Listed(Archive):
    """A compressed tar of which nothing is kept but the names."""

    def __init__(self, file: TextFile) -> None:
        self.path = file.path
        stream = io.BufferedReader(_Stream(bounded(_decompressed(file), file)), PIECE_BYTES)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                super().__init__(file, _checked(map(_tar_member, tar), file.path))
        except DAMAGE as error:
            raise self._damaged(error) from error

    def open(self, member: Member, folder: Path | None) -> TextFile:
        """Open a member: not this way."""
        raise NotImplementedError


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _unpacked_head(file: TextFile, head: bytes) -> bytes:
    """Return the first block of what a file unpacks to; nothing if it is not compressed."""
    packed = compression.compression_of(head)
    if packed is None:
        return b""
    unpacked = b""
    for piece in compression.decompress(file.blocks(), packed, file.path):
        unpacked += piece
        if len(unpacked) >= BLOCK_BYTES:
            break
    return unpacked[:BLOCK_BYTES]


def _decompressed(file: TextFile) -> Iterator[bytes]:
    packed = compression.compression_of(file.read_at(0, BLOCK_BYTES))
    pieces = metered(file.blocks(), f"unpacking {Path(file.path).name}", file.size)
    return compression.decompress(pieces, str(packed), file.path)


def _no_archive(path: str) -> UsageError:
    hint = "zip and tar archives have members; a folder or a file is named without the !"
    return UsageError("is no archive", where=path, hint=hint)


def open_bytes(path: str, folder: Path | None) -> TextFile:
    """Open what a source names: a file, or an object by its URL."""
    if not is_url(path):
        return TextFile(path)
    from batchimport.sources.bytes.remote import open_remote  # noqa: PLC0415 - most are files

    return open_remote(path, folder)


class _Bytes(io.RawIOBase):
    """A file that is read by position, as other libraries want it."""

    def __init__(self, file: TextFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._file.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Stream(io.RawIOBase):
    """Pieces as a file that is read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._left = self._left or next(self._pieces, b"")
        data, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)
