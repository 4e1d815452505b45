"""A source read to its end, in chunks, as the engine does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchimport.jobs.start import infer
from batchimport.model import EXTRA_COLUMN, INDEX, Position, Reject, SourceOptions
from batchimport.pipeline.chunk import judge
from batchimport.schema import RecordSchema
from batchimport.sources.base import Source
from batchimport.sources.opening import open_source

Rows = list[dict[str, Any]]


def read_all(
    path: Path,
    schema: dict[str, Any] | RecordSchema | None = None,
    *,
    limit: int = 1000,
    max_bytes: int = 1 << 20,
    **options: Any,
) -> tuple[Rows, list[Reject]]:
    """Return the valid records as rows without nulls, and the rejects."""
    given = SourceOptions(**options)
    source = open_source([str(path)], given)
    try:
        if schema is None:
            checked = RecordSchema(infer(source, None, given).document, inferred=True)
        else:
            checked = schema if isinstance(schema, RecordSchema) else RecordSchema(schema)
        return read_chunks(source, checked, limit, max_bytes)
    finally:
        source.close()


def read_chunks(
    source: Source, schema: RecordSchema, limit: int, max_bytes: int = 1 << 20
) -> tuple[Rows, list[Reject]]:
    """Return the same of an open source; each record has one outcome, and as many are counted."""
    rows: Rows = []
    rejects: list[Reject] = []
    columns = {column.name for column in schema.columns}
    at = Position()
    while chunk := source.cut(at, limit, max_bytes):
        frame, more = judge(source.read(chunk, schema), schema)
        assert frame.height + len(more) == chunk.records
        for row in frame.drop(INDEX).to_dicts():
            assert EXTRA_COLUMN in row or set(row) == columns
            rows.append({name: value for name, value in row.items() if value is not None})
        rejects += more
        at = chunk.end
    assert at.position == source.size
    assert source.count() == len(rows) + len(rejects)
    return rows, rejects


def codes(rejects: list[Reject]) -> list[str]:
    """Return the codes of all errors, in order."""
    return [error.code for reject in rejects for error in reject.errors]
