"""JSON that is not written as its name says: what can be read is read, the rest is explained."""

from __future__ import annotations

import json

import pytest

from tests.helpers.cli import Workdir
from tests.helpers.tables import content

NUMBERS = (
    "1e1000000000000000000",
    "-1e99999999999999999999999",
    "9" * 5000,
    "-" + "9" * 5000 + ".5",
)


@pytest.mark.parametrize("rule", [{"type": "integer", "maximum": 5}, {"type": "string"}])
def test_no_number_fails_a_chunk(workdir: Workdir, rule: dict[str, object]) -> None:
    """Whatever one record has, it is that record's reject, and all others arrive."""
    lines = ['{"w": 1}', *(f'{{"v": {value}, "w": 2}}' for value in (*NUMBERS, "[" * 5000))]
    workdir.write("a.jsonl", "\n".join(lines))
    schema = {"type": "object", "properties": {"v": rule, "w": {"type": "integer"}}}
    workdir.write("s.json", json.dumps(schema))
    summary = workdir.run("a.jsonl", "--schema", "s.json")
    assert (summary["exit_code"], summary["successful"]) == (3, 1)
    assert [reject["record"] for reject in workdir.rejects(summary)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["a.jsonl", "a"])
@pytest.mark.parametrize("text", ['{"a":1}{"a":2}{"a":3}\n', '{"a":1}{"a":2}\n{"a":3} {"a":4}\n'])
def test_several_objects_on_a_line_are_records(workdir: Workdir, name: str, text: str) -> None:
    """If every line looks like that."""
    workdir.write(name, text.encode())
    summary = workdir.run(name, "--to", "sqlite:///a.db", "--table", "a")
    assert summary["exit_code"] == 0
    assert [row[0] for row in content(workdir.path / "a.db", "a")] == list(
        range(1, text.count("a") + 1)
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (r'["\uD800"]', "half of a surrogate pair"),
        ("{'a': 1, 'b': None}", "object keys must be strings"),
        ("<users>", "invalid character"),
        ("{}", "the first record is empty"),
    ],
)
def test_where_no_record_can_be_read_the_first_line_is_explained(
    workdir: Workdir, line: str, reason: str
) -> None:
    """With its beginning."""
    workdir.write("a.jsonl", f"{line}\n{line}\n".encode())
    summary = workdir.run("a.jsonl")
    assert summary["exit_code"] == 2
    assert reason in summary["error"]
    assert "line 1" in summary["error"] or line == "{}"


@pytest.mark.parametrize("options", [(), ("--format", "json")])
def test_an_envelope_is_one_record(workdir: Workdir, options: tuple[str, ...]) -> None:
    """Its first line ends with the bracket of the array."""
    workdir.write("a.json", b'{"status":"ok","data":[\n{"a":1},\n{"a":2}\n]}\n')
    summary = workdir.run("a.json", *options)
    assert (summary["exit_code"], summary["successful"]) == (0, 1)


def test_a_query_without_columns_is_named(workdir: Workdir) -> None:
    """The records are not blamed for it."""
    workdir.write("a.csv", "id,name\n1,x\n")
    summary = workdir.run("a.csv", "--sql", "DROP TABLE records")
    assert (summary["exit_code"], summary["error"]) == (2, "--sql: leaves no column of the records")
