"""Programs on their way from one of our processes to another: bytes that give equal nodes there.

    data = packed((func, {"rows": 3}))
    func, decisions = unpacked(data)

Only classes of Warpbeam cross, by their names: what a program defines itself exists in its own process alone. Binders
are new ones on the other side, each as many times the same as on this. Both processes run the same Warpbeam; the bytes
are no file format, and nobody but our own process may have written them.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Attrs, Node
from warpbeam.ir.rewrite import post_order

_PLACES = ("warpbeam.", "numpy.", "ml_dtypes.", "builtins.", "copyreg.")


def packed(value: Any, *roots: Node) -> bytes:
    """The bytes of a value made of nodes, numbers, strings, tuples, lists, dicts, arrays and Warpbeam's data classes.

    roots: nodes in it that may be deep; what is below them is packed part by part.

    Raises:
        IRError: if a class in it is not Warpbeam's, or it holds a function.
    """
    out = io.BytesIO()
    try:
        _Packer(out, pickle.HIGHEST_PROTOCOL).dump((list(post_order(*roots)), value))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise IRError("a value that cannot be sent to another process", why=str(error)) from error
    return out.getvalue()


def unpacked(data: bytes | memoryview) -> Any:
    """The value that `packed` gave these bytes for."""
    return _Unpacker(io.BytesIO(data)).load()[1]


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        cls = type(value)
        if isinstance(value, Node):
            return cls, tuple([getattr(value, f) for f in cls._fields])
        if cls is Attrs:
            return Attrs, (dict(value),)
        if isinstance(value, type) and not f"{value.__module__}.".startswith(_PLACES):
            raise pickle.PicklingError(f"class {value.__name__} of {value.__module__}")
        return NotImplemented


class _Unpacker(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not f"{module}.".startswith(_PLACES):
            raise IRError(f"{module}.{name} in what another process sent")
        return super().find_class(module, name)
