"""Measure imports beside other loaders, and print what each of them took.

    python -m tests.bench --records 1000000 --rounds 5 --json result.json
    python -m tests.bench --only 'users-*' --only bad-5
    python -m tests.bench timeline --records 1000000 --to sqlite

docs/performance.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench import timeline
from tests.bench.cases import CASES, LONG, Bench, build, chosen
from tests.bench.data import Data
from tests.bench.destinations import Destinations
from tests.bench.peers import Tools
from tests.bench.race import Racer
from tests.bench.show import as_json, as_table, machine


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return 1 if one of our own commands failed."""
    if arguments[:1] == ["timeline"]:
        return timeline.main(arguments[1:])
    options = _options(arguments)
    if options.list:
        _say("\n".join([*CASES, *(f"{name} (only if named)" for name in LONG)]))
        return 0
    report = {"records": options.records, "rounds": options.rounds, **machine(), "cases": []}
    _say(
        f"{report['cores']} cores of {report['processor']}, load {report['load_before']:.2f} before; "
        f"{options.rounds} rounds, medians; x: how many times as much the first one takes as this one"
    )
    failed = False
    with tempfile.TemporaryDirectory(prefix="batchimport-bench-", dir=options.work) as folder:
        tools = Tools.of(options.peers)
        data = Data(Path(options.data or f"{folder}/data"))
        destinations = Destinations(Path(folder))
        racer = Racer(destinations, tools.path, options.timeout)
        try:
            for case in build(options.names, Bench(options.records, data, tools)):
                standings = racer.run(case, options.rounds)
                failed |= any(each.problem and each.contestant.is_ours for each in standings)
                _say("\n" + as_table(case, standings))
                report["cases"].append(as_json(case, standings))
                if options.json:  # after each case: a long benchmark may be interrupted
                    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
        finally:
            destinations.close()
    return int(failed)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=_first_line())
    add = parser.add_argument
    add("--records", type=int, default=200_000, help="records of a source (default: 200,000)")
    add("--rounds", type=int, default=5, help="runs of each command (default: 5)")
    add("--only", action="append", default=[], metavar="CASE", help="name or pattern; repeatable")
    add("--list", action="store_true", help="list the cases and exit")
    add("--json", metavar="FILE", help="write every run to this file")
    add("--peers", action="append", default=[], metavar="DIR",
        help="find other loaders here: a virtual environment, or a directory of programs; repeatable")  # fmt: skip
    add("--data", metavar="DIR", help="keep the sources here for the next benchmark")
    add(
        "--work",
        metavar="DIR",
        help="load to this disk (default: the directory for temporary files)",
    )
    add(
        "--timeout", type=float, default=3600, metavar="S", help="seconds that one command may take"
    )
    options = parser.parse_args(arguments)
    if options.records < 20 or options.rounds < 1:
        parser.error("--records is at least 20, --rounds at least 1")
    try:
        options.names = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    return options


def _first_line() -> str:
    return (__doc__ or "").partition("\n")[0]


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what this command is for


if __name__ == "__main__":
    # A server that was started must be stopped, whatever ends the benchmark.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
