"""Calls out of C: C functions by declaration, registered functions through the table `wb_imports` (see warpbeam.h)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from warpbeam.codegen import imports
from warpbeam.codegen.c import kernel, values
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.runtime.abi import DLPACK_TYPES
from warpbeam.tir import expr as E

if TYPE_CHECKING:
    from warpbeam.codegen.c.values import Lanes

OPS = ("call_extern", "call_pure_extern", "call_packed", "access_ptr", "address_of")


def operands(node: E.Call) -> tuple[E.PrimExpr, ...]:
    """Those arguments that are printed as values before the call."""
    if node.op == "address_of":
        place = node.args[0]
        return place.indices if isinstance(place, E.BufferLoad) else ()
    return tuple(a for a in node.args if not isinstance(a, E.StringImm | E.BufferRef))


def call(lanes: Lanes, node: E.Call, parts: list[str]) -> str:
    """The text of a call out, after the lines that it needs."""
    p = lanes.p
    if node.op == "access_ptr":
        ref = node.args[0]
        if not isinstance(ref, E.BufferRef):
            raise LowerError("access_ptr needs a buffer", where=p.func.name)
        return f"({_pointer(lanes, ref)} + {parts[0]})"
    if node.op == "address_of":
        place = node.args[0]
        if isinstance(place, E.BufferLoad):
            return f"(&{p.element(place.buffer, parts)})"
        assert isinstance(place, E.BufferRef)
        return _pointer(lanes, place)
    if node.op == "call_packed":
        return _packed(lanes, node, parts)
    return _extern(lanes, node, parts)


def _pointer(lanes: Lanes, ref: E.BufferRef) -> str:
    offset = ref.buffer.elem_offset
    name = lanes.p.names.get(ref.buffer)
    if name is None:
        raise LowerError(f"buffer {ref.buffer.name!r} is neither a parameter nor allocated", where=lanes.p.func.name)
    if isinstance(offset, int) and offset == 0:
        return name
    return f"({name} + {lanes.value(E.as_expr(offset, 'int64'), True)})"


def _kind(node: E.PrimExpr) -> str:
    """The C type of an argument."""
    if isinstance(node, E.StringImm):
        return "const char*"
    if isinstance(node, E.BufferRef):
        return f"{values.memory_type(node.buffer.dtype)}*"
    if isinstance(node, E.Call) and node.op == "access_ptr" and isinstance(node.args[0], E.BufferRef):
        return _kind(node.args[0])
    if isinstance(node, E.Call) and node.op == "address_of":
        place = node.args[0]
        return f"{values.memory_type(place.buffer.dtype)}*" if isinstance(place, E.BufferLoad) else _kind(place)
    if dt.scalar(node.dtype) in ("float16", "bfloat16"):
        raise LowerError(f"{node.dtype} cannot be passed to a C function", hint="cast it first")
    return "void*" if node.dtype == "handle" else values.value_type(node.dtype)


def _texts(lanes: Lanes, node: E.Call, parts: list[str]) -> list[str]:
    given = iter(parts)
    out = []
    for a in node.args:
        if isinstance(a, E.StringImm):
            out.append(kernel.quoted(a.value))
        else:
            out.append(_pointer(lanes, a) if isinstance(a, E.BufferRef) else next(given))
    return out


def _extern(lanes: Lanes, node: E.Call, parts: list[str]) -> str:
    """The function is declared where it is called; what it gives is named at once, which keeps the order of calls."""
    p, name = lanes.p, imports.name_of(node)
    ret = {"void": "void", "handle": "void*"}.get(node.dtype) or values.value_type(node.dtype)
    kinds = [_kind(a) for a in node.args]
    fixed = imports.VARIADIC.get(name)
    if fixed is not None:
        ret, kinds = "int", [*fixed, "..."]
    p.line(f"extern {ret} {name}({', '.join(kinds) or 'void'});")
    texts = _texts(lanes, node, parts)
    for i, kind in enumerate(fixed or ()):
        texts[i] = f"({kind}){texts[i]}"
    text = f"{name}({', '.join(texts)})"
    if ret == "void":
        p.line(f"{text};")
        return "0"
    value = p.fresh("v")
    p.line(f"const {ret} {value} = {text};" if not ret.endswith("*") else f"{ret} {value} = {text};")
    return value


def _packed(lanes: Lanes, node: E.Call, parts: list[str]) -> str:
    p = lanes.p
    array, result, status = p.fresh("values"), p.fresh("result"), p.fresh("status")
    count = len(node.args)
    p.line(f"extern void* {imports.TABLE}[];")
    p.line(f"wb_value {array}[{max(count, 1)}] = {{{{{{0}}, 0, 0}}}}, {result} = {{{{0}}, 0, 0}};")
    given = iter(parts)
    for i, a in enumerate(node.args):
        field, code, text = _value(lanes, a, given)
        p.line(f"{array}[{i}].v.{field} = {text};")
        p.line(f"{array}[{i}].code = {code};")
    name = kernel.quoted(imports.name_of(node))
    function = f"((wb_call_packed_fn){imports.TABLE}[0])"
    p.line(f"const int32_t {status} = {function}(ctx, {name}, {array}, {count}, &{result});")
    p.line(f"if ({status}) return {status};")
    kind = values.value_type(node.dtype)
    real = f"({kind}){result}.v.as_float"
    if not dt.is_float(node.dtype):
        real = f"({kind})wb_to_i64({result}.v.as_float)"
    value = p.fresh("v")
    p.line(f"const {kind} {value} = {result}.code == WB_VALUE_FLOAT ? {real} : ({kind}){result}.v.as_int;")
    return value


def _value(lanes: Lanes, arg: E.PrimExpr, given: Iterator[str]) -> tuple[str, str, str]:
    """Field, code and text of an argument."""
    if isinstance(arg, E.StringImm):
        return "as_str", "WB_VALUE_STR", kernel.quoted(arg.value)
    if isinstance(arg, E.BufferRef):
        return "as_handle", "WB_VALUE_TENSOR", f"&{_tensor(lanes, arg)}"
    text = next(given)
    if arg.dtype == "handle":
        return "as_handle", "WB_VALUE_HANDLE", text
    if dt.is_float(arg.dtype):
        return "as_float", "WB_VALUE_FLOAT", text
    return "as_int", "WB_VALUE_INT", f"(int64_t){text}"


def _tensor(lanes: Lanes, ref: E.BufferRef) -> str:
    """A tensor descriptor of a buffer."""
    p, buffer = lanes.p, ref.buffer
    tensor, shape, strides = p.fresh("tensor"), p.fresh("shape"), "NULL"
    extents = [lanes.value(E.as_expr(d, "int64")) for d in buffer.shape] or ["0"]
    p.line(f"int64_t {shape}[{len(extents)}] = {{{', '.join(extents)}}};")
    if buffer.strides:
        strides = p.fresh("strides")
        steps = [lanes.value(E.as_expr(d, "int64")) for d in buffer.strides]
        p.line(f"int64_t {strides}[{len(steps)}] = {{{', '.join(steps)}}};")
    code, bits = DLPACK_TYPES[dt.scalar(buffer.dtype)]
    fields = [_pointer(lanes, ref), "1", "0", str(len(buffer.shape)), str(code), str(bits),
              str(dt.lanes(buffer.dtype)), shape, strides, "0"]  # fmt: skip
    p.line(f"wb_tensor {tensor} = {{{', '.join(fields)}}};")
    return tensor
