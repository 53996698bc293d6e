"""What passes are told besides the program: target, configuration, and what the program contains at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.tir.expr import Buffer, Call, IntImm, PrimExpr, Select
from warpbeam.tir.stmt import Allocate, Block, For, IfThenElse, PrimFunc


@dataclass(frozen=True, slots=True)
class Setting:
    """The surroundings of a pass.

    target: a Target or None. config: the keys of PassContext(config=…). seen: what `survey` found in the program.
    """

    target: Any = None
    config: Mapping[str, Any] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()

    def option(self, key: str, name: str, default: Any) -> Any:
        """One entry of a dictionary-valued key, e.g. option("tir.UnrollLoop", "auto_max_step", 0)."""
        return (self.config.get(key) or {}).get(name, default)

    def flag(self, key: str) -> bool:
        """A key that is true or false."""
        return bool(self.config.get(key, False))

    @property
    def kind(self) -> str:
        """Which code generator prints for the target; "" where none is given."""
        return str(getattr(self.target, "kind", ""))

    @property
    def on_device(self) -> bool:
        """Whether kernels run on a device with threads of its own."""
        return self.kind in ("cuda", "opencl")

    @property
    def register_bytes(self) -> int:
        """Bytes of the vector registers."""
        return int(getattr(self.target, "vector_registers", 32) * getattr(self.target, "vector_bits", 512) // 8)


def survey(func: PrimFunc) -> frozenset[str]:
    """What occurs in a program: "Block", "Select", "If", "call:exp", "for:vectorized", "thread:vthread",
    "note:double_buffer" (annotations of loops, blocks and allocations), "dtype:bfloat16".
    """
    seen: set[str] = set()
    dtypes: set[str] = set()
    for n in post_order(func.body):
        if isinstance(n, PrimExpr):
            dtypes.add(n.dtype)
            if type(n) is Call:
                seen.add(f"call:{n.op}")
            elif type(n) is Select:
                seen.add("Select")
        elif isinstance(n, For):
            seen.add(f"for:{n.kind}")
            if n.thread:
                seen.add(f"thread:{n.thread.partition('.')[0]}")
            seen.update(f"note:{k}" for k in n.annotations)
        elif isinstance(n, Block):
            seen.add("Block")
            seen.update(f"note:{k}" for k in n.annotations)
            if not isinstance(n.predicate, IntImm):
                seen.add("If")
        elif isinstance(n, Allocate):
            seen.add("Allocate")
            seen.update(f"note:{k}" for k in n.annotations)
        elif isinstance(n, IfThenElse):
            seen.add("If")
        elif isinstance(n, Buffer):
            dtypes.add(n.dtype)
    seen.update(f"dtype:{t.partition('x')[0]}" for t in dtypes)
    return frozenset(seen)
