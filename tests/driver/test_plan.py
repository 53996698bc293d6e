"""Memory of a model: values written over others, pieces, views; checked by replaying plans and by running models."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op
from warpbeam.driver.plan_check import check_plan, sample_dims
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Function, Tuple, TupleGetItem, const, var
from warpbeam.runtime import program as P
from warpbeam.tir.expr import SizeVar

RNG = np.random.default_rng(5)


def call(name: str, *args: Any, **attrs: Any) -> Call:
    return op.get(name)(*args, **attrs)


def weights(*shape: int) -> Any:
    return const((RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))


def compiled(func: Any, share: bool = True) -> Any:
    with PassContext(config={"driver.share_memory": share}):
        return warpbeam.compile(func, cache=False)


def calls(module: Any) -> list[P.CallKernel]:
    return [i for i in P.walk(module.artifact.program().body) if isinstance(i, P.CallKernel)]


def results(module: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    kept = [a.copy() for a in arrays]
    got = module(*arrays)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True)), "an input was written"
    return list(got) if isinstance(got, tuple | list) else [got]


def same_bits(func: Any, arrays: list[np.ndarray]) -> Any:
    """Results do not depend on whether values share memory, nor on the number of threads."""
    module, plain = compiled(func), compiled(func, share=False)
    want = results(plain, arrays)
    for threads in (1, 2):
        module.num_threads = threads
        for _ in range(2):
            for a, b in zip(results(module, arrays), want, strict=True):
                np.testing.assert_array_equal(a, b)
    return module, plain


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


# ---------------------------------------------------------------------------------------- results over operands


def residual_block(x: Any) -> Any:
    y = call("nn.dense", call("nn.layer_norm", x, const(np.ones(96, "f")), const(np.zeros(96, "f"))), weights(96, 96))
    return call("add", call("nn.relu", y), x)


def test_a_residual_is_added_in_place_and_the_chain_needs_less_memory() -> None:
    x = var("x", shape=(32, 96))
    y = call("nn.dense", x, weights(96, 96))
    for _ in range(3):
        y = residual_block(y)
    module, plain = same_bits(Function([x], y), [floats(32, 96)])
    assert sum(bool(c.donates) for c in calls(module)) >= 3
    assert not any(c.donates for c in calls(plain))
    assert module.artifact.manifest.arena_bytes < plain.artifact.manifest.arena_bytes


def test_what_is_read_again_stays() -> None:
    """A softmax over its operand would be legal for the kernel, but the operand is needed later."""
    x = var("x", shape=(8, 40))
    h = call("nn.dense", x, weights(40, 40))
    s = call("nn.softmax", h, axis=-1)
    func = Function([x], call("nn.dense", call("nn.dense", s, weights(40, 40)), h))
    module, _ = same_bits(func, [floats(8, 40)])
    soft = next(c for c in calls(module) if "over" not in c.kernel and len(c.args) == 2)
    assert not soft.donates


def test_inputs_and_constants_are_never_overwritten() -> None:
    x = var("x", shape=(8, 40))
    func = Function([x], call("nn.softmax", call("reshape", x, newshape=(4, 80)), axis=-1))
    module, _ = same_bits(func, [floats(8, 40)])
    assert not any(c.donates for c in calls(module))


def test_results_that_are_views_of_one_value_are_apart() -> None:
    x = var("x", shape=(6, 8))
    y = call("nn.softmax", call("nn.dense", x, weights(8, 8)), axis=-1)
    views = [call("reshape", y, newshape=(48,)), y, call("reshape", y, newshape=(8, 6)), x]
    module, _ = same_bits(Function([x], Tuple(tuple(views))), [floats(6, 8)])
    got = results(module, [floats(6, 8)])
    assert all(not np.shares_memory(a, b) for k, a in enumerate(got) for b in got[:k])


# ---------------------------------------------------------------------------------------- random models


def random_model(seed: int, rows: Any) -> Any:
    rng = np.random.default_rng(seed)
    xs = [var("x", shape=(rows, 24)), var("y", shape=(rows, 24))]
    pool: list[Any] = list(xs)
    for _ in range(int(rng.integers(8, 16))):
        a, b = (pool[int(rng.integers(max(0, len(pool) - 5), len(pool)))] for _ in range(2))
        kind = int(rng.integers(0, 9))
        if kind == 0:
            new = call("nn.softmax", a, axis=-1)
        elif kind == 1:
            new = call("nn.dense", a, weights(24, 24))
        elif kind == 2:
            new = call("add", call("nn.dense", a, weights(24, 24)), b)
        elif kind == 3:
            new = call("tanh", call("multiply", a, b))
        elif kind == 4:
            new = call("nn.layer_norm", call("add", a, b), const(np.ones(24, "f")), const(np.zeros(24, "f")))
        elif kind == 5:
            new = call("reverse", a, axis=0) if rng.random() < 0.5 else call("reverse", a, axis=1)
        elif kind == 6:
            parts = call("split", a, indices_or_sections=3, axis=1)
            new = call("concatenate", *(TupleGetItem(parts, int(k)) for k in rng.permutation(3)), axis=1)
        elif kind == 7:
            half = [call("strided_slice", v, begin=(0,), end=(12,), axes=(1,)) for v in (a, b)]
            new = call("concatenate", call("nn.relu", half[0]), half[1], axis=1)
        else:
            new = call("cumsum", a, axis=1)
        pool.append(new)
    outs = [pool[-1], *(pool[int(k)] for k in rng.integers(2, len(pool), 2))]
    return Function(xs, Tuple(tuple(outs)))


@pytest.mark.parametrize("seed", range(6))
def test_random_models_give_the_same_bits(seed: int) -> None:
    same_bits(random_model(seed, 10), [floats(10, 24), floats(10, 24)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_random_models_give_the_same_bits(seed: int) -> None:
    same_bits(random_model(seed, 10), [floats(10, 24), floats(10, 24)])


@pytest.mark.parametrize("seed", (1, 2))
def test_random_models_of_unknown_size(seed: int) -> None:
    func = random_model(seed, SizeVar("n"))
    module, plain = compiled(func), compiled(func, share=False)
    program = module.artifact.program()
    for extents in ((1,), (2, 9), (64,)):
        check_plan(program, sample_dims(program, extents))
    for rows in (1, 7, 33):
        arrays = [floats(rows, 24), floats(rows, 24)]
        for a, b in zip(results(module, arrays), results(plain, arrays), strict=True):
            np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------------- the check


def example(share: bool = True) -> P.Program:
    x = var("x", shape=(32, 96))
    y = residual_block(residual_block(call("nn.dense", x, weights(96, 96))))
    return compiled(Function([x], y), share).artifact.program()


def test_the_check_finds_what_is_overwritten_too_early() -> None:
    program = example(share=False)
    check_plan(program)
    arena = [v for v in program.values if v.storage[0] == "arena"]
    found = 0
    for v in arena:
        for other in arena:
            if v.storage == other.storage:
                continue
            moved = dataclasses.replace(v, storage=other.storage)
            wrong = dataclasses.replace(program, values=tuple(moved if x is v else x for x in program.values))
            try:
                check_plan(wrong)
            except CompileError:
                found += 1
    assert found >= len(arena)


def test_the_check_wants_every_loss_to_be_declared() -> None:
    program = example()
    k = next(k for k, i in enumerate(program.body) if isinstance(i, P.CallKernel) and i.donates)
    quiet = dataclasses.replace(program.body[k], donates=())
    body = (*program.body[:k], quiet, *program.body[k + 1 :])
    with pytest.raises(CompileError, match="does not give up"):
        check_plan(dataclasses.replace(program, body=body))
    late = dataclasses.replace(program, body=(*program.body[: k + 1], *program.body[k:]))
    with pytest.raises(CompileError, match="by then"):
        check_plan(late)


def test_the_check_wants_values_to_be_made() -> None:
    program = example()
    with pytest.raises(CompileError, match="nothing"):
        check_plan(dataclasses.replace(program, body=program.body[1:]))


# ---------------------------------------------------------------------------------------- parts of other values


def conv(x: Any, filters: int, kernel: int = 1) -> Any:
    w = const((RNG.standard_normal((kernel, kernel, x.ty.shape[-1], filters)) / 9).astype(np.float32))
    attrs = {"data_layout": "NHWC", "kernel_layout": "HWIO", "strides": (1, 1), "padding": (kernel // 2,) * 4}
    return call("nn.relu", call("nn.conv2d", x, w, **attrs))


def test_branches_are_written_into_what_joins_them() -> None:
    """Rows of the branches lie apart in the result; the pool's too; what is read elsewhere is copied."""
    x = var("x", shape=(1, 9, 10, 16))
    a = conv(x, 24)
    pool = call("nn.max_pool2d", a, pool_size=(3, 3), strides=(1, 1), padding=(1, 1, 1, 1), layout="NHWC")
    join = call("concatenate", conv(x, 12), conv(a, 20, 3), pool, a, axis=3)
    module, plain = same_bits(Function([x], conv(join, 8, 3)), [floats(1, 9, 10, 16)])
    values = module.artifact.program().values
    strided = [v for v in values if v.strides]
    assert [v.strides[-2:] for v in strided] == [(80, 1)] * 4
    wide = [c.kernel for c in calls(module) if "_wide_" in c.kernel]
    assert len(wide) == 3
    assert len(calls(module)) == len(calls(plain))  # the join became a copy of the one operand read elsewhere


def test_parts_without_gaps_cost_nothing() -> None:
    x = var("x", shape=(1, 48))
    h = call("tanh", call("nn.dense", x, weights(96, 48)))
    parts = call("split", h, indices_or_sections=3, axis=1)
    a, b, c = (TupleGetItem(parts, k) for k in range(3))
    tail = call("strided_slice", h, begin=(90,), end=(96,), axes=(1,))
    y = call("nn.dense", call("concatenate", call("nn.softmax", a, axis=-1), call("nn.softmax", b, axis=-1), axis=1),
             weights(5, 64))  # fmt: skip
    func = Function([x], Tuple((y, call("nn.softmax", c, axis=-1), call("nn.softmax", tail, axis=-1), tail)))
    module, plain = same_bits(func, [floats(1, 48)])
    assert len(calls(module)) == len(calls(plain)) - 3  # split, slice and concatenate


def test_slices_with_gaps_or_steps_are_kernels() -> None:
    x = var("x", shape=(4, 12))
    h = call("nn.dense", x, weights(12, 12))
    some = [
        call("strided_slice", h, begin=(2,), end=(8,), axes=(1,)),
        call("strided_slice", h, begin=(0,), end=(4,), strides=(2,), axes=(0,)),
        call("strided_slice", h, begin=(3,), end=(-9,), strides=(-1,), axes=(0,)),
    ]
    y = [call("nn.softmax", s, axis=-1) for s in some]
    module, plain = same_bits(Function([x], Tuple(tuple(y))), [floats(4, 12)])
    assert len(calls(module)) == len(calls(plain))
    rows = call("nn.softmax", call("strided_slice", h, begin=(1,), end=(3,), axes=(0,)), axis=-1)
    module, plain = same_bits(Function([x], rows), [floats(4, 12)])
    assert len(calls(module)) == len(calls(plain)) - 1


@pytest.mark.parametrize("name", ["concatenate", "split", "strided_slice"])
def test_operators_say_the_truth_about_their_parts(name: str) -> None:
    """`boxes` and `joins` against the operator's own reference."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        shape = tuple(int(v) for v in rng.integers(2, 7, 3))
        axis = int(rng.integers(-3, 3))
        x = rng.standard_normal(shape).astype(np.float32)
        v = var("x", shape=shape)
        if name == "concatenate":
            node = call(name, v, v, axis=axis)
            at = node.op.joins(node.attrs, [v.ty, v.ty])
            want = node.op.numpy(node.attrs, x, 2 * x)
            np.testing.assert_array_equal(np.take(want, range(shape[at]), at), x)
            continue
        end = int(rng.integers(1, shape[axis]))
        if name == "split":
            node = call(name, v, indices_or_sections=(end,), axis=axis)
        else:
            node = call(name, v, begin=(-end,), end=(shape[axis],), axes=(axis,))
        results = node.op.numpy(node.attrs, x)
        for begin, part in zip(node.op.boxes(node.attrs, [v.ty]), results if name == "split" else [results]):
            box = tuple(slice(begin.get(d, 0), begin.get(d, 0) + n) for d, n in enumerate(part.shape))
            np.testing.assert_array_equal(x[box], part)
