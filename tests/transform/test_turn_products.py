"""Right operands, no constants, that have their sums along rows: turned for many rows, read as they lie for few."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import relay
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name

U = 2.0**-24


def _names(mod: relay.IRModule) -> list[str]:
    return [op_name(n) for n in post_order(mod["main"].body) if isinstance(n, Call)]


def _turned(body, *shapes) -> relay.IRModule:
    given = [relay.var(f"x{k}", shape=s, dtype="float32") for k, s in enumerate(shapes)]
    return passes.TurnProducts()(relay.IRModule.from_expr(relay.Function(given, body(*given))))


@pytest.mark.parametrize(
    ("body", "shapes", "want"),
    [
        (relay.nn.dense, ((16, 8), (5, 8)), ["transpose", "nn.matmul"]),
        (relay.nn.dense, ((4, 4, 8), (5, 8)), ["transpose", "nn.matmul"]),
        (relay.nn.dense, (("n", 8), (5, 8)), ["transpose", "nn.matmul"]),
        (relay.nn.dense, ((6, 8), (5, 8)), ["nn.dense"]),
        (relay.nn.batch_matmul, ((9, 16, 8), (9, 5, 8)), ["transpose", "nn.batch_matmul"]),
        (relay.nn.batch_matmul, ((9, 6, 8), (9, 5, 8)), ["nn.batch_matmul"]),
        (lambda a, b: relay.nn.matmul(a, b, transpose_b=True), ((16, 8), (5, 8)), ["transpose", "nn.matmul"]),
        (lambda a, b: relay.nn.matmul(a, b), ((16, 8), (8, 5)), ["nn.matmul"]),
        (lambda a, b: relay.nn.dense(a, relay.transpose(b, axes=(1, 0))), ((16, 8), (8, 5)), ["nn.matmul"]),
        (lambda a: relay.nn.dense(a, relay.const(np.ones((5, 8), np.float32))), ((16, 8),), ["nn.dense"]),
    ],
    ids=["dense", "rows", "open", "few", "batch", "few of each", "flag", "plain", "turned twice", "constant"],
)
def test_what_is_turned(body, shapes, want: list[str]) -> None:
    shapes = [tuple(relay.Any() if d == "n" else d for d in s) for s in shapes]
    assert _names(_turned(body, *shapes)) == want


@pytest.mark.parametrize(
    ("steps", "rows", "columns", "turned"),
    [(4096, 1024, 128, True), (16384, 256, 768, True), (4096, 1024, 64, False), (2048, 1024, 768, False),
     (4096, 1000, 768, False), (4096, 2048, 768, False), (32768, 128, 768, False)],
)  # fmt: skip
def test_left_operands_are_turned_where_they_crowd(steps: int, rows: int, columns: int, turned: bool) -> None:
    """Beyond the caches, rows a power of two apart, and columns enough."""
    product = lambda a, b: relay.nn.matmul(a, b, transpose_a=True)  # noqa: E731
    want = ["transpose", "nn.matmul"] if turned else ["nn.matmul"]
    assert _names(_turned(product, (steps, rows), (steps, columns))) == want
    both = lambda a, b: relay.nn.matmul(a, b, transpose_a=True, transpose_b=True)  # noqa: E731
    assert _names(_turned(both, (steps, rows), (columns, steps))) == ["transpose", *want]
    batch = lambda a, b: relay.nn.batch_matmul(a, b, transpose_a=True, transpose_b=False)  # noqa: E731
    mod = _turned(batch, (2, steps, rows), (2, steps, columns))
    assert _names(mod) == [n.replace("nn.matmul", "nn.batch_matmul") for n in want]
    assert [int(d) for d in passes.InferType()(mod)["main"].body.ty.shape] == [2, rows, columns]


def test_what_the_model_turns_is_read_where_it_lies() -> None:
    product = lambda a, b: relay.nn.matmul(relay.transpose(a), b)  # noqa: E731
    assert _names(_turned(product, (300, 40), (300, 50))) == ["nn.matmul"]
    dense = lambda a, b: relay.nn.dense(relay.transpose(a), b)  # noqa: E731
    assert _names(_turned(dense, (300, 40), (50, 300))) == ["transpose", "transpose", "nn.matmul"]
    assert _names(_turned(dense, (300, 4), (50, 300))) == ["transpose", "nn.dense"]  # few rows, along both
    assert _names(_turned(product, (4096, 1024), (4096, 256))) == ["transpose", "nn.matmul"]
    known = relay.const(np.ones((300, 50), np.float32))
    assert _names(_turned(lambda a: relay.nn.matmul(relay.transpose(a), known), (300, 40))) == [
        "transpose",
        "nn.matmul",
    ]
    batch = lambda a, b: relay.nn.batch_matmul(relay.transpose(a, axes=(0, 2, 1)), b, transpose_b=False)  # noqa: E731
    assert _names(_turned(batch, (2, 300, 40), (2, 300, 50))) == ["transpose", "nn.batch_matmul"]


def test_whole_numbers_stay() -> None:
    a, b = (relay.var(n, shape=(16, 8), dtype="int8") for n in "ab")
    mod = relay.IRModule.from_expr(relay.Function([a, b], relay.nn.dense(a, b, out_dtype="int32")))
    assert _names(passes.TurnProducts()(mod)) == ["nn.dense"]


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 40])
@pytest.mark.parametrize(("columns", "depth"), [(1, 64), (33, 100), (130, 257), (64, 7)])
@pytest.mark.parametrize("batch", [0, 3])
def test_right_at_all_sizes(rows: int, columns: int, depth: int, batch: int) -> None:
    lead = (batch,) if batch else ()
    a = relay.var("a", shape=(*lead, rows, depth), dtype="float32")
    b = relay.var("b", shape=(*lead, columns, depth), dtype="float32")
    c = relay.var("c", shape=(columns,), dtype="float32")
    product = relay.nn.batch_matmul(a, b) if batch else relay.nn.dense(a, b)
    mod = relay.IRModule.from_expr(relay.Function([a, b, c], relay.nn.relu(relay.add(product, c))))
    module, report = compile_with_report(mod, cache=False)
    assert "generic" not in {row["sketch"] for row in report.rows}
    if rows <= 6 and depth > 32 and columns > 1:
        assert "dots" in {row["sketch"] for row in report.rows}
    rng = np.random.default_rng(rows)
    x, w = (rng.standard_normal((*lead, n, depth)).astype(np.float32) for n in (rows, columns))
    v = rng.standard_normal(columns).astype(np.float32)
    (got,) = module.run({"a": x, "b": w, "c": v}).values()
    wide = w.astype(np.float64).swapaxes(-1, -2)
    want = np.maximum(x.astype(np.float64) @ wide + v, 0)
    bound = (depth + 2) * U * (np.abs(x).astype(np.float64) @ np.abs(wide) + np.abs(v))
    assert (np.abs(got - want) <= bound).all()


def test_rows_of_an_open_depth() -> None:
    a, b = (relay.var(n, shape=(r, relay.Any()), dtype="float32") for n, r in (("a", 2), ("b", 20)))
    module, _ = compile_with_report(relay.IRModule.from_expr(relay.Function([a, b], relay.nn.dense(a, b))), cache=False)
    rng = np.random.default_rng(0)
    for depth in (1, 15, 64, 200):
        x, w = (rng.standard_normal((n, depth)).astype(np.float32) for n in (2, 20))
        (got,) = module.run({"a": x, "b": w}).values()
        bound = (depth + 1) * U * (np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64).T)
        assert (np.abs(got - x.astype(np.float64) @ w.astype(np.float64).T) <= bound).all()


@pytest.mark.parametrize(
    ("size", "taps", "want"),
    [(1, 1, ["nn.conv2d"]), (4, 1, ["transpose", "nn.conv2d"]), (3, 3, ["transpose", "nn.conv2d"])],
)
def test_weights_of_convolutions(size: int, taps: int, want: list[str]) -> None:
    def body(x: relay.Expr, w: relay.Expr) -> relay.Expr:
        return relay.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OIHW", channels=24, kernel_size=(taps, taps))

    assert _names(_turned(body, (1, size, size, 16), (24, 16, taps, taps))) == want
    x, w = (
        relay.var(n, shape=s, dtype="float32") for n, s in (("x", (1, 16, size, size)), ("w", (24, 16, taps, taps)))
    )
    mod = relay.IRModule.from_expr(relay.Function([x, w], relay.nn.conv2d(x, w, channels=24, kernel_size=(taps, taps))))
    module, _ = compile_with_report(mod, cache=False)
    rng = np.random.default_rng(size)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((1, 16, size, size), (24, 16, taps, taps)))
    (got,) = module.run({"x": a, "w": b}).values()
    windows = np.lib.stride_tricks.sliding_window_view(a.astype(np.float64), (taps, taps), axis=(2, 3))
    want_values = np.einsum("nchwij,ocij->nohw", windows, b.astype(np.float64))
    bound = (16 * taps * taps + 1) * U * np.einsum("nchwij,ocij->nohw", np.abs(windows), np.abs(b).astype(np.float64))
    assert (np.abs(got - want_values) <= bound).all()
