"""The stages of two products with a softmax between them, for rows that are taken in parts.

    top[i] = max over j of s[i, j];  power[i, j] = exp(s[i, j] - top[i]);  total[i] = sum over j of power[i, j]
    result[i, c] = sum over j of power[i, j] / total[i] * values[j, c]

With j = begin[part] + rest, every part by itself, and then what the parts weigh:

    top'[part, i] = max over rest of s;  power'[part, i, rest] = exp(s - top'[part, i])
    total'[part, i] = sum over rest of power';  result'[part, i, c] = sum over rest of power' * values
    top[i] = max over parts of top';  weight[part, i] = exp(top'[part, i] - top[i])
    total[i] = sum over parts of weight * total'
    result[i, c] = (sum over parts of weight * result'[part, i, c]) / total[i]

Where `size` does not divide the columns, the last part begins earlier, and what of it the part before has counted
scores -inf. This is algebra on stages, found by structure, with nothing said of order: `sketch.online` schedules it.
Maxima begin with the lowest finite number: what has none (a part of -inf alone) then weighs nothing, and a row without
any has the total 0 and gives NaN, as it does by the plain stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warpbeam.ir.rewrite import rewrite
from warpbeam.sketch.base import Group, extent
from warpbeam.sketch.structure import is_sum, strip_casts, variables
from warpbeam.te import tensor as te
from warpbeam.te.tensor import ComputeOp, Operation, ProducerLoad, Reduce, Tensor, operations
from warpbeam.tir.expr import Call, Div, Max, Mul, PrimExpr, Select, Sub, Var, as_expr, minimum, select
from warpbeam.tir.op import exp_below, min_value
from warpbeam.tir.reducer import lowest
from warpbeam.tir.stmt import IterVar

if TYPE_CHECKING:
    from warpbeam.sketch.chain import Parts


@dataclass(frozen=True, slots=True)
class Softmax:
    """The stages between two products. scores: from the product to what finishes it; ready: what the next one reads;
    rows: what is made of the totals, row by row.
    """

    scores: list[ComputeOp]
    top: ComputeOp
    powers: ComputeOp
    total: ComputeOp
    rows: list[ComputeOp]
    ready: ComputeOp


@dataclass(frozen=True, slots=True)
class Split:
    """The new stages of a computation whose rows are taken in `count` parts of `size`, which end in `out`.

    Of a part: scores, top, powers, total, product. Over the parts: whole_top, weights, whole_total, whole; rows: what
    is made of the totals.
    """

    out: Tensor
    count: int
    size: int
    scores: list[ComputeOp]
    top: ComputeOp
    powers: ComputeOp
    total: ComputeOp
    product: ComputeOp
    whole_top: ComputeOp
    weights: ComputeOp
    whole_total: ComputeOp
    whole: ComputeOp
    rows: list[ComputeOp]


def find(group: Group, parts: Parts) -> Softmax | None:
    """The softmax between the two products of a chain; None if it is another chain."""
    if len(parts.links) != 2 or parts.links[0].ready is None:
        return None
    first, second = parts.links
    stages = [s.op for s in first.reduced]
    tops = [op for op in stages if op.reduce_axis and _is_max(op)]
    sums = [op for op in stages if op.reduce_axis and is_sum(op.body[0])]  # type: ignore[arg-type]
    wide = [op for op in stages if not op.reduce_axis and len(op.axis) == len(first.op.axis)]
    rows = [op for op in stages if not op.reduce_axis and len(op.axis) < len(first.op.axis)]
    if (len(tops), len(sums), len(wide)) != (1, 1, 1) or len(stages) != 3 + len(rows):
        return None
    found = Softmax(_scores(group, first.op, first.done), tops[0], wide[0], sums[0], rows, first.ready.op)
    dtypes = {op.body[0].dtype for op in (first.op, first.done, *stages, found.ready, second.op)}
    return found if len(dtypes) == 1 and _fits(found) else None


def _is_max(op: ComputeOp) -> bool:
    body = op.body[0]
    assert isinstance(body, Reduce)
    return len(body.source) == 1 and isinstance(body.combiner.result[0], Max) and not body.init


def _scores(group: Group, op: ComputeOp, done: ComputeOp) -> list[ComputeOp]:
    """The stages from a product to what finishes it, each the only reader of the one before."""
    found = [op]
    while found[-1] is not done:
        found.append(group.readers[found[-1]][0])
    return found


def _fits(x: Softmax) -> bool:
    """Whether the stages compute what they are taken for."""
    power, at = x.powers.body[0], [a.var for a in x.powers.axis]
    less = power.args[0] if isinstance(power, Call) and power.op == "exp" else None
    if not isinstance(less, Sub) or not _reads(less.b, x.top, at[:-1]) or not _same_scores(x, less.a):
        return False
    (summed,) = x.total.body[0].source  # type: ignore[attr-defined]
    if not _reads(summed, x.powers, [a.var for a in (*x.total.axis, *x.total.reduce_axis)]):
        return False
    if any(x.top in _below(*op.body) or x.powers in _below(*op.body) for op in x.rows):
        return False
    return _factor(x) is not None and x.top not in _below(*x.ready.body)


def _same_scores(x: Softmax, above: PrimExpr) -> bool:
    """Whether the maximum is that of `above`, which a power is the exponential of less the maximum: of others a power
    could be infinite in a part where it is not in the whole row.
    """
    load, at = strip_casts(above), [a.var for a in x.powers.axis]
    (source,) = x.top.body[0].source  # type: ignore[attr-defined]
    if isinstance(source, Select) and isinstance(source.cond, Call) and source.cond.op == "isnan":
        (asked,), source = source.cond.args, source.b  # NaN where it is not asked for has its own way
        if asked != source:
            return False
    own = [a.var for a in (*x.top.axis, *x.top.reduce_axis)]
    return (
        isinstance(load, ProducerLoad)
        and load.tensor.op is not x.top
        and list(load.indices) == at
        and _reads(source, load.tensor.op, own)
    )


def _below(*exprs: PrimExpr) -> set[Operation]:
    """The operations that expressions read."""
    found: set[Operation] = set()
    for e in exprs:
        rewrite(e, lambda n: found.add(n.tensor.op) if isinstance(n, ProducerLoad) else None)
    return found


def _reads(expr: PrimExpr, op: Operation, at: list[Var]) -> bool:
    """Whether an expression is a stage's element at these axes."""
    load = strip_casts(expr)
    return isinstance(load, ProducerLoad) and load.tensor.op is op and list(load.indices) == at


def _factor(x: Softmax) -> ProducerLoad | None:
    """The read of the powers in what the second product reads: these times, or divided by, something of the row."""
    body, at = strip_casts(x.ready.body[0]), [a.var for a in x.ready.axis]
    sides = [(body.a, body.b), (body.b, body.a)] if isinstance(body, Mul) else []
    for mine, other in [(body.a, body.b)] if isinstance(body, Div) else sides:
        load = strip_casts(mine)
        if _reads(load, x.powers, at) and at[-1] not in variables(other) and x.powers not in _below(other):
            return load  # type: ignore[return-value]
    return None


# ------------------------------------------------------------------------------------------------------------ splitting


def split(group: Group, parts: Parts, x: Softmax, size: int) -> Split:
    """The stages for parts of `size` columns, fewer than there are; it need not divide them."""
    second = parts.links[1].op
    columns = extent(x.scores[0].axis[-1].extent) or 1
    made = _Splitter(len(second.axis) - 2, columns, size)
    scores = [made.stage(op, op.axis[-1]) for op in x.scores]
    if columns % size:
        scores.append(made.once(x.scores[-1]))
    top = made.stage(x.top, x.top.reduce_axis[-1], _lowest(x.top))
    powers = made.stage(x.powers, x.powers.axis[-1])
    total = made.stage(x.total, x.total.reduce_axis[-1])
    made.new[x.ready] = powers
    product = made.stage(second, second.reduce_axis[-1])
    over = _Over(product, made.count)
    whole_top = over.rows(te.max, lambda at: top.output(0)(*at), "whole_top", _lowest(x.top))
    weights = te.compute(
        [a.extent for a in top.axis],
        lambda *at: exp_below(top.output(0)(*at), whole_top(*at[:-2], at[-1])),
        name="part_weight",
    )
    whole_total = over.rows(te.sum, lambda at: weights(*at) * total.output(0)(*at), "whole_total")
    whole = over.results(lambda at: weights(*at[:-1]) * product.output(0)(*at))
    new: dict[Tensor, Tensor] = {x.total.output(0): whole_total}
    for op in x.rows:
        new[op.output(0)] = op.replace_inputs(new).output(0)
    rows = [new[op.output(0)].op for op in x.rows]
    new[second.output(0)] = _finished(x, second, whole, new)
    for op in operations(list(group.outputs)):
        if op is not second and op.output(0) not in new and any(t in new for t in op.input_tensors):
            new[op.output(0)] = op.replace_inputs(new).output(0)
    stages = (whole_top.op, weights.op, whole_total.op, whole.op)
    return Split(
        new[group.outputs[0]],
        made.count,
        size,
        scores,
        top,
        powers,
        total,
        product,
        *stages,
        rows,  # type: ignore[arg-type]
    )


def _lowest(op: ComputeOp) -> PrimExpr:
    """What a maximum begins with: a finite number."""
    return min_value(op.body[0].dtype)


def _finished(x: Softmax, second: ComputeOp, whole: Tensor, new: dict[Tensor, Tensor]) -> Tensor:
    """The second product's result: what the parts weigh, times what each of its terms was multiplied by."""
    axes = tuple(IterVar(Var(a.var.name), a.extent) for a in second.axis)
    at = [a.var for a in axes]

    def step(node: Any) -> Any:
        if not isinstance(node, ProducerLoad):
            return None
        if node.tensor.op is x.powers:
            return whole(*at)
        return ProducerLoad(new.get(node.tensor, node.tensor), node.indices)

    own = {old.var: v for old, v in zip(x.ready.axis[:-1], at, strict=False)}
    return ComputeOp("result", axes, (rewrite(x.ready.body[0], step, dict(own)),)).output(0)


class _Splitter:
    """Makes stages for parts: with an axis of those at `at`, before that of rows."""

    def __init__(self, at: int, columns: int, size: int) -> None:
        self.at, self.columns, self.count, self.size = at, columns, -(-columns // size), size
        self.new: dict[Operation, ComputeOp] = {}

    def begin(self, part: Var) -> PrimExpr:
        """The first column of a part."""
        first = part * self.size
        return first if self.columns % self.size == 0 else minimum(first, self.columns - self.size)

    def once(self, op: ComputeOp) -> ComputeOp:
        """The scores of parts without those of columns that the part before has."""
        scores = self.new[op]
        part, column = scores.axis[self.at].var, scores.axis[-1].var
        own = self.begin(part) + column >= part * self.size
        value = scores.output(0)(*[a.var for a in scores.axis])
        body = select(own, value, lowest(value.dtype))
        made = self.new[op] = ComputeOp("counted", scores.axis, (body,))
        return made

    def stage(self, op: ComputeOp, old: IterVar, init: PrimExpr | None = None) -> ComputeOp:
        """A stage of which one axis, the last one or what it reduces, is cut into parts."""
        part = Var("part")
        inner = IterVar(Var(old.var.name), as_expr(self.size), old.kind)
        index = self.begin(part) + inner.var

        def step(node: Any) -> Any:
            if isinstance(node, ProducerLoad) and node.tensor.op in self.new:
                at = [inner.var if i is index else i for i in node.indices]
                return ProducerLoad(self.new[node.tensor.op].output(0), (*at[: self.at], part, *at[self.at :]))
            if isinstance(node, Reduce) and init is not None:
                return Reduce(node.combiner, node.source, node.axis, node.condition, node.value_index, (init,))
            return None

        body = rewrite(op.body[0], step, {old.var: index, old: inner})
        axes = [inner if a is old else a for a in op.axis]
        axes.insert(self.at, IterVar(part, as_expr(self.count)))
        made = self.new[op] = ComputeOp(op.name, tuple(axes), (body,), op.attrs)
        return made


class _Over:
    """Makes stages that go over the parts."""

    def __init__(self, product: ComputeOp, count: int) -> None:
        self.shape = [a.extent for k, a in enumerate(product.axis) if k != len(product.axis) - 3]
        self.count = count

    def rows(self, reducer: Any, value: Any, name: str, init: PrimExpr | None = None) -> Tensor:
        """reducer over the parts of value([..., part, row])."""
        part = te.reduce_axis(self.count, "part")
        return te.compute(  # type: ignore[no-any-return]
            self.shape[:-1],
            lambda *at: reducer(value((*at[:-1], part.var, at[-1])), axis=part, init=init),
            name=name,
        )

    def results(self, value: Any) -> Tensor:
        """The sum over the parts of value([..., part, row, column])."""
        part = te.reduce_axis(self.count, "part")
        return te.compute(  # type: ignore[no-any-return]
            self.shape, lambda *at: te.sum(value((*at[:-2], part.var, *at[-2:])), axis=part), name="whole"
        )
