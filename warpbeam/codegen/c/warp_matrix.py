"""Matrix instructions of whole warps (nvcuda::wmma of the CUDA C++ guide): fragments, and loops that are one call.

A loop with the note "warp_matrix" does element by element what the instruction does at once; see te/warp_matrix.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.arith import linear, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr
from warpbeam.tir.stmt import BufferStore, For

_NS = "nvcuda::wmma::"


@dataclass(frozen=True)
class Fragment:
    """The tile that one fragment of a buffer holds."""

    shape: tuple[int, ...]
    layout: str

    def elements(self, scope: str) -> int:
        m, n, k = self.shape
        return {"wmma.matrix_a": m * k, "wmma.matrix_b": k * n}.get(scope, m * n)


def is_fragment(buffer: Buffer) -> bool:
    return buffer.scope.startswith("wmma.")


def fragments(body: Any) -> dict[Buffer, Fragment]:
    """What the fragments of a kernel hold, by the instructions that fill, load and store them."""
    found: dict[Buffer, Fragment] = {}
    for loop in (n for n in post_order(body) if isinstance(n, For) and n.annotations.get("warp_shape")):
        fragment = Fragment(tuple(loop.annotations["warp_shape"]), str(loop.annotations["warp_layout"]))
        for n in post_order(loop):
            if isinstance(n, BufferLoad | BufferStore) and is_fragment(n.buffer):
                found.setdefault(n.buffer, fragment)
    return found


def memory(body: Any) -> set[Buffer]:
    """Memory that matrix instructions load and store, which must be aligned to 32 bytes."""
    loops = [n for n in post_order(body) if isinstance(n, For) and "warp_matrix" in n.annotations]
    touched = [n.buffer for f in loops for n in post_order(f) if isinstance(n, BufferLoad | BufferStore)]
    return {b for b in touched if not is_fragment(b)}


def declaration(buffer: Buffer, fragment: Fragment | None, name: str, type: str, size: int) -> str:
    """The array of a buffer's fragments.

    Raises:
        LowerError: if no instruction says what shape they have.
    """
    if fragment is None:
        raise LowerError(f"fragment {buffer.name} is neither loaded nor filled", hint="tensorize its stage")
    use = buffer.scope.removeprefix("wmma.")
    order = "" if use == "accumulator" else f", {_NS}{_order(fragment.layout)}"
    count = max(size // fragment.elements(buffer.scope), 1)
    shape = ", ".join(map(str, fragment.shape))
    return f"{_NS}fragment<{_NS}{use}, {shape}, {type}{order}> {name}[{count}];"


def _order(layout: str) -> str:
    return "col_major" if layout == "col_major" else "row_major"


def instruction(
    loop: For, found: dict[Buffer, Fragment], names: dict[Any, str], value: Callable[[PrimExpr], str]
) -> str:
    """The call that a loop with the note stands for."""
    loops, store = _nest(loop)
    kind = loop.annotations["warp_matrix"]
    zero: dict[Any, Any] = {f.var: e.const(0) for f in loops}
    loads = [n for n in post_order(store.value) if isinstance(n, BufferLoad)]

    def place(access: Any) -> str:
        return _place(access, zero, found, names, value)

    if kind == "fill":
        return f"{_NS}fill_fragment({place(store)}, {value(store.value)});"
    if kind == "mma":
        by_use = {n.buffer.scope: place(n) for n in loads}
        a, b = by_use.get("wmma.matrix_a"), by_use.get("wmma.matrix_b")
        if a is None or b is None:
            raise LowerError("mma_sync without operands in fragments", hint="read them from matrix_a and matrix_b")
        return f"{_NS}mma_sync({place(store)}, {a}, {b}, {place(store)});"
    (load,) = loads
    memory = load if kind == "load" else store
    pointer = f"&{names[memory.buffer]}[{value(_flat(memory, zero))}]"
    stride = value(_stride(memory, loops))
    if kind == "load":
        return f"{_NS}load_matrix_sync({place(store)}, {pointer}, {stride});"
    layout = f"{_NS}mem_{_order(str(loop.annotations['warp_layout']))}"
    return f"{_NS}store_matrix_sync({pointer}, {place(load)}, {stride}, {layout});"


def _nest(loop: For) -> tuple[list[For], BufferStore]:
    nodes = list(post_order(loop))
    stores = [n for n in nodes if isinstance(n, BufferStore)]
    if len(stores) != 1:
        raise LowerError(f"the loops of a matrix instruction at {loop.var.name} hold {len(stores)} stores")
    return [n for n in nodes if isinstance(n, For)], stores[0]


def _flat(access: Any, values: dict[Any, Any]) -> PrimExpr:
    at: PrimExpr = e.const(0)
    for i, extent in zip(access.indices, access.buffer.shape, strict=True):
        at = at * e.as_expr(extent) + e.cast("int64", i)
    return simplify(substitute(at, values))


def _stride(access: Any, loops: Sequence[For]) -> PrimExpr:
    """Elements from one row of the tile to the next: the larger of its two steps."""
    form = linear(_flat(access, {}), [f.var for f in loops])
    steps = [] if form is None else [c for c in (e.const_int(x) for x in form[0].values()) if c is not None]
    return e.const(max(steps, default=1))


def _place(
    access: Any, zero: dict[Any, Any], found: dict[Buffer, Fragment], names: dict[Any, str],
    value: Callable[[PrimExpr], str],
) -> str:  # fmt: skip
    buffer = access.buffer
    if buffer not in found:
        raise LowerError(f"{buffer.name} of scope {buffer.scope} is no fragment of a matrix instruction")
    number = simplify(e.floordiv(_flat(access, zero), found[buffer].elements(buffer.scope)))
    return f"{names[buffer]}[{value(number)}]"
