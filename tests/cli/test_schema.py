"""`batchimport schema`, and schemas that users give, from the command line to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.cli import Workdir
from tests.helpers.tables import content, query

CSV = "id;zip;price;day;ok;nothing;\u202ename\n" + "".join(
    f"{at};0{at};{at}.50;2024-01-{at:02};true;;x\n" for at in range(1, 25)
)


def test_the_schema_that_is_printed_makes_the_same_table(workdir: Workdir) -> None:
    """Inference, its output as --schema: the same columns, the same rows."""
    workdir.write("users.csv", CSV)
    ended = workdir.call("schema", "users.csv")
    assert ended.code == 0
    assert "delimiter" in ended.err
    assert "\u202e" not in ended.out
    document = json.loads(ended.out)
    types = {name: rule["type"][0] for name, rule in document["properties"].items()}
    assert types == {
        "id": "integer",
        "zip": "string",
        "price": "number",
        "day": "string",
        "ok": "boolean",
        "nothing": "string",
        "\u202ename": "string",
    }
    assert document["properties"]["day"]["format"] == "date"
    workdir.write("s.json", ended.out)
    for name, options in (("inferred", ()), ("given", ("--schema", "s.json"))):
        summary = workdir.run("users.csv", *options, "--to", f"sqlite:///{name}.db")
        assert (summary["exit_code"], summary["successful"]) == (0, 24)
    tables = [workdir.path / f"{name}.db" for name in ("inferred", "given")]
    assert content(tables[0], "users") == content(tables[1], "users")
    shapes = [
        query(table, "SELECT sql FROM sqlite_schema WHERE name = 'users'") for table in tables
    ]
    assert shapes[0] == shapes[1]


def test_schema_looks_all_over_the_file(workdir: Workdir) -> None:
    """Five records from twenty places show what the head does not; `all` misses nothing."""
    records = [{"v": 1}] * 3000 + [{"v": "x"}] * 3000 + [{"v": 1, "late": True}]
    workdir.lines("users.jsonl", records)
    shown = json.loads(workdir.call("schema", "users.jsonl", "--infer-rows", 100).out)
    assert shown["properties"] == {"v": {}}
    shown = json.loads(workdir.call("schema", "users.jsonl", "--infer-rows", "all").out)
    assert shown["properties"] == {"v": {}, "late": {"type": ["boolean", "null"]}}


def test_a_type_that_was_too_narrow_is_a_reject_with_the_way_out(workdir: Workdir) -> None:
    """Nothing is lost: the record is there, and what to do about it."""
    workdir.lines("users.jsonl", [{"v": 1}] * 3000 + [{"v": "x"}] + [{"v": 1}] * 3000)
    summary = workdir.run("users.jsonl", "--infer-rows", 20)
    assert (summary["exit_code"], summary["successful"], summary["failed"]) == (3, 6000, 1)
    [reject] = workdir.rejects(summary)
    [error] = reject["errors"]
    assert (error["code"], error["field"], error["value"]) == ("type", "v", "x")
    assert "inferred from 20 records; see --infer-rows all, or --type v=string" in error["message"]


def test_a_cell_that_would_have_made_a_column_text_is_a_reject(workdir: Workdir) -> None:
    """First seen after the sample, it must not change; a type that the user gave reads it as ever."""
    day = "25.12.2023,31.12.2023 10:00"
    odd = [f"0042,{day}", "1,20231205,25.12.2023 10:00", "1,25.12.2023,1700000000"]
    workdir.write(
        "a.csv",
        "n,d,t\n"
        + "".join(f"{each}\n" for each in [*[f"1,{day}"] * 3100, *odd, *[f"1,{day}"] * 2900]),
    )
    summary = workdir.run("a.csv", "--infer-rows", 20)
    assert (summary["successful"], summary["failed"]) == (6000, 3)
    for reject, name in zip(workdir.rejects(summary), "ndt", strict=True):
        assert (
            f"inferred from 20 records; see --infer-rows all, or --type {name}=string"
            in reject["errors"][0]["message"]
        )
    again = workdir.run("a.csv", "--infer-rows", 20, "--allow-duplicates", "--job-id", "b")
    assert again["failed"] == 3, "what a table that was made here holds was inferred"
    stored = query(workdir.path / "a.db", "SELECT DISTINCT d, t FROM a")
    assert stored == [("2023-12-25", "2023-12-31T10:00:00")], "later files as the first one"
    workdir.write("b.csv", f"n,d,t\n0042,{day}\n43,{day}\n")
    later = workdir.run("b.csv", "--to", "sqlite:///a.db", "--table", "a")
    [reject] = workdir.rejects(later)
    assert later["successful"] == 1, "nor in a later file"
    assert "by the import that made the table; --type n=integer" in reject["errors"][0]["message"]
    query(workdir.path / "own.db", "CREATE TABLE a (n INTEGER, d TEXT, t TEXT)")
    given = workdir.run("a.csv", "--infer-rows", 20, "--to", "sqlite:///own.db")
    assert given["failed"] == 0
    found = query(
        workdir.path / "own.db",
        "SELECT n, d, t FROM a WHERE n > 1 OR d || t <> '25.12.202331.12.2023 10:00'",
    )
    assert found == [
        (42, *day.split(",")),
        (1, "20231205", "25.12.2023 10:00"),
        (1, "25.12.2023", "1700000000"),
    ]


@pytest.mark.parametrize(
    ("schema", "columns", "row"),
    [
        ({}, ["_extra"], ('{"a":1.10,"b":{"c":[1e2]}}',)),
        ({"required": ["a"]}, ["a", "_extra"], ("1.10", '{"b":{"c":[1e2]}}')),
        ({"$ref": "#/$defs/r", "$defs": {"r": {"properties": {"b": {}}}}}, ["b", "_extra"],
         ('{"c":[1e2]}', '{"a":1.10}')),
    ],
    ids=range(3),
)  # fmt: skip
def test_what_the_schema_does_not_describe_is_kept(
    workdir: Workdir, schema: object, columns: list[str], row: tuple[object, ...]
) -> None:
    """As it stands in the file, in the one column that is left for it."""
    workdir.write("r.jsonl", '{"a":1.10,"b":{"c":[1e2]}}\n')
    workdir.write("s.json", json.dumps(schema))
    assert workdir.run("r.jsonl", "--schema", "s.json")["exit_code"] == 0
    database = workdir.path / "r.db"
    assert [
        name for (name,) in query(database, "SELECT name FROM pragma_table_info('r')")
    ] == columns
    assert content(database, "r") == [row]


LEVELS = {f"n{at}": {"anyOf": [{"$ref": f"#/$defs/n{at + 1}"}] * 2} for at in range(25)}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"properties": {"age": {"minimum": "1"}}},
            "properties/age/minimum: not a valid JSON Schema",
        ),
        (
            {"properties": {"age": {"$ref": "#/$defs/n0"}}, "$defs": {**LEVELS, "n25": {}}},
            ": the schema is too complex: more than 10,000 schemas apply",
        ),
    ],
    ids=["malformed", "too complex"],
)
def test_a_refused_schema_stops_before_anything_is_written(
    workdir: Workdir, schema: object, message: str
) -> None:
    """Exit code 2, the place in the schema, and no database."""
    workdir.lines("users.jsonl", [{"age": 1}])
    workdir.write("s.json", json.dumps(schema))
    ended = workdir.call("run", "users.jsonl", "--schema", "s.json")
    assert ended.code == 2
    assert "--schema s.json at /" in ended.err
    assert message in ended.err
    assert [path.name for path in Path(workdir.path).iterdir() if path.suffix == ".db"] == []


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("place", [0, 1500])
def test_a_number_beyond_every_type_rejects_its_record_alone(
    workdir: Workdir, suffix: str, place: int
) -> None:
    """Wherever it stands; never a traceback, nor a chunk that no run can store."""
    numbers = [str(number) for number in range(2000)]
    numbers[place] = "1e1000000000000000000"
    form, header = ("{}", "v\n") if suffix == "csv" else ('{{"v": {}}}', "")
    workdir.write(f"r.{suffix}", header + "".join(form.format(n) + "\n" for n in numbers))
    workdir.write("s.json", '{"properties": {"v": {"type": "number"}}}')
    summary = workdir.run(f"r.{suffix}", "--schema", "s.json", "--chunk-size", 1000)
    assert (summary["exit_code"], summary["successful"], summary["failed"]) == (3, 1999, 1)
    assert [reject["record"] for reject in workdir.rejects(summary)] == [place]
    ended = workdir.call("run", f"r.{suffix}", "--table", "inferred", "--infer-rows", 1000)
    assert "Traceback" not in ended.err
    assert ended.code in (0, 3)


MODEL = """
import pydantic

class User(pydantic.BaseModel):
    id: int = pydantic.Field(ge=1)
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def strip(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("nobody is nameless")
        return name.strip()
"""


def test_a_pydantic_model_is_a_schema(workdir: Workdir) -> None:
    """Found in the current directory; it checks, it changes, and it is part of the job."""
    workdir.write("models.py", MODEL)
    workdir.write("u.csv", 'id,name\n1, Ann \n0," "\n2,Bob\n')
    summary = workdir.run("u.csv", "--schema", "models:User")
    assert (summary["exit_code"], summary["successful"], summary["failed"]) == (3, 2, 1)
    assert content(workdir.path / "u.db", "u") == [(1, "Ann"), (2, "Bob")]
    [reject] = workdir.rejects(summary)
    assert [(error["code"], error["field"]) for error in reject["errors"]] == [
        ("minimum", "id"),
        ("value_error", "name"),
    ]
    assert workdir.run("u.csv", "--schema", "models:User")["status"] == "already_completed"
    workdir.write("models.py", MODEL.replace("ge=1", "ge=0"))
    changed = workdir.run("u.csv", "--schema", "models:User")  # another job of the same content
    assert (changed["status"], changed["exit_code"]) == ("refused", 6)
    assert "--schema" in changed["error"]
