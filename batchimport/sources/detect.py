"""What a file contains, by its first bytes. Files that are not text are refused by what they are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec

from batchimport.errors import UsageError
from batchimport.sources.bytes.file import HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOKS_LIKE = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive, an Excel workbook or another Office file",
    b"PK\x05\x06": "an empty ZIP archive",
    b"PK\x07\x08": "a part of a ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook or another Office file",
    b"SQLite format 3": "an SQLite database",
    b"PGDMP\x01": "a dump of pg_dump",
    b"Obj\x01": "an Avro file",
    b"ARROW1\x00\x00": "an Arrow file",
    b"FEA1\x00\x00\x00\x00": "a Feather file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"SEQ\x06": "a Hadoop sequence file",
    b"\x7fELF": "a program",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"MSCF\x00": "a CAB archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"\xff\x06\x00\x00sNaPpY": "compressed with snappy",
    b"LZIP\x01": "compressed with lzip",
    b"\x1f\x9d": "compressed with compress",
}
_TEXTS = {
    rb"%PDF-": "a PDF document",
    rb"%!PS": "a PostScript document",
    rb"\{\\rtf": "an RTF document",
    rb"GIF8[79]a": "a picture",
    rb"!<arch>\n": "an archive of ar",
    rb"0707(01|02|07)[0-9a-fA-F]{40}": "a cpio archive",
    rb"BEGIN:V(?:CARD|CALENDAR)\s": "a vCard or a calendar",
    rb"(?:[;#][^\n]*\n\s*)*\[[\w .:-]+\]\s*\n(?:\s*[;#][^\n]*\n)*\s*[\w.-]+\s*=": "an INI or TOML file",
    rb"(?:diff --git |--- [^\n]+\n\+\+\+ )": "a patch",
    rb"-----BEGIN [A-Z ]+-----": "a key or certificate",
    rb"\\(?:documentclass|begin\{)": "a TeX document",
    rb"version https://git-lfs\.github\.com/spec/": "a pointer to a file in Git LFS",
    rb"(\.\./)*(\.git)?/annex/objects/": "a pointer to a file in git-annex",
    rb"(?>(?><!--.*?-->)\s*)*+(<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>])": "an HTML page",
    rb"<\?xml\s|<!doctype\s|<!--": "XML",
    rb"<(?:meta|table|div|script|style)(?:>|\s[^\n,]*>)(?!,)": "an HTML page",
    rb"<([A-Za-z_][\w:.-]*)(\s[^<>]*)?(/>|>(?=.*?</\1\s*>))": "XML or HTML",
}
"""Patterns at the beginning of a text that is not a table, apart from white space. XML has a tag that
is closed, unlike the header `<TICKER>,<DATE>` of some exchanges."""
_ANY_CASE = re.IGNORECASE | re.DOTALL
_SQL = re.compile(
    rb"""(?:\s++|--[^\n]*(?:\n|\Z)|/\*.*?\*/;?|\\(?:un)?restrict\b[^\n]*)*+
    (?:insert\s+(?:or\s+\w+\s+)?into\s+\S|replace\s+into\s+\S|copy\s+\S+[^;]*\sfrom\s+stdin
    |(?:create|drop|alter)\s+(?:or\s+replace\s+|temp(?:orary)?\s+|unique\s+|unlogged\s+)*
     (?:table|database|schema|type|index|sequence|view|extension|function|role|user)\s+["`\[\w]
    |begin(?:\s+transaction|\s+work)?\s*;|start\s+transaction\s*;|pragma\s+\w+\s*=
    |set\s+[@\w.]+\s*(?:=|\sto\s)|use\s+[`"\[]?\w+[`"\]]?\s*;|lock\s+tables\s
    |select\s+pg_catalog\.)""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_YAML_LINE = re.compile(
    r"\s*(?:-\s+)*(?:[\w./\"'-][^:,;|\t{}\[\]]*:(?:\s(?:\s*[\"'].*|(?!.*:\s).*))?|-(?:\s.*)?|---|\.\.\.|#.*)"
)
_YAML_START = re.compile(rb"%YAML\s|---(\s*\n|\s+[#!&])")
_JSON_START = re.compile(rb"\x1e?\s*\{\s*(?:\"[^\"\n]*\"\s*:|\})|\[\s*(?:[\[{]|\]\s*\Z)")
_DELIMITERS = frozenset(",;|\t")
MAX_LINES = 100
"""How many lines of a text are looked at."""
LEAST_LINES = 3
SHARE_FILLED = 0.8
_OBJECT_LINES = re.compile(rb"\{[^\n]*\n\s*\{")
_COMMA_FIRST = re.compile(rb"\s*,\s*\{")
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*[{\]]")
_ARRAY_ABOVE_OBJECT = re.compile(rb"\[[^\n]*\][ \t\r]*\n\s*\{")
_first_value = json.JSONDecoder().raw_decode
_TAR = slice(257, 262)
_CONTROLS = bytes([*range(0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20)])
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
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if head.startswith(b"ORC") and controls:  # ORCID may be the name of a column
        looks_like.append("an ORC file")
    share = _SHARE_OF_CONTROLS if _is_utf8(head) else _SHARE_OF_CONTROLS_WITHOUT_UTF8
    if controls > _MOST_CONTROLS and controls > share * len(head):
        looks_like.append("binary data")
    if looks_like:
        hint = "import the text in it, or what it was exported from, as CSV or JSON lines"
        raise UsageError(f"is {looks_like[0]}, not {kind}", where=path, hint=hint)


def check_is_meant(path: str, kind: str, head: bytes) -> None:
    """Check that a text is plainly not something else than records, such as an error page.

    Called unless `--format` says what it is.

    Raises:
        UsageError: If it is.
    """
    found = _other_text(head)
    if found is None and kind not in ("json", "jsonl"):
        found = _other_lines(head)
    if found is not None:
        raise UsageError(
            f"is {found}, not {kind}",
            where=path,
            hint="get the file that was meant; if it is this one, say how to read it, such as with "
            f"--format {'json' if found == 'JSON' else 'csv'}",
        )


def _other_text(head: bytes) -> str | None:
    """Return what a text is by how it begins, if that is not a table."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name in _TEXTS.items():
        if re.match(pattern, text, _ANY_CASE):
            return name
    return "a file of SQL statements" if _SQL.match(text) else None


def _other_lines(head: bytes) -> str | None:
    """Return what a text is by its lines, if that is not a table: JSON, YAML, or fixed width."""
    text = head.decode(errors="replace").removeprefix("\ufeff")
    lines = text.splitlines()
    if len(head) >= HEAD_BYTES:
        lines = lines[:-1]  # it may be cut off
    lines = [line for line in lines if line.strip()][:MAX_LINES]
    if _JSON_START.match(head.removeprefix(b"\xef\xbb\xbf").lstrip()):
        return "JSON"
    if _YAML_START.match(head) or _is_yaml(lines):
        return "YAML"
    return "text of fixed width" if _has_fixed_width(lines) else None


def _is_yaml(lines: Sequence[str]) -> bool:
    """Say whether each line is a key with its value, or an item of a list."""
    written = [line for line in lines if not line.lstrip().startswith("#")]
    keys = [line for line in written if re.search(r":(\s|$)", line)]
    return len(keys) >= 2 and all(_YAML_LINE.fullmatch(line) for line in written)


def _has_fixed_width(lines: Sequence[str]) -> bool:
    """Say whether at least three lines have columns of text that begin below each other.

    A column begins after a blank in each line, after two in some, and with text in most lines and in
    the first one.
    """
    if len(lines) < LEAST_LINES or not _DELIMITERS.isdisjoint(lines[0]):
        return False
    width = max(map(len, lines))
    padded = [line.ljust(width) for line in lines]
    for at in range(2, width):
        if padded[0][at] == " " or any(line[at - 1] != " " for line in padded):
            continue
        filled = sum(line[at] != " " for line in padded)
        gaps = sum(line[at - 2] == " " for line in padded)
        if filled >= SHARE_FILLED * len(padded) and gaps >= len(padded) / 2:
            return True
    return False


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
    if head.startswith(b"\x1e") and head.lstrip(b"\x1e \t\r\n").startswith(b"{"):  # RFC 7464
        return "json"
    if head.startswith(b"["):
        if _ARRAY_ABOVE_OBJECT.match(head):  # one line of JSON Lines that is no object
            return "jsonl"
        is_array = _ARRAY_OF_OBJECTS.match(head) is not None or given == "json"
        return "json" if is_array else given or "csv"
    if head.startswith(b"{"):
        return "json" if _spans_lines(head) else "jsonl"
    return given or "csv"


def _spans_lines(head: bytes) -> bool:
    """Say whether objects go on after their line, several are on each line, or commas between them."""
    first, end, rest = head.partition(b"\n")
    try:
        msgspec.json.decode(first)
    except (ValueError, RecursionError):
        second = rest.partition(b"\n")[0]
        if _has_several(first):
            return not rest.strip() or _has_several(second)
        if _ends_with_comma(first):
            return _ends_with_comma(second) or not rest[len(second) :].strip()
        last = first.rstrip()[-1:]
        return bool(end) and (last == b"[" or (last != b"}" and not _OBJECT_LINES.match(head)))
    return _COMMA_FIRST.match(rest) is not None


def _ends_with_comma(line: bytes) -> bool:
    """Say whether a line is an object and a comma."""
    text = line.strip()
    try:
        return text.endswith(b"},") and msgspec.json.decode(text[:-1]) is not None
    except (ValueError, RecursionError):
        return False


def _has_several(line: bytes) -> bool:
    """Say whether a line has an object, and another one after it."""
    text = line.decode(errors="replace").strip()
    try:
        _, end = _first_value(text)
    except (ValueError, RecursionError):
        return False
    return text[end:].lstrip(" \t\r\x1e,").startswith("{")
