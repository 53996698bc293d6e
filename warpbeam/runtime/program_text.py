"""A Program as text for people. One-way; the exchange format is JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .program import Body, Branch, CallKernel, Instruction, Loop, MakeObject, Program, Return, Value
from .shape_expr import ShapeExpr, show


def program_text(program: Program) -> str:
    """The whole Program: ports, values with their storage, body, functions."""
    inputs = ", ".join(f"{p.name}=%{p.value}" for p in program.inputs)
    outputs = ", ".join(f"{p.name}=%{p.value}" for p in program.outputs)
    lines = [f"program {program.name}({inputs}) -> ({outputs})"]
    lines += [f"  symbol {s.name} = {show(s.expr)}" for s in program.symbols]
    lines.append(f"  arena {show(program.arena_bytes)} bytes, aligned {program.alignment}")
    lines += [f"  {_value(v)}" for v in program.values]
    _body(program.body, lines, "  ")
    for function in program.functions:
        lines += ["", program_text(function)]
    return "\n".join(lines)


def _value(value: Value) -> str:
    shape = ", ".join(map(show, value.shape))
    kind = f"{value.dtype}[{shape}]" if value.kind == "tensor" else value.kind
    storage = " ".join(show(x) for x in value.storage)
    device = "" if value.device == (1, 0) else f" device {value.device[0]}:{value.device[1]}"
    origins = f"  # {', '.join(value.origins)}" if value.origins else ""
    name = f" {value.name}" if value.name else ""
    return f"%{value.id}: {kind} @ {storage}{device}{name}{origins}"


def _ids(ids: tuple[int, ...]) -> str:
    return ", ".join(f"%{i}" for i in ids)


def _body(body: Body, lines: list[str], indent: str) -> None:
    for instruction in body:
        if isinstance(instruction, Branch):
            lines.append(f"{indent}if {show(instruction.condition)}:")
            _body(instruction.then, lines, indent + "  ")
            if instruction.other:
                lines.append(f"{indent}else:")
                _body(instruction.other, lines, indent + "  ")
        elif isinstance(instruction, Loop):
            bound = (
                f"{instruction.index} < {show(instruction.extent)}" if instruction.extent != -1 else instruction.index
            )
            lines.append(f"{indent}loop {bound} while {show(instruction.condition)}:")
            _body(instruction.body, lines, indent + "  ")
        else:
            lines.append(indent + _line(instruction))


def _line(instruction: Instruction) -> str:
    if isinstance(instruction, CallKernel):
        dims = f"; {', '.join(map(show, instruction.dims))}" if instruction.dims else ""
        writes = f" writes {_ids(instruction.writes)}" if instruction.writes else ""
        donates = f" donates {_ids(instruction.donates)}" if instruction.donates else ""
        return f"call {instruction.kernel}({_ids(instruction.args)}{dims}){writes}{donates}"
    if isinstance(instruction, Return):
        return "return"
    if isinstance(instruction, MakeObject):
        head = f"{instruction.function} " if instruction.function else ""
        return f"%{instruction.result} = object {head}tag {instruction.tag} ({_ids(instruction.fields)})"
    parts = [f"{f.name}={_field(f.name, getattr(instruction, f.name))}" for f in fields(instruction)]
    return f"{type(instruction).__name__.lower()} {' '.join(parts)}"


_VALUE_FIELDS = {"value", "result", "source", "closure"}


def _field(name: str, value: Any) -> str:
    if name in ("args", "results"):
        return f"({_ids(value)})"
    if name in _VALUE_FIELDS:
        return f"%{value}"
    if name in ("condition", "expr", "byte_offset", "index"):
        expr: ShapeExpr = value
        return show(expr)
    return repr(value)
