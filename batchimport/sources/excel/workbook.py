"""The workbook of a job, as its process sees it: sheets by name or number, and their rows."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError, hint_for
from batchimport.sources.bytes.archive import DAMAGE, opened_zip
from batchimport.sources.bytes.file import closed_on_error
from batchimport.sources.bytes.unpack import bounded, check_expansion
from batchimport.system import available_memory_bytes

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator, Sequence

    from batchimport.sources.bytes.file import TextFile

MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
LEAST_MEMORY_BYTES = 512 * 1024 * 1024
_READER = Path(__file__).with_name("reader.py")
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")

CELL_BYTES = 65
"""What a cell takes in memory, measured, short texts included."""

PIECE_BYTES = 1024 * 1024
_MOST_XML_BYTES = 16 * 1024 * 1024
_TAG_BYTES = 1024
"""No tag of a cell is longer."""

_CELL = re.compile(rb"<(?:\w+:)?c\b([^<>]*[^<>/])>")
_PLACE = re.compile(rb'\br="([A-Z]+)([0-9]+)"')
_ROW = re.compile(rb'row (?:[^<>]*? )?r="([0-9]+)"')
_FAR_COLUMN = re.compile(rb' r="([A-Z]{2,})[0-9]')
LETTERS = 26
_ELEMENT = re.compile(r"<(?:\w+:)?(?:sheet|Relationship)\s([^<>]*)>")
_ATTRIBUTE = re.compile(r"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")

Row = list[Any]
"""The values of a row; "" is an empty cell, or one with an error."""


class Workbook:
    """One sheet of a workbook, which another process reads.

    Attributes:
        sheet: Its name.
        notes: What users should know.
    """

    def __init__(self, file: TextFile, wanted: str | None) -> None:
        self._file = file
        if find_spec("python_calamine") is None:
            raise UsageError(
                "workbooks are read by calamine, which is not installed",
                where=file.path,
                hint="pip install 'batchimport[excel]'",
            )
        if not file.read_at(0, 4).startswith(MAGIC):
            raise UsageError(
                "is not a workbook",
                where=file.path,
                hint="if it is text, say how to read it, such as with --format csv",
            )
        path = file.descriptor_path
        memory = max(LEAST_MEMORY_BYTES, available_memory_bytes())
        self._reader = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", str(_READER), path, str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[int(Path(path).name)],
        )
        with closed_on_error(self):
            self._open(wanted)

    def _open(self, wanted: str | None) -> None:
        sheets = self._ask("sheets")
        names, visible = [name for name, _ in sheets], [name for name, shown in sheets if shown]
        self.sheet = _chosen(names, visible or names, wanted, self._file.path)
        others = [name for name in visible if name != self.sheet]
        more = f"sheet: {self.sheet} (others: {', '.join(others)}; see --sheet)"
        self.notes = [more] if others and wanted is None else []
        extent = look_at_sheet(self._file, self.sheet)
        if extent is not None and extent.errors:
            errors = f"{extent.errors:,}"
            self.notes.append(
                f"cells with an error, such as #N/A, are read as empty ones: {errors}"
            )
        self._ask(f"open {names.index(self.sheet)}")

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the sheet from its first one on."""
        batch = self._ask("first")
        while batch:
            yield from batch
            batch = self._ask("next")

    def _ask(self, request: str) -> Any:
        """Return the answer to a request.

        Raises:
            UsageError: If the workbook cannot be read.
        """
        assert self._reader.stdin is not None  # noqa: S101 - both are pipes
        assert self._reader.stdout is not None  # noqa: S101
        try:
            self._reader.stdin.write(f"{request}\n".encode())
            self._reader.stdin.flush()
            answer = pickle.load(self._reader.stdout)  # noqa: S301 - of our own process
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            code = self._reader.wait()
            reason = (
                f"the process that reads it ended with code {code}; is it too large or damaged?"
            )
            raise self._unreadable(reason) from error
        if answer is None or (isinstance(answer, str) and _is_encrypted(self._file)):
            raise UsageError(
                "is encrypted: it opens with a password",
                where=self._file.path,
                hint="save a copy without the password",
            )
        if isinstance(answer, str):
            raise self._unreadable(answer)
        return answer

    def _unreadable(self, reason: str) -> UsageError:
        return UsageError(
            f"is not a readable workbook: {reason}",
            where=self._file.path,
            hint="open it, and save it again as .xlsx",
        )

    def close(self) -> None:
        """End the process."""
        self._reader.kill()
        self._reader.communicate()


def _is_encrypted(file: TextFile) -> bool:
    """Say whether a file has the stream in which Office keeps an encrypted workbook."""
    before = b""
    for block in file.blocks() if file.read_at(0, 4) == MAGIC[1] else ():
        if _ENCRYPTED in before[-len(_ENCRYPTED) :] + block:
            return True
        before = block
    return False


def _chosen(names: Sequence[str], visible: Sequence[str], wanted: str | None, path: str) -> str:
    """Return the name of the sheet that is meant: by name, then by number."""
    if wanted is None and visible:
        return visible[0]
    meant = [name for name in names if wanted in (name, name.casefold())]
    meant += [name for name in names if wanted and wanted.casefold() == name.casefold()]
    if wanted and wanted.isdecimal() and 0 < int(wanted) <= len(names):
        meant.append(names[int(wanted) - 1])
    if meant:
        return meant[0]
    if wanted is None:
        raise UsageError("has no sheet with cells", where=path, hint="export it as CSV")
    hint = hint_for(wanted, names, f"its sheets: {', '.join(names)}")
    raise UsageError(f"has no sheet {wanted}", where=f"--sheet {path}", hint=hint)


# -- what the XML of a sheet says, and the library that reads it does not --------------------------


@dataclass(frozen=True, slots=True)
class Extent:
    """What a sheet holds: the number of the last row and column, and of cells with an error."""

    rows: int
    columns: int
    errors: int

    @property
    def bytes_needed(self) -> int:
        """The memory that the sheet takes."""
        return self.rows * self.columns * CELL_BYTES


def look_at_sheet(file: TextFile, name: str) -> Extent | None:
    """Return how far a sheet extends; None if the workbook is not of XML, or does not say where it is.

    Raises:
        UsageError: If it would not fit into memory, or is made to unpack to far too much.
    """
    try:
        with opened_zip(file) as package:
            part = _part_of(package, name)
            if part is None:
                return None
            check_expansion(sum(each.file_size for each in package.infolist()), file)
            extent = _extent(_pieces(package, part, file), are_counted=False)
            free = available_memory_bytes()
            if extent.bytes_needed > free:
                extent = _extent(_pieces(package, part, file), are_counted=True)
    except DAMAGE:
        return None  # the library says what is wrong
    if extent.bytes_needed > free:
        raise UsageError(
            f"sheet {name} has {extent.rows:,} rows and {extent.columns:,} columns, which take "
            f"{extent.bytes_needed / 1e9:,.1f} GB of memory",
            where=file.path,
            hint="delete what is far from the table, or export it as CSV",
        )
    return extent


def _part_of(package: zipfile.ZipFile, name: str) -> str | None:
    """Return the file in the package that holds a sheet."""
    sheets = _elements(package, "xl/workbook.xml")
    parts = {each.get("Id"): each.get("Target", "") for each in _elements(package, _RELATIONS)}
    for each in sheets:
        if each.get("name") == name:
            link = next((value for key, value in each.items() if key.endswith(":id")), "")
            target = parts.get(link, "")
            part = target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
            return part if part in package.namelist() else None
    return None


_RELATIONS = "xl/_rels/workbook.xml.rels"


def _elements(package: zipfile.ZipFile, part: str) -> Iterator[dict[str, str]]:
    """Yield the attributes of the sheets, or relations, that a part lists."""
    if part not in package.namelist():
        return
    with package.open(part) as data:
        text = data.read(_MOST_XML_BYTES).decode(errors="replace")
    for element in _ELEMENT.findall(text):
        found = _ATTRIBUTE.findall(element)
        yield {key: unescape(one or other) for key, one, other in found}


def _pieces(package: zipfile.ZipFile, part: str, file: TextFile) -> Iterator[bytes]:
    """Yield the XML of a sheet, cut between tags."""
    left = b""
    with package.open(part) as data:
        for piece in bounded(iter(lambda: data.read(PIECE_BYTES), b""), file):
            text = left + piece
            end = text.rfind(b">") + 1
            yield text[:end]
            left = text[end:][-_TAG_BYTES:]


def _extent(pieces: Iterator[bytes], *, are_counted: bool) -> Extent:
    """Return the extent of the cells.

    Args:
        are_counted: Look at each cell, which takes as long as reading them all: empty ones, which only
            have a style, are then left out. Otherwise there are 26 columns at least.
    """
    rows, columns, errors = 0, set[bytes](), 0
    for text in pieces:
        errors += text.count(b' t="e"')
        if are_counted:
            places = list(filter(None, map(_PLACE.search, _CELL.findall(text))))
            columns.update(place[1] for place in places)
            rows = max([rows, *(int(place[2]) for place in places)])
        else:
            columns.update(_FAR_COLUMN.findall(text))
            rows = max([rows, *map(int, _ROW.findall(text))])
    least = 0 if are_counted else LETTERS
    return Extent(rows, max(map(_number, columns), default=least), errors)


def _number(letters: bytes) -> int:
    """Return the number of a column, from 1: A is 1, Z 26, AA 27."""
    number = 0
    for letter in letters:
        number = number * LETTERS + letter - 64
    return number
