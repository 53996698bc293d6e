"""Devices and arrays (`warpbeam.nd`), and the one door through which foreign arrays come in: `as_numpy`."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dlpack
from .abi import DLPACK_TYPES, Tensor, numpy_dtype
from .errors import RunError
from .memory import address_of

#: DLPack device codes
DEVICE_TYPES = {
    "cpu": 1, "cuda": 2, "cpu_pinned": 3, "opencl": 4, "vulkan": 7, "metal": 8, "rocm": 10, "ext_dev": 12,
    "webgpu": 15, "hexagon": 16,
}  # fmt: skip
_ALIASES = {"gpu": "cuda", "llvm": "cpu", "native": "cpu", "c": "cpu", "cl": "opencl", "vpi": "ext_dev"}


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

    __repr__ = __str__

    @property
    def exist(self) -> bool:
        """Whether this runtime can keep tensors and run code there."""
        return self.device_type in (1, 3) and self.device_id == 0

    @property
    def device_name(self) -> str | None:
        """The processor's name, where the system tells."""
        return platform.processor() or platform.machine() if self.exist else None

    @property
    def max_threads_per_block(self) -> int | None:
        """Threads that share memory and barriers: 1 on a processor; None where there is no device."""
        return 1 if self.exist else None

    @property
    def warp_size(self) -> int | None:
        """Threads that run in lock step: 1 on a processor; None where there is no device."""
        return 1 if self.exist else None

    @property
    def max_shared_memory_per_block(self) -> int | None:
        """None: a processor has no such memory, and other devices are not driven by this runtime."""
        return None

    max_clock_rate = compute_version = max_thread_dimensions = max_shared_memory_per_block
    total_global_memory = max_shared_memory_per_block

    @property
    def multi_processor_count(self) -> int | None:
        """Processors; None where there is no device."""
        return os.cpu_count() if self.exist else None

    def sync(self, stream: Any = None) -> None:
        """Waits for the device; calls on a processor have always ended when they return."""

    def hold(self, array: npt.NDArray[Any]) -> NDArray:
        """An array on this device with the content of `array`, which the caller gives away."""
        return NDArray(array, self)

    def hold_empty(self, shape: tuple[int, ...], dtype: str) -> NDArray:
        """An array on this device with undefined content."""
        return NDArray(np.empty(shape, numpy_dtype(dtype)), self)


def device(kind: str | int, index: int = 0) -> Device:
    """A device by name (`"cpu"`, `"cuda"`, `"cuda:1"`), target string (`"llvm -mcpu=…"`) or DLPack code.

    Raises:
        RunError: if the name is unknown.
    """
    if isinstance(kind, int):
        return Device(kind, index)
    name, _, number = (kind.split() or [""])[0].partition(":")
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


def opencl(index: int = 0) -> Device:
    """An OpenCL device."""
    return Device(4, index)


cl = opencl


def _maker(kind: str) -> Callable[..., Device]:
    def make(index: int = 0) -> Device:
        return Device(DEVICE_TYPES[kind], index)

    make.__name__, make.__doc__ = kind, f"A device of kind {kind}."
    return make


vulkan, metal, rocm, ext_dev, webgpu, hexagon = map(_maker, ("vulkan", "metal", "rocm", "ext_dev", "webgpu", "hexagon"))


def context(kind: str | int, index: int = 0) -> Device:
    """The oldest name of `device`."""
    return device(kind, index)


class NDArray:
    """A tensor on a device. On the CPU it is a view of a NumPy array, without a copy."""

    __slots__ = ("_array", "_handle", "_keep", "device")
    __array_priority__ = 1.0
    _array: npt.NDArray[Any]
    #: the address of a `wb_tensor` for it; absent until `handle` was asked for
    _handle: int
    _keep: Any

    def __init__(self, array: npt.NDArray[Any], device: Device | None = None) -> None:
        self._array = array
        self.device = device or cpu()
        if self.device.device_type not in (1, 3):
            _in_host_memory(self.device)

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

    @property
    def ctx(self) -> Device:
        """The classic name of `device`."""
        return self.device

    @property
    def handle(self) -> int:
        """The address of a `wb_tensor` that describes the array; valid as long as the array lives."""
        try:
            return self._handle
        except AttributeError:
            self._keep = tensor_of(self._array)
            self._handle = ctypes.addressof(self._keep[0])
            return self._handle

    def same_as(self, other: Any) -> bool:
        """Whether both are one object."""
        return self is other

    def numpy(self) -> npt.NDArray[Any]:
        """A copy in host memory."""
        return self._array.copy()

    asnumpy = numpy

    def copyto(self, target: NDArray | Device) -> NDArray:
        """Copies into another array of equal shape and type, or to a device; returns the target."""
        return target.hold(self.numpy()) if isinstance(target, Device) else target.copyfrom(self)

    def copyfrom(self, source: Any) -> NDArray:
        """Overwrites the elements with `source`'s, of equal shape; returns self.

        A NumPy array or list is cast to the element type, as ever; another NDArray must have it.
        """
        array = np.asarray(source) if isinstance(source, (int, float, list, tuple)) else as_numpy(source, compact=False)
        if not isinstance(source, NDArray):
            array = array.astype(self._array.dtype, copy=False)
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
        return 1, 0  # whatever the device, the memory is the host's

    def __repr__(self) -> str:
        return f"<NDArray {self.dtype} {self.shape} on {self.device}>\n{self._array}"


@functools.cache
def _in_host_memory(device: Device) -> None:
    """Says once per device that it is not driven.

    Raises:
        RunError: if there is no such kind of device.
    """
    if device.kind not in DEVICE_TYPES:
        raise RunError(f"no memory manager for device {device}", hint="use cpu()")
    warnings.warn(f"there is no driver for {device} here: its arrays live in host memory, and its kernels run on the "
                  "processor, with a device's results but not its speed", RuntimeWarning, stacklevel=4)  # fmt: skip


def _same(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    if target.shape != source.shape or target.dtype != source.dtype:
        raise RunError(
            f"cannot copy {source.dtype} {source.shape} into {target.dtype} {target.shape}",
            hint="shapes and element types must be equal; convert with astype or reshape first",
        )


def array(data: Any, device: Device | None = None, mem_scope: str | None = None, ctx: Device | None = None) -> NDArray:
    """A new array with a copy of `data` (anything array-like; Python floats become float64, as NumPy has it).

    ctx: the oldest name of `device`. mem_scope: only "global" exists on a processor.
    """
    _only_global(mem_scope)
    source = np.asarray(data) if isinstance(data, (int, float, list, tuple)) else as_numpy(data, compact=False)
    return (device or ctx or cpu()).hold(np.array(source, order="C", copy=True))


def empty(
    shape: Sequence[int] | int,
    dtype: str = "float32",
    device: Device | None = None,
    mem_scope: str | None = None,
    ctx: Device | None = None,
) -> NDArray:
    """A new array with undefined content; `ctx` and `mem_scope` as in `array`."""
    _only_global(mem_scope)
    extents = (shape,) if isinstance(shape, int) else tuple(int(e) for e in shape)
    return (device or ctx or cpu()).hold_empty(extents, str(dtype))


def _only_global(mem_scope: str | None) -> None:
    if mem_scope not in (None, "", "global"):
        raise RunError(f"no memory of scope {mem_scope!r} on a processor", hint='leave mem_scope out, or "global"')


@functools.lru_cache(maxsize=64)
def _dlpack_type(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """DLPack's code and bits of an element type; None if it has none."""
    return DLPACK_TYPES.get(dtype.name) if dtype.isnative else None


def tensor_of(array: npt.NDArray[Any]) -> tuple[Tensor, Any, Any]:
    """A `wb_tensor` that describes a NumPy array, and what it points at besides the data.

    Strides are given where the array is not compact.

    Raises:
        RunError: if the element type has no DLPack code.
    """
    kind = _dlpack_type(array.dtype)
    if kind is None:
        raise RunError(f"element type {array.dtype} cannot be passed to compiled code",
                       hint=f"known types: {', '.join(DLPACK_TYPES)}")  # fmt: skip
    extents = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    strides = None
    if not array.flags.c_contiguous:
        size = array.dtype.itemsize
        strides = (ctypes.c_int64 * max(array.ndim, 1))(*(s // size for s in array.strides))
    tensor = Tensor(
        data=address_of(array), device_type=1, ndim=array.ndim, code=kind[0], bits=kind[1], lanes=1,
        shape=ctypes.addressof(extents), strides=ctypes.addressof(strides) if strides is not None else None,
    )  # fmt: skip
    return tensor, extents, strides


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
