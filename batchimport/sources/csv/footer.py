"""Find footnotes at the end of a long table, which is not among the records that types are inferred from.

Those of a short one are counted by `schema.infer.Bare`, with the columns that would leave them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport.schema.infer import note_about_footnotes
from batchimport.sources.csv.header import LEAST_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE_BYTES = 2 * 1024 * 1024
END_BYTES = 16 * 1024
"""How much of the end of a larger file is looked at."""


def notes_about_end(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return what users should know about the last rows of a table.

    Args:
        rows: Their cells, without spaces around them.
    """
    bare = []
    for row in reversed(rows):
        if any(row[1:]):
            break
        bare.append(row[0])
    titles = [text for text in reversed(bare) if text]
    if len(rows) - len(bare) < LEAST_ROWS or not bare:
        return ()
    note = f"records at the end without any value: {len(bare)}"
    if titles:
        note = note_about_footnotes(titles)
    return (f"{note} (they are stored)",) if note else ()
