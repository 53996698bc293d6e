"""Long reductions to few results are cut into parts for all cores, the same ones for any number of them."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import close

import warpbeam
from warpbeam import relay, topi
from warpbeam.sketch import parted
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.interp import run
from warpbeam.tir.transform import lower

NATIVE = get("native").replace(cores=2)


def _mean_of_squares(x: te.Tensor) -> te.Tensor:
    total = topi.sum(topi.multiply(x, x), axis=(0,))
    return te.compute(total.shape, lambda *i: total[i] * (1.0 / int(x.shape[0])), name="mean")


CASES = [
    ((4096,), lambda x: topi.sum(x, axis=(0,)), lambda x: x.sum(0)),
    ((4099,), lambda x: topi.sum(x, axis=(0,)), lambda x: x.sum(0)),
    ((3, 2003), lambda x: topi.max(x, axis=(1,)), lambda x: x.max(1)),
    ((3, 2048), lambda x: topi.min(x, axis=(1,), keepdims=True), lambda x: x.min(1, keepdims=True)),
    ((211, 33), lambda x: topi.sum(x, axis=(0,)), lambda x: x.sum(0)),
    ((256, 16), lambda x: topi.exp(topi.max(x, axis=(0,))), lambda x: np.exp(x.max(0))),
    ((2, 200, 24), lambda x: topi.sum(x, axis=(1,)), lambda x: x.sum(1)),
    ((24, 20, 2, 20), lambda x: topi.sum(x, axis=(0, 1)), lambda x: x.sum((0, 1))),
    ((223, 20), _mean_of_squares, lambda x: (x * x).mean(0)),
    ((4099,), _mean_of_squares, lambda x: (x * x).mean(0)),
]


def _run(func, data: np.ndarray, got: np.ndarray) -> None:
    """With room for the parts, where the function asks for it."""
    room = [np.zeros([int(d) for d in p.shape], p.dtype) for p in func.params[2:]]
    run(func, *(a.reshape([int(d) for d in p.shape]) for a, p in zip((data, got, *room), func.params, strict=True)))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts short enough for the interpreter."""
    monkeypatch.setattr(parted, "_ELEMENTS", 256)
    monkeypatch.setattr(parted, "_LONG", 8)
    monkeypatch.setattr(parted, "_NARROW", 64)
    monkeypatch.setattr(parted, "_PLANE", 4096)


@pytest.mark.parametrize("shape,body,value", CASES)
@pytest.mark.usefixtures("short")
def test_equals_numpy(shape, body, value) -> None:
    x = te.placeholder(shape, name="x")
    plan = schedule([x], [body(x)], NATIVE)
    assert plan.sketch == "parted", plan.notes
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = np.asarray(value(data.astype(np.float64)))
    for func in (plan.func, lower(plan.func, NATIVE)):
        got = np.zeros(want.shape, np.float32)
        _run(func, data, got)
        close(got, want, terms=data.size // want.size)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float64", "uint8"])
@pytest.mark.usefixtures("short")
def test_other_types(dtype: str) -> None:
    x = te.placeholder((9, 517), name="x", dtype=dtype)
    plan = schedule([x], [topi.max(x, axis=(1,))], NATIVE)
    assert plan.sketch == "parted"
    data = np.random.default_rng(0).integers(0, 200, (9, 517)).astype(dtype)
    got = np.zeros(9, dtype)
    _run(lower(plan.func, NATIVE), data, got)
    assert np.array_equal(got, data.max(1))


@pytest.mark.usefixtures("short")
def test_the_number_of_cores_changes_nothing() -> None:
    for shape, axis in [((4099,), 0), ((223, 40), 0), ((3, 2003), 1)]:
        x = te.placeholder(shape, name="x")
        out = topi.sum(x, axis=(axis,))
        few, many = (schedule([x], [out], NATIVE.replace(cores=n)) for n in (1, 64))
        assert few.sketch == "parted" and few.decisions == many.decisions
        data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        results = [np.zeros([int(d) for d in out.shape], np.float32) for _ in range(2)]
        for plan, got in zip((few, many), results, strict=True):
            _run(lower(plan.func, NATIVE), data, got)
        assert results[0].tobytes() == results[1].tobytes()


def test_what_stays_whole() -> None:
    """Short reductions, those with rows or columns enough, machines without threads, products of matrices."""

    def sketch(shape, axes, target=NATIVE) -> str:
        x = te.placeholder(shape, name="x")
        return schedule([x], [topi.sum(x, axis=axes)], target).sketch

    assert sketch((1 << 20,), (0,)) == "parted"
    assert sketch((1 << 20,), (0,), NATIVE.replace(threads=False)) != "parted"
    assert sketch((1 << 16,), (0,)) != "parted"
    assert sketch((64, 1 << 14), (1,)) != "parted"
    assert sketch((64, 1 << 17), (0,)) != "parted"
    a, b = te.placeholder((8, 1 << 20), name="a"), te.placeholder((1 << 20, 64), name="b")
    k = te.reduce_axis((0, 1 << 20), name="k")
    out = te.compute((8, 64), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k))
    assert schedule([a, b], [out], NATIVE).sketch != "parted"


@pytest.mark.parametrize("threads", [1, 2])
def test_compiled(threads: int) -> None:
    """Real sizes, with a rest, on one and two threads: the same bits."""
    x = relay.var("x", shape=(70001, 20), dtype="float32")
    both = relay.Tuple([relay.sum(relay.multiply(x, x), axis=0), relay.max(x)])
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([x], both)), cache=False)
    data = np.random.default_rng(1).standard_normal((70001, 20)).astype(np.float32)
    module.num_threads = threads
    squares, most = module.run({"x": data}).values()
    close(squares, (data.astype(np.float64) ** 2).sum(0), terms=70001)
    assert most == data.max()
    module.num_threads = 1
    assert next(iter(module.run({"x": data}).values())).tobytes() == squares.tobytes()


def test_few_columns_of_several_rows_stay_whole() -> None:
    """Tiles take the columns of several rows side by side, where one row's are few; panels take what is not long."""
    whole = [((8, 65536, 2), 1), ((8, 56 * 56, 32), 1), ((8, 56 * 56, 64), 1), ((260, 1024), 0)]
    for shape, axis in [*whole, ((4, 112 * 112, 64), 1), ((512, 1024), 0)]:
        x = te.placeholder(shape, name="x")
        assert (schedule([x], [topi.sum(x, axis=(axis,))], NATIVE).sketch == "parted") == ((shape, axis) not in whole)


def test_no_part_is_short() -> None:
    for rows, columns in [(512, 1024), (784, 480), (1000, 768), (3001, 96), (3136, 144)]:
        x = te.placeholder((rows, columns), name="x")
        plan = schedule([x], [topi.sum(x, axis=(0,))], NATIVE)
        assert plan.sketch == "parted" and rows // plan.decisions["parts"] >= 125, plan.decisions
