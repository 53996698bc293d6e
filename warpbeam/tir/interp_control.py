"""What all machines of the interpreter share: variables, memory, the mask of what is active, and structured control.

A value covers many iterations (or threads) at once. A branch or a `while` that not all of them take runs under a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.interp_memory import InterpError
from warpbeam.tir.interp_values import Compiler, uniform

_METHODS: dict[type, str] = {
    s.SeqStmt: "seq",
    s.BufferStore: "store",
    s.For: "loop",
    s.LetStmt: "let",
    s.Allocate: "allocate",
    s.IfThenElse: "branch",
    s.While: "loop_while",
    s.AssertStmt: "check",
    s.Evaluate: "evaluate",
}


class Control:
    """State of one run. A machine adds the methods `store`, `loop`, `allocate`, `check` and `evaluate`.

    A method for a statement runs it, or gives the statement that is left to run in its place.
    """

    rules: ClassVar[dict[type, Callable[[Any, Any], Any]]]
    hint: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls.rules = {kind: getattr(cls, name) for kind, name in _METHODS.items()}

    def __init__(self, compiler: Compiler) -> None:
        self.env: dict[e.Var, Any] = {}
        self.memory: dict[e.Buffer, Any] = {}
        self.mask: Any = None
        self.current: Any = None
        self.compiler = compiler

    # -------------------------------------------------------------------------------------------- variables and memory

    def lookup(self, var: e.Var) -> Any:
        found = self.env.get(var)
        if found is None:
            raise InterpError(f"variable {var.name} has no value here", where=self.describe(), why="nothing binds it")
        return found

    def bind(self, var: e.Var, value: Any) -> None:
        """Binds a copy: a loaded value may be a view of memory that is overwritten later."""
        self.env[var] = np.array(value)

    def storage(self, buffer: e.Buffer) -> Any:
        found = self.memory.get(buffer)
        if found is None:
            raise InterpError(
                f"buffer {buffer.name} has no memory here",
                where=self.describe(),
                why="it is neither a parameter nor allocated by an enclosing statement",
            )
        return found

    def value(self, expr: e.PrimExpr) -> Any:
        return self.compiler.compile(expr).run(self)

    def describe(self) -> str:
        """The statement that runs, as text."""
        if self.current is None:
            return ""
        from warpbeam.tir.text.printer import brief

        return brief(self.current)

    # ------------------------------------------------------------------------------------------------------------ masks

    @contextmanager
    def masked(self, cond: Any) -> Iterator[None]:
        """Only where `cond` holds are iterations active."""
        old = self.mask
        cond = np.asarray(cond)
        self.mask = cond if old is None else old & cond
        try:
            yield
        finally:
            self.mask = old

    def active(self) -> bool:
        return self.mask is None or bool(np.any(self.mask))

    # ------------------------------------------------------------------------------------------------------- statements

    def run(self, stmt: Any) -> None:
        """Executes a statement; chains of lets, allocations and single-iteration loops take no stack."""
        while stmt is not None:
            rule = self.rules.get(type(stmt))
            if rule is None:
                raise InterpError(
                    f"the interpreter has no meaning here for statement {type(stmt).__name__}",
                    where=self.describe(),
                    hint=self.hint,
                )
            stmt = rule(self, stmt)

    def seq(self, n: Any) -> None:
        for x in n.stmts:
            self.run(x)

    def let(self, n: Any) -> Any:
        self.current = n
        self.bind(n.var, self.value(n.value))
        return n.body

    def branch(self, n: Any) -> Any:
        self.current = n
        cond = self.value(n.cond)
        if uniform(cond):
            return n.then if cond.item() else n.orelse
        for side, where in ((n.then, cond), (n.orelse, np.logical_not(cond))):
            if side is not None:
                with self.masked(where):
                    if self.active():
                        self.run(side)
        return None

    def loop_while(self, n: Any) -> None:
        old = self.mask
        try:
            while True:
                self.current = n
                cond = np.asarray(self.value(n.cond))
                self.mask = cond if self.mask is None else self.mask & cond
                if not np.any(self.mask):
                    return
                if old is None and uniform(self.mask):
                    self.mask = None
                self.run(n.body)
        finally:
            self.mask = old
