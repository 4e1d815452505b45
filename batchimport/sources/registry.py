"""All formats of files, by the names that `--format` takes. To add one: an entry here; see docs/adding.md.

Only facts, so that `--help` can be made from them: a source is imported on first use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from batchimport.plugins import register

INSIDE = "!/"
"""Between the path of an archive and the name of a member, or a pattern of names."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files, and the source that reads it.

    Attributes:
        source: `module:Class`. A text format's class is called with (TextFile, name, options): the text
            is UTF-8, whatever the file is. A binary format's class is called with the same, and
            `TextFile.descriptor_path` is a path for the library that reads it.
        suffixes: Of file names, lower case, without that of a compression.
        magic: The first bytes of every file of a binary format; None for a text format.
        text: `module:Class` of a binary format that is read as text: called with (TextFile, options,
            folder for temporary files), it is the `TextFile` that the source gets.
        is_untyped: Every value is a string, whose type is inferred from its characters, as in CSV.
    """

    source: str
    suffixes: tuple[str, ...]
    magic: bytes | None = None
    text: str | None = None
    is_untyped: bool = False


_DELIMITED = "batchimport.sources.csv.source:DelimitedSource"

FORMATS = {
    "jsonl": Format("batchimport.sources.jsonl.source:JsonLinesSource", (".jsonl", ".ndjson")),
    "csv": Format(_DELIMITED, (".csv",), is_untyped=True),
    "tsv": Format(_DELIMITED, (".tsv", ".tab"), is_untyped=True),
    "copy": Format(_DELIMITED, (".copy",), is_untyped=True),
    "json": Format("batchimport.sources.json.source:JsonValuesSource", (".json",)),
    "parquet": Format(
        "batchimport.sources.parquet.source:ParquetSource", (".parquet",), magic=b"PAR1"
    ),
    "excel": Format(
        "batchimport.sources.excel.source:ExcelSource",
        (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"),
        magic=b"\xd0\xcf\x11\xe0",  # of .xls; the others are zip archives
        text="batchimport.sources.excel.sheet:SheetText",
        is_untyped=True,
    ),
}
"""All formats by their names."""

DELIMITER_NAMES = {
    "\t": "tab",
    ",": "comma",
    ";": "semicolon",
    "|": "pipe",
    " ": "space",
    ":": "colon",
    "^": "caret",
    "~": "tilde",
}
"""What notes call a delimiter, and `--delimiter` takes as well."""
_BY_NAME = {name: mark for mark, name in DELIMITER_NAMES.items()}
_ESCAPE = re.compile(
    r"\\+(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|([0-3][0-7]{2})|([tnr0]))|0x([0-9A-Fa-f]{2})\Z"
)
"""One backslash, or more: what a shell or a file makes of them differs."""


def spelled(delimiter: str | None) -> str | None:
    r"""Return the delimiter that an option means: `\t`, `\x01`, `\001`, `0x01` and `tab` are spelled."""
    if delimiter is None:
        return None

    def character(found: re.Match[str]) -> str:
        if found[4]:
            return {"t": "\t", "n": "\n", "r": "\r", "0": "\0"}[found[4]]
        if found[3]:
            return chr(int(found[3], 8))
        return chr(int(found[1] or found[2] or found[5], 16))

    return _BY_NAME.get(delimiter.lower(), _ESCAPE.sub(character, delimiter))


register("batchimport.sources", FORMATS, Format)
