"""Calls of host functions: what has no kernel, because it looks into strings, sequences or encoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, tensors
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.runtime import host_calls


class HostCall(Op):
    """`function` of `runtime.host_calls` with `options` (JSON). results: (shape, dtype) of each result."""

    name = "host.call"
    arity = None
    host = True
    folds = False
    defaults = {"function": REQUIRED, "options": "", "results": REQUIRED}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        tensors(self, types)
        if attrs["function"] not in host_calls.FUNCTIONS:
            raise self.error(f"there is no host function {attrs['function']!r}", f"{sorted(host_calls.FUNCTIONS)}")
        found = [TensorType(tuple(shape), dtype) for shape, dtype in attrs["results"]]
        return found[0] if len(found) == 1 else TupleType(tuple(found))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> Any:
        found = host_calls.call(attrs["function"], attrs["options"], *args)
        out = [f.astype(dt.to_numpy(dtype), copy=False) for f, (_, dtype) in zip(found, attrs["results"], strict=True)]
        return out[0] if len(out) == 1 else tuple(out)
