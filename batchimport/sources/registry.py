"""All formats of files, by the names that `--format` takes. To add one: an entry here; see docs/adding.md.

Only facts, so that `--help` can be made from them: a source is imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files, and the source that reads it.

    Attributes:
        source: `module:Class`. A text format's class is called with (TextFile, name, options): the text
            is UTF-8, whatever the file is. A binary format's class is called with the same, and
            `TextFile.descriptor_path` is a path for the library that reads it.
        suffixes: Of file names, lower case, without that of a compression.
        magic: The first bytes of every file of a binary format; None for a text format.
        is_untyped: Every value is a string, whose type is inferred from its characters, as in CSV.
    """

    source: str
    suffixes: tuple[str, ...]
    magic: bytes | None = None
    is_untyped: bool = False


_DELIMITED = "batchimport.sources.csv.source:DelimitedSource"

FORMATS = {
    "jsonl": Format("batchimport.sources.jsonl.source:JsonLinesSource", (".jsonl", ".ndjson")),
    "csv": Format(_DELIMITED, (".csv",), is_untyped=True),
    "tsv": Format(_DELIMITED, (".tsv", ".tab"), is_untyped=True),
    "json": Format("batchimport.sources.json.source:JsonValuesSource", (".json",)),
    "parquet": Format(
        "batchimport.sources.parquet.source:ParquetSource", (".parquet",), magic=b"PAR1"
    ),
}
"""All formats by their names."""
