"""Work that threads share, next to what each keeps for itself."""

from __future__ import annotations

import pytest
from test_gpu_te import axis, verify

from warpbeam import target as targets
from warpbeam import te
from warpbeam.ir.rewrite import post_order
from warpbeam.te.schedule import lower
from warpbeam.tir.stmt import Allocate
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.gpu import lower_gpu


def test_shared_work_on_what_all_threads_have_copied() -> None:
    a, b = te.placeholder((4, 6), name="A"), te.placeholder((6, 8), name="B")
    k = te.reduce_axis((0, 6), "k")
    c = te.compute((4, 8), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    d = te.compute((4, 8), lambda i, j: c[i, j] * 2.0, name="D")
    s = te.create_schedule(d.op)
    private = s.cache_read(a, "local", [c])
    bx, tx = s[d].split(s[d].fuse(*d.op.axis), 4)
    tx, _ = s[d].split(tx, nparts=2)
    s[d].bind(bx, axis("blockIdx.x"))
    s[d].bind(tx, axis("threadIdx.x"))
    s[private].compute_at(s[d], tx)
    s[c].compute_at(s[d], tx)
    s[c].set_scope("shared")
    shared, _ = s[c].split(s[c].fuse(*c.op.axis), nparts=2)
    s[c].bind(shared, axis("threadIdx.x"))
    verify(s, [a, b], [d])


def test_private_accumulators_of_a_shared_tile() -> None:
    a, k = te.placeholder((16, 6), name="A"), te.reduce_axis((0, 6), "k")
    c = te.compute((16,), lambda i: te.sum(a[i, k], axis=k), name="C")
    d = te.compute((16,), lambda i: c[i] + c[15 - i], name="D")
    s = te.create_schedule(d.op)
    s[c].set_scope("shared")
    private = s.cache_write(c, "local")
    tx, _ = s[d].split(d.op.axis[0], nparts=4)
    s[d].bind(tx, axis("threadIdx.x"))
    s[c].compute_at(s[d], tx)
    shared, _ = s[c].split(s[c].op.axis[0], nparts=4)
    s[c].bind(shared, axis("threadIdx.x"))
    s[private].compute_at(s[c], shared)
    verify(s, [a], [d])
    _, (kernel,) = lower_gpu(lower(s, [a, d], "main"), targets.get("cuda"))
    assert "A[threadIdx_x * 4 + i_c, k]" in to_text(kernel)  # each thread sums its own rows, not all


@pytest.mark.parametrize("factor", [3, 4])
@pytest.mark.parametrize("n", [8, 7])
def test_sums_in_shared_memory_count_once(n: int, factor: int) -> None:
    a, b = te.placeholder((8, 6), name="A"), te.placeholder((6, n), name="B")
    k = te.reduce_axis((0, 6), "k")
    c = te.compute((8, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = te.create_schedule(c.op)
    tile = s.cache_write(c, "shared")
    load = s.cache_read(a, "shared", [tile])
    tx, _ = s[c].split(c.op.axis[1], nparts=4)
    s[c].bind(c.op.axis[0], axis("blockIdx.x"))
    s[c].bind(tx, axis("threadIdx.x"))
    s[tile].compute_at(s[c], tx)
    ko, ki = s[tile].split(tile.op.reduce_axis[0], factor)
    s[tile].reorder(ko, *tile.op.axis, ki)
    s[load].compute_at(s[tile], ko)
    s[load].bind(s[load].op.axis[1], axis("threadIdx.x"))
    verify(s, [a, b], [c])


def test_shared_memory_of_a_single_block_is_inside_of_the_kernel() -> None:
    a = te.placeholder((16,), name="A")
    b = te.compute((16,), lambda i: a[i] + 1.0, name="B")
    c = te.compute((16,), lambda i: b[i] + b[15 - i], name="C")
    s = te.create_schedule(c.op)
    s[b].set_scope("shared")
    bx, tx = s[c].split(c.op.axis[0], nparts=1)
    s[c].bind(bx, axis("blockIdx.x"))
    s[c].bind(tx, axis("threadIdx.x"))
    s[b].compute_at(s[c], bx)
    s[b].bind(b.op.axis[0], axis("threadIdx.x"))
    verify(s, [a], [c])
    _, (kernel,) = lower_gpu(lower(s, [a, c], "main"), targets.get("cuda"))
    assert [p.name for p in kernel.params] == ["A", "C"]
    assert any(isinstance(n, Allocate) and n.buffer.scope == "shared" for n in post_order(kernel.body))


def test_a_copy_by_threads_that_divides_nothing() -> None:
    a = te.placeholder((7, 3), name="A")
    c = te.compute((7, 3), lambda i, j: a[6 - i, j] * 2.0, name="C")
    s = te.create_schedule(c.op)
    load = s.cache_read(a, "shared", [c])
    tx, _ = s[c].split(c.op.axis[0], nparts=2)
    ty, _ = s[c].split(c.op.axis[1], nparts=2)
    s[c].reorder(tx, ty)
    for loop, tag in ((tx, "threadIdx.x"), (ty, "threadIdx.y")):
        s[c].bind(loop, axis(tag))
    s[load].compute_at(s[c], ty)
    outer, rest = s[load].split(s[load].fuse(*s[load].op.axis), nparts=2)  # 21 elements: 2 x 11, and those 2 x 6
    inner, _ = s[load].split(rest, nparts=2)
    s[load].bind(outer, axis("threadIdx.y"))
    s[load].bind(inner, axis("threadIdx.x"))
    verify(s, [a], [c])
