"""The rules of a job: Python and the command line get the same refusals, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer.testing

from batchimport.cli import app
from batchimport.cli.options.values import convert, settings
from batchimport.errors import UsageError
from batchimport.jobs.identify import Request, job_from, without_address
from batchimport.model import Job, RunOptions, SourceOptions


def a_job(**facts: object) -> Job:
    return Job(("u.jsonl",), "sqlite:///u.db", "u", **facts)  # type: ignore[arg-type]


RULES: list[tuple[str, Callable[[], object], str]] = [
    ("--sql q --transform no:f", lambda: a_job(sql="q", transform="no:f"), "--sql: cannot be"),
    ("--on-conflict update", lambda: a_job(on_conflict="update"), "--on-conflict update: needs"),
    ("--limit 0", lambda: a_job(limit=0), "--limit: must be at least 1, not 0"),
    ("--infer-rows 0", lambda: a_job(infer_records=0), "--infer-rows: must be at least 1, not 0"),
    ("--job-id ../up", lambda: Request(a_job(), job_id="../up"), "--job-id: not a job id: '../up'"),
    ("--skip-lines -1", lambda: SourceOptions(skip_lines=-1), "--skip-lines: must be at least 0"),
    (
        "--columns a,,b",
        lambda: SourceOptions(columns=("a", "", "b")),
        "--columns: has an empty name",
    ),
    ("--key a,a", lambda: a_job(key=("a", "a")), "--key: 'a' is given twice"),
    (
        "--type a=Timestamp",
        lambda: SourceOptions(types=("a=Timestamp",)),
        "--type a: 'Timestamp' is not one of",
    ),
    ("--max-parallel 0", lambda: RunOptions(max_parallel=0), "from 1 to 256, not 0"),
    ("--max-parallel 257", lambda: RunOptions(max_parallel=257), "from 1 to 256, not 257"),
    ("--chunk-size 0", lambda: RunOptions(chunk_size=0), "--chunk-size: must be at least 1"),
    ("--min-chunk-size 0", lambda: RunOptions(min_chunk_size=0), "--min-chunk-size: must be"),
    (
        "--min-chunk-size 10 --max-chunk-size 5",
        lambda: RunOptions(min_chunk_size=10, max_chunk_size=5),
        "--max-chunk-size: is smaller than --min-chunk-size",
    ),
    ("--max-attempts 0", lambda: RunOptions(max_attempts=0), "--max-attempts: must be at least 1"),
    (
        "--retry-initial -1",
        lambda: RunOptions(retry_initial_seconds=-1.0),
        "--retry-initial: must be at least 0, not -1.0",
    ),
    ("--retry-max -1", lambda: RunOptions(retry_max_seconds=-1.0), "--retry-max: must be at"),
    ("--retry-backoff 0.5", lambda: RunOptions(retry_backoff=0.5), "at least 1, not 0.5"),
    ("--retry-backoff nan", lambda: RunOptions(retry_backoff=float("nan")), "at least 1, not nan"),
    ("--chunk-timeout 0", lambda: RunOptions(chunk_timeout_seconds=0.0), "at least 0.001, not 0.0"),
    ("--max-errors -3", lambda: RunOptions(max_errors=-3), "--max-errors: must be at least 0"),
    ("--max-errors 300%", lambda: RunOptions(max_errors_share=3.0), "from 0% to 100%, not 300%"),
]


@pytest.mark.parametrize(("options", "make", "words"), RULES, ids=[rule[0] for rule in RULES])
def test_a_rule_is_the_same_from_python(
    options: str, make: Callable[[], object], words: str, tmp_path: Path
) -> None:
    """Message, place and hint; nothing is opened or loaded before."""
    with pytest.raises(UsageError) as python:
        make()
    assert words in str(python.value)
    state = ["--state-dir", str(tmp_path / "state")]
    ended = typer.testing.CliRunner().invoke(app, ["run", "u.jsonl", *options.split(), *state])
    assert isinstance(ended.exception, UsageError)
    assert ended.exception.args == python.value.args
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "make"),
    [
        ("--if-exists", lambda: a_job(if_exists="nonsense")),
        ("--on-conflict", lambda: a_job(on_conflict="nonsense")),
        ("--compression", lambda: SourceOptions(compression="nonsense")),
        ("--adaptive", lambda: RunOptions(adaptive="nonsense")),  # type: ignore[arg-type]
    ],
)
def test_a_choice_is_the_same_from_python(option: str, make: Callable[[], object]) -> None:
    """The same choices in the same words; on the command line Typer prints them."""
    with pytest.raises(UsageError) as python:
        make()
    assert python.value.where == option
    ended = typer.testing.CliRunner().invoke(app, ["run", "u.jsonl", option, "nonsense"])
    assert ended.exit_code == 2
    assert python.value.message.partition("is not")[2] in " ".join(ended.output.split())


def test_no_option_is_given_an_empty_text() -> None:
    """It is refused wherever it comes from, and not taken for none, but where it means something."""
    texts = [known for known in settings().values() if known.is_list or known.kind in (str, Path)]
    assert len(texts) > 20
    for known in texts:
        if known.name in ("quote", "null_string"):
            continue
        ended = typer.testing.CliRunner().invoke(app, ["run", "u.jsonl", known.flag, ""])
        assert isinstance(ended.exception, UsageError), known.flag
        assert str(ended.exception) == f"{known.flag}: must not be empty"
        with pytest.raises(UsageError, match="must not be empty"):
            convert(known, "", known.name)
    assert convert(settings()["columns"], [], "columns") is None
    ended = typer.testing.CliRunner().invoke(app, ["rejects", "j", "--code", ""])
    assert str(ended.exception) == "--code: must not be empty"


def test_a_job_has_a_source_and_a_table() -> None:
    """Which the command line always gives."""
    for sources, table, where in (
        ((), "u", "SOURCE"),
        (("u.jsonl",), "", "--table"),
        (("u.jsonl",), "a\0b", "--table"),
    ):
        with pytest.raises(UsageError) as caught:
            Job(sources, "sqlite:///u.db", table)
        assert caught.value.where == where


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--chunk-bytes lots", "--chunk-bytes: not a size: 'lots'"),
        ("--max-memory 0", "--max-memory: not a size: '0'"),
        ("--max-errors many", "--max-errors: not a number or a percentage: 'many'"),
        ("--infer-rows some", "--infer-rows: not a number or `all`: 'some'"),
        ("--task-queue q", "--task-queue: is an option of --engine temporal"),
        ("--detach", "--detach: is an option of --engine temporal"),
    ],
)
def test_what_only_the_command_line_can_say_wrong(arguments: str, words: str) -> None:
    """Sizes, percentages, and options that need another one."""
    ended = typer.testing.CliRunner().invoke(app, ["run", "u.jsonl", *arguments.split()])
    assert isinstance(ended.exception, UsageError)
    assert str(ended.exception) == words


def test_a_recorded_job_is_read_as_it_was_written() -> None:
    """Also with every option that has a rule."""
    job = a_job(
        on_conflict="update", key=("id", "x"), if_exists="truncate", limit=7, infer_records=None
    )
    assert job_from(without_address(job), job.destination) == job
