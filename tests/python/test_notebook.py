"""The API in a notebook: a real Jupyter kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cli import ROOT

CELLS = (
    f"""import sys; sys.path.insert(0, {str(ROOT)!r})""",
    """from batchimport import aimport_file, import_file
LEAST = 18
def adults(record: dict) -> dict | None:
    return record if record['age'] >= LEAST else None""",
    """result = import_file('u.jsonl', to='u.db', transform=adults)
result""",
    """(await aimport_file('u.jsonl', to='u.db', transform=adults)).status""",
    """await aimport_file('u.jsonl', to='other.db', chunk_size=100)""",
    """from pydantic import BaseModel
class User(BaseModel):
    id: int
    age: int
import_file('u.jsonl', to='model.db', schema=User).successful""",
    """LEAST = 40
import_file('u.jsonl', to='u.db', transform=adults)""",
)


@pytest.mark.filterwarnings("ignore")  # of Jupyter itself
def test_cells_import_show_progress_and_results(tmp_path: Path) -> None:
    """`import_file` and `await aimport_file`, each with a display; an error has its hint."""
    nbformat: Any = pytest.importorskip("nbformat")
    client: Any = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    (tmp_path / "u.jsonl").write_text(
        "".join(f'{{"id": {at}, "age": {at % 50}}}\n' for at in range(1000))
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    resources = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(book, timeout=100, allow_errors=True, resources=resources).execute()
    outputs = [cell.outputs for cell in book.cells]
    shown = [_texts(each) for each in outputs]
    display, result = outputs[2]
    assert "100.0%" in display.data["text/html"]
    assert "stored 640" in display.data["text/plain"]
    assert "filtered" in result.data["text/html"]
    assert "already_completed" in shown[3]
    assert "stored 1,000" in shown[4]
    assert "1000" in shown[5]
    assert outputs[6][-1].ename == "AlreadyStoredError"
    assert "hint:" in shown[6]
    assert [each.output_type for cell in outputs for each in cell].count("stream") == 0


def _texts(outputs: list[Any]) -> str:
    return "\n".join(
        "\n".join(each.get("traceback", [])) + str(each.get("data", {}).get("text/plain", ""))
        for each in outputs
    )
