"""What a table holds already: the content of a new job, by another one; the rows of a known job.

One content goes into one table once. Content is what a file's bytes say, not its name: the ledger has
a digest of every committed chunk, and a file holds the records of a job if its beginning has the
digests of that job's chunks. Sources and tables are compared as they are, whatever they are called.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from batchimport.display.units import ago, counted, parse_time
from batchimport.errors import AlreadyStoredError, BatchImportError, RowsGoneError
from batchimport.jobs.alike import EarlierFile, alike
from batchimport.model import Chunk, Committed, Position
from batchimport.sinks.base import (
    BEGAN_EMPTY,
    CHUNKS,
    CONTENTS,
    DUPLICATES,
    EMPTIED_AT,
    FORGOTTEN,
    FORMS,
    STAGED,
    table_of,
)
from batchimport.sources.base import Content
from batchimport.sources.opening import open_source
from batchimport.sources.paths import is_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from batchimport.model import Job
    from batchimport.sinks.base import JobRecord, Sink
    from batchimport.sources.base import Source

_OPTIONS = {
    "sql": "--sql",
    "transform": "--transform",
    "schema": "--schema",
    "limit": "--limit",
    "key": "--key",
    "on_conflict": "--on-conflict",
    "if_exists": "--if-exists",
    "format": "--format",
    "compression": "--compression",
    "delimiter": "--delimiter",
    "quote": "--quote",
    "encoding": "--encoding",
    "header": "--no-header",
    "null_string": "--null-string",
    "skip_lines": "--skip-lines",
    "decimal": "--decimal",
    "thousands": "--thousands",
    "comment": "--comment",
    "ragged": "--ragged",
    "date_formats": "--date-format",
    "records": "--records",
    "flatten": "--flatten",
    "sheet": "--sheet",
    "rename": "--rename",
    "columns": "--columns",
    "types": "--type",
    "add_columns": "--add-column",
}
"""Facts of a job whose difference is worth telling, by the option that sets them."""


# -- the content of a new job ----------------------------------------------------------------------


def facts_of(source: Source, *, allow_duplicates: bool) -> dict[str, Any]:
    """Return what the ledger keeps of a job so that later ones can be compared with it."""
    contents = [[content.size, content.fingerprint] for content in source.contents]
    forms = list(source.forms)
    if all(form == forms[0] for form in forms):
        del forms[1:]
    return {CONTENTS: contents, FORMS: forms, **({DUPLICATES: True} if allow_duplicates else {})}


def appends(job: Job) -> bool:
    """Say whether a job adds rows to those that its table has, without a key to find them again."""
    return job.if_exists == "append" and (job.on_conflict == "error" or not job.key)


def same_table(table: str, sink: Sink, records: Sequence[JobRecord]) -> list[JobRecord]:
    """Return the jobs that write to a table, by whatever name."""
    identity = sink.identity_of(table)
    names = {str(record.configuration.get("table")) for record in records}
    same = {
        name
        for name in names
        if name == table or (identity is not None and sink.identity_of(name) == identity)
    }
    return [record for record in records if record.configuration.get("table") in same]


def refuse_stored_content(
    job: Job,
    source: Source,
    sink: Sink,
    others: Sequence[JobRecord],
    may_run: Callable[[JobRecord], bool],
) -> None:
    """Refuse to append what the table has from another job, or will have.

    Args:
        others: The jobs on the table that count: not the one that is to begin, nor those that it
            replaces.
        may_run: Says whether a job is being imported, or may be.

    Raises:
        AlreadyStoredError: If so.
    """
    # First who is at work, then what is there: one that ends meanwhile has left its rows.
    working = [each for each in others if each.state == "running" and may_run(each)]
    if sink.identity_of(job.table) is None or not sink.has_rows(job.table):
        others = working
    replacers = _replacers(others)
    candidates = [record for record in others if _replaced_by(record, replacers) is None]
    if not candidates:
        return
    known = sink.first_chunks()
    for encoding, records in _by_encoding(candidates).items():
        files = [file for record in records for file in _files_of(record, sink, known)]
        with _read_as(encoding, job, source) as text:
            bases = [0, *accumulate(content.size for content in text.contents)]
            for index, at in sorted({*alike(text, files), *_unbegun(text, files)}):
                _Comparison(job, text, index, bases[index], sink, may_run).refuse(files[at])


def _unbegun(source: Source, files: Sequence[EarlierFile]) -> Iterator[tuple[int, int]]:
    """Yield each pair of files that look alike by size, head and tail, of jobs that have no chunk yet."""
    waiting = [
        (at, file.content)
        for at, file in enumerate(files)
        if file.head is None and not file.record.is_over and file.content.size
    ]
    known: dict[Content, list[int]] = {}
    for at, content in waiting:
        known.setdefault(content, []).append(at)
    for index, content in enumerate(source.contents):
        yield from ((index, at) for at in known.get(content, ()))
    if len(source.contents) == 1:
        yield from ((0, at) for at, content in waiting if source.continues(content.fingerprint))


class _Comparison:
    """One file of a new job, compared with the files of earlier ones."""

    def __init__(
        self,
        job: Job,
        source: Source,
        index: int,
        base: int,
        sink: Sink,
        may_run: Callable[[JobRecord], bool],
    ) -> None:
        self._job, self._source, self._index, self._base = job, source, index, base
        self._sink, self._may_run = sink, may_run
        self._content = source.contents[index]

    def refuse(self, file: EarlierFile) -> None:
        """Refuse the file if an earlier one, which begins alike, is its beginning or begins with it.

        Raises:
            AlreadyStoredError: If so.
        """
        if file.head is not None and file.head_size > self._content.size:
            self._refuse(file, file.head.successful, "this is the beginning of a file that")
        else:
            self._refuse_all_of(file)

    def _refuse_all_of(self, file: EarlierFile) -> None:
        """Refuse if all that is committed of an earlier file is at its place in this one, too."""
        rows = _chunks_of(file, self._sink, self._content.size)
        distance = self._base - file.base
        others = [row for row in rows if row.chunk.lo != file.base or file.head is None]
        if all(self._source.digest(_moved(row.chunk, distance)) == row.digest for row in others):
            is_whole = file.content.size == self._content.size
            is_whole &= file.record.is_over
            is_whole &= not file.record.configuration.get("limit")
            subject = self._name if is_whole else f"the beginning of {self._name}"
            self._refuse(file, stored_in(rows), subject)

    @property
    def _name(self) -> str:
        is_alone = len(self._source.contents) == 1
        return "this file" if is_alone else self._source.file_at(self._base)

    def _ways_out(self, record: JobRecord) -> str:
        ways = ["--if-exists replace starts over", "--allow-duplicates adds them again"]
        if self._sink.hints.rows_outlive_the_ledger:
            ways.insert(1, "--key with --on-conflict update repairs")
        elif record.target_hash == self._job.target_hash() and record.state != FORGOTTEN:
            ways.insert(0, "--restart replaces these rows")
        return "; ".join(ways)

    def _refuse(self, file: EarlierFile, rows: int, subject: str) -> None:
        record, job = file.record, self._job
        is_forgotten = record.state == FORGOTTEN
        differences = "forgotten since" if is_forgotten else _differences(job, record)
        about = ", ".join(filter(None, [_when(record), differences]))
        if not rows and record.state == "running":
            if self._may_run(record):
                raise AlreadyStoredError(
                    f"another job imports {self._name}: {record.job_id} ({about})",
                    where=job.table,
                    hint=f"see `batchimport status {record.job_id}`; if that job was killed: "
                    f"`batchimport resume {record.job_id}`",
                )
            stored = _chunks_of(file, self._sink, self._content.size)
            rows = stored_in(stored)
        if not rows:
            return  # nothing of it is in the table, and its process has ended
        hint = self._ways_out(record)
        if not record.is_over:
            hint = f"`batchimport resume {record.job_id}` finishes that job; {hint}"
        elif not differences and file.content.size < self._content.size:
            hint = f"--if-source-changed append adds what is new in it; {hint}"
        raise AlreadyStoredError(
            f"{subject} is in the table already: {counted(rows, 'row')} by job {record.job_id} ({about})",
            where=job.table,
            hint=hint,
        )


def _chunks_of(file: EarlierFile, sink: Sink, size: int) -> list[Committed]:
    """Return what is committed, at this moment, of an earlier file's first positions."""
    end = file.base + min(size, file.content.size)
    return [
        row
        for row in committed_of(file.record, sink)
        if file.base <= row.chunk.lo and row.chunk.hi <= end
    ]


def refuse_stored_rejects(record: JobRecord, job: Job, sink: Sink) -> None:
    """Refuse to replay rejects whose records may have come into the table by another job meanwhile.

    Raises:
        AlreadyStoredError: If another job has stored records of the same content there.
    """
    if not appends(job) or record.configuration.get(DUPLICATES):
        return
    own = {content for content in _contents_of(record) if content.size}
    for other in same_table(job.table, sink, sink.jobs()):
        is_same = other.job_id != record.job_id and not own.isdisjoint(_contents_of(other))
        if not is_same or other.configuration.get(DUPLICATES):
            continue
        stored = stored_in(sink.committed(other.job_id))
        if stored:
            raise AlreadyStoredError(
                f"job {other.job_id} has imported the same content since: {counted(stored, 'row')}",
                where=job.table,
                hint=f"batchimport rejects {other.job_id} shows what is missing of it",
            )


def _differences(job: Job, record: JobRecord) -> str:
    """Return what is different about an earlier job, as options: `other --schema`."""
    was, now = record.configuration, asdict(job)
    options = was.get("options") or {}
    told = [
        name
        for key, name in _OPTIONS.items()
        if (was | options).get(key, ...) not in (..., *_forms((now | now["options"]).get(key)))
    ]
    paths = [] if tuple(was.get("sources", ())) == job.sources else ["path"]
    return f"other {', '.join([*paths, *told])}" if paths or told else ""


def _forms(value: Any) -> tuple[Any, ...]:
    """Return a value and what it becomes in JSON."""
    return (value, list(value)) if isinstance(value, tuple) else (value,)


def _when(record: JobRecord) -> str:
    """Return how long ago a job began."""
    time = parse_time(record.created_at)
    return ago(time) if time else "earlier"


def _moved(chunk: Chunk, distance: int) -> Chunk:
    """Return a chunk by its positions in another source."""
    start, end = chunk.start, chunk.end
    return Chunk(
        replace(start, position=start.position + distance),
        replace(end, position=end.position + distance),
    )


def _files_of(record: JobRecord, sink: Sink, known: dict[str, Committed]) -> list[EarlierFile]:
    """Return the files of an earlier job with the chunks that begin them.

    Args:
        known: The chunk at position 0 of each job: enough for most jobs, which have one file.
    """
    contents, first = _contents_of(record), known.get(record.job_id)
    if len(contents) == 1 and (first is not None or record.state == "completed"):
        return [EarlierFile(record, 0, 0, contents[0], first)]
    heads = {row.chunk.lo: row for row in committed_of(record, sink)}
    bases = [0, *accumulate(content.size for content in contents)]
    return [
        EarlierFile(record, index, bases[index], content, heads.get(bases[index]))
        for index, content in enumerate(contents)
        if content.size
    ]


def committed_of(record: JobRecord, sink: Sink) -> list[Committed]:
    """Return the chunks of a job; of one that is forgotten, those that its line knows."""
    if CHUNKS not in record.configuration:
        return sink.committed(record.job_id)
    return [
        Committed(
            Chunk(Position(lo, first), Position(hi, first + records)), stored, 0, 0, str(digest)
        )
        for lo, hi, first, records, stored, digest in record.configuration[CHUNKS]
    ]


def _contents_of(record: JobRecord) -> list[Content]:
    """Return what the files of a job hold; earlier versions did not record it."""
    recorded = record.configuration.get(CONTENTS)
    if recorded:
        return [Content(int(size), str(fingerprint)) for size, fingerprint in recorded]
    fingerprints = record.fingerprint.split("\n")
    if len(fingerprints) == 1:
        return [Content(record.size, record.fingerprint)]
    sizes = [int(each.partition("-")[0]) for each in fingerprints]
    if sum(sizes) != record.size:  # compressed: where each file begins is not known
        return [Content(record.size, "")]
    return [Content(*each) for each in zip(sizes, fingerprints, strict=True)]


def _by_encoding(records: Sequence[JobRecord]) -> dict[str | None, list[JobRecord]]:
    groups: dict[str | None, list[JobRecord]] = {}
    for record in records:
        encoding = (record.configuration.get("options") or {}).get("encoding")
        groups.setdefault(encoding, []).append(record)
    return groups


@contextmanager
def _read_as(encoding: str | None, job: Job, source: Source) -> Iterator[Source]:
    """Give the source as another `--encoding` reads it: its bytes are then others, too."""
    if encoding == job.options.encoding or any(map(is_kept, job.sources)):
        yield source
        return
    options = replace(job.options, encoding=encoding)
    try:
        other = open_source(job.sources, options)
    except BatchImportError:  # it cannot be read in that way, so it was not
        yield source
        return
    try:
        yield other
    finally:
        other.close()


# -- the rows of a known job ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Missing:
    """Rows of a job that its table no longer has.

    Attributes:
        are_all: None of them is left, so that a new import stores nothing twice.
    """

    message: str
    are_all: bool


def stored_in(committed: Iterable[Committed]) -> int:
    """Return how many records the chunks of a ledger have stored."""
    return sum(row.successful for row in committed)


def missing_rows(
    record: JobRecord,
    committed: Sequence[Committed],
    sink: Sink,
    records: Sequence[JobRecord],
    *,
    is_growing: bool = False,
) -> Missing | None:
    """Return what is missing of the rows that a job stored; None if they are there, as far as known.

    Args:
        committed: The job's ledger.
        records: All jobs of the destination.
        is_growing: New records are to be added: others may have taken rows away meanwhile.
    """
    imported = sum(row.chunk.records for row in committed)
    stored = stored_in(committed)
    if record.state == "completed" and imported < (record.total_items or 0):
        left = f"only {imported:,} of the {record.total_items:,} records of job {record.job_id}"
        return Missing(f"{left} are left: files are gone", are_all=not imported)
    if not record.columns or (record.state == "completed" and not stored):
        return None
    why = _why_all_are_gone(record, stored, sink, records)
    if why:
        return Missing(why, are_all=True)
    surplus = None if is_growing else sink.surplus(record)
    if surplus is None or surplus >= 0:
        return None
    gone = f"{-surplus:,} of the table's rows are gone"
    return Missing(f"{gone}, though job {record.job_id} stored {stored:,} in it", are_all=False)


def _why_all_are_gone(
    record: JobRecord, stored: int, sink: Sink, records: Sequence[JobRecord]
) -> str:
    """Say why none of the rows of a job can be in its table; nothing if some may be."""
    table = table_of(record)
    whose = f"though job {record.job_id} stored {counted(stored, 'row')} in it"
    if sink.identity_of(table) is None:
        return f"the table is gone, {whose}"
    if not stored:
        return ""
    if not sink.has_rows(table):
        return f"the table is empty, {whose}"
    if STAGED in record.configuration:
        return ""
    replacer = _replaced_by(record, _replacers(same_table(table, sink, records)))
    if replacer is None:
        return ""
    return (
        f"what job {record.job_id} stored ({counted(stored, 'row')}) is gone: the table was empty when "
        f"job {replacer.job_id} began"
    )


def refuse_missing(missing: Missing | None, table: str) -> None:
    """Refuse to go on with a job whose rows are not there any more.

    Raises:
        RowsGoneError: If something is missing.
    """
    if missing is not None:
        restart = "--restart" if missing.are_all else "--restart --if-exists replace"
        raise RowsGoneError(missing.message, where=table, hint=f"{restart} imports it again")


def _replacers(records: Sequence[JobRecord]) -> list[JobRecord]:
    """Return the jobs that began with an empty table, the latest first."""
    return sorted(filter(_began_empty, records), key=_emptied_at, reverse=True)


def _emptied_at(record: JobRecord) -> str:
    """Return when the table of a job that replaced its rows was empty."""
    return str(record.configuration.get(EMPTIED_AT) or record.created_at)


def _replaced_by(record: JobRecord, replacers: Sequence[JobRecord]) -> JobRecord | None:
    """Return a job that began with an empty table after this one had ended; None if there is none."""
    latest = next((other for other in replacers if other.job_id != record.job_id), None)
    if latest is None or record.state == "running":
        return None
    ended = record.updated_at or record.created_at
    return latest if _emptied_at(latest) >= ended else None


def _began_empty(record: JobRecord) -> bool:
    """Say whether no row was in the table when a job began; earlier versions did not record it."""
    empties = record.configuration.get("if_exists") in ("truncate", "replace")
    return bool(record.configuration.get(BEGAN_EMPTY, empties or record.rows_before == 0))
