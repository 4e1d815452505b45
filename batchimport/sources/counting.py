"""Count records and lines by Polars: many bytes at once, and without the GIL.

`count_records` and `count_line_starts` check what `cut` and `read` did, and have no code in common with
them; `count_line_ends` is for cutting.
"""

from __future__ import annotations

import polars as pl

_LF, _SPACE = ord("\n"), ord(" ")


def count_records(data: bytes, record: str) -> tuple[int, int]:
    """Count the records at the beginning of data.

    Args:
        data: Begins with a record.
        record: The pattern of one whole record with what separates it from its neighbours. It must
            match nothing that is not certainly one record.

    Returns:
        The number of records up to the first one that is incomplete or does not match, and how many
        bytes they take. (0, 0) if the data is not UTF-8.
    """
    try:
        text = pl.Series([data], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.PolarsError:
        return 0, 0
    records = size = 0
    for match in text.str.extract_all(record).explode().drop_nulls().cast(pl.Binary).to_list():
        # What follows a gap is a part of a record that did not match as a whole.
        if not data.startswith(match, size):
            break
        records += 1
        size += len(match)
    return records, size


def count_line_ends(data: bytes) -> tuple[int, bool]:
    """Count the LFs of some data, and say whether white space follows one of them, such as another LF."""
    values = _bytes(data)
    ends = values == _LF
    return int(ends.sum()), bool((ends & (values.shift(-1) <= _SPACE)).any())


def count_line_starts(data: bytes, before: int) -> int | None:
    """Count the lines that begin in some data, without empty ones.

    Args:
        before: The byte before the data; LF at the beginning of a text.

    Returns:
        None if a line begins with white space: it may be blank.
    """
    values = _bytes(data)
    starts = (values.shift(1, fill_value=before) == _LF) & (values != _LF)
    return None if (starts & (values <= _SPACE)).any() else int(starts.sum())


def _bytes(data: bytes) -> pl.Series:
    return pl.Series([data], dtype=pl.Binary).cast(pl.List(pl.UInt8)).explode()
