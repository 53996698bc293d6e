"""DLPack capsules for host tensors, both ways, for every element type, bfloat16 and 8-bit floats included.

NumPy's own DLPack support knows only NumPy's element types. Source of the structures: dlpack.h, version 0.8
(unversioned capsules, named "dltensor").
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from .abi import DLPACK_TYPES, Tensor, dtype_name, numpy_dtype
from .errors import RunError

_CPU_LIKE = (1, 3)  # host memory, page-locked host memory


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_new = _api.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_pointer = _api.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_rename = _api.PyCapsule_SetName
_rename.restype, _rename.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
# A capsule being destroyed has no references, so it cannot travel as a Python object: raw pointers only.
_raw_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))

_NAME, _USED = b"dltensor", b"used_dltensor"
#: what exported capsules point at, by address, until their consumer calls the deleter
_exported: dict[int, tuple[Any, ...]] = {}


def _delete(address: int) -> None:
    _exported.pop(address, None)


def _destroy(capsule: int) -> None:
    """Frees a capsule that nobody consumed."""
    if _raw_valid(capsule, _NAME):
        _exported.pop(_raw_pointer(capsule, _NAME), None)


_delete_callback = _DELETER(_delete)
_destroy_callback = _DESTRUCTOR(_destroy)


def export(array: npt.NDArray[Any], device: tuple[int, int] = (1, 0)) -> Any:
    """A DLPack capsule over `array`'s memory, which lives as long as its consumer needs it.

    Raises:
        RunError: if DLPack has no code for the element type or packs it (fewer than 8 bits), or strides are not
            whole elements.
    """
    name = array.dtype.name
    if name not in DLPACK_TYPES:
        raise RunError(f"element type {name} has no DLPack code")
    if DLPACK_TYPES[name][1] < 8:
        raise RunError(
            f"element type {name} cannot be handed over",
            hint="DLPack packs several into a byte: cast it to int8 or float32",
        )
    if any(stride % array.itemsize for stride in array.strides):
        raise RunError("DLPack cannot describe strides that are no multiple of the element size", hint="copy the array")
    code, bits = DLPACK_TYPES[name]
    shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    strides = (ctypes.c_int64 * max(array.ndim, 1))(*(s // array.itemsize for s in array.strides))
    managed = _Managed()
    managed.tensor = Tensor(
        array.ctypes.data, device[0], device[1], array.ndim, code, bits, 1,
        ctypes.addressof(shape), ctypes.addressof(strides), 0,
    )  # fmt: skip
    managed.deleter = ctypes.cast(_delete_callback, ctypes.c_void_p)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, shape, strides, array)
    return _new(address, _NAME, ctypes.cast(_destroy_callback, ctypes.c_void_p))


class _Owner:
    """Calls a consumed tensor's deleter when the last array over it is gone."""

    def __init__(self, address: int, deleter: int | None) -> None:
        if deleter:
            weakref.finalize(self, _DELETER(deleter), address)


def adopt(capsule: Any) -> npt.NDArray[Any]:
    """An array over the memory of a DLPack capsule, which is consumed.

    Raises:
        RunError: if the tensor is not in host memory or its element type is unknown.
    """
    address = _pointer(capsule, _NAME)
    managed = _Managed.from_address(address)
    tensor = managed.tensor
    if tensor.device_type not in _CPU_LIKE:
        raise RunError(f"the tensor is on device type {tensor.device_type}", hint="copy it to the CPU first")
    if tensor.lanes != 1:
        raise RunError(f"tensors of vectors ({tensor.lanes} lanes) are not supported")
    dtype = numpy_dtype(dtype_name(tensor.code, tensor.bits))
    shape = tuple((ctypes.c_int64 * tensor.ndim).from_address(tensor.shape)) if tensor.ndim else ()
    steps = (
        tuple((ctypes.c_int64 * tensor.ndim).from_address(tensor.strides)) if tensor.ndim and tensor.strides else None
    )
    strides = None if steps is None else tuple(step * dtype.itemsize for step in steps)
    _rename(capsule, _USED)
    owner = _Owner(address, managed.deleter)
    if 0 in shape or not tensor.data:
        return np.empty(shape, dtype)
    low = sum((n - 1) * s for n, s in zip(shape, strides or (), strict=False) if s < 0)
    if strides is None:
        span = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    else:
        span = sum((n - 1) * abs(s) for n, s in zip(shape, strides, strict=True)) + dtype.itemsize
    memory = (ctypes.c_uint8 * span).from_address(tensor.data + tensor.byte_offset + low)
    memory._owner = owner  # type: ignore[attr-defined]
    return np.ndarray(shape, dtype, memory, offset=-low, strides=strides)  # type: ignore[arg-type]
