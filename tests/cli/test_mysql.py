"""MariaDB from the command line: the same rows and rejects as everywhere, whatever is killed."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest
from pymysql.err import OperationalError

from batchimport.sinks.mysql.address import parse
from tests.bench.make_records import make
from tests.helpers import mariadb
from tests.helpers.cli import SAMPLE, Workdir
from tests.helpers.tables import query

SCHEMA = ["--schema", str(SAMPLE / "users.schema.json"), "--key", "id"]
PASSWORD = "canary-7f3a"


@pytest.fixture
def address() -> str:
    return mariadb.server().new_database()


def test_the_sample_is_what_sqlite_gets(workdir: Workdir, address: str) -> None:
    """Rows, counts and rejects; dates, uuids and JSON in types of their own; a rerun is a no-op."""
    found = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, "--to", address)
    same = workdir.run(SAMPLE / "users.jsonl", *SCHEMA)
    for key in ("status", "successful", "failed", "rejects_by_code", "exit_code"):
        assert found[key] == same[key]
    columns = (
        "id, email, name, age, score, active, plan, signup_date, external_id, phone, address, tags"
    )
    rows = mariadb.fetch(address, f"SELECT {columns} FROM users ORDER BY id")
    others = query(workdir.path / "users.db", f"SELECT {columns} FROM users ORDER BY id")
    assert [tuple(str(v) if n == 7 else v for n, v in enumerate(row)) for row in rows] == others
    types = dict(
        mariadb.fetch(
            address,
            "SELECT column_name, column_type FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = 'users'",
        )
    )
    assert (types["signup_date"], types["created_at"]) == ("date", "datetime(6)")
    assert (types["external_id"], types["active"]) == ("char(36)", "tinyint(1)")
    assert [r["record"] for r in workdir.rejects(found)] == [
        r["record"] for r in workdir.rejects(same)
    ]
    again = workdir.run(SAMPLE / "users.jsonl", *SCHEMA, "--to", address)
    assert (again["status"], again["exit_code"]) == ("already_completed", 3)


def test_killed_clients_and_cut_connections_change_nothing(workdir: Workdir, address: str) -> None:
    """SIGKILL of the client, and its connections ended under it: exact rows and rejects."""
    with (workdir.path / "users.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line, _, _ in make(4000, 0.02, 3))
    options = [*SCHEMA, "--on-conflict", "update"]
    whole = mariadb.server().new_database()
    expected = workdir.run("users.jsonl", *options, "--to", whole)
    others = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> "
    run = ("run", "users.jsonl", *options, "--to", address, "--chunk-size")
    killed = workdir.call(*run, 300, BATCHIMPORT_FAILPOINTS="before-commit=kill@4")
    assert killed.code == -signal.SIGKILL
    process = workdir.start(*run, 200)
    cut = 0
    while process.poll() is None and cut < 3:
        for (number,) in mariadb.fetch(address, others + "CONNECTION_ID()")[1:]:
            with suppress(OperationalError):  # it has ended by itself
                mariadb.execute(address, f"KILL SOFT CONNECTION {number}")
                cut += 1
        time.sleep(0.01)  # noqa: TID251 - a moment of a real process
    process.kill()
    process.communicate()
    assert cut
    found = workdir.run("users.jsonl", *options, "--to", address)
    for key in ("total_items", "successful", "failed", "rejects_by_code"):
        assert found[key] == expected[key]
    statement = "SELECT * FROM users ORDER BY id"
    assert mariadb.fetch(address, statement) == mariadb.fetch(whole, statement)
    rejects = "SELECT record, line, byte_offset, stage, raw FROM _batchimport_rejects ORDER BY 1"
    assert mariadb.fetch(address, rejects) == mariadb.fetch(whole, rejects)
    left = {name for (name,) in mariadb.fetch(address, "SHOW TABLES")}
    known = {"users", *(f"_batchimport_{name}" for name in ("jobs", "chunks", "rejects"))}
    (keys,) = left - known  # until no reject is left that may be replayed
    assert keys.startswith("_batchimport_keys_")


def test_the_password_appears_nowhere(workdir: Workdir, address: str) -> None:
    """Not in output, state, or ledger; the environment may have it, as that of `mysql`."""
    known = parse(address)
    mariadb.execute(
        address,
        f"CREATE OR REPLACE USER canary@localhost IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON {known.database}.* TO canary@localhost",
    )
    place = f"/{known.database}?unix_socket={known.socket}"
    secret = f"mysql://canary:{PASSWORD}@{place}"
    workdir.lines("u.jsonl", [{"id": at if at != 700 else "x"} for at in range(1000)])
    workdir.write("s.json", '{"properties": {"id": {"type": "integer"}}}')
    options = ["--schema", "s.json", "--to", secret, "--chunk-size", "10", "--max-parallel", "1"]
    stopped = workdir.call("run", "u.jsonl", *options, "--max-errors", "0", "--json", "--verbose")
    assert stopped.code == 4
    job = stopped.summary["job_id"]
    assert "MYSQL_PWD" in stopped.summary["resume_command"]
    wrong = workdir.call("resume", job, "--to", f"mysql://canary@{place}", MYSQL_PWD="wrong")
    assert (wrong.code, "MYSQL_PWD" in wrong.err) == (1, True)
    more = ["--max-errors", "9", "--json", "--to", f"mysql://canary@{place}"]
    ended = workdir.call("resume", job, *more, MYSQL_PWD=PASSWORD)
    assert ended.summary["status"] == "completed_with_rejects"
    seen = stopped.out + stopped.err + ended.out + ended.err + wrong.err
    for path in workdir.path.rglob("*.json*"):
        seen += path.read_text()
    for table in ("jobs", "chunks", "rejects"):
        seen += str(mariadb.fetch(address, f"SELECT * FROM _batchimport_{table}"))
    assert PASSWORD not in seen
    assert "MYSQL_PWD" not in os.environ
