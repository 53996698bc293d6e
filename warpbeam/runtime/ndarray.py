"""Devices and arrays (`warpbeam.nd`), and the one door through which foreign arrays come in: `as_numpy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dlpack
from .abi import numpy_dtype
from .errors import RunError

#: DLPack device codes
DEVICE_TYPES = {
    "cpu": 1, "cuda": 2, "cpu_pinned": 3, "opencl": 4, "vulkan": 7, "metal": 8, "rocm": 10, "ext_dev": 12,
    "webgpu": 15, "hexagon": 16,
}  # fmt: skip
_ALIASES = {"gpu": "cuda", "llvm": "cpu", "c": "cpu", "cl": "opencl", "vpi": "ext_dev"}


@dataclass(frozen=True, slots=True)
class Device:
    """A place where tensors live: a DLPack device code and a number."""

    device_type: int
    device_id: int = 0

    @property
    def kind(self) -> str:
        """The type's name, such as `cpu`."""
        return next((name for name, code in DEVICE_TYPES.items() if code == self.device_type), str(self.device_type))

    def __str__(self) -> str:
        return f"{self.kind}({self.device_id})"


def device(kind: str | int, index: int = 0) -> Device:
    """A device by name (`"cpu"`, `"cuda"`, `"cuda:1"`) or DLPack code.

    Raises:
        RunError: if the name is unknown.
    """
    if isinstance(kind, int):
        return Device(kind, index)
    name, _, number = kind.partition(":")
    name = _ALIASES.get(name, name)
    if name not in DEVICE_TYPES or (number and not number.isdecimal()):
        raise RunError(f"unknown device {kind!r}", hint=f"known devices: {', '.join(DEVICE_TYPES)}")
    return Device(DEVICE_TYPES[name], int(number) if number else index)


def cpu(index: int = 0) -> Device:
    """The host processor."""
    return Device(1, index)


def cuda(index: int = 0) -> Device:
    """An NVIDIA GPU."""
    return Device(2, index)


gpu = cuda


class NDArray:
    """A tensor on a device. On the CPU it is a view of a NumPy array, without a copy."""

    __slots__ = ("_array", "device")
    __array_priority__ = 1.0

    def __init__(self, array: npt.NDArray[Any], device: Device | None = None) -> None:
        self._array = array
        self.device = device or cpu()
        if self.device.kind not in ("cpu", "cpu_pinned"):
            raise RunError(f"no memory manager for device {self.device}", hint="use cpu()")

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return str(self._array.dtype.name)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return int(self._array.ndim)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self._array.size)

    def numpy(self) -> npt.NDArray[Any]:
        """A copy in host memory."""
        return self._array.copy()

    asnumpy = numpy

    def copyto(self, target: NDArray | Device) -> NDArray:
        """Copies into another array of equal shape and type, or to a device; returns the target."""
        if isinstance(target, Device):
            return NDArray(self._array.copy(), target)
        _same(target._array, self._array)
        target._array[...] = self._array
        return target

    def copyfrom(self, source: Any) -> NDArray:
        """Overwrites the elements with `source`'s, of equal shape and type; returns self."""
        array = as_numpy(source, compact=False)
        _same(self._array, array)
        self._array[...] = array
        return self

    def __getitem__(self, index: Any) -> Any:
        item = self._array[index]
        return NDArray(item, self.device) if isinstance(item, np.ndarray) else item

    def __setitem__(self, index: Any, value: Any) -> None:
        self._array[index] = value._array if isinstance(value, NDArray) else value

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self._array if dtype is None else self._array.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Any:
        return dlpack.export(self._array, self.__dlpack_device__())

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device.device_type, self.device.device_id

    def __repr__(self) -> str:
        return f"<NDArray {self.dtype} {self.shape} on {self.device}>\n{self._array}"


def _same(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    if target.shape != source.shape or target.dtype != source.dtype:
        raise RunError(
            f"cannot copy {source.dtype} {source.shape} into {target.dtype} {target.shape}",
            hint="shapes and element types must be equal; convert with astype or reshape first",
        )


def array(data: Any, device: Device | None = None) -> NDArray:
    """A new array with a copy of `data` (anything array-like; Python floats become float32 only if NumPy says so)."""
    source = np.asarray(data) if isinstance(data, (int, float, list, tuple)) else as_numpy(data, compact=False)
    return NDArray(np.array(source, order="C", copy=True), device)


def empty(shape: Sequence[int] | int, dtype: str = "float32", device: Device | None = None) -> NDArray:
    """A new array with undefined content."""
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    return NDArray(np.empty(extents, numpy_dtype(dtype)), device)


def from_dlpack(source: Any) -> NDArray:
    """An array that shares the memory of another library's tensor."""
    return NDArray(as_numpy(source, compact=False))


def as_numpy(source: Any, compact: bool = True) -> npt.NDArray[Any]:
    """`source` as a NumPy array: NumPy arrays and scalars, NDArrays, what has `__dlpack__` or `__array_interface__`.

    Memory is shared where it can be. With `compact`, an array that is not row-major without gaps, is not aligned to its
    element, or has foreign byte order is copied into one that is. The element type is never changed.

    Raises:
        RunError: if `source` is none of these, or is not in host memory.
    """
    if isinstance(source, np.ndarray):
        result: npt.NDArray[Any] = source
    elif isinstance(source, NDArray):
        result = source._array
    elif isinstance(source, np.generic) or hasattr(source, "__array_interface__"):
        result = np.asarray(source)
    elif hasattr(source, "__dlpack__"):
        source = source.detach() if getattr(source, "requires_grad", False) else source
        kind = source.__dlpack_device__()[0]
        if kind not in (1, 3):
            raise RunError(f"the tensor is on {Device(int(kind))}", hint="copy it to the CPU first")
        result = dlpack.adopt(source.__dlpack__())
    else:
        raise RunError(
            f"{type(source).__name__} is not an array",
            why="neither a NumPy array nor anything with __dlpack__ or __array_interface__",
            hint="pass np.asarray(value, dtype=...)",
        )
    if not compact:
        return result
    if not result.dtype.isnative:
        result = result.astype(result.dtype.newbyteorder("="))
    if result.flags.c_contiguous and result.flags.aligned:
        return result
    return np.array(result, order="C", copy=True)
