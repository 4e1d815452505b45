"""The suite notices mistakes: each one of `tests/helpers/breaks.py` makes the named tests fail."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers import mariadb, web
from tests.helpers.breaks import BREAKS
from tests.helpers.cli import ROOT
from tests.helpers.forked import run_tests
from tests.helpers.postgres import PostgresServer

PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _servers(postgres: PostgresServer) -> None:
    """Start those of this process, and the tests need not start their own."""
    for start in (mariadb.server, web.shared_s3):
        with suppress(pytest.skip.Exception):
            start()


@pytest.mark.parametrize("name", BREAKS)
def test_a_mistake_is_noticed(name: str, tmp_path: Path) -> None:
    """By each of the named tests, for the reason that it is there for."""
    mistake = BREAKS[name]
    run = run_tests(name, mistake.tests, tmp_path)
    if run.skipped and not run.failed and not run.passed:
        pytest.skip(f"{mistake.tests} cannot run here: NOT tested")
    assert run.passed == []
    assert run.failed
    for test, text in run.failed.items():
        assert re.search(mistake.words, text), f"{test} fails for another reason:\n{text}"


@pytest.mark.parametrize("name", BREAKS)
def test_the_page_lists_the_mistakes(name: str) -> None:
    """With what is wrong, and the files of the tests that notice."""
    files = {test.partition("::")[0] for test in BREAKS[name].tests if test.startswith("tests/")}
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {BREAKS[name].says} |")]
    assert {file.removeprefix("tests/faults/") for file in files} <= set(re.findall("`(.+?)`", row))
