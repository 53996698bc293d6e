"""Products of few results over long sums are cut into parts, the same for any number of cores."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import close

import warpbeam
from warpbeam import relay
from warpbeam.driver.pipeline import graph_passes
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call
from warpbeam.target import get
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name


def _product(a: relay.Expr, b: relay.Expr) -> relay.Expr:
    return relay.nn.matmul(a, b, transpose_a=True)


def _names(body, *shapes, dtype: str = "float32") -> list[str]:
    given = [relay.var(f"x{k}", shape=s, dtype=dtype) for k, s in enumerate(shapes)]
    mod = passes.SplitProducts()(relay.IRModule.from_expr(relay.Function(given, body(*given))))
    return [op_name(n) for n in post_order(mod["main"].body) if isinstance(n, Call)]


@pytest.mark.parametrize(
    ("steps", "rows", "columns", "split"),
    [
        (8192, 64, 64, True),
        (12 * 683, 40, 50, True),
        (8192, 24, 16, False),
        (8191, 64, 64, False),
        (2048, 128, 128, False),
        (8192, 256, 128, False),
        ("n", 64, 64, False),
    ],
    ids=["parts", "twelve", "small", "prime", "short", "many results", "open"],
)
def test_what_is_cut(steps, rows: int, columns: int, split: bool) -> None:
    k = relay.Any() if steps == "n" else steps
    found = _names(_product, (k, rows), (k, columns))
    assert ("sum" in found and "nn.batch_matmul" in found) == split and ("nn.matmul" in found) != split


def test_other_products_stay() -> None:
    plain = relay.nn.matmul
    assert _names(plain, (64, 8192), (8192, 64)) == ["nn.matmul"]
    assert "sum" not in _names(lambda a, b: plain(a, b, transpose_a=True, transpose_b=True), (8192, 64), (64, 8192))
    assert "sum" not in _names(_product, (8192, 64), (8192, 64), dtype="bfloat16")
    assert "sum" not in _names(_product, (2, 8192, 64), (2, 8192, 64))


@pytest.mark.parametrize(("steps", "rows", "columns"), [(16384, 64, 64), (6830 * 2, 40, 33), (50176, 7, 100)])
@pytest.mark.parametrize("turned", [False, True])
def test_values(steps: int, rows: int, columns: int, turned: bool) -> None:
    """With what follows it, on one and two threads: the same bits."""
    a, b = relay.var("a", shape=(steps, rows)), relay.var("b", shape=(steps, columns))
    w = relay.var("w", shape=(rows, columns))
    product = relay.nn.matmul(relay.transpose(a), b) if turned else _product(a, b)
    step = relay.subtract(w, relay.multiply(product, relay.const(np.float32(0.01))))
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([a, b, w], step)), cache=False)
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal(s).astype(np.float32) for s in ((steps, rows), (steps, columns), (rows, columns)))
    results = []
    for threads in (1, 2):
        module.num_threads = threads
        results.append(next(iter(module.run({"a": x, "b": y, "w": z}).values())).copy())
    close(results[0], z - 0.01 * (x.astype(np.float64).T @ y.astype(np.float64)), terms=steps)
    assert results[0].tobytes() == results[1].tobytes()


def test_other_devices_keep_them_whole() -> None:
    """Which passes a target has: parts are for the cores of processors with threads."""
    names = {t: {p.info.name for p in graph_passes(get(t))} for t in ("generic-x86-64-v4", "cuda", "wasm32")}
    assert [t for t, found in names.items() if "SplitProducts" in found] == ["generic-x86-64-v4"]
