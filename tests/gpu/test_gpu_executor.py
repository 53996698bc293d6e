"""The executor finds what a GPU would get wrong: a test per kind of error, and programs that only look wrong."""

from __future__ import annotations

from typing import Any

import gpu_programs as programs
import numpy as np
import pytest
from gpu_run import CUDA

from warpbeam.tir import expr as E
from warpbeam.tir import interp_gpu
from warpbeam.tir.expr import Buffer, Call, Var
from warpbeam.tir.interp_gpu import GpuError, RaceError, UninitializedError
from warpbeam.tir.interp_memory import OutOfBoundsError
from warpbeam.tir.stmt import (
    Allocate,
    AssertStmt,
    BufferStore,
    For,
    IfThenElse,
    LetStmt,
    PrimFunc,
    Stmt,
    While,
    seq,
)
from warpbeam.tir.transform.gpu import lower_gpu
from warpbeam.tir.transform.gpu.common import is_sync, sync
from warpbeam.tir.transform.mutate import map_leaves

A, B = Buffer("A", (64,), "float32"), Buffer("B", (64,), "float32")
S, L = Buffer("S", (64,), "float32", "shared"), Buffer("L", (2,), "float32", "local")
BX, TX = Var("bx"), Var("tx")


def kernel(body: Stmt, grid: int = 1, block: int = 64) -> PrimFunc:
    inner = For(TX, 0, block, "thread_binding", Allocate(L, body), {}, "threadIdx.x")
    return PrimFunc("k", (A, B), For(BX, 0, grid, "thread_binding", Allocate(S, inner), {}, "blockIdx.x"))


def run(body: Stmt, grid: int = 1, block: int = 64) -> np.ndarray[Any, Any]:
    a, b = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    memory = [interp_gpu.Memory.of_array(a, A), interp_gpu.Memory.of_array(b, B)]
    with np.errstate(all="ignore"):
        interp_gpu.run_kernel(kernel(body, grid, block), [grid, 1, 1], [block, 1, 1], memory)
    return memory[1].flat  # type: ignore[no-any-return]


fill = BufferStore(S, A[TX], (TX,))
mirror = BufferStore(B, S[63 - TX], (TX,))


def test_a_barrier_orders_threads() -> None:
    assert run(seq(fill, sync(), mirror)).tolist() == list(range(63, -1, -1))


def test_reading_what_another_thread_writes_is_a_race() -> None:
    with pytest.raises(
        RaceError, match=r"thread \(0, 0, 0\) of block \(0, 0, 0\) reads S\[63\], which thread \(63, 0, 0\)"
    ):
        run(seq(fill, mirror))


def test_writing_what_another_thread_reads_is_a_race() -> None:
    with pytest.raises(RaceError, match=r"writes S\[\d+\], which .* read"):
        run(seq(fill, sync(), mirror, BufferStore(S, 0.0, (TX,))))


def test_a_barrier_is_needed_in_every_iteration() -> None:
    k = Var("k")
    body = seq(fill, sync(), mirror)
    with pytest.raises(RaceError, match="read"):
        run(For(k, 0, 2, "serial", body))
    run(For(k, 0, 2, "serial", seq(body, sync())))


def test_two_values_in_one_element_are_a_race_and_one_value_is_none() -> None:
    with pytest.raises(RaceError, match=r"writes S\[0\], which .* wrote"):
        run(BufferStore(S, A[TX], (0,)))
    run(BufferStore(S, A[3], (0,)))


def test_blocks_are_not_ordered() -> None:
    with pytest.raises(RaceError, match=r"block \(\d, 0, 0\) writes B\[0\].*block \(\d, 0, 0\) wrote"):
        run(BufferStore(B, A[TX] + E.cast("float32", BX), (TX,)), grid=2)
    with pytest.raises(RaceError):
        run(seq(BufferStore(B, A[TX], (TX,)), sync(), BufferStore(B, B[63 - TX] + 1.0, (TX,))), grid=2)


def test_memory_has_no_content_at_first() -> None:
    with pytest.raises(UninitializedError, match=r"S\[63\] is read by thread \(0, 0, 0\)"):
        run(mirror)
    with pytest.raises(UninitializedError, match=r"L\[1\] is read"):
        run(seq(BufferStore(L, 0.0, (0,)), BufferStore(B, L[1], (TX,))))


def test_indices_stay_inside() -> None:
    with pytest.raises(
        OutOfBoundsError, match=r"buffer A of shape \(64,\) was accessed at \(64,\) by thread \(63, 0, 0\)"
    ):
        run(BufferStore(B, A[TX + 1], (TX,)))
    run(IfThenElse(TX < 63, BufferStore(B, A[TX + 1], (TX,))))


def test_all_threads_reach_a_barrier() -> None:
    with pytest.raises(GpuError, match=r"\(0, 0, 0\) of .* waits at a barrier that thread \(32, 0, 0\)"):
        run(IfThenElse(TX < 32, seq(fill, sync())))
    k = Var("k")
    with pytest.raises(GpuError, match="waits at a barrier"):
        run(For(k, 0, TX + 1, "serial", sync()))
    run(IfThenElse(BX < 1, seq(fill, sync(), mirror)), grid=2)  # blocks may part


def test_shuffles_need_their_lanes() -> None:
    down = Call("float32", "warp_shuffle_down", (A[TX], 1, 32))
    x = Var("x", "float32")
    got = run(LetStmt(x, down, BufferStore(B, x, (TX,))))
    assert got[:3].tolist() == [1, 2, 3] and got[31] == 31 and got[32] == 33
    with pytest.raises(GpuError, match="takes a value from lane 16 of its warp"):
        run(IfThenElse(TX < 16, LetStmt(x, down, BufferStore(B, x, (TX,)))))


@pytest.mark.parametrize(("op", "by", "want"), [
    ("warp_shuffle", 5, [5, 5]), ("warp_shuffle_up", 2, [0, 1, 0, 1]), ("warp_shuffle_xor", 1, [1, 0, 3, 2]),
])  # fmt: skip
def test_shuffles(op: str, by: int, want: list[int]) -> None:
    x = Var("x", "float32")
    got = run(LetStmt(x, Call("float32", op, (A[TX], by, 8)), BufferStore(B, x, (TX,))))
    assert got[: len(want)].tolist() == want


def test_loops_and_branches_that_differ_between_threads() -> None:
    k = Var("k")
    body = seq(
        BufferStore(L, 0.0, (0,)),
        For(k, 0, TX, "serial", BufferStore(L, L[0] + 1.0, (0,))),
        While(L[0] < 3.0, BufferStore(L, L[0] + 1.0, (0,))),
        BufferStore(B, E.if_then_else(TX < 63, A[TX + 1] * 0.0, 9.0) + L[0], (TX,)),
    )
    got = run(body)
    assert got[:6].tolist() == [3, 3, 3, 3, 4, 5] and got[63] == 72


def test_assertions_name_the_thread() -> None:
    with pytest.raises(GpuError, match="not too far"):
        run(AssertStmt(TX < 60, "not too far"))


def test_launches_fit_the_kernel() -> None:
    with pytest.raises(GpuError, match="has 64 in the kernel, and 32 in the launch"):
        interp_gpu.run_kernel(kernel(fill), [1, 1, 1], [32, 1, 1], [
            interp_gpu.Memory.of_array(np.zeros(64, np.float32), b) for b in (A, B)])  # fmt: skip


@pytest.mark.parametrize("make", [
    lambda: programs.matmul(32, 32, 16), lambda: programs.row_sum(4, 64, 64), lambda: programs.softmax(3, 64, 64),
    lambda: programs.convolution(8, 2, 2), lambda: programs.transpose(16, 16),
])  # fmt: skip
def test_every_barrier_of_a_program_is_needed(make: Any) -> None:
    """Barriers are placed minimally: without any one of them, the executor finds a race or an unset element."""
    func, plain = make()
    host, devices = lower_gpu(func, CUDA)
    body = devices[0].body
    total = _count(body)
    assert total
    for k in range(total):
        broken = devices[0].replace(body=_without(body, k))
        args = [
            np.zeros(b.shape, b.dtype) + np.arange(np.prod(b.shape), dtype=b.dtype).reshape(b.shape)
            for b in plain.buffers
        ]
        with pytest.raises((RaceError, UninitializedError)):
            interp_gpu.run(host, [broken], *args)


def _count(body: Stmt) -> int:
    found = 0

    def look(s: Stmt) -> Stmt:
        nonlocal found
        found += is_sync(s)
        return s

    map_leaves(body, look)
    return found


def _without(body: Stmt, which: int) -> Stmt:
    seen = -1

    def change(s: Stmt) -> Stmt | None:
        nonlocal seen
        seen += is_sync(s)
        return None if is_sync(s) and seen == which else s

    return map_leaves(body, change)
