"""What may be given as a model, read into one form: a Relay module with names for its inputs and outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from warpbeam.driver.flatten import flattened
from warpbeam.ir import budget
from warpbeam.ir.diagnostics import ImportModelError
from warpbeam.relay.expr import Function, IRModule
from warpbeam.relay.infer import infer_types
from warpbeam.relay.types import TupleType
from warpbeam.runtime.manifest import LAYOUT
from warpbeam.runtime.objects import Layout
from warpbeam.transform.partial_evaluate import evaluated


@dataclass(frozen=True, slots=True)
class Source:
    """A model before compilation. `inputs` and `outputs` name main's parameters and results, in order."""

    module: IRModule
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str


def read(model: Any, shapes: Mapping[str, Any] | None = None, name: str = "") -> Source:
    """Reads a model: path of an ONNX file or Relay text, bytes, an `onnx.ModelProto`, a Relay module or function.

    Args:
        shapes: {input name: shape} that fixes dynamic dimensions of an ONNX model.

    Raises:
        WarpbeamError: if it cannot be read, is broken, or uses what is not supported.
    """
    if isinstance(model, str | os.PathLike) and Path(model).suffix == ".relay":
        path = Path(model)
        return from_relay(_read_text(path), name or path.stem)
    if isinstance(model, Function):
        model = IRModule.from_expr(model)
    if isinstance(model, IRModule):
        return from_relay(model, name or "model")
    from warpbeam.frontend.onnx import import_model
    from warpbeam.frontend.onnx.limits import DEFAULT

    most = budget.most_memory()
    limits = DEFAULT if most is None else replace(DEFAULT, tensor_bytes=min(most, DEFAULT.tensor_bytes))
    found = import_model(model, shapes, limits=limits)
    return Source(found.module, tuple(found.inputs), tuple(found.outputs), name or found.name)


def from_relay(mod: IRModule, name: str) -> Source:
    """A module's own names: those of its parameters (numbered where they repeat); results have none, so get some.

    Tuples among them become their tensors; lets, closures and data types are gone.
    """
    main = mod["main"]
    if LAYOUT in main.attrs:  # the model's own names of sequences and strings
        ports = [p for n in Layout.from_json(main.attrs[LAYOUT]).outputs for p in n.ports()]
        return Source(mod, tuple(p.name for p in main.params), tuple(ports), name)
    mod = flattened(*evaluated(infer_types(mod)), unique_names)
    main = mod["main"]
    result = main.body.ty
    count = len(result.fields) if isinstance(result, TupleType) else 0
    outputs = tuple(f"output_{i}" for i in range(count)) if count > 1 else ("output",)
    return Source(mod, tuple(unique_names([p.name for p in main.params], "input")), outputs, name)


def unique_names(names: Sequence[str], base: str) -> list[str]:
    """Names as they are where they are unique, numbered where not."""
    seen: set[str] = set()
    out = []
    for i, n in enumerate(names):
        new = n if n and n not in seen else f"{n or base}_{i}"
        seen.add(new)
        out.append(new)
    return out


def _read_text(path: Path) -> IRModule:
    from warpbeam import op
    from warpbeam.relay import text

    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportModelError(f"cannot read {path.name}", str(path.parent), str(error)) from error
    return text.parse(content, op.get, source=path.name)
