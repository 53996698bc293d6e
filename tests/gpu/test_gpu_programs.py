"""Whole programs: the interpreter, the executor of the GPU's model, CUDA text and OpenCL text agree."""

from __future__ import annotations

from typing import Any

import gpu_programs as programs
import pytest
from gpu_run import check

from warpbeam.ir.rewrite import post_order
from warpbeam.te import tensor as te
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.expr import Call
from warpbeam.tir.stmt import Allocate, Evaluate, LetStmt, PrimFunc


def calls(devices: list[PrimFunc], op: str) -> int:
    """Statements with that call; equal statements are one node, and count at each place."""

    def count(s: Any) -> int:
        if isinstance(s, Evaluate | LetStmt) and isinstance(s.value, Call) and s.value.op == op:
            return 1 + sum(count(c) for c in kids(s))
        return sum(count(c) for c in kids(s))

    return sum(count(d.body) for d in devices)


def buffers(devices: list[PrimFunc]) -> dict[str, Any]:
    return {n.buffer.name: n.buffer for d in devices for n in post_order(d.body) if isinstance(n, Allocate)}


@pytest.mark.parametrize("n", [128, 100, 5])
def test_vector_add(n: int) -> None:
    check(programs.vector_add(n))


@pytest.mark.parametrize("dtype", ["float16", "int8", "int32", "float64"])
def test_vector_add_of_other_types(dtype: str) -> None:
    check(programs.vector_add(70, dtype=dtype))


def test_vector_add_of_four_floats_at_once() -> None:
    check(programs.vector_add(1024, vector=4))


def test_vector_add_of_a_symbolic_size() -> None:
    n = te.size_var("n")
    check(programs.vector_add(n), sizes={"n": 131})


@pytest.mark.parametrize(("shape", "options"), [
    ((32, 32, 16), {}), ((36, 40, 20), {}), ((64, 64, 16), {"virtual": True}), ((32, 32, 32), {"vector": 2}),
    ((50, 34, 9), {"virtual": True}),
])  # fmt: skip
def test_matmul(shape: tuple[int, int, int], options: dict[str, Any]) -> None:
    devices = check(programs.matmul(*shape, **options))
    assert calls(devices, "storage_sync") == 2
    found = buffers(devices)
    assert found["A_shared"].shape == (16, 8) and found["B_shared"].shape == (8, 16)


@pytest.mark.parametrize(("m", "threads", "rows"), [(128, 32, 1), (100, 24, 1), (128, 8, 4), (70, 64, 1), (40, 16, 3)])
def test_row_sum(m: int, threads: int, rows: int) -> None:
    devices = check(programs.row_sum(9, m, threads, rows))
    shuffles = threads in (8, 32)
    assert bool(calls(devices, "warp_shuffle_down")) is shuffles
    assert bool(calls(devices, "storage_sync")) is not shuffles


@pytest.mark.parametrize("threads", [8, 24])
def test_row_argmax(threads: int) -> None:
    check(programs.row_argmax(5, 40, threads), outputs=2)


@pytest.mark.parametrize("n", [64, 50])
def test_softmax(n: int) -> None:
    check(programs.softmax(6, n), rtol=1e-5)


def test_convolution() -> None:
    devices = check(programs.convolution(8, 3, 4))
    assert buffers(devices)["P"].scope == "shared" and buffers(devices)["P"].shape == (6, 6)
    check(programs.convolution(7, 2, 3))


def test_transpose() -> None:
    devices = check(programs.transpose(24, 16))
    assert buffers(devices)["A_shared"].shape == (8, 9)
    check(programs.transpose(21, 13))


def test_copies_of_four_floats_at_once() -> None:
    check(programs.matmul(32, 32, 32, per=4, kt=16, vector=4))
