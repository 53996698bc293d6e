"""Counts of what the kernels of a model do: each operation on a vector, as often as its loops run it."""

from __future__ import annotations

import math
from typing import Any

from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.pipeline import optimize
from warpbeam.frontend.onnx import import_model
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call as RelayCall
from warpbeam.relay.expr import Function
from warpbeam.target import Target, get
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.arith import Facts, bounds

TARGET = get("cascadelake")


def work(model: Any, target: Target = TARGET) -> float:
    """Operations of all kernels of an ONNX model of known sizes, a vector as wide as the target's counting as one."""
    main = optimize(import_model(model).module, 3, target)["main"]
    kernels = KernelSet(target)
    calls = [n for n in post_order(main.body) if isinstance(n, RelayCall) and isinstance(n.op, Function)]
    return sum(statement(kernels.get(c.op, c.args)[0].func.body, target) for c in calls)


def statement(body: s.Stmt, target: Target) -> float:
    """Operations of one run of a statement; of two branches and of a last shorter tile the longer ones count."""
    total, todo = 0.0, [(body, 1.0)]
    while todo:
        one, times = todo.pop()
        if isinstance(one, s.For):
            _, extent = bounds(one.extent, Facts())
            assert isinstance(extent, int), f"a loop of {one.extent}"
            todo.append((one.body, times * extent))
        elif isinstance(one, s.SeqStmt):
            todo += [(part, times) for part in one.stmts]
        elif isinstance(one, s.IfThenElse):
            branches = [b for b in (one.then, one.orelse) if b is not None]
            todo.append((max(branches, key=lambda b: statement(b, target)), times))
        elif isinstance(one, s.LetStmt):
            total += times * _operations(one.value, target)
            todo.append((one.body, times))
        elif isinstance(one, s.Allocate):
            todo.append((one.body, times))
        elif isinstance(one, s.BufferStore):
            moved = 0.0 if one.buffer.scope == "register" else _vectors(one.value, target)
            total += times * (moved + _operations(one.value, target))
        else:
            assert isinstance(one, s.Evaluate | s.AssertStmt), type(one)
    return total


def _operations(value: e.PrimExpr, target: Target) -> float:
    """Operations of an expression, without those that find addresses."""
    return sum(_vectors(n, target) for n in post_order(value, enter=_inside) if _counts(n))


def _inside(node: Any) -> bool:
    return not isinstance(node, e.BufferLoad)


def _counts(node: Any) -> bool:
    if isinstance(node, e.BufferLoad):
        return bool(node.buffer.scope != "register")
    leaf = isinstance(node, e.Var | e.IntImm | e.FloatImm | e.StringImm | e.Ramp | e.Broadcast)
    return isinstance(node, e.PrimExpr) and not leaf


def _vectors(value: e.PrimExpr, target: Target) -> float:
    """Instructions that an operation on so many lanes is taken apart to."""
    return math.ceil(dt.lanes(value.dtype) * max(8, dt.bits(value.dtype)) / target.vector_bits)
