"""Loads and stores: contiguous vectors, strided ones by shuffles, gathers and scatters lane by lane, masked ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm.address import Access, pointer
from warpbeam.codegen.llvm.emitter import Value
from warpbeam.codegen.llvm.types import element_bytes, memory_type, value_type, vector
from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

_MAX_SHUFFLED_STRIDE = 4


def load(fn: FunctionPrinter, node: E.BufferLoad) -> Value:
    """The value of a load; a register buffer's is the SSA value it holds now."""
    if node.buffer in fn.facts.slots:
        return _load_register(fn, node)
    access = Access(fn, node.buffer, node.indices)
    element = memory_type(node.buffer.dtype)
    type = vector(element, access.lanes)
    if fn.mask is not None:
        value = _load_masked(fn, node.buffer, access, element, type)
    elif access.lanes > 1 and access.offsets is None and access.stride == 0:
        value = splat(fn, load_at(fn, node.buffer, access.pointer, element), access.lanes)
    elif access.offsets is None and access.stride == 1:
        value = load_at(fn, node.buffer, access.pointer, type)
    elif access.offsets is None and access.lanes > 2 and 2 <= access.stride <= _MAX_SHUFFLED_STRIDE:
        value = _load_strided(fn, node.buffer, access, element)
    elif access.offsets is None and access.stride == -1:
        first = access.constant - access.lanes + 1
        low = load_at(fn, node.buffer, pointer(fn, node.buffer, access.terms, first), type)
        value = shuffle(fn, low, low, [access.lanes - 1 - i for i in range(access.lanes)])
    else:
        value = _load_lanes(fn, node.buffer, access, element)
    return from_memory(fn, value, node.buffer.dtype, access.lanes)


def from_memory(fn: FunctionPrinter, value: Value, dtype: str, lanes: int) -> Value:
    """Bytes of bools become i1."""
    if not dt.is_bool(dt.scalar(dtype)):
        return value
    type = vector("i1", lanes)
    return fn.op(f"icmp ne {value}, {fn.number(0, value.type).name}", type, value)


def to_memory(fn: FunctionPrinter, value: Value, dtype: str, lanes: int) -> Value:
    """i1 becomes a byte."""
    if not dt.is_bool(dt.scalar(dtype)):
        return value
    type = vector("i8", lanes)
    return fn.op(f"zext {value} to {type}", type, value)


def load_at(fn: FunctionPrinter, buffer: E.Buffer, address: Value, type: str) -> Value:
    align, odd = element_bytes(buffer.dtype), _odd(fn, type)
    if odd is None:
        return fn.load(f"load {type}, {address}, align {align}", type, buffer, address)
    name = f"llvm.masked.load.{odd.suffix}"
    fn.module.declare(name, odd.whole, f"ptr, {odd.flags}, {odd.whole}")
    pointed = f"ptr align {align} {address.name}"
    call = f"call {odd.whole} @{name}({pointed}, {odd.flags} {odd.mask}, {odd.whole} zeroinitializer)"
    return shuffle_one(fn, fn.load(call, odd.whole, buffer, address), range(lanes_in(type)))


def _store_at(
    fn: FunctionPrinter, buffer: E.Buffer, address: Value, value: Value, access: Access | None = None
) -> None:
    align, odd = element_bytes(buffer.dtype), _odd(fn, value.type)
    if access is not None and buffer in fn.bypass and _whole_line(fn, buffer, access):
        fn.line(f"store {value}, {address}, align {fn.target.line}, !nontemporal !{{i32 1}}")
        return
    if odd is None:
        fn.line(f"store {value}, {address}, align {align}")
        return
    name = f"llvm.masked.store.{odd.suffix}"
    fn.module.declare(name, "void", f"{odd.whole}, ptr, {odd.flags}")
    wide = shuffle_one(fn, value, range(lanes_in(odd.whole)))
    fn.line(f"call void @{name}({wide}, ptr align {align} {address.name}, {odd.flags} {odd.mask})")


def _whole_line(fn: FunctionPrinter, buffer: E.Buffer, access: Access) -> bool:
    """Whether a vector is exactly a line, wherever loops stand, in a buffer that begins with one."""
    size, line = element_bytes(buffer.dtype), fn.target.line
    steps = (*access.terms.values(), access.constant)
    return access.lanes * size == line and all(k * size % line == 0 for k in steps)


def fence(fn: FunctionPrinter) -> None:
    """Waits until what was stored past the caches is there for other threads, where a function does that."""
    if fn.bypass:
        fn.module.declare("llvm.x86.sse.sfence", "void", "")
        fn.line("call void @llvm.x86.sse.sfence()")


class _Odd(NamedTuple):
    """A vector as part of a wider one: the ending of LLVM's functions, the wider type, its mask's type and value."""

    suffix: str
    whole: str
    flags: str
    mask: str


def _odd(fn: FunctionPrinter, type: str) -> _Odd | None:
    """How a vector is loaded and stored whose lanes are no power of two, where the machine has masks: it would
    go in pieces otherwise. None for others.
    """
    lanes, element = lanes_in(type), type[1:-1].partition(" x ")[2]
    bits = {"float": 32, "double": 64, "i32": 32, "i64": 64}.get(element, 0)
    whole = 1 << lanes.bit_length()
    if lanes & (lanes - 1) == 0 or not fn.target.masked_memory or not 0 < whole * bits <= fn.target.vector_bits:
        return None
    mask = ", ".join(f"i1 {'true' if i < lanes else 'false'}" for i in range(whole))
    return _Odd(f"v{whole}{_suffix(element)}.p0", vector(element, whole), f"<{whole} x i1>", f"<{mask}>")


def load_or_zero(fn: FunctionPrinter, node: E.Call) -> Value | None:
    """if_then_else(broadcast(c), neighbouring elements, 0): one load, of zeros where c does not hold. None for others.

    A masked load is worse: one whose lanes are all off, at an address that is not mapped, takes hundreds of cycles.
    """
    cond, arm, other = node.args
    plain = isinstance(arm, E.BufferLoad) and arm.buffer not in fn.facts.slots and other is E.const(0, other.dtype)
    if fn.mask is not None or not isinstance(cond, E.Broadcast) or not plain:
        return None
    access = Access(fn, arm.buffer, arm.indices)
    if access.lanes != cond.count or access.offsets is not None or access.stride != 1:
        return None
    type = vector(memory_type(arm.buffer.dtype), access.lanes)
    size = access.lanes * element_bytes(arm.buffer.dtype)
    zeros = f"@wb_zeros.{size}"
    line = f"{zeros} = private constant [{size} x i8] zeroinitializer, align 64"
    if line not in fn.module.globals:
        fn.module.globals.append(line)
    test = fn.value(cond.value)
    address = fn.op(f"select {test}, {access.pointer}, ptr {zeros}", "ptr", test, access.pointer)
    return from_memory(fn, load_at(fn, arm.buffer, address, type), arm.buffer.dtype, access.lanes)


def _load_strided(fn: FunctionPrinter, buffer: E.Buffer, access: Access, element: str) -> Value:
    """Lanes at a small stride: `stride` contiguous loads that end with the last lane, then shuffles."""
    lanes, stride = access.lanes, access.stride
    span = (lanes - 1) * stride + 1
    if span * 8 * element_bytes(buffer.dtype) <= fn.target.vector_bits:  # one vector holds them all
        first = pointer(fn, buffer, access.terms, access.constant)
        whole = load_at(fn, buffer, first, vector(element, span))
        return shuffle_one(fn, whole, [i * stride for i in range(lanes)])
    type = vector(element, lanes)
    starts = [min(i * lanes, span - lanes) for i in range(-(-span // lanes))]
    pieces = [load_at(fn, buffer, pointer(fn, buffer, access.terms, access.constant + start), type) for start in starts]
    out = pieces[0]
    found = {i: i * stride for i in range(lanes) if i * stride < lanes}
    for start, piece in zip(starts[1:], pieces[1:], strict=True):
        fresh = {
            i: lanes + i * stride - start for i in range(lanes) if i not in found and 0 <= i * stride - start < lanes
        }
        place = {**found, **fresh}
        out = shuffle(fn, out, piece, [place.get(i, 0) for i in range(lanes)])
        found = {i: i for i in place}
    return out


def _load_lanes(fn: FunctionPrinter, buffer: E.Buffer, access: Access, element: str) -> Value:
    """One scalar load per lane."""
    type = vector(element, access.lanes)
    out = fn.literal("poison", type)
    for lane in range(access.lanes):
        one = load_at(fn, buffer, access.lane_pointer(fn, buffer, lane), element)
        out = fn.op(f"insertelement {out}, {one}, i64 {lane}", type, out, one)
    return out


def _load_masked(fn: FunctionPrinter, buffer: E.Buffer, access: Access, element: str, type: str) -> Value:
    """A load within a vector if_then_else: lanes that are off are not touched and give zero."""
    mask = fn.mask
    assert mask is not None
    lanes = lanes_of(mask)
    zero = fn.undefined(vector(element, lanes))
    if access.lanes == 1 or access.stride != 1 or access.offsets is not None:
        return _gather_masked(fn, buffer, access, element, lanes, mask)
    suffix = f"v{lanes}{_suffix(element)}"
    fn.module.declare(f"llvm.masked.load.{suffix}.p0", type, f"ptr, {mask.type}, {type}")
    address = f"ptr align {element_bytes(buffer.dtype)} {access.pointer.name}"
    rhs = f"call {type} @llvm.masked.load.{suffix}.p0({address}, {mask}, {zero})"
    return fn.load(rhs, type, buffer, access.pointer, mask)


def _gather_masked(
    fn: FunctionPrinter, buffer: E.Buffer, access: Access, element: str, lanes: int, mask: Value
) -> Value:
    type, pointers = vector(element, lanes), f"<{lanes} x ptr>"
    if access.lanes == 1:
        address = splat(fn, access.pointer, lanes)
    else:
        address = fn.literal("poison", pointers)
        for lane in range(lanes):
            one = access.lane_pointer(fn, buffer, lane)
            address = fn.op(f"insertelement {address}, {one}, i64 {lane}", pointers, address, one)
    name = f"llvm.masked.gather.v{lanes}{_suffix(element)}.v{lanes}p0"
    zero = fn.undefined(type)
    fn.module.declare(name, type, f"{pointers}, {mask.type}, {type}")
    aligned = f"{pointers} align {element_bytes(buffer.dtype)} {address.name}"
    value = fn.load(f"call {type} @{name}({aligned}, {mask}, {zero})", type, buffer, address, mask)
    return value


def _suffix(element: str) -> str:
    return {"float": "f32", "double": "f64"}.get(element, element)


def shuffle(fn: FunctionPrinter, a: Value, b: Value, mask: list[int]) -> Value:
    """Lanes `mask` of a followed by b; both of one vector type. What is negative has no meaning."""
    scalar = a.type[1:-1].split(" x ", 1)[1]
    type = f"<{len(mask)} x {scalar}>"
    text = ", ".join(f"i32 {m if m >= 0 else 'poison'}" for m in mask)
    return fn.op(f"shufflevector {a}, {b}, <{len(mask)} x i32> <{text}>", type, a, b)


def shuffle_one(fn: FunctionPrinter, a: Value, picks: Sequence[int]) -> Value:
    """Lanes `picks` of a; those beyond its own have no meaning."""
    have, scalar = lanes_of(a), a.type[1:-1].split(" x ", 1)[1]
    text = ", ".join(f"i32 {m if m < have else 'poison'}" for m in picks)
    type = f"<{len(picks)} x {scalar}>"
    return fn.op(f"shufflevector {a}, {a.type} poison, <{len(picks)} x i32> <{text}>", type, a)


def splat(fn: FunctionPrinter, value: Value, lanes: int) -> Value:
    """A scalar in every lane."""
    if lanes == 1:
        return value
    type = vector(value.type, lanes)
    if not value.name.startswith(("%", "@")):
        return fn.literal(f"splat ({value})", type)
    one = fn.op(f"insertelement {type} poison, {value}, i64 0", type, value)
    return fn.op(f"shufflevector {one}, {type} poison, <{lanes} x i32> zeroinitializer", type, one)


def lanes_of(value: Value) -> int:
    """Lanes of an LLVM value."""
    return lanes_in(value.type)


def lanes_in(type: str) -> int:
    """Lanes of an LLVM type."""
    return int(type[1:].split(" ", 1)[0]) if type.startswith("<") else 1


def extract(fn: FunctionPrinter, value: Value, lane: int) -> Value:
    scalar = value.type[1:-1].split(" x ", 1)[1]
    return fn.op(f"extractelement {value}, i64 {lane}", scalar, value)


# ------------------------------------------------------------------------------------------------------------ registers


def _load_register(fn: FunctionPrinter, node: E.BufferLoad) -> Value:
    place = analysis.flat_offset(node.buffer, node.indices)
    assert place is not None
    offset, lanes = place
    start, width = fn.facts.slot_of(node.buffer, offset)
    whole = fn.registers.get((node.buffer, start))
    if whole is None:
        whole = fn.undefined(value_type(dt.with_lanes(node.buffer.dtype, width)))
    whole = Value(whole.name, whole.type, whole.scope, pure=False)
    if lanes == width:
        return whole
    if lanes == 1:
        return extract(fn, whole, offset - start)
    return shuffle(fn, whole, whole, list(range(offset - start, offset - start + lanes)))


def _store_register(fn: FunctionPrinter, buffer: E.Buffer, indices: tuple[E.PrimExpr, ...], value: Value) -> None:
    place = analysis.flat_offset(buffer, indices)
    assert place is not None
    offset, lanes = place
    start, width = fn.facts.slot_of(buffer, offset)
    if lanes != width:
        type = value_type(dt.with_lanes(buffer.dtype, width))
        whole = fn.registers.get((buffer, start)) or fn.undefined(type)
        value = _insert(fn, whole, value, offset - start, lanes, width)
    fn.registers[buffer, start] = value


def _insert(fn: FunctionPrinter, whole: Value, value: Value, at: int, lanes: int, width: int) -> Value:
    """`whole` with `lanes` lanes from `at` on replaced."""
    if lanes == 1:
        return fn.op(f"insertelement {whole}, {value}, i64 {at}", whole.type, whole, value)
    wide = shuffle(fn, value, value, [min(max(i - at, 0), lanes - 1) for i in range(width)])
    return shuffle(fn, whole, wide, [width + i if at <= i < at + lanes else i for i in range(width)])


# --------------------------------------------------------------------------------------------------------------- stores


def store(
    fn: FunctionPrinter, buffer: E.Buffer, indices: tuple[E.PrimExpr, ...], expr: E.PrimExpr, value: Value | None = None
) -> None:
    """Stores the value of `expr`, computed here unless it is given."""
    value = value or fn.value(expr)
    lanes = max([dt.lanes(i.dtype) for i in indices], default=1)
    if lanes > 1 and dt.lanes(expr.dtype) == 1:
        value = splat(fn, value, lanes)
    if buffer in fn.facts.slots:
        _store_register(fn, buffer, indices, value)
        return
    access = Access(fn, buffer, indices)
    value = to_memory(fn, value, buffer.dtype, lanes)
    align = element_bytes(buffer.dtype)
    if lanes == 1 or (access.offsets is None and access.stride == 1):
        _store_at(fn, buffer, access.pointer, value, access)
    elif access.offsets is None and access.stride == -1:
        address = pointer(fn, buffer, access.terms, access.constant - lanes + 1)
        turned = shuffle(fn, value, value, [lanes - 1 - i for i in range(lanes)])
        _store_at(fn, buffer, address, turned)
    else:
        for lane in range(lanes):
            address = access.lane_pointer(fn, buffer, lane)
            fn.line(f"store {extract(fn, value, lane)}, {address}, align {align}")
    fn.stored_to(buffer)


def prefetch(fn: FunctionPrinter, node: E.Call) -> None:
    """prefetch(load, rw=0|1, locality=0..3): a hint that the element's cache line will be used."""
    target = node.args[0]
    assert isinstance(target, E.BufferLoad)
    if target.buffer.scope == "register":
        return  # nothing is nearer
    access = Access(fn, target.buffer, target.indices)
    rw, locality = int(node.attrs.get("rw", 0)), int(node.attrs.get("locality", 3))
    fn.module.declare("llvm.prefetch.p0", "void", "ptr, i32, i32, i32")
    fn.line(f"call void @llvm.prefetch.p0({access.pointer}, i32 {rw}, i32 {locality}, i32 1)")
