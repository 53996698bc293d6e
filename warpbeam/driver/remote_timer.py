"""Times variants of a kernel on another machine, through a session with its device server.

Each variant becomes a module of one function, is sent, and is timed there around native calls. Buffers live there and
are shared by all variants; they are warm in each measurement.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from warpbeam.codegen import packed
from warpbeam.driver.kernels import Kernel
from warpbeam.driver.race import Dropped
from warpbeam.driver.shapes import to_shape_expr
from warpbeam.driver.te_link import build_llvm
from warpbeam.driver.timing import calls_for
from warpbeam.driver.timing_main import filled
from warpbeam.runtime.abi import numpy_dtype
from warpbeam.runtime.cpu import missing_features, plain_features, runs_here
from warpbeam.runtime.errors import WarpbeamError
from warpbeam.runtime.ndarray import array
from warpbeam.runtime.shape_expr import evaluate
from warpbeam.target import Target
from warpbeam.tir.expr import Buffer

_FILE = "guard.so"
Variants = Sequence[tuple[Kernel, Mapping[Any, int]]]


class RemoteTimer:
    """Measures kernels over a session. Where that has ended, nothing is measured any more."""

    def __init__(self, session: Any, target: Target) -> None:
        self.session = session
        self.target = target
        self.arrays: dict[tuple[Any, ...], Any] = {}

    def sampler(self, variants: Variants) -> Callable[[int], float]:
        """Sends kernels, each with the values of its sizes; gives what measures one of them once: seconds of a call,
        or Dropped if it cannot be measured.
        """
        ready: dict[int, tuple[Any, list[Any]]] = {}
        failed: dict[int, str] = {}
        number = 0
        for k, (kernel, sizes) in enumerate(variants):
            try:
                ready[k] = self._sent(kernel, sizes)
                number = number or calls_for(_seconds(*ready[k], 1))
            except WarpbeamError as error:
                failed[k] = error.what

        def sample(which: int) -> float:
            if which in failed:
                raise Dropped(failed[which])
            try:
                return _seconds(*ready[which], number)
            except WarpbeamError as error:
                raise Dropped(error.what) from error

        return sample

    def _sent(self, kernel: Kernel, sizes: Mapping[Any, int]) -> tuple[Any, list[Any]]:
        """The function there, and its arguments."""
        func = kernel.func.replace(name="guard")
        entry = packed.Entry(func, tuple(func.params))
        with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder:
            path = Path(folder, _FILE)
            build_llvm([entry], self.target).export_library(str(path))
            self.session.upload(path, _FILE)
        function = self.session.load_module(_FILE).get_function("guard")
        names = {v: v.name for v in sizes}
        values = {v.name: n for v, n in sizes.items()}
        arguments: list[Any] = []
        for i, p in enumerate(func.params):
            if isinstance(p, Buffer):
                shape = tuple(max(1, int(evaluate(to_shape_expr(e, names), values))) for e in p.shape)
                arguments.append(self._array(i, shape, entry.dtype(p)))
            else:
                arguments.append(sizes[p])
        return function, arguments

    def _array(self, index: int, shape: tuple[int, ...], dtype: str) -> Any:
        key = (index, shape, dtype)
        if key not in self.arrays:
            kind = numpy_dtype(dtype)
            size = kind.itemsize
            for extent in shape:
                size *= extent
            self.arrays[key] = array(filled(dtype, size).view(kind).reshape(shape), self.session.cpu())
        return self.arrays[key]

    def __enter__(self) -> RemoteTimer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.arrays.clear()


def _seconds(function: Any, arguments: list[Any], number: int) -> float:
    """The time of one call, the mean of `number` after one that does not count."""
    return float(function.evaluate(arguments, (number, 1, 0, 100, 0, 1, 0)).times[0])


def why_not_there(session: Any, target: Target) -> str:
    """What keeps kernels for a target from being measured there; empty if nothing does."""
    info = session.info
    machine = str(info.get("machine", ""))
    if target.kind != "llvm" or not runs_here(target.triple, machine):
        return f"code for {target.name} does not run on the device, which is {machine or 'unknown'}"
    have = plain_features(str(info.get("features", "")))
    missing = missing_features(target.required_features, have) if have is not None else []
    return f"the device's processor lacks {', '.join(missing)}" if missing else ""


def machine_of(session: Any) -> str:
    """What tells one kind of device from another, for keeping what was measured."""
    info = session.info
    return json.dumps([str(info.get(k, "")) for k in ("machine", "cores", "features")])
