"""What tests share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

LOOSEST_TOLERANCE = 1e-4
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")


def assert_close(actual: Any, expected: Any, atol: float = 1e-6, rtol: float = 0.0) -> None:
    """Compare numbers, sequences of them, or tensors, in double precision; shapes must be equal.

    Raises:
        AssertionError: they differ by more than `atol + rtol * |expected|`, or one holds NaN.
        ValueError: a tolerance looser than 1e-4, with which a test could hardly fail.
    """
    for name, tolerance in (("atol", atol), ("rtol", rtol)):
        if not 0 <= tolerance <= LOOSEST_TOLERANCE:
            raise ValueError(f"{name} must lie in [0, {LOOSEST_TOLERANCE}], not {tolerance}: find out what differs")
    # The type is named at once: a Python float would otherwise pass through single precision.
    first, second = (torch.as_tensor(value, dtype=torch.float64, device="cpu").detach() for value in (actual, expected))
    torch.testing.assert_close(first, second, atol=atol, rtol=rtol)
