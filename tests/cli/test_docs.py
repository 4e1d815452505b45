"""The README promises what is there, and all of it."""

from __future__ import annotations

import re

import pytest

from tests.helpers.cli import ROOT, Workdir

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = ("run", "resume", "status", "jobs", "rejects", "schema", "worker")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(workdir: Workdir, command: str) -> None:
    """What `--help` lists stands in the README."""
    text = workdir.call(command, "--help").out
    options = set(re.findall(r"^ +(--[a-z-]+)", text, re.MULTILINE)) - {"--help"}
    assert options or command == "jobs"
    assert f"batchimport {command}" in README
    assert [option for option in options if option not in README] == []


def test_no_option_is_promised(workdir: Workdir) -> None:
    """What the README names, `--help` lists."""
    known = "".join(workdir.call(command, "--help").out for command in COMMANDS)
    promised = set(re.findall(r"`(--[a-z-]+)", README))
    assert promised
    assert [option for option in promised if option not in known] == []


def test_the_first_command_shows_what_the_readme_shows(workdir: Workdir) -> None:
    """Counts and reasons, line by line."""
    found = re.search(r"batchimport (run sample_data/users.jsonl .+)\n", README)
    assert found
    arguments = found[1].replace("sample_data/", f"{ROOT}/sample_data/").split()
    ended = workdir.call(*arguments)
    assert ended.code == 3
    block = README.partition("completed with rejects\n")[2].partition("```")[0]
    for line in block.splitlines():
        if "…" not in line:
            assert line in [shown.rstrip() for shown in ended.out.splitlines()]


def test_the_tests_are_what_ci_runs() -> None:
    """`.ci/run` has the README's test command, word for word."""
    command = re.search(r"\$ (python3 .+pytest)\n", README)
    assert command
    assert command[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
