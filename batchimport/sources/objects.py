"""Records that a program holds: frames are written to a Parquet file, dicts to a JSON Lines file.

That file is kept until the job is completed, as what is read from standard input is. So a frame is a source
like any other: its job can be continued by the same call, and a second call imports nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from batchimport.errors import UsageError
from batchimport.policy.preparing import announce

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WHERE = "sources"
RECORDS_PER_CHECK = 1000


def names_in(sources: Any) -> list[str] | None:
    """Return the paths and patterns that a program names; None if it gives the records themselves."""
    if isinstance(sources, str | PathLike):
        return [str(sources)]
    if isinstance(sources, list | tuple) and all(
        isinstance(each, str | PathLike) for each in sources
    ):
        return [str(each) for each in sources]
    return None


def writer_of(sources: Any, check: Callable[[], None]) -> tuple[str, Callable[[Path], None]]:
    """Return the format that records are kept in, and what writes them.

    Args:
        check: Called now and then; what it raises ends the writing.

    Raises:
        UsageError: If these are no records.
    """
    frame = _frame_of(sources)
    if frame is not None:
        return "parquet", lambda path: _write_frame(frame, path)
    if isinstance(sources, Mapping | bytes) or not isinstance(sources, Iterable):
        raise UsageError(
            f"not a source: {type(sources).__name__}",
            WHERE,
            hint="give paths, a frame, or dicts: a list of them, or what yields them",
        )
    return "jsonl", lambda path: _write_dicts(sources, path, check)


def _frame_of(thing: Any) -> pl.DataFrame | pl.LazyFrame | None:
    if isinstance(thing, pl.DataFrame | pl.LazyFrame):
        return thing
    is_pandas = type(thing).__module__.partition(".")[0] == "pandas" and hasattr(thing, "columns")
    try:
        if is_pandas:
            has_index = any(name is not None for name in thing.index.names)
            return pl.from_pandas(thing, include_index=has_index)
        if hasattr(thing, "__arrow_c_stream__") or hasattr(thing, "__arrow_c_array__"):
            return pl.DataFrame(thing)
    except ImportError as error:
        raise UsageError(
            "frames of pandas are read by pyarrow", WHERE, "pip install pyarrow"
        ) from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise UsageError(
            f"the frame cannot be read: {text}", WHERE, "give each column one type"
        ) from error
    return None


def _write_frame(frame: pl.DataFrame | pl.LazyFrame, path: Path) -> None:
    announce("writing the frame to a file")
    try:
        frame.lazy().sink_parquet(path)
    except pl.exceptions.PolarsError as error:
        text = str(error).partition("\n")[0]
        raise UsageError(f"the frame cannot be written as Parquet: {text}", WHERE) from error


def _write_dicts(records: Iterable[Any], path: Path, check: Callable[[], None]) -> None:
    written = 0
    with path.open("wb") as file:
        for number, record in enumerate(records):
            if number % RECORDS_PER_CHECK == 0:
                check()
                announce("writing the records to a file", written)
            written += file.write(_line(number, record))


def _line(number: int, record: Any) -> bytes:
    if hasattr(record, "model_dump"):  # of pydantic
        record = record.model_dump()
    try:
        text = _encode(record)
    except OverflowError:  # an integer of more than 64 bits
        text = json.dumps(record, default=_plain, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"record {number} cannot be written as JSON: {error}",
            WHERE,
            hint="give dicts of values that JSON has, dates, decimals or UUIDs",
        ) from error
    if not text.startswith(b"{"):
        raise UsageError(f"record {number} is no dict, but {type(record).__name__}", WHERE)
    return text + b"\n"


def _plain(value: Any) -> Any:
    """Return what JSON has for a value, such as a number of numpy."""
    if isinstance(value, Mapping):
        return dict(value)
    for method in ("tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(f"there is no JSON for {type(value).__name__}")


_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain).encode
