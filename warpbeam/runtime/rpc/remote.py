"""Modules, functions and models at the other end of a session, with the faces of those of this process."""

from __future__ import annotations

import json
import struct
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import call
from ..abi import ABI_VERSION, QUERY_SHAPES, ValueCode, numpy_dtype
from ..artifact import MAGIC, Artifact
from ..compiled import CompiledModel
from ..context import CallContext, Slot
from ..cpu import missing_features, plain_features, runs_here
from ..errors import ArgumentError, ArtifactError, LoadError, RunError
from ..function_module import FunctionModule
from ..manifest import CALLS, LAYOUT, Manifest
from ..measure import BenchmarkResult
from ..ndarray import Device, NDArray, array, cpu
from ..packed import PackedFunc
from .there import Refused, RemoteArray, There, pack_tensor
from .wire import CHUNK, Op, Reader, Status, text

if TYPE_CHECKING:
    from ..graph_executor import GraphModule

Array = npt.NDArray[Any]
_TIMES = struct.Struct("<IIIIIIIQ")
_ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


class RemoteFunction(PackedFunc):
    """A function there; its arrays live there too, and are changed in place."""

    __slots__ = ("__weakref__", "_rows", "handle", "there")

    def __init__(self, there: There, handle: int, name: str, rows: list[list[Any]] | None) -> None:
        super().__init__(self.__call__, name)
        self.there = there
        self.handle = handle
        self._rows = rows
        weakref.finalize(self, there.forget, handle).atexit = False

    def __call__(self, *args: Any) -> Any:
        reply = self._asked(Op.CALL, struct.pack("<II", self.handle, 0), args)
        code = reply.get("B")
        if code == ValueCode.STR:
            return reply.text()
        return reply.get("d" if code == ValueCode.FLOAT else "q") if code != ValueCode.NULL else None

    def _asked(self, op: Op, head: bytes, args: Sequence[Any], seconds: float = 0.0) -> Reader:
        values = self._separate(args)  # lives until the answer
        try:
            return self.there.ask(op, head, self._packed(values), seconds=seconds)
        except Refused as error:
            message = str(error)
        if message.startswith((f"Argument {self.name}.", f"{self.name}:")):
            raise ArgumentError(message, self.there.where)
        raise RunError("the function reported a failure", f"function {self.name} at {self.there.where}", message)

    def evaluate(self, args: Sequence[Any], options: tuple[int, ...]) -> BenchmarkResult:
        """Measures there; `options` as TIME takes them after the function."""
        _, repeat, least, _, pause = options[:5]
        seconds = repeat * (3 * least + pause) * 1e-3
        reply = self._asked(Op.TIME, _TIMES.pack(self.handle, *options), args, seconds)
        return read_times(reply)

    def _packed(self, values: Sequence[Any]) -> bytes:
        kinds = [""] * len(values) if self._rows is None else [row[0] for row in self._rows]
        return struct.pack("<I", len(values)) + b"".join(map(self._value, values, kinds, range(len(values))))

    def _separate(self, args: Sequence[Any]) -> Sequence[Any]:
        """An array that is read and written through two arguments is read from a copy: kernels assume no overlap."""
        rows = self._rows
        if rows is None:
            return args
        if len(rows) != len(args):
            raise ArgumentError(f"{self.name}: num_args should be {len(rows)}", why=f"{len(args)} arguments were given",
                                hint=f"pass, in this order: {', '.join(row[1] for row in rows)}")  # fmt: skip
        writes = [row[0] == "tensor" and bool(row[4]) for row in rows]
        written = {a.buffer for a, w in zip(args, writes, strict=True) if w and isinstance(a, RemoteArray)}
        return [
            array(a.numpy(), a.device) if isinstance(a, RemoteArray) and not w and a.buffer in written else a
            for a, w in zip(args, writes, strict=True)
        ]

    def _value(self, value: Any, kind: str, index: int) -> bytes:
        if isinstance(value, RemoteArray) and value.device.there is self.there:
            return value.pack()
        if isinstance(value, np.ndarray | NDArray) and value.shape == () and kind in ("int", "float"):
            value = np.asarray(value).item()
        if isinstance(value, bool | int | np.integer | np.bool_) and kind in ("", "int"):
            return struct.pack("<Bq", ValueCode.INT, int(value))
        if isinstance(value, bool | int | float | np.number) and kind in ("", "float"):
            return struct.pack("<Bd", ValueCode.FLOAT, float(value))
        if kind == "" and isinstance(value, str):
            return bytes([ValueCode.STR]) + text(value)
        if kind == "" and value is None:
            return bytes([ValueCode.NULL])
        name = self._rows[index][1] if self._rows is not None else str(index)
        what = f"Argument {self.name}.{name}: {type(value).__name__} cannot be passed to {self.there.where}"
        raise ArgumentError(what, why="arrays of a call must be in that machine's memory",
                            hint="make it there: nd.array(x, session.cpu())")  # fmt: skip


def read_times(reply: Reader) -> BenchmarkResult:
    """What TIME answers."""
    number, repeat = reply.get("Q"), reply.get("I")
    return BenchmarkResult(struct.unpack(f"<{repeat}d", reply.take(8 * repeat)), number)


class RemoteModule(FunctionModule):
    """Compiled functions there."""

    def __init__(self, there: There, handle: int, about: dict[str, Any]) -> None:
        super().__init__(None, "rpc", about=about)
        self.there = there
        for row in about["functions"]:
            self.add_function(row["name"], there.function_of(handle, row["name"], row["args"]))
        self.entry_name = about["entry"]
        there.forget(handle)  # its functions keep the code

    def time_evaluator(
        self, func_name: str, dev: Device | str | None = None, number: int = 10, repeat: int = 1,
        min_repeat_ms: int = 0, limit_zero_time_iterations: int = 100, cooldown_interval_ms: int = 0,
        repeats_to_cooldown: int = 1, cache_flush_bytes: int = 0, f_preproc: str = "", ctx: Device | None = None,
    ) -> Callable[..., BenchmarkResult]:  # fmt: skip
        """As `FunctionModule.time_evaluator`, measured there around native calls.

        Raises:
            RunError: for `f_preproc`, a function of Python.
        """
        if f_preproc:
            raise RunError(f"f_preproc={f_preproc!r} cannot run at the other end", hint="give cache_flush_bytes")
        function: Any = self.get_function(func_name)
        options = (
            max(int(number), 1), max(int(repeat), 1), int(min_repeat_ms), limit_zero_time_iterations,
            int(cooldown_interval_ms), max(repeats_to_cooldown, 1), cache_flush_bytes,
        )  # fmt: skip
        return lambda *args: function.evaluate(args, options)


class RemoteModel(CompiledModel):
    """A model there, with the face of `Module`: arrays of this process are copied there and back.

    Buffers are kept from one run to the next. `model["default"](session.cpu())` is a graph executor over it.
    """

    def __init__(self, there: There, handle: int, manifest: Manifest) -> None:
        super().__init__(Artifact(manifest, {}))
        self.there = there
        self._function = there.function_of(handle, manifest.entry, None)
        self._slots = CallContext(manifest.inputs, manifest.outputs, 0, 0, 0, 0, 0)
        self._buffers: dict[int, RemoteArray] = {}
        self._threads = 0
        self._params = 0
        if manifest.params:
            reply = there.request(Op.PARAMS, struct.pack("<I", handle))
            self._params = int(reply.get("I"))
        there.forget(handle)  # the function and the parameters keep the code

    def _space(self, index: int, slot: Slot) -> int:
        """A buffer for a tensor as its slot describes it, the last one if it is of that size."""
        kept = self._buffers.get(index)
        if kept is None or kept.size != slot.nbytes:
            place = self.there.device("cpu")
            kept = self._buffers[index] = place.hold_empty((slot.nbytes,), "uint8")  # type: ignore[assignment]
        return kept.buffer  # type: ignore[union-attr]

    def _packed(self, buffers: Sequence[int]) -> bytes:
        slots = [*self._slots.inputs, *self._slots.outputs]
        shapes = [s.read_shape() for s in slots]
        rows = [pack_tensor(b, s.dtype, shape) for b, s, shape in zip(buffers, slots, shapes, strict=True)]
        return struct.pack("<I", len(rows)) + b"".join(rows)

    def _ask(self, op: Op, head: bytes, args: bytes, seconds: float = 0.0) -> Reader:
        try:
            return self.there.ask(op, head, args, seconds=seconds)
        except Refused as error:
            why, status = str(error), error.status
        what = "the model reported a failure" if status == Status.CALL_FAILED else "the model cannot be called"
        raise RunError(what, f"model {self.name} at {self.there.where}", why,
                       "check the values and shapes of the inputs")  # fmt: skip

    def _call(self, flags: int, buffers: Sequence[int]) -> list[int]:
        """Calls the entry; the slots get the shapes that it leaves, the result are the tensors' buffers."""
        head = struct.pack("<II", self._function.handle, flags)
        reply = self._ask(Op.CALL, head, self._packed(buffers))
        reply.take(13)  # the result, and the number of arguments
        found = []
        for slot in (*self._slots.inputs, *self._slots.outputs):
            found.append(reply.get("I"))
            slot.set_shape(struct.unpack(f"<{len(slot.shape)}q", reply.take(reply.get("I") * 8)))
        return found

    def _query(self, *_: Any) -> int:
        self._call(QUERY_SHAPES, [0] * (len(self._slots.inputs) + len(self._slots.outputs)))
        return 0

    def _bound(self, inputs: Mapping[str, Any]) -> list[int]:
        """Copies the inputs there, and has buffers for the outputs."""
        ctx = self._slots
        lacking = next((s.name for s in ctx.inputs if s.name not in inputs), None)
        if lacking is not None:
            raise call.missing_input(lacking, ctx, inputs)
        if len(inputs) != len(ctx.inputs):
            raise call.unknown_names("input", inputs, ctx.inputs)
        arrays = [call.adopt_input(slot, inputs[slot.name]) for slot in ctx.inputs]
        call.bind_shapes(ctx, self._query, arrays)
        for slot, shape in zip(ctx.outputs, ctx.output_shapes, strict=True):
            slot.set_shape(shape)
        buffers = [self._space(i, slot) for i, slot in enumerate(ctx.inputs)]
        for buffer, given in zip(buffers, arrays, strict=True):
            self.there.put(buffer, given.reshape(-1).view(np.uint8).data)
        first = len(buffers)
        return buffers + [0 if s.late else self._space(first + i, s) for i, s in enumerate(ctx.outputs)]

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """Runs the model there, as `Module.run`.

        Raises:
            RunError: if names, shapes or element types do not fit, or the model reports a failure.
            RPCError: if the session ends.
        """
        ctx = self._slots
        if out is not None and not out.keys() <= {slot.name for slot in ctx.outputs}:
            raise call.unknown_names("output", out, ctx.outputs)
        buffers = self._bound(inputs)
        found = self._call(0, buffers)[len(ctx.inputs) :]
        results = {}
        for slot, buffer in zip(ctx.outputs, found, strict=True):
            shape = slot.read_shape()
            data = self.there.fetch(buffer, slot.nbytes) if buffer else bytearray()
            value = np.frombuffer(data, slot.dtype).reshape(shape)
            if slot.late and buffer:
                self.there.forget(buffer)
            given = out.get(slot.name) if out is not None else None
            if given is not None:
                target = call.adopt_output(slot, given, shape)
                target[...] = value
                value = target
            results[slot.name] = value
        return results

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        """Runs the model on arrays in the order of `inputs`: one array, or a tuple."""
        names = [s.name for s in self.inputs]
        if len(arrays) != len(names):
            raise RunError(f"{len(arrays)} arrays given", f"model {self.name}", f"it has {len(names)} inputs",
                           f"pass, in this order: {', '.join(names)}")  # fmt: skip
        results = self.run(dict(zip(names, arrays, strict=True)), **options)
        return next(iter(results.values())) if len(results) == 1 else tuple(results.values())

    def benchmark(
        self, inputs: Mapping[str, Any] | None = None, repeat: int = 10, number: int = 0, warmup: int = 3
    ) -> BenchmarkResult:
        """The time of one call, measured there without copies; as `Module.benchmark`."""
        return self.measure(self.random_inputs() if inputs is None else inputs, repeat, number, 0 if number else 1)

    def measure(
        self, inputs: Mapping[str, Any], repeat: int, number: int, min_repeat_ms: int, cache_flush_bytes: int = 0
    ) -> BenchmarkResult:
        """The times of calls there; the arguments mean what they mean for `time_evaluator`."""
        head = _TIMES.pack(
            self._function.handle, max(number, 1), max(repeat, 1), min_repeat_ms, 100, 0, 1, cache_flush_bytes
        )
        args = self._packed(self._bound(inputs))
        return read_times(self._ask(Op.TIME, head, args, seconds=repeat * min_repeat_ms * 3e-3))

    def set_param(self, name: str, value: Any) -> None:
        """Sets a mutable parameter; RunError if there is none of this name, or the value does not fit."""
        spec, dtype, shape = self._param(name)
        data = np.ascontiguousarray(value)
        if data.dtype != dtype or data.shape != shape:
            raise RunError(f"parameter {name!r}: got {data.dtype} {data.shape}, expected {dtype} {shape}")
        self.there.put(self._params, data.reshape(-1).view(np.uint8).data, spec.offset)

    def get_param(self, name: str) -> Array:
        """A copy of a mutable parameter's value."""
        spec, dtype, shape = self._param(name)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return np.frombuffer(self.there.fetch(self._params, size, spec.offset), dtype).reshape(shape)

    def _param(self, name: str) -> tuple[Any, np.dtype[Any], tuple[int, ...]]:
        for spec in self.artifact.manifest.params:
            if spec.name == name:
                return spec, numpy_dtype(spec.dtype), tuple(int(e) for e in spec.shape if isinstance(e, int))
        known = ", ".join(spec.name for spec in self.artifact.manifest.params) or "none"
        raise RunError(f"the model has no mutable parameter {name!r}", hint=f"its parameters: {known}")

    @property
    def num_threads(self) -> int:
        """Threads that calls in this session may use; 0: all cores there."""
        return self._threads

    @num_threads.setter
    def num_threads(self, count: int) -> None:
        if count < 1:
            raise RunError(f"{count} threads make no sense", hint="use 1 for serial execution")
        self.there.function("runtime.config_threadpool")(0, count)
        self._threads = count

    def __getitem__(self, name: str) -> Callable[..., GraphModule]:
        """The classic factory: `lib["default"](device)` is a graph executor over this model."""
        if name not in ("default", self.name):
            raise RunError(f"no function {name!r}", f"model {self.name}", hint='use module["default"](device)')
        from ..graph_executor import GraphModule

        model: Any = self  # it has what the executor needs of a Module
        return lambda *devices: GraphModule(model, devices[0] if devices else cpu())


# -------------------------------------------------------------------------------------------------------------- loading


def load_remote(there: There, name: str) -> RemoteModule | RemoteModel:
    """The module in a file of the session. What only this process can read becomes a shared library first."""
    try:
        reply = there.request(Op.LOAD, text(name))
    except LoadError as error:
        if not there.info.get("loads"):
            raise
        data = there.read(name)
        library = _as_library(there, name, data)
        if library is None:
            raise LoadError(error.what, error.where, _other_machine(there, data), "build it for that machine") from None
        why = _other_machine(there, library)
        if why:
            raise LoadError(f"the module is not for {there.where}", name, why, "build it for that machine") from None
        there.write(f"{name}.so", library)
        reply = there.request(Op.LOAD, text(f"{name}.so"))
        there.remove(f"{name}.so")  # it stays mapped
    handle, is_model, size = reply.get("I"), reply.get("B"), reply.get("Q")
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        at = sum(map(len, parts))
        more = there.request(Op.ABOUT, struct.pack("<IQI", handle, at, CHUNK))
        parts.append(bytes(more.take(more.get("I"))))
    try:
        about = json.loads(b"".join(parts))
        return _model(there, handle, name, about) if is_model else _module(there, handle, name, about)
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError("the library's description is damaged", name, str(error)) from error


def _module(there: There, handle: int, name: str, about: dict[str, Any]) -> RemoteModule:
    _check_machine(there, name, about["triple"], about["features"])
    return RemoteModule(there, handle, about)


def _model(there: There, handle: int, name: str, about: dict[str, Any]) -> RemoteModel:
    manifest = Manifest.from_data(about["manifest"])
    _check_machine(there, name, manifest.target, manifest.cpu_features)
    if manifest.abi_version != ABI_VERSION or LAYOUT in manifest.extra or CALLS in manifest.extra:
        raise LoadError("the model cannot run in a session", name, "it takes more than tensors, or another version",
                        "run it on a host, with warpbeam.load")  # fmt: skip
    return RemoteModel(there, handle, manifest)


def _check_machine(there: There, name: str, triple: str, features: Sequence[str]) -> None:
    have = plain_features(there.features)
    missing = missing_features(features, have) if have is not None else []
    fits = runs_here(triple, there.machine)
    if fits and not missing:
        return
    why = f"its processor lacks {', '.join(missing)}" if fits else f"it is for {triple}"
    raise LoadError(f"the module is not for {there.where}", name, why, "build it for that machine")


def _other_machine(there: There, data: bytes) -> str:
    """Why a library is not for a machine, where its head tells; loaders give odd reasons."""
    built_for = _ELF_MACHINES.get(int.from_bytes(data[18:20], "little"), "") if data[:4] == b"\x7fELF" else ""
    fits = not built_for or not there.machine or there.machine.startswith(built_for)
    return "" if fits else f"it is for {built_for}, the server's machine is {there.machine}"


def _as_library(there: There, name: str, data: bytes) -> bytes | None:
    """A compiled model, an archive or an object as a shared library; None if the file is none of these."""
    from ..export import _from_archive, link_object
    from ..export_model import export_model

    if data[:8] == MAGIC:
        with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder:
            whole, library = Path(folder, "model.wb"), Path(folder, "model.so")
            whole.write_bytes(data)
            found = Artifact.load(whole).chosen(lambda m: runs_here(m.target, there.machine))
            try:
                export_model(found, library, "so", "model")
            except ArtifactError:  # there are no threads on that system
                export_model(found, library, "so", "model", freestanding=True)
            return library.read_bytes()
    packed = data[:4] != b"\x7fELF"
    if packed:
        try:
            data = _from_archive(data, name)
        except LoadError:
            return None
    if data[16:18] == b"\x01\0":
        return link_object(data, Path(name).name)
    return data if packed else None
