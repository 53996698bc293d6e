"""Layouts as index maps: a buffer's elements in another order, with other dimensions, perhaps padded.

A layout is plain data: {"shape": original, "packed": new, "map": one expression per new dimension}, where an expression
is an int, "i0", "i1", … (an original index) or a tuple (operator, a, b) with + - * // % min max.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_block, is_param, read, written
from warpbeam.tir.analysis.regions import Range, interval
from warpbeam.tir.analysis.tree import Place, tree_of
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.arith.iter_map import is_injective
from warpbeam.tir.expr import Buffer, BufferLoad, IntImm, PrimExpr, Var
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import Allocate, Block, BufferStore, PrimFunc, Stmt

_OPS: dict[str, tuple[type, Callable[[Any, Any], Any]]] = {
    "+": (e.Add, lambda a, b: a + b),
    "-": (e.Sub, lambda a, b: a - b),
    "*": (e.Mul, lambda a, b: a * b),
    "//": (e.FloorDiv, lambda a, b: a // b),
    "%": (e.FloorMod, lambda a, b: a % b),
    "min": (e.Min, np.minimum),
    "max": (e.Max, np.maximum),
}
_SIGNS = {cls: sign for sign, (cls, _) in _OPS.items()}
_BUILD = {"+": e.add, "-": e.sub, "*": e.mul, "//": e.floordiv, "%": e.floormod, "min": e.minimum, "max": e.maximum}


@dataclass(frozen=True, slots=True)
class TransformLayout(Step):
    """Stores a buffer by an index map; every access changes with it. `map` holds one plain expression per dimension.

    W[n, k]  with  (n, k) -> (n // 64, k, n % 64)      ->      W[n // 64, k, n % 64]

    Elements of the new shape that no index reaches are padding (zero in a packed parameter). For a parameter the layout
    is recorded in func.attrs["layouts"][name]; the caller passes the packed array, see `apply_layout`.
    """

    buffer: str
    map: tuple[Any, ...]

    def run(self, func: PrimFunc) -> tuple[PrimFunc, Attrs]:
        tree = tree_of(func)
        old = tree.buffers.get(self.buffer)
        if old is None:
            raise ScheduleError(f"there is no buffer {self.buffer!r}", hint=f"buffers: {', '.join(tree.buffers)}")
        shape = _packed_shape(old, self.map)
        new = Buffer(old.name, shape, old.dtype, old.scope)
        names = tuple(Var(f"i{k}") for k in range(len(old.shape)))
        targets = tuple(to_expr(m, names) for m in self.map)

        def change(n: Any) -> Any:
            if isinstance(n, BufferLoad | BufferStore) and n.buffer is old:
                if any(dt.lanes(i.dtype) > 1 for i in n.indices):
                    raise ScheduleError(
                        f"layout of {old.name}: an instruction reaches it in vectors",
                        hint="transform_layout before tensorize",
                    )
                at: dict[Any, Any] = dict(zip(names, n.indices, strict=True))
                index = tuple(substitute(t, at) for t in targets)
                return BufferLoad(new, index) if isinstance(n, BufferLoad) else BufferStore(new, n.value, index)
            return None

        changes: dict[Place, Stmt | None] = {}
        for p in tree.blocks.values():
            b = as_block(p)
            if old in read(b, own=True) or old in written(b):
                init = None if b.init is None else rewrite(b.init, change)
                body = rewrite(b.body, change)
                changes[p] = Block(b.name, b.axes, b.bindings, b.predicate, init, body, b.annotations)
        body = tree.replace(changes)
        for a in reversed(tree.allocs):
            body = Allocate(new if a.buffer is old else a.buffer, body, a.annotations)
        params = tuple(new if p is old else p for p in func.params)
        layout = Attrs({"shape": old.shape, "packed": shape, "map": self.map})
        attrs = func.attrs
        if is_param(tree, old):
            known = dict(attrs.get("layouts", {}))
            if self.buffer in known:
                raise ScheduleError(f"parameter {self.buffer} has a layout already", hint="give one index map")
            attrs = attrs.updated(layouts=Attrs({**known, self.buffer: layout}))
        return PrimFunc(func.name, params, body, attrs), layout


def _packed_shape(old: Buffer, maps: tuple[Any, ...]) -> tuple[Any, ...]:
    names = tuple(Var(f"i{k}") for k in range(len(old.shape)))
    zero = e.const(0)
    env = {v: Range((zero,), (e.as_expr(d) - 1,)) for v, d in zip(names, old.shape, strict=True)}
    facts = Facts()
    shape = []
    for m in maps:
        r = interval(to_expr(m, names), env)
        low = None if r is None else simplify(r.low, facts)
        if r is None or not (isinstance(low, IntImm) and low.value >= 0):
            raise ScheduleError(f"layout of {old.name}: dimension {m} does not start at 0 or cannot be bounded")
        shape.append(simplify(r.high + 1, facts))
    if not is_injective([to_expr(m, names) for m in maps], dict(zip(names, old.shape, strict=True))):
        raise ScheduleError(
            f"layout of {old.name}: {maps} is not proven to give each element a place of its own",
            hint="take indices apart with // and % of one number, permute them, or join them as i * extent + j",
        )
    return tuple(e.simplify_dim(s) for s in shape)


def plain_map(index_map: Callable[..., Any], ndim: int) -> tuple[Any, ...]:
    """An index map given as a Python function, as plain data."""
    variadic = any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(index_map).parameters.values())
    if not variadic and len(inspect.signature(index_map).parameters) != ndim:
        raise ScheduleError(f"the index map takes {len(inspect.signature(index_map).parameters)} indices, not {ndim}")
    names = [Var(f"i{k}") for k in range(ndim)]
    out = index_map(*names)
    if not isinstance(out, list | tuple):
        out = (out,)
    return tuple(to_plain(e.as_expr(v), names) for v in out)


def to_plain(expr: PrimExpr, names: list[Var]) -> Any:
    """An index expression as plain data."""
    if isinstance(expr, IntImm):
        return expr.value
    if isinstance(expr, Var) and expr in names:
        return f"i{names.index(expr)}"
    sign = _SIGNS.get(type(expr))
    if sign is None:
        raise ScheduleError(f"a {type(expr).__name__} cannot be part of a layout", hint=f"use {', '.join(_OPS)}")
    return (sign, to_plain(expr.a, names), to_plain(expr.b, names))  # type: ignore[attr-defined]


def to_expr(plain: Any, names: tuple[Var, ...]) -> PrimExpr:
    """Plain data as an expression over the given index variables."""
    if isinstance(plain, int):
        return e.const(plain)
    if isinstance(plain, str):
        return names[int(plain[1:])]
    return _BUILD[plain[0]](to_expr(plain[1], names), to_expr(plain[2], names))


def apply_layout(
    array: np.ndarray[Any, Any], layout: Mapping[str, Any], out: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """The packed copy of an array of the layout's original shape, in `out` if given; padding is zero.

    Raises ScheduleError where the shape differs or is symbolic.
    """
    if tuple(array.shape) != tuple(layout["shape"]):
        raise ScheduleError(f"the layout is for shape {layout['shape']}, the array has {array.shape}")
    packed = np.empty(tuple(layout["packed"]), array.dtype) if out is None else out
    blocked = _blocked(array, layout)
    if blocked is not None:
        packed[...] = blocked
        return packed
    grid = np.indices(array.shape, dtype=np.int64, sparse=True)
    index = tuple(_evaluate(m, grid) for m in layout["map"])
    packed.fill(0)
    packed[index] = array
    return packed


def _blocked(array: np.ndarray[Any, Any], layout: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    """The packed array as a transposition, where each index moves whole or as its quotient and remainder by one block;
    None for other maps.
    """
    place = {plain: k for k, plain in enumerate(layout["map"])}
    split: list[int] = []  # dimensions of the array after splitting
    source: list[int] = []  # the packed dimension of each
    pads = []
    for axis, extent in enumerate(array.shape):
        name = f"i{axis}"
        whole, outer = place.get(name), next((p for p in place if type(p) is tuple and p[:2] == ("//", name)), None)
        if whole is not None:
            sizes, at, room = [extent], [whole], extent
        elif outer is not None and type(outer[2]) is int and ("%", name, outer[2]) in place:
            at = [place[outer], place["%", name, outer[2]]]
            sizes = [int(layout["packed"][at[0]]), outer[2]]
            room = sizes[0] * sizes[1]
        else:
            return None
        split += sizes
        source += at
        pads.append((0, room - extent))
    if sorted(source) != list(range(len(layout["map"]))) or any(after < 0 for _, after in pads):
        return None
    if [split[source.index(k)] for k in range(len(source))] != list(layout["packed"]):
        return None
    padded = np.pad(array, pads) if any(after for _, after in pads) else array
    return padded.reshape(split).transpose(np.argsort(source))


def _evaluate(plain: Any, grid: Any) -> Any:
    if isinstance(plain, int):
        return np.int64(plain)
    if isinstance(plain, str):
        return grid[int(plain[1:])]
    return _OPS[plain[0]][1](_evaluate(plain[1], grid), _evaluate(plain[2], grid))
