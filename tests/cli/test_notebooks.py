"""The notebooks run from the first cell to the last, and are stored without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_SECONDS = 900


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


def test_01_explore_a_run(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STVG_RUN", str(finished_run))
    book = run_notebook("01_explore_a_run")
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4  # differences, curves, and two strips of frames


def test_02_your_own_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STVG_RUNS", str(tmp_path))  # begins with no run at all
    book = run_notebook("02_your_own_reward")
    printed = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))
    assert "1.50 to 2.00            1.00          0.25" in printed
    assert "last  quarter: precision" in printed


def run_notebook(name: str) -> nbformat.NotebookNode:
    """Execute a notebook as from its own folder; nothing is written back.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    return NotebookClient(book, timeout=CELL_SECONDS, kernel_name="python3", resources=place).execute()
