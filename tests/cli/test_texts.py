"""Compressed and encoded files on the command line: killed and resumed, refused, reported."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

from tests.helpers.cli import Workdir
from tests.helpers.tables import content, query


def test_a_compressed_file_is_resumed_after_a_kill(workdir: Workdir) -> None:
    """Every record is stored exactly once, and the ledger counts decompressed bytes."""
    lines = [json.dumps({"id": at, "name": f"é {at}"}) for at in range(1000)]
    text = "\n".join(lines).encode("utf-16")
    (workdir.path / "users.jsonl.gz").write_bytes(gzip.compress(text))
    kill = {"BATCHIMPORT_FAILPOINTS": "after-commit=kill@3"}
    assert workdir.call("run", "users.jsonl.gz", "--chunk-size", 100, **kill).code == -9
    before = query(workdir.path / "users.db", "SELECT count(*) FROM users")[0][0]
    assert 0 < before < 1000
    summary = workdir.run("users.jsonl.gz", "--chunk-size", 70)
    assert (summary["exit_code"], summary["successful"], summary["resumed"]) == (0, 1000, True)
    assert summary["this_run"]["successful"] == 1000 - before
    rows = content(workdir.path / "users.db", "users")
    assert rows == sorted([(at, f"é {at}") for at in range(1000)], key=repr)
    hi = query(workdir.path / "users.db", "SELECT max(hi) FROM _batchimport_chunks")[0][0]
    assert hi == len("\n".join(lines).encode())


def test_a_truncated_file_is_one_line_and_stores_nothing(workdir: Workdir) -> None:
    """What, where, what to do."""
    workdir.write("users.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 100)[:-9])
    ended = workdir.call("run", "users.jsonl.gz")
    assert ended.code == 1
    assert "users.jsonl.gz: the gzip data ends too soon" in ended.err
    assert not (workdir.path / "users.db").exists()


def test_a_decompression_bomb_is_refused_in_bounded_memory(workdir: Workdir) -> None:
    """300 MB of zeros in 300 kB."""
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(bytes(1 << 20)) for _ in range(300)]
    workdir.write("users.csv.gz", b"".join([*pieces, packer.flush()]))
    summary = workdir.run("users.csv.gz")
    assert (summary["exit_code"], summary["status"]) == (2, "failed")
    assert "500 times" in summary["error"]
    assert summary["peak_memory_bytes"] < 400_000_000


def test_detected_properties_are_printed_and_can_be_overridden(workdir: Workdir) -> None:
    """Notes are printed before the first progress."""
    workdir.write("names.csv", "id;name\n1;Zoë\n".encode("latin-1"))
    ended = workdir.call("run", "names.csv")
    assert "encoding: windows-1252" in ended.err
    assert "delimiter: semicolon" in ended.err
    assert content(workdir.path / "names.db", "names") == [(1, "Zoë")]
    summary = workdir.run("names.csv", "--encoding", "utf-8", "--table", "other")
    assert summary["rejects_by_code"] == {"invalid_utf8": 1}
    assert "raw_base64" in workdir.rejects(summary)[0]


def test_endless_lines_are_skipped_in_bounded_memory(workdir: Workdir) -> None:
    """A line of 200 MB is one reject; in CSV, an unclosed quote before it is another."""
    long = b"x" * (1 << 20)
    for name, head in (("a.jsonl", b'{"id": 1}\n{"s": "'), ("b.csv", b'id,s\n1,x\n2,"y\n3,"')):
        with (workdir.path / name).open("wb") as file:
            file.write(head)
            file.writelines(long for _ in range(200))
        summary = workdir.run(name, "--max-record-bytes", "1MB")
        assert summary["successful"] == 1
        assert summary["rejects_by_code"]["record_too_long"] == 1
        assert summary["peak_memory_bytes"] < 400_000_000
        assert all(len(reject["raw"]) <= 65536 for reject in workdir.rejects(summary))
        Path(workdir.path / name).unlink()
