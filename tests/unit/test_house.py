"""House rules that no linter knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import ROOT, environment

LONGER_MODULES: dict[str, str] = {}
HEAVY = (
    *("polars", "adbc_driver_sqlite", "psycopg", "duckdb", "temporalio", "jsonschema_rs"),
    "opentelemetry",
)


@pytest.mark.parametrize("path", sorted((ROOT / "batchimport").rglob("*.py")), ids=lambda p: p.name)
def test_modules_are_short(path: Path) -> None:
    """No module over 600 lines without a reason."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 600 or path.name in LONGER_MODULES


def test_help_stays_light() -> None:
    """`batchimport --help` loads nothing heavy."""
    program = (
        "import sys; sys.argv = ['batchimport', '--help']\n"
        "from batchimport.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=environment(), cwd=ROOT)


@pytest.mark.parametrize("to", ["sqlite:///d.db", "duckdb:///d.duckdb", "parts.parquet"])
def test_runs_import_no_library_of_frames_but_polars(to: str, tmp_path: Path) -> None:
    """A small import does not take the time of loading pandas and pyarrow where they are installed."""
    (tmp_path / "users.jsonl").write_text('{"id": 1}\n', encoding="utf-8")
    program = (
        "import os, sys\n"
        f"sys.argv = ['batchimport', 'run', 'users.jsonl', '--to', {to!r}]\n"
        "os._exit = lambda code: sys.exit([n for n in "
        "('pandas', 'pyarrow', 'numpy', 'opentelemetry') if n in sys.modules] or code)\n"
        "from batchimport.cli import main\n"
        "main()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=environment(), cwd=tmp_path)


def test_errors_become_exit_codes_in_one_place() -> None:
    """`sys.exit` and `os._exit` are known to the command line and to signals alone."""
    found = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "batchimport").rglob("*.py")
        if "_exit(" in path.read_text(encoding="utf-8")
    ]
    assert sorted(found) == ["batchimport/cli/__init__.py", "batchimport/engines/signals.py"]
