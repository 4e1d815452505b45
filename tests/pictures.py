"""The README's pictures of the terminal, exported from real runs: `python -m tests.pictures [FOLDER]`."""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path
from tempfile import TemporaryDirectory

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.helpers.cli import COMMAND, ROOT, SAMPLE, environment

COLUMNS = 90
SAMPLE_RUN = "run sample_data/users.jsonl --schema sample_data/users.schema.json --key id"
HOME = "/home/me"
"""What the pictures show instead of the temporary directory."""
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""Rich's own, without the fonts that it would load from the network."""
SHARE = 40.0
"""Percentage at which the picture of a running job is taken."""


def main(folder: Path) -> None:
    """Write the pictures."""
    with TemporaryDirectory(prefix="pictures-") as place:
        here = Path(place).resolve()
        shutil.copytree(SAMPLE, here / "sample_data")
        draw(folder / "run.svg", SAMPLE_RUN, shown_by(here, SAMPLE_RUN))
        line = '{"id": %d, "name": "Anna Müller", "plan": "team", "tags": ["new"], "score": %d}\n'
        orders = (line % (at, at % 90) for at in range(400_000))
        (here / "orders.jsonl").write_text("".join(orders), encoding="utf-8")
        large = "run orders.jsonl --to orders.db --verbose"
        draw(folder / "running.svg", large, shown_by(here, large, until=SHARE))


def shown_by(here: Path, command: str, until: float | None = None) -> str:
    """Return what a terminal shows when a command has ended, with its colours.

    Args:
        until: Percentage at which to look instead; the run is interrupted then.
    """
    mine, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *command.split()],
        cwd=here,
        env=environment(COLORTERM="truecolor"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    stream, shown = b"", ""
    while more := _read(mine):
        stream += more
        percentages = re.findall(rb"(\d+\.\d)%.*?\r?\n.*?\r?\n", stream, re.DOTALL)
        if until is not None and not shown and percentages and float(percentages[-1]) >= until:
            shown = screen(stream.decode(errors="replace"))
            process.send_signal(signal.SIGINT)
    process.wait(60)
    os.close(mine)
    text = shown or screen(stream.decode(errors="replace"))
    return text.replace(str(here), HOME)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def screen(stream: str) -> str:
    """Return the lines that stand in the end: those that were erased and drawn again are gone."""
    lines = [""]
    for piece in re.split(r"(\r(?:\x1b\[\d+A)?\x1b\[J|\r?\n)", stream):
        if erased := re.fullmatch(r"\r(?:\x1b\[(\d+)A)?\x1b\[J", piece):
            lines = [*lines[: len(lines) - 1 - int(erased[1] or 0)], ""]
        elif piece.endswith("\n"):
            lines.append("")
        else:
            lines[-1] += piece
    return "\n".join(lines).rstrip("\n")


def draw(path: Path, command: str, shown: str) -> None:
    """Write a picture of a command and what it showed."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="256"
    )
    console.print(Text(f"$ batchimport {command}", "bold"))
    for line in shown.split("\n"):
        console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis")
    svg = console.export_svg(title="batchimport", code_format=FORMAT, unique_id=path.stem)
    path.write_text(svg + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
