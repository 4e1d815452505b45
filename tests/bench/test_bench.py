"""The benchmark works: small runs of it, in which no time is asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.bench.__main__ import main
from tests.bench.cases import CASES, LONG, chosen
from tests.bench.data import Data, Facts, Source
from tests.bench.destinations import Destinations, Place
from tests.bench.peers import Peer, Tools
from tests.bench.race import Case, Contestant, Measure, Racer, Standing
from tests.bench.show import as_json, as_table
from tests.bench.timeline import STAGES, Sample, picture
from tests.bench.timeline import _stage as stage_of
from tests.helpers.cli import ROOT, environment

SMOKE = (
    "users-sqlite", "users-postgresql", "users-duckdb", "users-parquet", "upsert-sqlite",
    "bad-50", "compressed", "reading", "resume", "growth-sqlite", "start-help",
)  # fmt: skip


@pytest.mark.parametrize("name", SMOKE)
def test_each_contestant_stores_what_it_should(name: str, tmp_path: Path) -> None:
    """One round of a case: what is installed has figures and stored the expected rows."""
    report = tmp_path / "result.json"
    # Not in tmp_path: the PostgreSQL server's own user could not enter it.
    code = main(["--records", "300", "--rounds", "1", "--only", name, "--json", str(report)])
    (case,) = json.loads(report.read_text())["cases"]
    assert code == 0
    assert case["name"] == name
    for contestant in case["contestants"]:
        assert contestant["problem"] is None
        assert (contestant["median"] is None) == (contestant["missing"] is not None)
    assert case["contestants"][0]["median"]["wall"] > 0


def racer(tmp_path: Path, timeout: float = 60) -> Racer:
    return Racer(Destinations(tmp_path), Tools.of([]).path, timeout)


def case(*contestants: Contestant, destination: str = "sqlite", hogs: int = 0) -> Case:
    return Case("a-case", "a title", destination, contestants, hogs=hogs)


def python(code: str, **more: object) -> Contestant:
    def command(place: Place) -> list[str]:
        return [sys.executable, "-c", code, place.path]

    return Contestant("a command", command, **more)  # type: ignore[arg-type]


STORE_TWO = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    "c.execute('CREATE TABLE users AS SELECT 1 AS id, ''Zoë'' AS name UNION ALL SELECT 2, ''Li'''); "
    "c.commit()"
).replace("''", '"')


def test_rows_that_were_not_stored_are_noticed(tmp_path: Path) -> None:
    """A command that stores other rows has a problem, and does not run again."""
    right = python(STORE_TWO, expected=Facts(2, 3, 5))
    wrong = python(STORE_TWO, expected=Facts(2, 3, 6))
    nothing = python("pass", expected=Facts(2, 3, 5))
    first, second, third = racer(tmp_path).run(case(right, wrong, nothing), 2)
    assert (len(first.runs), first.problem) == (2, "")
    assert (len(second.runs), len(third.runs)) == (1, 1)
    assert "letters=5" in second.problem
    assert "letters=6" in second.problem
    assert "no such table" in third.problem


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    """The exit code and the last line of a command that failed are in the table and in the JSON."""
    failing = python("import sys; sys.exit('no disk')")
    standings = racer(tmp_path).run(case(failing, destination="none"), 1)
    assert "failed: exit code 1: no disk" in as_table(case(failing), standings)
    assert as_json(case(failing), standings)["contestants"][0]["problem"] == "exit code 1: no disk"


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """A command is killed with its children when its time is over."""
    endless = python("import time; time.sleep(1000)")
    (standing,) = racer(tmp_path, timeout=0.5).run(case(endless, destination="none"), 1)
    assert "took more than 0.5 s" in standing.problem


def test_memory_of_the_benchmark_is_not_counted(tmp_path: Path) -> None:
    """A small command has a small peak, however large the process is that measures it."""
    large = bytearray(b"x") * 300_000_000
    (standing,) = racer(tmp_path).run(case(python("pass"), destination="none"), 1)
    assert len(large) > 10 * standing.runs[0].peak > 0


def test_a_loader_that_is_not_installed_is_shown(tmp_path: Path) -> None:
    """A missing loader is in the table and in the JSON, with how to install it."""
    peer = Peer("fastload", "pip install fastload", lambda *_: [], ("no-such-program",))
    assert peer.find(Tools.of([str(tmp_path)])) is None
    missing = Contestant(peer.name, lambda _: [], missing=peer.install, is_ours=False)
    of_two = case(python("pass"), missing, destination="none")
    standings = racer(tmp_path).run(of_two, 1)
    assert "missing: pip install fastload" in as_table(of_two, standings)
    shown = as_json(of_two, standings)["contestants"][1]
    assert (shown["missing"], shown["median"]) == ("pip install fastload", None)


def test_loaders_are_found_in_an_environment(tmp_path: Path) -> None:
    """`--peers` takes a virtual environment or a directory of programs, and is searched first."""
    program = tmp_path / "venv" / "bin" / "sqlite3"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for folder in (tmp_path / "venv", program.parent):
        assert Tools.of([str(folder)]).program("no-such-program", "sqlite3") == str(program)


def measured(name: str, *walls: float, peak: int = 1, slowed: float | None = None) -> Standing:
    runs = [Measure(wall, wall / 2, wall / 2, peak, slowed) for wall in walls]
    return Standing(Contestant(name, lambda _: [], goal=1.05), runs)


def test_figures_are_medians_and_ratios() -> None:
    """The first contestant is divided by each other; regret is its distance to the best of them."""
    standings = [
        measured("auto", 9, 3, 2, peak=300), measured("a", 2, 2, 2, peak=100), measured("b", 4, 4, 4)
    ]  # fmt: skip
    contestants = tuple(standing.contestant for standing in standings)
    sizes = Case("sizes", "", "none", contestants, regret=True)
    result = as_json(sizes, standings)
    assert result["regret"] == 0.5
    assert result["contestants"][0]["median"]["wall"] == 3
    ratios = {"wall": 1.5, "cpu": 1.5, "peak": 3.0}
    assert result["contestants"][1]["first_to_this"] == ratios
    lines = as_table(sizes, standings).splitlines()
    assert lines[3].split() == [
        "a",
        "2.00",
        "2.00-2.00",
        "1.50",
        "1.05",
        "1.00",
        "1.00",
        "1.50",
        "0",
        "3.00",
    ]
    assert lines[-1] == "  regret of auto: +50.0% (goal: 5 %)"


def test_a_hog_is_measured_too(tmp_path: Path) -> None:
    """Beside a CPU hog, the share of its speed that it lost is between none and all of it."""
    of_one = case(python("sum(range(10**7))"), destination="none", hogs=1)
    (standing,) = racer(tmp_path).run(of_one, 1)
    assert standing.runs[0].slowed is not None
    assert 0 <= standing.runs[0].slowed < 1
    assert "hogs slowed" in as_table(of_one, [standing])


def test_cases_are_chosen_by_pattern() -> None:
    """Long cases run only when they are named; an unknown name is refused."""
    assert chosen([]) == [*CASES]
    assert chosen(["growth-files", "bad-*"]) == ["bad-5", "bad-50", "growth-files"]
    assert chosen(["*"]) == [*CASES, *LONG]
    with pytest.raises(ValueError, match="no such case: nothing"):
        chosen(["bad-*", "nothing"])


def test_sources_are_made_once(tmp_path: Path) -> None:
    """A source in a directory that is kept is used again, and its files agree."""

    def made(data: Data) -> list[Source]:
        users, bad = data.users(50), data.users(50, bad=0.5)
        return [users, bad, data.records(50), data.wide(20), data.heavy(20), data.compressed(users)]

    first = made(Data(tmp_path))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.jsonl")}
    assert made(Data(tmp_path)) == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert first[0].facts.rows == 50 > first[1].facts.rows
    assert len(first[0].csv.read_text().splitlines()) == 51
    assert len(json.loads(first[3].jsonl.read_text().splitlines()[0])) == 200
    assert len(first[4].jsonl.read_text().splitlines()[0]) > 9_900


@pytest.mark.parametrize("csv", [False, True])
def test_a_source_is_split_whole(tmp_path: Path, *, csv: bool) -> None:
    """The files of a split source, in their order, are the source; each begins with its header."""
    source = Data(tmp_path).users(50)
    path = source.csv if csv else source.jsonl
    pattern = Path(Data(tmp_path).split(path, 50, 7))
    files = sorted(pattern.parent.glob(pattern.name))
    assert len(files) == 7
    header = path.read_bytes().partition(b"\n")[0] + b"\n" if csv else b""
    assert all(file.read_bytes().startswith(header) for file in files)
    parts = b"".join(file.read_bytes().removeprefix(header) for file in files)
    assert header + parts == path.read_bytes()


# -- the timeline ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_timeline_of_an_import(tmp_path: Path) -> None:
    """An import under observation succeeds, and its picture has a line for the main thread."""
    command = [sys.executable, "-m", "tests.bench", "timeline", "--records", "3000"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"MainThread \|[ a-zA-Z]{100}\|", ended.stdout)
    assert "processors in use" in ended.stdout


def test_picture_shows_who_works_and_who_waits() -> None:
    """Upper case is work, lower case is waiting; the table adds the seconds up."""
    busy = Sample("chunk_0", "parse", 0.0, 0.5, 0.5, 0.0)
    blocked = Sample("chunk_1", "store", 0.5, 0.5, 0.0, 0.1)
    lines = picture([busy, blocked]).splitlines()
    assert lines[0].partition("|")[2].strip(" |") == "P"
    assert lines[1].partition("|")[2].strip(" |") == "s"
    table = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert table["parse"] == ["0.50", "0.00", "0.00"]
    assert table["store"] == ["0.00", "0.10", "0.40"]
    assert lines[-1].endswith("0.50 processors in use")


@pytest.mark.parametrize(("part", "function"), STAGES)
def test_stages_are_functions_of_the_package(part: str, function: str) -> None:
    """The functions by which the timeline knows a stage exist in these parts of the package."""
    paths = (ROOT / "batchimport").rglob("*.py")
    inside = [path for path in paths if part in path.relative_to(ROOT).parts]
    texts = (path.read_text(encoding="utf-8") for path in inside)
    assert any(re.search(rf"def {function}\(", text) for text in texts)


def test_stages_are_known_by_the_stack() -> None:
    """A function that counts shows its stage; a thread outside of the package has none."""
    frames: list[FrameType] = []

    def seen(source: object) -> None:
        frames.append(sys._getframe())

    path = f"{ROOT}/batchimport/sources/csv/source.py"
    code = compile("def read(source): seen(source)", path, "exec")
    names: dict[str, Any] = {"seen": seen}
    exec(code, names)
    names["read"](None)
    assert stage_of(frames[0]) == "parse"
    assert stage_of(sys._getframe()) == "idle"
