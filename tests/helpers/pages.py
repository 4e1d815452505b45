"""The commands of a page of the docs, run as a reader types them, and their output beside what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.cli import COMMAND, ROOT, Workdir, environment
from tests.helpers.tracing import has_stopped, wait_for

HOME = "/home/ada/shop"
"""The directory that the pages show."""
_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_JOB = r"\b[a-z]\w*-[0-9a-f]{8}\b"
_MASKS = {
    _JOB: _JOB,
    r"\d+:\d\d(?::\d\d)?": r"\d+:\d\d(?::\d\d)?",
    r"[\d.,]+(?= records/s|/s)": r"[\d.,]+",
    r"[\d.,]+ [kMG]?B\b": r"[\d.,]+ [kMG]?B",
    r"\bjust now\b": r"(?:just now|[\w ]+ ago)",
    r" +": r" +",
    "^…\n(?:\\^C\n)?": r"(?:.*\n)*?",
    "…": ".*",
}
"""What differs from run to run, by how a page shows it."""
_VARIES = re.compile("|".join(f"({shown})" for shown in _MASKS), re.MULTILINE)
_STEPS = re.compile(r"^ *\d?\d\.\d%.*\n", re.MULTILINE)
"""Lines about the progress of a slow machine."""


@dataclass(frozen=True)
class Block:
    """A block of code: a file that the reader saves, or commands with their output."""

    kind: str
    title: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Yield each command with what the page shows of its output."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            found = re.match(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", part, re.DOTALL)
            assert found
            yield found[1].replace("\\\n", " ").strip(), found[2]


def sections(page: Path) -> dict[str, list[Block]]:
    """Return the blocks under each heading of the second level, and those before the first as ''."""
    heading, *parts = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = {"": heading, **dict(part.split("\n", 1) for part in parts)}
    return {
        title: [Block(kind, name, body) for kind, name, body in _FENCE.findall(text)]
        for title, text in texts.items()
    }


@dataclass
class Terminal:
    """A reader's terminal.

    Attributes:
        places: What stands for an address that a page shows.
        not_run: Commands that are not run, by their first word, with the reason.
        jobs: The ids of this run, by those that the page shows.
    """

    workdir: Workdir
    places: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    code: int = 0

    def __post_init__(self) -> None:
        """Make `batchimport` and `python` commands of the terminal."""
        folder = self.workdir.path.parent / f"{self.workdir.path.name}-bin"
        folder.mkdir()
        for name, command in (("batchimport", COMMAND), ("python", [sys.executable])):
            (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            (folder / name).chmod(0o755)
        self.variables["PATH"] = f"{folder}:{os.environ['PATH']}"

    def follow(self, blocks: list[Block]) -> None:
        """Do what the page says, and compare what is shown."""
        for block in blocks:
            if block.title:
                self.workdir.write(block.title, self._own(block.text))
            elif block.kind == "console":
                for command, shown in block.commands():
                    self._type(command, shown)

    def _type(self, command: str, shown: str) -> None:
        word = command.split(maxsplit=1)[0]
        if word in self.not_run:
            return
        if command == "echo $?":
            assert shown == f"{self.code}\n"
            self.code = 0
            return
        assert self.code in (0, 3), f"{self.code} is not shown before: {command}"
        if word == "export":
            name, _, value = shlex.split(command)[1].partition("=")
            self.variables.setdefault(name, value)
            return
        said = self._interrupted(command) if "^C\n" in shown else self._run(self._own(command))
        self._compare(command, shown, _STEPS.sub("", said))

    def _own(self, text: str) -> str:
        """Return a text with the jobs and addresses of this run."""
        for known, own in {**self.jobs, **self.places, HOME: str(self.workdir.path)}.items():
            text = text.replace(known, own)
        return text

    def _run(self, command: str) -> str:
        """Run a command; return what a terminal shows, stderr first."""
        if command.startswith("batchimport ") and not re.search(r"[|<>&$;*`]", command):
            arguments = shlex.split(command, comments=True)[1:]
            ended = self.workdir.call(*arguments, **self.variables)
            self.code, out, err = ended.code, ended.out, ended.err
        else:
            shell = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                check=False,
                cwd=self.workdir.path,
                env=environment(**self.variables),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=100,
            )
            self.code, out, err = shell.returncode, shell.stdout, shell.stderr
        assert "Traceback" not in err, err
        return err + out

    def _interrupted(self, command: str) -> str:
        """Run a command, and press Ctrl-C after its third chunk is committed."""
        arguments = shlex.split(self._own(command))[1:]
        stop = {"BATCHIMPORT_FAILPOINTS": "after-commit=stop@3"}
        process = self.workdir.start(*arguments, **self.variables, **stop)
        wait_for(lambda: has_stopped(process.pid))
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=100)
        self.code = process.returncode
        return err + out

    def _compare(self, command: str, shown: str, said: str) -> None:
        """Compare, and learn the ids of new jobs."""
        lines = "".join(f"{line.rstrip()}\n" for line in said.splitlines())
        names: dict[str, str] = {}
        pattern, end, own = "", 0, self._own(shown)
        for part in _VARIES.finditer(own):
            mask = list(_MASKS.values())[int(part.lastindex or 0) - 1]
            if mask == _JOB:
                mask = self._job(part[0], names)
            pattern += re.escape(own[end : part.start()]) + mask
            end = part.end()
        pattern += re.escape(own[end:])
        found = re.fullmatch(pattern, lines)
        assert found, f"$ {command}\n{lines}\n-- is not, with {self.jobs} --\n{shown}"
        self.jobs |= {name: found[f"_{number}"] for name, number in names.items()}

    def _job(self, shown: str, new: dict[str, str]) -> str:
        """Return the pattern of a job's id; one that is not known yet gets a group's name."""
        if shown in self.jobs.values():
            return re.escape(shown)
        if shown in new:
            return f"(?P=_{new[shown]})"
        new[shown] = str(len(new))
        return f"(?P<_{new[shown]}>{_JOB})"


def page(name: str) -> Path:
    """Return a page of the docs."""
    return ROOT / "docs" / name
