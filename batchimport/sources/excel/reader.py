"""A process of its own that reads a workbook: run by its path, it answers requests on standard input.

The library is safe against damaged files in all ways but one: what it cannot allocate ends its process. So
that is not the process of the job; its memory is limited, and free again once the sheet is text.
"""

from __future__ import annotations

import pickle
import signal
import sys
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS_AT_A_TIME = 1000


def main(path: str, memory_bytes: int) -> None:
    """Answer until standard input ends: `sheets`, `open NAME`, `first` or `next` rows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with the job's process, not before
    with suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not everywhere

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        for answer in _answers(path):
            pickle.dump(answer, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except BrokenPipeError:  # nobody waits for it any more
        sys.stdout = None  # so that nothing more is written at the end


def _answers(path: str) -> Iterator[Any]:
    import python_calamine as calamine  # noqa: PLC0415 - after the limit is set

    try:
        workbook = calamine.CalamineWorkbook.from_path(path)
        sheets = [
            (each.name, each.visible == calamine.SheetVisibleEnum.Visible)
            for each in workbook.sheets_metadata
            if each.typ == calamine.SheetTypeEnum.WorkSheet
        ]
        sheet, rows = None, iter(list[Any]())
        for line in sys.stdin:
            request, _, name = line.rstrip("\n").partition(" ")
            if request == "open":
                sheet = workbook.get_sheet_by_index(
                    workbook.sheet_names.index(sheets[int(name)][0])
                )
            elif request == "first" and sheet is not None:
                rows = sheet.iter_rows()
            yield sheets if request in ("sheets", "open") else list(islice(rows, ROWS_AT_A_TIME))
    except calamine.PasswordError:
        yield None
    except Exception as error:  # noqa: BLE001 - said by the other process
        yield str(error)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
