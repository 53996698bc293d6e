"""Helpers for tests of models and operators: `assert_allclose`, `check_model`, the ONNX backend adapter."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.runtime.ndarray import Device, cpu

__all__ = ["assert_allclose", "check_model", "device_enabled", "enabled_targets"]


def assert_allclose(actual: Any, desired: Any, rtol: float = 1e-7, atol: float = 1e-7) -> None:
    """Fails where two arrays differ by more than `atol + rtol * |desired|`, or in shape; takes NDArrays too."""
    left, right = np.asarray(actual), np.asarray(desired)
    assert left.shape == right.shape, f"shape {left.shape} instead of {right.shape}"
    np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, verbose=True)


def enabled_targets() -> list[tuple[str, Device]]:
    """Targets whose code runs here, each with its device."""
    return [("llvm", cpu(0))]


def device_enabled(target: str) -> bool:
    """Whether code for a target runs here."""
    from warpbeam.runtime import enabled

    return enabled(str(target))


def check_model(model: Any, **options: Any) -> Any:
    """Compiles a model and compares it with the interpreter; see `warpbeam.driver.verify.verify` for the options.

    Raises:
        VerifyError: if it is wrong, naming the first pass, kernel and stage that differ.
    """
    from warpbeam.driver.verify import check

    return check(model, **options)
