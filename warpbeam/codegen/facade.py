"""The C interface of an exported model, as LLVM IR text: contexts, calls with plain pointers, and questions.

The functions are called `wbm_...` here and get the model's name when it is exported. The text needs three symbols: the
model's entry, `wb_model_constants` (the first byte of the constants), and in the hosted variant the thread pool. The
hosted variant takes memory from the system by system calls and names `pthread_create` and `pthread_join` weakly: where
the program has none, loops are serial. The freestanding variant makes no system call: the caller gives the memory.

A context is a `wb_ctx`, four words of our own, the mutable parameters, and, where its size is known, the arena.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from warpbeam.codegen.facade_hosted import HOSTED
from warpbeam.codegen.facade_ir import COMMON, FREESTANDING, QUESTIONS
from warpbeam.codegen.llvm.helpers import CONTEXT
from warpbeam.runtime.abi import ABI_VERSION, DLPACK_TYPES
from warpbeam.runtime.export_header import CONTEXT_HEADER, is_static
from warpbeam.runtime.manifest import Manifest, TensorSpec
from warpbeam.runtime.pool_ll import POOL_BYTES
from warpbeam.runtime.pool_machine import machine_of
from warpbeam.target import Target

PREFIX = "wbm_"
CONSTANTS, PARAMS = "wb_model_constants", "wb_model_params"
#: what the system's loader looks up
IMPORTS = ("pthread_create", "pthread_join")
#: system calls: unmapping, growing, the processors that may be used
_CALLS = {
    "x86_64": {"MUNMAP": 11, "MREMAP": 25, "AFFINITY": 204},
    "aarch64": {"MUNMAP": 215, "MREMAP": 216, "AFFINITY": 123},
    "riscv64": {"MUNMAP": 215, "MREMAP": 216, "AFFINITY": 123},
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the constants and of the mutable parameters' initial values."""

    constants: int
    params: int = 0


def hosted(target: Target) -> bool:
    """Whether there is a hosted variant for a target."""
    return machine_of(target.triple) is not None


def print_facade(manifest: Manifest, sizes: Sizes, target: Target, freestanding: bool = False) -> str:
    """The text of the module."""
    arena = manifest.arena_bytes if isinstance(manifest.arena_bytes, int) else 0
    params = -(-sizes.params // 64) * 64
    count = len(manifest.inputs) + len(manifest.outputs)
    values = {
        "CONTEXT": CONTEXT, "HEADER": CONTEXT_HEADER, "WORDS": CONTEXT_HEADER // 8, "PARAMS": sizes.params,
        "ARENA": -(-arena // 64) * 64,
        "FIXED": CONTEXT_HEADER + params, "BLOCK": CONTEXT_HEADER + params + -(-arena // 64) * 64,
        "ENTRY": manifest.entry,
        "ABI": ABI_VERSION, "COUNT": count, "INPUTS": len(manifest.inputs), "OUTPUTS": len(manifest.outputs),
        "ARENAAT": CONTEXT_HEADER + params, "NPARAMS": len(manifest.params),
        "CONSTANTS": f"@{CONSTANTS}" if sizes.constants else "null",
    }  # fmt: skip
    parts = [f'target triple = "{target.triple}"', COMMON, QUESTIONS]
    if freestanding:
        parts.append(FREESTANDING)
    else:
        machine = machine_of(target.triple)
        assert machine is not None
        arch = target.triple.partition("-")[0]
        calls = _CALLS[{"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)]
        values |= {"MMAP": machine["MMAP"], "MADVISE": machine["MADVISE"], "YIELD": machine["YIELD"],
                   "POOLBYTES": POOL_BYTES, **calls}  # fmt: skip
        parts.append(HOSTED)
    if sizes.constants:
        parts.append(f"@{CONSTANTS} = external hidden constant i8")
    if sizes.params:
        parts.append("@wb_model_params = external hidden constant i8")
    values["PARAMSAT"] = "@wb_model_params" if sizes.params else "null"
    text = string.Template("\n".join(parts)).substitute(values)
    return "\n".join([text, _tables(manifest), _run(manifest), ""])


# ------------------------------------------------------------------------------------------------------------- tables


def _bytes(text: str) -> tuple[int, str]:
    data = text.encode() + b"\0"
    shown = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in data)
    return len(data), f'c"{shown}"'


def _tables(manifest: Manifest) -> str:
    """Names, element types and shapes of inputs and outputs, then parameters."""
    lines, rows = [], []
    specs: tuple[TensorSpec, ...] = (*manifest.inputs, *manifest.outputs, *manifest.params)
    for i, spec in enumerate(specs):
        for what, text in (("name", spec.name), ("dtype", spec.dtype)):
            size, shown = _bytes(text)
            lines.append(f"@{what}.{i} = internal constant [{size} x i8] {shown}")
        extents = [e if isinstance(e, int) else -1 for e in spec.shape] or [0]
        shown = ", ".join(f"i64 {e}" for e in extents)
        lines.append(f"@shape.{i} = internal constant [{len(extents)} x i64] [{shown}]")
        code, bits = DLPACK_TYPES[spec.dtype]
        kind = code | bits << 8 | 1 << 16
        rows.append(f"%row {{ ptr @name.{i}, ptr @dtype.{i}, ptr @shape.{i}, i32 {len(spec.shape)}, i32 {kind}, "
                    f"i64 {max(spec.offset, 0)} }}")  # fmt: skip
    rows.append("%row zeroinitializer")
    lines.append(f"@rows = internal constant [{len(rows)} x %row] [{', '.join(rows)}]")
    for what, text in (("model", manifest.name), ("compiler", manifest.compiler_version)):
        size, shown = _bytes(text)
        lines.append(f"@{what}.text = internal constant [{size} x i8] {shown}")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------- run


def _run(manifest: Manifest) -> str:
    """`run(context, input…, output…)`: pointers to data where all shapes are numbers, else to tensors."""
    count = len(manifest.inputs) + len(manifest.outputs)
    params = "".join(f", ptr %a{i}" for i in range(count))
    lines = [f"define i32 @wbm_run(ptr %context{params}) nounwind {{", "entry:",
             f"  %table = alloca [{max(count, 1)} x ptr], align 16"]  # fmt: skip
    static = is_static(manifest)
    if static:
        lines.append(f"  %tensors = alloca [{max(count, 1)} x %tensor], align 16")
    for i in range(count):
        lines.append(f"  %p{i} = getelementptr ptr, ptr %table, i32 {i}")
        if static:
            lines += [
                f"  %t{i} = getelementptr %tensor, ptr %tensors, i32 {i}",
                f"  call void @wbm_describe(ptr %t{i}, i32 {i}, ptr %a{i})",
                f"  store ptr %t{i}, ptr %p{i}",
            ]
        else:
            lines.append(f"  store ptr %a{i}, ptr %p{i}")
    lines.append(f"  %status = call i32 @wbm_call_any(ptr %context, ptr %table, i32 {count})")
    return "\n".join([*lines, "  ret i32 %status", "}"])
