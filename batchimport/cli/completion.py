"""What a shell completes besides commands, options and their choices."""

# No `from __future__ import annotations`: Typer reads the annotations while the program runs.
import re
from pathlib import Path

import typer

from batchimport.rules import JOB_ID_PATTERN
from batchimport.sources.registry import FORMATS
from batchimport.state.directory import STATE_PATH, StateDirectory

_WORDS = re.compile(r"[a-z ]+")


def job_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the ids of known jobs that begin so, the latest first, each with its state.

    Shells evaluate what they get, and the state may have come with the data: only words pass.
    """
    directory = StateDirectory(Path(ctx.params.get("state_dir") or STATE_PATH))
    found = []
    for document in directory.jobs():
        job_id = str(document.get("job_id"))
        state = str(document.get("progress", {}).get("status")).replace("_", " ")
        if job_id.startswith(incomplete) and JOB_ID_PATTERN.fullmatch(job_id):
            found.append((job_id, state if _WORDS.fullmatch(state) else ""))
    return found


def formats(incomplete: str) -> list[str]:
    """Return the formats that begin so."""
    return [name for name in FORMATS if name.startswith(incomplete)]
