"""One session as Python's server sees it: requests in, replies out. The server in C answers the same."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import pool
from ..abi import QUERY_SHAPES, ValueCode, dtype_name, numpy_dtype
from ..errors import ArgumentError, FunctionError, LoadError, RunError, WarpbeamError
from ..function_call import CompiledFunction
from ..function_module import FunctionModule
from ..memory import Bytes, aligned_bytes
from ..module import Module
from ..ndarray import NDArray
from ..packed import PackedFunc
from ..timing import TimeEvaluator
from .here import Here
from .wire import (
    CHUNK,
    MAX_AXES,
    MAX_FILES,
    MAX_NAME,
    MAX_PAYLOAD,
    VERSION,
    Channel,
    MalformedError,
    Op,
    Reader,
    Status,
    text,
)

Array = npt.NDArray[Any]


class Refusal(Exception):
    """A request that is answered with a failure."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Wanted:
    """A tensor whose memory the call finds: what the client said of it."""

    dtype: str
    shape: tuple[int, ...]


class ModelCall:
    """A model's entry with the face of a compiled function: arguments are the inputs, then the outputs."""

    name = ""

    def __init__(self, module: Module) -> None:
        self.module = module
        manifest = module.artifact.manifest
        self.inputs, self.outputs = [s.name for s in manifest.inputs], [s.name for s in manifest.outputs]
        self.late = [s.late for s in manifest.outputs]

    def split(self, args: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and outputs by name; outputs whose memory the call finds are left out."""
        count = len(self.inputs)
        if len(args) != count + len(self.outputs):
            raise ArgumentError(f"{len(args)} tensors for {count} inputs and {len(self.outputs)} outputs")
        out = {n: a for n, a in zip(self.outputs, args[count:], strict=True) if not isinstance(a, Wanted)}
        return dict(zip(self.inputs, args[:count], strict=True)), {n: np.asarray(a) for n, a in out.items()}

    def run(self, args: Sequence[Any]) -> list[Array]:
        """The outputs of one call."""
        results = self.module.run_tensors(*self.split(args))
        return [results[name] for name in self.outputs]

    def shapes(self, args: Sequence[Any]) -> list[tuple[int, ...]]:
        """The outputs' shapes for inputs of these shapes."""
        manifest = self.module.artifact.manifest
        given = [np.empty(a.shape, numpy_dtype(s.dtype)) for a, s in zip(args, manifest.inputs, strict=False)]
        if len(given) != len(manifest.inputs):
            raise ArgumentError(f"{len(given)} tensors for {len(manifest.inputs)} inputs")
        return list(self.module.output_shapes(given))

    def frame(self, args: Sequence[Any]) -> tuple[Any, list[Any]]:
        """What `repeat` takes."""
        return self.split(args), []

    def repeat(self, frame: Any, times: int) -> None:
        """Calls again and again."""
        for _ in range(times):
            self.module.run_tensors(*frame)


class Serving:
    """The objects of one session and the operations on them."""

    def __init__(self, folder: str, max_bytes: int) -> None:
        self.here = Here(folder)
        self.max_bytes = max_bytes
        self.sizes: dict[str, int] = {}
        self.objects: dict[int, Any] = {}
        self.held = 0
        self.stop = False
        self._next = 1
        self.operations: dict[int, Callable[[Reader], bytes]] = {
            Op.INFO: self.info, Op.UPLOAD: self.upload, Op.DOWNLOAD: self.download, Op.REMOVE: self.remove,
            Op.LIST: self.names, Op.LOAD: self.load, Op.ABOUT: self.about, Op.FUNCTION: self.function,
            Op.FREE: self.free, Op.ALLOC: self.alloc, Op.COPY_TO: self.copy_to, Op.COPY_FROM: self.copy_from,
            Op.CALL: self.call, Op.TIME: self.time, Op.PARAMS: self.params, Op.BYE: self.bye,
        }  # fmt: skip

    def answer(self, payload: bytes) -> bytes:
        """The reply to a request."""
        try:
            reader = Reader(payload)
            operation = self.operations.get(reader.get("B"))
            if operation is None:
                raise MalformedError("unknown operation")
            reply = bytes([Status.OK]) + operation(reader)
            if len(reply) > MAX_PAYLOAD:
                raise Refusal(Status.TOO_LARGE, "the reply is too large")
            return reply
        except MalformedError as error:
            return _failure(Status.BAD_REQUEST, f"malformed request: {error}")
        except Refusal as error:
            return _failure(error.status, str(error))
        except MemoryError:
            return _failure(Status.TOO_LARGE, "no memory")
        except FunctionError as error:
            return _failure(Status.NOT_FOUND, error.what)
        except LoadError as error:
            return _failure(Status.NOT_LOADABLE, f"{error.what}: {error.why}" if error.why else error.what)
        except WarpbeamError as error:
            return _failure(Status.FAILED, str(error))
        except OSError as error:
            return _failure(Status.FAILED, str(error))

    # ------------------------------------------------------------------------------------------------------ objects

    def keep(self, thing: Any) -> int:
        """A handle for an object."""
        handle = self._next
        self._next += 1
        self.objects[handle] = thing
        return handle

    def find(self, reader: Reader, kind: type | tuple[type, ...], what: str) -> Any:
        """The object whose handle comes next."""
        found = self.objects.get(reader.get("I"))
        if not isinstance(found, kind):
            raise Refusal(Status.NOT_FOUND, f"there is no such {what}")
        return found

    def buffer(self, size: int) -> Bytes:
        """New memory, zero."""
        if size > self.max_bytes - self.held:
            raise Refusal(Status.TOO_LARGE, f"no memory for {size} bytes on the device")
        made = aligned_bytes(size)
        made[:] = 0
        self.held += size
        return made

    # -------------------------------------------------------------------------------------------------------- files

    def info(self, reader: Reader) -> bytes:
        """-> text, JSON."""
        return text(json.dumps({**self.here.info, "protocol": VERSION, "max_bytes": self.max_bytes}))

    def upload(self, reader: Reader) -> bytes:
        """name, u64 offset, bytes."""
        name, offset = reader.text(MAX_NAME), reader.get("Q")
        data = reader.take(reader.get("I"))
        reader.end()
        before = 0 if offset == 0 else self.sizes.get(name, 0)
        if offset != before:
            raise Refusal(Status.BAD_REQUEST, f"{name!r} is not written in order")
        others = sum(size for n, size in self.sizes.items() if n != name)
        if others + before + len(data) > self.max_bytes:
            raise Refusal(Status.TOO_LARGE, f"uploads of this session are limited to {self.max_bytes} bytes")
        if name not in self.sizes and len(self.sizes) >= MAX_FILES:
            raise Refusal(Status.TOO_LARGE, f"a session has at most {MAX_FILES} files")
        try:
            self.here.write(name, bytes(data), offset)
        except WarpbeamError as error:
            raise Refusal(Status.FAILED, error.what) from error
        self.sizes[name] = before + len(data)
        return b""

    def download(self, reader: Reader) -> bytes:
        """name, u64 offset, u32 count -> u64 size of the file, bytes."""
        name, offset, count = reader.text(MAX_NAME), reader.get("Q"), reader.get("I")
        if count > CHUNK or offset >= 1 << 62:
            raise MalformedError("too much at once")
        data = self.here.read_part(name, offset, count)
        return struct.pack("<QI", self.here.size(name), len(data)) + data

    def remove(self, reader: Reader) -> bytes:
        """name."""
        name = reader.text(MAX_NAME)
        self.here.remove(name)
        self.sizes.pop(name, None)
        return b""

    def names(self, reader: Reader) -> bytes:
        """-> u32 count, names."""
        found = self.here.names()
        return struct.pack("<I", len(found)) + b"".join(map(text, found))

    # ------------------------------------------------------------------------------------------ modules, functions

    def load(self, reader: Reader) -> bytes:
        """name -> u32 handle, u8 whether it is a model, u64 size of its description."""
        try:
            module = self.here.load(reader.text(MAX_NAME))
        except (FunctionError, LoadError):
            raise
        except WarpbeamError as error:
            raise Refusal(Status.FAILED, str(error)) from error
        return struct.pack("<IBQ", self.keep(module), isinstance(module, Module), len(_description(module)))

    def about(self, reader: Reader) -> bytes:
        """u32 module, u64 offset, u32 count -> bytes of its description."""
        module = self.find(reader, (Module, FunctionModule), "module")
        offset, count = reader.get("Q"), reader.get("I")
        data = _description(module)[offset : offset + min(count, CHUNK)]
        return struct.pack("<I", len(data)) + data

    def function(self, reader: Reader) -> bytes:
        """u32 module, or 0 for registered functions; name -> u32 handle."""
        handle = reader.get("I")
        name = reader.text(MAX_NAME)
        owner = self.objects.get(handle)
        found: Any
        if handle == 0:
            own = name == "runtime.config_threadpool"
            found = PackedFunc(self.threads, name) if own else self.here.function(name)
        elif isinstance(owner, Module):
            found = ModelCall(owner)
        elif isinstance(owner, FunctionModule):
            found = owner.get_function(name)
        else:
            raise Refusal(Status.NOT_FOUND, "there is no such module")
        return struct.pack("<I", self.keep(found))

    def threads(self, mode: int, count: int) -> None:
        """`runtime.config_threadpool`: an affinity mode, which is the system's business, and a number of threads."""
        pool.set_num_threads(count)

    def params(self, reader: Reader) -> bytes:
        """u32 module -> u32 buffer that is the module's mutable parameters, u64 its size."""
        memory = self.find(reader, Module, "module").params_view()
        return struct.pack("<IQ", self.keep(memory), memory.size)

    # ------------------------------------------------------------------------------------------------------ buffers

    def free(self, reader: Reader) -> bytes:
        """u32 count, handles."""
        for _ in range(reader.get("I")):
            thing = self.objects.pop(reader.get("I"), None)
            if thing is None:
                raise Refusal(Status.NOT_FOUND, "there is no such object")
            if isinstance(thing, np.ndarray):
                self.held -= thing.size
        return b""

    def alloc(self, reader: Reader) -> bytes:
        """u64 bytes -> u32 handle."""
        return struct.pack("<I", self.keep(self.buffer(reader.get("Q"))))

    def _span(self, reader: Reader) -> Bytes:
        memory: Bytes = self.find(reader, np.ndarray, "buffer")
        offset, size = reader.get("Q"), reader.get("I")
        if offset + size > memory.size:
            raise Refusal(Status.NOT_FOUND, "that is outside of the buffer")
        return memory[offset : offset + size]

    def copy_to(self, reader: Reader) -> bytes:
        """u32 buffer, u64 offset, bytes."""
        span = self._span(reader)
        data = reader.take(span.size)
        reader.end()
        span[:] = np.frombuffer(data, np.uint8)
        return b""

    def copy_from(self, reader: Reader) -> bytes:
        """u32 buffer, u64 offset, u32 count -> bytes."""
        span = self._span(reader)
        if span.size > CHUNK:
            raise MalformedError("too much at once")
        return struct.pack("<I", span.size) + span.tobytes()

    # -------------------------------------------------------------------------------------------------------- calls

    def _tensor(self, reader: Reader) -> tuple[int, Any]:
        handle, offset, code, bits, lanes = (reader.get(c) for c in "IQBBH")
        axes = reader.get("I")
        if axes > MAX_AXES or lanes != 1:
            raise MalformedError("a tensor of too many axes, or of vectors")
        shape = tuple(reader.get("q") for _ in range(axes))
        dtype = dtype_name(code, bits)
        if min(shape, default=0) < 0:
            raise MalformedError("a negative extent")
        if not handle:
            return 0, Wanted(dtype, shape)
        memory = self.objects.get(handle)
        if not isinstance(memory, np.ndarray):
            raise Refusal(Status.NOT_FOUND, "there is no such buffer")
        kind = numpy_dtype(dtype)
        size = kind.itemsize * int(np.prod([int(e) for e in shape], dtype=object))
        if offset + size > memory.size or offset % kind.itemsize:
            raise Refusal(Status.BAD_REQUEST, f"the tensor does not fit into its buffer of {memory.size} bytes")
        return handle, NDArray(np.ndarray(shape, kind, memory, offset))

    def _arguments(self, reader: Reader) -> tuple[list[int], list[Any]]:
        handles, values = [], []
        for _ in range(reader.get("I")):
            code = reader.get("B")
            handle, value = 0, None
            if code in (ValueCode.INT, ValueCode.FLOAT):
                value = reader.get("q" if code == ValueCode.INT else "d")
            elif code == ValueCode.STR:
                value = reader.text()
            elif code == ValueCode.TENSOR:
                handle, value = self._tensor(reader)
            elif code != ValueCode.NULL:
                raise MalformedError("an argument of unknown kind")
            handles.append(handle)
            values.append(value)
        reader.end()
        return handles, values

    def call(self, reader: Reader) -> bytes:
        """u32 function, u32 flags, arguments -> result, for each argument u32 buffer, u32 axes, extents."""
        function = self.find(reader, (PackedFunc, ModelCall), "function")
        flags = reader.get("I")
        handles, values = self._arguments(reader)
        shapes = [v.shape if isinstance(v, NDArray | Wanted) else () for v in values]
        result = None
        if isinstance(function, ModelCall):
            self._call_model(function, flags, handles, values, shapes)
        elif flags:
            raise Refusal(Status.BAD_REQUEST, "only a model says shapes")
        else:
            result = _guarded(lambda: function(*values))
        rows = [struct.pack(f"<II{len(s)}q", h, len(s), *s) for h, s in zip(handles, shapes, strict=True)]
        return _result(result) + struct.pack("<I", len(rows)) + b"".join(rows)

    def _call_model(
        self, model: ModelCall, flags: int, handles: list[int], values: list[Any], shapes: list[tuple[int, ...]]
    ) -> None:
        first = len(model.inputs)
        if flags == QUERY_SHAPES:
            shapes[first:] = _guarded(lambda: model.shapes(values))
        elif flags:
            raise MalformedError("unknown flags")
        else:
            for i, array in enumerate(_guarded(lambda: model.run(values)), first):
                shapes[i] = array.shape
                if not handles[i]:
                    memory = self.buffer(array.nbytes)
                    memory[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                    handles[i] = self.keep(memory)

    def time(self, reader: Reader) -> bytes:
        """u32 function, seven numbers, u64 cache_flush_bytes, arguments -> u64 number, u32 repeat, f64 seconds."""
        function = self.find(reader, (CompiledFunction, ModelCall), "function")
        number, repeat, least, zeros, pause, pauses = (reader.get("I") for _ in range(6))
        flush = reader.get("Q")
        if not number or not 0 < repeat <= MAX_PAYLOAD // 16 or not pauses:
            raise MalformedError("no measurement, or too many")
        if flush > self.max_bytes - self.held:
            raise Refusal(Status.TOO_LARGE, f"no memory for {flush} bytes to flush caches with")
        _, values = self._arguments(reader)
        timer = TimeEvaluator(function, None, number, repeat, least, zeros, pause, pauses, flush, "")
        found = _guarded(lambda: timer(*values))
        return struct.pack(f"<QI{repeat}d", found.number, repeat, *found.times)

    def bye(self, reader: Reader) -> bytes:
        """Ends the session."""
        self.stop = True
        return b""


def serve_channel(channel: Channel, folder: str, max_bytes: int, idle: float) -> None:
    """Answers until the client leaves, is silent for `idle` seconds, or a frame comes that is not the client's."""
    serving = Serving(folder, max_bytes)
    try:
        while not serving.stop:
            payload = channel.receive(idle)
            if payload is None:
                return
            channel.send(serving.answer(payload))
    except (OSError, MalformedError):
        return  # whoever it was hears nothing more
    finally:
        channel.close()
        serving.here.close()


def _guarded(function: Callable[[], Any]) -> Any:
    """What a call gives; what it raises is the caller's failure."""
    try:
        return function()
    except ArgumentError as error:
        raise Refusal(Status.CALL_FAILED, error.what) from error
    except RunError as error:
        raise Refusal(Status.CALL_FAILED, error.why or error.what) from error
    except Exception as error:  # functions of Python raise what they like
        raise Refusal(Status.CALL_FAILED, f"{type(error).__name__}: {error}") from error


def _description(module: Module | FunctionModule) -> bytes:
    about = {"manifest": module.artifact.manifest.to_data()} if isinstance(module, Module) else module.about
    return json.dumps(about).encode()


def _result(value: Any) -> bytes:
    if isinstance(value, bool | int | np.integer | np.bool_):
        return struct.pack("<Bq", ValueCode.INT, int(value))
    if isinstance(value, float | np.floating):
        return struct.pack("<Bd", ValueCode.FLOAT, float(value))
    if isinstance(value, str):
        return bytes([ValueCode.STR]) + text(value)
    return struct.pack("<Bq", ValueCode.NULL, 0)


def _failure(status: Status, message: str) -> bytes:
    return bytes([status]) + text(message.replace("\0", "")[:4000])
