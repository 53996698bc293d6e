"""What all passes for GPUs know: thread axes, kernels in a host body, intrinsics of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.expr import Buffer, BufferLoad, Call, StringImm
from warpbeam.tir.stmt import Allocate, BufferStore, Evaluate, For, SeqStmt, Stmt

BLOCK_TAGS = ("blockIdx.x", "blockIdx.y", "blockIdx.z")
THREAD_TAGS = ("threadIdx.x", "threadIdx.y", "threadIdx.z")
TAGS = (*BLOCK_TAGS, *THREAD_TAGS)
VIRTUAL = ("vthread", "cthread")


def is_shared(scope: str) -> bool:
    """Whether all threads of a block see memory of this scope, and only they."""
    return scope in ("shared", "shared.dyn")


def is_private(scope: str) -> bool:
    """Whether each thread has its own memory of this scope."""
    return scope in ("local", "register") or scope.startswith("wmma.")


def is_thread(s: Any) -> bool:
    """Whether a statement is a loop over a hardware axis."""
    return isinstance(s, For) and s.kind == "thread_binding" and s.thread in TAGS


def is_virtual(s: Any) -> bool:
    """Whether a statement is a loop over virtual threads ("vthread", "vthread.x", "cthread")."""
    return isinstance(s, For) and s.kind == "thread_binding" and s.thread.split(".")[0] in VIRTUAL


def is_block_axis(tag: str) -> bool:
    return tag.startswith("blockIdx")


def has_thread(s: Stmt) -> bool:
    """Whether a hardware axis is bound at or below a statement."""
    stack: list[Any] = [s]
    while stack:
        n = stack.pop()
        if is_thread(n):
            return True
        stack.extend(kids(n))
    return False


def nest_of(s: Any) -> tuple[list[For], list[Allocate], Stmt]:
    """The hardware loops and allocations at the head of a kernel, and the body that every thread runs."""
    loops: list[For] = []
    allocs: list[Allocate] = []
    while is_thread(s) or isinstance(s, Allocate):
        (loops if isinstance(s, For) else allocs).append(s)
        s = s.body
    return loops, allocs, s


def map_kernels(s: Stmt, change: Callable[[For], Stmt]) -> Stmt:
    """The host statement with each kernel (outermost hardware loop) replaced."""
    if is_thread(s):
        return change(s)  # type: ignore[arg-type]
    below = kids(s)
    if not below:
        return s
    new: list[Any] = [map_kernels(c, change) for c in below]
    if all(a is b for a, b in zip(new, below, strict=True)):
        return s
    return with_kids(s, new) or SeqStmt(())


def kernels(s: Stmt) -> Iterator[For]:
    """The outermost hardware loops, in program order."""
    if is_thread(s):
        assert isinstance(s, For)
        yield s
    else:
        for c in kids(s):
            yield from kernels(c)


def buffers_in(s: Stmt) -> dict[Buffer, None]:
    """Buffers loaded or stored at or below a statement, in order."""
    return dict.fromkeys(n.buffer for n in post_order(s) if isinstance(n, BufferLoad | BufferStore))


def sync(scope: str = "shared") -> Stmt:
    """A barrier of all threads of a block."""
    return Evaluate(Call("int32", "storage_sync", (StringImm(scope),)))


def is_sync(s: Any) -> bool:
    return isinstance(s, Evaluate) and isinstance(s.value, Call) and s.value.op == "storage_sync"
