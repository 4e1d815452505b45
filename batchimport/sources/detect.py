"""What a file contains, by its first bytes. Files that are not text are refused by what they are."""

from __future__ import annotations

import json
import re

import msgspec

from batchimport.errors import UsageError

_LOOKS_LIKE = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"SQLite format 3": "an SQLite database",
    b"%PDF-": "a PDF document",
    b"\x7fELF": "a program",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
}
_OBJECT_LINES = re.compile(rb"\{[^\n]*\n\s*\{")
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*[{\]]")
_first_value = json.JSONDecoder().raw_decode
_TAR = slice(257, 262)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MOST_CONTROLS = 32
_SHARE_OF_CONTROLS = 0.3
_SHARE_OF_CONTROLS_WITHOUT_UTF8 = 0.05


def check_is_text(path: str, kind: str, head: bytes) -> None:
    """Check that the first bytes of a file are text.

    Raises:
        UsageError: If they are something else.
    """
    looks_like = [name for magic, name in _LOOKS_LIKE.items() if head.startswith(magic)]
    if head[_TAR] == b"ustar":
        looks_like.append("a tar archive")
    controls = len(_CONTROLS.findall(head))
    share = _SHARE_OF_CONTROLS if _is_utf8(head) else _SHARE_OF_CONTROLS_WITHOUT_UTF8
    if controls > _MOST_CONTROLS and controls > share * len(head):
        looks_like.append("binary data")
    if looks_like:
        hint = "import the text in it, or what it was exported from, as CSV or JSON lines"
        raise UsageError(f"is {looks_like[0]}, not {kind}", where=path, hint=hint)


def _is_utf8(head: bytes) -> bool:
    """Say whether bytes are UTF-8, apart from a character that is cut off at their end."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3
    return True


def format_of_text(head: bytes, given: str | None) -> str:
    """Return the format of a text: that of its name, unless its first bytes contradict.

    Args:
        head: The first bytes.
        given: The format that the name or `--format` says; None if neither does.
    """
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if given not in (None, "json", "jsonl"):
        return given
    if head.startswith(b"["):
        is_array = _ARRAY_OF_OBJECTS.match(head) is not None or given == "json"
        return "json" if is_array else given or "csv"
    if head.startswith(b"{"):
        return "json" if _spans_lines(head) else "jsonl"
    return given or "csv"


def _spans_lines(head: bytes) -> bool:
    """Say whether objects go on after their line, or several are on each line."""
    first, end, rest = head.partition(b"\n")
    try:
        msgspec.json.decode(first)
    except (ValueError, RecursionError):
        if _has_several(first):
            return not rest.strip() or _has_several(rest.partition(b"\n")[0])
        last = first.rstrip()[-1:]
        return bool(end) and (last == b"[" or (last != b"}" and not _OBJECT_LINES.match(head)))
    return False


def _has_several(line: bytes) -> bool:
    """Say whether a line has an object, and another one after it."""
    text = line.decode(errors="replace").strip()
    try:
        _, end = _first_value(text)
    except (ValueError, RecursionError):
        return False
    return text[end:].lstrip(" \t,").startswith("{")
