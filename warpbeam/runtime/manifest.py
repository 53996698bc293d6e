"""The manifest of an artefact: what the code expects and offers. Plain data, checked field by field when read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from . import shape_expr
from .abi import ABI_VERSION, DLPACK_TYPES
from .errors import ArtifactError
from .shape_expr import ShapeExpr

MAX_PORTS = 65_536
#: keys of the manifest's `extra`: how strings and sequences are carried, the host functions that the program calls, and
#: which tensors make up parameters and results that are tuples
LAYOUT, CALLS, STRUCTURE = "objects", "host_calls", "structure"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A model's input, output or mutable parameter. Extents are integers, symbols, or (outputs) expressions of them.

    `offset`: byte offset of a parameter in the parameters section; -1 for inputs and outputs. `late`: the shape of this
    output depends on the data; it is known after the call, which leaves the tensor in its scratch memory.
    """

    name: str
    dtype: str
    shape: tuple[ShapeExpr, ...]
    offset: int = -1
    late: bool = False


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """A kernel in the code. `flops` and `bytes` per call; `origins`: the source nodes it computes.

    `symbol` is exported by the code, so that a profiler can call the kernel alone.
    """

    name: str
    symbol: str
    flops: ShapeExpr = 0
    bytes: ShapeExpr = 0
    origins: tuple[str, ...] = ()
    dims: tuple[ShapeExpr, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artefact says about itself.

    Attributes:
        name: the model's name.
        inputs, outputs: in the entry's argument order.
        entry: exported symbol of the model's entry.
        target: LLVM triple of the code.
        cpu_features: LLVM names of processor features the code needs.
        arena_bytes: scratch memory the entry needs; the entry grows it itself when this depends on symbols.
        precision: how the numbers may differ from exact float32 evaluation, in words.
        params: mutable parameters.
        extra: further facts as text, for tools.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    entry: str = "wb_entry"
    target: str = ""
    cpu_features: tuple[str, ...] = ()
    abi_version: int = ABI_VERSION
    arena_bytes: ShapeExpr = 0
    kernels: tuple[KernelInfo, ...] = ()
    precision: str = ""
    compiler_version: str = ""
    params: tuple[TensorSpec, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """As JSON data, all fields present, in the order of the class."""
        return _to_data(self)

    @staticmethod
    def from_data(data: Any) -> Manifest:
        """Reads and checks what `to_data` wrote.

        Raises:
            ArtifactError: naming the field that is missing, unknown or wrong.
        """
        manifest = _from_data(Manifest, data, "manifest")
        assert isinstance(manifest, Manifest)
        for group in ("inputs", "outputs", "params"):
            names = [spec.name for spec in getattr(manifest, group)]
            if len(set(names)) != len(names) or len(names) > MAX_PORTS:
                raise ArtifactError(f"{group} have duplicate names, or there are too many", "manifest")
        for spec in (*manifest.inputs, *manifest.params):
            if any(isinstance(extent, tuple) for extent in spec.shape):
                raise ArtifactError(f"input {spec.name!r} has a computed extent", "manifest", "only outputs may")
        return manifest


def _to_data(node: Any) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, tuple) and value and isinstance(value[0], (TensorSpec, KernelInfo)):
            data[f.name] = [_to_data(item) for item in value]
        elif isinstance(value, dict):
            data[f.name] = dict(sorted(value.items()))
        else:
            data[f.name] = shape_expr.to_json(value) if isinstance(value, tuple) else value
    return data


def _from_data(kind: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ArtifactError(f"an object is expected, not {type(data).__name__}", where)
    known = {f.name: str(f.type) for f in fields(kind)}
    if data.keys() != known.keys():
        odd = sorted(data.keys() ^ known.keys())
        raise ArtifactError(f"missing or unknown fields: {', '.join(odd)}", where)
    return kind(**{name: _READERS[kind_](data[name], f"{where}, {name}") for name, kind_ in known.items()})


def _int(data: Any, where: str) -> int:
    if isinstance(data, bool) or not isinstance(data, int):
        raise ArtifactError(f"an integer is expected, not {data!r}", where)
    return data


def _bool(data: Any, where: str) -> bool:
    if not isinstance(data, bool):
        raise ArtifactError(f"true or false is expected, not {data!r}", where)
    return data


def _str(data: Any, where: str) -> str:
    if not isinstance(data, str):
        raise ArtifactError(f"a string is expected, not {data!r}", where)
    return data


def _list(item: Callable[[Any, str], Any]) -> Callable[[Any, str], tuple[Any, ...]]:
    def read(data: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(data, list):
            raise ArtifactError(f"a list is expected, not {type(data).__name__}", where)
        return tuple(item(x, where) for x in data)

    return read


def _texts(data: Any, where: str) -> dict[str, str]:
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise ArtifactError("an object of strings is expected", where)
    return dict(data)


def _extent(data: Any, where: str) -> ShapeExpr:
    expr = shape_expr.from_json(data, where)
    if isinstance(expr, int) and expr < 0:
        raise ArtifactError(f"negative number {expr}", where)
    return expr


def _tensor(data: Any, where: str) -> TensorSpec:
    spec = _from_data(TensorSpec, data, where)
    assert isinstance(spec, TensorSpec)
    if spec.dtype not in DLPACK_TYPES:
        raise ArtifactError(f"unknown element type {spec.dtype!r}", where)
    if len(spec.shape) > 64:
        raise ArtifactError(f"{len(spec.shape)} axes", where, "at most 64 are supported")
    return spec


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "int": _int,
    "bool": _bool,
    "str": _str,
    "ShapeExpr": _extent,
    "tuple[ShapeExpr, ...]": _list(_extent),
    "tuple[str, ...]": _list(_str),
    "tuple[TensorSpec, ...]": _list(_tensor),
    "tuple[KernelInfo, ...]": _list(lambda data, where: _from_data(KernelInfo, data, where)),
    "dict[str, str]": _texts,
}
