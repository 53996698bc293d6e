"""Results too large for the caches are stored past them, wherever they begin, and are those of plain stores."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from cg_native import build, context

from warpbeam import topi
from warpbeam.codegen.llvm import print_kernel
from warpbeam.sketch.select import schedule
from warpbeam.target import Target, get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import Buffer, BufferLoad, Var, call
from warpbeam.tir.stmt import BufferStore, Evaluate, For, PrimFunc, seq
from warpbeam.tir.transform import lower
from warpbeam.tir.transform.bypass_caches import KEY, possible


def small(name: str = "native") -> Target:
    """A machine whose caches make small results large."""
    return replace(get(name), l1=2048, l2=8192, l3=16384, cores=2)


def relu(rows: int, columns: int, target: Target) -> PrimFunc:
    x = te.placeholder((rows, columns), name="x")
    lowered = schedule([x], [topi.nn.relu(x)], target).lowered
    assert lowered is not None
    return lowered


def turned(rows: int, columns: int, target: Target) -> PrimFunc:
    x = te.placeholder((rows, columns), name="x")
    lowered = schedule([x], [topi.transpose(x, (1, 0))], target).lowered
    assert lowered is not None
    return lowered


def test_whole_lines_of_large_results() -> None:
    func = relu(128, 160, small("generic-x86-64-v4"))
    assert func.attrs[KEY] == (1,)
    text = print_kernel(func, small("generic-x86-64-v4"))
    assert "align 64, !nontemporal" in text
    far = text.count("@llvm.x86.sse.sfence()") - 1  # a declaration
    assert far == 2  # a thread's part of the loop, and the function


def test_rows_that_do_not_begin_with_a_line_are_stored_as_ever() -> None:
    """Such a function is there once."""
    func = turned(249, 160, small("generic-x86-64-v4"))
    assert KEY not in func.attrs


@pytest.mark.parametrize("lanes", [1, 8])
def test_parts_of_lines_are_stored_as_ever(lanes: int) -> None:
    n, target = 16384, small("generic-x86-64-v4")
    a, b, i, j = Buffer("a", (n,), "float32"), Buffer("b", (n,), "float32"), Var("i"), Var("j")
    at = i * lanes + j
    body = For(i, 0, n // lanes, "serial", For(j, 0, lanes, "vectorized", BufferStore(b, BufferLoad(a, (at,)), (at,))))
    assert KEY not in lower(PrimFunc("parts", (a, b), body), target).attrs


@pytest.mark.parametrize("target", [replace(small("generic-x86-64-v4"), l3=0), small("generic-x86-64-v3"),
                                    small("generic-aarch64")])  # fmt: skip
def test_machines_without(target: Target) -> None:
    """Without a known cache, with vectors that are no lines, and with another kind of stores."""
    func = relu(128, 160, target)
    assert KEY not in func.attrs
    assert "nontemporal" not in print_kernel(func, target)


def test_what_fits_a_cache_stays_there() -> None:
    assert KEY not in relu(32, 64, small("generic-x86-64-v4")).attrs


def test_what_passes_by_a_cache_one_and_a_half_times_does_not_stay() -> None:
    """When its reader comes, half of it and more is gone."""
    assert KEY not in relu(44, 64, small("generic-x86-64-v4")).attrs
    assert relu(48, 64, small("generic-x86-64-v4")).attrs[KEY] == (1,)


def test_what_is_read_again_stays() -> None:
    """The first result is read by the second loop, and is no result that nobody will miss."""
    n = 16384
    a, b, c = (Buffer(name, (n,), "float32") for name in "abc")
    i, j = Var("i"), Var("j")
    at = i * 16 + j

    def loops(store: BufferStore) -> For:
        return For(i, 0, n // 16, "serial", For(j, 0, 16, "vectorized", store))

    body = seq(
        loops(BufferStore(b, BufferLoad(a, (at,)) * 2.0, (at,))),
        loops(BufferStore(c, BufferLoad(b, (at,)) + 1.0, (at,))),
    )
    assert lower(PrimFunc("twice", (a, b, c), body), small("generic-x86-64-v4")).attrs[KEY] == (2,)


def test_what_is_asked_for_ahead_stays() -> None:
    """Somebody decided that the lines of a result are to be there when it is stored."""
    target, n = small("generic-x86-64-v4"), 16384
    a, b, i, j = Buffer("a", (n,), "float32"), Buffer("b", (n,), "float32"), Var("i"), Var("j")
    store = BufferStore(b, BufferLoad(a, (i * 16 + j,)), (i * 16 + j,))
    ask = Evaluate(call("prefetch", BufferLoad(b, (i * 16,)), dtype="int64"))
    body = For(i, 0, n // 16, "serial", seq(ask, For(j, 0, 16, "vectorized", store)))
    assert KEY not in lower(PrimFunc("f", (a, b), body), target).attrs


@pytest.mark.parametrize("shift", [0, 4, 32])
@pytest.mark.parametrize("rows,columns", [(96, 160), (128, 512), (80, 272), (144, 1030)])
@pytest.mark.parametrize("kernel", [relu, turned])
def test_results_begin_anywhere(kernel, rows, columns, shift):
    target = small()
    func = kernel(rows, columns, target)
    assert (KEY in func.attrs) == possible(target)
    x = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    want = np.maximum(x, 0) if kernel is relu else np.ascontiguousarray(x.T)
    room = np.zeros(x.nbytes + 256, np.uint8)
    begin = 64 + -room.ctypes.data % 64 + shift
    out = room[begin : begin + x.nbytes].view(np.float32).reshape(want.shape)
    build(func, target)(x, out, ctx=context())
    np.testing.assert_array_equal(out, want)
    assert not room[:begin].any()
    assert not room[begin + x.nbytes :].any()


def test_several_results_and_one_that_is_off() -> None:
    """Any result that does not begin with a line lets all of them be stored as ever."""
    target = small()
    a, b, c = (Buffer(name, (8192,), "float32") for name in "abc")
    i, j = Var("i"), Var("j")
    lanes = For(
        j, 0, 16, "vectorized", seq(*(BufferStore(o, BufferLoad(a, (i * 16 + j,)), (i * 16 + j,)) for o in (b, c)))
    )
    func = lower(PrimFunc("both", (a, b, c), For(i, 0, 512, "parallel", lanes)), target)
    run = build(func, target)
    x = np.arange(8192, dtype=np.float32)
    for shifts in [(0, 0), (0, 4), (4, 0), (8, 24)]:
        outs = [_at(shift) for shift in shifts]
        run(x, *outs)
        assert all((o == x).all() for o in outs)


def _at(shift: int) -> np.ndarray:
    room = (ctypes.c_char * (8192 * 4 + 128))()
    begin = -ctypes.addressof(room) % 64 + shift
    return np.frombuffer(room, np.float32, 8192, begin)
