"""Run, kill, replay, copy, grow, drop and restart in any order, against a model of the table."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

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
NAMES = ("users.jsonl", "copy.jsonl", "users.jsonl.gz")
WAYS = (
    "",
    "--if-source-changed append",
    "--restart",
    "--restart --if-exists replace",
)
Content = tuple[str, ...]
"""The lines of the source."""


class JobKey(NamedTuple):
    """What one job is known by."""

    name: str
    content: Content
    schema: str
    replaces: bool


def accepted(content: Content, schema: str) -> list[int]:
    """Return the ids that the schema lets in."""
    records = [json.loads(line) for line in content]
    return [each["id"] for each in records if schema == "loose" or "word" in each]


class Imports(RuleBasedStateMachine):
    """One content under several names, one table; the model is the set of records in the table.

    No record may ever be stored twice, for no command asks for that. What is refused changes
    nothing, and is refused for a reason that the model knows.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.path = Path(self._folder.name)
        self.place = SqliteFile(f"sqlite:///{self.path / 'users.db'}")
        self.content: Content = ()
        self.schema = "loose"
        self.next_id = 0
        self.table: set[int] = set()
        self.unfinished: dict[str, JobKey] = {}
        self.known: set[JobKey] = set()
        self.done: set[JobKey] = set()
        self.finished: set[str] = set()

    def teardown(self) -> None:
        self._folder.cleanup()

    @initialize()
    def begin(self) -> None:
        for name, schema in SCHEMAS.items():
            (self.path / name).write_text(json.dumps(schema))
        self.append(9)

    # -- what happens to the source, the table and the state -----------------------------------

    @rule(data=st.data(), what=st.sampled_from(["grow", "rewrite", "schema"]))
    def change(self, data: st.DataObject, what: str) -> None:
        """Make another job of it."""
        if what == "grow":
            self.append(data.draw(st.integers(1, 6)))
        elif what == "rewrite":
            self.content = ()
            self.append(data.draw(st.integers(1, 9)))
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

    def put(self, content: Content) -> None:
        """Write the content under every name."""
        self.content = content
        text = "".join(line + "\n" for line in content).encode()
        for name in NAMES:
            body = gzip.compress(text, mtime=0) if name.endswith(".gz") else text
            (self.path / name).write_bytes(body)

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """Bring back the content and the schema that an unfinished job began with."""
        job = self.unfinished[data.draw(st.sampled_from(sorted(self.unfinished)))]
        self.schema = job.schema
        self.put(job.content)

    @rule(statement=st.sampled_from(["DROP TABLE IF EXISTS users", "DELETE FROM users"]))
    def lose_rows(self, statement: str) -> None:
        """Drop the table, or empty it."""
        if self.place.fetch("SELECT name FROM sqlite_schema WHERE name = 'users'"):
            self.place.execute(statement)
            self.table, self.done, self.finished = set(), set(), set()

    @rule(data=st.data(), what=st.sampled_from(["touch", "forget", "corrupt"]))
    def disturb(self, data: st.DataObject, what: str) -> None:
        """Do what must make no difference."""
        if what == "touch":
            for name in NAMES:
                os.utime(self.path / name, (self.next_id, self.next_id))
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

    @rule(name=st.sampled_from(NAMES), size=st.integers(1, 7), way=st.sampled_from(WAYS))
    def run_to_the_end(self, name: str, size: int, way: str) -> None:
        """Run, resume, or begin again."""
        self.run(name, size, way, "")

    @rule(
        name=st.sampled_from(NAMES),
        size=st.integers(1, 3),
        way=st.sampled_from(WAYS),
        point=st.sampled_from(POINTS),
        number=st.integers(1, 3),
    )
    def run_and_kill(self, name: str, size: int, way: str, point: str, number: int) -> None:
        """The same, to the point where the process is killed."""
        self.run(name, size, way, f"{point}=kill@{number if 'commit' in point else 1}")

    @rule(data=st.data(), point=st.sampled_from(("", *POINTS)), mends=st.booleans())
    def replay(self, data: st.DataObject, point: str, mends: bool) -> None:
        """Bring the rejects of some job home by a schema that takes them, or find that it does not."""
        known = self.place.fetch("SELECT job_id FROM _batchimport_jobs ORDER BY created_at, job_id")
        if not known:
            return
        job = data.draw(st.sampled_from([row[0] for row in known]))
        raws = self.place.fetch(f"SELECT raw FROM _batchimport_rejects WHERE job_id = '{job}'")
        rejects = {json.loads(raw)["id"] for (raw,) in raws}
        schema = "loose" if mends else "strict"
        words = ["replay", job, "--schema", schema, "--to", self.place.address, "--quiet"]
        ended = call(self.path, *words, "--json", failpoints=f"{point}=kill" if point else "")
        found = self.rows()
        new = rejects if mends else set()
        if ended.code == 6:  # its rows are gone, or another job stored the same content
            assert found == self.table, "what is refused changes nothing"
            assert rejects & self.table or not self.table or job not in self.finished
        else:
            assert ended.code in (-9, 0 if mends or not rejects else 3), ended
            assert self.table <= found <= self.table | new, "only its rejects come home"
            assert ended.code == -9 or found == self.table | new
        self.table = found

    def rows(self) -> set[int]:
        """Return the records in the table, each of which is there once."""
        rows = Counter(row[0] for row in self.place.fetch("SELECT id FROM users"))
        assert max(rows.values(), default=0) <= 1, f"stored twice: {rows}"
        return set(rows)

    def run(self, name: str, size: int, way: str, fault: str) -> None:
        """Run once, and see what came of it."""
        words = ["run", name, "--schema", self.schema, "--to", self.place.address]
        words += ["--table", "users", "--chunk-size", size, "--json", "--quiet", *way.split()]
        ended = call(self.path, *words, failpoints=fault)
        job = JobKey(name, self.content, self.schema, "replace" in way)
        found, good = self.rows(), set(accepted(self.content, self.schema))
        if ended.code in (2, 6):
            assert found == self.table, "what is refused changes nothing"
            assert self.may_be_refused(job, way), ended
        elif ended.code == -9:
            self.killed(job, way, found, good)
        else:
            self.ended(job, way, ended, found, good)

    def may_be_refused(self, job: JobKey, way: str) -> bool:
        """Say whether the model has a reason for a refusal."""
        stands_in_the_way = self.unfinished.get(job.name, job) != job and "restart" not in way
        ids = {json.loads(line)["id"] for line in job.content}
        is_stored = bool(ids & self.table) and "replace" not in way
        begun = self.unfinished.get(job.name)
        if begun and "replace" not in way:  # a restart would leave its rows beside the new ones
            is_stored |= bool({json.loads(line)["id"] for line in begun.content} & self.table)
        rows_are_gone = job.name in {known.name for known in self.known} and "restart" not in way
        must_be_fine = job in self.done and not way and not stands_in_the_way
        return not must_be_fine and (stands_in_the_way or is_stored or rows_are_gone)

    def killed(self, job: JobKey, way: str, found: set[int], good: set[int]) -> None:
        """Take a job as begun: it has stored some of its records, and the others are as before."""
        kept = set() if "replace" in way and not self.table <= found else self.table
        assert kept <= found <= kept | good, f"lost {kept - found}, not asked for {found - kept}"
        if "replace" in way and found != self.table:
            self.done, self.finished = set(), set()
        self.table = found
        self.unfinished[job.name] = job
        self.known.add(job)
        self.done = {each for each in self.done if each.name != job.name}

    def ended(self, job: JobKey, way: str, ended: Any, found: set[int], good: set[int]) -> None:
        """Take a job as completed."""
        stored = ended.summary["successful"]
        assert ended.code == (0 if stored == len(job.content) else 3), ended
        is_known = ended.summary["status"] == "already_completed"
        assert is_known or job not in self.done or way, ended
        assert len(good) <= stored <= len(job.content), "more only if rejects were replayed"
        assert stored == len(good) or "restart" not in way
        if "replace" in way and not is_known:
            self.table, self.done, self.finished = set(), set(), set()
        assert found == self.table | good, f"lost {(self.table | good) - found}"
        assert not is_known or found == self.table
        self.table = found
        self.finished.add(ended.summary["job_id"])
        self.known.add(job)
        self.done = {each for each in self.done if each.name != job.name} | {job}
        self.unfinished.pop(job.name, None)


def often(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True
    )


def test_any_order() -> None:
    """A fixed budget."""
    run_state_machine_as_test(Imports, settings=often(8, 12))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_order_for_long() -> None:
    """A larger one."""
    run_state_machine_as_test(Imports, settings=often(100, 20))
