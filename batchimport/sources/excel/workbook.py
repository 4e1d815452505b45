"""The workbook of a job, as its process sees it: sheets by name or number, and their rows."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError, did_you_mean
from batchimport.sources.excel.package import look_at_sheet
from batchimport.system import available_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchimport.sources.bytes.file import TextFile

MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
LEAST_MEMORY_BYTES = 512 * 1024 * 1024
_READER = Path(__file__).with_name("reader.py")
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")

Row = list[Any]
"""The values of a row; "" is an empty cell, or one with an error."""


class Workbook:
    """One sheet of a workbook, which another process reads.

    Attributes:
        sheet: Its name.
        notes: What users should know.
    """

    def __init__(self, file: TextFile, wanted: str | None) -> None:
        self._file = file
        if find_spec("python_calamine") is None:
            raise UsageError(
                "workbooks are read by calamine, which is not installed",
                where=file.path,
                hint="pip install 'batchimport[excel]'",
            )
        if not file.read_at(0, 4).startswith(MAGIC):
            raise UsageError(
                "is not a workbook",
                where=file.path,
                hint="if it is text, say how to read it, such as with --format csv",
            )
        path = file.descriptor_path
        memory = max(LEAST_MEMORY_BYTES, available_memory_bytes())
        self._reader = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", str(_READER), path, str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[int(Path(path).name)],
        )
        try:
            self._open(wanted)
        except BaseException:
            self.close()
            raise

    def _open(self, wanted: str | None) -> None:
        sheets = self._ask("sheets")
        names, visible = [name for name, _ in sheets], [name for name, shown in sheets if shown]
        self.sheet = _chosen(names, visible or names, wanted, self._file.path)
        others = [name for name in visible if name != self.sheet]
        more = f"sheet: {self.sheet} (others: {', '.join(others)}; see --sheet)"
        self.notes = [more] if others and wanted is None else []
        extent = look_at_sheet(self._file, self.sheet)
        if extent is not None and extent.errors:
            errors = f"{extent.errors:,}"
            self.notes.append(
                f"cells with an error, such as #N/A, are read as empty ones: {errors}"
            )
        self._ask(f"open {names.index(self.sheet)}")

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the sheet from its first one on."""
        batch = self._ask("first")
        while batch:
            yield from batch
            batch = self._ask("next")

    def _ask(self, request: str) -> Any:
        """Return the answer to a request.

        Raises:
            UsageError: If the workbook cannot be read.
        """
        assert self._reader.stdin is not None  # noqa: S101 - both are pipes
        assert self._reader.stdout is not None  # noqa: S101
        try:
            self._reader.stdin.write(f"{request}\n".encode())
            self._reader.stdin.flush()
            answer = pickle.load(self._reader.stdout)  # noqa: S301 - of our own process
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            code = self._reader.wait()
            reason = (
                f"the process that reads it ended with code {code}; is it too large or damaged?"
            )
            raise self._unreadable(reason) from error
        if answer is None or (isinstance(answer, str) and _is_encrypted(self._file)):
            raise UsageError(
                "is encrypted: it opens with a password",
                where=self._file.path,
                hint="save a copy without the password",
            )
        if isinstance(answer, str):
            raise self._unreadable(answer)
        return answer

    def _unreadable(self, reason: str) -> UsageError:
        return UsageError(
            f"is not a readable workbook: {reason}",
            where=self._file.path,
            hint="open it, and save it again as .xlsx",
        )

    def close(self) -> None:
        """End the process."""
        self._reader.kill()
        self._reader.communicate()


def _is_encrypted(file: TextFile) -> bool:
    """Say whether a file has the stream in which Office keeps an encrypted workbook."""
    before = b""
    for block in file.blocks() if file.read_at(0, 4) == MAGIC[1] else ():
        if _ENCRYPTED in before[-len(_ENCRYPTED) :] + block:
            return True
        before = block
    return False


def _chosen(names: Sequence[str], visible: Sequence[str], wanted: str | None, path: str) -> str:
    """Return the name of the sheet that is meant: by name, then by number."""
    if wanted is None and visible:
        return visible[0]
    meant = [name for name in names if wanted in (name, name.casefold())]
    meant += [name for name in names if wanted and wanted.casefold() == name.casefold()]
    if wanted and wanted.isdecimal() and 0 < int(wanted) <= len(names):
        meant.append(names[int(wanted) - 1])
    if meant:
        return meant[0]
    if wanted is None:
        raise UsageError("has no sheet with cells", where=path, hint="export it as CSV")
    near = did_you_mean(wanted, names)
    hint = f"did you mean {near}?" if near else f"its sheets: {', '.join(names)}"
    raise UsageError(f"has no sheet {wanted}", where=f"--sheet {path}", hint=hint)
