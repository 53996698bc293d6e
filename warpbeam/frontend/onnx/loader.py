"""Reads a model file as untrusted input: everything is bounded before it is parsed, allocated or followed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.apart import LARGE, Apart, taken_apart
from warpbeam.frontend.onnx.external import ExternalData
from warpbeam.frontend.onnx.limits import DEFAULT, Limits
from warpbeam.ir.diagnostics import ImportModelError

OLDEST_IR = 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """A parsed model and where its external data may lie. contents: raw data of initializers of its graph, by their
    numbers, where the parsed message is without.
    """

    proto: Any
    external: ExternalData
    source: str
    name: str
    opsets: dict[str, int]
    contents: dict[int, np.ndarray] = field(default_factory=dict)


def load(model: Any, limits: Limits = DEFAULT, opset: int | None = None) -> Loaded:
    """A model from a path, bytes or an onnx.ModelProto; `opset` overrides the version of the standard operators.

    Raises ImportModelError for what is not a model or breaks the format's rules.
    """
    import onnx

    contents: dict[int, np.ndarray] = {}
    if isinstance(model, onnx.ModelProto):
        proto, folder, source = model, None, "the given ModelProto"
    elif isinstance(model, bytes | bytearray | memoryview):
        proto, folder, source = parse(bytes(model), "the given bytes", limits), None, "the given bytes"
    elif isinstance(model, str | os.PathLike):
        path = os.fspath(model)
        read = _read(path, limits)
        proto, folder, source = parse(read.message, path, limits), os.path.dirname(path) or ".", path
        contents = read.contents
    else:
        raise ImportModelError(
            f"a model cannot be read from {type(model).__name__}", hint="give a path, bytes or an onnx.ModelProto"
        )
    opsets = _versions(proto, source, opset)
    _check_size(proto, source, limits)
    name = proto.graph.name[:80] if folder is None else os.path.splitext(os.path.basename(source))[0]
    return Loaded(proto, ExternalData(folder), source, name or "model", opsets, contents)


def _read(path: Any, limits: Limits) -> Apart:
    """A model file, taken apart if it is large."""
    try:
        with open(path, "rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size > limits.file_bytes:
                raise ImportModelError(
                    f"the model file has {size} bytes", where=str(path), why=f"the limit is {limits.file_bytes}"
                )
            found = taken_apart(f) if size > LARGE else None
            f.seek(0)
            return found or Apart(f.read(limits.file_bytes + 1), {})
    except OSError as e:
        raise ImportModelError(f"the model file cannot be read: {e.strerror}", where=str(path)) from None


def parse(data: bytes, source: str, limits: Limits) -> Any:
    """The ModelProto of `data`."""
    import onnx
    from google.protobuf.message import DecodeError

    if not data:
        raise ImportModelError("the model file is empty", where=source)
    if len(data) > limits.file_bytes:
        raise ImportModelError(f"the model has {len(data)} bytes, the limit is {limits.file_bytes}", where=source)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as e:
        raise ImportModelError(
            "the file is not an ONNX model, or it is truncated or damaged",
            where=source,
            why=str(e)[:200],
            hint="write it again, or check the download",
        ) from None
    return proto


def _versions(proto: Any, source: str, override: int | None) -> dict[str, int]:
    """Operator-set version per domain, the standard one under ""."""
    import onnx

    if not proto.HasField("graph"):
        raise ImportModelError("the model has no graph", where=source)
    if not OLDEST_IR <= proto.ir_version <= onnx.IR_VERSION:
        raise ImportModelError(
            f"the model has IR version {proto.ir_version}; versions {OLDEST_IR} to {onnx.IR_VERSION} are known",
            where=source,
            hint="a newer `onnx` package knows newer versions" if proto.ir_version > onnx.IR_VERSION else "",
        )
    found = domain_versions(proto.opset_import, source)
    if override is not None:
        found[""] = override
    if not found:
        raise ImportModelError("the model does not say which operator sets it uses", where=source)
    return found


def newest_opset() -> int:
    """Newest version of the standard operator set that the installed `onnx` package knows."""
    import onnx

    return int(onnx.defs.onnx_opset_version())


def domain_versions(imports: Any, source: str) -> dict[str, int]:
    """Version per domain of a list of OperatorSetIdProto."""
    found: dict[str, int] = {}
    for item in imports:
        domain = "" if item.domain in ("", "ai.onnx") else item.domain
        if found.setdefault(domain, item.version) != item.version:
            raise ImportModelError(f"operator set {domain or 'ai.onnx'!r} is imported in two versions", where=source)
        newest = newest_opset() if domain == "" else None
        if item.version < 1 or (newest is not None and item.version > newest):
            raise ImportModelError(
                f"operator set {domain or 'ai.onnx'} version {item.version}; versions 1 to {newest} are known",
                where=source,
            )
    return found


def subgraphs(node: Any) -> list[Any]:
    """Graphs held by a node's attributes."""
    out: list[Any] = []
    for a in node.attribute:
        if a.type == 5:
            out.append(a.g)
        elif a.type == 10:
            out.extend(a.graphs)
    return out


def _check_size(proto: Any, source: str, limits: Limits) -> None:
    """Bounds the number of nodes and the nesting of the graphs as written; their names must be text."""
    graph, nodes = proto.graph, 0
    _check_names(
        [graph.name, *(v.name for part in (graph.input, graph.output, graph.initializer) for v in part)], source
    )
    stack: list[tuple[Any, int]] = [(proto.graph.node, 1)] + [(f.node, 1) for f in proto.functions]
    while stack:
        found, depth = stack.pop()
        nodes += len(found)
        if nodes > limits.nodes or depth > limits.nesting:
            raise ImportModelError(
                f"the model has more than {limits.nodes} nodes or graphs nested deeper than {limits.nesting}",
                where=source,
            )
        for node in found:
            _check_names((node.name, node.op_type, node.domain, *node.input, *node.output), source)
            for inner in subgraphs(node):
                _check_names((v.name for part in (inner.input, inner.output, inner.initializer) for v in part), source)
                stack.append((inner.node, depth + 1))


def _check_names(names: Iterable[Any], source: str) -> None:
    """Protobuf hands on as bytes what it cannot decode."""
    for name in names:
        if isinstance(name, bytes):
            raise ImportModelError(
                f"the name {name[:80]!r} is not UTF-8", where=source, hint="write the model again with another name"
            )
