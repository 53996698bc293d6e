"""What is no number, no type and no function is refused by name, wherever it is given."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import te, tir
from warpbeam.ir.diagnostics import IRError, LowerError, WarpbeamError
from warpbeam.tir.literal import NumberError

A = te.placeholder((4, 4), name="A")


@pytest.mark.parametrize("value", [None, [1], float("nan"), A.op, "8", object()])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(NumberError, match="a size or an expression belongs"):
        te.placeholder((value, 3))


def test_sizes_are_whole() -> None:
    assert te.placeholder((4.0, 2)).shape == (4, 2)
    with pytest.raises(NumberError, match=r"2\.5 stands where a size or an expression belongs") as found:
        te.reduce_axis((0, 2.5))
    assert isinstance(found.value, TypeError) and isinstance(found.value, ValueError)


@pytest.mark.parametrize("value", [None, [1], {}, A.op])
def test_what_is_no_operand(value: Any) -> None:
    for build in (lambda i: A[i, 0] + value, lambda i: te.exp(value), lambda i: te.if_then_else(i > 1, value, 0.0)):
        with pytest.raises(NumberError):
            te.compute((4,), build)


def test_types_of_numpy_are_types() -> None:
    assert [te.placeholder((1,), d).dtype for d in (np.float32, np.dtype("int8"), "float", bool)] == [
        "float32", "int8", "float32", "bool",
    ]  # fmt: skip
    for wrong, text in (("flaot32", "unknown dtype 'flaot32'"), (object, "is no dtype"), ([], "is no dtype")):
        with pytest.raises(IRError, match=text):
            te.var("n", wrong)
        with pytest.raises(IRError, match=text):
            te.min_value(wrong)


def test_what_is_no_function() -> None:
    with pytest.raises(te.TEError, match="fcompute is a int"):
        te.compute((4,), 3)
    with pytest.raises(te.TEError, match="parameters of <built-in function max> are unknown"):
        te.compute((4,), max)
    with pytest.raises(te.TEError, match="fcompute of extern extern is a tuple"):
        te.extern((4,), [A], ())
    with pytest.raises(te.TEError, match="inputs of extern extern are a Tensor"):
        te.extern((4,), A, lambda ins, outs: tir.call_packed("f", ins[0], outs[0]))
    b = te.compute((4, 4), lambda i, j: A[i, j] * 2.0, name="B")
    with pytest.raises(te.TEError, match="fcompute of intrinsic twice is a str"):
        te.decl_tensor_intrin(b.op, "x", name="twice")
    s = te.create_schedule(b.op)
    with pytest.raises(ValueError, match="an index map is a function, not a list"):
        s[b].transform_layout([1, 0])
    _, c, k = _rows()
    with pytest.raises(ValueError, match="factor_axis is a position, not a list"):
        te.create_schedule(c.op).rfactor(c, k, [])
    with pytest.raises(ValueError, match="args is a Tensor, not a list"):
        tvm.build(s, A)
    with pytest.raises(te.TEError, match="takes a list of tensors, not a Tensor"):
        te.create_prim_func(b)


_CALLS = {"split": 2, "fuse": 2, "reorder": 2, "tile": 4, "compute_at": 2, "bind": 2, "vectorize": 1, "unroll": 1,
          "parallel": 1, "pragma": 3, "prefetch": 3, "storage_align": 3, "set_scope": 1, "tensorize": 2,
          "env_threads": 1, "set_store_predicate": 1, "transform_layout": 1}  # fmt: skip


def _rows() -> tuple[Any, Any, Any]:
    b = te.compute((8, 6), lambda i, j: A[i % 4, j % 4] + 1.0, name="B")
    k = te.reduce_axis((0, 6), "k")
    return b, te.compute((8,), lambda i: te.sum(b[i, k], axis=k), name="C"), k


@pytest.mark.parametrize("seed", range(4))
def test_calls_with_anything_give_errors_of_ours(seed: int) -> None:
    r, refused, taken = random.Random(seed), 0, 0
    for _ in range(60):
        b, c, k = _rows()
        s = te.create_schedule(c.op)
        junk = [None, -1, 0, 3, 2.5, "x", [], {}, A, b, c, s, s[b], b.op, k.var, te.thread_axis("threadIdx.x"),
                float("nan"), 10**30, lambda *a: a, *[*b.op.axis, *c.op.axis, k, 4] * 3]  # fmt: skip
        call = r.choice(list(_CALLS))
        args = [r.choice(junk) for _ in range(_CALLS[call])]
        try:
            getattr(s[r.choice([b, c])], call)(*args)
            tvm.lower(s, [A, c])
        except Exception as error:
            assert isinstance(error, WarpbeamError) and str(error), f"{call}{args}: {error!r}"
            refused += 1
        else:
            taken += 1
    assert refused > 10 and taken > 0


def test_threads_on_a_cpu_and_odd_pragmas() -> None:
    b = te.compute((4, 4), lambda i, j: A[i, j] * 2.0, name="B")
    s = te.create_schedule(b.op)
    s[b].bind(b.op.axis[0], te.thread_axis("threadIdx.x"))
    for target in ("llvm", "c"):
        with pytest.raises(LowerError, match=r"bound to threadIdx.x, which a CPU does not have"):
            tvm.build(s, [A, b], target)
    s = te.create_schedule(b.op)
    s[b].pragma(b.op.axis[0], "auto_unroll_max_step", "many")
    with pytest.raises(NumberError, match="'many' stands where the value of pragma auto_unroll_max_step belongs"):
        tvm.lower(s, [A, b])
