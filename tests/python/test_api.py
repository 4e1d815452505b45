"""The Python API: what may be a source, a schema and a transform; what comes back; what is raised."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import polars as pl
import pytest
from pydantic import BaseModel, Field

import batchimport
from batchimport import (
    AlreadyStoredError,
    BatchImportError,
    ConfigurationChangedError,
    RecordsRejectedError,
    RefusedError,
    UsageError,
    aimport_file,
    events,
    import_file,
)
from tests.helpers.cli import environment
from tests.helpers.tables import query

RECORDS = [{"id": at, "age": at % 50} for at in range(1000)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("u.jsonl").write_text("".join(json.dumps(each) + "\n" for each in RECORDS))


def rows(statement: str = "SELECT count(*) FROM u", path: str = "u.db") -> list[tuple[Any, ...]]:
    return query(Path(path), statement)


def adults(record: dict[str, Any]) -> dict[str, Any] | None:
    return record if record["age"] >= 18 else None


class User(BaseModel):
    id: int
    age: int = Field(lt=49)


class Plain(TypedDict):
    id: int


# -- results and errors --------------------------------------------------------------------------


def test_a_result_has_the_fields_of_the_summary() -> None:
    """And the rejects, as dicts and as a frame; a second call changes nothing."""
    result = import_file("u.jsonl", to="u.db", schema={"properties": {"age": {"maximum": 48}}})
    assert (result.status, result.exit_code) == ("completed_with_rejects", 3)
    assert (result.successful, result.failed, result.total_items) == (980, 20, 1000)
    assert [each["record"] for each in result.rejects()] == list(range(49, 1000, 50))
    errors = result.rejects_frame().explode("errors").unnest("errors")
    assert errors["code"].unique().to_list() == ["maximum"]
    assert "rejected=20" in repr(result)
    assert result.report().data == batchimport.report(result.job_id).data
    result.report().save("report.html")
    assert "</html>" in Path("report.html").read_text()
    assert "maximum" in result._repr_html_()
    assert list(result.to_dict())[:3] == ["job_id", "status", "sources"]
    again = import_file("u.jsonl", to="u.db", schema={"properties": {"age": {"maximum": 48}}})
    assert (again.status, again.exit_code) == ("already_completed", 3)
    assert (batchimport.status(result.job_id).failed_items, len(batchimport.jobs())) == (20, 1)
    assert len(list(batchimport.rejects(result.job_id))) == 20


def test_failures_raise_the_errors_of_the_project() -> None:
    """With a hint in the traceback; rejects raise only where that was asked for."""
    with pytest.raises(UsageError, match="no such file") as missing:
        import_file("v.jsonl")
    assert missing.value.__notes__ == ["hint: did you mean u.jsonl?"]
    with pytest.raises(UsageError, match="tabel") as unknown:
        import_file("u.jsonl", tabel="u")  # type: ignore[call-arg]  # the mistake
    assert unknown.value.hint == "did you mean table?"
    with pytest.raises(UsageError, match="must be a whole number"):
        import_file("u.jsonl", max_parallel="two")  # type: ignore[arg-type]  # the mistake
    import_file("u.jsonl", to="u.db")
    with pytest.raises(AlreadyStoredError) as refused:
        import_file("u.jsonl", to="u.db", limit=5)
    assert isinstance(refused.value, RefusedError)
    assert refused.value.result.exit_code == 6
    bad = [{"id": 1}, {"id": "x"}]
    schema = {"properties": {"id": {"type": "integer"}}}
    with pytest.raises(RecordsRejectedError) as rejected:
        import_file(bad, to="b.db", schema=schema, raise_on_rejects=True)
    assert (rejected.value.result.failed, rejected.value.exit_code) == (1, 3)


def test_events_are_heard_and_json_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A library prints nothing that was not asked for."""
    heard: list[Any] = []
    import_file("u.jsonl", to="u.db", on_event=heard.append)
    assert isinstance(heard[-1], events.JobFinished)
    assert capsys.readouterr() == ("", "")
    import_file("u.jsonl", to="u.db", json=True)
    assert json.loads(capsys.readouterr().out)["status"] == "already_completed"


# -- sources -------------------------------------------------------------------------------------


def test_a_frame_is_a_source_like_any_other() -> None:
    """Types arrive; the same frame again changes nothing; a part of it is refused."""
    frame = pl.DataFrame({"n": [1, 2], "day": [date(2024, 2, 29), None], "d": [0.5, None]})
    assert import_file(frame, to="u.db", table="f").successful == 2
    assert import_file(frame.lazy(), to="u.db", table="f").status == "already_completed"
    assert rows("SELECT * FROM f") == [(1, "2024-02-29", 0.5), (2, None, None)]
    other = import_file(frame.with_columns(n=pl.col("n") + 10), to="u.db", table="f")
    assert (other.status, rows("SELECT count(*) FROM f")) == ("completed", [(4,)])


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_frames_of_other_libraries(library: str) -> None:
    """A named index of pandas is a column."""
    module: Any = pytest.importorskip(library)
    pytest.importorskip("pyarrow")
    columns = {"id": [1, 2], "name": ["a", None], "x": [0.5, float("nan")]}
    if library == "pandas":
        frame: Any = module.DataFrame(columns).set_index("id")
    else:
        frame = module.table(columns | {"x": [0.5, None]})
    assert import_file(frame, to="u.db", table="f").successful == 2
    assert rows("SELECT id, name, x FROM f") == [(1, "a", 0.5), (2, None, None)]


def test_dicts_are_a_source() -> None:
    """In a list, or as they are yielded; with values that JSON has not."""
    moment = datetime(2024, 1, 2, 3, 4, tzinfo=UTC)
    made = ({"id": at, "at": moment, "price": Decimal("1.10")} for at in range(3))
    first = import_file(made, to="u.db", table="f", key="id")
    assert (first.successful, first.sources) == (3, ("<records>",))
    assert rows("SELECT id, at FROM f")[2] == (2, "2024-01-02T03:04:00Z")
    assert import_file([User(id=1, age=2)], to="u.db", table="g").successful == 1
    assert import_file(iter([]), to="u.db", table="h").total_items == 0


@pytest.mark.parametrize("what", [7, {"id": 1}, b"id", [1], [{"a": object()}], None])
def test_what_is_no_source_is_refused(what: Any) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError):
        import_file(what, to="u.db")
    assert not Path("u.db").exists()


def test_an_error_of_the_iterator_comes_out() -> None:
    """As it was raised; nothing was imported, nothing is left."""

    def broken() -> Iterator[dict[str, int]]:
        yield {"id": 1}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        import_file(broken(), to="u.db")
    assert not Path("u.db").exists()
    assert list(Path(".batchimport/spool").iterdir()) == []


# -- schemas and transforms ----------------------------------------------------------------------


def test_classes_are_schemas() -> None:
    """A pydantic model and a TypedDict."""
    result = import_file("u.jsonl", to="u.db", schema=User)
    assert (result.failed, result.rejects_by_code) == (20, {"exclusive_maximum": 20})
    assert import_file("u.jsonl", to="v.db", schema=Plain).successful == 1000


@pytest.mark.parametrize("make", [lambda least: lambda r: r if r["age"] >= least else None, None])
def test_a_function_is_a_transform(make: Callable[[int], Any] | None) -> None:
    """What it captured is a part of the job: the same again is completed, another one is another job."""

    def at_least(least: int, record: dict[str, Any]) -> dict[str, Any] | None:
        return record if record["age"] >= least else None

    def transform(least: int) -> Any:
        return make(least) if make is not None else partial(at_least, least)

    assert import_file("u.jsonl", to="u.db", transform=transform(18)).filtered == 360
    again = import_file("u.jsonl", to="u.db", transform=transform(18))
    assert again.status == "already_completed"
    with pytest.raises(AlreadyStoredError):
        import_file("u.jsonl", to="u.db", transform=transform(40))


def test_a_global_that_a_function_uses_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook, where a cell is changed and run again."""
    spaces = [{"LEAST": 18}, {"LEAST": 40}]
    code = "def old(record):\n    return record if record['age'] >= LEAST else None\n"
    for space in spaces:
        exec(code, space)
    assert import_file("u.jsonl", to="u.db", transform=spaces[0]["old"]).filtered == 360
    with pytest.raises(AlreadyStoredError):
        import_file("u.jsonl", to="u.db", transform=spaces[1]["old"])


def test_a_function_of_a_module_is_what_the_command_line_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the two begin and continue the same job; workers cannot import any other function."""
    Path("mine.py").write_text("def same(record: dict) -> dict:\n    return record\n")
    monkeypatch.syspath_prepend(".")
    mine: Any = importlib.import_module("mine")

    first = import_file("u.jsonl", to="u.db", transform=mine.same)
    again = import_file("u.jsonl", to="u.db", transform="mine:same")
    assert (again.status, again.job_id) == ("already_completed", first.job_id)
    with pytest.raises(UsageError, match="workers cannot import"):
        import_file("u.jsonl", to="u.db", transform=lambda record: record, engine="temporal")


# -- interrupts ----------------------------------------------------------------------------------


def interrupting(act: Callable[[], Any]) -> Callable[[Any], None]:
    """Return an observer that acts at the first chunk that is committed."""
    done = threading.Event()

    def observe(event: Any) -> None:
        if isinstance(event, events.ChunkFinished) and not done.is_set():
            done.set()
            act()

    return observe


def test_a_keyboard_interrupt_leaves_a_job_that_can_be_continued() -> None:
    """By the same call, or by `resume`, also from another process; the function is given again."""
    main = threading.main_thread().ident or 0
    options: Any = {"to": "u.db", "transform": lambda r: r, "chunk_size": 10, "max_parallel": 1}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        act = interrupting(lambda: signal.pthread_kill(main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt) as raised:
            import_file("u.jsonl", on_event=act, **options)
    finally:
        signal.signal(signal.SIGINT, before)
    cause = raised.value.__cause__
    assert isinstance(cause, BatchImportError)
    job_id, done = cause.result.job_id, cause.result.successful
    assert 10 <= done < 1000
    assert rows() == [(done,)]
    assert batchimport.status(job_id).status == "interrupted"
    with pytest.raises(UsageError, match="known only to the program"):
        batchimport.resume(job_id)
    with pytest.raises(ConfigurationChangedError):
        batchimport.resume(job_id, transform=lambda r: {**r, "more": 1})
    result = import_file("u.jsonl", **options)
    assert (result.job_id, result.resumed, result.this_run.processed) == (job_id, True, 1000 - done)
    assert rows("SELECT count(*), count(DISTINCT id) FROM u") == [(1000, 1000)]


def test_frames_are_continued_without_the_frame() -> None:
    """What was given is kept until its job is completed."""

    async def cancelled() -> None:
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            running.cancel()

        running = asyncio.ensure_future(
            aimport_file(
                iter(RECORDS),
                to="u.db",
                table="u",
                chunk_size=10,
                max_parallel=1,
                on_event=interrupting(lambda: loop.call_soon_threadsafe(cancel)),
            )
        )
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    known = batchimport.status()
    assert known.status == "interrupted"
    assert batchimport.resume(known.job_id).status == "completed"
    assert rows("SELECT count(*), count(DISTINCT id) FROM u") == [(1000, 1000)]
    assert not list(Path(".batchimport").rglob("stdin"))


def test_the_loop_goes_on_while_a_file_is_imported() -> None:
    """Two imports and another task side by side."""

    async def work() -> list[int]:
        ticks = asyncio.ensure_future(asyncio.sleep(0, 1))
        both = [aimport_file("u.jsonl", to=f"{name}.db") for name in "ab"]
        return [*[(await each).successful for each in both], await ticks]

    assert asyncio.run(work()) == [1000, 1000, 1]


def test_a_script_is_killed_and_run_again(tmp_path: Path) -> None:
    """A generator and a function of a script: after `kill -9` the same script continues the job."""
    Path("script.py").write_text(
        "from batchimport import import_file\n"
        "def double(record: dict) -> dict:\n"
        "    return {'id': record['id'] * 2}\n"
        "made = ({'id': at} for at in range(100))\n"
        "print(import_file(made, to='u.db', table='u', transform=double, chunk_size=10).resumed)\n"
    )
    command = [sys.executable, "script.py"]
    fault = (
        "import sys; from batchimport import failpoints; failpoints.arm('after-commit=kill@4')\n"
    )
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            fault + "exec(compile(open('script.py').read(), 'script.py', 'exec'))",
        ],
        env=environment(),
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert 0 < rows()[0][0] < 100
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert ended.stdout == "True\n", ended.stderr
    assert rows("SELECT count(*), sum(id) FROM u") == [(100, 9900)]


def test_rejects_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a schema and a function of the program; then none is left, and the job knows."""
    monkeypatch.chdir(tmp_path)
    records = [{"id": 1, "age": 5}, {"id": 2, "age": "x"}, {"id": 3, "age": "y"}]
    schema = {"properties": {"id": {"type": "integer"}, "age": {"type": "integer"}}}
    first = import_file(records, to="users.db", table="users", schema=schema)
    assert (first.successful, first.failed) == (1, 2)

    def without_age(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"age": None}

    looser = {"properties": {"id": {"type": "integer"}, "age": {}}}
    some = first.replay(schema=looser, transform=without_age, where="age", dry_run=True)
    assert (some.successful, first.replay().failed) == (3, 2)
    last = first.replay(schema=looser, transform=without_age)
    assert (last.status, last.successful, last.failed, last.exit_code) == ("completed", 3, 0, 0)
    assert query(tmp_path / "users.db", "SELECT id, age FROM users") == [
        (1, 5),
        (2, None),
        (3, None),
    ]
    with pytest.raises(BatchImportError, match="no such job"):
        batchimport.replay("nope")
