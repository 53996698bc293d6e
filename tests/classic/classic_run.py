"""Helpers of the classic programs: a schedule built and compared with NumPy, on this machine or as a GPU's kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

import warpbeam as tvm
from warpbeam import te


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray[Any, Any]:
    """Small whole numbers, so that sums are exact in any order."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def check(s: Any, args: Any, ins: Any, outs: Any, target: Any = None, rtol: float = 0.0, **config: Any) -> Any:
    """Prints the loops, builds, calls with `ins` and compares what comes out with `outs`; gives the module."""
    assert str(tvm.lower(s, args, simple_mode=True)).startswith("def ")
    with tvm.transform.PassContext(config=config):
        mod = tvm.build(s, args, target)
    results = [tvm.nd.array(np.full_like(o, 77)) for o in outs]
    mod(*[tvm.nd.array(x) if isinstance(x, np.ndarray) else x for x in ins], *results)
    for got, want in zip(results, outs, strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=rtol, atol=rtol)
    return mod


def naive(outs: Any, args: Any, ins: Any, wants: Any, rtol: float = 0.0) -> Any:
    """As `check`, of tensors without a schedule of their own."""
    return check(te.create_schedule([t.op for t in outs]), args, ins, wants, rtol=rtol)


def check_gpu(s: Any, args: Any, ins: Any, outs: Any, rtol: float = 0.0, target: str = "cuda") -> str:
    """As `check`, by the executor that keeps the rules of a GPU and on the processor; gives the text of the kernels."""
    machine = tvm.target.Target(target, host="llvm")
    check(s, args, ins, outs, machine, rtol, **{"warpbeam.gpu_executor": True})
    mod = check(s, args, ins, outs, machine, rtol)
    return str(mod.imported_modules[0].get_source())
