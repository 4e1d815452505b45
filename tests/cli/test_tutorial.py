"""The commands of the tutorial and of the recipes do what these pages show."""

from __future__ import annotations

import shutil
from pathlib import Path

import obstore
import pytest

from tests.helpers import mariadb, pages
from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.postgres import PSQL

RECIPES = pages.sections(pages.page("recipes.md"))
NOT_RUN = {
    "docker": "needs a daemon; the steps of .ci/Dockerfile are run by tests/cli/test_package.py"
}


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a path that is short enough for a line."""
    return tmp_path_factory.mktemp("shop")


def test_tutorial(shop: Path) -> None:
    """All commands of the tutorial, one after the other, print what it shows."""
    blocks = pages.sections(pages.page("tutorial.md")).values()
    terminal = a_terminal(shop)
    terminal.places["time.sleep(0.005)"] = "time.sleep(0)"  # a test presses Ctrl-C in time
    terminal.follow([block for section in blocks for block in section])


@pytest.mark.parametrize("title", [title for title, blocks in RECIPES.items() if blocks])
def test_recipe(title: str, shop: Path, request: pytest.FixtureRequest) -> None:
    """The commands of a recipe print what it shows; servers are real ones."""
    blocks = RECIPES[title]
    for tool in ("jq", "gzip"):
        if shutil.which(tool) is None and any(tool in block.text for block in blocks):
            pytest.skip(f"{tool} is not installed: this recipe is not tested")
    terminal = a_terminal(shop)
    text = "".join(block.text for block in blocks if block.kind == "console")
    if "postgresql://" in text:
        address = request.getfixturevalue("postgres").new_database()
        terminal.places |= {"postgresql://shop@db.example.org/shop": address, "psql ": f"{PSQL} "}
    if "mysql://" in text:
        terminal.places |= {"mysql://shop@db.example.org/shop": mariadb.server().new_database()}
        terminal.variables["MYSQL_PWD"] = ""
    if "s3://" in text:
        s3 = request.getfixturevalue("s3")
        terminal.variables |= s3.environment
        obstore.put(s3.store(), "users-1.jsonl", SAMPLE / "users.jsonl")
    terminal.follow(blocks)


def a_terminal(path: Path) -> pages.Terminal:
    """Return a terminal in a directory with the sample data."""
    (path / "sample_data").symlink_to(SAMPLE)
    return pages.Terminal(Workdir(path), not_run=NOT_RUN)
