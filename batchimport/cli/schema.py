"""`schema`: infer a JSON Schema of the records."""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from batchimport.cli import options as o
from batchimport.cli.options.reading import Keys, Reading
from batchimport.display.escape import safe
from batchimport.sources.paths import STANDARD_INPUT, find_sources
from batchimport.state.directory import StateDirectory

if TYPE_CHECKING:
    from batchimport.sources.bytes.spool import Spool

_UNSEEN = re.compile("[\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]")
"""Control characters and direction marks that `json.dumps` does not escape."""


def schema(
    sources: o.Sources, *, infer_rows: o.InferRows = "10000", reading: Reading, keys: Keys
) -> None:
    """Infer a JSON Schema of the records and print it, to edit and to pass to --schema."""
    text, notes = inferred_text(find_sources(sources), infer_rows, reading, keys)
    for note in notes:
        typer.echo(safe(note, 200), err=True)
    typer.echo(text)


def inferred_text(
    paths: tuple[str, ...], infer_rows: str, reading: Reading, keys: Keys
) -> tuple[str, tuple[str, ...]]:
    """Return the JSON Schema of the records of some files, and what users should know about it."""
    from batchimport.jobs.start import infer  # noqa: PLC0415 - imports Polars
    from batchimport.schema.forms import without_marks  # noqa: PLC0415 - likewise
    from batchimport.sources.opening import open_source  # noqa: PLC0415 - likewise

    records = o.parse_infer_records(infer_rows)
    options = reading.options(keys)
    with ExitStack() as stack:
        spool = _read_standard_input(stack) if STANDARD_INPUT in paths else None
        source = open_source(paths, options, spool)
        stack.callback(source.close)
        inferred = infer(source, records, options)
        notes = (*source.notes, *inferred.notes, *inferred.report)
    # Who passes the schema to --schema gives the types; what is ignored is a note of the job to itself.
    document = without_marks(inferred.document)
    document.pop("x-ignored", None)
    return _layout(document), notes


def _read_standard_input(stack: ExitStack) -> "Spool":
    """Keep standard input in a file until the schema is inferred."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - not for `--help`

    from batchimport.sources.bytes.spool import Spool  # noqa: PLC0415 - likewise

    folder = stack.enter_context(TemporaryDirectory(prefix="batchimport-"))
    spool = Spool.of_standard_input(StateDirectory(Path(folder)))
    stack.callback(spool.close)
    return spool


def _layout(document: dict[str, Any]) -> str:
    """Write a schema with one line per property; nothing in it can act on a terminal."""
    properties = document["properties"].items()
    lines = ",\n".join(f"    {_text(name)}: {_text(rule)}" for name, rule in properties)
    rest = json.dumps({**document, "properties": {}}, indent=2)
    text = rest.replace('"properties": {}', f'"properties": {{\n{lines}\n  }}')
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
