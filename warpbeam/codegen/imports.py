"""What every back end must know of calls out of generated code."""

from __future__ import annotations

from collections.abc import Iterator

from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as E

#: the table of addresses that the loader fills, and the text that lists what belongs into it
TABLE, ABOUT = "wb_imports", "wb_module"
#: C functions whose parameters vary: the types of those that do not
VARIADIC = {
    "printf": ("const char*",),
    "dprintf": ("int", "const char*"),
    "sprintf": ("char*", "const char*"),
    "snprintf": ("char*", "size_t", "const char*"),
}
#: calls that leave generated code
CALLS = ("call_extern", "call_pure_extern", "call_packed")


def name_of(call: E.Call) -> str:
    """The name of the function that a call out names."""
    return str(call.attrs["name"])


def buffers_of(call: E.Call) -> Iterator[E.Buffer]:
    """Buffers whose memory a call may write: those it gets as tensors or pointers, unless a pointer is for reading."""
    stack: list[E.PrimExpr] = list(call.args)
    while stack:
        node = stack.pop()
        if isinstance(node, E.BufferRef):
            yield node.buffer
        elif isinstance(node, E.Call) and node.op == "access_ptr":
            mask = E.const_int(node.args[3]) if len(node.args) > 3 else 3
            if mask is None or mask & 2:
                stack.append(node.args[0])
        elif isinstance(node, E.Call) and node.op == "address_of":
            place = node.args[0]
            if isinstance(place, E.BufferLoad):
                yield place.buffer
            else:
                stack.append(place)


def written_by_calls(*roots: E.PrimExpr) -> Iterator[E.Buffer]:
    """Buffers that calls out below expressions may write."""
    for node in post_order(*roots):
        if isinstance(node, E.Call) and node.op in ("call_extern", "call_packed"):
            yield from buffers_of(node)
