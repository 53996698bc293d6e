"""Text of modules that hold Relay functions, loop programs, or both: loop programs come after the Relay part."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from warpbeam.ir.diagnostics import TextError
from warpbeam.tir import text as tir_text
from warpbeam.tir.stmt import PrimFunc

if TYPE_CHECKING:
    from warpbeam.relay.expr import IRModule

_DEF = re.compile(r"^(?=def |free )", re.MULTILINE)


def to_text(mod: IRModule, constants: str = "inline") -> str:
    """The text of a module; `constants` as in `relay.text.to_text`."""
    from warpbeam.relay import text
    from warpbeam.relay.expr import IRModule as Module

    loops = [f for f in mod.functions.values() if isinstance(f, PrimFunc)]
    parts = [tir_text.to_text(f) for f in loops]
    if len(loops) < len(mod.functions) or (mod.types and not loops) or not mod.functions:
        graphs = {g: f for g, f in mod.functions.items() if not isinstance(f, PrimFunc)}
        parts.insert(0, text.to_text(Module(graphs, mod.types), constants))
    return "\n\n".join(parts)


def parse_loops(source: str) -> IRModule:
    """The module of the loop programs in a text that `to_text` wrote.

    Raises:
        TextError: if it does not parse.
    """
    from warpbeam.relay.expr import IRModule as Module

    pieces = [p for p in _DEF.split(source) if p.strip()]
    merged: list[str] = []
    for p in pieces:
        if merged and not re.search(r"^def ", merged[-1], re.MULTILINE):
            merged[-1] += p
        else:
            merged.append(p)
    if not merged:
        raise TextError("the text holds no loop program", hint="it starts with def")
    functions: list[Any] = [tir_text.parse(p) for p in merged]
    return Module({f.name: f for f in functions})
