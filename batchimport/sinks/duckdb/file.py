"""The file of a DuckDB database: where it is, how it is opened, how a frame gets into it."""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import duckdb

from batchimport.errors import FatalError, UsageError
from batchimport.sinks.duckdb.dialect import opening
from batchimport.sinks.sql.place import check_file, path_in
from batchimport.state.files import sync_directory, temporary_file

if TYPE_CHECKING:
    import polars as pl

MAGIC = b"DUCK"
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false"  # nothing is ever fetched from the network
}


def path_of(address: str) -> Path:
    """Return the absolute path that an address names.

    Raises:
        UsageError: If it names none.
    """
    return path_in(address, "DuckDB").absolute()  # `:memory:` and the like are names of files here


def check_place(path: Path, *, create: bool) -> None:
    """Refuse what is not a DuckDB database: DuckDB opens a CSV, JSON or Parquet file in memory.

    Raises:
        UsageError: If no database is or can be there.
        FatalError: If it cannot be read.
    """
    check_file(path, create=create)
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FatalError(f"cannot be opened: {error.strerror}", where=str(path)) from error
    if head and head[8:] != MAGIC:
        raise UsageError("is not a DuckDB database", where=str(path), hint="choose another --to")


def connect(
    path: Path, place: Path, max_memory_bytes: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a database; times without a zone are UTC.

    Args:
        path: As the user knows it, for messages.
        place: Where it is, which differs in a dry run.
        max_memory_bytes: What the process may use, of which DuckDB gets half: it keeps all blocks
            that it has written, up to its limit of 80 % of the machine's memory.

    Raises:
        BatchImportError: If it cannot be opened.
    """
    try:
        if not place.exists():
            create_file(place)
        connection = duckdb.connect(place, config=_SETTINGS)
        # In a notebook or a shell it would draw on standard output, over what is shown there.
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        if max_memory_bytes:  # not by the configuration, which all connections of a process share
            connection.execute(f"SET memory_limit = '{max_memory_bytes // 2000}KB'")
    except duckdb.Error as error:
        raise opening(error, str(path)) from error
    except OSError as error:
        raise FatalError(
            f"the database cannot be created: {error.strerror}",
            where=str(path),
            hint="make room, or choose another place",
        ) from error
    return connection


def create_file(path: Path) -> None:
    """Create an empty database, completely or not at all, even if other processes do the same.

    DuckDB 2.0 writes a new database in steps: after a kill, or while another process is at it, it
    finds no valid database in the file.
    """
    with temporary_file(path.parent) as file:
        with file.writing() as stream:
            stream.write(_empty_database())
        with suppress(
            OSError
        ):  # it exists, or there are no hard links here: then DuckDB creates it
            file.publish(path.name)
            sync_directory(path.parent)


def _empty_database() -> bytes:
    with TemporaryDirectory(prefix="batchimport-") as folder:
        place = Path(folder) / "empty"
        duckdb.connect(place).close()
        return place.read_bytes()


class Scratch:
    """A copy of a database for a dry run, since DuckDB cannot undo a part of a transaction."""

    def __init__(self, path: Path) -> None:
        self._folder = TemporaryDirectory(prefix="batchimport-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / path.name
        if not path.exists():
            return
        try:
            with closing(duckdb.connect(path, read_only=True)):  # keeps writers out
                for log in ("", ".wal"):
                    with suppress(FileNotFoundError):
                        shutil.copyfile(f"{path}{log}", f"{self.path}{log}")
        except duckdb.Error as error:
            raise opening(error, str(path)) from error
        except OSError as error:
            raise FatalError(
                f"a dry run works on a copy, which cannot be written: {error.strerror}",
                where=str(self.path),
                hint="let TMPDIR name a directory with more room",
            ) from error

    def remove(self) -> None:
        """Remove the copy."""
        self._folder.cleanup()


class Stream:
    """A frame that offers only its Arrow stream: DuckDB would need pyarrow for the frame itself."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)
