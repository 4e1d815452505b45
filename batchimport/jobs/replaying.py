"""Rejects as a source: an engine imports them like any other, and their claim moves instead of adds.

A chunk of this source is what was chosen of the rejects of one chunk in the ledger.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from batchimport.errors import BatchImportError, FatalError, SourceChangedError, UsageError
from batchimport.jobs.selecting import RejectFilter, choose
from batchimport.jobs.start import exact_columns, recorded_schema, schema_of
from batchimport.model import INDEX, Chunk, Position
from batchimport.pipeline.additions import additions
from batchimport.pipeline.chunk import judge
from batchimport.pipeline.transform import LazyTransform
from batchimport.sinks.base import CONTENTS, FORMS
from batchimport.sources.opening import open_source, reread
from batchimport.sources.paths import names_of
from batchimport.sources.registry import FORMATS
from batchimport.sources.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from batchimport.jobs.selecting import Choice, Corrections
    from batchimport.model import ChunkResult, Committed, FieldError, Job, Reject, Stage
    from batchimport.pipeline.additions import Additions
    from batchimport.pipeline.chunk import Work
    from batchimport.pipeline.transform import BoundTransform
    from batchimport.schema import RecordSchema
    from batchimport.sinks.base import Claim, JobRecord, Sink, SinkHints, StoreRequest
    from batchimport.sources.base import Batch, Form, RawRecords, Source

NOT_WHOLE = "record_too_long"
"""The code of rejects of which only the beginning was kept."""

MOST_TOGETHER = 100_000
"""Records among which circles are looked for; all are in memory at the same time."""

_ORPHANS = RejectFilter(codes=("foreign_key",), stages=("store",))


class Forms:
    """How the records of a job's files are written.

    Args:
        forms: One for each file, or one for all.
        ends: The position after each file.
        names: What users call the files; rejects have the name in the form, if there is one.

    Attributes:
        differ: Some files are not written like others.
    """

    def __init__(self, forms: Sequence[Form], ends: Sequence[int], names: Sequence[str]) -> None:
        self._ends, self._names = ends, list(names)
        if len(forms) == len(names):
            pairs = zip(forms, names, strict=True)
            self._names = [form.get("name", name) for form, name in pairs]
        self._forms = [{key: fact for key, fact in form.items() if key != "name"} for form in forms]
        self.differ = any(form != self._forms[0] for form in self._forms)

    def at(self, position: int) -> Form:
        """Return how the file is written that holds a position of the job."""
        form = self._forms[0 if len(self._forms) == 1 else self._file_at(position)]
        if form["format"] not in FORMATS:
            raise FatalError(f"no source is known for the format {form['format']}")
        return form

    def of(self, name: str) -> Form:
        """Return how a file of this name is written."""
        return self._forms[0 if len(self._forms) == 1 else self._names.index(name)]

    def name_at(self, position: int) -> str:
        """Return the name of the file that holds a position of the job."""
        return self._names[self._file_at(position)]

    def _file_at(self, position: int) -> int:
        return min(bisect_right(self._ends, position), len(self._ends) - 1)


def forms_of(record: JobRecord, job: Job) -> Forms:
    """Return how the records of a job are written; earlier versions did not record it.

    Raises:
        UsageError: If the files would have to be looked at, and are not what they were.
    """
    contents, forms = (record.configuration.get(name, ()) for name in (CONTENTS, FORMS))
    names = names_of(job.sources)
    if forms:
        return Forms(forms, list(accumulate(int(size) for size, _ in contents)), names)
    try:
        with closing(open_source(job.sources, job.options)) as source:
            if source.fingerprint != record.fingerprint:
                raise SourceChangedError("is not the file that the job imported", source.name)
            ends = list(accumulate(content.size for content in source.contents))
            return Forms(source.forms, ends, names)
    except BatchImportError as error:
        raise UsageError(
            f"an earlier version began this job, so its source is needed: {error}",
            where=f"job {record.job_id}",
            hint="put the file back where it was",
        ) from error


@dataclass(frozen=True, slots=True)
class _Piece:
    """What was chosen of the rejects of one chunk in the ledger.

    Attributes:
        row: The chunk's row, as it was before.
        records: Their numbers, in the order in which they are processed.
    """

    row: Committed
    records: tuple[int, ...]


class RejectSource:
    """The rejects that were chosen, as a source whose positions count them.

    Args:
        is_backwards: The last record comes first.
        is_together: All are one chunk.

    Attributes:
        parts: What they are in the ledger.
        differ: Some files are not written like others, so that their records cannot be read together.
        size: Number of rejects.
        bytes_read: Bytes of the records that were read.
    """

    def __init__(
        self,
        sink: Sink,
        record: JobRecord,
        job: Job,
        choice: Choice,
        corrections: Corrections | None,
        *,
        is_backwards: bool = False,
        is_together: bool = False,
    ) -> None:
        self._sink, self._record = sink, record
        self._most_bytes, self._shape = job.options.max_record_bytes, Shape(job.options)
        self._corrections, self._given_up = corrections, choice.given_up
        self._forms = forms_of(record, job) if choice.records else Forms((), (), ())
        self.size = len(choice.records)
        self.bytes_read = 0
        self._pieces = _pieces(choice, sink.committed(record.job_id))
        if is_backwards:
            self._pieces = [
                replace(each, records=each.records[::-1]) for each in reversed(self._pieces)
            ]
        self.parts, self.differ = self._pieces, self._forms.differ
        if is_together and self.parts:
            first, last = self.parts[0].row, self.parts[-1].row
            whole = replace(first, chunk=Chunk(first.chunk.start, last.chunk.end))
            self._pieces = [_Piece(whole, tuple(choice.records))]
        self._ends = list(accumulate(len(piece.records) for piece in self._pieces))

    def cut(self, start: Position, limit: int, max_bytes: int) -> Chunk | None:
        """Return the rejects of one chunk in the ledger, however many they are."""
        del limit, max_bytes
        if start.position >= self.size:
            return None
        end = self._ends[bisect_right(self._ends, start.position)]
        return Chunk(start, Position(end, end))

    def piece(self, chunk: Chunk) -> _Piece:
        """Return what a chunk of this source is in the ledger."""
        return self._pieces[bisect_left(self._ends, chunk.hi)]

    def given_up(self, chunk: Chunk) -> int:
        """Return how many records of a chunk are given up."""
        return sum(record in self._given_up for record in self.piece(chunk).records)

    def numbered(self, frame: pl.DataFrame, chunk: Chunk) -> pl.DataFrame:
        """Return a chunk's rows with the numbers that their records have in the job, if any."""
        if INDEX not in frame.columns:
            return frame
        numbers = [at for at in self.piece(chunk).records if at not in self._given_up]
        places = frame.get_column(INDEX) - chunk.offset
        return frame.with_columns(pl.Series(numbers, dtype=pl.Int64).gather(places).alias(INDEX))

    def read(self, chunk: Chunk, schema: RecordSchema) -> Batch:
        """Parse the records of a chunk, as they were kept or as they were edited.

        Those are missing of which an earlier attempt has decided: then the claim will find that out.
        """
        piece = self.piece(chunk)
        wanted = set(piece.records) - self._given_up
        found = {
            reject.record: reject
            for reject in self._sink.rejects(self._record.job_id, piece.row.chunk)
            if reject.record in wanted
        }
        rejects = [found[number] for number in piece.records if number in found]
        records, too_long = [], set()
        for at, reject in enumerate(rejects):
            edited = None if self._corrections is None else self._corrections.raw(reject)
            raw = reject.raw if edited is None else edited
            is_kept = raw == reject.raw and reject.errors[0].code == NOT_WHOLE
            if is_kept or len(raw) > self._most_bytes:
                too_long.add(at)
            records.append(raw)
        self.bytes_read += sum(map(len, records))
        form = self._forms.at(piece.row.chunk.lo)
        batch = self._shape.read(
            schema,
            lambda own: reread(form, records, frozenset(too_long), own),
            is_text=FORMATS[form["format"]].is_untyped,
        )
        kept = _Kept(batch.raw_records, rejects, records)
        return replace(batch, chunk=chunk, raw_records=kept)

    def file_at(self, position: int) -> str:
        """Return the name of the file that a reject came from."""
        at = min(bisect_right(self._ends, position), len(self._ends) - 1)
        return self._forms.name_at(self._pieces[at].row.chunk.lo)


def _pieces(choice: Choice, committed: Sequence[Committed]) -> list[_Piece]:
    pieces, at = [], 0
    for row in committed:
        end = bisect_left(choice.records, row.chunk.end.record, at)
        if end > at:
            pieces.append(_Piece(row, tuple(choice.records[at:end])))
        at = end
    if at < len(choice.records):
        raise FatalError("the ledger has no chunk of some rejects: it was changed by hand")
    return pieces


class _Kept:
    """Raw records whose rejects say where each one stood in its file."""

    def __init__(
        self, parsed: RawRecords, rejects: Sequence[Reject], records: Sequence[bytes]
    ) -> None:
        self.values, self.row, self.keys = parsed.values, parsed.row, parsed.keys
        self._rejects, self._records = rejects, records

    def reject(self, index: int, stage: Stage, errors: Sequence[FieldError]) -> Reject:
        """Return the reject of a record that is refused again."""
        known = self._rejects[index]
        return replace(known, stage=stage, errors=tuple(errors), raw=self._records[index])


class ReplayClaim:
    """A claim that stores what passes, and takes it out of the rejects, in one transaction."""

    def __init__(self, claim: Claim, source: RejectSource) -> None:
        self._claim, self._source = claim, source

    @property
    def record(self) -> JobRecord:
        """The job, with the columns that the replayed records have."""
        return self._claim.record

    @property
    def hints(self) -> SinkHints:
        """What suits the job's table."""
        return self._claim.hints

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit the new outcomes of a chunk's rejects, or nothing of them."""
        piece = self._source.piece(request.chunk)
        filtered = request.filtered + self._source.given_up(request.chunk)
        frame = self._source.numbered(request.frame, request.chunk)
        result = self._claim.store(
            replace(
                request,
                chunk=piece.row.chunk,
                frame=frame,
                filtered=filtered,
                replayed=piece.records,
            )
        )
        if result.already_committed:  # the counts are those of the ledger's chunk
            stored = result.successful - piece.row.successful
            left_out = result.filtered - piece.row.filtered
            failed = len(piece.records) - stored - left_out
            result = replace(result, successful=stored, filtered=left_out, failed=failed)
        return replace(result, chunk=request.chunk)

    def finish(self, state: str, total_items: int | None) -> int | None:
        """Record how the replay ended."""
        return self._claim.finish(state, total_items)


class CircleClaim(ReplayClaim):
    """A claim that stores only what refers to one another in a circle, in one transaction."""

    def store(self, request: StoreRequest) -> ChunkResult:
        """Commit the records that can be stored together, out of all that are left."""
        together = tuple((part.row.chunk, part.records) for part in self._source.parts)
        whole = self._source.piece(request.chunk).row.chunk
        result = self._claim.store(replace(request, chunk=whole, together=together))
        return replace(result, chunk=request.chunk)


def prepare(
    record: JobRecord,
    job: Job,
    sink: Sink,
    source: RejectSource,
    changes: Mapping[str, Any],
    function: Callable[..., Any] | None = None,
) -> tuple[JobRecord, RecordSchema, BoundTransform]:
    """Return what is in force for the replayed records: columns, schema and transform.

    Args:
        job: As it is with the changes.
        function: The transform, if it cannot be imported by its name.

    Raises:
        UsageError: If the transform fails, or a key is not a column.
    """
    if "schema" in changes:
        appending = replace(job, if_exists="append")  # the table is there, and stays
        document = Shape(job.options).order(job.schema or {})
        schema = schema_of(document, exact_columns(appending, sink), job)
    else:
        schema = recorded_schema(record, job)
    added = additions(job.options)
    added.refuse_known(schema.columns)
    frame = _sample(source, schema, added)
    bound = LazyTransform(job, function).bind(frame, (*schema.columns, *added.columns))
    columns = record.columns
    if job.transform is not None or job.sql is not None:
        known = {column.name for column in columns}
        columns = (*columns, *(each for each in bound.columns if each.name not in known))
    elif changes.keys() & {"schema", "transform", "sql"}:
        columns = bound.columns
    missing = set(job.key) - {column.name for column in columns}
    if missing:
        raise UsageError(f"the schema has no {', '.join(sorted(missing))}", where="--key")
    return replace(record, columns=columns), schema, bound.with_columns(columns)


def _sample(source: RejectSource, schema: RecordSchema, added: Additions) -> pl.DataFrame:
    """Return the first rejects that are valid now; no rows if that is none of the first chunk's."""
    chunk = source.cut(Position(), 1, 1)
    if chunk is None:
        return pl.DataFrame()
    batch = source.read(chunk, schema)
    frame, _ = judge(batch, schema)
    return added.add_to(frame, batch)


def orphans(work: Work, job: Job, sink: Sink) -> Iterator[tuple[Work, int]]:
    """Yield the records that foreign keys refused, as work, as long as doing it leaves fewer of them.

    What they refer to may have come in a later chunk, or may be one of them. So whether they are stored
    does not depend on the size of chunks. Most refer to a record that comes later: the last one is tried
    first, and then the order changes each time. When that helps no more, those that refer to one another in
    a circle are stored together, and then what refers to them.

    Args:
        work: That of the job, whose chunks are all committed.

    Yields:
        Work whose source has the records, and how many they are.
    """
    record, left, is_backwards, is_together = work.claim.record, 0, False, False
    # In an update, the last record of a key counts.
    is_ordered = record.configuration.get("on_conflict") == "update"
    while any(row.failed for row in sink.committed(record.job_id)):
        choice = choose(sink.rejects(record.job_id), _ORPHANS, None)
        count = len(choice.records)
        is_stuck, was_together = count == left, is_together
        if not count or (is_stuck and was_together):
            return
        if is_stuck and not (work.claim.hints.takes_circles and count <= MOST_TOGETHER):
            return
        left, is_together = count, is_stuck
        is_backwards = not (is_backwards or is_ordered or is_together)
        source = RejectSource(
            sink, record, job, choice, None, is_backwards=is_backwards, is_together=is_together
        )
        if is_together and source.differ:
            return
        claim = (CircleClaim if is_together else ReplayClaim)(work.claim, source)
        yield replace(work, source=cast("Source", source), claim=claim), count
