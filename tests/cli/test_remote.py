"""Sources by URL: the same rows as from a file, whatever the server and the network do."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import uuid
import zipfile
from base64 import b64encode
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("obstore", reason="obstore is not installed: URLs are not tested")

import obstore

from batchimport.errors import SourceChangedError, UsageError
from batchimport.importer import import_file
from batchimport.jobs.finish import Outcome
from batchimport.jobs.identify import Request
from batchimport.model import Job, RunOptions
from batchimport.policy.events import ChunkFinished, Observer
from batchimport.sources.bytes import remote
from batchimport.sources.paths import find_sources
from batchimport.state.directory import StateDirectory
from tests.helpers.cli import Workdir
from tests.helpers.web import CANARY, S3, Web

RECORDS = [{"id": at, "name": f"user {at}"} for at in range(3000)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
ROWS = [(record["id"], record["name"]) for record in RECORDS]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 10_000)


def _import(
    folder: Path, *urls: str, observer: Observer = lambda _: None, **options: int
) -> Outcome:
    job = Job(find_sources(urls), f"sqlite:///{folder / 'users.db'}", "users")
    run = RunOptions(chunk_size=500, **options)  # type: ignore[arg-type]
    return import_file(Request(job, run, state=StateDirectory(folder / "state")), observer)


def _rows(folder: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(folder / "users.db")) as connection:
        return connection.execute("SELECT id, name FROM users ORDER BY id").fetchall()


def _forms() -> dict[str, bytes]:
    frame, parquet = pl.DataFrame(RECORDS), io.BytesIO()
    frame.write_parquet(parquet)
    return {
        "users.jsonl": LINES,
        "users.csv": frame.write_csv().encode(),
        "users.jsonl.gz": gzip.compress(LINES),
        "users.json": json.dumps(RECORDS).encode(),
        "users.parquet": parquet.getvalue(),
    }


@pytest.mark.parametrize("name", _forms())
def test_every_format_is_read_from_a_web_server(name: str, web: Web, tmp_path: Path) -> None:
    """Formats and compressions give the rows that the file has; the second run has nothing to do."""
    web.files[f"/in/{name}"] = _forms()[name]
    assert _import(tmp_path, f"{web.url}/in/{name}").summary.status == "completed"
    assert _rows(tmp_path) == ROWS
    again = _import(tmp_path, f"{web.url}/in/{name}")
    assert again.summary.status == "already_completed"


def test_members_of_archives_on_a_web_server_are_read(web: Web, tmp_path: Path) -> None:
    """By a pattern in a zip, and by name in a tar, of which only that part is fetched."""
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    packed, tar = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("in/users.jsonl", LINES[:half])
    with tarfile.open(fileobj=tar, mode="w") as made:
        entry = tarfile.TarInfo("more.jsonl")
        entry.size = len(LINES) - half
        made.addfile(entry, io.BytesIO(LINES[half:]))
    web.files |= {"/a.zip": packed.getvalue(), "/b.tar": tar.getvalue()}
    urls = (f"{web.url}/a.zip!/**/*.jsonl", f"{web.url}/b.tar!/more.jsonl")
    assert _import(tmp_path, *urls).summary.status == "completed"
    assert _rows(tmp_path) == ROWS
    assert all(asked for _, _, asked in web.asked)


def test_a_busy_server_costs_time_but_no_attempts(web: Web, tmp_path: Path) -> None:
    """Answers 429, 500, 503 and cut bodies are asked for again below the chunks."""
    web.files["/users.jsonl"] = LINES
    web.faults = [503, "cut", 429, "cut", "cut", 500]
    outcome = _import(tmp_path, f"{web.url}/users.jsonl", max_attempts=1)
    assert not web.faults
    assert (outcome.exit_code, outcome.summary.chunks.retried) == (0, 0)
    assert _rows(tmp_path) == ROWS


@pytest.mark.parametrize("lacking", ["has_ranges", "has_etags"])
def test_a_server_that_gives_no_parts_or_versions_is_read_once(
    lacking: str, web: Web, tmp_path: Path
) -> None:
    """What cannot be read by position, or checked for changes, is fetched into a temporary file."""
    web.files["/users.jsonl"] = LINES
    setattr(web, lacking, False)
    assert _import(tmp_path, f"{web.url}/users.jsonl").exit_code == 0
    assert _rows(tmp_path) == ROWS
    assert [asked for _, _, asked in web.asked][1:] == [None]
    assert _import(tmp_path, f"{web.url}/users.jsonl").summary.status == "already_completed"


def test_an_object_that_changes_while_the_job_runs_is_refused(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row of another version is stored; the job goes on when the old one is back."""
    monkeypatch.setattr(remote, "KEPT_BLOCKS", 2)
    monkeypatch.setattr(remote, "BLOCKS_AHEAD", 1)
    web.files["/users.jsonl"] = LINES

    def change(event: object) -> None:
        if isinstance(event, ChunkFinished):
            web.files["/users.jsonl"] = LINES.replace(b"user", b"USER")

    outcome = _import(tmp_path, f"{web.url}/users.jsonl", observer=change)
    assert (outcome.exit_code, type(outcome.error)) == (6, SourceChangedError)
    assert {name.partition(" ")[0] for _, name in _rows(tmp_path)} == {"user"}
    assert _import(tmp_path, f"{web.url}/users.jsonl").exit_code == 6
    web.files["/users.jsonl"] = LINES
    assert _import(tmp_path, f"{web.url}/users.jsonl").exit_code == 0
    assert _rows(tmp_path) == ROWS


def test_a_password_is_read_from_netrc(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent to its host, and without it the error says where it belongs."""
    web.files["/users.jsonl"] = LINES
    web.authorization = "Basic " + b64encode(b"me:pass").decode()
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    denied = _import(tmp_path, f"{web.url}/users.jsonl")
    assert denied.exit_code == 2
    assert "netrc" in str(denied.error and denied.error.hint)
    netrc.write_text("machine 127.0.0.1 login me password pass\n")
    assert _import(tmp_path, f"{web.url}/users.jsonl").exit_code == 0


@pytest.mark.parametrize(
    ("url", "what"),
    [
        (f"https://me:{CANARY}@host/users.csv", "user or password"),
        (f"s3://{CANARY}:x@bucket/users.csv", "user or password"),
        (f"https://host/users.csv?X-Amz-Signature={CANARY}", "signature or token"),
        ("https://host/*.csv", "does not list"),
        ("s3:///users.csv", "no bucket"),
        ("ftp://host/users.csv", "not read"),
    ],
)
def test_a_url_that_cannot_be_a_source_is_refused(url: str, what: str) -> None:
    """The error says why, and shows no secret."""
    with pytest.raises(UsageError, match=what) as refused:
        find_sources([url])
    shown = f"{refused.value} {refused.value.hint}"
    assert CANARY not in shown


def test_objects_are_found_by_pattern_and_prefix(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A star stays within a folder, two do not; a prefix leaves out markers and hidden names."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store, root = s3.store(), uuid.uuid4().hex
    names = ["a/1.csv", "a/b/2.csv", "a/[x] 3.csv", "a/_SUCCESS", "a/.tmp/4.csv", "a/5.txt"]
    for name in names:
        obstore.put(store, f"{root}/{name}", b"id\n1\n")

    def found(pattern: str) -> list[str]:
        base = f"s3://{s3.bucket}/{root}/"
        return [url.removeprefix(base) for url in find_sources([base + pattern])]

    assert found("a/*.csv") == ["a/1.csv", "a/[x] 3.csv"]
    assert found("a/**/[0-9].csv") == ["a/.tmp/4.csv", "a/1.csv", "a/b/2.csv"]
    assert found("a/[x] 3.csv") == ["a/[x] 3.csv"]
    assert found("a/") == ["a/1.csv", "a/5.txt", "a/[x] 3.csv", "a/b/2.csv"]
    with pytest.raises(UsageError, match="no object matches"):
        found("none/")


def test_credentials_are_in_nothing_that_is_written(s3: S3, workdir: Workdir) -> None:
    """Neither ledger, state, log nor screen has the keys that opened the bucket."""
    obstore.put(s3.store(), "secret/users.jsonl", LINES)
    log = workdir.path / "run.log"
    ended = workdir.call(
        *("run", f"s3://{s3.bucket}/secret/users.jsonl", "--verbose", "--log-file", log),
        **s3.environment,
    )
    denied = workdir.call("run", f"s3://{s3.bucket}/none.jsonl", "--verbose", **s3.environment)
    assert (ended.code, denied.code) == (0, 2)
    assert _rows(workdir.path) == ROWS
    written = [path.read_bytes() for path in workdir.path.rglob("*") if path.is_file()]
    assert len(written) > 3
    said = (ended.out + ended.err + denied.out + denied.err).encode()
    assert not [each for each in [*written, said] if CANARY.encode() in each]
