"""The site of the docs: its generator finds no broken link, and its search finds what a reader looks for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from typer.main import get_command

from batchimport.cli import app
from batchimport.cli.manual import EXIT_CODES
from batchimport.errors import BatchImportError
from tests.helpers.cli import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    if find_spec("zensical") is None:
        pytest.skip("zensical is not installed (pip install '.[docs]'): the site is not tested")
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", root / "docs")
    shutil.copy(ROOT / "zensical.toml", root)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return root / "site"


def test_search_finds_options_exit_codes_and_errors(site: Path) -> None:
    """A section of the reference, which the search index has, tells of each."""
    sections = json.loads((site / "search.json").read_text(encoding="utf-8"))["items"]
    found = {
        each["title"]: each["text"] for each in sections if "reference.html" in each["location"]
    }
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]  # a group
    for name, command in commands.items():
        assert f"batchimport {name}" in found
        text = " ".join(each for title, each in found.items() if title.startswith(f"{name}:"))
        options = [flag for each in command.params for flag in each.opts if flag.startswith("--")]
        assert [flag for flag in options if flag not in text] == []
    assert [text for text in EXIT_CODES.values() if text not in found["Exit codes"]] == []
    kinds = list(kinds_of(BatchImportError))
    assert [name for name in kinds if f"<code>{name}</code>" not in found["Errors"]] == []


def test_every_link_leads_somewhere(site: Path) -> None:
    """Links and pictures of the built pages are files of the site; nothing is loaded from elsewhere."""
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:link|script|img)[^>]+(?:href|src)="?https?:', text) == []
        for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', text):
            if page.name != "404.html":
                assert (page.parent / unquote(link)).exists(), f"{page.name}: {link}"


def test_every_page_is_in_the_navigation(site: Path) -> None:
    """A page that nobody finds is no documentation."""
    named = re.findall(r'"([\w-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def kinds_of(kind: type[BatchImportError]) -> Iterator[str]:
    """Yield the names of a class and of those below it that the package has."""
    yield kind.__name__
    for each in kind.__subclasses__():
        if each.__module__ == "batchimport.errors":
            yield from kinds_of(each)
