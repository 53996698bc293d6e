"""`te.gradient`: derivatives of a tensor by tensors below it, in reverse.

    y = te.compute((n,), lambda i: te.sum(A[i, k] * x[k], axis=k))
    dA, dx = te.gradient(y, [A, x], head=dy)        # dx[k] = sum over i of dy[i] * A[i, k]

An element of a gradient sums over all places that read the element. Where an index determines a loop (X[i + r] at
element x: r = x - i) the loop is solved for, so that the gradient of a product costs what the product does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.te.derivative import pulled_back
from warpbeam.te.errors import TEError
from warpbeam.te.operation import ComputeOp, PlaceholderOp, ProducerLoad, Tensor, operations
from warpbeam.te.tensor import comm_reducer, compute, reduce_axis, sum
from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, linear, prove, simplify
from warpbeam.tir.expr import PrimExpr, Var, const, const_int
from warpbeam.tir.reducer import Reduce
from warpbeam.tir.stmt import IterVar


def gradient(output: Tensor, inputs: Sequence[Tensor] | Tensor, head: Tensor | None = None) -> list[Tensor]:
    """For each input, the tensor of shape (*prefix, *input.shape) of head times the derivative of output by it.

    Args:
        output: a floating tensor.
        inputs: tensors below it, or the output itself.
        head: the adjoint of the output, of shape (*prefix, *output.shape). By default the identity, of shape
            (*output.shape, *output.shape), so that the results are Jacobians.

    Raises:
        TEError: (a ValueError) if shapes do not fit, or something on the way has no derivative (integers, scans,
            externs, functions without a rule).
    """
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for t in (output, *wanted):
        if not isinstance(t, Tensor):
            raise TEError(f"gradient of a {type(t).__name__}", hint="give te tensors: te.gradient(y, [x])")
        if not dt.is_float(t.dtype):
            raise TEError(f"tensor {t.name} of {t.dtype} has no derivative", hint="cast it to a floating type")
    head = _identity(output) if head is None else head
    split = head.ndim - output.ndim
    if split < 0 or any(_differ(a, b) for a, b in zip(head.shape[split:], output.shape, strict=True)):
        raise TEError(f"head of shape {list(head.shape)} for an output of shape {list(output.shape)}",
                      hint="head's shape ends with the output's")  # fmt: skip
    prefix = tuple(head.shape[:split])
    order = operations([output])
    depends = _depending(order, set(wanted))
    found: dict[Tensor, list[Tensor]] = {output: [head]}
    for op in reversed(order):
        for index in range(op.num_outputs):
            t = op.output(index)
            if t in depends and found.get(t):
                found[t] = [_total(found[t], f"{t.name}_grad")]
                _through(t, found[t][0], prefix, depends, found)
    return [found[t][0] if found.get(t) else _zeros(prefix, t) for t in wanted]


def _differ(a: Any, b: Any) -> bool:
    x, y = const_int(a), const_int(b)
    return x is not None and y is not None and x != y


def _depending(order: Sequence[Any], wanted: set[Tensor]) -> set[Tensor]:
    """The tensors on a way from a wanted one."""
    found = set(wanted)
    for op in order:
        if any(t in found for t in op.input_tensors):
            found.update(op.output(k) for k in range(op.num_outputs))
    return found


def _identity(t: Tensor) -> Tensor:
    n = t.ndim

    def same(*i: Any) -> PrimExpr:
        test = e.land(*(a == b for a, b in zip(i[:n], i[n:], strict=True)))
        return e.select(test, const(1, t.dtype), const(0, t.dtype))

    return compute((*t.shape, *t.shape), same, name="identity")  # type: ignore[no-any-return]


def _zeros(prefix: tuple[Any, ...], t: Tensor) -> Tensor:
    return compute((*prefix, *t.shape), lambda *i: const(0, t.dtype), name=f"{t.name}_grad")  # type: ignore[no-any-return]


def _total(parts: list[Tensor], name: str) -> Tensor:
    """The sum of the contributions to one tensor."""
    if len(parts) == 1:
        return parts[0]

    def added(*i: Any) -> Any:
        value: Any = parts[0](*i)
        for p in parts[1:]:
            value = value + p(*i)
        return value

    return compute(parts[0].shape, added, name=name)  # type: ignore[no-any-return]


def _through(t: Tensor, head: Tensor, prefix: Any, depends: set[Tensor], found: dict[Tensor, list[Tensor]]) -> None:
    """Adds what flows from one tensor to those that its operation reads."""
    op = t.op
    if isinstance(op, PlaceholderOp) or not any(r in depends for r in op.input_tensors):
        return
    if not isinstance(op, ComputeOp):
        raise TEError(f"{op!r} has no derivative here", why="only te.compute has", hint="give its gradient as head")
    body = op.body[t.index]
    seed = Var("adjoint", t.dtype)
    source, condition = body, e.land()
    axes: tuple[IterVar, ...] = ()
    if isinstance(body, Reduce):
        if len(body.source) > 1 or any(_reads(i, depends) for i in body.init):
            raise TEError(
                f"the reduction of {op.name} has no derivative here", why="of several values, or with a start"
            )
        source, axes, condition = body.source[0], body.axis, body.condition
        kind = _kind(body)
        if kind is None:
            _by_jacobian(t, body, head, prefix, depends, found)
            return
        if kind is not e.Add:
            axes_of = [a.var for a in op.axis]
            share = _ties(t, body)
            factor = e.select(source.equal(t(*axes_of)), const(1, t.dtype) / share(*axes_of), const(0, t.dtype))
            flows = pulled_back(source, e.mul(seed, factor), lambda n: _is_read(n, depends))
            _scatter_all(t, flows, (seed, axes, condition), head, prefix, found)
            return
    flows = pulled_back(source, seed, lambda n: _is_read(n, depends))
    _scatter_all(t, flows, (seed, axes, condition), head, prefix, found)


def _is_read(n: Any, depends: set[Tensor]) -> bool:
    return isinstance(n, ProducerLoad) and n.tensor in depends


def _reads(value: PrimExpr, depends: set[Tensor]) -> bool:
    return bool(pulled_back(value, value, lambda n: _is_read(n, depends)))


def _kind(body: Reduce) -> type | None:
    """Add, Min or Max for reductions by these."""
    result, pair = body.combiner.result[0], {body.combiner.lhs[0], body.combiner.rhs[0]}
    plain = type(result) in (e.Add, e.Min, e.Max) and {result.a, result.b} == pair  # type: ignore[attr-defined]
    return type(result) if plain else None


def _ties(t: Tensor, body: Reduce) -> Tensor:
    """How many elements have the value that a minimum or maximum takes; they share its gradient."""

    def count(*i: Any) -> Any:
        fresh = [reduce_axis((a.start, a.start + a.extent), a.name) for a in body.axis]
        to = dict(zip((a.var for a in t.op.axis), i, strict=True)) | {  # type: ignore[attr-defined]
            a.var: f.var for a, f in zip(body.axis, fresh, strict=True)
        }
        hit = substitute(e.land(body.condition, body.source[0].equal(t(*(a.var for a in t.op.axis)))), to)  # type: ignore[attr-defined]
        return sum(e.select(hit, const(1, t.dtype), const(0, t.dtype)), axis=fresh)

    return compute(t.shape, count, name=f"{t.name}_ties")  # type: ignore[no-any-return]


def _scatter_all(
    t: Tensor, flows: dict[Any, PrimExpr], loops: Any, head: Tensor, prefix: Any, found: dict[Tensor, list[Tensor]]
) -> None:
    for load, flow in flows.items():
        found.setdefault(load.tensor, []).append(_scatter(t, load, flow, loops, head, prefix))


def _scatter(t: Tensor, load: Any, flow: PrimExpr, loops: Any, head: Tensor, prefix: Any) -> Tensor:
    """What flows through one read to the tensor that is read."""
    seed, axes, condition = loops
    read: Tensor = load.tensor
    every = [*t.op.axis, *axes]  # type: ignore[attr-defined]

    def element(*index: Any) -> Any:
        at, x = index[: len(prefix)], index[len(prefix) :]
        facts = Facts()
        for var, extent in zip(index, (*prefix, *read.shape), strict=True):
            facts.bind(var, 0, extent)
        solved, tests = _solve(list(zip(x, load.indices, strict=True)), every)
        left = [a for a in every if a.var not in solved]
        fresh = [reduce_axis((a.start, a.start + a.extent), a.name) for a in left]
        to: dict[Any, Any] = {a.var: f.var for a, f in zip(left, fresh, strict=True)}
        for f in fresh:
            facts.bind(f.var, f.start, f.extent)
        to |= {v: simplify(substitute(value, to), facts) for v, value in solved.items()}
        tests = [simplify(substitute(c, to), facts) for c in (*tests, condition)]
        test = e.land(*(c for c in tests if prove(c, facts) is not True))
        value = substitute(flow, to | {seed: head(*at, *(to[a.var] for a in t.op.axis))})  # type: ignore[attr-defined]
        value = e.if_then_else(test, e.cast(read.dtype, value), const(0, read.dtype))
        return sum(value, axis=fresh) if fresh else value

    return compute((*prefix, *read.shape), element, name=f"{read.name}_grad")  # type: ignore[no-any-return]


def _solve(
    equations: list[tuple[Any, PrimExpr]], axes: Sequence[IterVar]
) -> tuple[dict[Var, PrimExpr], list[PrimExpr]]:
    """Loop variables that the equations x == index determine, and the tests that remain."""
    solved: dict[Var, PrimExpr] = {}
    tests: list[PrimExpr] = []
    rows = sorted(equations, key=lambda row: len(_unknowns(row[1], axes)))  # the simplest first
    for x, index in rows:
        expr = substitute(index, solved)
        pick = _pick(expr, [a for a in axes if a.var not in solved])
        if pick is None:
            tests.append(x.equal(expr))
            continue
        axis, slope = pick
        rest = e.sub(x, simplify(substitute(expr, {axis.var: const(0, axis.var.dtype)})))
        value = e.floordiv(rest, slope) if slope > 0 else e.floordiv(-rest, -slope)
        if abs(slope) > 1:
            tests.append(e.floormod(rest, abs(slope)).equal(0))
        tests += [value >= axis.start, value < axis.start + axis.extent]
        solved = {v: substitute(s, {axis.var: value}) for v, s in solved.items()}
        tests = [substitute(c, {axis.var: value}) for c in tests]
        solved[axis.var] = value
    return solved, tests


def _unknowns(index: PrimExpr, axes: Sequence[IterVar]) -> list[IterVar]:
    found = linear(index, [a.var for a in axes])
    return list(axes) if found is None else [a for a in axes if a.var in found[0]]


def _pick(expr: PrimExpr, axes: Sequence[IterVar]) -> tuple[IterVar, int] | None:
    """The loop to solve an index for and its slope: one of slope 1 or -1, the longest; or the only one there is."""
    found = linear(expr, [a.var for a in axes])
    if found is None:
        return None
    slopes = [(a, const_int(found[0][a.var])) for a in axes if a.var in found[0]]
    unit = [(a, c) for a, c in slopes if c in (1, -1)]
    if unit:
        axis, slope = max(unit, key=lambda row: _length(row[0]))
        return axis, int(slope or 0)
    if len(slopes) == 1 and slopes[0][1]:
        return slopes[0][0], int(slopes[0][1])
    return None


def _length(axis: IterVar) -> int:
    size = const_int(axis.extent)
    return 1 << 62 if size is None else size


def _by_jacobian(t: Tensor, body: Reduce, head: Tensor, prefix: Any, depends: Any, found: Any) -> None:
    """Reductions by other functions: the derivative is reduced along with the value."""
    op: Any = t.op
    seed = Var("adjoint", body.source[0].dtype)
    flows = pulled_back(body.source[0], seed, lambda n: _is_read(n, depends))
    lhs, rhs, result = body.combiner.lhs[0], body.combiner.rhs[0], body.combiner.result[0]
    one = const(1, t.dtype)
    slopes = pulled_back(result, one, lambda n: n in (lhs, rhs))
    zero = const(0, t.dtype)

    def both(x: Any, y: Any) -> Any:
        to = {lhs: x[0], rhs: y[0]}
        parts = [substitute(slopes[v], to) * d for v, d in ((lhs, x[1]), (rhs, y[1])) if v in slopes]
        return substitute(result, to), parts[0] + parts[1] if len(parts) == 2 else (parts or [zero])[0]

    reducer = comm_reducer(both, lambda a, b: (body.combiner.identity[0], zero), name="derivative")
    for load, flow in flows.items():
        read = load.tensor

        def element(*index: Any, load: Any = load, flow: Any = flow) -> Any:
            fresh = [reduce_axis((a.start, a.start + a.extent), a.name) for a in body.axis]
            to: dict[Any, Any] = dict(zip((a.var for a in op.axis), index[: len(op.axis)], strict=True))
            to |= {a.var: f.var for a, f in zip(body.axis, fresh, strict=True)}
            here = [substitute(i, to) for i in load.indices]
            test = e.land(*(x.equal(i) for x, i in zip(index[len(op.axis) :], here, strict=True)))
            slope = e.if_then_else(test, substitute(flow, to | {seed: one}), zero)
            return reducer((substitute(body.source[0], to), slope), axis=fresh, where=substitute(body.condition, to))

        jacobian = compute((*t.shape, *read.shape), element, name=f"{t.name}_by_{read.name}")[1]
        found.setdefault(read, []).append(_product(head, jacobian, t, read, prefix))


def _product(head: Tensor, jacobian: Tensor, t: Tensor, read: Tensor, prefix: Any) -> Tensor:
    def element(*index: Any) -> Any:
        axes = [reduce_axis((0, d), f"j{k}") for k, d in enumerate(t.shape)]
        over = [a.var for a in axes]
        value = head(*index[: len(prefix)], *over) * jacobian(*over, *index[len(prefix) :])
        return sum(value, axis=axes) if axes else value

    return compute((*prefix, *read.shape), element, name=f"{read.name}_grad")  # type: ignore[no-any-return]
