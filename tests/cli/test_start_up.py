"""How fast the command is there, and what it imports."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LONGEST_SECONDS = 0.5
LARGEST_RATIO = 8
BUSY_SECONDS = 0.1


def user_seconds(*arguments: str) -> float:
    """User time of the fastest of three starts of Python."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, *arguments], cwd=ROOT, env=clean(), check=True, capture_output=True)
        spent.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    return min(spent)


def clean() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


def test_help_is_there_at_once() -> None:
    nothing = user_seconds("-c", "pass")
    if nothing > BUSY_SECONDS:
        pytest.skip(f"Python alone needs {nothing:.2f} s here")
    spent = user_seconds("-m", "stvg_lightning.cli.main", "--help")
    assert spent < LONGEST_SECONDS and spent < LARGEST_RATIO * max(nothing, 0.01)


def test_the_command_line_loads_no_heavy_library() -> None:
    code = "import sys, stvg_lightning.cli.main; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean(), check=True, capture_output=True, text=True
    ).stdout
    heavy = {"torch", "transformers", "lightning", "numpy", "omegaconf", "av", "rich"}
    assert not heavy & set(eval(loaded))


@pytest.mark.parametrize("command", ["run", "check", "score", "reward", "predict", "report", "shards"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from stvg_lightning.cli.main import main

    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"stvg {command}" in capsys.readouterr().out
