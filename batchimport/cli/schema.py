"""`schema`: what the records look like, as a JSON Schema to edit."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from batchimport.cli import options as o
from batchimport.display.escape import safe
from batchimport.sources.bytes.spool import Spool
from batchimport.sources.paths import STANDARD_INPUT, find_sources
from batchimport.state.directory import StateDirectory

_UNSEEN = re.compile("[\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]")
"""Control characters and marks of direction that JSON leaves as they are."""


def schema(  # noqa: PLR0913 - one parameter an option
    sources: o.Sources,
    *,
    infer_rows: o.InferRows = "10000",
    format: o.FormatOption = None,  # noqa: A002 - the option's name
    compression: o.CompressionOption = None,
    encoding: o.Encoding = None,
    delimiter: o.Delimiter = None,
    quote: o.Quote = None,
    no_header: o.NoHeader = False,
    null_string: o.NullString = None,
    skip_lines: o.SkipLines = None,
    max_record_bytes: o.MaxRecordBytes = "16MiB",
    verbose: o.Verbose = False,
) -> None:
    """Infer a JSON Schema of the records and print it, ready to edit and to give to --schema."""
    from batchimport.jobs.start import infer  # noqa: PLC0415 - imports Polars
    from batchimport.sources import open_source  # noqa: PLC0415 - imports Polars

    del verbose  # read by `main`
    records = o.parse_infer_records(infer_rows)
    options = o.source_options(
        format=format,
        compression=compression,
        encoding=encoding,
        delimiter=delimiter,
        quote=quote,
        no_header=no_header,
        null_string=null_string,
        skip_lines=skip_lines,
        max_record_bytes=max_record_bytes,
    )
    paths = find_sources(sources)
    with ExitStack() as stack:
        spool = _read_standard_input(stack) if STANDARD_INPUT in paths else None
        source = open_source(paths, options, spool)
        stack.callback(source.close)
        for note in source.notes:
            typer.echo(safe(note, 200), err=True)
        document = infer(source, records)
    typer.echo(_layout(document))


def _read_standard_input(stack: ExitStack) -> Spool:
    """Keep standard input for as long as it is looked at."""
    folder = stack.enter_context(TemporaryDirectory(prefix="batchimport-"))
    spool = Spool.of_standard_input(StateDirectory(Path(folder)))
    stack.callback(spool.close)
    return spool


def _layout(document: dict[str, Any]) -> str:
    """Write a schema with one line for each property; nothing in it can drive a terminal."""
    properties = document["properties"].items()
    lines = ",\n".join(f"    {_text(name)}: {_text(rule)}" for name, rule in properties)
    rest = json.dumps({**document, "properties": {}}, indent=2)
    text = rest.replace('"properties": {}', f'"properties": {{\n{lines}\n  }}')
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
