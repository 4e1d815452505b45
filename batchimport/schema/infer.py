"""Infer a JSON Schema from records, as a careful person would type them.

An inferred schema never rejects null or a missing key: the records of the sample may not have
shown them.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from shlex import quote
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError
from batchimport.schema.forms import mark_of, spelling_of, type_of_text
from batchimport.schema.moments import DateFormat, DateOrder
from batchimport.schema.numbers import EXACT_IN_FLOAT, INT64, prints_alike

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from batchimport.model import Kind

DIALECT = "https://json-schema.org/draft/2020-12/schema"
WITNESSES_FOR_FORMAT = 20
"""Minimum number of values, all of the format, that make strings dates or UUIDs."""

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


MISSING = frozenset(
    {"", "-", "--", ".", "?", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "NaN", "nan", "NAN"}
    | {"NULL", "null", "Null", "None", "none", "<NA>", "\\N"}
)
"""What people write in a column of numbers where there is none. In a column of words it may be a word."""

NEVER_A_WORD = frozenset(
    {"\\N", "NULL", "null", "Null", "None", "NaN", "nan", "NAN", "<NA>", "#N/A", "#NA"}
)
"""Those that are worth a note in a column of words, too."""

LEAST_NUMBERS = 3
TEXT: dict[str, Any] = {"type": ["string", "null"]}
"""The rule of a column that takes any cell."""
DEEPEST_RECORDS = 3
"""How many keys deep the records are looked for in an object that may be an envelope."""

FEW, SHARE_OF_FEW = 3, 0.05
"""So many footnotes a table may have, and more if it is long."""
WIDEST_NAME = 30
_FORMATTED = ("date", "date-time", "uuid")
_WORDS = {
    "integer": "integer",
    "long": "integer beyond 53 bits",
    "huge": "number beyond 64 bits",
    "number": "decimal",
    "power": "number such as +5, 1e5 or 5.",
    "boolean": "true or false",
    "string": "string",
    "object": "object",
    "array": "array",
}


class FieldNames(dict[str, Any]):
    """The names of the fields of a file; no record."""

    __slots__ = ()


class Moment(str):
    """A cell of which its file says that it is a date or a point in time."""

    __slots__ = ()


def infer_schema(
    records: Iterable[dict[str, Any]], *, text: bool = False, formats: Sequence[DateFormat] = ()
) -> dict[str, Any]:
    """Return a schema that accepts the records.

    Args:
        text: The values are cells of delimited text: their types follow from how they are written.
        formats: How dates may be written.
    """
    return Inference(records, text=text, formats=formats).document


class Inference:
    """A schema that accepts some records, and why it is as it is.

    Attributes:
        document: The schema.
        records: Number of records that were looked at.
    """

    def __init__(
        self,
        records: Iterable[dict[str, Any]],
        *,
        text: bool = False,
        formats: Sequence[DateFormat] = (),
        typed: Mapping[str, Kind] = MappingProxyType({}),
    ) -> None:
        """Look at records, as `infer_schema` does.

        Args:
            typed: The columns whose type the user says.
        """
        dates = {name for name, kind in typed.items() if kind in ("date", "date-time")}
        self._dated = () if formats else dates
        self._columns: dict[str, _Evidence] = {}
        self._given = tuple(each.text for each in formats)
        self.records = 0
        self._bare = Bare()
        self._first: dict[str, Any] = {}
        self._inside: list[tuple[str, int]] = []
        for record in records:
            if not isinstance(record, FieldNames):
                self.records += 1
                if text:
                    self._bare.add(record)
                    self._first = self._first or record
                else:
                    self._inside = list(_arrays_in(record, "")) if self.records == 1 else []
            for name, value in record.items():
                known = self._columns.get(name)
                if known is None:
                    known = self._columns[name] = _Evidence(formats)
                known.add(value, text=text)
                if not text and name in self._dated and isinstance(value, str):
                    known.order.add(value.strip(" \t"))
        properties = {name: evidence.rule(text=text) for name, evidence in self._columns.items()}
        self.document = {"$schema": DIALECT, "type": "object", "properties": properties}

    def with_dates(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a schema with how dates are written in the columns that the user says are dates.

        Raises:
            UsageError: If most of a column may be read in two ways.
        """
        rules = dict(document["properties"])
        for name in self._dated:
            evidence = self._columns.get(name)
            if evidence is None:
                continue
            ways, undecided = evidence.order.likely(evidence.types.total())
            if undecided:
                raise UsageError(
                    f"column {name}: its dates may be written {' or '.join(undecided)}",
                    where=f"--type {name}",
                    hint=f"say which: --date-format {undecided[0]}",
                )
            rules[name] = rules[name] | {"x-date-format": ways}
        return document | {"properties": rules}

    def marked(self, document: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
        """Return a schema that says which of its types were inferred, and from how many records.

        Args:
            given: The columns whose type the user says.
        """
        rules = {
            name: rule | {"x-inferred": known.mark(self.records)}
            if (known := self._columns.get(name)) and name not in given and rule not in ({}, TEXT)
            else rule
            for name, rule in document["properties"].items()
        }
        return document | {"properties": rules}

    def notes(self, document: dict[str, Any]) -> tuple[str, ...]:
        """Return what users should know about a schema that was made of this one."""
        doubts = (
            f"column {name}: {doubt}"
            for name, rule in document["properties"].items()
            if (known := self._columns.get(name)) and (doubt := known.doubt(name, rule))
        )
        filled = {name: known.types.total() for name, known in self._columns.items()}
        bare = self._bare.notes(self.records, filled)
        inside = (
            f"the only record has an array of {count:,} objects: --records {path} imports them"
            for path, count in self._inside
        )
        return (
            *notes_about(document, self._given),
            *doubts,
            *self._units(document),
            *bare,
            *inside,
        )

    def _units(self, document: dict[str, Any]) -> Iterator[str]:
        """Yield what to know of a first record that alone has text in columns of numbers: units, perhaps."""
        rules = document["properties"]
        units = {
            name: value
            for name, value in self._first.items()
            if rules.get(name) == TEXT and self._columns[name].has_one_text(value)
        }
        if units:
            shown = ", ".join(f"{name} {value[:20]!r}" for name, value in [*units.items()][:3])
            way = quote(f"{next(iter(units))}=number")
            yield (
                f"the first record has text in {'a column' if len(units) == 1 else f'{len(units)} columns'} "
                f"of numbers, as units are ({shown}): --type {way} makes it a reject"
            )

    def report(self, document: dict[str, Any]) -> tuple[str, ...]:
        """Return a line for each column of such a schema: name, type, why, nulls."""
        names = list(document["properties"]) if self.records else []
        width = min(max(map(len, names), default=0), WIDEST_NAME)
        lines = []
        for name in names:
            rule, evidence = document["properties"][name], self._columns.get(name)
            kind = kind_in_words(rule)
            why = evidence.why(self.records, kind) if evidence else "not seen"
            lines.append(f"{name:{width}}  {kind:9}  {why}")
        return tuple(lines)


def kind_in_words(rule: dict[str, Any]) -> str:
    """Return the type of a column that an inferred rule gives."""
    if "x-type" in rule or "format" in rule:
        return str(rule.get("x-type") or rule["format"])
    kinds = [kind for kind in rule.get("type", []) if kind != "null"]
    return str(kinds[0]) if len(kinds) == 1 and kinds[0] not in ("object", "array") else "json"


def rule_of(kind: Kind, formats: Sequence[str] = ()) -> dict[str, Any]:
    """Return the rule of a column that has a type by the user's word.

    Args:
        formats: How its dates may be written, besides ISO 8601.
    """
    if kind == "json":
        return {}
    if kind in ("date", "date-time"):
        name = "format" if kind == "date" else "x-type"
        return {"type": ["string", "null"], name: kind, "x-date-format": list(formats)}
    if kind == "uuid":
        return {"type": ["string", "null"], "format": kind}
    return {"type": [kind, "null"]}


class Bare:
    """Rows of a table that have no value, and those at its end that have only their first one.

    Counted among the records that types are inferred from, which end with the table's last one only if it
    is short. The end of a long table is looked at by itself (`csv/footer.py`), and not for types: below it
    a footnote would make the first column text.
    """

    def __init__(self) -> None:
        self.empty = 0
        self._first_values: list[str] = []

    def add(self, record: dict[str, Any]) -> None:
        """Count a record, if it is such a row."""
        values = iter(record.values())
        first = next(values, None)
        if any(map(_is_filled, values)):
            self._first_values.clear()
        elif not _is_filled(first):
            self.empty += 1
        elif len(record) > 1:
            self._first_values.append(str(first))

    def notes(self, records: int, filled: dict[str, int]) -> tuple[str, ...]:
        """Return what users should know about them.

        Args:
            records: Number of all records.
            filled: How many records have a value, by column.
        """
        notes = []
        if 0 < self.empty < records:
            full = [name for name in filled if filled[name] == records - self.empty]
            notes.append(f"records without any value: {self.empty:,} of {records:,}{_kept(full)}")
        lonely = len(self._first_values)
        footnotes = note_about_footnotes(self._first_values)
        if footnotes and lonely <= min(max(FEW, SHARE_OF_FEW * records), records / 3):
            full = [name for name in filled if filled[name] == records - self.empty - lonely]
            notes.append(footnotes + _kept(full))
        return tuple(notes)


def note_about_footnotes(first_values: Sequence[str]) -> str:
    """Return that the last records are probably footnotes, empty if not; what becomes of them is to follow.

    Args:
        first_values: Of the records that have no other value.
    """
    if not first_values or any(
        type_of_text(text.strip()) in ("integer", "number") for text in first_values
    ):
        return ""
    return (
        "records at the end with nothing but a first value, as footnotes have: "
        f"{len(first_values):,}, such as {first_values[0][:40]!r}"
    )


def _kept(full: Sequence[str]) -> str:
    """Return that such records are stored, and how they are not.

    Args:
        full: Columns in which they, and no other records, have no value.
    """
    if not full:
        return " (they are stored)"
    name = '"' + full[0].replace('"', '""') + '"'
    query = quote(f"SELECT * FROM records WHERE {name} IS NOT NULL")  # noqa: S608 - to be shown
    return f" (they are stored; --sql {query} leaves them out)"


def _arrays_in(value: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield where arrays of objects are in the objects of an object, and how long they are."""
    if isinstance(value, dict) and path.count(".") < DEEPEST_RECORDS:
        for key, inner in value.items():
            yield from _arrays_in(inner, f"{path}.{key}" if path else key)
    elif (
        isinstance(value, list) and len(value) > 1 and all(isinstance(each, dict) for each in value)
    ):
        yield path, len(value)


def _is_filled(value: Any) -> bool:
    return value is not None and bool(value.strip())


class _Evidence:
    """What the values of one column have in common."""

    def __init__(self, formats: Sequence[DateFormat] = ()) -> None:
        self.types: Counter[str] = Counter()
        self.formats: Counter[str] = Counter()
        self.spellings: set[str] = set()
        self.missing: Counter[str] = Counter()
        self.examples: dict[str, Any] = {}
        self.moments = 0
        self._given = formats
        self._written: Counter[DateFormat | None] = Counter()
        self.order = DateOrder()

    def add(self, value: Any, *, text: bool) -> None:
        if value is None:
            return
        if text and value and (marker := value.strip(" \t")) in MISSING:
            self.missing[marker] += 1
            return
        kind = type_of_text(value) if text else _type_of(value)
        if kind == "boolean" and text:
            self.spellings.add(value)
        if kind not in self.types:
            self.examples[kind] = value
        self.types[kind] += 1
        self.moments += isinstance(value, Moment)
        if isinstance(value, str) and (format_name := _format_of(value)):
            self.formats[format_name] += 1
        if text and kind == "string":
            self.order.add(value.strip(" \t"))
        if self._given and isinstance(value, str):
            day = next((each for each in self._given if each.matches(value.strip(" \t"))), None)
            self._written[day] += 1

    def rule(self, *, text: bool) -> dict[str, Any]:
        missing = self._missing_numbers(set(self.types))
        if self.missing and not missing:
            self.types["string"] += self.missing.total()
            self.examples.setdefault("string", next(iter(self.missing)))
        kinds = set(self.types)
        if not kinds:
            return dict(TEXT) if text else {}
        if self._given and (dates := self._given_dates()):
            return dates
        kinds = self._narrowed(kinds, text=text)
        if len(kinds) > 1 or kinds & {"huge"}:
            return {}
        kind = kinds.pop()
        rule: dict[str, Any] = {"type": [kind, "null"]}
        if missing:
            rule["x-missing"] = missing
        total = self.types.total()
        if kind == "string":
            ways = self._ways()
            if len(ways) == 1 and not ways[0].startswith("%Y-"):
                return rule_of("date-time" if "%H" in ways[0] else "date", ways)
            name, seen = next(iter(self.formats.most_common(1)), ("", 0))
            if (
                seen == total
                and max(total, self.moments * WITNESSES_FOR_FORMAT) >= WITNESSES_FOR_FORMAT
            ):
                rule["format"] = name
        return rule

    def _given_dates(self) -> dict[str, Any] | None:
        """Return the rule of a column whose values are all written as the user says."""
        used = [each for each in self._written if each is not None]
        is_iso = self._written[None] == self.formats["date"] + self.formats["date-time"]
        if not used or not is_iso or self._written.total() != self.types.total():
            return None
        has_time = any(each.has_time for each in used) or self.formats["date-time"] > 0
        return rule_of("date-time" if has_time else "date", [each.text for each in used])

    def _ways(self) -> list[str]:
        """Return how the values may be written, if all are dates."""
        return self.order.ways if self.order.seen == self.types.total() else []

    def doubt(self, name: str, rule: dict[str, Any]) -> str:
        """Return what could not be decided about a column that became text."""
        if rule != TEXT:
            return ""
        ways = self._ways()
        if len(ways) > 1:
            return f"dates whose day and month cannot be told apart are text (--date-format {ways[0]!r})"
        if ways and "%H" in ways[0]:
            return f"times without a zone are text (--type {name}=date-time reads them)"
        numbers = self.types["integer"] + self.types["number"]
        others = self.types.total() - numbers - self.types["power"]
        if numbers and self.missing and others == self.missing.total():
            marker = next(iter(self.missing))
            return (
                f"numbers and {marker!r} are text (--null-string {marker!r} if that means missing)"
            )
        marker = next((each for each in self.missing if each in NEVER_A_WORD), "")
        return f"{marker!r} is text (--null-string {marker!r} if it means missing)" * bool(marker)

    def why(self, records: int, kind: str) -> str:
        """Return what was seen, the most frequent first, with an example of the rarest."""
        words = (
            _WORDS | {"string": {"uuid": "UUID"}.get(kind, kind)} if kind in _FORMATTED else _WORDS
        )
        seen = self.types.most_common()
        if not seen:
            return f"{records:,} null"
        parts = [_counted(count, words[each]) for each, count in seen]
        if len(seen) > 1:
            parts[-1] += f", such as {str(self.examples[seen[-1][0]])[:40]!r}"
        nulls = records - self.types.total()
        return ", ".join([*parts, *([f"{nulls:,} null"] if nulls > 0 else [])])

    def _narrowed(self, kinds: set[str], *, text: bool) -> set[str]:
        """Return the one kind that holds all values; several if there is none."""
        if kinds <= {"integer", "long"}:
            kinds = {"integer"}
        elif "number" in kinds and kinds <= {"integer", "number", "power"}:
            kinds = {"number"}
        elif "power" in kinds:
            kinds = {"string"}
        if text and (len(kinds) > 1 or not spelling_of(self.spellings)):
            return {"string"}
        return kinds

    def has_one_text(self, value: Any) -> bool:
        """Say whether all values are numbers, except for this one."""
        others = self.types.total() - 1
        numbers = self.types["integer"] + self.types["number"]
        is_text = value is not None and self.examples.get("string") == value
        return is_text and numbers == others >= LEAST_NUMBERS

    def mark(self, records: int) -> dict[str, Any]:
        """Return how a schema says that the type was inferred from that many records."""
        return mark_of(records, sorted(spelling_of(self.spellings) or ()) if self.spellings else ())

    def _missing_numbers(self, kinds: set[str]) -> list[str]:
        """Return what stands for missing numbers; nothing if the column may not be one of numbers."""
        numbers = self.types.total()
        are_numbers = kinds == {"integer"} or (
            "number" in kinds and kinds <= {"integer", "number", "power"}
        )
        is_safe = numbers >= LEAST_NUMBERS and numbers >= self.missing.total()
        return sorted(self.missing) if are_numbers and is_safe else []


def _counted(count: int, words: str) -> str:
    """Return a number of values; of several words, the first one says what they are."""
    noun, *others = words.split(" ")
    return " ".join([f"{count:,}", noun if count == 1 or noun == "true" else f"{noun}s", *others])


def notes_about(document: dict[str, Any], given: Collection[str] = ()) -> tuple[str, ...]:
    """Return what users should know about an inferred schema.

    Args:
        given: The ways to write dates that the user named.
    """
    marked = {
        name: " ".join(map(repr, rule["x-missing"]))
        for name, rule in document.get("properties", {}).items()
        if "x-missing" in rule
    }
    dates = {
        name: " or ".join(rule["x-date-format"])
        for name, rule in document.get("properties", {}).items()
        if set(rule.get("x-date-format", ())) - set(given)
    }
    return (
        *(f"column {name}: numbers; {markers} means missing" for name, markers in marked.items()),
        *(f"column {name}: dates, written {format_}" for name, format_ in dates.items()),
    )


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        if abs(value) <= EXACT_IN_FLOAT:
            return "integer"
        return "long" if -INT64 <= value < INT64 else "huge"
    if isinstance(value, float | Decimal):
        return "number" if prints_alike(str(value)) else "huge"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _format_of(value: str) -> str | None:
    if not SHORTEST <= len(value) <= LONGEST:
        return None
    for name, shape, parse in _FORMATS:
        if shape.fullmatch(value):
            try:
                parse(value)
            except ValueError:
                return None
            return name
    return None


SHORTEST, LONGEST = len("2024-01-31"), len("12345678-1234-1234-1234-123456789abc")
_FORMATS: tuple[tuple[str, re.Pattern[str], Callable[[str], object]], ...] = (
    ("date", _DATE, date.fromisoformat),
    ("date-time", _DATE_TIME, datetime.fromisoformat),
    ("uuid", _UUID, str),
)
