"""Running an exported WebAssembly module under wasmtime."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warpbeam.runtime.abi import DLPACK_TYPES
from warpbeam.runtime.compiled import CompiledModel

Array = npt.NDArray[Any]
_PAGE = 1 << 16
#: wb_tensor where addresses have 32 bits: data, device type and number, axes, type, shape, strides, offset
_TENSOR = struct.Struct("<IiiiBBHII4xQ")


class Instance:
    """A module with a memory of its own.

    Attributes:
        exports: names of what the module exports.
        imports: names of what it imports.
    """

    def __init__(self, data: bytes, name: str = "net") -> None:
        import wasmtime  # type: ignore[import-not-found, import-untyped, unused-ignore]

        self.store = wasmtime.Store()
        module = wasmtime.Module(self.store.engine, data)
        self.exports = [e.name for e in module.exports]
        self.imports = [i.name for i in module.imports]
        self.made = wasmtime.Instance(self.store, module, [])
        self.name = name
        self.memory = self._export("memory")
        self.top = int(self._export("__heap_base").value(self.store))

    def _export(self, name: str) -> Any:
        return self.made.exports(self.store)[name]

    def call(self, function: str, *arguments: int) -> Any:
        """Calls one of the model's functions, named without the model's name."""
        return self._export(f"{self.name}_{function}")(self.store, *arguments)

    def place(self, data: bytes | int) -> int:
        """The address of new memory with these bytes, or of this many bytes; aligned to 64."""
        size = data if isinstance(data, int) else len(data)
        at, self.top = self.top, self.top + -(-max(size, 1) // 64) * 64
        missing = self.top - self.memory.data_len(self.store)
        if missing > 0:
            self.memory.grow(self.store, -(-missing // _PAGE))
        if not isinstance(data, int):
            self.memory.write(self.store, data, at)
        return at

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the memory."""
        return bytes(self.memory.read(self.store, at, at + size))

    def tensor(self, array: Array, data: int) -> int:
        """The address of the descriptor of an array whose elements are at `data`."""
        shape = self.place(struct.pack(f"<{array.ndim}q", *array.shape))
        code, bits = DLPACK_TYPES[str(array.dtype)]
        return self.place(_TENSOR.pack(data, 1, 0, array.ndim, code, bits, 1, shape, 0, 0))


def run_wasm(
    model: CompiledModel, inputs: Mapping[str, Array], outputs: Sequence[Array], folder: Path, scratch: int = 0
) -> list[Array]:
    """What the exported module of a model computes.

    Args:
        model: compiled for WebAssembly.
        inputs: arrays by the inputs' names.
        outputs: arrays of the outputs' shapes and types, in order.
        folder: where the module is written.
        scratch: bytes of scratch memory beyond what is known before a call.

    Raises:
        RuntimeError: with the model's message, if it fails.
    """
    model.export_library(folder / "net.wasm", name="net")
    instance = Instance((folder / "net.wasm").read_bytes())
    size = instance.call("context_bytes") + scratch
    context = instance.call("create_in", instance.place(size), size)
    arrays = [*(np.ascontiguousarray(inputs[s.name]) for s in model.inputs), *outputs]
    first = len(model.inputs)
    places = [instance.place(a.tobytes() if k < first else a.nbytes) for k, a in enumerate(arrays)]
    static = all(isinstance(e, int) for s in (*model.inputs, *model.outputs) for e in s.shape)
    arguments = places if static else [instance.tensor(a, p) for a, p in zip(arrays, places, strict=True)]
    if instance.call("run", context, *arguments):
        at = instance.call("error", context)
        raise RuntimeError(instance.read(at, 176).split(b"\0")[0].decode())
    rows = list(zip(arrays, places, strict=True))[first:]
    return [np.frombuffer(instance.read(p, a.nbytes), a.dtype).reshape(a.shape) for a, p in rows]
