"""One content goes into one table once, in every destination, whatever the commands were."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cli import Ended
from tests.helpers.destinations import KINDS, SWEPT, Database, Destination, File, make_destination
from tests.helpers.forked import call

SCHEMA = {"properties": {"id": {"type": "integer"}, "word": {"type": "string"}}}
RECORDS = 40


@dataclass
class User:
    """Somebody who gives commands in a directory, for one table."""

    folder: Path
    place: Destination

    def lines(self, name: str, *numbers: int) -> Path:
        """Write a record for each number."""
        lines = [json.dumps({"id": number, "word": f"w{number}"}) + "\n" for number in numbers]
        path = self.folder / name
        path.write_text("".join(lines))
        return path

    def run(self, *words: Any, table: str = "users", **faults: Any) -> Ended:
        words = ("run", *words, "--to", self.place.address, "--table", table, "--json", "--quiet")
        return call(self.folder, *words, **faults)

    def stores(self, *words: Any) -> None:
        ended = self.run(*words)
        assert ended.code == 0, ended.err

    def is_refused(self, *words: Any, because: str = "is in the table already") -> Ended:
        """Give a command that must leave with 6 and change nothing."""
        before = self.ids
        ended = self.run(*words)
        assert (ended.code, because in ended.err) == (6, True), ended
        assert self.ids == before
        return ended

    @property
    def ids(self) -> list[int]:
        return sorted(row[0] for row in self.place.rows("users"))


@pytest.fixture(params=SWEPT)
def user(request: pytest.FixtureRequest, tmp_path: Path) -> User:
    place = make_destination(request.param, tmp_path, lambda: request.getfixturevalue("postgres"))
    user = User(tmp_path, place)
    user.lines("users.jsonl", *range(RECORDS))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return user


def _limit(user: User) -> list[Any]:
    user.stores("users.jsonl", "--limit", RECORDS // 2, "--chunk-size", 7)
    return ["users.jsonl"]


def _copy(user: User) -> list[Any]:
    user.stores("users.jsonl", "--chunk-size", 7)
    shutil.copy(user.folder / "users.jsonl", user.folder / "copy.jsonl")
    return ["copy.jsonl"]


def _compressed(user: User) -> list[Any]:
    user.stores("users.jsonl")
    text = (user.folder / "users.jsonl").read_bytes()
    (user.folder / "users.jsonl.gz").write_bytes(gzip.compress(text))
    return ["users.jsonl.gz"]


def _schema(user: User) -> list[Any]:
    user.stores("users.jsonl")
    return ["users.jsonl", "--schema", "schema.json"]


def _grown(user: User) -> list[Any]:
    user.stores("users.jsonl", "--chunk-size", 7)
    user.lines("users.jsonl", *range(RECORDS + 5))
    return ["users.jsonl"]


def _list(user: User) -> list[Any]:
    user.stores("users.jsonl")
    user.lines("first.jsonl", 100, 101)
    return ["first.jsonl", "users.jsonl"]


def _one_of_a_list(user: User) -> list[Any]:
    user.lines("first.jsonl", 100, 101)
    user.stores("first.jsonl", "users.jsonl", "--chunk-size", 7)
    shutil.copy(user.folder / "users.jsonl", user.folder / "copy.jsonl")
    return ["copy.jsonl"]


def _beginning(user: User) -> list[Any]:
    user.stores("users.jsonl")
    user.lines("part.jsonl", *range(RECORDS // 4))
    return ["part.jsonl"]


def _job_id(user: User) -> list[Any]:
    user.stores("users.jsonl")
    return ["users.jsonl", "--job-id", "mine"]


def _unfinished(user: User) -> list[Any]:
    killed = user.run("users.jsonl", "--chunk-size", 7, failpoints="after-commit=kill@2")
    assert killed.code == -9
    shutil.copy(user.folder / "users.jsonl", user.folder / "copy.jsonl")
    return ["copy.jsonl"]


CASES: list[Callable[[User], list[Any]]] = [
    _limit,
    _copy,
    _compressed,
    _schema,
    _grown,
    _list,
    _one_of_a_list,
    _beginning,
    _job_id,
    _unfinished,
]


def _every_case_and_sink() -> list[Any]:
    """Combine them; ordinary tests have SQLite with all cases, another sink with every third one."""
    return [
        pytest.param(
            kind,
            case,
            id=f"{kind}-{case.__name__[1:]}",
            marks=pytest.mark.slow
            if kind == "s3" or (kind != "sqlite" and (at + turn) % 3)
            else (),
        )
        for turn, kind in enumerate(KINDS)
        for at, case in enumerate(CASES)
    ]


@pytest.mark.parametrize(("user", "case"), _every_case_and_sink(), indirect=["user"])
def test_the_same_content_is_refused(user: User, case: Callable[[User], list[Any]]) -> None:
    """By another name, option, compression or list, also in a dry run; unless it is allowed."""
    words = case(user)
    before = user.ids
    refused = user.is_refused(*words)
    assert refused.summary["status"] == "refused"
    assert "row" in refused.err
    user.is_refused(*words, "--dry-run")
    user.stores(*words, "--allow-duplicates")
    assert len(user.ids) > len(before)


def test_a_file_that_resembles_is_stored(user: User) -> None:
    """One byte is another one, in the last chunk of many."""
    user.stores("users.jsonl", "--chunk-size", 7)
    text = (user.folder / "users.jsonl").read_text()
    (user.folder / "other.jsonl").write_text(text.replace(f"w{RECORDS - 1}", f"x{RECORDS - 1}"))
    user.stores("other.jsonl")
    assert user.ids == sorted([*range(RECORDS), *range(RECORDS)])


def test_what_was_only_rejected_may_come_again(user: User) -> None:
    """A schema that lets nothing in stores nothing that another one could store twice."""
    (user.folder / "wrong.json").write_text(json.dumps({"required": ["none"], **SCHEMA}))
    assert user.run("users.jsonl", "--schema", "wrong.json").code == 3
    user.stores("users.jsonl", "--schema", "schema.json")
    assert user.ids == list(range(RECORDS))


@pytest.mark.parametrize("mode", ["truncate", "replace"])
def test_what_was_replaced_may_come_again(user: User, mode: str) -> None:
    """The rows of a job are gone once another one has emptied the table."""
    user.stores("users.jsonl")
    user.lines("others.jsonl", 100, 101)
    user.stores("others.jsonl", "--if-exists", mode)
    user.stores("users.jsonl", "--schema", "schema.json")
    assert user.ids == [*range(RECORDS), 100, 101]
    user.is_refused("users.jsonl", "--limit", 3)


def test_another_table_takes_it(user: User) -> None:
    """The content of one table is nothing to another; a directory is one table."""
    user.stores("users.jsonl")
    ended = user.run("users.jsonl", table="people")
    assert ended.code == (0 if isinstance(user.place, Database) else 6)


def test_a_key_makes_it_harmless(user: User) -> None:
    """With --on-conflict update the same records may be sent any number of times."""
    if not isinstance(user.place, Database):
        pytest.skip("a dataset has no keys")
    user.stores("users.jsonl", "--key", "id")
    user.stores("users.jsonl", "--key", "id", "--on-conflict", "update")
    assert user.ids == list(range(RECORDS))


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("is_done", [True, False])
def test_rows_that_are_gone_are_missed(user: User, drop: bool, is_done: bool) -> None:
    """Of a completed job and of one that is not; --restart alone imports them again."""
    fault = "" if is_done else "after-commit=kill@2"
    user.run("users.jsonl", "--chunk-size", 7, failpoints=fault)
    user.place.remove(drop=drop)
    if isinstance(user.place, Database) or is_done:
        user.is_refused("users.jsonl", because="--restart imports it again")
        user.is_refused("users.jsonl", "--dry-run", because="--restart imports it again")
        user.stores("users.jsonl", "--restart")
    else:  # rows leave a dataset with their ledger
        user.run("users.jsonl")
        user.run("users.jsonl", "--restart")
    assert user.ids == list(range(RECORDS))


def test_some_rows_that_are_gone_are_missed(user: User) -> None:
    """A restart would store the others twice, so it takes --if-exists replace."""
    if not isinstance(user.place, Database):
        pytest.skip("rows leave a dataset with their ledger")
    user.stores("users.jsonl")
    user.place.execute("DELETE FROM users WHERE id < 5")
    user.is_refused("users.jsonl", because="5 of the table's rows are gone")
    refused = user.run("users.jsonl", "--restart")
    assert (refused.code, "add --if-exists replace" in refused.err) == (2, True)
    user.stores("users.jsonl", "--restart", "--if-exists", "replace")
    assert user.ids == list(range(RECORDS))


def test_a_killed_job_does_not_go_on_in_a_table_that_was_emptied(user: User) -> None:
    """Its rows went with the others, though the table has as many rows as it has stored."""
    killed = "before-commit=kill@3"
    words = "--chunk-size", 10
    assert user.run("users.jsonl", *words, failpoints=killed).code == -9
    user.lines("other.jsonl", *range(100, 100 + RECORDS))
    user.stores("other.jsonl", "--if-exists", "replace")
    if isinstance(user.place, Database):
        user.is_refused("users.jsonl", *words, because="is gone: the table was empty when job")
        user.stores("users.jsonl", "--restart")
    else:
        user.stores("users.jsonl", *words)  # what is left of a job is its files
    assert user.ids == [*range(RECORDS), *range(100, 100 + RECORDS)]


def test_a_file_that_was_deleted_is_missed(user: User) -> None:
    """A database is not made again on the way to the refusal."""
    if not isinstance(user.place, File):
        pytest.skip("not one file")
    user.stores("users.jsonl")
    user.place.path.unlink()
    user.is_refused("users.jsonl", because="is gone, though job")
    assert not user.place.path.exists()
    user.stores("users.jsonl", "--restart")
    assert user.ids == list(range(RECORDS))


def test_a_ledger_that_was_lost_is_missed(user: User) -> None:
    """The state directory remembers rows that the ledger does not know."""
    if not isinstance(user.place, Database):
        pytest.skip("a dataset and its ledger are one")
    user.stores("users.jsonl")
    for table in ("jobs", "chunks", "rejects"):
        user.place.execute(f"DROP TABLE _batchimport_{table}")
    user.is_refused("users.jsonl", because="no ledger that knows it")
    user.is_refused("users.jsonl", "--restart", because="no ledger that knows it")
    user.stores("users.jsonl", "--if-exists", "replace")
    assert user.ids == list(range(RECORDS))


def test_names_of_one_table(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A schema in the name, or another case where names have none, is the same table."""
    for kind, table in (
        ("sqlite", "USERS"),
        ("duckdb", "main.Users"),
        ("postgresql", "public.users"),
    ):
        folder = tmp_path / kind
        folder.mkdir()
        place = make_destination(kind, folder, lambda: request.getfixturevalue("postgres"))
        user = User(folder, place)
        user.lines("users.jsonl", *range(RECORDS))
        user.stores("users.jsonl")
        ended = user.run("users.jsonl", table=table)
        assert (ended.code, "is in the table already" in ended.err) == (6, True), ended


def test_other_formats_and_encodings(tmp_path: Path) -> None:
    """Parquet rows, a JSON array, and a text that is read in another encoding."""
    user = User(tmp_path, make_destination("sqlite", tmp_path, lambda: None))
    records = [{"id": number, "word": "é"} for number in range(RECORDS)]
    (tmp_path / "a.json").write_text(json.dumps(records, ensure_ascii=False))
    user.stores("a.json", "--chunk-size", 7)
    (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes())
    user.is_refused("b.json")
    text = "id,word\n" + "".join(f"{each['id']},a{each['id']}é\n" for each in records)
    (tmp_path / "c.csv").write_bytes(text.encode())
    user.stores("c.csv")
    user.is_refused("c.csv", "--encoding", "latin-1")
    (tmp_path / "d.csv").write_bytes(text.encode())
    user.stores("d.csv", "--encoding", "latin-1", "--allow-duplicates")
    import polars as pl  # noqa: PLC0415 - the parent of forks starts none of its threads

    pl.read_csv(tmp_path / "c.csv").write_parquet(tmp_path / "e.parquet")
    user.stores("e.parquet", "--chunk-size", 7, "--limit", 20)
    shutil.copy(tmp_path / "e.parquet", tmp_path / "f.parquet")
    user.is_refused("f.parquet")
