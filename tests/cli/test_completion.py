"""Completion in a real shell, and the manual page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from batchimport.cli import app
from batchimport.cli.manual import EXIT_CODES, manual
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import ROOT, Workdir, environment

BIN = Path(sys.executable).parent


def bash(workdir: Workdir, script: str) -> str:
    """Run a script in bash where `batchimport` is a command."""
    more = {"HOME": str(workdir.path), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=workdir.path,
        env=environment(**more),
        capture_output=True,
        check=True,
        text=True,
    )
    return ended.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_shell_completes(workdir: Workdir) -> None:
    """Commands, options, values, and the ids of the jobs that are known here."""
    state = StateDirectory(workdir.path / ".batchimport")
    for job_id in ("users-1", "users-2", "other"):
        state.save(job_id, {"job_id": job_id, "progress": {"status": "$(touch owned)'"}})
    bash(workdir, "batchimport --install-completion; true")
    ask = "source .bashrc; for line in 'repo' 'report us' 'run --format p' 'rejects x --ra'; do "
    ask += "COMP_WORDS=(batchimport $line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
    ask += '_batchimport_completion batchimport; echo "${COMPREPLY[@]}"; done'
    answers = bash(workdir, ask).splitlines()
    assert [sorted(each.split()) for each in answers] == [
        ["report"],
        ["users-1", "users-2"],
        ["parquet"],
        ["--raw"],
    ]
    shell = {"_BATCHIMPORT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "batchimport report "}
    shown = bash(
        workdir, f"{' '.join(f'{k}={json.dumps(v)}' for k, v in shell.items())} batchimport"
    )
    assert "users-1" in shown
    assert "touch" not in shown


def test_the_manual_has_every_command_and_option(workdir: Workdir) -> None:
    """It is made from the commands, and groff finds nothing wrong with it."""
    page = manual()
    for name, command in get_command(app).commands.items():
        assert f".SH {name.upper()}\n" in page
        for option in command.params:
            flag = max(option.opts, key=len).replace("-", r"\-")
            assert option.param_type_name == "argument" or f"{flag}" in page
    codes = re.findall(r"^\| (\d) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert list(map(str, EXIT_CODES)) == codes
    if groff := shutil.which("groff"):
        shown = subprocess.run(
            [groff, "-man", "-ww", "-Tutf8", "-P-cbu"],
            input=page,
            capture_output=True,
            check=True,
            text=True,
        )
        assert (shown.stderr, "Longer records are rejected" in shown.stdout) == ("", True)
