"""Addresses: an index expression becomes a sum of products, and the sum a chain of pointers from outer to inner loops.

Each term is added in the outermost scope where it is known; the constant part comes last, where the processor's
addressing modes swallow it. So all accesses of an unrolled tile share one pointer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm.emitter import Value
from warpbeam.codegen.llvm.types import element_bytes
from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E
from warpbeam.tir.analysis.lane_offsets import lane_offsets

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

Terms = dict[tuple[E.PrimExpr, ...], int]


def polynomial(fn: FunctionPrinter, expr: E.PrimExpr, times: int = 1) -> tuple[Terms, int]:
    """`expr` * times as a sum of coef * product of atoms, plus a constant. Atoms are in order of first sight."""
    known = fn.polynomials.get((expr, times))
    if known is None:
        known = fn.polynomials[expr, times] = _polynomial(fn, expr, times)
    return known


def _polynomial(fn: FunctionPrinter, expr: E.PrimExpr, times: int) -> tuple[Terms, int]:
    terms: Terms = {}
    constant = 0
    stack: list[tuple[E.PrimExpr, int, tuple[E.PrimExpr, ...]]] = [(expr, times, ())]
    while stack:
        e, coef, factors = stack.pop()
        if isinstance(e, E.Add):
            stack += ((e.b, coef, factors), (e.a, coef, factors))
        elif isinstance(e, E.Sub):
            stack += ((e.b, -coef, factors), (e.a, coef, factors))
        elif isinstance(e, E.IntImm):
            if factors:
                terms[factors] = terms.get(factors, 0) + coef * e.value
            else:
                constant += coef * e.value
        elif isinstance(e, E.Mul):
            a, b = (e.b, e.a) if isinstance(e.a, E.IntImm) else (e.a, e.b)
            if isinstance(b, E.IntImm):
                stack.append((a, coef * b.value, factors))
            elif not isinstance(b, (E.Add, E.Sub)):
                stack.append((a, coef, _with(fn, factors, b)))
            elif not isinstance(a, (E.Add, E.Sub)):
                stack.append((b, coef, _with(fn, factors, a)))
            else:
                key = _with(fn, factors, e)
                terms[key] = terms.get(key, 0) + coef
        else:
            key = _with(fn, factors, e)
            terms[key] = terms.get(key, 0) + coef
    return {k: c for k, c in terms.items() if c}, constant


def _with(fn: FunctionPrinter, factors: tuple[E.PrimExpr, ...], atom: E.PrimExpr) -> tuple[E.PrimExpr, ...]:
    """A product with one more atom, sorted by first sight (products of atoms may be nested: `i*n` counts as two)."""
    new: list[E.PrimExpr] = []
    stack = [atom]
    while stack:
        e = stack.pop()
        if isinstance(e, E.Mul) and not isinstance(e.a, E.IntImm) and not isinstance(e.b, E.IntImm):
            stack += (e.b, e.a)
        else:
            new.append(e)
    order = fn.atom_order
    for e in new:
        order.setdefault(e, len(order))
    return tuple(sorted((*factors, *new), key=order.__getitem__))


def flatten(fn: FunctionPrinter, buffer: E.Buffer, indices: tuple[E.PrimExpr, ...]) -> tuple[Terms, int]:
    """The element offset of scalar indices."""
    total: Terms = {}
    constant = 0
    for index, stride in zip(indices, analysis.strides(buffer), strict=True):
        known = analysis.const_int(stride)
        terms, base = polynomial(fn, E.mul(index, stride)) if known is None else polynomial(fn, index, known)
        constant += base
        for key, coef in terms.items():
            total[key] = total.get(key, 0) + coef
    return {k: c for k, c in total.items() if c}, constant


def pointer(fn: FunctionPrinter, buffer: E.Buffer, terms: Terms, constant: int) -> Value:
    """The address of the element at `terms` + `constant`."""
    size = element_bytes(buffer.dtype)
    address = _outer_pointer(fn, buffer, terms, size)
    if constant:
        address = fn.op(f"getelementptr i8, {address}, i64 {constant * size}", "ptr", address)
    return address


def _outer_pointer(fn: FunctionPrinter, buffer: E.Buffer, terms: Terms, size: int) -> Value:
    """The address of the element at `terms`: that of all accesses which differ in the constant only."""
    address = fn.base(buffer)
    if not terms:
        return address
    place = (address.name, size, *terms.items())
    known = fn.places.get(place)
    if known is not None and fn.visible(known.scope):
        return known
    products = [(_product(fn, key), coef * size) for key, coef in terms.items()]
    products.sort(key=lambda p: p[0].scope.depth)
    done = 0
    while done < len(products):
        depth = products[done][0].scope.depth
        group = [p for p in products[done:] if p[0].scope.depth == depth]
        done += len(group)
        total: Value | None = None
        for value, factor in group:
            scaled = scale(fn, value, factor)
            total = scaled if total is None else fn.op(f"add i64 {total.name}, {scaled.name}", "i64", total, scaled)
        assert total is not None
        address = fn.op(f"getelementptr i8, {address}, {total}", "ptr", address, total)
    if address.pure and fn.mask is None:
        fn.places[place] = address
    return address


def scale(fn: FunctionPrinter, value: Value, factor: int) -> Value:
    """value * factor, a shift where possible."""
    if factor == 1:
        return value
    if factor > 0 and factor & (factor - 1) == 0:
        return fn.op(f"shl i64 {value.name}, {factor.bit_length() - 1}", "i64", value)
    return fn.op(f"mul i64 {value.name}, {factor}", "i64", value)


def _product(fn: FunctionPrinter, atoms: tuple[E.PrimExpr, ...]) -> Value:
    """The product of atoms, outermost scopes first."""
    values = sorted((index64(fn, a) for a in atoms), key=lambda v: v.scope.depth)
    out = values[0]
    for v in values[1:]:
        out = fn.op(f"mul i64 {out.name}, {v.name}", "i64", out, v)
    return out


def index64(fn: FunctionPrinter, expr: E.PrimExpr) -> Value:
    """A scalar integer expression as i64."""
    value = fn.value(expr)
    bits = dt.bits(expr.dtype)
    if bits == 64:
        return value
    extend = "zext" if dt.is_unsigned(expr.dtype) or dt.is_bool(expr.dtype) else "sext"
    return fn.op(f"{extend} {value} to i64", "i64", value)


# ------------------------------------------------------------------------------------------------------------- vectors


def as_ramp(expr: E.PrimExpr) -> tuple[E.PrimExpr, E.PrimExpr] | None:
    """(base, stride) of a vector index that is an arithmetic progression, else None."""
    if isinstance(expr, E.Ramp):
        return expr.base, expr.stride
    if isinstance(expr, E.Broadcast):
        return expr.value, E.const(0, expr.value.dtype)
    if isinstance(expr, (E.Add, E.Sub)):
        a, b = as_ramp(expr.a), as_ramp(expr.b)
        if a is None or b is None:
            return None
        combine: Any = E.add if isinstance(expr, E.Add) else E.sub
        return combine(a[0], b[0]), combine(a[1], b[1])
    if isinstance(expr, E.Mul):
        a, b = as_ramp(expr.a), as_ramp(expr.b)
        if a is None or b is None:
            return None
        if analysis.const_int(a[1]) == 0:
            a, b = b, a
        if analysis.const_int(b[1]) != 0:
            return None
        return E.mul(a[0], b[0]), E.mul(a[1], b[0])
    if isinstance(expr, E.Cast) and dt.scalar(expr.dtype) == "int64" and dt.scalar(expr.value.dtype) == "int32":
        inner = as_ramp(expr.value)
        return None if inner is None else (E.cast("int64", inner[0]), E.cast("int64", inner[1]))
    return None


def lane_distances(buffer: E.Buffer, indices: tuple[E.PrimExpr, ...]) -> tuple[list[E.PrimExpr], int] | None:
    """(indices of the first lane, distance of neighbours in elements) where lanes that run over several dimensions are
    equally far apart in memory, such as [Ramp(0, 1, 64) // 4, Ramp(0, 1, 64) % 4] in a buffer of rows of 4."""
    lanes = max(dt.lanes(i.dtype) for i in indices)
    first, total = [], [0] * lanes
    for index, stride in zip(indices, analysis.strides(buffer), strict=True):
        found = lane_offsets(index, lanes)
        step = analysis.const_int(stride)
        if found is None or (step is None and any(found[1])):
            return None
        first.append(found[0])
        total = [t + (step or 0) * k for t, k in zip(total, found[1], strict=True)]
    distances = {b - a for a, b in pairwise(total)}
    return (first, distances.pop()) if len(distances) == 1 else None


class Access:
    """Where a load or store goes.

    Attributes:
        lanes: number of elements.
        pointer: address of the first element (of the buffer, if `offsets`).
        stride: constant distance of lanes in elements.
        offsets: i64 vector of element offsets when lanes are no progression with constant stride.
    """

    __slots__ = ("constant", "lanes", "offsets", "pointer", "stride", "terms")

    def __init__(self, fn: FunctionPrinter, buffer: E.Buffer, indices: tuple[E.PrimExpr, ...]) -> None:
        self.lanes = max([dt.lanes(i.dtype) for i in indices], default=1)
        self.stride = 1
        self.offsets: Value | None = None
        scalars, steps = [], []
        zero = E.as_expr(0)
        for index in indices:
            ramp = as_ramp(index) if dt.lanes(index.dtype) > 1 else (index, zero)
            scalars.append(zero if ramp is None else ramp[0])
            steps.append(None if ramp is None else ramp[1])
        if any(s is None for s in steps):
            found = lane_distances(buffer, indices)
            if found is not None:
                scalars, self.stride = found
                steps = []
        self.terms, self.constant = flatten(fn, buffer, tuple(scalars))
        self.pointer = pointer(fn, buffer, self.terms, self.constant)
        if self.lanes == 1 or not steps:
            return
        if all(s is not None for s in steps):
            if all(s is zero for s in steps[:-1]) and type(steps[-1]) is E.IntImm:  # most are
                self.stride = steps[-1].value
                return
            terms, constant = flatten(fn, buffer, tuple(s for s in steps if s is not None))
            if not terms:
                self.stride = constant
                return
        self.offsets = self._offsets(fn, buffer, indices)
        self.pointer = fn.base(buffer)

    def _offsets(self, fn: FunctionPrinter, buffer: E.Buffer, indices: tuple[E.PrimExpr, ...]) -> Value:
        total: E.PrimExpr | None = None
        for index, stride in zip(indices, analysis.strides(buffer), strict=True):
            part = E.cast(dt.with_lanes("int64", dt.lanes(index.dtype)), index)
            if dt.lanes(part.dtype) == 1:
                part = E.Broadcast(E.mul(part, stride), self.lanes)
            elif analysis.const_int(stride) != 1:
                part = E.Mul(part, E.Broadcast(stride, self.lanes))
            total = part if total is None else E.Add(total, part)
        assert total is not None
        return fn.value(total)

    def lane_pointer(self, fn: FunctionPrinter, buffer: E.Buffer, lane: int) -> Value:
        """The address of one lane."""
        size = element_bytes(buffer.dtype)
        if self.offsets is None:
            return pointer(fn, buffer, self.terms, self.constant + lane * self.stride)
        offset = fn.op(f"extractelement {self.offsets}, i64 {lane}", "i64", self.offsets)
        scaled = scale(fn, offset, size)
        return fn.op(f"getelementptr i8, {self.pointer}, {scaled}", "ptr", self.pointer, scaled)
