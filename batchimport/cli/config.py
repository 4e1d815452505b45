"""job.toml: the options of an import, or of several, in a file.

Relative paths in it are relative to the file. Options that stand above the tables `[jobs.NAME]` hold for all
of them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchimport.cli.options.values import Setting, convert, find
from batchimport.errors import UsageError, did_you_mean, hint_for
from batchimport.sinks.registry import address_of, has_secret, scheme_of
from batchimport.sources.paths import STANDARD_INPUT
from batchimport.state.files import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class ConfiguredJob:
    """A job of the file.

    Attributes:
        name: None if the file has one job, without a name.
        values: Options by name.
    """

    name: str | None
    sources: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def read_config(path: str | Path) -> dict[str | None, ConfiguredJob]:
    """Return the jobs of a file by their names, in its order.

    Raises:
        UsageError: If it cannot be read, or has a key or a value that no option takes.
    """
    return _File(Path(path)).jobs()


def choose(
    jobs: Mapping[str | None, ConfiguredJob], names: Sequence[str], path: str | Path
) -> list[ConfiguredJob]:
    """Return the jobs of these names; all of them for no name.

    Raises:
        UsageError: If the file has no job of a name.
    """
    for name in names:
        if name not in jobs:
            names_there = list(map(str, jobs))
            hint = hint_for(name, names_there, f"it has: {', '.join(names_there)}")
            raise UsageError(f"has no job {name}", f"--config {path}", hint)
    return [job for name, job in jobs.items() if not names or name in names]


def refuse_secret(address: str, where: str) -> None:
    """Refuse an address that has a password.

    Raises:
        UsageError: If so.
    """
    if has_secret(address):
        raise UsageError(
            "a password does not belong in a file",
            where,
            hint="leave it out: set PGPASSWORD, use ~/.pgpass, or set BATCHIMPORT_TO instead",
        )


class _File:
    def __init__(self, path: Path) -> None:
        import tomllib  # noqa: PLC0415 - not for `--help`

        self._path = path
        self._folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - links stay, .. goes
        where = f"--config {path}"
        try:
            self._text = read_file(path).decode()
            self._document = tomllib.loads(self._text)
        except OSError as error:
            raise UsageError(
                f"cannot be read: {error.strerror}", where, "check the path"
            ) from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"is not TOML: {error}", where, "fix the file") from error

    def jobs(self) -> dict[str | None, ConfiguredJob]:
        """Return all jobs, checked."""
        tables = self._document.pop("jobs", None)
        shared = self._job(None, self._document)
        if tables is None:
            return {None: shared}
        if not isinstance(tables, dict) or not tables:
            raise UsageError("has no job", self._where("jobs", None), "write a table [jobs.NAME]")
        jobs: dict[str | None, ConfiguredJob] = {}
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise UsageError(
                    "is not the table of a job", self._where(name, None), f"write [jobs.{name}]"
                )
            own = self._job(name, table)
            values = shared.values | own.values
            jobs[name] = ConfiguredJob(name, own.sources or shared.sources, values)
        return jobs

    def _job(self, name: str | None, table: dict[str, Any]) -> ConfiguredJob:
        job = ConfiguredJob(name)
        for key, value in table.items():
            where = self._where(key, name)
            if key == "sources":
                job.sources.extend(self._sources(value, where))
                continue
            known = _find(key, where)
            if known.name in job.values:
                raise UsageError(f"{known.name} is there twice", where)
            job.values[known.name] = self._value(known, value, where)
        return job

    def _sources(self, value: Any, where: str) -> list[str]:
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise UsageError("must be paths", where)
        return [item if item == STANDARD_INPUT else self._path_of(item) for item in items]

    def _value(self, known: Setting, value: Any, where: str) -> Any:
        value = convert(known, value, where)
        if known.kind is Path:
            return Path(self._path_of(value))
        if known.name == "to":
            return self._address(value, where)
        if known.name == "schema":
            is_name = ":" in value and not (self._folder / value).exists()
            return self._code(value) if is_name else self._path_of(value)
        return self._code(value) if known.name == "transform" else value

    def _address(self, value: str, where: str) -> str:
        address = address_of(value)
        refuse_secret(address, where)
        scheme, _, path = address.partition(":///")
        known = scheme_of(address)
        if known is not None and known.is_path and path:
            return f"{scheme}:///{self._path_of(path)}"
        return address

    def _code(self, value: str) -> str:
        """Return `file.py:name` with the whole path; `module:name` stays."""
        module, separator, name = value.rpartition(":")
        return f"{self._path_of(module)}:{name}" if separator and module.endswith(".py") else value

    def _path_of(self, text: str) -> str:
        return os.path.normpath(self._folder / text)

    def _where(self, key: str, job: str | None) -> str:
        """Return the place of a key: the file and, where it can be found, the line."""
        line = self._line(key, job)
        table = f"[jobs.{job}] " if job else ""
        return f"{self._path}{f' line {line}' if line else ''}: {table}{key}"

    def _line(self, key: str, job: str | None) -> int | None:
        section = None
        pattern = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""")
        for number, line in enumerate(self._text.splitlines(), 1):
            header = re.match(r"""\s*\[+\s*(?:jobs\s*\.\s*)?["']?([^\]"']+)["']?\s*\]""", line)
            if header:
                section = header[1].strip()
                if job is None and section == key:
                    return number
            elif section == job and pattern.match(line):
                return number
        return None


def _find(key: str, where: str) -> Setting:
    near = did_you_mean(key, ("sources", "jobs"))
    try:
        return find(key, where)
    except UsageError as error:
        if near is not None and "did you mean" not in (error.hint or ""):
            error.hint = f"did you mean {near}?"
        raise
