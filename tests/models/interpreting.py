"""Triton's kernels without a GPU: Triton decides whether it interprets when a kernel is defined, hence a process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def interpreted(program: str) -> float:
    """The number that the last statement of a program gives, with kernels interpreted."""
    *before, last = program.split("; ")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", "; ".join([*before, f"print({last})"])]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    is_old = tuple(map(int, version("triton").split(".")[:2])) < (3, 7)
    if is_old and "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("the interpreter of Triton up to 3.6 cannot loop with NumPy 2.4")
    assert done.returncode == 0, done.stderr
    return float(done.stdout)
