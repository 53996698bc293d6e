"""Kernels of a GPU in a language of the C family: hardware axes, memory scopes, barriers, vectors of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from warpbeam.codegen import analysis
from warpbeam.codegen.c import warp_matrix
from warpbeam.codegen.c.dialect import Dialect
from warpbeam.codegen.c.kernel import KernelPrinter
from warpbeam.codegen.c.prelude import definitions
from warpbeam.codegen.c.values import Lanes, memory_type
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.target import Target
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S
from warpbeam.tir.arith import modular
from warpbeam.tir.intrin_llvm import without_llvm


@dataclass(frozen=True)
class Device:
    """What a kernel language has besides its dialect of C.

    Attributes:
        dialect: the language.
        head: template of a kernel's first line: {name}, {params}, {threads} (a launch bound or "").
        bound: template of the launch bound, {0} is the number of threads.
        buffer, scalar: templates of parameters: {type}, {name}, {restrict}.
        axes: hardware axis -> its index, as the language spells it.
        scopes: scope -> qualifier of an array.
        align: template of an array's alignment, {0} in bytes.
        barriers: scope of a `storage_sync` -> statement.
        vectors: (memory type, lanes) -> vector type that moves them at once, aligned.
        move: template of such a move: {to}, {source}, {type}, {lanes}.
        aligned: a move needs addresses that are multiples of its size.
        shuffles: intrinsic -> template: {mask}, {0}, {1}, {2}.
        unroll: line before a loop to be unrolled.
        includes: word -> line at the head of a file whose text has the word.
        fragments: the language has matrix instructions of whole warps (nvcuda::wmma).
        index: words for an index of 32 and of 64 bits.
    """

    dialect: Dialect
    head: str
    bound: str
    buffer: str
    scalar: str
    restrict: str
    axes: Mapping[str, str]
    scopes: Mapping[str, str]
    align: str
    barriers: Mapping[str, str]
    vectors: Mapping[tuple[str, int], str]
    move: str
    aligned: bool
    unroll: str
    index: tuple[str, str]
    shuffles: Mapping[str, str] = field(default_factory=dict)
    includes: Mapping[str, str] = field(default_factory=dict)
    reserved: frozenset[str] = frozenset()
    fragments: bool = False


def print_device(funcs: Sequence[S.PrimFunc], target: Target, device: Device) -> str:
    """The file of several kernels.

    Raises:
        LowerError: if a function is no kernel (`tir.transform.gpu.lower_gpu`) or uses what the language cannot say.
    """
    texts = [DevicePrinter(f, target, device).text() for f in funcs]
    body = "\n".join(texts)
    d = device.dialect
    helpers = [h.replace("WB_FN", d.function) for h in definitions(body, d.helpers)]
    whole = d.spelled("\n".join([*helpers, *([""] if helpers else []), body]))
    heads = [line for word, line in device.includes.items() if word in whole]
    return "\n".join([*dict.fromkeys(heads), *([""] if heads else []), whole])


class DevicePrinter(KernelPrinter):
    """Prints one kernel."""

    def __init__(self, func: S.PrimFunc, target: Target, device: Device) -> None:
        super().__init__(func, target)
        self.dialect = device.dialect
        self.device = device
        self.small = _fits(func)
        self.taken: set[str] = set(device.reserved)
        self.fragments = warp_matrix.fragments(func.body) if device.fragments else {}
        self.tiles = warp_matrix.memory(func.body) if device.fragments else set()
        self.wide: set[E.Buffer] = set()
        for n in post_order(func.body):
            if isinstance(n, E.BufferLoad | S.BufferStore) and any(isinstance(i, E.Ramp) for i in n.indices):
                self.wide.add(n.buffer)

    def fresh(self, hint: str) -> str:
        """The name itself where it is free."""
        safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in hint) or "v"
        safe = f"v{safe}" if safe[0].isdigit() else safe
        name, count = safe, 0
        while name in self.taken:
            count += 1
            name = f"{safe}_{count}"
        self.taken.add(name)
        return name

    def text(self) -> str:
        self._check()
        self.func = without_llvm(self.func)
        params = []
        for p in self.func.params:
            name = self.fresh(p.name)
            self.bind(p, name)
            if isinstance(p, E.Buffer):
                restrict = self.device.restrict if self.func.attrs.get("noalias", True) else ""
                type = memory_type(p.dtype, self.dialect)
                params.append(self.device.buffer.format(type=type, name=name, restrict=restrict))
            else:
                params.append(self.device.scalar.format(type=self._index(p.dtype), name=name))
        threads, known = 1, True
        for n in post_order(self.func.body):
            if isinstance(n, S.For) and n.kind == "thread_binding" and n.thread.startswith("threadIdx"):
                count = analysis.const_int(n.extent)
                threads, known = threads * (count or 1), known and count is not None
        bound = self.device.bound.format(threads) if known else ""
        self.statement(self.func.body)
        head = self.device.head.format(name=self.func.name, params=", ".join(params), threads=bound)
        word = self.device.index[0 if self.small else 1]
        return "\n".join([f"{head} {{", *self.lines, "}", ""]).replace("wb_index", word)

    def _check(self) -> None:
        for n in post_order(self.func.body):
            if isinstance(n, S.Block) or (isinstance(n, S.For) and n.kind in ("vectorized", "parallel")):
                raise LowerError(
                    f"{self.func.name} is no kernel: it has a {type(n).__name__}",
                    hint="run tir.transform.gpu.lower_gpu first, and bind loops to threads",
                )

    # ------------------------------------------------------------------------------------------------------ statements

    def _for(self, node: S.For) -> None:
        if "warp_matrix" in node.annotations and self.device.fragments:
            self.line(
                warp_matrix.instruction(node, self.fragments, self.names, lambda x: Lanes(self, "").value(x, True))
            )
            return
        if node.kind == "thread_binding":
            axis = self.device.axes.get(node.thread)
            if axis is None:
                raise LowerError(f"loop {node.var.name} runs on {node.thread}, which {self.dialect.name} does not have")
            self.bind(node.var, f"(({self._index(node.var.dtype)}){axis})")
            self.nonneg.add(node.var)
            self.statement(node.body)
            return
        super()._for(node)

    def _loop(self, node: S.For, low: str, end: str) -> None:
        if node.annotations.get("pragma_unroll"):
            self.line(self.device.unroll)
        super()._loop(node, low, end)

    def _allocate(self, buffer: E.Buffer, body: S.Stmt) -> None:
        size = 1
        for extent in buffer.shape:
            known = analysis.const_int(extent)
            if known is None:
                raise LowerError(f"buffer {buffer.name} of scope {buffer.scope} has a symbolic size", self.func.name)
            size *= known
        if self.device.fragments and warp_matrix.is_fragment(buffer):
            name = self.fresh(buffer.name)
            self.bind(buffer, name)
            kind = memory_type(buffer.dtype, self.dialect)
            self.line(warp_matrix.declaration(buffer, self.fragments.get(buffer), name, kind, size))
            return
        if buffer.scope not in self.device.scopes:
            raise LowerError(f"{self.dialect.name} has no memory of scope {buffer.scope} ({buffer.name})")
        name = self.fresh(buffer.name)
        self.bind(buffer, name)
        bytes_ = 32 if buffer in self.tiles else 16 if buffer in self.wide else 0
        align = self.device.align.format(bytes_) if bytes_ else ""
        words = [w for w in (self.device.scopes[buffer.scope], align) if w]
        self.line(" ".join([*words, f"{memory_type(buffer.dtype, self.dialect)} {name}[{max(size, 1)}];"]))

    def _evaluate(self, value: E.PrimExpr) -> None:
        if isinstance(value, E.Call) and value.op == "storage_sync":
            scope = value.args[0]
            assert isinstance(scope, E.StringImm)
            self.line(self.device.barriers[scope.value])
        elif not (isinstance(value, E.Call) and value.op == "prefetch"):
            super()._evaluate(value)

    def _store(self, node: S.BufferStore) -> None:
        if not self._moved(node):
            super()._store(node)

    def _moved(self, node: S.BufferStore) -> bool:
        """Prints a copy of consecutive elements as one move, if there is such a thing."""
        value = node.value
        if not isinstance(value, E.BufferLoad) or value.buffer.dtype != node.buffer.dtype:
            return False
        to, source = _run(node.buffer, node.indices), _run(value.buffer, value.indices)
        if to is None or source is None:
            return False
        memory = memory_type(node.buffer.dtype, self.dialect)
        lanes = dt.lanes(value.dtype)
        vector = self.device.vectors.get((memory, lanes))
        if vector is None or (
            self.device.aligned and not (self._is_aligned(to, lanes) and self._is_aligned(source, lanes))
        ):
            return False
        with self.scope():
            one = Lanes(self, "")
            at = self.element(node.buffer, [one.value(i, True) for i in to[1]])
            begin = self.element(value.buffer, [one.value(i, True) for i in source[1]])
            self.line(self.device.move.format(to=at, source=begin, type=vector, lanes=lanes))
        return True

    def _is_aligned(self, run: tuple[E.Buffer, list[E.PrimExpr]], lanes: int) -> bool:
        at: E.PrimExpr = E.const(0)
        for i, extent in zip(run[1], run[0].shape, strict=True):
            at = at * E.as_expr(extent) + E.cast("int64", i)
        coef, base = modular(at)
        return coef % lanes == 0 and base % lanes == 0

    def device_call(self, node: E.Call, parts: list[str]) -> str | None:
        if not node.op.startswith("warp_shuffle"):
            return None
        template = self.device.shuffles.get(node.op)
        if template is None:
            raise LowerError(f"{self.dialect.name} has no {node.op}", hint="use a target without warp_shuffle")
        count = int(node.attrs.get("threads", 32))
        mask = f"0x{(1 << min(count, 32)) - 1:08x}"
        return template.format(*parts, mask=mask)


def _run(buffer: E.Buffer, indices: Sequence[E.PrimExpr]) -> tuple[E.Buffer, list[E.PrimExpr]] | None:
    """The buffer and the first element of an access to consecutive ones."""
    last = indices[-1] if indices else None
    if not isinstance(last, E.Ramp) or analysis.const_int(last.stride) != 1:
        return None
    return buffer, [*indices[:-1], last.base]


def _fits(func: S.PrimFunc) -> bool:
    """Whether every element's number fits 32 bits."""
    found = {n.buffer for n in post_order(func.body) if isinstance(n, E.BufferLoad | S.BufferStore)}
    for b in found:
        total = 1
        for d in b.shape:
            size = analysis.const_int(d)
            if size is None:
                return False
            total *= max(size, 1)
        if total >= 1 << 31:
            return False
    return True
