"""The sources of the benchmark: the same records as JSON Lines and as CSV, and what must be stored.

A source is made when it is first asked for, and kept: with `--data DIR` for the next benchmark, too.
All records have an `id`, numbered from 1, and a `name`; by these the stored rows are checked.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from tests.bench.make_records import BAD, COLUMNS, csv_row, make, user
from tests.helpers.cli import SAMPLE

Record = dict[str, Any]
KINDS = {
    "id": "integer", "email": "text", "name": "text", "age": "integer", "score": "number",
    "active": "boolean", "plan": "text", "signup_date": "date", "created_at": "time",
    "external_id": "uuid", "phone": "text", "address": "json", "tags": "json",
}  # fmt: skip
"""What the columns of a loader's table are; `TYPES` in peers.py says what a database calls it."""

USERS = tuple(name for name in COLUMNS if name not in ("phone", "address", "tags"))
USER_KINDS = {name: KINDS[name] for name in USERS}
REFUSED = tuple(kind for kind in BAD if kind not in ("repeated_id", "bad_zip"))
"""Kinds of bad records that validation rejects in the ten columns of users."""

WIDE_COLUMNS, HEAVY_LETTERS, SMALL_FILES = 200, 10_000, 1_500


@dataclass(frozen=True)
class Facts:
    """What identifies the rows of a table: count, sum of `id`, characters of `name`."""

    rows: int = 0
    ids: int = 0
    letters: int = 0

    def plus(self, record: Record) -> Facts:
        """Return the facts with one more row."""
        return Facts(self.rows + 1, self.ids + record["id"], self.letters + len(record["name"]))


@dataclass(frozen=True)
class Source:
    """Records on disk.

    Attributes:
        columns: Kind of each column, by its name.
        schema: JSON Schema file, or None for an inferred schema.
        facts: Of the records that are valid.
    """

    jsonl: Path
    csv: Path
    columns: dict[str, str]
    schema: Path | None
    facts: Facts


def facts_of_first(source: Source, records: int) -> Facts:
    """Return what identifies the first records of a source without bad ones."""
    facts = Facts()
    with source.jsonl.open(encoding="utf-8") as lines:
        for line in islice(lines, records):
            facts = facts.plus(json.loads(line))
    return facts


class Data:
    """Sources in a directory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()

    def users(self, records: int, *, bad: float = 0.0) -> Source:
        """Make users of ten plain columns, about 240 bytes each.

        Args:
            records: Number of records.
            bad: Share of records that are invalid, 0 to 1.
        """
        made = make(records, bad, 1, REFUSED)
        lines = ((_plain(line, record), record, kind) for line, record, kind in made)
        return self._source(f"users-{records}-{bad:g}", lines, USER_KINDS, USERS)

    def half_of_users(self, records: int) -> Source:
        """Make every second of these users, with another name, for the others to update."""
        random_ = Random(1)

        def record(number: int) -> Record:
            return _only(USERS, user(2 * number, random_)) | {"name": "before"}

        return self._made(f"half-{records}", records // 2, record, USER_KINDS, USERS)

    def records(self, records: int) -> Source:
        """Make users with formats, a key that may be missing, a nested object and an array."""
        return self._source(f"records-{records}", make(records, 0, 1), KINDS, COLUMNS)

    def wide(self, records: int) -> Source:
        """Make records of 200 columns: a third integers, a third numbers, a third short strings."""
        kinds = ("integer", "number", "text")
        names = [f"c{number}" for number in range(2, WIDE_COLUMNS)]
        columns = {"id": "integer", "name": "text"}
        columns |= {name: kinds[at % 3] for at, name in enumerate(names)}

        def record(number: int) -> Record:
            values = (number * 7, number / 8 + 0.5, f"value {number % 97}")
            row = {name: values[at % 3] for at, name in enumerate(names)}
            return {"id": number, "name": f"row {number}", **row}

        return self._made(f"wide-{records}", records, record, columns)

    def heavy(self, records: int) -> Source:
        """Make records of 10 KB, nearly all of it one string."""
        text = "All work and no play. " * (HEAVY_LETTERS // 22)

        def record(number: int) -> Record:
            return {"id": number, "name": f"row {number}", "body": f"{number} {text}"}

        columns = {"id": "integer", "name": "text", "body": "text"}
        return self._made(f"heavy-{records}", records, record, columns)

    def compressed(self, source: Source) -> Source:
        """Compress a source with gzip."""
        paths = [path.with_name(path.name + ".gz") for path in (source.jsonl, source.csv)]
        for path in paths:
            if not path.exists():
                with path.with_suffix("").open("rb") as plain, gzip.open(path, "wb", 6) as packed:
                    shutil.copyfileobj(plain, packed)
        return Source(paths[0], paths[1], source.columns, source.schema, source.facts)

    def split(self, path: Path, records: int, files: int) -> str:
        """Cut JSON Lines, or CSV whose header each part begins with; return the parts' pattern."""
        folder = self._folder / f"{path.name}-in-{files}"
        share, rest = divmod(records, files)
        if not folder.exists():
            folder.mkdir()
            with path.open("rb") as lines:
                header = next(lines) if path.suffix == ".csv" else b""
                for number in range(files):
                    part = folder / f"part-{number:06}{path.suffix}"
                    part.write_bytes(header + b"".join(islice(lines, share + (number < rest))))
        return f"{folder}/*{path.suffix}"

    def _made(
        self,
        label: str,
        records: int,
        record: Callable[[int], Record],
        columns: dict[str, str],
        in_schema: tuple[str, ...] = (),
    ) -> Source:
        made = map(record, range(1, records + 1))
        lines = ((_json(each), each, "good") for each in made)
        return self._source(label, lines, columns, in_schema)

    def _source(
        self,
        label: str,
        lines: Iterator[tuple[str, Record, str]],
        columns: dict[str, str],
        in_schema: tuple[str, ...] = (),
    ) -> Source:
        """Write lines and what is known of them, unless they are there already."""
        jsonl, rows = self._folder / f"{label}.jsonl", self._folder / f"{label}.csv"
        known = self._folder / f"{label}.facts"
        if not known.exists():
            known.write_text(json.dumps(asdict(_write(jsonl, rows, lines, columns))))
        facts = Facts(**json.loads(known.read_text()))
        return Source(jsonl, rows, columns, self._schema(in_schema), facts)

    def _schema(self, columns: tuple[str, ...]) -> Path | None:
        """Write the sample's schema with these columns alone."""
        if not columns:
            return None
        schema = json.loads((SAMPLE / "users.schema.json").read_text(encoding="utf-8"))
        schema["properties"] = _only(columns, schema["properties"])
        path = self._folder / f"of-{len(columns)}-columns.schema.json"
        path.write_text(json.dumps(schema), encoding="utf-8")
        return path


def _write(
    jsonl: Path, rows: Path, lines: Iterator[tuple[str, Record, str]], columns: dict[str, str]
) -> Facts:
    """Write the records in both formats; CSV has the good ones alone."""
    facts = Facts()
    with jsonl.open("w", encoding="utf-8") as text, rows.open("w", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(columns)
        for line, record, kind in lines:
            text.write(line + "\n")
            if kind == "good":
                facts = facts.plus(record)
                writer.writerow(csv_row(record, columns))
    return facts


def _plain(line: str, record: Record) -> str:
    """Return a user's line with the plain columns alone; what is bad in it stays."""
    try:
        return _json(_only(USERS, json.loads(line)))
    except ValueError:  # malformed on purpose
        return _json(_only(USERS, record))[:-20]


def _only(names: tuple[str, ...], values: Record) -> Record:
    return {name: values[name] for name in names if name in values}


def _json(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False)
