"""A process that times kernels: requests in on stdin, seconds out on stdout, until stdin ends.

A request is a line of JSON, an answer too: {"op": "load", "bytes"} followed by a shared library; {"op": "kernel",
"symbol", "buffers": [[bytes, dtype, constant]], "dims"} (the answer's "id" names it from then on); {"op": "run", "id",
"number"} (the answer's "seconds" are those of one call). Code that is measured may crash or hang: that is why this is
a process.

A model's weights come from memory, what kernels hand to each other from the caches. So constants are another part of a
ring larger than the last cache in each call, and other buffers stay where they are.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import sys
import time
from typing import IO, Any

import numpy as np

from warpbeam.driver.worker_main import limit_memory
from warpbeam.ir import dtype as dt
from warpbeam.runtime import pool
from warpbeam.runtime.abi import numpy_dtype
from warpbeam.runtime.context import HostContext
from warpbeam.runtime.loader import Library
from warpbeam.runtime.memory import aligned_bytes

_ALIGN = 64
_BLOCK = 1 << 18
_MOST = 1 << 28


@functools.cache
def _block(dtype: str) -> Any:
    """Bytes of some values: floats near zero, and zeros for integers, which may be indices."""
    kind = numpy_dtype(dtype)
    if dt.is_float(dtype):
        return (0.1 * np.random.default_rng(0).standard_normal(_BLOCK)).astype(kind).view(np.uint8)
    return np.zeros(_BLOCK, kind).view(np.uint8)


def filled(dtype: str, size: int) -> Any:
    """So many bytes of values, written, so that they have pages of their own."""
    memory, block = aligned_bytes(size), _block(dtype)
    for at in range(0, size, block.size):
        memory[at : at + block.size] = block[: size - at]
    return memory


class Ring:
    """Memory of one dtype's values from which constants are taken, each time other ones."""

    def __init__(self, dtype: str, size: int) -> None:
        self.memory = filled(dtype, size)
        self.size = size
        self.at = 0

    def take(self, size: int) -> int:
        """The address of the next `size` bytes."""
        if self.at + size > self.size:
            self.at = 0
        found = int(self.memory.ctypes.data) + self.at
        self.at += -(-size // _ALIGN) * _ALIGN
        return found


class Machine:
    """The kernels of this process, and what they run on."""

    def __init__(self, last_cache: int) -> None:
        self.room = min(max(3 * last_cache // 2, 1 << 20), _MOST)
        self.rings: dict[str, Ring] = {}
        self.library: Library | None = None
        self.context: HostContext | None = None
        self.kernels: list[tuple[Any, list[list[Any]], list[Any], list[int]]] = []

    def load(self, code: bytes) -> None:
        """Takes another library; kernels of the one before are forgotten."""
        self.kernels.clear()
        self.library = Library(code, "guard")
        address, threads = pool.attach(self.library)
        self.context = HostContext(0, 0, address, threads, 0)

    def kernel(self, symbol: str, buffers: list[list[Any]], dims: list[int]) -> int:
        """Memory for a kernel's buffers; gives its number."""
        assert self.library is not None
        kept = []
        for size, dtype, constant in buffers:
            if constant and (dtype not in self.rings or self.rings[dtype].size < size):
                self.rings[dtype] = Ring(dtype, max(self.room, size))
            kept.append(None if constant else filled(dtype, size))
        self.kernels.append((self.library.function(symbol), buffers, kept, dims))
        return len(self.kernels) - 1

    def run(self, number: int, which: int) -> float:
        """Seconds of one call, the mean of `number`."""
        function, buffers, kept, dims = self.kernels[which]
        assert self.context is not None
        sizes = [ctypes.c_int64(d) for d in dims]
        spent = 0.0
        for _ in range(number):
            places = [
                self.rings[dtype].take(size) if constant else own.ctypes.data
                for (size, dtype, constant), own in zip(buffers, kept, strict=True)
            ]
            arguments = [self.context.pointer, *(ctypes.c_void_p(p) for p in places), *sizes]
            start = time.perf_counter()
            status = function(*arguments)
            spent += time.perf_counter() - start
            if status:
                raise RuntimeError(self.context.message() or f"status {status}")
        return spent / number

    def answer(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Does what a request says."""
        if request["op"] == "load":
            self.load(payload)
            return {}
        if request["op"] == "kernel":
            return {"id": self.kernel(request["symbol"], request["buffers"], request["dims"])}
        return {"seconds": self.run(request["number"], request["id"])}


def serve(requests: IO[bytes], answers: IO[bytes], machine: Machine) -> None:
    """Answers requests until the stream ends."""
    while line := requests.readline():
        request = json.loads(line)
        payload = requests.read(request.get("bytes", 0))
        try:
            reply = {"ok": True, **machine.answer(request, payload)}
        except (RuntimeError, MemoryError, ValueError, OSError) as error:
            reply = {"ok": False, "why": str(error) or type(error).__name__}
        answers.write(json.dumps(reply).encode() + b"\n")
        answers.flush()


def main() -> None:
    """Entry of the process; arguments: memory limit in bytes (0 = none), bytes of the last cache."""
    limit_memory(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints may disturb the answers
    serve(sys.stdin.buffer, answers, Machine(int(sys.argv[2])))


if __name__ == "__main__":
    main()
