"""Sizes that come often get a module of their own, compiled in another process while the one for all sizes serves.

A request counts for its sizes. At the `OFTEN`th of the same sizes a process of low priority compiles the model for them
alone; one at a time. When it is done, requests of these sizes alternate between both modules, `TRIALS` each, and from
then on the faster one serves them. So no request waits for a compiler, and none gets a slower module for long.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from warpbeam.driver import source
from warpbeam.driver.buckets import Bucketed, named
from warpbeam.driver.workers import SECONDS_LIMIT, asked, last_words, start_process
from warpbeam.ir.diagnostics import CompileError, WarpbeamError
from warpbeam.ir.transform import PassContext
from warpbeam.runtime.artifact import Artifact
from warpbeam.runtime.module import Module
from warpbeam.target import Target

OFTEN = 16  # requests of the same sizes before a module is made for them
TRIALS = 9  # requests by which a new module is compared
_MOST = 64  # modules
_COUNTED = 4096  # different sizes that are counted; those counted longest ago are forgotten first


class Trial:
    """A new module beside the one for all sizes: requests go to each in turn, and the times decide."""

    def __init__(self, new: Any, whole: Any) -> None:
        self.modules = (new, whole)
        self.seconds: tuple[list[float], list[float]] = ([], [])

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One request, by the module that has served fewer."""
        which = int(len(self.seconds[1]) < len(self.seconds[0]))
        began = time.perf_counter()
        got = dict(self.modules[which].run(inputs))
        self.seconds[which].append(time.perf_counter() - began)
        return got

    @property
    def done(self) -> bool:
        return min(map(len, self.seconds)) >= TRIALS

    @property
    def pays(self) -> bool:
        """Whether the new module is the faster one, in the median."""
        new, whole = map(statistics.median, self.seconds)
        return new < whole


class HotShapes(Bucketed):
    """What `compile` gives for hot_shapes. Called or run like a module.

    modules: by the sizes they are for, in the order of `names`. whole: the one for all sizes.
    """

    def __init__(
        self, whole: Any, names: Sequence[str], shapes: Mapping[str, Any], most: int, make: Callable[..., Module]
    ) -> None:  # fmt: skip
        super().__init__(names, {}, whole, shapes, {}, "", False)
        self._most = most
        self._make = make
        self._counts: dict[tuple[int, ...], int] = {}
        self._trials: dict[tuple[int, ...], Trial] = {}
        self._settled: set[tuple[int, ...]] = set()  # asked for: waiting, compiling, on trial, decided, or failed
        self._waiting: deque[tuple[int, ...]] = deque()
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._maker = _Maker()
        weakref.finalize(self, self._maker.stop)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name.

        Raises:
            RunError: as `Module.run`.
        """
        sizes = self.sizes(inputs)
        trial = self._trials.get(sizes)
        if trial is not None:
            got = trial.run(inputs)
            if trial.done:
                self._decide(sizes, trial)
            return got
        if sizes not in self._settled:
            self._count(sizes)
        return dict(self.modules.get(sizes, self.whole).run(inputs))

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until nothing is being compiled; False if that takes longer."""
        return self._idle.wait(seconds)

    def close(self) -> None:
        """Nothing more is compiled; what is there goes on serving."""
        self._maker.stop()

    def _count(self, sizes: tuple[int, ...]) -> None:
        with self._lock:
            count = self._counts[sizes] = self._counts.pop(sizes, 0) + 1
            if len(self._counts) > _COUNTED:
                del self._counts[next(iter(self._counts))]
            if count < OFTEN or len(self._settled) >= self._most or sizes in self._settled or self._maker.stopped:
                return
            self._settled.add(sizes)
            self._waiting.append(sizes)
            if self._idle.is_set():
                self._idle.clear()
                threading.Thread(target=_work, args=(weakref.ref(self),), name="warpbeam-hot", daemon=True).start()

    def _decide(self, sizes: tuple[int, ...], trial: Trial) -> None:
        with self._lock:
            if self._trials.pop(sizes, None) is trial and trial.pays:
                self.modules[sizes] = trial.modules[0]


class _Maker:
    """The process that compiles now, if any, so that it can be stopped."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        if self.process is not None:
            self.process.kill()


def _work(owner: weakref.ref[HotShapes]) -> None:
    """Compiles what waits, one after the other, until nothing does or nobody holds the result."""
    while (hot := owner()) is not None:
        with hot._lock:
            if not hot._waiting or hot._maker.stopped:
                hot._idle.set()
                return
            sizes = hot._waiting.popleft()
        names, make, maker, threads = hot.names, hot._make, hot._maker, hot.whole.num_threads
        del hot
        try:
            module = make(dict(zip(names, sizes, strict=True)), maker)
        except (WarpbeamError, OSError) as error:
            if not maker.stopped:
                warnings.warn(f"sizes {sizes} stay with the module for all: {error}", stacklevel=2)
            continue
        module.num_threads = threads
        hot = owner()
        if hot is not None:
            hot._trials[sizes] = Trial(module, hot.whole)
        del hot


def compile_hot_shapes(
    model: Any, most: int, targets: Sequence[Target], options: Mapping[str, Any], compiled: Callable[..., Any]
) -> HotShapes:
    """Compiles a model for all sizes, and keeps what another process needs to compile it for some.

    Args:
        options: what `compile` was given besides, as JSON has it. compiled(shapes): the module for all sizes.

    Raises:
        CompileError: for a model without open sizes, one that another process cannot read, or numbers that are none.
    """
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _MOST:
        raise CompileError(f"hot_shapes={most!r}", "compile", f"it is a number of modules, from 1 to {_MOST}")
    payload = b"" if isinstance(model, str | os.PathLike) else _bytes(model)
    found = source.read(model, options.get("shapes"))
    shapes = {n: [named(d) for d in p.ty.shape] for n, p in zip(found.inputs, found.module["main"].params)}
    names = list(dict.fromkeys(d for s in shapes.values() for d in s if isinstance(d, str)))
    if not names:
        raise CompileError("hot_shapes of a model without open sizes", "compile", "all its shapes are fixed")
    request = _request("" if payload else str(Path(model).absolute()), targets, options)
    whole = compiled(options.get("shapes"))
    if not isinstance(whole, Module):
        raise CompileError("hot_shapes for another machine", "compile", "only the machine that runs it sees requests")

    def make(sizes: Mapping[str, int], maker: _Maker) -> Module:
        given = {**(options.get("shapes") or {}), **sizes}
        with tempfile.TemporaryDirectory(prefix="warpbeam-hot-", ignore_cleanup_errors=True) as folder:
            to = Path(folder) / "model.wb"
            _ask({**request, "shapes": given, "to": str(to)}, payload, maker)
            return Module(Artifact.load(to))  # what is mapped stays

    return HotShapes(whole, names, shapes, most, make)


def _request(path: str, targets: Sequence[Target], options: Mapping[str, Any]) -> dict[str, Any]:
    """What another process is told besides the sizes."""
    ctx = PassContext.current()
    request = {
        **options,
        "path": path,
        "targets": [t.to_text() for t in targets],
        "context": [ctx.opt_level, sorted(ctx.required_pass), sorted(ctx.disabled_pass), ctx.config],
    }
    for name, value in request.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            what = "the current PassContext" if name == "context" else f"{name}={value!r}"
            why = f"another process compiles it, which is told in JSON: {error}"
            raise CompileError(
                f"hot_shapes with {what}", "compile", why, "give plain numbers, texts, lists and dicts"
            ) from None
    return request


def _bytes(model: Any) -> bytes:
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    if hasattr(model, "SerializeToString"):
        return bytes(model.SerializeToString())
    why = "another process compiles it, which reads files, bytes and ONNX models only"
    raise CompileError(f"hot_shapes of a {type(model).__name__}", "compile", why, "save it to a .relay file")


def _ask(request: dict[str, Any], payload: bytes, maker: _Maker) -> None:
    """Another process makes a module and writes its file."""
    log: IO[bytes]
    with tempfile.TemporaryFile() as log:
        process = maker.process = start_process(["warpbeam.driver.hot_main"], log)
        try:
            if maker.stopped:
                raise CompileError("nothing more is compiled", "hot_shapes")
            seconds = request["max_compile_seconds"] or SECONDS_LIMIT
            answer, _, late = asked(process, {**request, "bytes": len(payload)}, payload, seconds)
            if answer is None:
                why = f"it took more than {seconds:g} s" if late else last_words(process, log)
                raise CompileError("the compiling process ended early", "hot_shapes", why)
            if not answer["ok"]:
                raise CompileError(answer["why"], "hot_shapes")
        finally:
            maker.process = None
            process.kill()
            process.communicate()
