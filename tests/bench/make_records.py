"""Make user records: realistic, seeded, with a share of bad ones of every kind.

    python tests/bench/make_records.py --records 1000000 --bad 0.02 > users.jsonl

The same arguments always give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import sys
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FIRST = ("Anna", "Zoë", "José", "Łukasz", "Владимир", "美咲", "Aïcha", "محمد", "Siobhán", "Nguyễn")
LAST = ("Müller", "O'Neill", "García", "Øster", "Иванова", "田中", "Smith", "Çelik", "de la Cruz")
CITIES = ("Köln", "São Paulo", "東京", "Kraków", "Reykjavík", "Montréal", "Nairobi", "Αθήνα")
PLANS = ("free", "plus", "team", "enterprise")
TAGS = ("beta", "newsletter", "vip", "ops", "früh", "🚀", 'quoted "tag"', "a, b")
DAYS = tuple(f"{date(2023, 1, 1) + timedelta(n):%m-%d}" for n in range(365))
"""Of any year, so without 29 February."""
COLUMNS = (
    "id", "email", "name", "age", "score", "active", "plan", "signup_date", "created_at",
    "external_id", "phone", "address", "tags",
)  # fmt: skip


def user(number: int, random_: random.Random) -> dict[str, Any]:
    """Return a good record."""
    pick = random_.random
    first, last = FIRST[int(pick() * len(FIRST))], LAST[int(pick() * len(LAST))]
    record: dict[str, Any] = {
        "id": number,
        "email": f"user{number}@example.com",
        "name": f"{first} {last}",
        "age": None if pick() < 0.03 else 18 + int(pick() * 80),
        "score": round(pick() * 100, 2),
        "active": pick() < 0.7,
        "plan": PLANS[int(pick() * len(PLANS))],
        "signup_date": f"20{10 + int(pick() * 15)}-{DAYS[int(pick() * len(DAYS))]}",
        "created_at": f"2024-{DAYS[int(pick() * len(DAYS))]}T{int(pick() * 24):02}:15:{int(pick() * 60):02}Z",
        "external_id": f"{int(pick() * 2**32):08x}-0000-4000-8000-{number:012x}",
    }
    if pick() < 0.6:  # else the key is missing
        record["phone"] = f"+49 0{int(pick() * 10**9):09}"
    record["address"] = {
        "street": f"Main St {1 + int(pick() * 200)}",
        "city": CITIES[int(pick() * len(CITIES))],
        "zip": f"{int(pick() * 10**5):05}",
    }
    record["tags"] = [TAGS[int(pick() * len(TAGS))] for _ in range(int(pick() * 4))]
    return record


def _changed(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda record: _line(record | changes)


def _malformed(record: dict[str, Any]) -> str:
    line = _line(record)
    return line[: len(line) * 2 // 3]


def _without_email(record: dict[str, Any]) -> str:
    return _line({key: value for key, value in record.items() if key != "email"})


def _repeated_id(record: dict[str, Any]) -> str:
    return _line(record | {"id": 1, "email": f"again{record['id']}@example.com"})


BAD: dict[str, Callable[[dict[str, Any]], str]] = {
    "malformed_json": _malformed,
    "wrong_type": _changed(age="forty"),
    "out_of_range": _changed(score=250.5),
    "bad_email": _changed(email="nobody at example"),
    "bad_date": _changed(signup_date="2023-02-30"),
    "missing_key": _without_email,
    "unknown_plan": _changed(plan="gold"),
    "bad_zip": _changed(address={"street": "Main St 1", "city": "Köln", "zip": "5067"}),
    "repeated_id": _repeated_id,
}
"""Kinds of bad records; a repeated id is one only in a table where the id is unique."""


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def make(
    records: int, bad: float, seed: int, kinds: tuple[str, ...] = tuple(BAD)
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield line, record and kind (`good` or one of `BAD`) of each record."""
    random_ = random.Random(seed)
    for number in range(1, records + 1):
        record = user(number, random_)
        kind = "good"
        if number > 1 and random_.random() < bad:
            kind = kinds[int(random_.random() * len(kinds))]
        yield (BAD[kind](record) if kind in BAD else _line(record)), record, kind


def csv_row(record: dict[str, Any], columns: Iterable[str] = COLUMNS) -> list[str]:
    """Return a record as cells: nested values as JSON, null and missing as empty cells."""
    cells = []
    for name in columns:
        value = record.get(name)
        nested = isinstance(value, dict | list | bool)
        cells.append("" if value is None else _text(value) if nested else str(value))
    return cells


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def csv_line(cells: list[str]) -> str:
    """Return cells as a line of CSV, without its end."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(cells)
    return stream.getvalue()


def _csv_lines(records: Iterator[tuple[str, dict[str, Any], str]]) -> Iterator[str]:
    yield ",".join(COLUMNS)
    for line, record, kind in records:
        if kind == "malformed_json":  # in CSV: a cell too few
            yield csv_line(csv_row(record)[:-1])
        else:
            yield csv_line(csv_row(json.loads(line)))


def write(stream: TextIO, arguments: argparse.Namespace) -> None:
    """Write what the arguments ask for."""
    kinds = tuple(kind for kind in BAD if kind not in arguments.without)
    records = make(arguments.records, arguments.bad, arguments.seed, kinds)
    lines = (line for line, _, _ in records) if arguments.format == "jsonl" else _csv_lines(records)
    stream.writelines(line + "\n" for line in lines)


def main() -> None:
    """Parse the arguments and write to stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--bad", type=float, default=0.02, help="share of bad records, 0 to 1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    parser.add_argument("--without", nargs="*", default=[], choices=tuple(BAD), metavar="KIND")
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # stdout is a text file
    write(sys.stdout, parser.parse_args())


if __name__ == "__main__":
    main()
