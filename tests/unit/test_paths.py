"""Words on the command line and the files that they mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchimport.errors import UsageError
from batchimport.jobs.outputs import refuse_overwriting
from batchimport.model import Job, SourceOptions
from batchimport.schema.load import load_schema
from batchimport.sources.opening import open_source
from batchimport.sources.paths import find_sources, names_of, stem_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some files in the current directory."""
    for name in ("b.csv", "a.csv", "x/a.csv", "x/y/c.csv", "[z].csv", "z.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a\n1\n")
    (tmp_path / "d.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["b.csv", "a.csv"], ["b.csv", "a.csv"]),
        (["?.csv"], ["a.csv", "b.csv", "z.csv"]),
        (["**/a.csv"], ["a.csv", "x/a.csv"]),
        (["x/**"], ["x/a.csv", "x/y/c.csv"]),
        (["[z].csv"], ["[z].csv"]),
        (["[yz].csv"], ["z.csv"]),
        (["b.csv", "./b.csv", "?.csv", "x/../b.csv"], ["b.csv", "a.csv", "z.csv"]),
        (["nothing.csv"], ["nothing.csv"]),
        (["n" * 5000], ["n" * 5000]),
    ],
)
def test_words_become_files(folder: Path, words: list[str], files: list[str]) -> None:
    """In the order of the words, patterns sorted, each file once, no directories by pattern."""
    assert find_sources(words) == tuple(str(folder / name) for name in files)


@pytest.mark.parametrize("word", ["", "no*.csv", "x/[q]/*"])
def test_words_that_mean_nothing(folder: Path, word: str) -> None:
    """Are said to."""
    with pytest.raises(UsageError):
        find_sources([word])


def test_names_tell_files_apart(tmp_path: Path) -> None:
    """By their folders, if their names are the same."""
    assert names_of(["/a/b.csv", "/c/d.csv"]) == ["b.csv", "d.csv"]
    assert names_of(["/a/x/u.csv", "/a/y/u.csv"]) == ["x/u.csv", "y/u.csv"]


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (["/a/u.jsonl.gz"], "u"),
        (["/a/.hidden"], "hidden"),
        (["/a/.u.csv"], "u"),
        (["-"], "stdin"),
        (["sales.2023.csv"], "sales_2023"),
        (["sales.2023.eu.CSV.GZ", "sales.2023.us.csv"], "sales"),
        (["b.1.csv", "a.csv"], "b_1"),
        (["access.log"], "access"),
        (["csv"], "csv"),
        (["..."], "records"),
    ],
)
def test_the_stem_tells_files_apart(names: list[str], stem: str) -> None:
    """Only what says how a file is written is left out; and no dot, which would name a schema."""
    assert stem_of(*names) == stem


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("loop", "symbolic links"),
        ("nowhere.csv", "no such file"),
        ("/proc/cpuinfo", "a size of 0, and content"),
    ],
)
def test_odd_files_are_refused_in_words(tmp_path: Path, target: str, said: str) -> None:
    """Links that lead nowhere or to themselves, also found by a pattern; files that hide their size."""
    link = tmp_path / "loop"
    link.symlink_to(target)
    assert find_sources([str(tmp_path / "*")]) == find_sources([str(link)]) == (str(link),)
    with pytest.raises(UsageError, match=said):
        open_source([str(link)], SourceOptions())


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    """A device, and a pipe that nobody may write into."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match="cannot be read"):
            load_schema(path)


def test_an_output_is_no_directory(tmp_path: Path) -> None:
    """That is known before anything is imported."""
    with pytest.raises(UsageError, match="is a directory"):
        refuse_overwriting(Job(("u.csv",), "sqlite:///u.db", "u"), {"--summary": tmp_path})
