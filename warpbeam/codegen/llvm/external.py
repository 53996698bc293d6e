"""Calls out of generated code, through the table `wb_imports` that the loader fills: objects stay closed.

call_extern, call_pure_extern     a C function by name; one that an imported module defines is called directly
call_packed                       a function registered by name; buffers go as tensors, numbers and strings as values
access_ptr, address_of            pointers into buffers

A C function whose parameters vary (printf) gets its numbers widened as C does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from warpbeam.codegen import imports
from warpbeam.codegen.llvm.address import Access
from warpbeam.codegen.llvm.emitter import Value
from warpbeam.codegen.llvm.types import element_bytes, value_type
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.runtime.abi import DLPACK_TYPES, ValueCode
from warpbeam.tir import expr as E

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

_TENSOR = "{ ptr, i32, i32, i32, i32, ptr, ptr, i64 }"
_VALUE = "{ i64, i32, i32 }"


def operands(node: E.Call) -> tuple[E.PrimExpr, ...]:
    """Those arguments of a call that are printed as values before it."""
    if node.op == "address_of":
        return ()
    return tuple(a for a in node.args if not isinstance(a, E.StringImm | E.BufferRef))


def call(fn: FunctionPrinter, node: E.Call, values: list[Value]) -> Value:
    """The value of a call out; `values` are its `operands`."""
    return HANDLERS[node.op](fn, node, values)


def _symbol(fn: FunctionPrinter, kind: str, name: str) -> Value:
    """The address to call: loaded from the table."""
    place = fn.module.imports.setdefault((kind, name), len(fn.module.imports))
    at = f"getelementptr (ptr, ptr @{imports.TABLE}, i64 {place})" if place else f"@{imports.TABLE}"
    return fn.op(f"load ptr, ptr {at}", "ptr")


def _text(fn: FunctionPrinter, text: str) -> str:
    """A constant string's symbol."""
    data = text.encode() + b"\0"
    symbol = f"@wb_text.{len(fn.module.globals)}"
    escaped = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in data)
    fn.module.globals.append(f'{symbol} = private constant [{len(data)} x i8] c"{escaped}"')
    return symbol


def _pointer(fn: FunctionPrinter, ref: E.BufferRef) -> Value:
    """The address of a buffer's first element."""
    base = fn.base(ref.buffer)
    offset = ref.buffer.elem_offset
    if isinstance(offset, int) and offset == 0:
        return base
    return _moved(fn, base, fn.value(E.as_expr(offset, "int64")), element_bytes(ref.buffer.dtype))


def _moved(fn: FunctionPrinter, base: Value, elements: Value, size: int) -> Value:
    step = fn.op(f"mul {elements}, {size}", elements.type, elements)
    return fn.op(f"getelementptr i8, {base}, {step}", "ptr", base, step)


def _effect(fn: FunctionPrinter, node: E.Call) -> None:
    """Notes that what the call was given may have been written."""
    for buffer in imports.buffers_of(node):
        fn.stored_to(buffer)


# ---------------------------------------------------------------------------------------------------------- C functions


def _extern(fn: FunctionPrinter, node: E.Call, values: list[Value]) -> Value:
    name = imports.name_of(node)
    given = iter(values)
    args: list[Value] = []
    for a in node.args:
        if isinstance(a, E.StringImm):
            args.append(Value(_text(fn, a.value), "ptr", fn.root))
        elif isinstance(a, E.BufferRef):
            args.append(_pointer(fn, a))
        else:
            args.append(_half(fn, a, next(given)))
    fixed = len(imports.VARIADIC[name]) if name in imports.VARIADIC else None
    if fixed is not None:
        args = args[:fixed] + [_promoted(fn, a, v) for a, v in zip(node.args[fixed:], args[fixed:], strict=True)]
    ret = "void" if node.dtype == "void" else value_type(node.dtype)
    types = ", ".join([*(v.type for v in args[:fixed]), *(["..."] if fixed is not None else [])])
    if name in fn.module.defined:
        if fixed is None:
            fn.module.declares[name] = f"declare {ret} @{name}({types})"
        target = f"@{name}"
    else:
        target = _symbol(fn, "c", name).name
    shape = f"{ret} ({types})" if fixed is not None else ret
    text = f"call {shape} {target}({', '.join(map(str, args))})"
    if node.op == "call_pure_extern" and ret != "void":
        return fn.op(text, ret, *args, *([Value(target, "ptr", fn.root)] if target.startswith("%") else []))
    if ret == "void":
        fn.line(text)
        _effect(fn, node)
        return Value("0", "i32", fn.scope, pure=False)
    out = Value(fn.name(), ret, fn.scope, pure=False)
    fn.line(f"{out.name} = {text}")
    _effect(fn, node)
    return out


def _half(fn: FunctionPrinter, node: E.PrimExpr, value: Value) -> Value:
    """float16 values would be passed as integers: refused rather than wrong."""
    if dt.scalar(node.dtype) in ("float16", "bfloat16"):
        raise LowerError(
            f"{node.dtype} cannot be passed to a C function", where=fn.func_name, hint="cast it to float32"
        )
    return value


def _promoted(fn: FunctionPrinter, node: E.PrimExpr, value: Value) -> Value:
    """What C does to an argument of a function like printf: float becomes double, small integers int."""
    if value.type == "float":
        return fn.op(f"fpext {value} to double", "double", value)
    if value.type in ("i1", "i8", "i16"):
        word = "sext" if not dt.is_unsigned(node.dtype) and not dt.is_bool(node.dtype) else "zext"
        return fn.op(f"{word} {value} to i32", "i32", value)
    return value


# ------------------------------------------------------------------------------------------------- registered functions


def _packed(fn: FunctionPrinter, node: E.Call, values: list[Value]) -> Value:
    args = node.args
    array, result = fn.name("values"), fn.name("result")
    count = max(len(args), 1)
    fn.entry += [f"  {array} = alloca [{count} x {_VALUE}], align 8", f"  {result} = alloca {_VALUE}, align 8"]
    given = iter(values)
    for i, a in enumerate(args):
        _store_value(fn, array, i, *_value(fn, a, given))
    callee = _symbol(fn, "packed", "")
    name = _text(fn, imports.name_of(node))
    status, bad = fn.name("status"), fn.name("bad")
    failed, done = fn.label("failed"), fn.label("called")
    fn.line(f"{status} = call i32 {callee.name}(ptr %ctx, ptr {name}, ptr {array}, i32 {len(args)}, ptr {result})")
    fn.line(f"{bad} = icmp ne i32 {status}, 0")
    fn.line(f"br i1 {bad}, label %{failed}, label %{done}")
    fn.block(failed)
    fn.line(f"ret i32 {status}")
    fn.block(done)
    _effect(fn, node)
    return _result(fn, node, result)


def _store_value(fn: FunctionPrinter, array: str, index: int, value: Value, code: int) -> None:
    place, kind = fn.name(), fn.name()
    fn.line(f"{place} = getelementptr {_VALUE}, ptr {array}, i64 {index}")
    fn.line(f"store {value}, ptr {place}")
    fn.line(f"{kind} = getelementptr {_VALUE}, ptr {array}, i64 {index}, i32 1")
    fn.line(f"store i32 {code}, ptr {kind}")


def _value(fn: FunctionPrinter, arg: E.PrimExpr, given: Iterator[Value]) -> tuple[Value, int]:
    """An argument as eight bytes and a code."""
    if isinstance(arg, E.StringImm):
        return Value(_text(fn, arg.value), "ptr", fn.root), ValueCode.STR
    if isinstance(arg, E.BufferRef):
        return _tensor(fn, arg), ValueCode.TENSOR
    value: Value = next(given)
    if value.type == "ptr":
        return value, ValueCode.HANDLE
    if value.type in ("float", "double"):
        wide = value if value.type == "double" else fn.op(f"fpext {value} to double", "double", value)
        return wide, ValueCode.FLOAT
    if value.type.startswith("<") or dt.scalar(arg.dtype) in ("float16", "bfloat16"):
        raise LowerError(f"{arg.dtype} cannot be passed to a registered function", where=fn.func_name,
                         hint="pass buffers, and scalars of float32, float64 or an integer type")  # fmt: skip
    if value.type == "i64":
        return value, ValueCode.INT
    word = "zext" if dt.is_unsigned(arg.dtype) or dt.is_bool(arg.dtype) else "sext"
    return fn.op(f"{word} {value} to i64", "i64", value), ValueCode.INT


def _tensor(fn: FunctionPrinter, ref: E.BufferRef) -> Value:
    """A tensor descriptor of a buffer on the stack."""
    buffer = ref.buffer
    tensor, shape = fn.name("tensor"), fn.name("shape")
    rank = max(len(buffer.shape), 1)
    fn.entry += [f"  {tensor} = alloca {_TENSOR}, align 8", f"  {shape} = alloca [{rank} x i64], align 8"]
    strides = "null"
    if buffer.strides:
        strides = fn.name("strides")
        fn.entry.append(f"  {strides} = alloca [{rank} x i64], align 8")
        _store_all(fn, strides, buffer.strides)
    _store_all(fn, shape, buffer.shape)
    code, bits = DLPACK_TYPES[dt.scalar(buffer.dtype)]
    kind = code | bits << 8 | dt.lanes(buffer.dtype) << 16
    fields = [str(_pointer(fn, ref)), "i32 1", "i32 0", f"i32 {len(buffer.shape)}", f"i32 {kind}", f"ptr {shape}",
              f"ptr {strides}", "i64 0"]  # fmt: skip
    for i, text in enumerate(fields):
        place = fn.name()
        fn.line(f"{place} = getelementptr {_TENSOR}, ptr {tensor}, i32 0, i32 {i}")
        fn.line(f"store {text}, ptr {place}")
    return Value(tensor, "ptr", fn.root)


def _store_all(fn: FunctionPrinter, array: str, values: tuple[object, ...]) -> None:
    for i, v in enumerate(values):
        extent, place = fn.value(E.as_expr(v, "int64")), fn.name()
        fn.line(f"{place} = getelementptr i64, ptr {array}, i64 {i}")
        fn.line(f"store {extent}, ptr {place}")


def _result(fn: FunctionPrinter, node: E.Call, result: str) -> Value:
    """What the function returned, in the call's dtype."""

    def line(type: str, rhs: str) -> Value:
        out = Value(fn.name(), type, fn.scope, pure=False)
        fn.line(f"{out.name} = {rhs}")
        return out

    raw = line("i64", f"load i64, ptr {result}")
    code = line("i32", f"load i32, ptr {line('ptr', f'getelementptr {_VALUE}, ptr {result}, i32 0, i32 1').name}")
    real = line("double", f"bitcast {raw} to double")
    is_real = line("i1", f"icmp eq {code}, {ValueCode.FLOAT}")
    type = value_type(node.dtype)
    if type in ("float", "double"):
        whole = line("double", f"sitofp {raw} to double")
        wide = line("double", f"select {is_real}, {real}, {whole}")
        return wide if type == "double" else line("float", f"fptrunc {wide} to float")
    if type == "ptr" or dt.is_float(node.dtype):
        raise LowerError(f"a registered function cannot return {node.dtype}", where=fn.func_name)
    fn.module.declare("llvm.fptosi.sat.i64.f64", "i64", "double")
    cut = line("i64", f"call i64 @llvm.fptosi.sat.i64.f64({real})")
    whole = line("i64", f"select {is_real}, {cut}, {raw}")
    return whole if type == "i64" else line(type, f"trunc {whole} to {type}")


# ------------------------------------------------------------------------------------------------------------- pointers


def _access_ptr(fn: FunctionPrinter, node: E.Call, values: list[Value]) -> Value:
    ref = node.args[0]
    if not isinstance(ref, E.BufferRef):
        raise LowerError("access_ptr needs a buffer", where=fn.func_name)
    return _moved(fn, _pointer(fn, ref), values[0], element_bytes(ref.buffer.dtype))


def _address_of(fn: FunctionPrinter, node: E.Call, values: list[Value]) -> Value:
    place = node.args[0]
    if isinstance(place, E.BufferRef):
        return _pointer(fn, place)
    if not isinstance(place, E.BufferLoad):
        raise LowerError("address_of needs an element of a buffer", where=fn.func_name)
    return Access(fn, place.buffer, place.indices).pointer


HANDLERS: dict[str, Callable[[FunctionPrinter, E.Call, list[Value]], Value]] = {
    "call_extern": _extern,
    "call_pure_extern": _extern,
    "call_packed": _packed,
    "access_ptr": _access_ptr,
    "address_of": _address_of,
}
