"""Every snippet of docs/python.md, docs/configuration.md and the README's Python section runs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

import batchimport
from batchimport.cli.config import read_config
from tests.helpers.cli import ROOT, SAMPLE


def snippets(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("users.jsonl", "users.schema.json"):
        shutil.copy(SAMPLE / name, tmp_path)


def run(code: str, space: dict[str, Any]) -> None:
    """Run a snippet as a notebook does: it may await."""
    compiled = compile(code, "<snippet>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, space)
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_python_snippets_run(page: str) -> None:
    """One after the other, as in a notebook."""
    space: dict[str, Any] = {"__name__": "__main__"}
    found = [each for each in snippets(page, "python") if "batchimport" in each or "result" in each]
    assert found
    for code in found:
        run(code, space)
    assert space["result"].status.startswith(("completed", "already_completed"))


def test_the_page_names_all_that_is_public() -> None:
    """Each name of the package is on the page."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", page))
    quiet = {
        "JobInterrupted",
        "JobStatus",
    }  # what KeyboardInterrupt is caused by; what `status` returns
    assert set(batchimport.__all__) - words - quiet == set()


def test_files_of_the_page_are_read(tmp_path: Path) -> None:
    """The job, and the jobs."""
    jobs = []
    for text in snippets("docs/configuration.md", "toml"):
        assert tomllib.loads(text)
        path = tmp_path / "job.toml"
        path.write_text(text)
        jobs.append(read_config(path))
    assert [list(each) for each in jobs] == [[None], ["users", "orders"]]
    assert jobs[1]["orders"].values["max_errors"] == "0"
    assert jobs[1]["users"].values["max_errors"] == "1%"
