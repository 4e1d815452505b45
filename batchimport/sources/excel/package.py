"""What the XML of a sheet says, and the library that reads it does not: how far it extends, and its errors.

The library holds a sheet as a rectangle. One cell far from all others makes that larger than any memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.bytes.archive import DAMAGE, opened_zip
from batchimport.sources.bytes.unpack import bounded, check_expansion
from batchimport.system import available_memory_bytes

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator

    from batchimport.sources.bytes.file import TextFile

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
