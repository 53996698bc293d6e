"""Calling compiled functions: arguments into tensor descriptors, failures into errors.

The common call, all arguments NDArrays, costs little more than the foreign call itself: each array keeps its
descriptor. The entry checks the arguments; what it says is raised as an ArgumentError (a ValueError) that shows what
was given.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .abi import Tensor
from .context import HostContext
from .errors import ArgumentError, RunError
from .memory import address_of
from .ndarray import NDArray, as_numpy, tensor_of
from .packed import PackedFunc, take_error

if TYPE_CHECKING:
    from .function_module import FunctionModule


_INTEGERS = bool | int | np.integer | np.bool_
_FLOATS = float | np.floating


class Frame(HostContext):
    """A context with the table of arguments of one call at a time."""

    def __init__(self, host: tuple[int, int], count: int) -> None:
        super().__init__(0, 0, host[0], host[1], 0)
        self.table = (ctypes.c_uint64 * max(count, 1))()
        self.arguments = ctypes.c_void_p(ctypes.addressof(self.table))


class CompiledFunction(PackedFunc):
    """A function of a module: `fn(a, b, c)` changes its output arrays in place.

    Arguments are NDArrays, NumPy arrays or anything with DLPack, and numbers for scalar parameters. Arrays are not
    copied; those that are not compact are refused. Calls from several threads run side by side.
    """

    __slots__ = ("_count", "_entry", "_free", "_host", "_pack", "_rows", "_size", "_writes", "module")

    def __init__(self, module: FunctionModule, about: dict[str, Any], host: tuple[int, int]) -> None:
        super().__init__(self.__call__, about["name"])
        self.module = module
        self._rows: list[list[Any]] = about["args"]
        self._writes = [i for i, row in enumerate(self._rows) if row[0] == "tensor" and row[4]]
        self._size = len(self._rows)
        self._count = ctypes.c_int32(self._size)
        self._entry = module.library.function(about["name"])
        self._host = host
        self._free: list[Frame] = []
        self._pack = struct.Struct(f"{self._size}Q").pack_into

    def __call__(self, *args: Any) -> None:
        try:
            handles = [a._handle for a in args]
        except AttributeError:
            handles = []
        if len(set(handles)) != self._size or len(args) != self._size:
            keep: list[Any] = []
            handles = self.handles(args, keep)
        try:
            frame = self._free.pop()
        except IndexError:
            frame = Frame(self._host, self._size)
        try:
            self._pack(frame.table, 0, *handles)
            if self._entry(frame.pointer, frame.arguments, self._count):
                raise self._failed(frame, args)
        finally:
            self._free.append(frame)

    def handles(self, args: Sequence[Any], keep: list[Any]) -> list[int]:
        """Addresses of tensor descriptors for arguments; what they point at is put into `keep`."""
        if len(args) != self._size:
            raise self._wrong_count(args)
        out = [self._handle(i, a, keep) for i, a in enumerate(args)]
        foreign = any(not isinstance(a, NDArray) for a, row in zip(args, self._rows, strict=True) if row[0] == "tensor")
        if foreign or len(set(out)) < len(out):
            self._separate(args, out, keep)
        return out

    def _handle(self, index: int, value: Any, keep: list[Any]) -> int:
        kind, name = self._rows[index][:2]
        if kind != "tensor":
            return self._number(index, value, keep)
        if isinstance(value, NDArray):
            return value.handle
        try:
            array = as_numpy(value, compact=False)
            if self._rows[index][4] and not array.flags.writeable:
                raise RunError("the array is read-only", hint="pass a copy")
            parts = tensor_of(array)
        except RunError as error:
            what = f"Argument {self.name}.{name}: {error.what}"
            raise ArgumentError(what, error.where, error.why, error.hint) from None
        keep.append((array, parts))
        return ctypes.addressof(parts[0])

    def _number(self, index: int, value: Any, keep: list[Any]) -> int:
        kind, name, dtype = self._rows[index]
        if isinstance(value, NDArray | np.ndarray) and value.shape == ():
            value = np.asarray(value).item()
        if isinstance(value, _INTEGERS if kind == "int" else _INTEGERS | _FLOATS):
            cell: Any
            if kind == "int":
                if not -(1 << 63) <= value < 1 << 63:
                    raise ArgumentError(f"Argument {self.name}.{name}: {value} does not fit into {dtype}")
                cell, code = ctypes.c_int64(int(value)), 0
            else:
                cell, code = ctypes.c_double(float(value)), 2
            tensor = Tensor(data=ctypes.addressof(cell), device_type=1, code=code, bits=64, lanes=1)
            keep.append((cell, tensor))
            return ctypes.addressof(tensor)
        raise ArgumentError(
            f"Argument {self.name}.{name} is expected to be {'an integer' if kind == 'int' else 'a float'}",
            why=f"got a {type(value).__name__}", hint=f"pass a number ({dtype})",
        )  # fmt: skip

    def _separate(self, args: Sequence[Any], handles: list[int], keep: list[Any]) -> None:
        """An array that is read and written through two arguments is read from a copy: kernels assume no overlap."""
        arrays = [np.asarray(a) if self._rows[i][0] == "tensor" else None for i, a in enumerate(args)]
        starts = [0 if a is None else address_of(a) for a in arrays]
        spans = [(s, s) if a is None else (s, s + a.nbytes) for s, a in zip(starts, arrays, strict=True)]
        for i, array in enumerate(arrays):
            if array is None or i in self._writes:
                continue
            if any(spans[i][0] < spans[w][1] and spans[w][0] < spans[i][1] for w in self._writes):
                copy = array.copy()
                parts = tensor_of(copy)
                keep.append((copy, parts))
                handles[i] = ctypes.addressof(parts[0])

    def frame(self, args: Sequence[Any]) -> tuple[Frame, list[Any]]:
        """A frame that holds the arguments, for calling the entry many times; and what must live as long."""
        if len(args) != self._size:
            raise self._wrong_count(args)
        frame, keep = Frame(self._host, self._size), []  # type: tuple[Frame, list[Any]]
        self._pack(frame.table, 0, *self.handles(args, keep))
        return frame, [*keep, args]

    def repeat(self, frame: Frame, times: int) -> None:
        """Calls the entry again and again, in native code."""
        loop = self.module.library.function("wb_repeat")
        address = ctypes.c_void_p(self.module.library.address(self.name))
        if loop(address, frame.pointer, frame.arguments, self._count, ctypes.c_int64(times)):
            raise self._failed(frame, ())

    # --------------------------------------------------------------------------------------------------------- errors

    def _wrong_count(self, args: Sequence[Any]) -> ArgumentError:
        return ArgumentError(f"{self.name}: num_args should be {self._size}", why=f"{len(args)} arguments were given",
                             hint=f"pass, in this order: {', '.join(row[1] for row in self._rows)}")  # fmt: skip

    def _failed(self, frame: Frame, args: Sequence[Any]) -> BaseException:
        text = frame.message()
        raised = take_error(frame.address)
        if raised is not None:
            return raised
        if not text.startswith((f"Argument {self.name}.", f"{self.name}:")):
            return RunError("the function reported a failure", f"function {self.name}", text or "no message")
        given = ", ".join(f"{row[1]}: {_show(a)}" for row, a in zip(self._rows, args, strict=False))
        return ArgumentError(text, why=f"given {given}" if given else "")

    @property
    def entry_name(self) -> str:
        """The symbol."""
        return self.name


def _show(value: Any) -> str:
    if isinstance(value, NDArray | np.ndarray):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return repr(value) if isinstance(value, int | float) else type(value).__name__
