"""Questions about programs, for passes and tuners written by hand; public as `warpbeam.tir.analysis`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.stmt import Allocate, Block, For, LetStmt, PrimFunc, Stmt

_FLOPS = (e.Add, e.Sub, e.Mul, e.Div, e.Min, e.Max)


def expr_deep_equal(lhs: e.PrimExpr, rhs: e.PrimExpr) -> bool:
    """Whether two expressions are the same computation on the same variables."""
    return lhs is rhs


def undefined_vars(node: Node, defs: Sequence[e.Var] = ()) -> list[e.Var]:
    """Variables used where nothing binds them and that are not among `defs`, in order of appearance."""
    from warpbeam.tir.stmt import Evaluate
    from warpbeam.tir.text.free import free_binders

    body = node if isinstance(node, Stmt) else Evaluate(node)
    return [b for b in free_binders(PrimFunc("f", tuple(defs), body)) if isinstance(b, e.Var)]


def verify_ssa(func: PrimFunc) -> bool:
    """Whether every variable is bound at one place only."""
    seen: set[Any] = set(func.params)
    todo: list[Any] = [func.body]
    while todo:
        n = todo.pop()
        bound: list[Any] = (
            [n.var] if isinstance(n, For | LetStmt) else [a.var for a in n.axes] if isinstance(n, Block) else []
        )
        if isinstance(n, Allocate):
            bound = [n.buffer]
        if any(b in seen for b in bound):
            return False
        seen.update(bound)
        todo += [n.init, n.body] if isinstance(n, Block) and n.init is not None else _inside(n)
    return True


def verify_memory(func: PrimFunc) -> bool:
    """Whether all accesses to memory lie inside threads of the device."""
    from warpbeam.tir.transform.verify_memory import verify_memory as check

    try:
        check(func)
    except LowerError:
        return False
    return True


def verify_gpu_code(func: PrimFunc, constraints: Mapping[str, int]) -> bool:
    """Whether a program keeps within limits.

    constraints: any of max_threads_per_block, max_thread_x, max_thread_y, max_thread_z, max_vthread,
    max_shared_memory_per_block, max_local_memory_per_block (bytes), max_vector_bytes.
    """
    found = {"max_shared_memory_per_block": 0, "max_local_memory_per_block": 0, "max_vector_bytes": 0, "max_vthread": 1}
    threads: dict[str, int] = {}
    for s in _statements(func.body):
        if isinstance(s, For) and s.kind == "thread_binding":
            count = e.const_int(s.extent) or 1
            if s.thread in ("vthread", "cthread"):
                found["max_vthread"] *= count
            elif s.thread.startswith("threadIdx"):
                threads[s.thread] = max(threads.get(s.thread, 1), count)
        elif isinstance(s, For) and s.kind == "vectorized":
            for n in post_order(s.body):
                if isinstance(n, e.BufferLoad):
                    size = dt.nbytes(n.buffer.dtype) * (e.const_int(s.extent) or 1)
                    found["max_vector_bytes"] = max(found["max_vector_bytes"], size)
        elif isinstance(s, Allocate):
            size = dt.nbytes(s.buffer.dtype)
            for d in s.buffer.shape:
                size *= e.const_int(d) or 1
            kind = "shared" if s.buffer.scope.startswith("shared") else "local"
            if kind == "shared" or s.buffer.scope in ("local", "register"):
                found[f"max_{kind}_memory_per_block"] += size
    total = 1
    for tag, count in threads.items():
        found[f"max_thread_{tag[-1]}"] = count
        total *= count
    found["max_threads_per_block"] = total
    return all(value <= constraints.get(key, value) for key, value in found.items())


def estimate_tir_flops(node: Any) -> float:
    """Floating operations of a function or statement: those written in it times the extents of the loops around.

    A loop without a constant extent counts once; a branch counts as taken.
    """
    total = 0.0
    todo: list[tuple[Any, float]] = [(node.body if isinstance(node, PrimFunc) else node, 1.0)]
    while todo:
        s, times = todo.pop()
        if isinstance(s, For):
            todo.append((s.body, times * (e.const_int(s.extent) or 1)))
        elif isinstance(s, Block):
            todo.append((s.body, times))
        elif kids(s):
            todo += [(c, times) for c in kids(s)]
        else:
            todo += [(c, times) for c in _inside(s)]
            done = [n for n in post_order(s) if isinstance(n, _FLOPS) and dt.is_float(n.dtype)]
            total += times * sum(dt.lanes(n.dtype) for n in done)
    return total


def _inside(s: Any) -> list[Any]:
    return [s.body] if isinstance(s, Block) else list(kids(s))


def _statements(root: Stmt) -> Iterator[Any]:
    todo: list[Any] = [root]
    while todo:
        s = todo.pop()
        yield s
        todo += _inside(s)
