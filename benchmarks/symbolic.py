"""Benchmark models with open dimensions, as exporters write them: shapes that a layer needs are computed by nodes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from .models import MODELS, cache_dir
from .models.net import InputSpec, Shape, T
from .models.onnx_net import OnnxNet


class Dim(int):
    """An extent that has a value while the model is built, and a name in the finished file."""

    name: str

    def __new__(cls, value: int, name: str) -> Dim:
        self = super().__new__(cls, value)
        self.name = name
        return self


def _named(shape: Shape, *operands: Shape) -> Shape:
    """`shape` with the names that the operands' extents have, aligned at the right."""
    out = list(shape)
    for other in operands:
        for k in range(1, len(other) + 1):
            if isinstance(other[-k], Dim) and other[-k] == out[-k]:
                out[-k] = other[-k]
    return tuple(out)


class SymbolicNet(OnnxNet):
    """Layers whose extents may be `Dim`s. A weight with such an extent is a table of `longest` rows that is cut."""

    def __init__(self, seed: int = 0, longest: int = 512) -> None:
        super().__init__(seed)
        self.longest = longest
        self.sources: dict[str, tuple[str, int]] = {}

    def input_value(self, spec: InputSpec) -> str:
        """A graph input; the first that has a dimension of a name gives its size."""
        for axis, extent in enumerate(spec.shape):
            if isinstance(extent, Dim):
                self.sources.setdefault(extent.name, (spec.name, axis))
        return spec.name

    def size(self, extent: int) -> str:
        """An int64 vector of one element: a constant, or read from an input's shape."""
        if not isinstance(extent, Dim):
            return self.ints((extent,))
        name, axis = self.sources[extent.name]
        return self.node("Gather", [self.node("Shape", [name]), self.ints((axis,))], axis=0)

    def param(self, name: str, shape: Shape, mean: float = 0.0, std: float = 1.0, positive: bool = False) -> str:
        """An initializer; one with an open extent is cut from a longer one."""
        axes = [k for k, e in enumerate(shape) if isinstance(e, Dim)]
        whole = tuple(self.longest if k in axes else e for k, e in enumerate(shape))
        out = super().param(name, whole, mean, std, positive)
        for k in axes:
            out = self.node("Slice", [out, self.ints((0,)), self.size(shape[k]), self.ints((k,))])
        return out

    def op_reshape(self, args: list[str], shape: Shape) -> str:
        """Reshape to a target that is put together of sizes where one is open."""
        if not any(isinstance(e, Dim) for e in shape):
            return super().op_reshape(args, shape)
        return self.node("Reshape", [args[0], self.node("Concat", [self.size(e) for e in shape], axis=0)])

    def binary(self, op: str, a: T, b: T) -> T:
        """As `Net.binary`; the result's open extents keep their names."""
        out = super().binary(op, a, b)
        return T(out.value, _named(out.shape, a.shape, b.shape), out.dtype)

    def finish(self, name: str) -> Any:
        """The model; extents that are the same `Dim` along two axes of an input get names of their own."""
        model = self.model(name)
        specs = [(s.name, s.shape) for s in self.inputs] + [(n, t.shape) for n, t in self.outputs]
        for value, (_, shape) in zip([*model.graph.input, *model.graph.output], specs, strict=True):
            used: list[str] = []
            for dim, extent in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                if isinstance(extent, Dim):
                    count = used.count(extent.name)
                    used.append(extent.name)
                    dim.dim_param = f"{extent.name}_{count + 1}" if count else extent.name
        return model


def symbolic_model(name: str, dims: dict[str, int], sizes: dict[str, Any]) -> Any:
    """The `onnx.ModelProto` of a benchmark model with `sizes`, whose `dims` (builder's argument -> extent) are open."""
    net = SymbolicNet()
    MODELS[name].build(net, **{**sizes, **{k: Dim(v, k) for k, v in dims.items()}})
    return net.finish(name)


def symbolic_path(name: str, dims: dict[str, int]) -> Path:
    """The ONNX file of a benchmark model whose `dims` (builder's argument -> extent while building) are open."""
    here = Path(__file__)
    digest = hashlib.sha256(repr(sorted(dims.items())).encode())
    for path in (here, *sorted((here.parent / "models").glob("*.py"))):
        digest.update(path.read_bytes())
    path = cache_dir() / f"{name}-symbolic-{digest.hexdigest()[:12]}.onnx"
    if path.exists():
        return path
    model = symbolic_model(name, dims, MODELS[name].sizes)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_bytes(model.SerializeToString())
    partial.rename(path)
    for old in path.parent.glob(f"{name}-symbolic-*.onnx"):
        if old != path:
            old.unlink(missing_ok=True)
    return path
