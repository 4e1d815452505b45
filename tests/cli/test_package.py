"""What is published works where nothing else is: sdist and wheel, and the image of the container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.cli import ROOT, SAMPLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command: object, cwd: Path, **more: str) -> str:
    """Run a command that must end well; return what it prints."""
    ended = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}"
    return ended.stdout


def bare(path: Path) -> Path:
    """Make an environment that has only pip; return the folder of its commands."""
    run(sys.executable, "-m", "venv", path, cwd=path.parent)
    return path / "bin"


def test_sdist_and_wheel(tmp_path: Path) -> None:
    """They are well-formed; the wheel that the sdist makes imports a file, and its version is the tag."""
    if find_spec("build") is None or find_spec("twine") is None:
        pytest.skip("build and twine are not installed: sdist and wheel are not tested")
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    files = sorted((tmp_path / "dist").iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=tmp_path)
    commands = bare(tmp_path / "bare")
    run(commands / "pip", "install", "--quiet", files[0], cwd=tmp_path)
    arguments = ("--schema", SAMPLE / "users.schema.json", "--exit-zero-on-rejects", "--quiet")
    run(commands / "batchimport", "run", SAMPLE / "users.jsonl", *arguments, cwd=tmp_path)
    assert (tmp_path / "users.db").exists()
    assert (tmp_path / "bare/share/man/man1/batchimport.1").exists()
    # As the messages say; no index needs to have batchimport.
    run(commands / "pip", "install", "--dry-run", "batchimport[postgres]", cwd=tmp_path)
    version = run(commands / "batchimport", "--version", cwd=tmp_path).split()[1]
    tags = ("git", "tag", "--points-at", "HEAD")
    tag = run(*tags, cwd=ROOT).strip() if (ROOT / ".git").exists() else ""
    assert tag.removeprefix("v") in ("", version)


def test_the_steps_of_the_container(tmp_path: Path) -> None:
    """The image's steps, in a bare environment and with its folders elsewhere, make the command."""
    text = (ROOT / ".ci" / "Dockerfile").read_text(encoding="utf-8")
    source, wheels = tmp_path / "src", tmp_path / "wheels"
    source.mkdir()
    copied = re.findall(r"^COPY (?!--from)(.+) (\S+)$", text, re.MULTILINE)
    for names, target in copied:
        for name in names.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target)
            else:
                shutil.copy(ROOT / name, source / target)
    commands = bare(tmp_path / "bare")
    steps = re.findall(r"^RUN (pip .+)$", text, re.MULTILINE)
    assert len(steps) == 2
    for step in steps:
        own = step.replace("/wheels", str(wheels))
        run("sh", "-c", own, cwd=source, PATH=f"{commands}:{os.environ['PATH']}")
    entry = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', text, re.MULTILINE)
    help_text = run(commands / entry[0], "run", "--help", cwd=tmp_path)
    assert "--temporal-address" in help_text
    probe = "import duckdb, obstore, psycopg, pydantic, pymysql, temporalio"
    run(commands / "python", "-c", probe, cwd=tmp_path)
