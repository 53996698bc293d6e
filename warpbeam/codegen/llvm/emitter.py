"""Text builder of one LLVM function: scopes, value numbering, and placing instructions as far out as they can go.

The text of a loop is joined to the text of its surroundings only when the loop is closed. Until then, an instruction
whose operands all come from outside is appended to the surrounding scope, in front of the loop: loop-invariant
code motion costs nothing. Equal right-hand sides with visible results are one value. Loads take part under the version
of their buffer, which every store to it changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from warpbeam.codegen.imports import TABLE
from warpbeam.target import Target
from warpbeam.tir.expr import Buffer

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.debug import DebugInfo


@dataclass(slots=True)
class Scope:
    """A straight piece of text under construction: function body, loop body or branch.

    Attributes:
        label: the basic block that the next instruction goes to.
        may_skip: the text may run zero times, so a load must not leave it.
        stores: buffers stored in here (loops only): their loads must not leave it.
        all_stores: every buffer counts as stored.
    """

    depth: int
    label: str
    lines: list[str] = field(default_factory=list)
    may_skip: bool = False
    stores: frozenset[Buffer] = frozenset()
    all_stores: bool = False


@dataclass(slots=True, eq=False)
class Value:
    """An SSA value or literal. `pure`: depends on no memory or register, so its node may be remembered."""

    name: str
    type: str
    scope: Scope
    pure: bool = True

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass(slots=True)
class Module:
    """Text shared by the functions of one module: declarations, constants, helper functions.

    imports: (kind, name) of what is called outside -> its place in the table that the loader fills. defined: functions
    of other objects that are linked with this module, called directly.
    """

    target: Target
    declares: dict[str, str] = field(default_factory=dict)
    globals: list[str] = field(default_factory=list)
    helpers: dict[str, str] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    used: bool = False
    imports: dict[tuple[str, str], int] = field(default_factory=dict)
    defined: frozenset[str] = frozenset()
    debug: DebugInfo | None = None

    def declare(self, name: str, ret: str, args: str) -> None:
        """Declares an LLVM intrinsic."""
        self.declares[name] = f"declare {ret} @{name}({args})"

    def text(self) -> str:
        """The whole module."""
        head = [f'target triple = "{self.target.triple}"', ""] if self.target.triple else []
        attributes = f'attributes #0 = {{ nounwind "no-builtins" {self.target.attributes} }}'
        table = [f"@{TABLE} = global [{len(self.imports)} x ptr] zeroinitializer"] if self.imports else []
        parts = [*table, *self.globals, *self.functions, *(self.helpers[k] for k in sorted(self.helpers))]
        parts += [self.declares[k] for k in sorted(self.declares)]
        notes = [] if self.debug is None else self.debug.text()
        return "\n".join([*head, *parts, attributes, *notes, ""])


class Emitter:
    """Builds the text of one function."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.target = module.target
        self.root = Scope(0, "entry")
        self.stack: list[Scope] = [self.root]
        self.count = 0
        self.known: dict[object, Value] = {}
        self.versions: dict[Buffer | None, int] = {}
        self.version_count = 0
        self.entry: list[str] = []  # allocas
        self.mark = ""  # ", !dbg !7" where lines are wanted: behind every instruction

    # -------------------------------------------------------------------------------------------------- names and scope

    def name(self, hint: str = "") -> str:
        self.count += 1
        return f"%{_clean(hint)}.{self.count}" if hint else f"%v{self.count}"

    def label(self, hint: str) -> str:
        self.count += 1
        return f"{hint}.{self.count}"

    @property
    def scope(self) -> Scope:
        return self.stack[-1]

    def visible(self, scope: Scope) -> bool:
        return scope.depth < len(self.stack) and self.stack[scope.depth] is scope

    def open(
        self, label: str, may_skip: bool, stores: frozenset[Buffer] = frozenset(), all_stores: bool = False
    ) -> Scope:
        scope = Scope(len(self.stack), label, may_skip=may_skip, stores=stores, all_stores=all_stores)
        self.stack.append(scope)
        return scope

    def close(self) -> Scope:
        return self.stack.pop()

    @contextmanager
    def at(self, scope: Scope) -> Iterator[None]:
        """Emits into an outer scope for a while."""
        saved, self.stack = self.stack, self.stack[: scope.depth + 1]
        try:
            yield
        finally:
            self.stack = saved

    # ------------------------------------------------------------------------------------------------------ instruction

    def literal(self, text: str, type: str) -> Value:
        return Value(text, type, self.root)

    def number(self, value: int, type: str = "i64") -> Value:
        """An integer literal of any scalar or vector integer type."""
        if type.startswith("<"):
            return Value(f"splat ({type[1:-1].split(' x ')[1]} {value})", type, self.root)
        return Value(str(value), type, self.root)

    def op(self, rhs: str, type: str, *operands: Value, hint: str = "") -> Value:
        """A pure instruction, placed in the outermost scope that sees its operands, or its equal from before."""
        old = self.known.get(rhs)
        if old is not None and self.visible(old.scope):
            return old
        scope, pure = self.root, True
        for v in operands:
            if v.scope.depth > scope.depth:
                scope = v.scope
            pure = pure and v.pure
        value = Value(self.name(hint), type, scope, pure)
        scope.lines.append(f"  {value.name} = {rhs}{self.mark}")
        self.known[rhs] = value
        return value

    def call(self, intrinsic: str, ret: str, *operands: Value, extra: str = "") -> Value:
        """A pure intrinsic, e.g. call("llvm.fma.f32", "float", a, b, c); `extra`: literal arguments ("i1 false")."""
        types = [v.type for v in operands] + [a.rsplit(" ", 1)[0] for a in extra.split(", ") if a]
        self.module.declare(intrinsic, ret, ", ".join(types))
        args = ", ".join([str(v) for v in operands] + ([extra] if extra else []))
        return self.op(f"call {ret} @{intrinsic}({args})", ret, *operands)

    def line(self, text: str) -> None:
        """An instruction with effect, in the current scope."""
        self.scope.lines.append(f"  {text}{self.mark}")

    def block(self, label: str) -> None:
        """Starts a basic block in the current scope."""
        self.scope.lines.append(f"{label}:")
        self.scope.label = label

    def undefined(self, type: str) -> Value:
        """Content of something never written: zero, so that nothing depends on luck."""
        zero = "zeroinitializer" if type.startswith("<") else "0.0" if type in ("float", "double") else "0"
        return Value("false" if type == "i1" else zero, type, self.root)

    # ------------------------------------------------------------------------------------------------------------ memor

    def version(self, buffer: Buffer) -> int:
        return self.versions.get(buffer, 0)

    def stored(self, *buffers: Buffer) -> None:
        """Notes a store: loads of these buffers must be done again."""
        self.version_count += 1
        for b in buffers:
            self.versions[b] = self.version_count

    def load_scope(self, buffer: Buffer, at_least: Scope) -> Scope:
        """The outermost scope where a load from `buffer` may stand, given where its address is known."""
        for scope in reversed(self.stack):
            if scope.depth <= at_least.depth or scope.may_skip or scope.all_stores or buffer in scope.stores:
                return scope
        return self.root

    def load(self, rhs: str, type: str, buffer: Buffer, *operands: Value) -> Value:
        """A load, shared with equal loads of the same memory version."""
        key = (rhs, self.version(buffer))
        old = self.known.get(key)
        if old is not None and self.visible(old.scope):
            return old
        deepest = max((v.scope for v in operands), key=lambda s: s.depth)
        scope = self.load_scope(buffer, deepest)
        value = Value(self.name(), type, scope, pure=False)
        scope.lines.append(f"  {value.name} = {rhs}{self.mark}")
        self.known[key] = value
        return value

    def body(self) -> str:
        """The text of the function's blocks."""
        return "\n".join(["entry:", *self.entry, *self.root.lines])


def _clean(hint: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in hint)
