"""The end of a session that is another process: requests over a channel, and the arrays that live there."""

from __future__ import annotations

import collections
import json
import struct
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..abi import DLPACK_TYPES, numpy_dtype
from ..errors import ArgumentError, FunctionError, LoadError, RPCError, RunError
from ..ndarray import Device, NDArray, _in_host_memory, as_numpy, device
from ..packed import PackedFunc
from .wire import CHUNK, Channel, MalformedError, Op, Reader, Status, text

if TYPE_CHECKING:
    from .remote import RemoteFunction

Array = npt.NDArray[Any]


class Refused(Exception):
    """The server answered a request with a failure."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class There:
    """Files, buffers, modules and functions at the other end of a channel. Threads take turns."""

    def __init__(
        self, channel: Channel, where: str, timeout: float, leave: Callable[[], object] = lambda: None
    ) -> None:
        self.where = where
        self.timeout = timeout
        self._channel = channel
        self._leave = weakref.finalize(self, _left, channel, leave)  # scripts seldom close a session
        self._lock = threading.RLock()
        self._ended: str = ""
        #: buffers nobody uses any more; they are given back before the next request
        self._unused: collections.deque[int] = collections.deque()
        try:
            self._info: dict[str, Any] = json.loads(self.request(Op.INFO).text())
            self.machine, self.features = str(self._info["machine"]), str(self._info["features"])
        except (ValueError, KeyError, TypeError) as error:
            self._end(str(error))
            raise RPCError("the server's description of itself is damaged", where, str(error)) from error

    @property
    def info(self) -> dict[str, Any]:
        """What is there."""
        return self._info

    # ---------------------------------------------------------------------------------------------------- requests

    def request(self, op: Op, *parts: bytes, seconds: float = 0.0) -> Reader:
        """Sends a request and waits for its reply, for `seconds` longer than for others.

        Raises:
            RPCError: if the session has ended, or ends now.
            FunctionError, LoadError, RunError: for what the server answers.
        """
        try:
            return self.ask(op, *parts, seconds=seconds)
        except Refused as error:
            status, message = error.status, str(error)
        if status in (Status.FAILED, Status.NOT_FOUND):
            raise FunctionError(message, self.where)
        if status in (Status.UNSUPPORTED, Status.NOT_LOADABLE):
            raise LoadError(message, self.where)
        raise RunError(message, self.where)

    def ask(self, op: Op, *parts: bytes, seconds: float = 0.0) -> Reader:
        """As `request`; raises Refused for a failure that the server reports."""
        with self._lock:
            while self._unused and not self._ended:
                gone = [self._unused.popleft() for _ in range(min(len(self._unused), 4096))]
                self._exchange(struct.pack(f"<BI{len(gone)}I", Op.FREE, len(gone), *gone), 0.0)
            reply = Reader(self._exchange(bytes([op]) + b"".join(parts), seconds), RPCError)
        status = reply.get("B")
        if status != Status.OK:
            raise Refused(status, reply.text())
        return reply

    def _exchange(self, payload: bytes, seconds: float) -> bytes:
        if self._ended:
            raise RPCError("the session has ended", self.where, self._ended, "connect again")
        try:
            self._channel.send(payload)
            reply = self._channel.receive(self.timeout + seconds)
            if reply is None:
                raise ConnectionError("the server has closed the connection: it ended, or its code crashed")
        except (OSError, MalformedError) as error:
            self._end(str(error) or type(error).__name__)
            raise RPCError("the session has ended", self.where, self._ended, "connect again") from error
        except BaseException:
            self._end("a request was interrupted")
            raise
        return reply

    def _end(self, why: str) -> None:
        self._ended = why
        self._leave()

    def close(self) -> None:
        """Says good-bye; what the session holds there is gone."""
        with self._lock:
            if not self._ended:
                try:
                    self._exchange(bytes([Op.BYE]), 0.0)
                except RPCError:
                    return
                self._end("it was closed")

    def forget(self, handle: int) -> None:
        """Gives an object back, some time; may be called from anywhere."""
        self._unused.append(handle)

    # ------------------------------------------------------------------------------------------------------- files

    def write(self, name: str, data: bytes) -> None:
        """Makes a file."""
        limit = self.info.get("max_bytes", 0)
        if len(data) > limit:
            raise RunError(f"{name!r} has {len(data)} bytes", self.where, f"the server takes {limit}",
                           "start it with a larger --max-bytes")  # fmt: skip
        view = memoryview(data)
        for offset in range(0, max(len(data), 1), CHUNK):
            part = bytes(view[offset : offset + CHUNK])
            self.request(Op.UPLOAD, text(name), struct.pack("<QI", offset, len(part)), part)

    def read(self, name: str) -> bytes:
        """A file's content."""
        parts: list[bytes] = []
        done = 0
        while True:
            reply = self.request(Op.DOWNLOAD, text(name), struct.pack("<QI", done, CHUNK))
            size = reply.get("Q")
            parts.append(bytes(reply.take(reply.get("I"))))
            done += len(parts[-1])
            if done >= size or not parts[-1]:
                return b"".join(parts)

    def remove(self, name: str) -> None:
        """Removes a file."""
        self.request(Op.REMOVE, text(name))

    def names(self) -> list[str]:
        """The files' names in order."""
        reply = self.request(Op.LIST)
        return sorted(reply.text() for _ in range(reply.get("I")))

    # ----------------------------------------------------------------------------------------------------- buffers

    def allocate(self, size: int) -> int:
        """A buffer; RunError if there is no room for it."""
        return int(self.request(Op.ALLOC, struct.pack("<Q", size)).get("I"))

    def put(self, handle: int, data: memoryview, offset: int = 0) -> None:
        """Copies bytes into a buffer."""
        for at in range(0, len(data), CHUNK):
            part = bytes(data[at : at + CHUNK])
            self.request(Op.COPY_TO, struct.pack("<IQI", handle, offset + at, len(part)), part)

    def fetch(self, handle: int, size: int, offset: int = 0) -> bytearray:
        """Bytes of a buffer."""
        out = bytearray()
        while len(out) < size:
            count = min(CHUNK, size - len(out))
            reply = self.request(Op.COPY_FROM, struct.pack("<IQI", handle, offset + len(out), count))
            out += reply.take(reply.get("I"))
        return out

    # ------------------------------------------------------------------------------------------ modules, functions

    def load(self, name: str) -> Any:
        """The module in a file."""
        from .remote import load_remote

        return load_remote(self, name)

    def function(self, name: str) -> PackedFunc:
        """A registered function."""
        return self.function_of(0, name, None)

    def function_of(self, module: int, name: str, rows: list[list[Any]] | None) -> RemoteFunction:
        """A function of a module, or a registered one."""
        from .remote import RemoteFunction

        handle = self.request(Op.FUNCTION, struct.pack("<I", module), text(name)).get("I")
        return RemoteFunction(self, int(handle), name, rows)

    def device(self, kind: str | int, number: int = 0) -> Device:
        """A device there."""
        found = device(kind, number)
        return RemoteDevice(found.device_type, found.device_id, self)


def _left(channel: Channel, leave: Callable[[], object]) -> None:
    channel.close()
    leave()


@dataclass(frozen=True, slots=True, repr=False)
class RemoteDevice(Device):
    """A device of the machine at the other end."""

    there: Any = None

    def __str__(self) -> str:
        return f"{self.kind}({self.device_id}) of {self.there.where}"

    __repr__ = __str__

    @property
    def device_name(self) -> str | None:
        """The processor's architecture."""
        return self.there.machine if self.exist else None

    @property
    def multi_processor_count(self) -> int | None:
        """Processors."""
        return int(self.there.info["cores"]) if self.exist else None

    def hold(self, array: npt.NDArray[Any]) -> NDArray:
        """A new array there with this content."""
        made = RemoteArray(self, array.shape, str(array.dtype.name))
        return made.copyfrom(array)

    def hold_empty(self, shape: tuple[int, ...], dtype: str) -> NDArray:
        """A new array there."""
        return RemoteArray(self, shape, dtype)


class RemoteArray(NDArray):
    """An array in the memory of the machine at the other end; what reads its elements copies them here."""

    __slots__ = ("__weakref__", "_dtype", "_shape", "buffer")
    device: RemoteDevice

    def __init__(self, device: RemoteDevice, shape: tuple[int, ...], dtype: str, buffer: int | None = None) -> None:
        """Takes memory there, or the buffer given.

        Raises:
            RunError: if the element type is unknown, or there is no room.
        """
        self.device = device
        self._shape = tuple(int(e) for e in shape)
        self._dtype = numpy_dtype(dtype)
        if device.device_type not in (1, 3):
            _in_host_memory(Device(device.device_type, device.device_id))
        there: There = device.there
        self.buffer = there.allocate(self.nbytes) if buffer is None else buffer
        weakref.finalize(self, there.forget, self.buffer).atexit = False

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self._dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self._shape

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return str(self._dtype.name)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self._shape, dtype=np.int64))

    def numpy(self) -> Array:
        """A copy in this machine's memory."""
        data = self.device.there.fetch(self.buffer, self.nbytes)
        return np.frombuffer(data, self._dtype).reshape(self._shape)

    asnumpy = numpy

    @property
    def _array(self) -> Array:  # type: ignore[override]
        return self.numpy()

    @property
    def handle(self) -> int:
        """Raises RunError: code of this process cannot reach the array."""
        raise RunError(f"the array is on {self.device}", hint="call a function of that session, or pass array.numpy()")

    def copyfrom(self, source: Any) -> NDArray:
        """Overwrites the elements with `source`'s, of equal shape; as `NDArray.copyfrom`."""
        array = np.asarray(source) if isinstance(source, (int, float, list, tuple)) else as_numpy(source, compact=False)
        if not isinstance(source, NDArray):
            array = array.astype(self._dtype, copy=False)
        if array.shape != self._shape or array.dtype != self._dtype:
            what = f"cannot copy {array.dtype} {array.shape} into {self._dtype} {self._shape}"
            raise RunError(what, hint="shapes and types must be equal; convert with astype or reshape first")
        self.device.there.put(self.buffer, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        array = self.numpy()
        array[index] = as_numpy(value, compact=False) if isinstance(value, NDArray) else value
        self.copyfrom(array)

    def __getitem__(self, index: Any) -> Any:
        item = self.numpy()[index]
        return NDArray(item) if isinstance(item, np.ndarray) else item

    def __len__(self) -> int:
        return self._shape[0]

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Any:
        raise RunError(f"the array is on {self.device}", hint="pass array.numpy()")

    def pack(self) -> bytes:
        """The array as an argument of a call."""
        return pack_tensor(self.buffer, self._dtype, self._shape)


def pack_tensor(buffer: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """A tensor as an argument of a call; buffer 0: the call finds its memory."""
    kind = DLPACK_TYPES.get(dtype.name)
    if kind is None:
        raise ArgumentError(f"element type {dtype} cannot be passed", hint=f"known types: {', '.join(DLPACK_TYPES)}")
    return struct.pack(f"<BIQBBHI{len(shape)}q", 7, buffer, 0, *kind, 1, len(shape), *shape)
