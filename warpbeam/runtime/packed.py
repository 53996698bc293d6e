"""Functions by name: Python functions that generated code calls, and the wrapper around all that is called by name.

    @register_func("my.add_one")
    def add_one(x, y):
        y.copyfrom(x.numpy() + 1)

`tir.call_packed("my.add_one", A, B)` in a program reaches it: tensors arrive as NDArrays that are views of the
program's memory for the time of the call, numbers as int and float, strings as str.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from .abi import CALL_PACKED_FN, MESSAGE_BYTES, VALUE_BYTES, Context, Tensor, ValueCode, dtype_name, numpy_dtype
from .errors import FunctionError
from .library import FUNCTIONS
from .ndarray import Device, NDArray

#: what callbacks raised, by the address of the context that they were called under
_errors: dict[int, BaseException] = {}


class PackedFunc:
    """A callable of values that cross language borders."""

    __slots__ = ("_function", "name")

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        self._function = function
        self.name = name or getattr(function, "__name__", "function")

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    @property
    def is_global(self) -> bool:
        """Whether it is registered under its name."""
        return _functions.get(self.name) is self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


Function = PackedFunc
_functions: dict[str, PackedFunc] = {name: PackedFunc(f, name) for name, f in FUNCTIONS.items()}


def register_func(
    func_name: str | Callable[..., Any], f: Callable[..., Any] | None = None, override: bool = False
) -> Any:
    """Registers a function under a global name; as a call, or as a decorator with or without a name.

    Raises:
        FunctionError: (a ValueError) if the name is taken and `override` is not given.
    """
    if callable(func_name):
        register_func(func_name.__name__, func_name, override)
        return func_name
    name = func_name

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if name in _functions and not override:
            raise FunctionError(
                f"Global PackedFunc {name} is already registered", hint="pass override=True to replace it"
            )
        _functions[name] = convert(function) if not isinstance(function, PackedFunc) else function
        if not isinstance(function, PackedFunc):
            _functions[name].name = name
        return function

    return register if f is None else register(f)


register_global_func = register_func


def get_global_func(name: str, allow_missing: bool = False) -> PackedFunc | None:
    """The function registered under a name; None if it is missing and `allow_missing`.

    Raises:
        FunctionError: (a ValueError) if there is none.
    """
    found = _functions.get(name)
    if found is None and not allow_missing:
        raise FunctionError(f"Cannot find global function {name}", hint=f'register it with register_func("{name}")')
    return found


def list_global_func_names() -> list[str]:
    """Names of all registered functions, in order."""
    return sorted(_functions)


def remove_global_func(name: str) -> None:
    """Forgets a function; nothing happens if it is not there."""
    _functions.pop(name, None)


def convert(value: Any, span: Any = None) -> Any:
    """A value as it crosses language borders: functions become PackedFuncs, tuples lists; the rest stays itself."""
    if isinstance(value, PackedFunc | NDArray | type):
        return value
    if isinstance(value, list | tuple):
        return [convert(v) for v in value]
    if callable(value) and not hasattr(value, "__array_interface__") and hasattr(value, "__name__"):
        return PackedFunc(value)
    return value


# ------------------------------------------------------------------------------------- calls out of generated code


def tensor_view(address: int) -> NDArray:
    """The tensor at an address as an NDArray that shares its memory; valid as long as that memory is."""
    t = Tensor.from_address(address)
    dtype = numpy_dtype(dtype_name(t.code, t.bits))
    shape = tuple((ctypes.c_int64 * t.ndim).from_address(t.shape)) if t.ndim else ()
    strides = None
    if t.strides and t.ndim:
        strides = tuple(s * dtype.itemsize for s in (ctypes.c_int64 * t.ndim).from_address(t.strides))
    last = sum((e - 1) * abs(s) for e, s in zip(shape, strides, strict=True)) if strides else 0
    size = dtype.itemsize + last if strides else dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if not t.data or 0 in shape:
        return NDArray(np.empty(shape, dtype))
    memory: Any = (ctypes.c_uint8 * max(size, 1)).from_address(t.data + t.byte_offset)
    return NDArray(np.ndarray(shape, dtype, memory, 0, strides), Device(int(t.device_type), int(t.device_id)))


def _read(value: int, code: int) -> Any:
    if code == ValueCode.INT:
        return value
    if code == ValueCode.FLOAT:
        return struct.unpack("<d", struct.pack("<q", value))[0]
    if code == ValueCode.TENSOR:
        return tensor_view(value & (2**64 - 1))
    if code == ValueCode.STR:
        return ctypes.string_at(value & (2**64 - 1)).decode("utf-8", "replace")
    if code == ValueCode.NULL:
        return None
    return ctypes.c_void_p(value)


def _write(result: Any, address: int) -> None:
    """Hands back a number; any other result is dropped, as for a statement."""
    if isinstance(result, float | np.floating):
        packed = struct.pack("<dii", float(result), ValueCode.FLOAT, 0)
    elif isinstance(result, int | np.integer | np.bool_):
        packed = struct.pack("<qii", int(result), ValueCode.INT, 0)
    else:
        packed = struct.pack("<qii", 0, ValueCode.NULL, 0)
    ctypes.memmove(address, packed, VALUE_BYTES)


def _call(context: int, name: bytes, args: int, count: int, result: int) -> int:
    """`wb_call_packed`: finds a function by name, calls it, hands back its value; 1 if it raises."""
    try:
        function = get_global_func(name.decode())
        assert function is not None
        raw = ctypes.string_at(args, VALUE_BYTES * count) if count else b""
        values = [_read(v, c) for v, c, _ in struct.iter_unpack("<qii", raw)]
        value = function(*values)
        if result:
            _write(value, result)
    except BaseException as error:  # cannot cross foreign frames: kept for the caller, who asks `take_error`
        if context:
            _errors[context] = error
            text = f"{name.decode()}: {type(error).__name__}: {error}"
            Context.from_address(context).message = text.encode()[: MESSAGE_BYTES - 1]
        return 1
    return 0


_call_packed = CALL_PACKED_FN(_call)
CALL_PACKED_ADDRESS = ctypes.cast(_call_packed, ctypes.c_void_p).value or 0


def take_error(context: int) -> BaseException | None:
    """What a callback raised under a context, once."""
    return _errors.pop(context, None)
