"""What each pass for GPUs makes of a small program, as text; and its errors."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import gpu_programs as programs
import pytest
from gpu_run import CUDA, OPENCL

from warpbeam.codegen import cuda, opencl
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.structural import structural_equal
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import parse, to_text
from warpbeam.tir.transform.gpu import lower_gpu
from warpbeam.tir.transform.gpu.hoist_shared import hoist_shared
from warpbeam.tir.transform.gpu.infer_scopes import infer_scopes
from warpbeam.tir.transform.gpu.serialize_threads import serialize_threads
from warpbeam.tir.transform.gpu.split_host_device import split_host_device
from warpbeam.tir.transform.gpu.thread_sync import thread_sync
from warpbeam.tir.transform.gpu.unify_threads import unify_threads


def read(text: str) -> Any:
    return parse(textwrap.dedent(text).strip() + "\n")


def becomes(run: Callable[..., Any], before: str, after: str) -> None:
    found = run(read(before))
    assert structural_equal(found, read(after)), to_text(found)


def test_unify_threads_shares_inner_loops_out() -> None:
    becomes(unify_threads, """
        def f(A: float32[8, 8], C: float32[8, 8]):
            for bx in thread_binding("blockIdx.x", 8):
                alloc S: float32[8] @shared
                for tx in thread_binding("threadIdx.x", 8):
                    for t in thread_binding("threadIdx.x", 4):
                        S[t] = A[bx, t]
                    C[bx, tx] = S[tx // 2]
        """, """
        def f(A: float32[8, 8], C: float32[8, 8]):
            for bx in thread_binding("blockIdx.x", 8) {"joined": "blockIdx.x"}:
                for tx in thread_binding("threadIdx.x", 8) {"joined": "threadIdx.x"}:
                    alloc S: float32[8] @shared
                    if tx < 4:
                        S[tx] = A[bx, tx]
                    C[bx, tx] = S[tx // 2]
        """)  # fmt: skip


def test_unify_threads_leaves_loops_of_one_thread() -> None:
    becomes(unify_threads, """
        def f(A: float32[8, 8], C: float32[8]):
            for tx in thread_binding("threadIdx.x", 8):
                for t in thread_binding("threadIdx.x", 4):
                    C[tx] = C[tx] + A[tx, t]
        """, """
        def f(A: float32[8, 8], C: float32[8]):
            for tx in thread_binding("threadIdx.x", 8) {"joined": "threadIdx.x"}:
                for t in range(4):
                    C[tx] = C[tx] + A[tx, t]
        """)  # fmt: skip


def test_unify_threads_lets_the_first_thread_do_what_has_no_axis() -> None:
    becomes(unify_threads, """
        def f(A: float32[8, 8], C: float32[8, 8], D: float32[8]):
            for bx in thread_binding("blockIdx.x", 8):
                D[bx] = A[bx, 0]
                for tx in thread_binding("threadIdx.x", 8):
                    C[bx, tx] = A[bx, tx]
        """, """
        def f(A: float32[8, 8], C: float32[8, 8], D: float32[8]):
            for bx in thread_binding("blockIdx.x", 8) {"joined": "blockIdx.x"}:
                for tx in thread_binding("threadIdx.x", 8) {"joined": "threadIdx.x"}:
                    if tx < 1:
                        D[bx] = A[bx, 0]
                    C[bx, tx] = A[bx, tx]
        """)  # fmt: skip


HEAD = """
        def f(A: float32[9, 64], C: float32[64]):
            alloc S: float32[2, 64] @shared
            for tx in thread_binding("threadIdx.x", 64):"""


def synced(before: str, after: str) -> None:
    becomes(thread_sync, HEAD + before, HEAD + after.replace("SYNC", 'eval storage_sync[int32]("shared")'))


def test_barriers_for_reads_and_for_the_next_iteration() -> None:
    synced("""
                for k in range(9):
                    S[0, tx] = A[k, tx]
                    C[tx] = C[tx] + S[0, 63 - tx]
        """, """
                for k in range(9):
                    SYNC
                    S[0, tx] = A[k, tx]
                    SYNC
                    C[tx] = C[tx] + S[0, 63 - tx]
        """)  # fmt: skip


def test_a_barrier_between_stores_of_different_threads_that_nothing_reads() -> None:
    synced("""
                C[tx] = A[0, tx]
                C[63 - tx] = A[1, tx]
        """, """
                C[tx] = A[0, tx]
                SYNC
                C[63 - tx] = A[1, tx]
        """)  # fmt: skip


def test_no_barrier_where_each_thread_meets_itself() -> None:
    text = """
                S[0, tx] = A[0, tx]
                S[0, tx] = S[0, tx] * 2.0
                C[tx] = S[0, tx]
        """
    synced(text, text)


def test_one_barrier_for_a_double_buffer() -> None:
    synced("""
                S[0, tx] = A[0, tx]
                for k in range(8):
                    S[(k + 1) % 2, tx] = A[k + 1, tx]
                    C[tx] = C[tx] + S[k % 2, 63 - tx]
        """, """
                S[0, tx] = A[0, tx]
                for k in range(8):
                    SYNC
                    S[(k + 1) % 2, tx] = A[k + 1, tx]
                    C[tx] = C[tx] + S[k % 2, 63 - tx]
        """)  # fmt: skip


def test_branches_of_some_threads_are_cut_at_barriers() -> None:
    synced("""
                if tx < 32:
                    S[0, tx] = A[0, tx]
                    C[tx] = S[0, 31 - tx]
        """, """
                if tx < 32:
                    S[0, tx] = A[0, tx]
                SYNC
                if tx < 32:
                    C[tx] = S[0, 31 - tx]
        """)  # fmt: skip


def test_a_barrier_in_a_loop_that_threads_leave_at_different_times() -> None:
    with pytest.raises(LowerError, match="divergent control flow"):
        thread_sync(read(HEAD + """
                for k in range(tx):
                    S[0, tx] = A[0, tx]
                    C[tx] = S[0, 63 - tx]
        """))  # fmt: skip


def test_host_and_device() -> None:
    host, devices = split_host_device(read("""
        def f(A: float32[n], B: float32[n], n: size):
            for bx in thread_binding("blockIdx.x", n):
                B[bx] = A[bx]
            for k in range(3):
                for tx in thread_binding("threadIdx.x", 64):
                    if tx < n:
                        B[tx] = B[tx] + 1.0
    """))  # fmt: skip
    launches = [line.strip() for line in to_text(host).splitlines() if "launch" in line]
    assert launches == [
        'eval launch_kernel[int32]("f_kernel", n, 1, 1, 1, 1, 1, 0, A, B, n)',
        'eval launch_kernel[int32]("f_kernel_1", 1, 1, 1, 64, 1, 1, 0, B, n)',
    ]
    assert [d.name for d in devices] == ["f_kernel", "f_kernel_1"]


def test_scopes_follow_the_loops_and_shared_memory_goes_to_the_block() -> None:
    becomes(lambda f: hoist_shared(infer_scopes(f)), """
        def f(A: float32[8, 8], B: float32[8, 8]):
            for bx in thread_binding("blockIdx.x", 8):
                for tx in thread_binding("threadIdx.x", 8):
                    alloc L: float32[1]
                    for k in range(8):
                        alloc S: float32[8] @shared
                        S[tx] = A[bx, tx]
                        L[0] = S[tx]
                        B[bx, tx] = L[0]
        """, """
        def f(A: float32[8, 8], B: float32[8, 8]):
            for bx in thread_binding("blockIdx.x", 8):
                alloc S: float32[8] @shared
                for tx in thread_binding("threadIdx.x", 8):
                    alloc L: float32[1] @local
                    for k in range(8):
                        S[tx] = A[bx, tx]
                        L[0] = S[tx]
                        B[bx, tx] = L[0]
        """)  # fmt: skip


def test_stages_that_are_not_bound_are_refused() -> None:
    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: a[i] + 1.0, name="B")
    with pytest.raises(LowerError, match="Memory verification failed") as error:
        lower_gpu(create_prim_func([a], [b], "main"), CUDA)
    assert "Did you forget to bind?" in str(error.value)


def test_limits_of_a_device() -> None:
    with pytest.raises(LowerError, match="a block has 2048 threads of at most 1024"):
        lower_gpu(programs.vector_add(4096, 2048)[0], CUDA)
    with pytest.raises(LowerError, match="bytes of shared memory of at most 64"):
        lower_gpu(programs.transpose(16, 16)[0], CUDA.replace(shared_bytes=64))
    with pytest.raises(LowerError, match="wider than 16 bytes"):
        lower_gpu(programs.vector_add(1024, 32, 8)[0], CUDA)


def test_a_reduction_over_blocks_is_refused() -> None:
    a, k = te.placeholder((8, 64), name="A"), te.reduce_axis(64, "k")
    b = te.compute((8,), lambda i: te.sum(a[i, k], axis=k), name="B")
    s = Schedule(create_prim_func([a], [b], "main"))
    s.bind(s.loops("B")[1], "threadIdx.x")
    func = parse(to_text(s.func).replace('"threadIdx.x"', '"blockIdx.x"'))
    with pytest.raises(LowerError, match="blocks cannot wait for each other"):
        lower_gpu(func, CUDA)


def test_text_of_cuda() -> None:
    text = cuda.build(programs.row_sum(8, 128, 64)[0], CUDA)[2]
    assert text.startswith('extern "C" __global__ void __launch_bounds__(64) main_kernel(float* __restrict__ A, ')
    for word in ("__shared__ float red_", "__syncthreads();", "(int)blockIdx.x", "(int)threadIdx.x"):
        assert word in text
    assert "float4" in cuda.build(programs.matmul(32, 32, 32, vector=4, tile=16, per=4, kt=16)[0], CUDA)[2]
    half = cuda.build(programs.vector_add(64, dtype="float16")[0], CUDA)[2]
    assert half.startswith("#include <cuda_fp16.h>") and "half* __restrict__ A" in half
    assert "__shfl_down_sync(0xffffffff, " in cuda.build(programs.row_sum(8, 128)[0], CUDA)[2]


def test_text_of_opencl() -> None:
    text = opencl.build(programs.row_sum(8, 128)[0], OPENCL)[2]
    assert text.startswith("__kernel void main_kernel(__global float* restrict A, ")
    for word in ("__local float red_", "barrier(CLK_LOCAL_MEM_FENCE);", "get_group_id(0)", "get_local_id(0)"):
        assert word in text
    wide = opencl.build(programs.vector_add(64, dtype="float64")[0], OPENCL)[2]
    assert wide.startswith("#pragma OPENCL EXTENSION cl_khr_fp64 : enable")


def threads(*lines: str) -> Any:
    body = "".join(f"        {line}\n" for line in lines)
    return parse(f'def f(A: float32[16]):\n    for tx in thread_binding("threadIdx.x", 16):\n{body}')


def test_threads_run_one_after_the_other_between_barriers() -> None:
    sync = 'eval storage_sync[int32]("shared")'
    func = threads("alloc r: float32[1] @local", "r[0] = A[tx]", sync, "A[15 - tx] = r[0]")
    lines = to_text(serialize_threads(func)).splitlines()[1:]
    assert [line.strip() for line in lines] == [
        "alloc r: float32[16, 1]", "for tx_1 in range(16):", "r[tx_1, 0] = A[tx_1]",
        "for tx_2 in range(16):", "A[15 - tx_2] = r[tx_2, 0]",
    ]  # fmt: skip
    with pytest.raises(LowerError, match="a barrier that only some threads of a block may reach"):
        serialize_threads(threads("if tx < 8:", f"    {sync}", "    A[tx] = 1.0"))
    with pytest.raises(LowerError, match="r is private to a thread and passed as a pointer"):
        call = 'eval call_extern[int32]("fill", r)'
        serialize_threads(threads("alloc r: float32[1] @local", call, sync, "A[tx] = r[0]"))
