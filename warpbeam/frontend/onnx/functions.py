"""The functions that a model brings itself, and their bodies."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.limits import DEFAULT
from warpbeam.ir.diagnostics import ImportModelError


def own_functions(proto: Any) -> dict[tuple[str, str, str], Any]:
    """The model's own functions; refuses two of one name, recursion, and bodies that explode when inlined."""
    out: dict[tuple[str, str, str], Any] = {}
    for f in proto.functions:
        key = ("" if f.domain == "ai.onnx" else f.domain, f.name, f.overload)
        if key in out:
            raise ImportModelError(f"function {f.name[:80]!r} is defined twice")
        out[key] = f
    sizes: dict[Any, int | None] = {}
    for start in out:
        stack = [(start, False)]
        while stack:
            key, done = stack.pop()
            calls = [
                k
                for n in out[key].node
                if (k := (n.domain if n.domain != "ai.onnx" else "", n.op_type, n.overload)) in out
            ]
            if done:
                sizes[key] = len(out[key].node) + sum(sizes[k] or 0 for k in calls)
                if sizes[key] > DEFAULT.nodes:  # type: ignore[operator]
                    raise ImportModelError(f"function {key[1][:80]!r} has more than {DEFAULT.nodes} nodes when inlined")
                continue
            if key in sizes:
                continue
            sizes[key] = None
            stack.append((key, True))
            for k in calls:
                if k in sizes and sizes[k] is None:
                    raise ImportModelError(f"function {k[1][:80]!r} calls itself")
                stack.append((k, False))
    return out


def without(proto: Any, absent: set[str]) -> Any:
    """The node with inputs that the caller left out left out as well."""
    if not any(i in absent for i in proto.input):
        return proto
    new = type(proto)()
    new.CopyFrom(proto)
    del new.input[:]
    new.input.extend("" if i in absent else i for i in proto.input)
    return new
