"""Gaps between rows that would share few places of a cache: asked for by products, left where all kernels can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Function, IRModule, Tuple, const, var
from warpbeam.sketch.select import schedule
from warpbeam.target import get as target
from warpbeam.tir.expr import SizeVar
from warpbeam.transform import passes
from warpbeam.transform.fuse_ops import group_tensors

RNG = np.random.default_rng(9)
LINE = target("native").line // 4  # elements


def call(name: str, *args: Any, **attrs: Any) -> Call:
    return op.get(name)(*args, **attrs)


def product(h: Any, inner: int, columns: int = 80) -> Any:
    w = const((RNG.standard_normal((columns, inner)) / np.sqrt(inner)).astype(np.float32))
    return call("nn.dense", h, w)


def layers(*, inner: int = 1024, rows: int = 64) -> tuple[Any, Any]:
    """(data, what is between two layers)."""
    x = var("x", shape=(rows, 96))
    return x, call("nn.relu", product(x, 96, inner))


def gaps(body: Any, x: Any, shape: tuple[int, ...] = ()) -> tuple[list[tuple[Any, ...]], Any]:
    """Strides of values with gaps; results are the same to the bit as with each value in memory of its own."""
    func = Function([x], body)
    module = warpbeam.compile(func, cache=False)
    with PassContext(config={"driver.share_memory": False}):
        plain = warpbeam.compile(func, cache=False)
    given = RNG.standard_normal(shape or x.ty.shape).astype(np.float32)
    want = plain(given)
    for threads in (1, 2):
        module.num_threads = threads
        got = module(given)
        several = isinstance(want, tuple | list)
        for a, b in zip(got if several else [got], want if several else [want], strict=True):
            np.testing.assert_array_equal(a, b)
    module.profile({"x": given}, repeat=1)  # the stepping executor sees the same memory
    return [v.strides for v in module.artifact.program().values if v.strides], module


def test_rows_a_cache_way_apart_get_a_gap() -> None:
    x, h = layers()
    found, module = gaps(product(h, 1024), x)
    assert found == [(1024 + LINE, 1)]
    assert sum("_wide_" in k.name for k in module.artifact.manifest.kernels) == 2


def test_several_products_may_read_such_rows() -> None:
    x, h = layers()
    found, _ = gaps(call("add", product(h, 1024), call("tanh", product(h, 1024))), x)
    assert found == [(1024 + LINE, 1)]


def test_other_rows_have_none() -> None:
    x, h = layers(inner=1000)
    assert gaps(product(h, 1000), x)[0] == []


@pytest.mark.parametrize("other", ["result", "view"])
def test_what_something_else_reads_has_none(other: str) -> None:
    x, h = layers()
    also = h if other == "result" else call("nn.softmax", call("reshape", h, newshape=(256, 256)), axis=-1)
    assert gaps(Tuple((product(h, 1024), also)), x)[0] == []


def test_inputs_have_none() -> None:
    x = var("x", shape=(64, 1024))
    assert gaps(product(x, 1024), x)[0] == []


@pytest.mark.parametrize("shape", [(2, 33), (5, 1), (1, 64)])
def test_open_sizes_stand_in_strides(shape: tuple[int, int]) -> None:
    x = var("x", shape=(SizeVar("n"), SizeVar("m"), 96))
    body = product(call("nn.relu", product(x, 96, 1024)), 1024)
    found, module = gaps(body, x, (*shape, 96))
    assert found == [(("mul", 1024 + LINE, "m"), 1024 + LINE, 1)]
    assert any("_wide_" in k.name for k in module.artifact.manifest.kernels)


@pytest.mark.parametrize(("inner", "constants", "asked"), [
    (1024, "w", {"x": 1024}), (3072, "w", {"x": 3072}), (1000, "w", {}), (1024, "xw", {}),
])  # fmt: skip
def test_a_product_asks_for_its_left_operand(inner: int, constants: str, asked: dict[str, int]) -> None:
    x, w = var("x", shape=(64, inner)), var("w", shape=(inner, 96))
    mod = passes.InferType()(IRModule.from_expr(Function((x, w), call("nn.matmul", x, w))))
    plan = schedule(*group_tensors(mod["main"]), target("generic-x86-64-v4"), frozenset(constants), "k")
    assert plan.gaps == asked
