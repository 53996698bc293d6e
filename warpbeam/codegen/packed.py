"""Modules of functions that are called from outside: each kernel gets an entry that checks its arguments.

The entry has the type of a model's entry, `int32 name(ctx*, tensor** args, int32 n)`; numbers are tensors without axes
(see warpbeam.h). It checks number, rank, type, shape and compactness, binds symbolic sizes from shapes and strides,
makes the arena large enough for workspaces, and calls the kernel. The words of its messages are the field's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.codegen import imports
from warpbeam.codegen.host_writer import Writer
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.runtime.abi import DLPACK_TYPES
from warpbeam.target import Target
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S
from warpbeam.tir.text import brief

_INT, _FLOAT = ("int64", 64 << 8 | 1 << 16), ("float64", 2 | 64 << 8 | 1 << 16)
_BINARY: dict[type, str] = {
    E.Add: "add", E.Sub: "sub", E.Mul: "mul", E.FloorDiv: "floordiv", E.FloorMod: "mod", E.Min: "min", E.Max: "max",
    E.EQ: "eq", E.NE: "ne", E.LT: "lt", E.LE: "le", E.GT: "gt", E.GE: "ge", E.And: "and", E.Or: "or",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A lowered function and what callers pass to it: `args`, some of its parameters, in this order."""

    func: S.PrimFunc
    args: tuple[E.Buffer | E.Var, ...]

    @property
    def name(self) -> str:
        """The exported symbol."""
        return self.func.name

    @property
    def kernel_name(self) -> str:
        """The symbol of the kernel behind it."""
        return f"{self.name}_compute_"

    def dtype(self, arg: E.Buffer | E.Var) -> str:
        """The type callers pass it in: a lowered program has small types, and may have bools, as bytes."""
        given = self.func.attrs.get("dtypes")
        return str(given[self.func.params.index(arg)]) if given and arg in self.func.params else arg.dtype

    def about(self) -> dict[str, Any]:
        """What the runtime must know of it."""
        written = {n.buffer for n in post_order(self.func.body) if isinstance(n, S.BufferStore)}
        written |= set(imports.written_by_calls(self.func.body))
        names = {b.name for b in written}  # lowering may have given a parameter another type
        rows: list[list[Any]] = []
        for a in self.args:
            if isinstance(a, E.Buffer):
                rows.append(["tensor", a.name, self.dtype(a), len(a.shape), int(a.name in names)])
            else:
                rows.append(["float" if dt.is_float(a.dtype) else "int", a.name, a.dtype])
        return {"name": self.name, "args": rows}


def explicit_args(func: S.PrimFunc) -> tuple[E.Buffer | E.Var, ...]:
    """What callers pass where nobody said: all parameters but trailing variables that shapes give, and workspaces."""
    count = func.attrs.get("num_args")
    buffers = func.buffers[: len(func.buffers) - int(func.attrs.get("workspace", 0))]
    params = [p for p in func.params if isinstance(p, E.Var) or p in buffers]
    if count is not None:
        return tuple(params[: int(count)])
    last = max((i for i, p in enumerate(params) if isinstance(p, E.Buffer)), default=-1)
    found = _found_in(buffers)
    return tuple(p for i, p in enumerate(params) if i <= last or p not in found)


def _found_in(buffers: Iterable[E.Buffer]) -> set[E.Var]:
    """Variables that are an extent, a stride or the offset of a buffer by themselves."""
    dims = (_uncast(d) for b in buffers for d in (*b.shape, *b.strides, b.elem_offset))
    return {d for d in dims if isinstance(d, E.Var)}


def _uncast(dim: Any) -> Any:
    """The variable of a dimension that is an int32 variable as an int64."""
    return dim.value if isinstance(dim, E.Cast) and isinstance(dim.value, E.Var) else dim


def kernel(entry: Entry) -> S.PrimFunc:
    """The kernel behind an entry: scalars other than int64 come as int64, or as a pointer to a float64."""
    params: list[Any] = []
    body = entry.func.body
    for p in entry.func.params:
        if isinstance(p, E.Buffer) or p.dtype == "int64":
            params.append(p)
        elif dt.is_float(p.dtype):
            cell = E.Buffer(p.name, (1,), "float64")
            params.append(cell)
            body = S.LetStmt(p, E.cast(p.dtype, cell[0]), body)
        else:
            wide = E.Var(p.name, "int64")
            params.append(wide)
            body = S.LetStmt(p, E.cast(p.dtype, wide), body)
    return S.PrimFunc(entry.kernel_name, tuple(params), body, entry.func.attrs)


@dataclass(frozen=True, slots=True)
class LLVMText:
    """A module's texts: `kernels` is compiled with care, `entries` is straight code that is compiled fast; `whole` is
    both in one, for reading and for one object.
    """

    kernels: str
    entries: str
    whole: str


def print_llvm(entries: Sequence[Entry], target: Target, defined: frozenset[str] = frozenset()) -> tuple[Any, Any]:
    """The emitter's modules of kernels and of their entries, see `finish_llvm`.

    `defined`: functions of other objects that will be linked with it. The first result's `imports` are what the loader
    must provide.
    """
    from warpbeam.codegen.host_llvm import LLVMWriter
    from warpbeam.codegen.llvm.emitter import Module
    from warpbeam.codegen.llvm.kernel import add_kernel

    kernels, front = Module(target, defined=defined), Module(target)
    for e in entries:
        _check_name(e.name)
        func = kernel(e)
        add_kernel(kernels, func)
        scalars = sum(isinstance(p, E.Var) for p in func.params)
        writer = LLVMWriter(target, front)
        writer.declare(func.name, len(func.params) - scalars, scalars)
        _Entry(e, writer).write()
        writer.close()
    front.functions.append(_REPEAT_LLVM)
    return kernels, front


def finish_llvm(kernels: Any, front: Any, about: str) -> LLVMText:
    """The texts of the modules, with the description `about` as the constant `wb_module`."""
    from warpbeam.codegen.llvm.emitter import Module

    data = about.encode() + b"\0"
    escaped = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in data)
    front.globals.append(f'@{imports.ABOUT} = constant [{len(data)} x i8] c"{escaped}"')
    code = "\n".join(kernels.functions)
    inner = {name for name in front.declares if f"define i32 @{name}(" in code}
    whole = Module(
        kernels.target, {**kernels.declares, **{k: v for k, v in front.declares.items() if k not in inner}},
        [*kernels.globals, *(_renamed(t) for t in front.globals)], {**kernels.helpers, **front.helpers},
        [*kernels.functions, *(_renamed(t) for t in front.functions)], imports=kernels.imports,
    )  # fmt: skip
    return LLVMText(kernels.text(), front.text(), whole.text())


def _renamed(text: str) -> str:
    """Constants of entries by other names than those of kernels."""
    return text.replace("@wb_text.", "@wb_entry_text.")


def print_c(entries: Sequence[Entry], target: Target, about: str, packed: bool) -> str:
    """The C file of kernels and their entries. `packed`: registered functions are called, through the table."""
    from warpbeam.codegen.c.kernel import print_kernels, quoted
    from warpbeam.codegen.host_c import HELPERS, CWriter

    for e in entries:
        _check_name(e.name)
    parts = [print_kernels([kernel(e) for e in entries], target), HELPERS]
    for e in entries:
        writer = CWriter(target)
        _Entry(e, writer).write()
        parts.append(writer.close())
    lines = [f"  {quoted(about[i : i + 80])}" for i in range(0, len(about), 80)]
    if packed:
        parts.append(f"extern void* {imports.TABLE}[1];\nvoid* {imports.TABLE}[1];")
    parts += [
        _REPEAT_C,
        "\n".join([f"extern const char {imports.ABOUT}[];", f"const char {imports.ABOUT}[] ="]),
        *lines,
    ]
    return "\n".join(parts) + ";\n"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise LowerError(f"{name!r} is no name for a function", why="it becomes a symbol that other programs link with",
                         hint="use letters, digits and underscores")  # fmt: skip


class _Entry:
    """Writes one entry."""

    def __init__(self, entry: Entry, writer: Writer) -> None:
        self.e = entry
        self.w = writer
        self.name = entry.name
        self.bound: dict[E.Var, str] = {}
        self.sources: dict[E.Var, str] = {}
        self.deferred: list[tuple[str, str, E.PrimExpr]] = []
        self.index = {a: i for i, a in enumerate(entry.args)}

    def write(self) -> None:
        w = self.w
        w.begin(self.name)
        w.check(
            w.op("eq", w.count(), w.number(len(self.e.args))), f"{self.name}: num_args should be {len(self.e.args)}"
        )
        for a in self.e.args:
            self._check_kind(a)
        for a in self.e.args:
            if isinstance(a, E.Var) and not dt.is_float(a.dtype):
                self._bind(a, w.load(w.data(self.index[a]), 0, "int64"), f"{self.name}.{a.name}")
        for a in self.e.args:
            if isinstance(a, E.Buffer):
                self._check_shape(a)
        for value, what, wanted in self.deferred:
            self._require(value, what, wanted)
        self._call()

    def _check_kind(self, arg: E.Buffer | E.Var) -> None:
        """Rank and element type."""
        w, i, what = self.w, self.index[arg], f"{self.name}.{arg.name}"
        rank = len(arg.shape) if isinstance(arg, E.Buffer) else 0
        w.check(w.op("eq", w.field(i, "ndim"), w.number(rank)), f"Argument {what}.ndim is expected to equal {rank}")
        if isinstance(arg, E.Buffer):
            name = self.e.dtype(arg)
            code, bits = DLPACK_TYPES[dt.scalar(name)]
            kind = code | bits << 8 | dt.lanes(name) << 16
            text = f"Argument {what}.dtype is expected to be {name}"
        else:
            name, kind = _FLOAT if dt.is_float(arg.dtype) else _INT
            text = f"Argument {what} is expected to be {'a float' if name == 'float64' else 'an integer'}"
        w.check(w.op("eq", w.field(i, "dtype"), w.number(kind)), text)

    def _bind(self, var: E.Var, value: str, source: str) -> None:
        """Gives a variable its value, or checks it against the one that it has."""
        if var in self.bound:
            self._require(value, source, var)
            return
        name = f"{var.name}.{len(self.bound)}"
        self.w.variable(name)
        self.w.set(name, value)
        self.bound[var], self.sources[var] = name, source

    def _require(self, value: str, what: str, wanted: E.PrimExpr) -> None:
        """Fails unless an extent or stride has the value that an expression says."""
        told = [f"{v.name} is {self.sources[v]}" for v in _variables(wanted) if self.sources.get(v, what) != what]
        text = f"Argument {what} has an unsatisfied constraint: {what} == {brief(wanted, 60)}"
        if told:
            text += f" ({', '.join(told)})"
        self.w.check(self.w.op("eq", value, self.expr(wanted)), text)

    def _check_shape(self, buffer: E.Buffer) -> None:
        w, i, what = self.w, self.index[buffer], f"{self.name}.{buffer.name}"
        for axis, dim in enumerate(buffer.shape):
            self._match(w.extent(i, axis), f"{what}.shape[{axis}]", dim)
        if not buffer.strides:
            w.check_compact(i, f"Argument {what}.strides: expected to be compact array")
        for axis, step in enumerate(buffer.strides):
            self._match(w.stride(i, axis), f"{what}.strides[{axis}]", step)

    def _match(self, value: str, what: str, dim: Any) -> None:
        dim = _uncast(dim)
        if isinstance(dim, E.Var):
            self._bind(dim, value, what)
        elif isinstance(dim, E.PrimExpr) and not all(v in self.bound for v in _variables(dim)):
            self.deferred.append((value, what, dim))
        else:
            self._require(value, what, E.as_expr(dim, "int64"))

    def expr(self, expr: E.PrimExpr) -> str:
        """An integer expression over bound variables."""
        done: dict[Any, str] = {}
        for node in post_order(expr):
            if isinstance(node, E.IntImm):
                done[node] = self.w.number(int(node.value))
            elif isinstance(node, E.Var):
                if node not in self.bound:
                    raise LowerError(f"the value of {node.name!r} is not known when {self.name} is called",
                                     why="no argument has an axis of exactly this size",
                                     hint=f"pass {node.name} as an argument of its own")  # fmt: skip
                done[node] = self.w.get(self.bound[node])
            elif isinstance(node, E.Cast):
                done[node] = done[node.value]
            elif isinstance(node, E.Select):
                done[node] = self.w.op("select", done[node.cond], done[node.a], done[node.b])
            elif type(node) in _BINARY:
                done[node] = self.w.op(_BINARY[type(node)], done[node.a], done[node.b])
            else:
                raise LowerError(f"a size of {self.name} contains {brief(node)}", hint="use + - * // % min max")
        return done[expr]

    # ------------------------------------------------------------------------------------------------------- the call

    def _call(self) -> None:
        w, func = self.w, self.e.func
        spaces = self._workspaces()
        pointers, scalars = [], []
        buffers = [b for b in self.index if isinstance(b, E.Buffer)]
        named = {b.name: b for b in buffers if not b.plain or dt.is_small(b.dtype) or dt.is_bool(b.dtype)}
        for p in func.params:
            if p in spaces:
                pointers.append(w.offset(w.section("arena"), spaces[p]))
            elif isinstance(p, E.Buffer) or dt.is_float(p.dtype):
                given: Any = p if p in self.index else named.get(p.name)  # lowering took its strides or its type
                if given is None:
                    raise LowerError(f"parameter {p.name!r} of {self.name} is not among its arguments")
                at = w.data(self.index[given])
                pointers.append(at)
                self._bind_offset(given)
            else:
                scalars.append(p)
        w.call(self.e.kernel_name, pointers, [self.expr(v) for v in scalars])

    def _bind_offset(self, param: E.Buffer | E.Var) -> None:
        """The pointer that a kernel gets has the byte offset added: what is left of it is 0."""
        if isinstance(param, E.Buffer) and isinstance(param.elem_offset, E.Var):
            self._bind(param.elem_offset, self.w.number(0), f"{self.name}.{param.name}.elem_offset")

    def _workspaces(self) -> dict[E.Buffer, str]:
        """Offsets of the workspaces in the arena, which is made large enough."""
        count = int(self.e.func.attrs.get("workspace", 0))
        total: E.PrimExpr = E.as_expr(0)
        starts: dict[E.Buffer, E.PrimExpr] = {}
        for b in self.e.func.buffers[len(self.e.func.buffers) - count :]:
            starts[b] = total
            size: E.PrimExpr = E.as_expr(dt.nbytes(b.dtype))
            for d in b.shape:
                size = E.mul(size, E.as_expr(d))
            total = E.add(total, E.mul(E.floordiv(E.add(size, 63), 64), 64))
        if starts:
            self.w.reserve(self.expr(total))
        return {b: self.expr(start) for b, start in starts.items()}


def _variables(expr: E.PrimExpr) -> list[E.Var]:
    return [n for n in post_order(expr) if isinstance(n, E.Var)]


_REPEAT_LLVM = """define i32 @wb_repeat(ptr %entry, ptr %ctx, ptr %args, i32 %n, i64 %times) #0 {
start:
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %again ]
  %more = icmp slt i64 %i, %times
  br i1 %more, label %run, label %done
run:
  %status = call i32 %entry(ptr %ctx, ptr %args, i32 %n)
  %bad = icmp ne i32 %status, 0
  br i1 %bad, label %failed, label %again
again:
  %next = add i64 %i, 1
  br label %loop
failed:
  ret i32 %status
done:
  ret i32 0
}
"""
_REPEAT_C = """
int32_t wb_repeat(wb_entry_fn entry, wb_ctx* ctx, wb_tensor** args, int32_t n, int64_t times);
int32_t wb_repeat(wb_entry_fn entry, wb_ctx* ctx, wb_tensor** args, int32_t n, int64_t times) {
  for (int64_t i = 0; i < times; ++i) {
    const int32_t status = entry(ctx, args, n);
    if (status) return status;
  }
  return 0;
}
"""
