"""Programs with sizes found at run time: the entry in machine code and C, the stepping executor, storage, outputs."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "codegen"))
sys.path.insert(0, str(Path(__file__).parents[1] / "frontend"))

import cg_gcc
from models import INT64, model

import warpbeam
from warpbeam import op, target
from warpbeam.codegen import c, host
from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.pipeline import optimize
from warpbeam.driver.plan import Planner
from warpbeam.frontend.onnx import import_model
from warpbeam.relay.text import parse, to_text
from warpbeam.runtime import executor
from warpbeam.runtime.abi import DLPACK_TYPES, QUERY_SHAPES, Tensor
from warpbeam.runtime.context import HostContext
from warpbeam.runtime.program import Program, Reserve, SetSymbol, walk

F32 = np.float32
RNG = np.random.default_rng(8)


def chosen() -> Any:
    """The positive elements of x (bounded by its size), and n copies of them (without a bound), doubled."""
    nodes = [
        ("Greater", "x zero", "m"), ("Compress", "x m", "v"), ("Unsqueeze", "v first", "row"),
        ("Expand", "row s", "many"), ("Add", "many row", "y"), ("ReduceSum", "v", "sum", {"keepdims": 0}),
    ]  # fmt: skip
    held = {"zero": np.array(0, F32), "first": np.array([0])}
    ins = [("x", ["n", 8]), ("s", [2], INT64)]
    return model(nodes, ins, [("y", None), ("v", None), ("sum", None)], held)


def expected(x: np.ndarray, n: int) -> list[np.ndarray]:
    v = x[x > 0]
    return [np.broadcast_to(v * 2, (n, v.size)), v, np.sum(v)]


CALLS = [(3, 4), (1, 1), (50, 200), (2, 0), (3, 1000)]


def test_one_artefact_for_all_contents(tmp_path: Path) -> None:
    module = warpbeam.compile(chosen(), cache=False)
    module.save(tmp_path / "m.wb")
    for mod in (module, warpbeam.load(tmp_path / "m.wb")):
        for rows, n in CALLS:
            x = RNG.standard_normal((rows, 8)).astype(F32)
            for given in (x, -np.abs(x)):
                got = mod.run({"x": given, "s": np.array([n, 1])})
                for g, w in zip(got.values(), expected(given, n), strict=True):
                    assert g.shape == w.shape
                    np.testing.assert_allclose(g, w, rtol=1e-5)


def test_results_are_the_callers() -> None:
    module = warpbeam.compile(chosen(), cache=False)
    x = RNG.standard_normal((3, 8)).astype(F32)
    first = module.run({"x": x, "s": np.array([2, 1])})
    kept = {k: v.copy() for k, v in first.items()}
    module.run({"x": -x, "s": np.array([2, 1])})
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value)
    out = {name: np.zeros_like(v) for name, v in first.items()}
    assert module.run({"x": x, "s": np.array([2, 1])}, out)["y"] is out["y"]
    np.testing.assert_array_equal(out["y"], kept["y"])
    with pytest.raises(warpbeam.WarpbeamError, match="expected"):
        module.run({"x": x, "s": np.array([3, 1])}, out)


def test_sizes_are_checked_before_they_are_used() -> None:
    module = warpbeam.compile(chosen(), cache=False)
    x = RNG.standard_normal((3, 8)).astype(F32)
    for bad in (-1, 2_000_000_000, 1 << 62, 900_000_000):
        with pytest.raises(warpbeam.WarpbeamError):
            module.run({"x": x, "s": np.array([bad, bad])})
    assert module.run({"x": x, "s": np.array([2, 1])})["y"].shape[0] == 2


def test_the_stepping_executor_says_the_same() -> None:
    module = warpbeam.compile(chosen(), cache=False)
    program = module.artifact.program()
    program.validate()
    assert any(isinstance(i, Reserve) for i in walk(program.body))
    assert any(isinstance(i, SetSymbol) for i in walk(program.body))
    assert Program.from_json(program.to_json()) == program and "reserve" in str(program)
    machine = executor.Machine(
        module.library, module.host_context(), module.constants_view(), module.params_view(), {}, {}
    )
    for rows, n in CALLS:
        x = RNG.standard_normal((rows, 8)).astype(F32)
        got = executor.execute(program, machine, [x, np.array([n, 1])])
        for g, w in zip(got, expected(x, n), strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-5)


def test_bounded_sizes_need_no_more_than_the_planned_arena() -> None:
    nodes = [("NonZero", "x", "at"), ("Cast", "at", "f", {"to": 1}), ("Exp", "f", "y")]
    program = warpbeam.compile(model(nodes, [("x", ["n", 4])], [("y", None)]), cache=False).artifact.program()
    assert not any(isinstance(i, Reserve) for i in walk(program.body))


# ------------------------------------------------------------------------------------------------------- the entry


def tensor(keep: list[Any], shape: tuple[int, ...], dtype: str, data: np.ndarray | None = None) -> Any:
    code, bits = DLPACK_TYPES[dtype]
    extents = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    found = Tensor(
        None if data is None else data.ctypes.data, 1, 0, len(shape), code, bits, 1, ctypes.addressof(extents)
    )
    keep += [extents, found, data]
    return found


def c_entry() -> Any:
    """The same model in C."""
    tgt = target.get("c")
    found = import_model(chosen())
    kernels = KernelSet(tgt)
    planner = Planner(optimize(found.module, 3, tgt), kernels, found.inputs, found.outputs)
    program = planner.build()
    parts = [host.print_entry(program, tgt, "wb_entry")]
    for kernel in kernels.kernels.values():
        text = c.print_kernel(kernel.func, tgt)
        parts.append(text[text.rindex(f"int32_t {kernel.symbol}(") :])
    library = cg_gcc.compile_shared("\n".join(parts))
    library["wb_entry"].restype = ctypes.c_int32
    return library, planner.constants.blob()


@pytest.mark.parametrize("kind", ["machine code", "c"])
def test_shapes_are_written_by_the_call(kind: str) -> None:
    module = warpbeam.compile(chosen(), cache=False)
    ctx = module.host_context()
    if kind == "c":
        library, constants = c_entry()
        ctx.struct.constants = constants.ctypes.data
        entry = library["wb_entry"]
    else:
        entry = module.library.function("wb_entry")
    keep: list[Any] = []
    for rows, n in CALLS:
        x = RNG.standard_normal((rows, 8)).astype(F32)
        total = np.zeros((), F32)
        args = [tensor(keep, x.shape, "float32", x), tensor(keep, (2,), "int64", np.array([n, 1]))]
        args += [tensor(keep, (0, 0), "float32"), tensor(keep, (0,), "float32"), tensor(keep, (), "float32", total)]
        table = (ctypes.c_void_p * 5)(*map(ctypes.addressof, args))
        assert entry(ctx.pointer, table, 5) == 0, ctx.message()
        want = expected(x, n)
        for k, w in ((2, want[0]), (3, want[1])):
            shape = tuple((ctypes.c_int64 * w.ndim).from_address(args[k].shape))
            assert shape == w.shape
            flat = (ctypes.c_float * max(w.size, 1)).from_address(args[k].data)
            np.testing.assert_allclose(np.array(flat[: w.size]).reshape(shape), w, rtol=1e-5)
        np.testing.assert_allclose(total, want[2], rtol=1e-5)
        ctx.struct.flags = QUERY_SHAPES
        assert entry(ctx.pointer, table, 5) != 0 and "known only after it ran" in ctx.message()
        ctx.struct.flags = 0


def test_a_growing_arena_keeps_what_is_in_it() -> None:
    """Tensors without a bound, each larger than the last, all of them needed at the end."""
    nodes: list[Any] = [("Range", "zero n one", "r0"), ("Exp", "r0", "e0")]
    for k in range(1, 4):
        nodes += [("Concat", f"e{k - 1} e{k - 1}", f"e{k}", {"axis": 0})]
    nodes += [("ReduceSum", f"e{k}", f"s{k}", {"keepdims": 0}) for k in range(4)]
    nodes += [("Sum", "s0 s1 s2 s3", "y")]
    held = {"zero": np.array(0, F32), "one": np.array(0.001, F32)}
    m = model(nodes, [("n", [])], [("y", None), ("e3", None)], held)
    module = warpbeam.compile(m, cache=False)
    for n in (0.5, 20.0, 1.0, 0.0):
        got = module.run({"n": np.array(n, F32)})
        base = np.exp(np.arange(0, np.ceil(np.float64(F32(n)) / np.float64(F32(0.001)))) * np.float64(F32(0.001)))
        np.testing.assert_allclose(got["e3"], np.tile(base, 8), rtol=1e-4)
        np.testing.assert_allclose(got["y"], base.sum() * 15, rtol=1e-3)


def test_what_is_found_in_a_tensor_of_a_found_size() -> None:
    nodes = [
        ("NonZero", "x", "at"), ("Squeeze", "at first", "v"), ("Greater", "v three", "m"), ("Compress", "v m", "w"),
        ("Size", "w", "y"),
    ]  # fmt: skip
    held = {"first": np.array([0]), "three": np.array(3)}
    m = model(nodes, [("x", [10])], [("w", None, INT64), ("y", None, INT64)], held)
    module = warpbeam.compile(m, cache=False)
    for x in (RNG.integers(0, 2, 10).astype(F32), np.zeros(10, F32), np.ones(10, F32)):
        got = module.run({"x": x})
        want = np.flatnonzero(x)
        np.testing.assert_array_equal(got["w"], want[want > 3])
        assert got["y"] == got["w"].size


def test_sizes_found_at_run_time_survive_as_text() -> None:
    found = import_model(chosen())
    text = to_text(found.module)
    assert " counted" in text
    again = parse(text, op.get)
    assert to_text(again) == text
    module = warpbeam.compile(again, cache=False)
    x = RNG.standard_normal((3, 8)).astype(F32)
    for g, w in zip(module.run({"x": x, "s": np.array([4, 1])}).values(), expected(x, 4), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5)


@pytest.mark.parametrize("order", ["x i x", "x i y", "y i x"])
def test_a_kernel_with_its_own_loops_takes_an_operand_twice(order: str) -> None:
    nodes = [("ScatterElements", order, "o", {"reduction": "add"})]
    ins = [("x", [5, 3]), ("i", [5, 3], INT64), ("y", [5, 3])]
    module = warpbeam.compile(model(nodes, ins, [("o", None)], opset=18), cache=False)
    given = {"x": RNG.standard_normal((5, 3)).astype(F32), "y": RNG.standard_normal((5, 3)).astype(F32)}
    given["i"] = RNG.integers(0, 5, (5, 3))
    data, _, more = (given[n] for n in order.split())
    want = data.copy()
    np.add.at(want, (given["i"], np.arange(3)), more)
    np.testing.assert_allclose(module.run(given)["o"], want, rtol=1e-5, atol=1e-6)


def test_an_arena_that_grows_step_by_step_is_seldom_moved() -> None:
    ctx = HostContext(0, 0, 0, 0, 1)
    ctx.reserve(64)
    ctx.arena[:] = np.arange(64)
    moves = 0
    for size in range(128, 64 * 2000, 64):
        before = ctx.arena
        ctx.reserve(size)
        moves += ctx.arena is not before
        assert ctx.arena.size >= size
    assert moves <= 1 + np.ceil(np.log(2000) / np.log(1.5))
    np.testing.assert_array_equal(ctx.arena[:64], np.arange(64))
