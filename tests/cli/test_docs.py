"""The README and the docs describe what is there, and all of it."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from batchimport.cli import app
from batchimport.model import ChunkCounts, ChunkSizes, Counts, FieldError, Progress, Reject, Summary
from tests import pictures
from tests.helpers.cli import ROOT, Workdir

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (
    *("run", "resume", "status", "jobs", "rejects", "replay", "report"),
    *("schema", "init", "forget", "prune", "worker"),
)
SHELL = ("|", "&&", ";", ">", "2>", "||", "&")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(workdir: Workdir, command: str) -> None:
    """The README names every option that `--help` lists."""
    text = workdir.call(command, "--help").out
    options = set(re.findall(r"^ +(--[a-z-]+)", text, re.MULTILINE)) - {"--help"}
    assert options or command == "jobs"
    assert f"batchimport {command}" in README
    assert [option for option in options if option not in README] == []


def test_no_option_is_promised(workdir: Workdir) -> None:
    """`--help` lists every option that the README names."""
    known = "".join(workdir.call(command, "--help").out for command in COMMANDS)
    promised = set(re.findall(r"`(--[a-z-]+)", README))
    assert promised
    assert [option for option in promised if option not in known] == []


def test_the_first_command_shows_what_the_readme_shows(workdir: Workdir) -> None:
    """The report has the counts and reasons that the README shows, line by line."""
    found = re.search(r"batchimport (run sample_data/users.jsonl .+)\n", README)
    assert found
    arguments = found[1].replace("sample_data/", f"{ROOT}/sample_data/").split()
    ended = workdir.call(*arguments)
    assert ended.code == 3
    block = README.partition("completed with rejects\n")[2].partition("```")[0]
    for line in block.splitlines():
        if "…" not in line:
            assert line in [shown.rstrip() for shown in ended.out.splitlines()]


def test_the_pictures_are_what_the_terminal_shows(tmp_path: Path) -> None:
    """`python -m tests.pictures` exports them from real runs; the first one has today's lines."""
    command = pictures.SAMPLE_RUN
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    pictures.draw(tmp_path / "run.svg", command, pictures.shown_by(tmp_path, command))
    committed = (ROOT / "docs" / "run.svg").read_text(encoding="utf-8")
    for line in ("completed with rejects", "2,936 of 3,000", "malformed_json", "100.0%"):
        shown = line.replace(" ", "&#160;")
        assert shown in (tmp_path / "run.svg").read_text(encoding="utf-8")
        assert shown in committed
    for page in ROOT.glob("docs/*.svg"):
        assert not re.search(r"url\([\"']?https?:|/tmp/", page.read_text(encoding="utf-8"))


def test_the_tests_are_what_ci_runs() -> None:
    """`.ci/run` runs the README's test command, word for word."""
    command = re.search(r"\$ (python3 .+pytest)\n", README)
    assert command
    assert command[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file, and its anchor a heading of that file."""
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8"))
    targets = [((page.parent / path) if path else page, anchor) for path, anchor in links]
    assert [path for path, _ in targets if not path.exists()] == []
    assert [each for each in targets if each[1] and each[1] not in anchors(each[0])] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_named_exist(page: Path) -> None:
    """A path in backticks is a file or folder of the repository or of its package.

    `NAME` stands for what a reader chooses.
    """
    named = re.findall(r"`((?!path/to/)[\w./]+(?:\.py|/))`", page.read_text(encoding="utf-8"))
    paths = [path for path in named if "NAME" not in path]
    places = (ROOT, ROOT / "batchimport", ROOT / "tests" / "faults")
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_are_shown_can_be_given(page: Path) -> None:
    """Each command of a page has the arguments, options and values that the command line takes."""
    program: Any = typer.main.get_command(app)
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        starts = [at for at, word in enumerate(words) if Path(word).name == "batchimport"]
        for at in starts:
            given = list(itertools.takewhile(lambda word: word not in SHELL, words[at + 1 :]))
            if not given or given[0].startswith("-"):
                continue
            command = program.commands[given[0]]
            command.make_context(given[0], given[1:]).close()  # raises a usage error


def test_every_field_of_the_output_is_documented() -> None:
    """docs/output.md names the fields of the summary, of progress and of rejects."""
    page = (ROOT / "docs" / "output.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(\w+)`", page))
    kinds = (Summary, Counts, ChunkCounts, ChunkSizes, Progress, Reject, FieldError)
    assert {each.name for kind in kinds for each in fields(kind)} - documented == set()


def test_every_extra_is_documented() -> None:
    """docs/install.md says what an extra is for, and the container has it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    image = (ROOT / ".ci" / "Dockerfile").read_text(encoding="utf-8")
    wanted = sorted(set(extras) - {"dev", "docs"})
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == wanted
    assert f"[{','.join(wanted)}]" in image


def test_the_map_of_the_code_is_right() -> None:
    """CONTRIBUTING names modules that exist, and the layers that `lint-imports` checks."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Where things are")[2].partition("\n## ")[0]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", table)
    assert len(named) > 30
    places = [ROOT / "batchimport" / name for name in named if name != "batchimport/"]
    assert [place for place in places if not place.exists()] == []
    layers = re.findall('"(.+)",', (ROOT / "pyproject.toml").read_text().partition("layers = [")[2])
    assert "\n".join(["", *layers[: layers.index("errors") + 1], ""]) in text
