"""The command line as users call it: each command is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.helpers.forked import Started

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_data"
COMMAND = [sys.executable, "-m", "batchimport"]

SERVERS: dict[str, str] = {}
"""Variables by which every command finds the servers that tests have started."""


def environment(**more: str) -> dict[str, str]:
    known = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    known |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    return {**known, **SERVERS, **more}


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.out)


class Workdir:
    """A directory in which commands are run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def lines(self, name: str, records: list[Any]) -> Path:
        """Write JSON lines."""
        return self.write(name, "".join(json.dumps(record) + "\n" for record in records))

    def start(self, *arguments: object, **more: str) -> Started:
        """Start a command, forked from a process that has imported it all."""
        from tests.helpers import forked  # noqa: PLC0415 - it imports this module

        return forked.Started(forked.Call(self.path, arguments, variables=more))

    def start_anew(self, *arguments: object, **more: str) -> subprocess.Popen[str]:
        """Start a command as a shell does."""
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.path,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call_into(self, out: IO[str], *arguments: object) -> tuple[int, str]:
        """Run a command with another standard output; return its code and what it said."""
        process = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            check=False,
            cwd=self.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
        )
        assert "Traceback" not in process.stderr, process.stderr
        return process.returncode, process.stderr

    def call(self, *arguments: object, **more: str) -> Ended:
        """Run a command to its end, forked from a process that has imported it all."""
        from tests.helpers import forked  # noqa: PLC0415 - it imports this module

        return forked.call(self.path, *arguments, variables=more)

    def spawn(self, *arguments: object, **more: str) -> Ended:
        """Run a command to its end in a process that is started anew."""
        process = self.start_anew(*arguments, **more)
        out, err = process.communicate(timeout=100)
        assert "Traceback" not in err, err
        return Ended(process.returncode, out, err)

    def pipe(self, content: bytes, *arguments: object) -> Ended:
        """Call with something on standard input."""
        from tests.helpers import forked  # noqa: PLC0415 - it imports this module

        return forked.call(self.path, *arguments, stdin=content)

    def run(self, *arguments: object) -> dict[str, Any]:
        """Run an import and return its summary."""
        ended = self.call("run", *arguments, "--json")
        return {**ended.summary, "exit_code": ended.code}

    def rejects(self, summary: dict[str, Any]) -> list[dict[str, Any]]:
        if summary["rejects_file"] is None:
            return []
        text = (self.path / summary["rejects_file"]).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]
