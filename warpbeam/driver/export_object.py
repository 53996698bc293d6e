"""Exporting a model as one relocatable object for another system's linker: Mach-O for macOS, COFF for Windows, or ELF.

The kernels are scheduled once more from the model's Relay text, as for C source, and everything becomes one module that
LLVM writes. Only the functions of the model's interface are global. Large data is zero while LLVM sees it, but for a
digest in front that says where it is in the object, and is put there afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warpbeam.codegen import facade, host
from warpbeam.codegen import llvm as llvm_codegen
from warpbeam.codegen.llvm.compile import machine_of, refused
from warpbeam.codegen.machine import binding, emit
from warpbeam.codegen.support import support_ir
from warpbeam.driver import embed
from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.plan import Planner
from warpbeam.driver.state import bind, ports_of
from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime.artifact import Artifact
from warpbeam.runtime.export_header import c_header, cpp_header
from warpbeam.runtime.export_model import Exported, model_name, write_pieces
from warpbeam.target import Target

_MARK = 32


def export_object(artifact: Artifact, path: Path, name: str = "") -> Exported:
    """Writes PATH (.o or .obj) and its headers. The interface is the freestanding one: the caller gives the memory.

    Args:
        artifact: the model; it must hold its Relay text.
        name: prefix of the C functions; by default the file's name.

    Raises:
        CompileError: if the artefact does not hold the model's Relay text, or was compiled for a C compiler.
        LoadError: if the name is no C identifier, or a file cannot be written.
    """
    name = model_name(name, path)
    mod, target = embed.restored(artifact)
    manifest = artifact.manifest
    if target.kind != "llvm":
        raise CompileError(f"there is no object code for target {target.name}", manifest.name,
                           hint="export C source, or compile for a processor")  # fmt: skip
    kernels = KernelSet(target)
    ports = ports_of(manifest)
    planner = Planner(mod, kernels, ports.inputs, ports.outputs)
    program, _, _ = bind(planner.build(), ports.state)
    data = {facade.CONSTANTS: planner.constants.blob().tobytes(), facade.PARAMS: bytes(artifact.data("params") or b"")}
    data = {symbol: content for symbol, content in data.items() if content}
    sizes = facade.Sizes(len(data.get(facade.CONSTANTS, b"")), len(data.get(facade.PARAMS, b"")))
    texts = [llvm_codegen.print_kernel(k.func, target) for k in kernels.kernels.values()]
    texts.append(host.print_entry(program, target, manifest.entry))
    texts.append(facade.print_facade(manifest, sizes, target, freestanding=True))
    texts += [_zeros(symbol, content) for symbol, content in data.items()]
    whole = _filled(_object(texts, target, f"{name}_"), data)
    files = (path, path.with_suffix(".h"), path.with_suffix(".hpp"))
    size = write_pieces(path, [whole])
    header = c_header(manifest, name, True, "object", params=sizes.params)
    write_pieces(files[1], [header.encode()])
    write_pieces(files[2], [cpp_header(manifest, name, files[1].name, True).encode()])
    return Exported(files, name, size, sizes.constants)


def _object(texts: Sequence[str], target: Target, prefix: str) -> bytearray:
    """One object of several modules; the interface's functions get a prefix, and nothing else stays global."""
    llvm = binding()
    texts = [t for t in (*texts, support_ir(target.triple)) if t]
    try:
        first = llvm.parse_assembly(texts[0])
        for text in texts[1:]:
            first.link_in(llvm.parse_assembly(text))
        things: list[Any] = [*first.functions, *first.global_variables]
        for thing in things:
            if thing.name.startswith(facade.PREFIX) and thing.linkage.name == "external":
                thing.name = prefix + thing.name.removeprefix(facade.PREFIX)
            elif not thing.is_declaration:
                thing.linkage = "internal"
                thing.visibility = "default"
        return bytearray(emit(str(first), machine_of(target), 1))
    except RuntimeError as error:
        raise refused("model", str(error)) from error


def _mark(symbol: str, content: bytes) -> bytes:
    return hashlib.sha256(symbol.encode() + content).digest()


def _zeros(symbol: str, content: bytes) -> str:
    """A constant of the content's size, at least the digest's: the digest, then zeros."""
    mark = "".join(f"\\{byte:02x}" for byte in _mark(symbol, content))
    rest = max(len(content) - _MARK, 0)
    kind = f"<{{ [{_MARK} x i8], [{rest} x i8] }}>"
    value = f'<{{ [{_MARK} x i8] c"{mark}", [{rest} x i8] zeroinitializer }}>'
    return f"@{symbol} = hidden constant {kind} {value}, align 64\n"


def _filled(whole: bytearray, data: Mapping[str, bytes]) -> bytearray:
    """The object with the data in place of the digests and zeros."""
    for symbol, content in data.items():
        mark = _mark(symbol, content)
        at = whole.find(mark)
        if at < 0 or whole.find(mark, at + 1) >= 0 or any(whole[at + _MARK : at + len(content)]):
            raise refused("model", "the constants are not where they should be in the object")
        whole[at : at + max(len(content), _MARK)] = content.ljust(_MARK, b"\0")
    return whole
