"""The options that say how a source is read, and what becomes of its records' keys."""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
from dataclasses import dataclass
from typing import Annotated, ClassVar

from batchimport.cli.completion import formats
from batchimport.cli.options import Number, Option, Size, parse_size
from batchimport.model import (
    Compression,
    DecimalMark,
    Ragged,
    SourceOptions,
    ThousandsMark,
)
from batchimport.sources.registry import FORMATS


@dataclass(frozen=True)
class Keys:
    """What the keys of the records become."""

    title: ClassVar = "Columns"

    rename: Annotated[
        list[str] | None,
        Option(metavar="OLD=NEW", help="Rename a key; may be repeated."),
    ] = None
    columns: Annotated[
        str | None,
        Option(metavar="COLUMNS", help="Import only these columns, in this order: id,name"),
    ] = None
    type_: Annotated[
        list[str] | None,
        Option(
            "--type",
            metavar="COLUMN=TYPE",
            help="Type of a column instead of the inferred one: integer, number, boolean, string, "
            "date, date-time, uuid or json; may be repeated.",
        ),
    ] = None
    flatten: Annotated[
        bool,
        Option("--flatten", help="JSON: keys of nested objects become columns outer.inner."),
    ] = False

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to import."""
        return tuple(name.strip() for name in self.columns.split(",")) if self.columns else ()


@dataclass(frozen=True)
class Shaping(Keys):
    """What the keys of the records become, and the columns that are added to them."""

    add_column: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=WHAT",
            help="Add a column: file, record (number, from 0), line, loaded_at (when the job began), "
            "job (its id), or any other text as a constant; may be repeated.",
        ),
    ] = None


@dataclass(frozen=True)
class Reading:
    """How the source is written."""

    title: ClassVar = "Source"

    format: Annotated[
        str | None,
        Option(
            metavar=f"<{'|'.join(FORMATS)}>",
            autocompletion=formats,
            help="Format of the source. Default: by name and content.",
        ),
    ] = None
    compression: Annotated[
        Compression | None, Option(help="Compression of the source. Default: by content.")
    ] = None
    encoding: Annotated[
        str | None,
        Option(metavar="NAME", help="utf-8, utf-16, latin-1, windows-1252, … Default: detected."),
    ] = None
    delimiter: Annotated[
        str | None,
        Option(
            metavar="TEXT",
            help="CSV: delimiter, one character or several; \\t, \\x01. Default: detected.",
        ),
    ] = None
    quote: Annotated[
        str | None,
        Option(
            metavar="CHARACTER", help="CSV: quote character; empty for none. Default: detected."
        ),
    ] = None
    has_header: Annotated[
        bool, Option("--header", help="CSV: the first row holds the names, whatever it looks like.")
    ] = False
    no_header: Annotated[bool, Option("--no-header", help="CSV: the first row is a record.")] = (
        False
    )
    null_string: Annotated[
        list[str] | None,
        Option(
            metavar="TEXT",
            help="CSV: a cell that means null; may be repeated. Default: an empty cell.",
        ),
    ] = None
    skip_lines: Annotated[
        int | None, Number(help="CSV: number of lines before the header. Default: detected.")
    ] = None
    decimal: Annotated[
        DecimalMark | None, Option(help="CSV: mark before decimals. Default: detected, else a dot.")
    ] = None
    thousands: Annotated[
        ThousandsMark | None,
        Option(
            metavar="CHARACTER", help="CSV: mark between thousands. Default: detected, else none."
        ),
    ] = None
    date_format: Annotated[
        list[str] | None,
        Option(
            metavar="FORMAT",
            help="How dates and times are written besides ISO 8601, such as %d.%m.%Y or "
            "'%d.%m.%Y %H:%M'; may be repeated.",
        ),
    ] = None
    comment: Annotated[
        str | None, Option(metavar="TEXT", help="CSV: skip lines that begin with this.")
    ] = None
    ragged: Annotated[
        Ragged | None,
        Option(
            help="CSV: pad: missing fields are null, and surplus fields are dropped if they are empty. "
            "Default: reject."
        ),
    ] = None
    sheet: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Excel: name or number of the sheet. Default: the first visible one.",
        ),
    ] = None
    records: Annotated[
        str | None,
        Option(metavar="PATH", help="JSON: keys that lead to the array of records: data.items"),
    ] = None
    max_record_bytes: Annotated[str, Size(help="Longer records are rejected.")] = "16MiB"

    def options(self, shape: Keys) -> SourceOptions:
        """Return the options of the sources.

        Args:
            shape: What is made of the records' keys.

        Raises:
            UsageError: If one is not valid.
        """
        nulls = self.null_string or []
        return SourceOptions(
            format=self.format,
            compression=self.compression,
            delimiter=self.delimiter,
            quote=self.quote,
            encoding=self.encoding,
            header=not self.no_header,
            has_header=self.has_header,
            null_string=nulls[0] if len(nulls) == 1 else tuple(nulls) or None,
            skip_lines=self.skip_lines,
            max_record_bytes=parse_size(self.max_record_bytes, "--max-record-bytes"),
            decimal=self.decimal,
            thousands=self.thousands,
            comment=self.comment,
            ragged=self.ragged,
            date_formats=tuple(self.date_format or ()),
            records=self.records,
            flatten=shape.flatten,
            sheet=self.sheet,
            rename=tuple(shape.rename or ()),
            columns=shape.names,
            types=tuple(shape.type_ or ()),
            add_columns=tuple(shape.add_column or ()) if isinstance(shape, Shaping) else (),
        )
