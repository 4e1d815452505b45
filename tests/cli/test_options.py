"""Every option of `run` is reachable by flag, environment, job.toml and keyword; precedence; job.toml."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from batchimport import import_file
from batchimport.cli.config import read_config
from batchimport.cli.options.values import Setting, convert, from_environment, run_from, settings
from batchimport.errors import UsageError
from tests.helpers.cli import ROOT, Workdir
from tests.helpers.keywords import written
from tests.helpers.tables import query

OTHER = {"to": "sqlite:///other.db", "table": "other", "schema": "s.json"}


def other_value(known: Setting) -> Any:
    """Return a value that is not the default."""
    if known.name in OTHER:
        return OTHER[known.name]
    if get_origin(known.kind) is Literal:
        return next(each for each in get_args(known.kind) if each != known.default)
    if known.is_list:
        return ["a=b", "c=d, e"]
    examples: dict[Any, Any] = {bool: not known.default, int: 7, float: 7.5, Path: "file"}
    return examples.get(known.kind, "text")


def toml(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


def test_every_option_is_a_flag_a_variable_a_key_and_a_keyword(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same value by each way makes the same request; the list is that of `run --help`."""
    help_text = workdir.call("run", "--help").out
    flags = set(re.findall(r"^ +(--[a-z-]+)", help_text, re.MULTILINE)) - {"--help", "--config"}
    assert {known.flag for known in settings().values()} == flags
    signature = inspect.signature(import_file).parameters
    config = workdir.path / "job.toml"
    for name, known in settings().items():
        value = other_value(known)
        by_keyword = run_from({name: convert(known, value, name)})
        text = json.dumps(value) if known.is_list or known.kind is bool else str(value)
        monkeypatch.setenv(known.variable, text)
        assert run_from(from_environment()) == by_keyword, name
        monkeypatch.delenv(known.variable)
        config.write_text(f"{name} = {toml(value)}\n")
        job = read_config(config)[None]
        monkeypatch.chdir(workdir.path)
        found = getattr(getattr(run_from(job.values), known.group), known.field)
        wanted = getattr(getattr(by_keyword, known.group), known.field)
        is_path = known.kind is Path or name in ("to", "schema")
        assert (
            str(found).endswith(str(wanted).removeprefix("sqlite:///"))
            if is_path
            else found == wanted
        )
        assert wanted != known.default, name
        assert signature[name].default == known.default


def test_the_keywords_are_those_of_the_options() -> None:
    """`batchimport/keywords.py`, which editors read, is what `python -m tests.helpers.keywords` writes."""
    assert (ROOT / "batchimport" / "keywords.py").read_text(encoding="utf-8") == written()


def test_a_flag_comes_before_the_environment_before_the_file(workdir: Workdir) -> None:
    """Each decides only what those before it leave open; the default is last."""
    workdir.lines("u.jsonl", [{"id": 1}])
    folder = workdir.path / "deep"
    folder.mkdir()
    config = folder / "job.toml"
    config.write_text('sources = ["../u.jsonl"]\nto = "a.db"\ntable = "file"\njob_id = "file"\n')
    words = ["run", "--config", config, "--job-id", "typed", "--json"]
    ended = workdir.call(*words, BATCHIMPORT_JOB_ID="variable", BATCHIMPORT_TABLE="variable")
    assert ended.code == 0, ended.err
    summary = ended.summary
    assert (summary["job_id"], summary["table"]) == ("typed", "variable")
    assert query(folder / "a.db", "SELECT count(*) FROM variable") == [(1,)]


NIGHTLY = """
to = "all.db"
[jobs.users]
sources = ["u.jsonl"]
key = "id"
[jobs.gone]
sources = ["none.jsonl"]
[jobs.orders]
sources = "o*.jsonl"
"""


def test_several_jobs_of_a_file(workdir: Workdir) -> None:
    """All in order, also after one that fails; the exit code is the worst; or those that are named."""
    workdir.lines("u.jsonl", [{"id": 1}, {"id": 1}])
    workdir.lines("orders.jsonl", [{"id": 1}])
    workdir.write("nightly.toml", NIGHTLY)
    ended = workdir.call("run", "--config", "nightly.toml", "--json", "--quiet")
    assert ended.code == 2
    assert "none.jsonl: no such file" in ended.err
    tables = [json.loads(line)["table"] for line in ended.out.splitlines()]
    assert tables == ["u", "none", "orders"]
    assert workdir.call("run", "--config", "nightly.toml", "users").code == 3
    assert workdir.call("run", "--config", "nightly.toml", "orders").code == 0
    assert "did you mean users?" in workdir.call("run", "--config", "nightly.toml", "user").err
    common = workdir.call("run", "--config", "nightly.toml", "--summary", "s.json")
    assert (common.code, "--summary" in common.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\nmax-paralel = 2\n[jobs.a]\nkey = "id"', "line 2: max-paralel: there is no option"),
        ('[jobs.a]\nkeey = "id"', r"line 2: \[jobs.a\] keey: there is no option"),
        ('max_parallel = "two"', "line 1: max_parallel: must be a whole number, not 'two'"),
        ('on_conflict = "upsert"', "line 1: on_conflict: 'upsert' is not one of"),
        ("key = 2024-01-01", "line 1: key: must be text"),
        ("max_parallel = 1\nmax-parallel = 2", "max_parallel is there twice"),
        ('to = "postgresql://me:secret@h/db"', "line 1: to: a password does not belong in a file"),
        ("jobs = 3", "has no job"),
        ("a = ", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    """With file, line and key; no password is in the message."""
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        read_config(path)
    assert "secret" not in str(raised.value)
    if "no option" in message or "not one of" in message:
        assert "did you mean" in str(raised.value.hint)


def test_init_writes_a_job_that_runs(workdir: Workdir) -> None:
    """With every option, the schema beside it; what is there is not overwritten."""
    workdir.write("u.csv", "a;b\n1;x\n2;y\n")
    assert workdir.call("init", "u.csv", "--to", "u.db", "--key", "a").code == 0
    text = (workdir.path / "job.toml").read_text()
    assert set(re.findall(r"^#?([a-z_]+) = ", text, re.MULTILINE)) == {"sources", *settings()}
    ended = workdir.call("run", "--config", "job.toml", "--json")
    assert (ended.code, ended.summary["successful"]) == (0, 2)
    again = workdir.call("init", "u.csv")
    assert (again.code, "is there already" in again.err) == (2, True)
    assert (workdir.path / "job.toml").read_text() == text
