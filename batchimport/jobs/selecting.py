"""Which rejects are meant: by code, field and stage, and by a file in which their records were edited."""

from __future__ import annotations

import shutil
import sys
import threading
from array import array
from base64 import b64decode
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, get_args

import msgspec

from batchimport.errors import UsageError, from_system
from batchimport.model import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchimport.model import Committed, FieldError, Reject

STANDARD_INPUT = "-"
WHOLE_RECORD = "(record)"
"""What tables show as the field of an error that concerns the whole record."""


@dataclass(frozen=True, slots=True)
class RejectFilter:
    """Conditions on rejects: all kinds of them must hold; of each kind, one of its values.

    Code, field and word are those of the same error. Nothing is a condition that always holds.

    Attributes:
        fields: A field also stands for what is inside of it.
        words: Codes, fields or stages, whichever they are.
    """

    codes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the stages, of which there are only a few.

        Raises:
            UsageError: If one is unknown.
        """
        known = get_args(Stage)
        for stage in self.stages:
            if stage not in known:
                raise UsageError(f"{stage!r} is not one of {', '.join(known)}", where="stage")

    @staticmethod
    def of(conditions: Iterable[str]) -> RejectFilter:
        """Return the filter of conditions such as `code=type`, `field=age`, `stage=store` or `age`.

        Raises:
            UsageError: If one has another name before its equals sign, or nothing after it.
        """
        values: dict[str, list[str]] = {"code": [], "field": [], "stage": [], "": []}
        for condition in conditions:
            name, equals, value = condition.partition("=")
            kind, value = (name, value) if equals else ("", condition)
            if kind not in values or not value:
                raise UsageError(
                    f"not a condition: {condition!r}",
                    where="--where",
                    hint="such as code=type, field=age, stage=store, or one of these words alone",
                )
            values[kind].append(value)
        return RejectFilter(*map(tuple, values.values()))

    def __bool__(self) -> bool:
        """Say whether there is any condition."""
        return bool(self.codes or self.fields or self.stages or self.words)

    def errors_of(self, reject: Reject) -> list[FieldError]:
        """Return the errors of a reject for which the conditions hold; none if it is not meant."""
        if self.stages and reject.stage not in self.stages:
            return []
        return [error for error in reject.errors if self._holds(error, reject.stage)]

    def _holds(self, error: FieldError, stage: str) -> bool:
        if self.codes and error.code not in self.codes:
            return False
        if self.fields and not any(_is_in(error.field, name) for name in self.fields):
            return False
        return not self.words or any(
            word in (error.code, stage) or _is_in(error.field, word) for word in self.words
        )


def _is_in(name: str, outer: str) -> bool:
    """Say whether a field is another one, or inside of it."""
    if outer == WHOLE_RECORD:
        return not name
    return name == outer or name.startswith((f"{outer}.", f"{outer}["))


# -- edited records ----------------------------------------------------------------------------------


class _Line(msgspec.Struct):
    """What matters of a line of a rejects file."""

    record: int
    raw: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    raw_base64: str | None = None
    source: str | None = None
    byte_offset: int | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Corrections:
    """A rejects file in which the user edited the records; the last line of a record counts.

    It is copied first, so that it may be the file that the replay writes again.

    Args:
        path: `-` reads standard input.

    Attributes:
        given_up: Records whose `raw` is null.

    Raises:
        UsageError: If a line cannot be read. Nothing was done with the others then.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = TemporaryFile(prefix="batchimport-")  # noqa: SIM115 - closed by `close`
        try:
            if path == STANDARD_INPUT:
                shutil.copyfileobj(sys.stdin.buffer, self._file)
            else:
                with open(path, "rb") as given:  # noqa: PTH123 - any path, as it was typed
                    shutil.copyfileobj(given, self._file)
        except OSError as error:
            self._file.close()
            raise from_system(error) from error
        self._lock = threading.Lock()
        self._places: dict[int, tuple[int, int]] = {}
        self.given_up: set[int] = set()
        self._file.seek(0)
        at = 0
        for number, line in enumerate(self._file, start=1):
            if line.strip():
                self._add(at, number, line)
            at += len(line)

    def _add(self, at: int, number: int, line: bytes) -> None:
        try:
            found = _read(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._error(
                number, str(error).replace("JSON is malformed", "is not JSON")
            ) from error
        self._places[found.record] = (at, number)
        self.given_up.discard(found.record)
        if found.raw is None:
            self.given_up.add(found.record)

    def _error(self, number: int, message: str) -> UsageError:
        return UsageError(
            message[:1].lower() + message[1:],
            where=f"--from {self._path}, line {number}",
            hint='a line of a rejects file: {"record": 7, "raw": "the record as it should be"}',
        )

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._places)

    def __contains__(self, record: int) -> bool:
        """Say whether there is a line for a record."""
        return record in self._places

    def raw(self, reject: Reject) -> bytes | None:
        """Return the record of a reject as it was edited; None if it is given up.

        Raises:
            UsageError: If the line is of another source or place: the file belongs to another job.
        """
        at, number = self._places[reject.record]
        with self._lock:
            self._file.seek(at)
            line = self._file.readline()
        found = _read(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        place = (found.source or reject.source, found.byte_offset)
        if place not in ((reject.source, reject.byte_offset), (reject.source, None)):
            raise self._error(
                number,
                f"is of another job: its record {found.record} is at byte {found.byte_offset} of "
                f"{found.source}, that of this job at byte {reject.byte_offset} of {reject.source}",
            )
        return found.raw

    def close(self) -> None:
        """Remove the copy."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class _Correction:
    record: int
    raw: bytes | None
    source: str | None
    byte_offset: int | None


def _read(line: bytes) -> _Correction:
    """Return what a line says.

    Raises:
        ValueError: If it is not a line of a rejects file.
    """
    found = _decode(line)
    if isinstance(found.raw, msgspec.UnsetType):
        if found.raw_base64 is None:
            raise ValueError("has neither raw nor raw_base64")
        raw: bytes | None = b64decode(found.raw_base64, validate=True)
    else:
        raw = _text(bytes(found.raw))
    return _Correction(found.record, raw, found.source, found.byte_offset)


def _text(raw: bytes) -> bytes | None:
    """Return a record that stands in JSON as a string, or as the object that it is."""
    if raw == b"null":
        return None
    if raw.startswith(b"{"):
        return raw
    return msgspec.json.decode(raw, type=str).encode()


# -- the choice --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Choice:
    """The rejects that are to be replayed.

    Attributes:
        records: Their numbers, ascending.
        given_up: Those that leave the rejects without being stored.
        rejects: How many rejects the job has.
        unknown: Records in the file of corrections that are not rejects of the job.
    """

    records: array[int] = field(default_factory=lambda: array("q"))
    given_up: set[int] = field(default_factory=set)
    rejects: int = 0
    unknown: int = 0


def choose(
    rejects: Iterable[Reject], conditions: RejectFilter, corrections: Corrections | None
) -> Choice:
    """Choose among the rejects of a job.

    Raises:
        UsageError: If the corrections are those of another job.
    """
    choice, known = Choice(), 0
    for reject in rejects:
        choice.rejects += 1
        if corrections is not None:
            if reject.record not in corrections:
                continue
            known += 1
            is_given_up = corrections.raw(reject) is None
        if conditions and not conditions.errors_of(reject):
            continue
        choice.records.append(reject.record)
        if corrections is not None and is_given_up:
            choice.given_up.add(reject.record)
    choice.unknown = len(corrections) - known if corrections is not None else 0
    return choice


def removal_of(committed: Iterable[Committed]) -> str | None:
    """Return what to say of a job without rejects: that it had some, which were removed, if so."""
    failed = sum(row.failed for row in committed)
    if not failed:
        return None
    were = "1 record was" if failed == 1 else f"{failed:,} records were"
    return f"{were} rejected, and the rejects were removed since (prune --rejects-only)"


def notes_on(
    choice: Choice, conditions: RejectFilter, committed: Iterable[Committed]
) -> Sequence[str]:
    """Return what users should know about a choice among the rejects of these chunks."""
    notes = []
    if not choice.rejects and (removal := removal_of(committed)):
        notes.append(removal)
    if choice.unknown:
        lines = "1 line is" if choice.unknown == 1 else f"{choice.unknown:,} lines are"
        notes.append(f"{lines} skipped: no reject of this job, or not any more")
    if conditions and not choice.records and choice.rejects:
        notes.append(f"no reject of {choice.rejects:,} is meant by --where")
    return notes
