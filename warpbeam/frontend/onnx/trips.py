"""How often a loop runs: which of its states the condition follows from, and the number where these are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.node import fold, nbytes
from warpbeam.ir.diagnostics import VerifyError
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Constant, Expr, Function, IRModule, Tuple, TupleGetItem, Var
from warpbeam.relay.infer_dims import has_expr
from warpbeam.relay.interp import Interpreter
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType

_TRIED = 1 << 12  # iterations that are done while importing
_BYTES = 1 << 12  # of each value of these
_CALLS = 1 << 17  # of operators in all of them


def deciding(body: Any) -> list[int]:
    """Numbers of the states from which it follows whether a loop goes on, of `control.Body`."""
    number = {v: k for k, v in enumerate(body.states)}
    todo: list[Expr] = [] if body.running is None else [body.running[2]]
    found: set[int] = set()
    while todo:
        for n in post_order(todo.pop()):
            k = number.get(n) if isinstance(n, Var) else None
            if k is not None and k not in found:
                found.add(k)
                todo.append(body.after[k])
    return sorted(found)


def trips(body: Any) -> int | None:
    """How often a loop with a condition runs, where only constants decide that and it is not too often; else None."""
    if body.running is None or not (body.count is None or isinstance(body.count, int)):
        return None
    own = deciding(body)
    variable, start, again = body.running
    params = (body.step, variable, *[body.states[k] for k in own])
    results = [again, *[body.after[k] for k in own]]
    begun = _values([start, *[body.starts[k] for k in own]])
    if begun is None or not _computable(results, params):
        return None
    run = Interpreter(IRModule.from_expr(Function(params, Tuple(tuple(results)))))
    calls = sum(isinstance(n, Call) for n in post_order(*results))
    for done in range(min(_TRIED, _CALLS // max(calls, 1)) + 1):
        if not begun[0].all() or (body.count is not None and done >= body.count):
            return done
        try:
            begun = list(run.call("main", [np.asarray(done, np.int64), *begun]))
        except VerifyError:  # it fails when it runs
            return None
    return None


def _values(starts: Sequence[Expr]) -> list[np.ndarray] | None:
    if not _computable(starts, ()):
        return None
    found = [fold(s, _BYTES) for s in starts]
    return None if any(f is None for f in found) else found  # type: ignore[return-value]


def _computable(roots: Sequence[Expr], own: Sequence[Var]) -> bool:
    """Whether expressions are small and follow from constants and `own` alone, the same in every call."""
    for n in post_order(*roots, enter=lambda n: not isinstance(n, Op)):
        if isinstance(n, Op | Constant) or not isinstance(n, Expr):
            continue
        if isinstance(n, Call):
            if not (isinstance(n.op, Op) and n.op.pure and n.op.folds) or has_expr(tuple(n.attrs.values())):
                return False
        elif not (isinstance(n, Tuple | TupleGetItem) or n in own):
            return False
        fields = (n.ty,) if isinstance(n.ty, TensorType) else n.ty.fields
        if not all(isinstance(t, TensorType) and t.is_static and nbytes(t) <= _BYTES for t in fields):
            return False
    return True
