"""Several artefacts of one model, each for some sizes, and which of them serves a request.

A size between two buckets is padded to the next where it is proven that the model treats each position by itself:
every stage that computes over an axis of that size reads other tensors' axes of that size at its own position, and
none sums over one, or asks how long it is. Then what stands in the padding reaches nothing but the padding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from warpbeam.driver import source
from warpbeam.driver.kernels import is_direct
from warpbeam.driver.pipeline import optimize
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Constant, Function, Tuple, TupleGetItem
from warpbeam.relay.expr import Var as Parameter
from warpbeam.runtime.errors import RunError
from warpbeam.target import Target
from warpbeam.te.operation import ComputeOp, PlaceholderOp, ProducerLoad, operations
from warpbeam.tir.expr import Var
from warpbeam.topi import dims
from warpbeam.transform.fuse_ops import group_tensors, primitives

PADS = ("auto", "always", "never")
_MOST = 64  # artefacts


class Bucketed:
    """What `compile` gives for buckets. Called or run like a module.

    modules: by the sizes they are for, in the order of `names`. whole: the one for all sizes, None with pad="always".
    why: what stands in the way of padding, empty where nothing does.
    """

    def __init__(
        self, names: Sequence[str], modules: Mapping[tuple[int, ...], Any], whole: Any, shapes: Mapping[str, Any],
        outputs: Mapping[str, Sequence[Any]], why: str, pad: bool,
    ) -> None:  # fmt: skip
        self.names = tuple(names)
        self.modules = dict(sorted(modules.items()))
        self.whole = whole
        self.why = why
        self.pads = pad
        self._shapes = {n: tuple(s) for n, s in shapes.items()}
        self._outputs = {n: tuple(s) for n, s in outputs.items()}

    def sizes(self, inputs: Mapping[str, Any]) -> tuple[int, ...]:
        """The bucketed sizes of a request.

        Raises:
            RunError: where an input is missing, has another rank, or two of them differ in a size.
        """
        found: dict[str, int] = {}
        for name, shape in self._shapes.items():
            if name not in inputs:
                raise RunError(f"input {name!r} is missing", why=f"given: {', '.join(inputs)}")
            have = np.shape(inputs[name])
            if len(have) != len(shape):
                raise RunError(f"input {name!r} has shape {have}", why=f"the model's has {len(shape)} dimensions")
            for d, n in zip(shape, have, strict=True):
                if d in self.names and found.setdefault(d, n) != n:
                    raise RunError(f"size {d} is {found[d]} and {n}", name, "one name is one size")
        return tuple(found[n] for n in self.names)

    def chosen(self, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        """The sizes of the module that serves a request: the smallest that holds it; None: the one for all sizes."""
        if sizes in self.modules:
            return sizes
        if not self.pads or 0 in sizes:
            return None
        fits = [b for b in self.modules if all(n <= m for n, m in zip(sizes, b, strict=True))]
        return min(fits, key=math.prod, default=None)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, of the request's own sizes.

        Raises:
            RunError: as `Module.run`, and with pad="always" for sizes beyond all buckets.
        """
        sizes = self.sizes(inputs)
        bucket = self.chosen(sizes)
        if bucket is None and self.whole is None:
            text = ", ".join(f"{n}={s}" for n, s in zip(self.names, sizes, strict=True))
            raise RunError(f"no bucket holds {text}", why=f"there are {list(self.modules)}", hint='pad="auto"')
        if bucket is None or bucket == sizes:
            module = self.whole if bucket is None else self.modules[bucket]
            return dict(module.run(inputs))
        to, own = dict(zip(self.names, bucket, strict=True)), dict(zip(self.names, sizes, strict=True))
        padded = {n: self._padded(np.asarray(inputs[n]), s, to) for n, s in self._shapes.items()}
        got = self.modules[bucket].run(padded)
        return {n: a[tuple(slice(own.get(d)) for d in self._outputs[n])] for n, a in got.items()}

    def _padded(self, array: Any, shape: Sequence[Any], to: Mapping[str, int]) -> Any:
        """The last position repeated: values like those that are there, so that nothing fails that did not before."""
        widths = [(0, to[d] - n if d in to else 0) for d, n in zip(shape, array.shape, strict=True)]
        return np.pad(array, widths, mode="edge") if any(b for _, b in widths) else array

    def __call__(self, *arrays: Any) -> Any:
        """Results for inputs in order, as a module's call gives them."""
        got = tuple(self.run(dict(zip(self._shapes, arrays, strict=True))).values())
        return got[0] if len(got) == 1 else got


def compile_buckets(
    model: Any, buckets: Mapping[str, Sequence[int]], pad: str, target: Target, shapes: Mapping[str, Any] | None,
    compiled: Any,
) -> Bucketed:  # fmt: skip
    """Compiles a model for buckets of sizes. compiled(shapes): the module for these sizes.

    Raises:
        CompileError: for buckets that the model has no size for, and with pad="always" where padding is not safe.
    """
    given = dict(shapes or {})
    _check(buckets, pad)
    found = source.read(model, given or None)
    main = found.module["main"]
    variables = {v.name: v for p in main.params for v in p.ty.shape if isinstance(v, Var)}
    unknown = [n for n in buckets if n not in variables]
    if unknown:
        known = ", ".join(variables) or "none"
        raise CompileError(f"no size is named {unknown[0]!r}", "buckets", f"the model's open sizes are: {known}")
    names = list(buckets)
    why = "" if pad == "never" else obstacle(found.module, [variables[n] for n in names], target)
    if pad == "always" and why:
        raise CompileError("padding would change results", "buckets", why, 'pad="auto" pads where it is safe only')
    results = main.body.ty.fields if hasattr(main.body.ty, "fields") else (main.body.ty,)
    return Bucketed(
        names,
        {b: compiled({**given, **dict(zip(names, b))}) for b in itertools.product(*(buckets[n] for n in names))},
        None if pad == "always" else compiled(given or None),
        {n: [named(d) for d in p.ty.shape] for n, p in zip(found.inputs, main.params)},
        {n: [named(d) for d in t.shape] for n, t in zip(found.outputs, results)},
        why,
        pad != "never" and not why,
    )


def _check(buckets: Mapping[str, Sequence[int]], pad: str) -> None:
    if pad not in PADS:
        raise CompileError(f"pad={pad!r}", "buckets", f"it is one of {', '.join(PADS)}")
    for name, sizes in buckets.items():
        if not sizes or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sizes):
            raise CompileError(f"buckets of {name!r} are {sizes!r}", "buckets", "they are numbers from 1 on")
    if not buckets or math.prod(len(set(s)) for s in buckets.values()) > _MOST:
        raise CompileError(f"there are no buckets, or more than {_MOST} combinations", "buckets")


def named(dim: Any) -> Any:
    """A dimension as a request sees it: its name, a number, or an expression."""
    return dim.name if isinstance(dim, Var) else dim


def obstacle(mod: Any, sizes: Iterable[Var], target: Target) -> str:
    """What keeps padding of these sizes from being proven harmless; empty where nothing does."""
    plain, sizes = optimize(mod, 0, target), frozenset(sizes)
    if len(plain.functions) > 1:
        return "the model has loops or branches"
    main = plain["main"]
    for n in post_order(main.body, enter=lambda n: not isinstance(n, Function)):
        call = isinstance(n, Call) and isinstance(n.op, Function) and n.op.attrs.get("Primitive")
        if not call and not isinstance(n, Tuple | TupleGetItem | Constant | Parameter | Function):
            return f"nothing is known of {type(n).__name__} nodes"
    for fn in primitives(main):
        where = ", ".join(fn.attrs.get("origins", ())) or "the model"
        if is_direct(fn):
            return f"{where}: its loops are not known"
        for op in operations(group_tensors(fn)[1]):
            if isinstance(op, PlaceholderOp):
                continue
            why = _mixes(op, sizes) if isinstance(op, ComputeOp) else "its loops are not known"
            if why:
                return f"{where}: {why}"
    return ""


def _mixes(op: ComputeOp, sizes: frozenset[Var]) -> str:
    """What makes an element depend on other positions along the sizes than its own; empty where nothing does."""

    def depends(value: Any) -> bool:
        return not isinstance(value, int) and any(v in sizes for v in post_order(value))

    own = {}
    for axis in op.axis:
        extent = dims.dim(axis.extent)
        if depends(extent):
            if extent not in sizes:
                return f"it has {dims.text(extent)} elements along a dimension"
            own[axis.var] = extent
    for axis in op.reduce_axis:
        if depends(axis.extent):
            return f"it reduces over {dims.text(axis.extent)}"
    for n in post_order(*op.body):
        if n in sizes:
            return f"it computes with the size {dims.text(n)}"
        if isinstance(n, ProducerLoad):
            for extent, index in zip(n.tensor.shape, n.indices, strict=True):
                extent = dims.dim(extent)
                if depends(extent) and (extent not in sizes or own.get(index) is not extent):
                    return f"an element reads others along {dims.text(extent)} than its own"
    return ""
