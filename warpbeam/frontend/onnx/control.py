"""If, Loop and Scan: bodies are imported as frames that see the names outside, then become branches and functions.

A loop is a function of the module that ends by calling itself: its parameters are the iteration, the state, and what
the body uses from outside; whatever in the body does not depend on the state is computed once, before the loop.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from warpbeam.frontend.onnx.branch_sizes import Evened
from warpbeam.frontend.onnx.growing import put_back, take_out
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.frontend.onnx.objects import HandleEntry, is_object, leaves, outline, rebuilt
from warpbeam.frontend.onnx.ops_sequence_host import after, as_handle, joined_rank, state_of
from warpbeam.frontend.onnx.refusals import MisfitError
from warpbeam.frontend.onnx.trips import deciding, trips
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.op import get
from warpbeam.relay.expr import Call, Constant, Expr, Function, GlobalVar, If, Tuple, TupleGetItem, Var, const
from warpbeam.relay.infer_call import type_text
from warpbeam.relay.types import FuncType, TensorType, TupleType
from warpbeam.tir.expr import EQ, PrimExpr, as_expr, binary
from warpbeam.topi import dims

_MANY = 1 << 16
SCALAR_INT, SCALAR_BOOL = TensorType((), "int64"), TensorType((), "bool")


@dataclass(slots=True)
class Frame:
    """Nodes being imported: the graph itself, the body of a function called by a node, a branch or the body of a loop.

    results: (name inside, name outside) of what the caller gets, where no `finish` takes care of that.
    """

    nodes: list[Any]
    env: MutableMapping[str, Entry]
    opsets: dict[str, int]
    attributes: dict[str, Any] | None = None
    results: list[tuple[str, str]] = field(default_factory=list)
    outer: Frame | None = None
    prefix: str = ""
    at: int = 0
    depth: int = 1
    finish: Callable[[Frame], Frame | None] | None = None
    misfit: Callable[[MisfitError], Frame | None] | None = None


def leave(frame: Frame, error: MisfitError) -> Frame | None:
    """Gives up the innermost branch around a node that cannot work; raises where there is none."""
    at: Frame | None = frame
    while at is not None:
        if at.misfit is not None:
            return at.misfit(error)
        at = at.outer
    raise error


def body_frame(importer: Any, frame: Frame, view: NodeView, graph: Any, given: dict[str, Entry] | None = None) -> Frame:
    """A frame for a graph held by a node: it sees the names outside, and `given` for its own inputs."""
    if frame.depth >= importer.limits.nesting * 8:
        raise view.error(f"graphs are nested deeper than {importer.limits.nesting * 8}")
    own: dict[str, Entry] = importer.initializers(graph)
    own.update(given or {})
    env: MutableMapping[str, Entry] = ChainMap(own, frame.env)  # type: ignore[arg-type]
    return Frame(
        list(graph.node), env, frame.opsets, frame.attributes, [], frame, view.name + "/", depth=frame.depth + 1
    )


def results_of(view: NodeView, body: Frame, graph: Any) -> list[Entry]:
    """The values of a body's outputs."""
    found = []
    for out in graph.output:
        entry = body.env.get(out.name)
        if entry is None:
            raise view.error(f"output {out.name[:80]!r} of its body is never computed")
        found.append(entry)
    return found


def known_branch(importer: Any, frame: Frame, view: NodeView) -> Frame:
    """The branch of an If whose condition is known."""
    graph = view.attr("then_branch" if view.scalar(0, "the condition") else "else_branch")
    if len(graph.output) != len(view.outputs):
        raise view.error(f"has {len(view.outputs)} outputs, the branch gives {len(graph.output)}")
    body = body_frame(importer, frame, view, graph)
    body.results = [(inner.name, name) for inner, name in zip(graph.output, view.outputs, strict=True) if name]
    return body


# ------------------------------------------------------------------------------------------------------------------ If


def branches(importer: Any, frame: Frame, view: NodeView) -> Frame:
    """Both branches of an If whose condition is known at run time only, one after the other."""
    graphs = [view.attr("then_branch"), view.attr("else_branch")]
    for graph in graphs:
        if len(graph.output) != len(view.outputs):
            raise view.error(f"has {len(view.outputs)} outputs, a branch gives {len(graph.output)}")
    found: list[list[Entry] | MisfitError] = []
    before = set(importer.found.sources)

    def begin(k: int) -> Frame:
        body = body_frame(importer, frame, view, graphs[k])
        body.finish = lambda inner: done(results_of(view, inner, graphs[k]))
        body.misfit = done
        return body

    def done(result: list[Entry] | MisfitError) -> Frame:
        found.append(result)
        if len(found) < len(graphs):
            return begin(len(found))
        importer.define(frame, view, lambda: _joined(importer, view, before, *found))
        return frame

    return begin(0)


def _joined(
    importer: Any, view: NodeView, before: set[Any], then: list[Entry] | MisfitError, other: list[Entry] | MisfitError
) -> list[Entry]:
    """The values of both branches as one; of the only one that can be taken where the other does not fit. before: the
    sizes that were found before the branches.
    """
    entry = view.entry(0)
    if isinstance(then, MisfitError) or isinstance(other, MisfitError):
        return _only(importer, view, then, other)
    if entry is None or any(e.missing for e in (*then, *other)):
        return [Entry(missing=True)] * len(then)
    for k, (a, b) in enumerate(zip(then, other, strict=True)):
        if outline(a) != outline(b) and importer.host_sequences and a.kind == b.kind and a.kind.startswith("seq("):
            then[k], other[k] = as_handle(view, a), as_handle(view, b)
            rank, none = joined_rank(then[k], other[k])
            then[k] = HandleEntry(then[k].held, then[k].element, rank, none)
        elif outline(a) != outline(b):
            raise view.unsupported(f"its branches give output {k} as {a.kind} and {b.kind}, of different lengths")
    pairs = list(zip(leaves(then), leaves(other), strict=True))
    for k, (a, b) in enumerate(pairs):
        if getattr(a.type, "ndim", 0) != getattr(b.type, "ndim", 0):
            return _chosen(importer, view, k, then, other)
        if not _same_kind(a.type, b.type):
            raise _differing(view, k, a, b)
    even = Evened(view.name, [(a.expr, b.expr) for a, b in pairs], importer.found, before)
    if even.unbounded is not None:
        raise _differing(view, even.unbounded, *pairs[even.unbounded])
    parts = even.joined(scalar(entry.expr))
    joined = iter([Entry(p, string=a.string) for p, (a, _) in zip(parts, pairs, strict=True)])
    return [rebuilt(e, lambda _: next(joined)) for e in then]


def _differing(view: NodeView, k: int, a: Entry, b: Entry) -> UnsupportedError:
    both = f"{type_text(a.type)} and {type_text(b.type)}"
    return view.unsupported(f"its branches give output {k} as {both}, which may differ in shape")


def _chosen(importer: Any, view: NodeView, k: int, then: list[Entry], other: list[Entry]) -> list[Entry]:
    """One branch of two that give different numbers of dimensions: the first with which the rest can be imported."""
    ranks = [leaves(found)[k].type.ndim for found in (then, other)]
    which = importer.choose(view.name)
    left = MisfitError(f"it gives {ranks[1 - which]} dimensions, and the model is compiled for {ranks[which]}")
    return _only(importer, view, left, other) if which else _only(importer, view, then, left)


def _only(
    importer: Any, view: NodeView, then: list[Entry] | MisfitError, other: list[Entry] | MisfitError
) -> list[Entry]:
    """The values of the branch that fits; a call whose condition asks for the other one is refused."""
    if isinstance(then, MisfitError):
        error, kept, wanted = then, other, 0
    else:
        assert isinstance(other, MisfitError)
        error, kept, wanted = other, then, 1
    if isinstance(kept, MisfitError):
        raise error
    entry = view.entry(0)
    if entry is None or any(e.missing for e in kept):
        return [Entry(missing=True)] * len(kept)
    cond = get("cast")(scalar(entry.expr), dtype="int64")
    size = importer.found.size(view.name, cond)
    why = f"node {view.name[-60:]!r}: the branch that the condition asks for does not fit these shapes: {error.what}"
    importer.assume(binary(EQ, size, as_expr(wanted)), why)
    sizes = {"extents": ((size, 1, 0),), "bounds": (1,)}
    return [rebuilt(e, lambda t: Entry(get("counted.given")(t.expr, cond, **sizes), string=t.string)) for e in kept]


def scalar(x: Expr) -> Expr:
    """A tensor of one element without dimensions."""
    return x if x.ty.ndim == 0 else get("reshape")(x, newshape=())  # type: ignore[no-any-return]


def _same_kind(a: Any, b: Any) -> bool:
    """Whether two types are the same but for sizes."""
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return a is b
    return a.dtype == b.dtype and a.ndim == b.ndim


def _same_type(a: Any, b: Any) -> bool:
    shapes = (getattr(t, "shape", ()) for t in (a, b))
    return _same_kind(a, b) and dims.equal(*shapes)


# ---------------------------------------------------------------------------------------------------------------- Loop


@dataclass(slots=True)
class Body:
    """A loop's body between its import and its function: variables, and what they are after one iteration.

    count: iterations at most, or None; running: condition variable and its next value, or None. gathered: what each
    iteration adds to outputs, with the index it is put at.
    """

    step: Var
    count: Any
    states: list[Var]
    starts: list[Expr]
    after: list[Expr] = field(default_factory=list)
    running: tuple[Var, Expr, Expr] | None = None
    gathered: list[tuple[Expr, Expr]] = field(default_factory=list)


def loop(importer: Any, frame: Frame, view: NodeView) -> Frame:
    """ONNX Loop: operands (count, condition, states…), body (iteration, condition, states…)."""
    graph = view.attr("body")
    starts = view.entries[2:]
    if len(graph.input) != 2 + len(starts) or any(e is None for e in starts):
        raise view.error(f"its body takes {len(graph.input)} inputs, the node gives {2 + len(starts)}")
    step = Var("i", SCALAR_INT)
    before = [as_handle(view, e) if is_object(e) else e for e in starts]
    moving = _moving(graph, before)
    firsts = leaves([before[k] for k in moving])
    states = [Var(f"s{k}", e.type) for k, e in enumerate(firsts)]
    known = (Entry(step), Entry(const(True), fixed=True))  # it runs while the condition is true
    given = {p.name: e for p, e in zip(graph.input, known, strict=False)}
    given |= {port.name: entry for port, entry in zip(graph.input[2:], before, strict=True)}
    for k, var in zip(moving, states, strict=True):
        port = graph.input[2 + k]
        given[port.name] = state_of(port, before[k], var)
    body = body_frame(importer, frame, view, graph, given)

    def finish(inner: Frame) -> Frame:
        found = results_of(view, inner, graph)

        def made() -> list[Entry]:
            if any(e.missing for e in found):
                return [Entry(missing=True)] * len(view.outputs)
            ends = [as_handle(view, e) if is_object(e) else e for e in found]
            plan = Body(step, None, states, [e.expr for e in firsts])
            fixed = set(range(len(before))) - set(moving)
            changed = [e for k, e in enumerate(ends) if k - 1 not in fixed]
            results = iter(_loop(importer, view, plan, leaves(changed)))
            return [
                b if k in fixed else rebuilt(after(b, e), lambda _: next(results))
                for k, (b, e) in enumerate(zip_longest(before, ends[1:]))
            ]

        importer.define(frame, view, made)
        return frame

    body.finish = finish
    return body


def _moving(graph: Any, before: Sequence[Any]) -> list[int]:
    """The states that a body may change; the others it hands on as they came (weights, say), so nothing is copied."""
    ends = [o.name for o in graph.output[1:]]
    return [
        k for k, (port, entry) in enumerate(zip(graph.input[2:], before, strict=True))
        if is_object(entry) or k >= len(ends) or ends[k] != port.name
    ]  # fmt: skip


def _loop(importer: Any, view: NodeView, body: Body, found: list[Entry]) -> list[Entry]:
    go, ends, rows = found[0], found[1 : 1 + len(body.states)], found[1 + len(body.states) :]
    body.count = _count(view)
    first = view.entry(1)
    always = go.array is not None and bool(go.array.reshape(-1)[0])
    start = True if first is None else None if first.array is None else bool(first.array.reshape(-1)[0])
    if start is False:
        body.count = 0
    if not (always and start is not None):
        body.running = (Var("go", SCALAR_BOOL), const(True) if first is None else scalar(first.expr), scalar(go.expr))
    elif body.count is None:
        raise view.error("never ends: it has neither a number of iterations nor a condition")
    elif isinstance(body.count, int) and body.count > importer.limits.iterations:
        raise view.error(f"{body.count} iterations that no condition ends, the limit is {importer.limits.iterations}")
    body.after = [e.expr for e in ends]
    body.gathered = [(e.expr, body.step) for e in rows]
    grown = take_out(body, _same_type)
    check_states(view, body)
    known = trips(body)
    if known is not None:
        body.count, body.running = known, None
    if body.gathered and body.running is not None and (body.count is None or _is_large(body.count)):
        body.count = _iterations(importer, view, body)
    results = put_back(build(importer, view, body), grown)
    return [Entry(r, string=e.string) for r, e in zip(results, found[1:], strict=True)]


def _is_large(count: Any) -> bool:
    """Whether a count is no bound worth allocating for."""
    return isinstance(count, int) and count > _MANY


def _iterations(importer: Any, view: NodeView, body: Body) -> Expr:
    """How often a loop runs whose condition alone says so: what the condition follows from is run once before."""
    assert body.running is not None
    kept = deciding(body)
    states, (var, start, again) = [body.states[k] for k in kept], body.running
    fresh: dict[Any, Any] = {v: Var(v.name, v.ty) for v in (body.step, *states, var)}
    again, *after = [substitute(e, fresh) for e in (again, *[body.after[k] for k in kept])]
    first = Body(fresh[body.step], body.count, [fresh[s] for s in states], [body.starts[k] for k in kept], after)
    first.running = (fresh[var], start, again)
    return build(importer, view, first, steps=True)[-1]


def _count(view: NodeView) -> Any:
    """The number of iterations: an int or symbolic expression where known, an expression, or None."""
    if not view.given(0):
        return None
    known = view.known(0)
    if known is not None:
        return dims.dim(known.reshape(-1)[0])
    entry = view.entry(0)
    assert entry is not None
    return scalar(entry.expr)


def check_states(view: NodeView, body: Body) -> None:
    for k, (v, e) in enumerate(zip(body.states, body.after, strict=True)):
        if not _same_type(v.ty, e.ty):
            both = f"{type_text(v.ty)} before and {type_text(e.ty)}"
            raise view.unsupported(f"a loop whose state {k} is {both} after an iteration")


# ------------------------------------------------------------------------------------------------------- the function


def build(importer: Any, view: NodeView, body: Body, steps: bool = False) -> list[Expr]:
    """The loop as a function of the importer's module and a call of it; gives states, then gathered outputs, then, with
    `steps`, the number of iterations.
    """
    count = body.count
    stores = []
    rows = count
    if isinstance(count, Expr) and body.gathered:
        rows = view.found.size(view.name, get("maximum")(count, const(0, "int64")))
    elif isinstance(count, int):
        rows = max(count, 0)
    for row, _ in body.gathered:
        _check_row(view, body, row)
        stores.append(Var(f"rows{len(stores)}", TensorType((rows, *row.ty.shape), row.ty.dtype)))
    limit = None if count is None else Var("count", SCALAR_INT)
    changing: list[tuple[Var, Expr, Expr]] = [(body.step, const(0, "int64"), get("add")(body.step, const(1, "int64")))]
    changing += list(zip(body.states, body.starts, body.after, strict=True))
    for store, (row, place) in zip(stores, body.gathered, strict=True):
        changing.append((store, _empty(store.ty), _put(store, place, row)))
    if body.running is not None:
        changing.append(body.running)
    fixed = [] if limit is None else [(limit, count if isinstance(count, Expr) else _number(count))]
    guarded = view.found.guarded
    changing = [(v, guarded(s, []), guarded(a, [])) for v, s, a in changing]
    fixed = [(v, guarded(s, [])) for v, s in fixed]
    own = [v for v, _, _ in changing]
    after, outer = _closed([a for _, _, a in changing], own)
    params = (*own, *[v for v, _ in fixed], *outer)
    shorter = bool(stores) and body.running is not None
    results = Tuple((*body.states, *stores, *([body.step] if steps or shorter else [])))
    ret = TupleType(tuple(f.ty for f in results.fields))
    gv = importer.function("loop", FuncType(tuple(p.ty for p in params), ret))
    tests = ([get("less")(body.step, limit)] if limit is not None else []) + ([body.running[0]] if body.running else [])
    go = tests[0] if len(tests) == 1 else get("logical_and")(*tests)
    again = Call(gv, (*after, *[v for v, _ in fixed], *outer))
    importer.loops[gv] = Function(params, If(go, again, results), ret)
    value = Call(gv, (*[s for _, s, _ in changing], *[s for _, s in fixed], *outer.values()))
    out: list[Expr] = [TupleGetItem(value, k) for k in range(len(results.fields))]
    if shorter:  # only what the iterations that were done have put there
        size = view.found.size(view.name, out[-1])
        attrs = {"extents": ((size, 1, 0),), "bounds": (rows,)}
        kept = [get("counted.cut")(r, out[-1], **attrs) for r in out[len(body.states) : len(body.states) + len(stores)]]
        out[len(body.states) : len(body.states) + len(stores)] = kept
    return out if steps or not shorter else out[:-1]


def _check_row(view: NodeView, body: Body, row: Expr) -> None:
    """Refuses entries whose shape is found anew in each iteration."""
    own = {body.step, *body.states, *([body.running[0]] if body.running else [])}
    for size in dims.counted_in(*row.ty.shape):
        source = view.found.sources.get(size)
        if source is None or any(n in own for n in post_order(source[0])):
            raise view.unsupported(
                f"outputs of one entry per iteration, where the entries' shapes {type_text(row.ty)} differ"
            )


def size_tensor(value: PrimExpr) -> Expr:
    """A symbolic size as a scalar tensor."""
    return get("shape_tensor")(values=(value,), shape=(), dtype="int64")  # type: ignore[no-any-return]


def _number(count: Any) -> Expr:
    return const(count, "int64") if isinstance(count, int) else size_tensor(count)


def _empty(ty: TensorType) -> Expr:
    return get("full")(const(0, ty.dtype), shape=ty.shape, dtype=ty.dtype)  # type: ignore[no-any-return]


def _put(store: Expr, place: Expr, row: Expr) -> Expr:
    """`store` with one entry replaced."""
    where = get("reshape")(place, newshape=(1, 1))
    return get("scatter_nd")(store, where, get("expand_dims")(row, axis=0), mode="update")  # type: ignore[no-any-return]


def _closed(roots: Sequence[Expr], own: Sequence[Var]) -> tuple[list[Expr], dict[Var, Expr]]:
    """The expressions with everything that does not depend on `own` replaced by new variables; those with their
    values, outside.
    """
    moving: set[Node] = set(own)
    order = list(post_order(*roots, enter=lambda n: not isinstance(n, Function | Constant)))
    for n in order:
        if any(c in moving for c in children(n)):
            moving.add(n)
    outer: dict[Expr, Var] = {}

    def replaced(n: Any) -> None:
        if isinstance(n, Constant | GlobalVar) or not isinstance(n, Expr) or n in moving or n in outer:
            return
        if isinstance(n.ty, TensorType | TupleType):
            outer[n] = Var(f"c{len(outer)}", n.ty)

    for r in roots:
        replaced(r)
    for n in order:
        if n in moving:
            for c in children(n):
                replaced(c)
    new = [substitute(r, outer) for r in roots]
    return new, {v: e for e, v in outer.items()}
