"""Which variables and private buffers of a kernel differ between the threads of an axis.

    for tx (threadIdx.x):                         P: the same in all threads of x
        P[0] = A[k]                               Q, and t: different
        for t in [tx, tx + 2): Q[t] = B[t]

What a thread keeps for itself often is the same in all threads (each has copied the same row), and then loops may share
the work on it.
"""

from __future__ import annotations

from typing import Any

from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.tree import kids, own_parts
from warpbeam.tir.expr import Buffer, Var
from warpbeam.tir.stmt import BufferStore, For, IfThenElse, LetStmt, While
from warpbeam.tir.transform.gpu.common import is_private, is_thread

Tags = frozenset[str]


class Taint:
    """`vars` and `memory`: the axes whose threads see different values in a variable, or in a private buffer."""

    def __init__(self, kernel: For) -> None:
        self.vars: dict[Var, Tags] = {}
        self.memory: dict[Buffer, Tags] = {}
        self._grew = True
        while self._grew:
            self._grew = False
            self._visit(kernel, frozenset())

    def of(self, *exprs: Any) -> Tags:
        """The axes on which the values of expressions depend."""
        found: Tags = frozenset()
        for x in exprs:
            for v in free_vars(x):
                found |= self.vars.get(v, frozenset())
            for n in accesses(x)[0]:
                found |= self.memory.get(n.buffer, frozenset())
        return found

    def _visit(self, s: Any, around: Tags) -> None:
        own = self.of(*own_parts(s))
        if isinstance(s, BufferStore) and is_private(s.buffer.scope):
            self._add(self.memory, s.buffer, own | around)
        elif isinstance(s, For | LetStmt):
            bound = {s.thread} if isinstance(s, For) and is_thread(s) else frozenset()
            self._add(self.vars, s.var, own | bound)
        if isinstance(s, For | IfThenElse | While) and not is_thread(s):
            around = around | own
        for c in kids(s):
            self._visit(c, around)

    def _add(self, known: dict[Any, Tags], key: Any, tags: Tags) -> None:
        if not tags <= known.get(key, frozenset()):
            known[key] = known.get(key, frozenset()) | tags
            self._grew = True
