"""A pydantic model as --schema: what it accepts, how it refuses, what is stored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batchimport.errors import UsageError
from batchimport.schema import RecordSchema
from batchimport.schema.load import find_schema
from batchimport.schema.pydantic import RecordModel
from tests.helpers import models
from tests.helpers.cli import ROOT, environment
from tests.helpers.reading import read_all

GOOD: dict[str, Any] = {"id": 1, "Name": " Ann ", "at": "2024-01-01T00:00:00Z", "tags": ["a"]}


def judged(model: Any, path: Path, records: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    judge = RecordModel(model)
    return read_all(path, RecordSchema(judge.document, model=judge))


@pytest.mark.parametrize(
    ("model", "has_code"),
    [
        (models.User, False),
        (models.Node, False),
        (models.Welcome, True),
        (models.Price, True),
        (models.Stripped, True),
        (models.Even, True),
    ],
)
def test_rules_that_the_json_schema_does_not_state_are_code(model: Any, has_code: bool) -> None:
    """Only if it states all rules, whole columns are checked."""
    judge = RecordModel(model)
    assert judge.has_code is has_code
    assert RecordSchema(judge.document, model=judge).vectorised is not has_code


@pytest.mark.parametrize("model", [models.User, models.Welcome])
def test_errors_look_like_those_of_a_json_schema(tmp_path: Path, model: Any) -> None:
    """All of them, with the codes, fields and values that rejects have everywhere."""
    bad = {
        "id": "3",
        "Name": "",
        "day": "soon",
        "plan": "x",
        "tags": ["c"],
        "address": {"zip": "1"},
        "z": 1,
    }
    rows, rejects = judged(model, tmp_path / "r.jsonl", [GOOD, bad, {}])
    assert len(rows) == 1
    assert [(error.code, error.field, error.value) for error in rejects[0].errors] == [
        ("type", "id", "3"),
        ("min_length", "Name", ""),
        ("type", "day", "soon"),
        ("enum", "plan", "x"),
        ("enum", "tags[0]", "c"),
        ("pattern", "address.zip", "1"),
        ("additional_properties", "z", 1),
    ]
    assert [(error.code, error.field) for error in rejects[1].errors] == [
        ("required", "id"),
        ("required", "Name"),
    ]


def test_a_plain_model_accepts_what_its_json_schema_does_not_know(tmp_path: Path) -> None:
    """A point in time without a zone is no `date-time`, but it is a datetime."""
    rows, rejects = judged(
        models.User, tmp_path / "r.jsonl", [{**GOOD, "at": "2024-01-01T00:00:00"}]
    )
    assert rejects == []
    assert rows == [{"id": 1, "Name": " Ann ", "at": "2024-01-01T00:00:00", "tags": '["a"]'}]


def test_values_that_the_model_changes_are_stored_as_it_gives_them(tmp_path: Path) -> None:
    """All others as they stand in the source; what raises is a reject of its own."""
    records = [{**GOOD, "id": at} for at in (1, 50, 100)] + [{**GOOD, "Name": "root"}]
    rows, rejects = judged(models.Welcome, tmp_path / "r.jsonl", records)
    assert rows == [{"id": 1, "Name": "Ann", "at": "2024-01-01T00:00:00Z", "tags": '["a"]'}]
    assert [reject.errors[0].code for reject in rejects] == [
        "model_failed",
        "assertion_error",
        "value_error",
    ]
    assert "KeyError: 'oops'" in rejects[0].errors[0].message
    assert judged(models.Even, tmp_path / "r.jsonl", [{"number": 3}])[0] == [{"number": 2}]


def test_extra_keys_survive_a_model_with_code(tmp_path: Path) -> None:
    """They are none of its business."""
    rows, _ = judged(models.Stripped, tmp_path / "r.jsonl", [{"name": " a ", "x": [1]}])
    assert rows == [{"name": "a", "_extra": '{"x":[1]}'}]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tests.helpers.models:Plan", "neither a file nor a pydantic model"),
        ("tests.helpers.models:Nobody", "tests.helpers.models has no Nobody"),
        ("tests.helpers.nowhere:User", "there is no module tests.helpers.nowhere"),
        ("no/such/file.json", "cannot be read"),
    ],
)
def test_what_is_no_model_is_refused(spec: str, message: str) -> None:
    """In one line, with the way out."""
    with pytest.raises(UsageError, match=message) as caught:
        find_schema(spec)
    assert caught.value.hint


def test_changed_code_is_another_configuration(tmp_path: Path) -> None:
    """The model's file is hashed."""
    digests = set()
    for bound in (1, 1, 2):
        path = tmp_path / "m.py"
        path.write_text(f"import pydantic\nclass M(pydantic.BaseModel):\n    a: int = {bound}\n")
        _, model = find_schema(f"{path}:M")
        assert model
        digests.add(model.digest)
    assert len(digests) == 2


def test_without_pydantic_its_extra_is_named() -> None:
    """The command to type; called from Python, for some versions of Typer need pydantic themselves."""
    program = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic': raise ModuleNotFoundError('none', name='pydantic')\n"
        "sys.meta_path.insert(0, Hide())\n"
        "from batchimport.errors import UsageError\n"
        "from batchimport.schema.load import find_schema\n"
        "try: find_schema('tests.helpers.models:User')\n"
        "except UsageError as error: print(error.hint)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, check=False, env=environment(), cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "pip install 'batchimport[pydantic]'\n", done.stderr
