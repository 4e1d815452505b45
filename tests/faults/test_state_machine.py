"""Run, kill, resume, edit and forget in any order, against a plain model of what must come of it."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.helpers.destinations import SqliteFile
from tests.helpers.forked import call

SCHEMAS = {
    "loose": {"properties": {"id": {"type": "integer"}, "word": {"type": "string"}}},
    "strict": {
        "properties": {"id": {"type": "integer"}, "word": {"type": "string"}},
        "required": ["word"],
    },
}
POINTS = ("after-claim", "before-commit", "after-commit", "before-finish", "after-finish")
Content = tuple[str, ...]
"""The lines of the source."""


def accepted(content: Content, schema: str) -> list[int]:
    """Return the ids that the schema lets in."""
    records = [json.loads(line) for line in content]
    return [each["id"] for each in records if schema == "loose" or "word" in each]


class Imports(RuleBasedStateMachine):
    """One source, one table; the model knows jobs by content and schema."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.path = Path(self._folder.name)
        self.place = SqliteFile(f"sqlite:///{self.path / 'users.db'}")
        self.content: Content = ()
        self.schema = "loose"
        self.unfinished: tuple[Content, str] | None = None
        self.completed: list[tuple[Content, str]] = []
        self.next_id = 0

    def teardown(self) -> None:
        self._folder.cleanup()

    @initialize()
    def begin(self) -> None:
        for name, schema in SCHEMAS.items():
            (self.path / name).write_text(json.dumps(schema))
        self.append(9)

    # -- what happens to the source and the state ----------------------------------------------

    @rule(data=st.data(), what=st.sampled_from(["append", "edit", "schema"]))
    def change(self, data: st.DataObject, what: str) -> None:
        """Make another job of it."""
        if what == "append":
            self.append(data.draw(st.integers(1, 6)))
        elif what == "edit":
            self.edit(data.draw(st.integers(0, len(self.content) - 1)))
        else:
            self.schema = "strict" if self.schema == "loose" else "loose"

    def append(self, records: int) -> None:
        """Let the file grow; every third record lacks a key."""
        lines = []
        for _ in range(records):
            word = {"word": "w"} if self.next_id % 3 else {}
            lines.append(json.dumps({"id": self.next_id, **word}))
            self.next_id += 1
        self.put((*self.content, *lines))

    def edit(self, at: int) -> None:
        """Change a record in place."""
        lines = list(self.content)
        lines[at] = json.dumps({"id": self.next_id, "word": "edited"})
        self.next_id += 1
        self.put(tuple(lines))

    def put(self, content: Content) -> None:
        self.content = content
        (self.path / "users.jsonl").write_text("".join(line + "\n" for line in content))

    @precondition(lambda self: self.unfinished)
    @rule()
    def put_back(self) -> None:
        """Bring back the file and the schema that the unfinished job began with."""
        assert self.unfinished
        self.schema = self.unfinished[1]
        self.put(self.unfinished[0])

    @rule(data=st.data(), what=st.sampled_from(["touch", "forget", "corrupt"]))
    def disturb(self, data: st.DataObject, what: str) -> None:
        """Do what must make no difference."""
        if what == "touch":
            os.utime(self.path / "users.jsonl", (self.next_id, self.next_id))
        elif what == "forget":
            shutil.rmtree(self.path / ".batchimport", ignore_errors=True)
        else:
            self.corrupt(data.draw(st.integers(0, 2000)), data.draw(st.integers(0, 255)))

    def corrupt(self, byte: int, value: int) -> None:
        """Change a byte of each checkpoint."""
        for path in self.path.glob(".batchimport/*/job.json"):
            body = bytearray(path.read_bytes())
            body[byte % len(body)] = value
            path.write_bytes(body)

    # -- runs ----------------------------------------------------------------------------------

    @rule(size=st.integers(1, 7))
    def run_to_the_end(self, size: int) -> None:
        """Run, or resume."""
        self.run(size, "")

    @rule(size=st.integers(1, 3), point=st.sampled_from(POINTS), number=st.integers(1, 3))
    def run_and_kill(self, size: int, point: str, number: int) -> None:
        """Run, or resume, to the point where the process is killed."""
        self.run(size, f"{point}=kill@{number if 'commit' in point else 1}")

    def run(self, size: int, fault: str) -> None:
        """Run once, and see what came of it."""
        words = ["run", "users.jsonl", "--schema", self.schema, "--to", self.place.address]
        ended = call(self.path, *words, "--chunk-size", size, "--json", "--quiet", failpoints=fault)
        job = (self.content, self.schema)
        if self.unfinished not in (None, job):
            assert ended.code == 6, ended
        elif ended.code == -9 and "after-finish" not in fault:
            self.unfinished = job
        else:
            self.end(job, ended)
        self.check()

    def end(self, job: tuple[Content, str], ended: Any) -> None:
        """Take a job as completed."""
        good = len(accepted(*job))
        if ended.code != -9:
            assert ended.code == (0 if good == len(job[0]) else 3), ended
            known = job in self.completed and self.unfinished is None
            assert (ended.summary["status"] == "already_completed") == known, ended.out
            assert ended.summary["successful"] == good
        if job not in self.completed or self.unfinished:
            self.completed.append(job)
        self.unfinished = None

    def check(self) -> None:
        """Every completed job has stored its records once, an unfinished one some of them."""
        rows = self.place.fetch("SELECT id FROM users")
        extra = Counter(row[0] for row in rows)
        extra.subtract(number for job in self.completed for number in accepted(*job))
        assert min(extra.values(), default=0) >= 0, f"lost: {-extra}"
        more = set(extra.elements())
        allowed = set(accepted(*self.unfinished)) if self.unfinished else set()
        assert more <= allowed, f"stored twice or never asked for: {more - allowed}"
        assert max(extra.values(), default=0) <= 1, f"stored twice: {extra}"


def often(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True
    )


def test_any_order() -> None:
    """A fixed budget."""
    run_state_machine_as_test(Imports, settings=often(12, 12))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_order_for_long() -> None:
    """A larger one."""
    run_state_machine_as_test(Imports, settings=often(100, 20))
