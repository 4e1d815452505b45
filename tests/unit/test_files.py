"""Files that are written as a whole: what a killed writer leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

from batchimport.state.files import lock_file, write_atomically


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """By the next writer of the same file; one that is being written, or is just made, stays."""
    for name in ("killed", "at-work", "fresh"):
        path = tmp_path / f".draft-rejects.jsonl-{name}"
        path.touch()
        if name != "fresh":
            os.utime(path, (0, 0))
    (tmp_path / ".rejects.jsonl.swp").touch()
    os.utime(tmp_path / ".rejects.jsonl.swp", (0, 0))
    with (tmp_path / ".draft-rejects.jsonl-at-work").open("r+b") as stream:
        assert lock_file(stream.fileno())
        write_atomically(tmp_path / "rejects.jsonl", [b"{}\n"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".draft-rejects.jsonl-at-work",
        ".draft-rejects.jsonl-fresh",
        ".rejects.jsonl.swp",
        "rejects.jsonl",
    ]
