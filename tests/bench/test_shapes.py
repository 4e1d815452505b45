"""What decoding by shapes costs, and whether its patterns are one-pass.

    pytest -n 0 -m bench -s tests/bench/test_shapes.py

CPU seconds of one process per million records, the least of some rounds. A pattern that is one-pass
captures at about twice the cost of a plain match at most; one that is not, at three times or far more.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import polars as pl
import pytest

from batchimport.schema import RecordSchema, infer_schema
from batchimport.sources.json_decoder import decoder_of
from batchimport.sources.json_shapes import Shapes, split
from tests.bench.make_records import make
from tests.helpers.cli import SAMPLE

RECORDS = int(os.environ.get("BATCHIMPORT_BENCH_RECORDS", "20000"))
ROUNDS = int(os.environ.get("BATCHIMPORT_BENCH_ROUNDS", "5"))


def plain(width: int) -> Iterator[dict[str, Any]]:
    for at in range(RECORDS):
        values = (at, at / 8, f"text {at}", at % 2 == 0, "Zoë Müller")
        yield {f"column_{number}": values[number % 5] for number in range(width)}


def jobs() -> dict[str, tuple[RecordSchema, list[bytes]]]:
    document = json.loads((SAMPLE / "users.schema.json").read_text())
    found = {
        "the generator's": (
            RecordSchema(document),
            [line.encode() for line, *_ in make(RECORDS, 0, 1)],
        )
    }
    for width in (10, 100):
        records = list(plain(width))
        schema = RecordSchema(infer_schema(records[:1000]), inferred=True)
        found[f"{width} columns"] = schema, [json.dumps(record).encode() for record in records]
    return found


def cost(work: Callable[[], object]) -> float:
    """Return CPU seconds per million records."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times) * 1e6 / RECORDS


def print_patterns(shapes: Shapes, texts: pl.Series) -> None:
    """Print the cost of a match and of a capture by each pattern in use."""
    for pattern in shapes.known:
        rest = texts
        for regex, cut in zip(pattern.pieces, [*pattern.cuts, ""], strict=True):
            piece = rest
            if cut:
                piece, rest = rest.str.splitn(cut, 2).struct.unnest().get_columns()
            matching = piece.filter(piece.str.contains(regex)).str
            match = cost(partial(matching.contains, regex))
            capture = cost(partial(matching.extract_groups, regex))
            print(  # noqa: T201 - what it is for
                f"  {len(regex):5} characters: match {match:.2f}, capture {capture:.2f}, "
                f"ratio {capture / match:.2f}"
            )


@pytest.mark.bench
@pytest.mark.timeout(3600)
def test_shapes() -> None:
    """Print the cost of both ways, and of each pattern."""
    print()  # noqa: T201 - what it is for
    for name, (schema, lines) in jobs().items():
        data = b"\n".join(lines)
        shapes, decoder = Shapes(schema), decoder_of(schema.columns)
        texts = split(data)
        assert texts is not None
        shapes.decode(texts)
        one_by_one = cost(partial(decoder.decode, lines, data, frozenset()))
        by_shapes = cost(partial(shapes.decode, texts)) + cost(partial(split, data))
        print(  # noqa: T201 - what it is for
            f"{name}: by shapes, valid {by_shapes:.2f}, line by line, not validated {one_by_one:.2f}"
        )
        print_patterns(shapes, texts)
