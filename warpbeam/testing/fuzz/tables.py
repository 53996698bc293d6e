"""Operators of random models: each entry makes one node from what a growing model has.

An entry returns whether the node was kept, or None where nothing in the model suits the operator. The number beside it
says how often it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from warpbeam.testing.fuzz import tables_control, tables_nn
from warpbeam.testing.fuzz.grow import FLOATS, Grower, Value

Entry = Callable[[Grower], bool | None]
INTS = ("int32", "int64", "int8", "uint8")
NUMBERS = (*FLOATS, *INTS)
ANY = (*NUMBERS, "bool")
_PLAIN = ("float32", "float64", "float16", "int32", "int64")  # types every arithmetic operator has everywhere

_MATH = ("Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Identity", "Floor", "Ceil", "Round", "Sign")
_CIRCLE = ("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh")
_UNARY = (*_MATH, *_CIRCLE, "Sigmoid", "Softsign", "Softplus", "HardSwish", "Mish", "Relu")
_INTEGER_UNARY = ("Abs", "Neg", "Sign", "Identity")
_NORMS = ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
_REDUCE = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", *_NORMS)
_SHAPED = ("LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid", "Gelu", "PRelu", "Shrink")


def unary(g: Grower) -> bool | None:
    x = g.pick(("float32", "float64", "float16", "int32", "int64"))
    if x is None:
        return None
    return g.emit(g.rng.choice(_UNARY if x.floating else _INTEGER_UNARY), [x])


def activation(g: Grower) -> bool | None:
    x = g.pick()
    if x is None:
        return None
    kind = g.rng.choice(
        ["LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid", "Gelu", "PRelu", "Shrink"]
    )
    if kind == "PRelu":
        return g.emit(kind, [x, g.const(g.filled(x.shape[-1:], x.dtype), x.dtype)])
    if kind == "Gelu":
        return g.emit(kind, [x], approximate=g.rng.choice(["none", "tanh"]))
    if kind == "Shrink":
        return g.emit(kind, [x], lambd=0.3, bias=0.1)
    if kind == "Celu" and x.dtype != "float32":
        return None
    alpha = {} if kind == "Selu" else {"alpha": g.rng.choice([0.1, 0.25, 1.5])}
    return g.emit(kind, [x], **alpha)


def binary(g: Grower) -> bool | None:
    x = g.pick(_PLAIN)
    if x is None:
        return None
    y = g.like(x)
    kind = g.rng.choice(["Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Mean", "Sum"])
    pair = [x, y] if g.rng.random() < 0.5 or kind == "Pow" else [y, x]
    if kind == "Pow":
        return g.emit(kind, [x, g.const(np.asarray(g.rng.choice([2, 3, 1]), x.dtype))])
    if kind in ("Div", "Mod") and not x.floating:
        pair[1] = g.const(np.asarray(g.rng.choice([2, 3, 5]), x.dtype))  # of zero, nothing is said
    if kind == "Mod":
        return g.emit(kind, pair, fmod=int(x.floating))
    if kind in ("Mean", "Sum") and not x.floating:
        return None
    return g.emit(kind, pair)


def several(g: Grower) -> bool | None:
    x = g.pick()
    return None if x is None else g.emit(g.rng.choice(["Sum", "Max", "Min"]), [x, g.like(x), g.like(x)], terms=2)


def compare(g: Grower) -> bool | None:
    x = g.pick(_PLAIN)
    if x is None:
        return None
    kind = g.rng.choice(["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"])
    return g.emit(kind, [x, g.like(x)])


def logic(g: Grower) -> bool | None:
    x = g.pick(("bool",))
    if x is None:
        return None
    kind = g.rng.choice(["And", "Or", "Xor", "Not"])
    return g.emit(kind, [x] if kind == "Not" else [x, g.like(x)])


def bits(g: Grower) -> bool | None:
    x = g.pick(("int32", "int64", "uint8", "int8"))
    if x is None:
        return None
    kind = g.rng.choice(["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"])
    return g.emit(kind, [x] if kind == "BitwiseNot" else [x, g.like(x)])


def where(g: Grower) -> bool | None:
    c = g.pick(("bool",))
    if c is None:
        return None
    like = Value("", c.data, g.rng.choice(_PLAIN))
    x = g.like(like)
    return g.emit("Where", [c, x, g.like(x)])


def clip(g: Grower) -> bool | None:
    x = g.pick(_PLAIN)
    if x is None:
        return None
    low, high = g.const(np.asarray(-1, x.dtype)), g.const(np.asarray(2, x.dtype))
    return g.emit("Clip", g.rng.choice([[x, low, high], [x, low], [x, None, high]]))


def cast(g: Grower) -> bool | None:
    x = g.pick(ANY)
    if x is None:
        return None
    to = g.rng.choice(["float32", "float64", "float16", "int32", "int64", "bool", "uint8", "int8"])
    if x.floating and to in ("uint8", "int8") and (x.data.min(initial=0) < 0 or x.data.max(initial=0) > 127):
        to = "int32"  # beyond the range, platforms differ
    codes = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
    return g.emit("Cast", [x], to=codes[to])


def reduction(g: Grower) -> bool | None:
    x = g.pick(("float32", "float64", "float16", "int32", "int64"), range(1, 9), 1)
    if x is None:
        return None
    kind = g.rng.choice(_REDUCE if x.floating else ["ReduceSum", "ReduceMax", "ReduceMin"])
    axes = sorted(g.rng.sample(range(len(x.shape)), g.rng.randint(1, len(x.shape))))
    if g.rng.random() < 0.3:
        axes = [a - len(x.shape) for a in axes]
    given = [] if g.rng.random() < 0.2 else [g.const(np.asarray(axes, np.int64))]
    count = math.prod(x.shape) if not given else math.prod(x.shape[a] for a in axes)
    return g.emit(kind, [x, *given], terms=count, keepdims=g.rng.randint(0, 1))


def arg(g: Grower) -> bool | None:
    x = g.pick(_PLAIN, range(1, 9), 1)
    if x is None:
        return None
    axis = g.rng.randrange(-len(x.shape), len(x.shape))
    return g.emit(g.rng.choice(["ArgMax", "ArgMin"]), [x], axis=axis, keepdims=g.rng.randint(0, 1))


def cumulative(g: Grower) -> bool | None:
    x = g.pick(_PLAIN[:2] + _PLAIN[3:], range(1, 9), 1)
    if x is None:
        return None
    axis = g.rng.randrange(len(x.shape))
    return g.emit(
        "CumSum", [x, g.const(np.asarray(axis, np.int64))], terms=x.shape[axis],
        exclusive=g.rng.randint(0, 1), reverse=g.rng.randint(0, 1),
    )  # fmt: skip


def top(g: Grower) -> bool | None:
    x = g.pick(("float32", "float64", "int64"), range(1, 9), 1)
    if x is None or len(np.unique(x.data)) != x.data.size:
        return None  # which of two equals comes first differs
    axis = g.rng.randrange(len(x.shape))
    k = g.const(np.asarray([g.rng.randint(1, x.shape[axis])], np.int64))
    return g.emit("TopK", [x, k], 2, axis=axis, largest=g.rng.randint(0, 1))


def reshape(g: Grower) -> bool | None:
    x = g.pick(ANY, range(1, 9), 1)
    if x is None:
        return None
    kind = g.rng.choice(["Reshape", "Reshape", "Flatten", "Unsqueeze", "Squeeze"])
    if kind == "Flatten":
        return g.emit(kind, [x], axis=g.rng.randint(0, len(x.shape)))
    if kind == "Unsqueeze":
        return g.emit(kind, [x, g.const(np.asarray([g.rng.randint(0, len(x.shape))], np.int64))])
    if kind == "Squeeze":
        ones = [i for i, s in enumerate(x.shape) if s == 1]
        return g.emit(kind, [x, g.const(np.asarray(ones[:1], np.int64))]) if ones else None
    at = g.rng.randrange(len(x.shape))  # one axis is kept, its neighbours are joined
    target = g.rng.choice([[0] * at + [-1], [-1, *x.shape[at + 1 :]], [-1], _halves(x.shape)])
    return g.emit(kind, [x, g.const(np.asarray(target, np.int64))])


def _halves(shape: tuple[int, ...]) -> list[int]:
    found: list[int] = []
    for s in shape:
        found += [2, s // 2] if s % 2 == 0 and s > 2 else [s]
    return found


def transpose(g: Grower) -> bool | None:
    x = g.pick(ANY, range(2, 7))
    if x is None:
        return None
    return g.emit("Transpose", [x], perm=g.rng.sample(range(len(x.shape)), len(x.shape)))


def expand(g: Grower) -> bool | None:
    x = g.pick(ANY, range(5))
    if x is None:
        return None
    if g.rng.random() < 0.5:
        reps = [g.rng.choice([1, 1, 2, 3]) for _ in x.shape]
        return g.emit("Tile", [x, g.const(np.asarray(reps, np.int64))]) if reps else None
    shape = [s if s != 1 else g.rng.choice([1, 2, 5]) for s in x.shape]
    return g.emit("Expand", [x, g.const(np.asarray([g.rng.choice([1, 2]), *shape], np.int64))])


def concat(g: Grower) -> bool | None:
    x = g.pick(ANY, range(1, 7))
    if x is None:
        return None
    axis = g.rng.randrange(len(x.shape))
    fits = [v for v in g.values if v.dtype == x.dtype and _same(v.shape, x.shape, axis)]
    parts = [x, *(g.rng.choice(fits) for _ in range(g.rng.randint(1, 2)))]
    g.rng.shuffle(parts)
    return g.emit("Concat", parts, axis=axis - (len(x.shape) if g.rng.random() < 0.3 else 0))


def _same(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> bool:
    return len(a) == len(b) and all(i == axis or s == t for i, (s, t) in enumerate(zip(a, b, strict=True)))


def split(g: Grower) -> bool | None:
    x = g.pick(ANY, range(1, 7))
    if x is None:
        return None
    axis = g.rng.randrange(len(x.shape))
    if x.shape[axis] < 2:
        return None
    first = g.rng.randint(1, x.shape[axis] - 1)
    return g.emit("Split", [x, g.const(np.asarray([first, x.shape[axis] - first], np.int64))], 2, axis=axis)


def slices(g: Grower) -> bool | None:
    x = g.pick(ANY, range(1, 7), 2)
    if x is None:
        return None
    axes = sorted(g.rng.sample(range(len(x.shape)), g.rng.randint(1, min(2, len(x.shape)))))
    begins, ends, steps = [], [], []
    for a in axes:
        step = g.rng.choice([1, 1, 2, -1, -2])
        lo, hi = sorted((g.rng.randint(0, x.shape[a]), g.rng.choice([x.shape[a], 2**31])))
        begins.append(min(lo, x.shape[a] - 1) if step > 0 else x.shape[a] - 1)
        ends.append(hi if step > 0 else -(2**31) if g.rng.random() < 0.5 else 0)
        steps.append(step)
    parts = [g.const(np.asarray(p, np.int64)) for p in (begins, ends, axes, steps)]
    return g.emit("Slice", [x, *parts]) if all(s != 0 for s in x.shape) else None


def gather(g: Grower) -> bool | None:
    x = g.pick(ANY, range(1, 6), 1)
    if x is None:
        return None
    axis, kind = g.rng.randrange(len(x.shape)), g.rng.choice(["Gather", "Gather", "GatherElements", "GatherND"])
    size = x.shape[axis]
    if kind == "Gather":
        shape = g.rng.choice([(), (2,), (3, 2), (1,)])
        return g.emit(kind, [x, g.const(g.noise.integers(-size, size, shape).astype(np.int64))], axis=axis)
    if kind == "GatherElements":
        shape = tuple(g.rng.randint(1, s) for s in x.shape)
        return g.emit(kind, [x, g.const(g.noise.integers(-size, size, shape).astype(np.int64))], axis=axis)
    depth = g.rng.randint(1, len(x.shape))
    rows = np.stack([g.noise.integers(0, x.shape[d], (3,)) for d in range(depth)], -1)
    return g.emit(kind, [x, g.const(rows.astype(np.int64))])


def scatter(g: Grower) -> bool | None:
    x = g.pick(("float32", "float64", "int64", "int32"), range(1, 5), 1)
    if x is None:
        return None
    axis = g.rng.randrange(len(x.shape))
    reduction = g.rng.choice(["none", "add", "max"])
    if g.rng.random() < 0.5:
        count = g.rng.randint(1, x.shape[0])
        rows = np.asarray(g.rng.sample(range(x.shape[0]), count), np.int64)[:, None]  # none twice
        updates = g.weights((count, *x.shape[1:]), x.dtype)
        return g.emit("ScatterND", [x, g.const(rows), updates], reduction=reduction)
    shape = list(x.shape)
    shape[axis] = g.rng.randint(1, x.shape[axis])
    order = np.argsort(g.noise.random(x.shape), axis)
    at = np.take(order, range(shape[axis]), axis).astype(np.int64)
    return g.emit("ScatterElements", [x, g.const(at), g.weights(shape, x.dtype)], axis=axis, reduction=reduction)


def pad(g: Grower) -> bool | None:
    x = g.pick(_PLAIN, range(1, 5), 1)
    if x is None:
        return None
    mode = g.rng.choice(["constant", "edge", "reflect", "wrap"])
    most = [s - 1 if mode == "reflect" else s if mode == "wrap" else 2 for s in x.shape]
    amounts = [g.rng.randint(0, min(2, m)) for m in most * 2]
    value = (
        [g.const(np.asarray(1.5 if x.floating else 3, x.dtype))] if mode == "constant" and g.rng.random() < 0.5 else []
    )
    return g.emit("Pad", [x, g.const(np.asarray(amounts, np.int64)), *value], mode=mode)


def shape_of(g: Grower) -> bool | None:
    x = g.pick(ANY, range(1, 7))
    if x is None:
        return None
    return g.emit(g.rng.choice(["Shape", "Size"]), [x])


def position(g: Grower) -> bool | None:
    x = g.pick(_PLAIN[:2] + _PLAIN[3:], range(1, 7), 1)
    if x is None:
        return None
    kind = g.rng.choice(["Trilu", "DepthToSpace", "SpaceToDepth", "OneHot", "ReverseSequence", "NonZero"])
    if kind == "Trilu" and len(x.shape) >= 2:
        return g.emit(kind, [x, g.const(np.asarray(g.rng.randint(-2, 2), np.int64))], upper=g.rng.randint(0, 1))
    if kind == "DepthToSpace" and len(x.shape) == 4 and x.shape[1] % 4 == 0:
        return g.emit(kind, [x], blocksize=2, mode=g.rng.choice(["DCR", "CRD"]))
    if kind == "SpaceToDepth" and len(x.shape) == 4 and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
        return g.emit(kind, [x], blocksize=2)
    if kind == "OneHot" and x.dtype == "int64":
        pair = g.const(np.asarray([0.0, 1.5], np.float32))
        return g.emit(kind, [x, g.const(np.asarray(6, np.int64)), pair], axis=g.rng.choice([-1, 0]))
    if kind == "ReverseSequence" and len(x.shape) >= 2:
        lengths = g.noise.integers(1, x.shape[0] + 1, (x.shape[1],)).astype(np.int64)
        return g.emit(kind, [x, g.const(lengths)], batch_axis=1, time_axis=0)
    if kind == "NonZero" and x.dtype in ("int64", "int32"):
        return g.emit(kind, [x])
    return None


#: name -> (entry, how often)
OPERATORS: dict[str, tuple[Entry, int]] = {
    "unary": (unary, 12),
    "activation": (activation, 6),
    "binary": (binary, 14),
    "several": (several, 2),
    "compare": (compare, 3),
    "logic": (logic, 2),
    "bits": (bits, 2),
    "where": (where, 3),
    "clip": (clip, 3),
    "cast": (cast, 4),
    "reduction": (reduction, 8),
    "arg": (arg, 2),
    "cumulative": (cumulative, 3),
    "top": (top, 2),
    "reshape": (reshape, 7),
    "transpose": (transpose, 6),
    "expand": (expand, 4),
    "concat": (concat, 5),
    "split": (split, 4),
    "slices": (slices, 5),
    "gather": (gather, 4),
    "scatter": (scatter, 3),
    "pad": (pad, 3),
    "shape": (shape_of, 1),
    "position": (position, 4),
    **tables_nn.OPERATORS,
    **tables_control.OPERATORS,
}
