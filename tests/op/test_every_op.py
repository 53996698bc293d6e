"""Every operator of the table: type rule, NumPy reference and computation say the same."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warpbeam import op
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.ir.rewrite import substitute
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime import objects
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir import interp
from warpbeam.tir.expr import IntImm, PrimExpr, SizeVar

sys.path.insert(0, str(Path(__file__).parent))

import cases_content
import cases_core
import cases_index
import cases_ml
import cases_nn
import cases_recurrent

CASES = [
    *cases_core.CASES,
    *cases_nn.CASES,
    *cases_index.CASES,
    *cases_recurrent.CASES,
    *cases_content.CASES,
    *cases_ml.CASES,
]
IDS = [f"{i}-{name}" for i, (name, _, _) in enumerate(CASES)]

# Operators whose computation rounds more often than its reference: relative tolerance in units of the last place.
ULPS = {"float16": 4, "bfloat16": 4, "float32": 64, "float64": 4096}


def parts(value: Any) -> tuple[Any, ...]:
    return value.fields if isinstance(value, TupleType) else value if isinstance(value, tuple) else (value,)


def same(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Equal for integers; for floats within a few units in the last place of the largest magnitude near it."""
    assert got.shape == want.shape and got.dtype == want.dtype, (
        f"{what}: {got.dtype}{got.shape} {want.dtype}{want.shape}"
    )
    name = dt.from_numpy(want.dtype)
    if not dt.is_float(name):
        np.testing.assert_array_equal(got, want, what)
        return
    unit = 2.0 ** -{"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[name] * ULPS[name]
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = b[np.isfinite(b)]
    size = float(np.abs(finite).max()) if finite.size else 0.0
    np.testing.assert_allclose(a, b, rtol=unit, atol=unit * min(size, 1.0), equal_nan=True, err_msg=what)


def test_every_operator_has_a_case() -> None:
    missing = sorted(set(op.names()) - {name for name, _, _ in CASES})
    assert not missing, f"operators without a case in tests/op/cases_*.py: {missing}"


def test_every_operator_class_is_in_the_table() -> None:
    for module in pkgutil.iter_modules(op.__path__):
        importlib.import_module(f"warpbeam.op.{module.name}")
    named, queue = set(), [Op]
    while queue:
        below = queue.pop().__subclasses__()
        queue += below
        named |= {c.name for c in below if c.name and c.__module__.startswith("warpbeam.op.")}
    assert named <= set(op.names()), "operators that the table does not know"


@pytest.mark.parametrize(("name", "given", "arrays"), CASES, ids=IDS)
def test_type_reference_and_computation_agree(name: str, given: Any, arrays: Any) -> None:
    o = op.get(name)
    attrs = o.attrs(given)
    types = [TensorType(a.shape, dt.from_numpy(a.dtype)) for a in arrays]
    out_type = o.infer(types, attrs)
    with objects.using(objects.Table()):
        want = parts(o.numpy(attrs, *arrays))
    for t, w in zip(parts(out_type), want, strict=True):
        assert (t.shape, t.dtype) == (w.shape, dt.from_numpy(w.dtype)), name
    if o.host:
        with pytest.raises(WarpbeamError, match="has no compute"):
            o.compute(attrs, [], out_type)
        return
    same_as_reference(o, attrs, types, out_type, arrays, want)


def same_as_reference(o: Any, attrs: Any, types: Any, out_type: Any, arrays: Any, want: Any) -> None:
    inputs = [te.placeholder(t.shape, t.dtype, f"x{i}") for i, t in enumerate(types)]
    if hasattr(o, "compute_prim"):
        func = o.compute_prim(attrs, types, out_type)
    else:
        outputs = parts(o.compute(attrs, inputs, out_type))
        for t, tensor in zip(parts(out_type), outputs, strict=True):
            assert tensor.dtype == t.dtype, o.name
        func = create_prim_func(inputs, list(outputs), "kernel")
    found = [np.zeros(w.shape, w.dtype) for w in want]
    interp.run(func, *arrays, *found)
    for k, (g, w) in enumerate(zip(found, want, strict=True)):
        same(g, w, f"{o.name} output {k}")


SIZES = {n: SizeVar(f"n{n}") for n in range(2, 64)}


@pytest.mark.parametrize(("name", "given", "arrays"), cases_core.CASES, ids=[i for i, _ in zip(IDS, cases_core.CASES)])
def test_symbolic_sizes(name: str, given: Any, arrays: Any) -> None:
    """The same with each size a symbol: refused by an error of ours, or right for these numbers."""
    o = op.get(name)
    attrs = o.attrs(given)
    types = [TensorType([SIZES.get(d, d) for d in a.shape], dt.from_numpy(a.dtype)) for a in arrays]
    if all(t.is_static for t in types):
        return
    try:
        out_type = o.infer(types, attrs)
    except WarpbeamError:
        return
    want = parts(o.numpy(attrs, *arrays))
    numbers = {v: IntImm(n) for n, v in SIZES.items()}
    for t, w in zip(parts(out_type), want, strict=True):
        assert tuple(number(substitute(d, numbers) if isinstance(d, PrimExpr) else d) for d in t.shape) == w.shape, name
    same_as_reference(o, attrs, types, out_type, arrays, want)


def number(value: Any) -> int:
    from warpbeam.topi import dims

    found = dims.dim(value)
    assert isinstance(found, int)
    return found
