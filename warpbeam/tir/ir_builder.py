"""Writing statements as a program that runs: loops and branches are `with` blocks, stores are assignments.

ib = tir.ir_builder.create()
A, B = ib.buffer_ptr(a), ib.buffer_ptr(b)
with ib.for_range(0, n, "i") as i:
    with ib.if_scope(i % 2 == 0):
        B[i] = A[i] + 1
    with ib.else_scope():
        B[i] = 0
statement = ib.get()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.names import fresh_name
from warpbeam.tir import expr as e
from warpbeam.tir import op
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.stmt import (
    Allocate,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
    seq,
)

Rest = Callable[[Stmt], Stmt]  # a statement that takes all that follows it into its body


class IRBuilderError(IRError, ValueError):
    """A builder is used out of order. It is a ValueError too.

    with ib.else_scope(): ...                                      # nothing to be the else of: this error
    with ib.if_scope(i < n): ...    then    with ib.else_scope(): ...    # its fix

    Wrong:
        ib = tir.ir_builder.create()
        ib.emit("x = 1")
    Right:
        ib = tir.ir_builder.create()
        ib.emit(tir.call_extern("int32", "step"))
    """


class WithScope:
    """What `with` opens; gives `value` and runs `close` at the end."""

    def __init__(self, value: Any, close: Callable[[], None]) -> None:
        self.value, self.close = value, close

    def __enter__(self) -> Any:
        return self.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


class BufferVar:
    """A buffer inside a builder: `A[i]` loads, `A[i] = x` stores.

    One index of a buffer of several dimensions counts its elements in row-major order; vectors are loaded and stored
    with a Ramp as last index.
    """

    def __init__(self, builder: IRBuilder, buffer: Buffer, view: Sequence[Any] | None = None) -> None:
        self._builder, self.buffer = builder, buffer
        self._view = buffer.shape if view is None else tuple(view)

    @property
    def dtype(self) -> str:
        return self.buffer.dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        return self._view

    @property
    def name(self) -> str:
        return self.buffer.name

    @property
    def data(self) -> e.BufferRef:
        """The pointer, for calls."""
        return self.buffer.data

    def asobject(self) -> e.BufferRef:
        """The pointer, for calls."""
        return self.buffer.data

    def __prim_expr__(self) -> PrimExpr:
        return self.buffer.data

    def access_ptr(self, *args: Any, **kwargs: Any) -> PrimExpr:
        return self.buffer.access_ptr(*args, **kwargs)

    def _place(self, index: Any) -> tuple[PrimExpr, ...]:
        found = [_as_index(i) for i in (index if isinstance(index, tuple | list) else (index,))]
        dims = self.buffer.shape
        if self._view is not dims and len(found) == len(self._view):
            flat = found[0]
            for i, size in zip(found[1:], self._view[1:], strict=True):
                flat = flat * size + i
            found = [flat]
        elif len(found) == len(dims):
            return tuple(found)
        if len(found) != 1:
            raise IRBuilderError(
                f"{self.buffer.name} has {len(self._view)} dimensions, indexed with {len(found)}",
                hint="one index per dimension, or a single one that counts the elements",
            )
        flat, out = found[0], []
        for k in reversed(range(1, len(dims))):
            out.append(e.floormod(flat, dims[k]))
            flat = e.floordiv(flat, dims[k])
        return (flat, *reversed(out))

    def __getitem__(self, index: Any) -> PrimExpr:
        return BufferLoad(self.buffer, self._place(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        place = self._place(index)
        wanted = BufferLoad(self.buffer, place).dtype
        found = e.as_expr(value, self.buffer.dtype)
        if dt.scalar(found.dtype) != dt.scalar(wanted):
            if not (isinstance(found, e.IntImm | e.FloatImm) or dt.scalar(found.dtype) in ("int64", "int32")):
                raise IRBuilderError(
                    f"a {found.dtype} is stored into {self.buffer.name} of {self.buffer.dtype}",
                    hint=f'convert it: value.astype("{self.buffer.dtype}")',
                )
            found = e.cast(dt.scalar(wanted), found)
        if dt.lanes(found.dtype) < dt.lanes(wanted):
            found = e.Broadcast(found, dt.lanes(wanted))
        self._builder.emit(BufferStore(self.buffer, found, place))


def _as_index(value: Any) -> PrimExpr:
    found = e.as_expr(value)
    return e.cast("int64", found)


class IRBuilder:
    """Collects statements; see the module."""

    def __init__(self) -> None:
        self._open: list[list[Stmt | Rest]] = [[]]
        self._after_if = False
        self._names: set[str] = set()

    def _fresh(self, name: str) -> str:
        """A name that no loop or buffer of this builder has."""
        return fresh_name(name, self._names)

    # ------------------------------------------------------------------------------------------------------- statements

    def emit(self, stmt: Any) -> None:
        """Adds a statement, a call for its effect, or a function that wraps all that follows."""
        self._after_if = False
        if isinstance(stmt, e.PrimExpr):
            stmt = Evaluate(stmt)
        if not isinstance(stmt, Stmt) and not callable(stmt):
            raise IRBuilderError(f"emit is given {type(stmt).__name__}", hint="a statement or a call expression")
        self._open[-1].append(stmt)

    def get(self) -> Stmt:
        """The whole statement; the builder can be used no further."""
        if len(self._open) != 1:
            raise IRBuilderError("a scope of the builder is still open", hint="call get() after its with blocks")
        return self._closed()

    def _begin(self) -> None:
        self._open.append([])

    def _closed(self) -> Stmt:
        stmt: Stmt = SeqStmt(())
        for item in reversed(self._open.pop()):
            if isinstance(item, Stmt):
                stmt = item if stmt is SeqStmt(()) else seq(item, stmt)
            else:
                stmt = item(stmt)
        return stmt

    def _scope(self, value: Any, build: Callable[[Stmt], Stmt]) -> WithScope:
        self._begin()
        return WithScope(value, lambda: self.emit(build(self._closed())))

    # ------------------------------------------------------------------------------------------------------------ loops

    def for_range(
        self,
        begin: Any,
        end: Any,
        name: str = "i",
        dtype: str | None = None,
        kind: str = "serial",
        for_type: str | None = None,
    ) -> WithScope:
        """`with ib.for_range(0, n) as i`: i from begin to end - 1.

        kind: "serial", "parallel", "vectorize", "unroll". dtype: of the index that is given, int64 by default.
        """
        names = {"vectorize": "vectorized", "unroll": "unrolled"}
        how = for_type or kind
        var = Var(self._fresh(name))
        low = _as_index(begin)
        extent = e.sub(_as_index(end), low)
        index = var if dtype is None else e.cast(dtype, var)
        return self._scope(index, lambda body: For(var, low, extent, names.get(how, how), body))

    def while_loop(self, condition: Any) -> WithScope:
        """`with ib.while_loop(cond)`: as long as the condition holds."""
        cond = e.as_expr(condition, "bool")
        return self._scope(None, lambda body: While(cond, body))

    # --------------------------------------------------------------------------------------------------------- branches

    def if_scope(self, cond: Any) -> WithScope:
        """`with ib.if_scope(cond)`: only where the condition holds."""
        test = e.as_expr(cond, "bool")
        self._begin()

        def close() -> None:
            self.emit(IfThenElse(test, self._closed()))
            self._after_if = True

        return WithScope(None, close)

    def else_scope(self) -> WithScope:
        """`with ib.else_scope()`, right after an if_scope: where its condition does not hold."""
        if not self._after_if:
            raise IRBuilderError("else_scope can only follow an if_scope", hint="nothing may stand between the two")
        before: Any = self._open[-1].pop()
        self._begin()
        return WithScope(None, lambda: self.emit(IfThenElse(before.cond, before.then, self._closed())))

    def likely(self, expr: Any) -> PrimExpr:
        """The condition, said to be mostly true."""
        return op.likely(expr)

    # ------------------------------------------------------------------------------------------------ names and buffers

    def let(self, var_name: Any, value: Any) -> Var:
        """A variable that holds `value` for the rest of the scope."""
        held = e.as_expr(value)
        var = var_name if isinstance(var_name, Var) else Var(str(var_name), held.dtype)
        self.emit(lambda rest: LetStmt(var, held, rest))
        return var

    def allocate(
        self, dtype: str, shape: Any, name: str = "buf", axis_separators: Any = None, scope: str = ""
    ) -> BufferVar:
        """Memory for the rest of the scope; scope "global", "local", "shared" or of one's own."""
        dims = shape if isinstance(shape, list | tuple) else (shape,)
        buffer = Buffer(self._fresh(name), dims, dtype, scope or "global")
        self.emit(lambda rest: Allocate(buffer, rest))
        return BufferVar(self, buffer)

    def pointer(self, content_type: str, name: str = "ptr", scope: str = "") -> BufferVar:
        """A pointer of its own, whose size is a variable: a parameter of the function (`.buffer`)."""
        return BufferVar(self, Buffer(name, (Var(f"{name}_size", "int64", True),), content_type, scope or "global"))

    def buffer_ptr(self, buf: Buffer, shape: Any = None) -> BufferVar:
        """A buffer for use with `[]`; `shape` gives its elements, in row-major order, other dimensions."""
        if isinstance(buf, BufferVar):
            buf = buf.buffer
        return BufferVar(self, buf, shape)

    # ------------------------------------------------------------------------------------------------------- attributes

    def scope_attr(self, node: Any, attr_key: str, value: Any) -> None:
        """Says something about the rest of the scope.

        "thread_extent" with a thread axis runs it on that axis; any other key is a note ("pragma_…") on it.
        """
        if isinstance(value, str):
            value = e.StringImm(value)
        if attr_key in ("thread_extent", "virtual_thread"):
            if not isinstance(node, IterVar) or node.kind != "thread":
                raise IRBuilderError(
                    f"{attr_key} needs a thread axis, not {node!r}", hint='te.thread_axis("threadIdx.x")'
                )
            size = _as_index(value)
            self.emit(lambda rest: For(node.var, 0, size, "thread_binding", rest, {}, node.tag))
            return
        once = Var(self._fresh("once"))
        held = value.value if isinstance(value, e.IntImm | e.FloatImm | e.StringImm) else value
        self.emit(lambda rest: For(once, 0, 1, "serial", rest, {attr_key: held}))


def create() -> IRBuilder:
    """A new builder."""
    return IRBuilder()
