"""Many files as one job, as users call it."""

from __future__ import annotations

import json
import tarfile

from tests.helpers.cli import Workdir
from tests.helpers.tables import content, query

SCHEMA = '{"properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}'


def test_files_of_a_pattern_are_one_job(workdir: Workdir) -> None:
    """Sorted, numbered through, united by name; rejects name their file."""
    (workdir.path / "logs").mkdir()
    workdir.write("logs/c.csv", "name,id\ncc,3\n")
    workdir.write("logs/a.csv", "id,name\n1,aa\n")
    workdir.write("logs/b.csv", "id,zip\n2,007\nbad\n")
    summary = workdir.run("logs/?.csv")
    assert [name.rpartition("/")[2] for name in summary["sources"]] == ["a.csv", "b.csv", "c.csv"]
    assert (summary["table"], summary["job_id"][:2]) == ("a", "a-")
    rows = query(workdir.path / "a.db", "SELECT id, name, zip FROM a ORDER BY id")
    assert rows == [(1, "aa", None), (2, None, "007"), (3, "cc", None)]
    (reject,) = workdir.rejects(summary)
    place = {"record": 2, "source": "b.csv", "line": 3, "byte_offset": 13, "raw": "bad"}
    assert {name: reject[name] for name in place} == place
    assert workdir.run("logs/?.csv")["status"] == "already_completed"


def test_members_of_an_archive_are_one_job(workdir: Workdir) -> None:
    """Killed and continued, each record once; a plain copy of a member is in the table already."""
    first = workdir.write("a.csv", "id,name\n" + "".join(f"{at},n\n" for at in range(5000)))
    second = workdir.write("b.csv", "id,name\n" + "".join(f"{at},m\n" for at in range(5000, 9000)))
    with tarfile.open(workdir.path / "x.tar.gz", "w:gz") as made:
        made.add(first, "./a.csv")
        made.add(second, "./b.csv")
    words = ("x.tar.gz!/*.csv", "--table", "t", "--to", "sqlite:///t.db", "--chunk-size", 1000)
    workdir.call("run", *words, BATCHIMPORT_FAILPOINTS="after-commit=kill@6")
    summary = workdir.run(*words)
    assert (summary["resumed"], summary["successful"]) == (True, 9000)
    ids = query(workdir.path / "t.db", "SELECT count(*), count(DISTINCT id) FROM t")
    assert ids == [(9000, 9000)]
    ended = workdir.call("run", "b.csv", "--table", "t", "--to", "sqlite:///t.db")
    assert (ended.code, "in the table already" in ended.err) == (6, True)
    ended = workdir.call("run", "x.tar.gz!/a.csv", "--summary", "x.tar.gz")
    assert (ended.code, "would overwrite the source" in ended.err) == (2, True), ended.err


def test_formats_may_differ_when_a_schema_says_the_types(workdir: Workdir) -> None:
    """Else they are refused, for a cell of a table says no type."""
    workdir.write("a.csv", "id,name\n1,aa\n")
    workdir.lines("b.jsonl", [{"id": 2, "name": "bb"}])
    workdir.write("s.json", SCHEMA)
    ended = workdir.call("run", "a.csv", "b.jsonl")
    assert (ended.code, "--schema" in ended.err) == (2, True)
    assert workdir.run("a.csv", "b.jsonl", "--schema", "s.json")["status"] == "completed"
    assert content(workdir.path / "a.db", "a") == [(1, "aa"), (2, "bb")]


def test_what_is_no_file_is_named(workdir: Workdir) -> None:
    """One line, and nothing is begun."""
    workdir.write("a.csv", "id\n1\n")
    (workdir.path / "d").mkdir()
    for words, said in (("no*", "no file matches"), ("d", "is a directory")):
        ended = workdir.call("run", "a.csv", words)
        assert (ended.code, said in ended.err) == (2, True), ended.err
        assert words in ended.err
    assert not (workdir.path / "a.db").exists()


def test_a_job_of_many_files_is_continued(workdir: Workdir) -> None:
    """In the middle of a file; refused for other files while it is unfinished."""
    workdir.write("s.json", SCHEMA)
    for at in range(70):  # more than are held open
        records = [{"id": at * 100 + n} for n in range(10)]
        workdir.lines(f"f{at:02}.jsonl", [*records, {"id": "bad"}, {"id": at * 100 + 10}])
    options = ["--schema", "s.json", "--chunk-size", 4]
    stopped = workdir.run("*.jsonl", *options, "--max-errors", 30)
    assert stopped["status"] == "stopped"
    workdir.lines("f70.jsonl", [{"id": 9999}])
    refused = workdir.call("run", "*.jsonl", *options)
    assert (refused.code, stopped["job_id"] in refused.err) == (6, True)
    one = workdir.call("run", "f00.jsonl", "--table", "f00", *options)
    assert one.code == 6
    resumed = workdir.call("resume", stopped["job_id"], "--max-errors", "100", "--json").summary
    assert resumed["this_run"]["processed"] == 70 * 12 - stopped["total_processed"]
    assert (resumed["successful"], resumed["failed"]) == (70 * 11, 70)
    expected = [(at * 100 + n,) for at in range(70) for n in range(11)]
    assert query(workdir.path / "f00.db", "SELECT id FROM f00 ORDER BY id") == expected
    rejects = workdir.rejects(resumed)
    assert [(r["source"], r["line"]) for r in rejects] == [
        (f"f{at:02}.jsonl", 11) for at in range(70)
    ]


def test_files_killed_in_between_end_as_if_unbroken(workdir: Workdir) -> None:
    """SIGKILL while files are read, three in a chunk; also a limit counts over all files."""
    for at in range(200):
        workdir.lines(f"f{at:03}.jsonl", [{"id": at * 1000 + n} for n in range(30)])
    process = workdir.start("run", "f*.jsonl", "--chunk-size", 100, "--progress", "json")
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["processed_items"]:
            break
    process.kill()
    process.communicate()
    whole = workdir.run("f*.jsonl")
    assert (whole["resumed"], whole["successful"]) == (True, 6000)
    counts = query(workdir.path / "f000.db", "SELECT count(*), count(DISTINCT id) FROM f000")
    assert counts == [(6000, 6000)]
    limited = workdir.run("f*.jsonl", "--limit", 700, "--table", "some")
    assert (limited["status"], limited["successful"]) == ("completed", 700)
