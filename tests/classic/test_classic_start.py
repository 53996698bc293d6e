"""First steps: tensors of any size and dtype, what they print, building, calling, saving, and the errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classic_run import check, naive, numbers

import warpbeam as tvm
from warpbeam import te


def saxpy(n: Any, dtype: str = "float32") -> tuple[Any, Any, Any]:
    x, y = te.placeholder((n,), dtype, name="x"), te.placeholder((n,), dtype, name="y")
    return x, y, te.compute(x.shape, lambda i: x[i] + x[i] + y[i], name="z")


def test_what_a_program_shows() -> None:
    x, y, z = saxpy(10)
    assert isinstance(x, te.Tensor) and isinstance(x.op, te.PlaceholderOp) and isinstance(z.op, te.ComputeOp)
    assert (x.dtype, x.shape, x.ndim, z.name, z.value_index) == ("float32", (10,), 1, "z", 0)
    assert x.shape[0].value == 10 and z.op.axis[0].dom.extent == 10 and z.op.axis[0].var.name == "i"
    assert repr(z) == "Tensor(shape=[10], op.name=z)" and repr(z.op.body[0]) == "x[i] + x[i] + y[i]"
    assert repr(z.op.axis[0]) == "iter_var(i, range(min=0, ext=10), spatial)"
    assert z.op.input_tensors == [x, y] and z.op.output(0) == z and z.same_as(z.op.output(0)) and not x.same_as(y)
    s = te.create_schedule(z.op)
    assert repr(s[z]) == "stage(z)" and len(s.stages) == 3 and s.outputs == [z.op] and s.stage_map[z.op] is s[z]
    text = str(tvm.lower(s, [x, y, z], simple_mode=True))
    assert text.splitlines()[1:] == ["    for i in range(10):", "        z[i] = x[i] + x[i] + y[i]"]
    mod = tvm.lower(s, [x, y, z], name="f")
    assert [g.name for g in mod.get_global_vars()] == ["f"] and mod["f"].attrs["global_symbol"] == "f"
    assert [mod["f"].buffer_map[p].name for p in mod["f"].params] == ["x", "y", "z"] and mod.astext() == mod.script()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int16", "int32", "int64", "uint8", "float", "int"])
def test_dtypes(dtype: str) -> None:
    x, y, z = saxpy(9, dtype)
    a, b = numbers(9, dtype=x.dtype), numbers(9, dtype=x.dtype, seed=1)
    naive([z], [x, y, z], [a, b], [a + a + b])


def test_conversion() -> None:
    x = te.placeholder((4,), name="x")
    b = np.array([1.5, -2.5, 3.9, 0.0], np.float32)
    for to in ("int8", "float16", "float64"):
        y = te.compute((4,), lambda i, to=to: x[i].astype(to))
        naive([y], [x, y], [b], [b.astype(to)])
    whole = te.placeholder((4,), "int32", name="w")
    y = te.compute((4,), lambda i: whole[i] * 2.5)
    assert y.dtype == "float32" and te.compute((4,), lambda i: whole[i] + 1).dtype == "int32"
    naive([y], [whole, y], [numbers(4, dtype="int32")], [numbers(4) * np.float32(2.5)])


def test_one_program_for_all_sizes() -> None:
    n = te.var(name="n")
    x, y, z = saxpy(n)
    mod = tvm.build(te.create_schedule(z.op), [x, y, z])
    for count in (1, 7, 1000):
        a, out = numbers(count), tvm.nd.empty((count,))
        mod(tvm.nd.array(a), tvm.nd.array(a), out)
        assert np.array_equal(out.asnumpy(), 3 * a)
    with pytest.raises(tvm.TVMError, match="unsatisfied constraint"):
        mod(numbers(3), numbers(4), np.zeros(3, np.float32))


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_any_rank(rank: int) -> None:
    a = te.placeholder([te.var(f"d{k}") for k in range(rank)], name="A")
    b = te.compute(a.shape, lambda *i: a(*i) * 2, name="B")
    x = numbers(*[3, 4, 5][:rank])
    naive([b], [a, b], [x], [x * 2])


def test_sizes_of_two_dtypes() -> None:
    n, m = te.var("n", dtype="int32"), te.size_var("m", "int64")
    a = te.placeholder((n, m), name="A")
    flat = te.compute((n * m,), lambda i: a[i // m, i % m], name="flat")
    x = numbers(3, 5)
    naive([flat], [a, flat], [x], [x.ravel()])
    s = te.create_schedule(flat.op)
    s[flat].split(flat.op.axis[0], factor=4)
    check(s, [a, flat], [x], [x.ravel()])
    assert re.search(r"in range\(.*n.* // 4\)", str(tvm.lower(s, [a, flat], simple_mode=True)))  # not of all int32


def test_numbers_as_arguments() -> None:
    n, scale, shift = te.var("n"), te.var("scale", dtype="float32"), te.var("shift", "int32")
    a = te.placeholder((n,), name="A")
    b = te.compute((n,), lambda i: a[i] * scale + shift, name="B")
    s = te.create_schedule(b.op)
    mod = tvm.build(s, [a, b, scale, shift])
    x, out = numbers(6), tvm.nd.empty((6,))
    for pair in ((2.5, 3), (np.float32(2.5), np.int32(3)), (2, 3)):
        mod(tvm.nd.array(x), out, *pair)
        assert np.array_equal(out.numpy(), x * np.float32(pair[0]) + 3)


def test_calls_that_do_not_fit() -> None:
    x, y, z = saxpy(10)
    mod = tvm.build(te.create_schedule(z.op), [x, y, z])
    good = np.zeros(10, np.float32)
    for args, words in (
        ((good, good), "num_args should be 3"),
        ((good, good, np.zeros(10)), "expected to be float32"),
        ((good, good, np.zeros(11, np.float32)), r"shape\[0\] == 10"),
        ((good, good, np.zeros((10, 1), np.float32)), "ndim is expected to equal 1"),
        ((good, 3, good), "int is not an array"),
    ):
        with pytest.raises(tvm.TVMError, match=words):
            mod(*args)


def test_errors_of_the_language() -> None:
    a = te.placeholder((4, 4), name="A")
    s = te.create_schedule(te.compute((4, 4), lambda i, j: a[i, j]).op)
    k = te.reduce_axis((0, 4), "k")
    for call, words in (
        (lambda: te.compute((4, 4), lambda i, j: a[i, j] if i > j else 0), "no truth value"),
        (lambda: te.compute((4, 4), lambda i, j: a[i, j] if (i > 1 and j > 1) else 0), "and / or / not"),
        (lambda: te.compute((4,), lambda i, j: a[i, j]), "takes 2 indices"),
        (lambda: a[0, 1, 2], "has 2 dimensions"),
        (lambda: te.compute((4,), lambda i: te.sum(a[i, k], axis=k) + 1), "top level"),
        (lambda: a(0, 1, 2), "has 2 dimensions"),
        (lambda: s[a + 1], "Cannot find the operation"),
        (lambda: s["A"], "Expect schedule key to be Tensor or Operation"),
        (lambda: tvm.build(s), "args must be given for build from schedule"),
        (lambda: tvm.build(s, [a], target="no-such-machine"), "unknown target"),
        (lambda: te.create_schedule("A"), "Expect operation"),
        (lambda: list(a), "cannot be iterated"),
        (lambda: te.thread_axis(), "tag"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert isinstance(caught.value, tvm.TVMError)


def test_saved_modules(tmp_path: Path) -> None:
    x, y, z = saxpy(te.var("n"))
    mod = tvm.build(te.create_schedule(z.op), [x, y, z], "llvm", name="saxpy")
    a = tvm.nd.array(numbers(5))
    for file in ("m.tar", "m.so"):
        mod.export_library(str(tmp_path / file))
        loaded = tvm.runtime.load_module(str(tmp_path / file))
        out = tvm.nd.array(np.zeros(5, np.float32))
        loaded["saxpy"](a, a, out)
        assert np.array_equal(out.asnumpy(), 3 * a.asnumpy()) and loaded.entry_name
    mod.save(str(tmp_path / "m.o"))
    tvm.contrib.cc.create_shared(str(tmp_path / "linked.so"), [str(tmp_path / "m.o")])
    tvm.runtime.load_module(str(tmp_path / "linked.so"))(a, a, out)
    for fmt in ("ll", "asm"):
        assert "saxpy" in mod.get_source(fmt)
    assert "float" in tvm.build(te.create_schedule(z.op), [x, y, z], "c").get_source()


def test_several_functions() -> None:
    x, y, z = saxpy(6)
    s = te.create_schedule(z.op)
    one = tvm.lower(s, [x, y, z], name="one")
    one.update(tvm.lower(s, [x, y, z], name="two"))
    mod = tvm.build({"llvm": one})
    a = numbers(6)
    for name in ("one", "two"):
        out = np.zeros(6, np.float32)
        mod[name](a, a, out)
        mod.get_function(name)(a, a, out)
        assert np.array_equal(out, 3 * a)


def test_timing() -> None:
    x, y, z = saxpy(64)
    mod = tvm.build(te.create_schedule(z.op), [x, y, z], "llvm -mcpu=core-avx2" if tvm_has_avx2() else "llvm")
    arrays = [tvm.nd.array(numbers(64), ctx=tvm.context("llvm", 0)) for _ in range(3)]
    for timer in (mod.time_evaluator(mod.entry_name, ctx=tvm.cpu(0), number=3),
                  mod.time_evaluator("default_function", tvm.cpu(), number=2, repeat=4)):  # fmt: skip
        cost = timer(*arrays)
        assert 0 < cost.min <= cost.median <= cost.max and cost.mean > 0 and len(cost.results) in (1, 4)


def tvm_has_avx2() -> bool:
    return "avx2" in tvm.target.detect().features


def test_targets() -> None:
    x, y, z = saxpy(8)
    s = te.create_schedule(z.op)
    assert tvm.target.Target.current(allow_none=True) is None
    with tvm.target.create("llvm"):
        assert tvm.target.Target.current(allow_none=False).kind.name == "llvm"
        check(s, [x, y, z], [numbers(8), numbers(8)], [3 * numbers(8)])
    with tvm.target.cuda():
        assert tvm.target.Target.current().max_num_threads == 1024
    assert tvm.target.Target("cuda", host="llvm").host


def test_parameters_as_bytes() -> None:
    given = {"w": tvm.nd.array(numbers(2, 3)), "b": tvm.nd.array(np.array([True, False])), "s": tvm.nd.array(1.5)}
    data = tvm.relay.save_param_dict(given)
    found = tvm.relay.load_param_dict(bytes(data))
    for name, array in given.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name].numpy(), array.numpy())
    for bad in (b"", bytes(data)[:-3], b"x" * 40, bytes(data[:16]) + b"\xff" * 60):
        with pytest.raises(tvm.TVMError, match="list of parameters"):
            tvm.relay.load_param_dict(bad)
