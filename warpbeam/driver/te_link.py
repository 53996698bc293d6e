"""From lowered functions to a loaded module: text, objects, linking, and the sources that people ask for."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warpbeam.codegen import llvm, machine, packed
from warpbeam.codegen.imports import ABOUT, CALLS, TABLE
from warpbeam.codegen.llvm.compile import machine_of, refused
from warpbeam.driver import system_cc
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order
from warpbeam.runtime import elf
from warpbeam.runtime.errors import LinkError
from warpbeam.runtime.function_module import FORMAT, FunctionModule, Sources, other_machine
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.pool_ll import EXPORTS as POOL_SYMBOLS
from warpbeam.runtime.pool_ll import pool_ir
from warpbeam.target import Target
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S

_IR = re.compile(r"^\s*(; ModuleID|source_filename|target (triple|datalayout)|define |declare |@)", re.MULTILINE)


# ----------------------------------------------------------------------------------------------------- imported sources


def imported_sources(funcs: Sequence[S.PrimFunc]) -> list[str]:
    """Texts of the pragmas import_llvm and import_c, each once; a pragma may also name a file."""
    out: dict[str, None] = {}
    for func in funcs:
        for node in post_order(func.body):
            if isinstance(node, S.For | S.Block):
                for key in ("import_llvm", "import_c"):
                    found = node.annotations.get(f"pragma_{key}", node.annotations.get(key))
                    if isinstance(found, E.StringImm):
                        found = found.value
                    if isinstance(found, str):
                        out[_text_of(found)] = None
    return list(out)


def _text_of(given: str) -> str:
    if "\n" not in given and len(given) < 4096 and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8")
    return given


def _is_ir(text: str) -> bool:
    return _IR.search(text) is not None and "#include" not in text


def _objects_of(sources: Sequence[str], target: Target) -> list[bytes]:
    """Object code of imported texts: LLVM IR, else C."""
    out = []
    for text in sources:
        if _is_ir(text):
            out.append(llvm.compile_text(text, target, level=3, name="imported by a pragma"))
        else:
            out.append(system_cc.object_of_c(text, target))
    symbols = [s for data in out for s in elf.parse_object(data, "imported object").symbols]
    if any(s.section == elf.SHN_UNDEF and s.name in _MEMORY for s in symbols):
        out.append(_memory_object(target))  # compilers call these for loops that copy
    return out


_MEMORY = ("memset", "memcpy", "memmove")
_STEP = """
define weak ptr @{name}(ptr %to, {param}, i{bits} %n) #0 {{
entry:
  {start}
  %some = icmp ne i{bits} %n, 0
  br i1 %some, label %loop, label %end
loop:
  %i = phi i{bits} [0, %entry], [%next, %loop]
  %next = add i{bits} %i, 1
  {at}
  %p = getelementptr i8, ptr %to, i{bits} %k
  {value}
  store i8 %v, ptr %p
  %more = icmp ult i{bits} %next, %n
  br i1 %more, label %loop, label %end
end:
  ret ptr %to
}}
"""


@functools.lru_cache(maxsize=8)
def _memory_object(target: Target) -> bytes:
    """memset, memcpy and memmove (from behind where the target lies behind its source), byte by byte."""
    bits = target.pointer_bits
    load = f"%q = getelementptr i8, ptr %from, i{bits} %k\n  %v = load i8, ptr %q"
    forward = f"%k = add i{bits} %i, 0"
    either = f"%r = sub i{bits} %n, %next\n  %k = select i1 %back, i{bits} %r, i{bits} %i"
    rows = [
        ("memset", "i32 %c", "%v = trunc i32 %c to i8", forward, ""), ("memcpy", "ptr %from", "", forward, load),
        ("memmove", "ptr %from", "%back = icmp ugt ptr %to, %from", either, load),
    ]  # fmt: skip
    parts = [_STEP.format(name=n, param=p, start=s, at=a, value=v, bits=bits) for n, p, s, a, v in rows]
    return llvm.compile_text("".join(parts) + 'attributes #0 = { "no-builtins" }\n', target, level=0, name="wb_memory")


def _defined(objects: Sequence[bytes]) -> frozenset[str]:
    """Functions that objects define for others."""
    return frozenset(
        s.name
        for k, data in enumerate(objects)
        for s in elf.parse_object(data, f"imported object {k}").symbols
        if s.bind != elf.STB_LOCAL and s.section != elf.SHN_UNDEF and s.name
    )


# ----------------------------------------------------------------------------------------------------------------- LLVM


def build_llvm(
    entries: Sequence[packed.Entry], target: Target, sources: Sequence[str] = (), modules: Sequence[Any] = ()
) -> FunctionModule:
    """A module of functions through LLVM; `modules` describes kernels of devices, (kind, extension, source)."""
    extra = _objects_of(sources, target)
    kernels, front = packed.print_llvm(entries, target, _defined(extra))
    rows = [{"packed": True} if kind == "packed" else {"c": name} for kind, name in kernels.imports]
    about = _about(entries, target, rows, modules)
    made = packed.finish_llvm(kernels, front, about)
    name, text = entries[0].name, made.whole
    objects = [llvm.compile_text(made.kernels, target, name=name),
               llvm.compile_text(made.entries, target, level=0, name=name), *extra, _pool_object(target)]  # fmt: skip
    shown = {"ll": text, "s": lambda: llvm.assembly_text(text, target, name=name)}
    irs = [t for t in sources if _is_ir(t)]
    whole = functools.partial(_one_object, [text, *irs, pool_ir(target.triple)], target, len(irs) < len(sources))
    kept = Sources("ll", shown, whole)
    reason = other_machine(name, target.triple, target.required_features)
    try:
        code = link_shared(objects, _exports(entries, bool(rows)))
    except LinkError:
        if reason is None:
            raise
        code = None  # a machine that only others can link for
    if reason is not None:
        return FunctionModule.foreign(code, kept, json.loads(about), reason)
    return FunctionModule(code, "llvm", kept, name)


def _about(entries: Sequence[packed.Entry], target: Target, imports: Any, modules: Sequence[Any]) -> str:
    """The module's description, which its library carries."""
    data: dict[str, Any] = {
        "format": FORMAT, "kind": str(target.kind), "entry": entries[0].name,
        "functions": [e.about() for e in entries], "imports": imports, "triple": target.triple,
        "features": list(target.required_features),
    }  # fmt: skip
    if modules:
        data["modules"] = [{"kind": kind, "ext": ext, "source": source} for kind, ext, source in modules]
    return json.dumps(data, separators=(",", ":"))


def _exports(entries: Sequence[packed.Entry], imports: bool) -> list[str]:
    names = [*(e.name for e in entries), *(e.kernel_name for e in entries), "wb_repeat", ABOUT, *POOL_SYMBOLS]
    return [*names, TABLE] if imports else names


@functools.lru_cache(maxsize=8)
def _pool_object(target: Target) -> bytes:
    return llvm.compile_text(pool_ir(target.triple), target, name="wb_pool")


def _one_object(texts: Sequence[str], target: Target, more: bool) -> bytes:
    """One relocatable object of everything, for other linkers."""
    if more:
        raise CompileError("the module contains C code imported by a pragma, which is no part of one object",
                           hint="save it as .so or .tar")  # fmt: skip
    binding = machine.binding()
    try:
        first = binding.parse_assembly(texts[0])
        for text in texts[1:]:
            first.link_in(binding.parse_assembly(text))
        return machine.emit(str(first), machine_of(target), 1)
    except RuntimeError as error:
        raise refused("module", str(error)) from error


# -------------------------------------------------------------------------------------------------------------------- C


def build_c(entries: Sequence[packed.Entry], target: Target, sources: Sequence[str] = ()) -> FunctionModule:
    """A module of functions through C text and the system's compiler."""
    if any(_is_ir(t) for t in sources):
        raise CompileError("a pragma imports LLVM IR into a C file", hint='import C, or build for "llvm"')
    uses_packed = any(_calls(e.func, "call_packed") for e in entries)
    rows = [{"packed": True}] if uses_packed else []
    text = packed.print_c(entries, target, _about(entries, target, rows, ()), uses_packed)
    parts = [text, *sources]
    code = system_cc.shared_of_c(parts)
    shown = {"c": "\n".join(parts), "s": lambda: system_cc.assembly_of_c(text)}
    return FunctionModule(code, "c", Sources("c", shown, lambda: system_cc.object_of_c("\n".join(parts), target)),
                          entries[0].name)  # fmt: skip


def _calls(func: S.PrimFunc, op: str) -> bool:
    assert op in CALLS
    return any(isinstance(n, E.Call) and n.op == op for n in post_order(func.body))
