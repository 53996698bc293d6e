"""Calls of functions by name out of interpreted programs, and the pointers they are given.

`call_packed` reaches the function registered under its name; so does `call_extern`, that a Python function may stand
in for a C one. Buffers arrive as NDArrays that are views of the program's memory: of the buffer's shape, or flat where
a pointer is taken to a part. C's mathematics (expf, sqrt) are known by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.runtime.ndarray import NDArray
from warpbeam.runtime.packed import get_global_func
from warpbeam.tir import expr as e
from warpbeam.tir import intrin

if TYPE_CHECKING:
    from warpbeam.tir.interp_machine import Machine


CALLS = frozenset(("call_packed", "call_extern", "call_pure_extern", "access_ptr", "address_of"))
_MATH = {"fabs": "abs", "rint": "round", "nearbyint": "round", "fmod": "fmod"}


def pointer(m: Machine, buffer: e.Buffer) -> Any:
    """A buffer's memory as an array of its shape."""
    store = m.storage(buffer)
    if store.axes:
        raise IRError(f"buffer {buffer.name} is handed to a foreign function inside a loop that runs at once")
    return store.flat[: int(np.prod(store.shape, dtype=np.int64))].reshape(store.shape)


def step(n: e.Call, at: list[int], compile: Callable[[Any], Any]) -> Callable[[Machine, list[Any]], Any]:
    """The step of one of CALLS; `at` are the slots of the operands that are values."""
    if n.op == "access_ptr":
        ref: Any = n.args[0]
        first, count = at[-3:-1]
        return lambda m, s: _part(n, pointer(m, ref.buffer), int(s[first].item()), int(s[count].item()))
    if n.op == "address_of":
        load: Any = n.args[0]
        codes = [compile(i) for i in load.indices]
        return lambda m, s: _from(pointer(m, load.buffer), [int(np.asarray(c.run(m)).item()) for c in codes])
    slots = iter(at)
    places = [None if type(a) in (e.StringImm, e.BufferRef) else next(slots) for a in n.args]
    name, kind = str(n.attrs.get("name", "")), dt.to_numpy("int64" if n.dtype == "handle" else n.dtype)
    function = get_global_func(name, allow_missing=True)
    if function is None:
        return _known(n, name, at)

    def run(m: Machine, s: list[Any]) -> Any:
        args = [_argument(m, n.args[k], None if p is None else s[p]) for k, p in enumerate(places)]
        out = function(*args)
        return np.asarray([out if isinstance(out, int | float | np.number) else 0]).astype(kind)

    return run


def _known(n: e.Call, name: str, at: list[int]) -> Callable[[Machine, list[Any]], Any]:
    """A function of C's mathematics, such as expf; an error for others."""
    base = name.lstrip("_")
    for plain in (base, base.removesuffix("f")):
        row = intrin.INTRINSICS.get(_MATH.get(plain, plain))
        if n.op != "call_packed" and row is not None and row.numpy is not None and row.effect == "pure":
            fn, dtype = row.numpy, dt.scalar(n.dtype)
            return lambda m, s: fn([s[i] for i in at], dtype)
    raise IRError(
        f"the program calls {name}, which the interpreter does not know",
        why="no function is registered under that name",
        hint=f'a Python function serves: @warpbeam.register_func("{name}")',
    )


def _part(n: Any, array: Any, offset: int, extent: int) -> Any:
    flat = array.reshape(-1)
    if offset < 0 or offset + extent > flat.size:
        raise IRError(
            f"a pointer to elements [{offset}, {offset + extent}) of {n.args[0].buffer.name}, which has {flat.size}",
            hint="check offset and extent of the access_ptr",
        )
    return flat[offset : offset + extent]


def _from(array: Any, index: list[int]) -> Any:
    flat = int(np.ravel_multi_index(index, array.shape)) if index else 0
    return array.reshape(-1)[flat:]


def _argument(m: Machine, arg: Any, value: Any) -> Any:
    if type(arg) is e.StringImm:
        return arg.value
    if type(arg) is e.BufferRef:
        return NDArray(pointer(m, arg.buffer))
    return NDArray(value) if arg.dtype == "handle" else np.asarray(value).item()
