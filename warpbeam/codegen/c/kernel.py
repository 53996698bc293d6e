"""A lowered PrimFunc as C11 text: loops, arrays; vectors as loops over lanes. Needs neither threads nor malloc."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from warpbeam.codegen import analysis
from warpbeam.codegen.c.dialect import C11, Dialect, bare
from warpbeam.codegen.c.prelude import prelude
from warpbeam.codegen.c.values import Lanes, crosses_lanes, memory_type, value_type
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.target import Target
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S
from warpbeam.tir.intrin_llvm import without_llvm

SMALL = 1024  # bytes of an array that compilers keep in registers, and of which they tell that it may have no value


def print_kernel(func: S.PrimFunc, target: Target) -> str:
    """The C file of one kernel: `int32_t name(wb_ctx*, void* buffers…, int64_t sizes…)`; includes "warpbeam.h".

    Raises:
        LowerError: if the function is not lowered or uses what C cannot say.
    """
    return print_kernels([func], target)


def print_kernels(funcs: Iterable[S.PrimFunc], target: Target) -> str:
    """The C file of several kernels."""
    return "\n".join([prelude(target), *(KernelPrinter(f, target).text() for f in funcs)])


def signature(name: str, buffers: int, scalars: int) -> str:
    """The declaration of a kernel by number of parameters."""
    params = ["wb_ctx* ctx", *(f"void* b{i}" for i in range(buffers)), *(f"int64_t s{i}" for i in range(scalars))]
    return f"int32_t {name}({', '.join(params)})"


def quoted(text: str) -> str:
    """A C string literal."""
    safe = "".join(
        c if 32 <= ord(c) < 127 and c not in '"\\?' else "".join(f"\\{b:03o}" for b in c.encode()) for c in text
    )
    return f'"{safe}"'


class KernelPrinter:
    """Prints one function and the bodies of its parallel loops. `small`: indices are 32-bit."""

    dialect: Dialect = C11

    def __init__(self, func: S.PrimFunc, target: Target) -> None:
        self.func = func
        self.target = target
        self.small = target.pointer_bits <= 32
        self.lines: list[str] = []
        self.depth = 1
        self.count = 0
        self.names: dict[E.Var | E.Buffer, str] = {}
        self.nonneg: set[E.Var] = set()
        self.vectors: set[E.Var] = set()  # variables that are arrays of lanes
        self.parts: list[str] = []
        self.in_parallel = False

    # --------------------------------------------------------------------------------------------------------- text

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    @contextlib.contextmanager
    def indented(self) -> Iterator[None]:
        self.depth += 1
        yield
        self.depth -= 1

    @contextlib.contextmanager
    def lanes(self, count: int) -> Iterator[str]:
        """A loop over lanes; gives the lane's name."""
        if count == 1:
            self.line("{")
            lane = "0"
        else:
            lane = self.fresh("l")
            self.line(f"for (int {lane} = 0; {lane} < {count}; ++{lane}) {{")
        with self.indented():
            yield lane
        self.line("}")

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Lines with names of their own: in braces, if there is more than one."""
        before, self.lines = self.lines, []
        with self.indented():
            yield
        made, self.lines = self.lines, before
        if len(made) == 1 or (made and made[0].lstrip().startswith(("for ", "#pragma"))):
            self.lines += [line[2:] for line in made]
        else:
            self.line("{")
            self.lines += made
            self.line("}")

    def fresh(self, hint: str) -> str:
        self.count += 1
        safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in hint)
        return f"{safe}_{self.count}"

    def bind(self, var: E.Var | E.Buffer, name: str) -> None:
        self.names[var] = name

    def variable(self, var: E.Var) -> str:
        if var not in self.names:
            raise LowerError(f"variable {var.name!r} has no value here", where=self.func.name)
        return self.names[var]

    def array(self, kind: str, dtype: str, name: str, count: int, zero: bool = False) -> None:
        """Declares an array; `zero`: with zeros in it."""
        words = [self.dialect.array] if self.dialect.array and count * dt.nbytes(dt.scalar(dtype)) >= 16 else []
        self.line(" ".join([*words, f"{kind} {name}[{count}]{' = {0}' if zero else ''};"]))

    # ----------------------------------------------------------------------------------------------------- function

    def text(self) -> str:
        analysis.check_lowered(self.func)
        self.func = without_llvm(self.func)
        buffers = list(self.func.buffers)
        scalars = [p for p in self.func.params if isinstance(p, E.Var)]
        self.line("(void)ctx;")
        for i, b in enumerate(buffers):
            name = self.fresh(b.name)
            self.bind(b, name)
            alias = " WB_RESTRICT" if self.func.attrs.get("noalias", True) else ""
            self.line(f"{memory_type(b.dtype)}*{alias} {name} = ({memory_type(b.dtype)}*)b{i};")
            self.line(f"(void){name};")
        for i, v in enumerate(scalars):
            name = self.fresh(v.name)
            self.bind(v, name)
            self.line(f"const {self._index(v.dtype)} {name} = ({self._index(v.dtype)})s{i};")
            self.line(f"(void){name};")
        self.statement(self.func.body)
        self.line("return 0;")
        head = signature(self.func.name, len(buffers), len(scalars))
        return "\n".join([*self.parts, f"{head};", f"{head} {{", *self.lines, "}", ""])

    def _index(self, dtype: str) -> str:
        return "wb_index" if dtype == "int64" else value_type(dtype)

    def plain_division(self, node: E.PrimExpr) -> bool:
        """Whether C's own division and remainder give the floor of an index, since nothing is negative."""
        if not isinstance(node, E.FloorDiv | E.FloorMod) or (analysis.const_int(node.b) or 0) <= 0:
            return False
        return analysis.nonneg(node.a, self.nonneg)

    def device_call(self, node: E.Call, parts: list[str]) -> str | None:
        """A call that only this kind of program knows, or None."""
        return None

    # ------------------------------------------------------------------------------------------------------- memory

    def element(self, buffer: E.Buffer, indices: list[str]) -> str:
        """An element by the texts of its indices."""
        if buffer not in self.names:
            raise LowerError(f"buffer {buffer.name!r} is neither a parameter nor allocated here", where=self.func.name)
        at = ""
        for index, extent in zip(indices, buffer.shape, strict=True):
            size = analysis.const_int(extent)
            if not at or at == "0":
                at = index
            else:
                width = str(size) if size is not None else Lanes(self, "").value(E.as_expr(extent), True)
                outer = at if at.isidentifier() or at.isdigit() else f"({bare(at)})"
                at = str(int(at) * size) if at.isdigit() and size is not None else f"{outer} * {width}"
                if at.isdigit() and index.isdigit():
                    at = str(int(at) + int(index))
                elif index != "0":
                    at = f"{at} + {index}"
        return f"{self.names[buffer]}[{bare(at) or 0}]"

    def from_memory(self, text: str, dtype: str) -> str:
        if dt.scalar(dtype) in self.dialect.load:
            return self.dialect.load[dt.scalar(dtype)].format(text)
        short = {"float16": "f16", "bfloat16": "bf16"}.get(dt.scalar(dtype))
        if short:
            return f"wb_{short}_to_f32({text})"
        return f"({text} != 0)" if dt.is_bool(dt.scalar(dtype)) else text

    def _to_memory(self, text: str, dtype: str) -> str:
        if dt.scalar(dtype) in self.dialect.store:
            return self.dialect.store[dt.scalar(dtype)].format(text)
        short = {"float16": "f16", "bfloat16": "bf16"}.get(dt.scalar(dtype))
        if short:
            return f"wb_f32_to_{short}({text})"
        return f"(uint8_t){text}" if dt.is_bool(dt.scalar(dtype)) else text

    def _store(self, node: S.BufferStore) -> None:
        lanes = max([dt.lanes(i.dtype) for i in node.indices], default=1)
        if lanes == 1:
            with self.scope():
                one = Lanes(self, "")
                place = self.element(node.buffer, [one.value(i, True) for i in node.indices])
                self.line(f"{place} = {bare(self._to_memory(one.value(node.value), node.buffer.dtype))};")
            return
        if self._lanewise(node):
            with self.lanes(lanes) as lane:
                at = Lanes(self, lane)
                place = self.element(node.buffer, [at.value(i, True) for i in node.indices])
                self.line(f"{place} = {bare(self._to_memory(at.value(node.value), node.buffer.dtype))};")
            return
        self.line("{")
        with self.indented():
            all_lanes = self.fresh("a")
            self.array(value_type(node.buffer.dtype), node.buffer.dtype, all_lanes, lanes)
            with self.lanes(lanes) as lane:
                self.line(f"{all_lanes}[{lane}] = {Lanes(self, lane).value(node.value)};")
            with self.lanes(lanes) as lane:
                at = Lanes(self, lane)
                place = self.element(node.buffer, [at.value(i, True) for i in node.indices])
                self.line(f"{place} = {self._to_memory(f'{all_lanes}[{lane}]', node.buffer.dtype)};")
        self.line("}")

    def _lanewise(self, node: S.BufferStore) -> bool:
        """Whether no lane reads what another one writes, so that each can be stored at once."""
        nodes = [n for part in (node.value, *node.indices) for n in post_order(part)]
        loads = [n for n in nodes if isinstance(n, E.BufferLoad)]
        if loads and not self.func.attrs.get("noalias", True):
            return False
        own = [n for n in loads if n.buffer is node.buffer]
        if any(n.indices != node.indices for n in own) or not isinstance(node.indices[-1], E.Ramp):
            return not own
        return not own or not any(isinstance(n, E.Shuffle | E.Call) and crosses_lanes(n) for n in nodes)

    # --------------------------------------------------------------------------------------------------- statements

    def statement(self, node: S.Stmt) -> None:
        """Prints a statement; recursion is as deep as loops and branches nest."""
        while isinstance(node, S.LetStmt | S.Allocate):
            if isinstance(node, S.LetStmt):
                self._let(node)
            else:
                self._allocate(node.buffer, node.body)
            node = node.body
        if isinstance(node, S.SeqStmt):
            for s in node.stmts:
                self.line("{") if isinstance(s, S.LetStmt | S.Allocate) else None
                self.statement(s)
                self.line("}") if isinstance(s, S.LetStmt | S.Allocate) else None
        elif isinstance(node, S.BufferStore):
            self._store(node)
        elif isinstance(node, S.For):
            self._for(node)
        elif isinstance(node, S.IfThenElse):
            self._if(node)
        elif isinstance(node, S.While):
            self.line("for (;;) {")
            with self.indented():
                self.line(f"if (!({Lanes(self, '').value(node.cond)})) break;")
                self.statement(node.body)
            self.line("}")
        elif isinstance(node, S.AssertStmt):
            self.line("{")
            with self.indented():
                self.line(f"if (!({Lanes(self, '').value(node.cond)})) return wb_fail(ctx, {quoted(node.message)});")
            self.line("}")
        elif isinstance(node, S.Evaluate):
            self._evaluate(node.value)
        else:
            raise LowerError(f"a {type(node).__name__} cannot be printed in C", where=self.func.name)

    def _let(self, node: S.LetStmt) -> None:
        name, lanes = self.fresh(node.var.name), dt.lanes(node.var.dtype)
        if lanes > 1:
            self.array(value_type(node.var.dtype), node.var.dtype, name, lanes)
            with self.lanes(lanes) as lane:
                self.line(f"{name}[{lane}] = {Lanes(self, lane).value(node.value)};")
            self.vectors.add(node.var)
        else:
            self.line(f"const {self._index(node.var.dtype)} {name} = {Lanes(self, '').value(node.value)};")
        self.bind(node.var, name)

    def _allocate(self, buffer: E.Buffer, body: S.Stmt) -> None:
        size = 1
        for extent in buffer.shape:
            known = analysis.const_int(extent)
            if known is None:
                raise LowerError(
                    f"buffer {buffer.name!r} of scope {buffer.scope} has a symbolic size", where=self.func.name,
                    hint="lowering turns global allocations of any size into workspace parameters",
                )  # fmt: skip
            size *= known
        name = self.fresh(buffer.name)
        self.bind(buffer, name)
        zero = size * dt.nbytes(buffer.dtype) <= SMALL and analysis.first_access(body, buffer) != "store"
        self.array(memory_type(buffer.dtype, self.dialect), buffer.dtype, name, max(size, 1), zero)
        self.line(f"(void){name};")

    def _evaluate(self, value: E.PrimExpr) -> None:
        if isinstance(value, E.Call) and value.op == "prefetch":
            place = value.args[0]
            assert isinstance(place, E.BufferLoad)
            at = Lanes(self, "0")
            where = self.element(place.buffer, [at.value(i, True) for i in place.indices])
            rw, locality = int(value.attrs.get("rw", 0)), int(value.attrs.get("locality", 3))
            self.line(f"WB_PREFETCH(&{where}, {rw}, {locality});")
        elif not isinstance(value, E.IntImm | E.FloatImm | E.Var | E.StringImm):
            self.line(f"(void)({Lanes(self, '').value(value)});")

    def _if(self, node: S.IfThenElse) -> None:
        before, self.lines = self.lines, []
        index = not any(isinstance(n, E.BufferLoad) for n in post_order(node.cond))
        cond = bare(Lanes(self, "").value(node.cond, index))
        made, self.lines = self.lines, before
        if made:
            self.line("{")
            self.lines += made
        self.line(f"if ({cond}) {{")
        with self.indented():
            self.statement(node.then)
        if node.orelse is not None:
            self.line("} else {")
            with self.indented():
                self.statement(node.orelse)
        self.line("}")
        if made:
            self.line("}")

    def _for(self, node: S.For) -> None:
        if node.kind == "parallel" and self.target.threads and not self.in_parallel:
            self._parallel(node)
            return
        with self.scope():
            low, count = Lanes(self, "").value(node.min, True), Lanes(self, "").value(node.extent, True)
            self._loop(node, low, f"{low} + {count}" if low != "0" else count)

    def _loop(self, node: S.For, low: str, end: str) -> None:
        name, type, stop = self.fresh(node.var.name), self._index(node.var.dtype), end
        self.bind(node.var, name)
        if analysis.nonneg(node.min, self.nonneg):
            self.nonneg.add(node.var)
        if not end.isdigit():
            stop = self.fresh("end")
            self.line(f"const {type} {stop} = {end};")
        self.line(f"for ({type} {name} = {low}; {name} < {stop}; ++{name}) {{")
        with self.indented():
            self.statement(node.body)
        self.line("}")

    def _parallel(self, node: S.For) -> None:
        """The body as a function over a range, its surroundings in a structure."""
        variables, buffers = analysis.uses(node.body)
        shared: list[E.Var | E.Buffer] = [*buffers, *(v for v in variables if v is not node.var and v in self.names)]
        name = f"{self.func.name}_par{len(self.parts)}"
        self.parts.append("")
        slot = len(self.parts) - 1
        fields = []
        for i, item in enumerate(shared):
            type = f"{memory_type(item.dtype)}*" if isinstance(item, E.Buffer) else self._index(item.dtype)
            fields.append(f"{type} f{i};")
        record = f"typedef struct {{ {' '.join(fields)} {self._index(node.var.dtype)} low; }} {name}_closure;"
        self.line("{")
        with self.indented():
            low, count = Lanes(self, "").value(node.min, True), Lanes(self, "").value(node.extent, True)
            self.line(f"{name}_closure closure;")
            for i, item in enumerate(shared):
                self.line(f"closure.f{i} = {self.names[item]};")
            self.line(f"closure.low = {low};")
            self.line(f"const int32_t status = ctx->parallel_for(ctx, {name}, &closure, {count});")
            self.line("if (status) return status;")
        self.line("}")
        self.parts[slot] = record + "\n" + self._body(node, name, shared)

    def _body(self, node: S.For, name: str, shared: list[E.Var | E.Buffer]) -> str:
        inner = KernelPrinter(self.func, self.target)
        inner.in_parallel, inner.count = True, self.count
        alias = " WB_RESTRICT" if self.func.attrs.get("noalias", True) else ""
        inner.line("(void)ctx;")
        inner.line(f"const {name}_closure* c = (const {name}_closure*)closure;")
        for i, item in enumerate(shared):
            local = inner.fresh(item.name)
            inner.bind(item, local)
            if isinstance(item, E.Buffer):
                inner.line(f"{memory_type(item.dtype)}*{alias} {local} = c->f{i};")
            else:
                inner.line(f"const {self._index(item.dtype)} {local} = c->f{i};")
            inner.line(f"(void){local};")
        kind = self._index(node.var.dtype)
        inner._loop(node, f"c->low + ({kind})begin", f"c->low + ({kind})end")
        inner.line("return 0;")
        head = f"static int32_t {name}(wb_ctx* ctx, void* closure, int64_t begin, int64_t end) {{"
        self.count = inner.count
        return "\n".join([head, *inner.lines, "}", ""])
