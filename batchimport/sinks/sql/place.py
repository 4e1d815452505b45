"""Where a database is that consists of one file."""

from __future__ import annotations

import re
from errno import ELOOP
from pathlib import Path
from urllib.parse import unquote

from batchimport.errors import NoSuchDestinationError, UsageError

_PARAMETERS = re.compile(r"\?\w+=")


def path_in(address: str, name: str) -> Path:
    """Return the path that an address names.

    Args:
        name: Of the database: `SQLite`, with three slashes after it in the address.

    Raises:
        UsageError: If it names none, or has parameters.
    """
    prefix, where = f"{name.lower()}:///", f"--to {address}"
    path = unquote(address.removeprefix(prefix))
    if not address.startswith(prefix) or not path:
        raise UsageError(
            f"a database of {name} has three slashes and a path",
            where=where,
            hint=f"relative: {prefix}users.db, absolute: {prefix}/data/users.db",
        )
    if _PARAMETERS.search(address):
        raise UsageError(
            f"an address of {name} has no parameters", where=where, hint="leave them out"
        )
    return Path(path)


def check_file(path: Path, *, create: bool) -> None:
    """Check that a path may be that of a database.

    Args:
        create: It need not be there yet.

    Raises:
        UsageError: If it is or can be none.
    """
    if not create and not path.exists():
        raise NoSuchDestinationError("no such database", where=str(path))
    wrong = _wrong_with(path)
    if wrong:
        hint = "name a file in a directory that exists"
        raise UsageError(wrong, where=str(path), hint=hint)


def _wrong_with(path: Path) -> str | None:
    """Return why no database can be at a path."""
    try:
        if path.is_dir():
            return "is a directory"
        if not path.parent.is_dir():
            return "its directory does not exist"
        if path.exists() and not path.is_file():
            return "is not a file"
        path.is_symlink() and path.stat()
    except FileNotFoundError:  # a link may lead to a file that is to be made
        return None
    except OSError as error:
        return (
            "is a link to itself" if error.errno == ELOOP else f"cannot be used: {error.strerror}"
        )
    return None
