"""Memory of the executor of GPU programs: elements, and for each of them who touched it since the last barrier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.tir import expr as e
from warpbeam.tir.interp_memory import InterpError, OutOfBoundsError, undefined

if TYPE_CHECKING:
    from warpbeam.tir.interp_gpu_machine import Threads

_NOBODY, _MANY = -1, -2


class GpuError(InterpError):
    """A kernel did what has no meaning on a GPU.

    Wrong:
        k = text.parse('''def k(A: float32[4]):
            for t in thread_binding("threadIdx.x", 64):
                if t < 32:
                    eval storage_sync[int32]("shared")''')
        memory = interp_gpu.Memory.of_array(np.zeros(4, "float32"), k.params[0])
        interp_gpu.run_kernel(k, [1, 1, 1], [64, 1, 1], [memory])
    Right:
        k = text.parse('''def k(A: float32[4]):
            for t in thread_binding("threadIdx.x", 64):
                eval storage_sync[int32]("shared")''')
        memory = interp_gpu.Memory.of_array(np.zeros(4, "float32"), k.params[0])
        interp_gpu.run_kernel(k, [1, 1, 1], [64, 1, 1], [memory])
    """


class RaceError(GpuError):
    """Two threads meet in one element, one of them writing, and nothing orders the two.

    for tx in 64 (threadIdx.x): S[tx] = A[tx];  B[tx] = S[63 - tx]        # thread 0 may read before thread 63 writes

    A barrier between the two statements orders them within a block; `thread_sync` puts it there.

    Wrong:
        device = text.parse('''def k(A: float32[64], B: float32[64]):
            for b in thread_binding("blockIdx.x", 1):
                alloc S: float32[64] @shared
                for t in thread_binding("threadIdx.x", 64):
                    S[t] = A[t]
                    B[t] = S[63 - t]''')
        memory = [interp_gpu.Memory.of_array(np.zeros(64, "float32"), p) for p in device.params]
        interp_gpu.run_kernel(device, [1, 1, 1], [64, 1, 1], memory)
    Right:
        device = text.parse('''def k(A: float32[64], B: float32[64]):
            for b in thread_binding("blockIdx.x", 1):
                alloc S: float32[64] @shared
                for t in thread_binding("threadIdx.x", 64):
                    S[t] = A[t]
                    eval storage_sync[int32]("shared")
                    B[t] = S[63 - t]''')
        memory = [interp_gpu.Memory.of_array(np.zeros(64, "float32"), p) for p in device.params]
        interp_gpu.run_kernel(device, [1, 1, 1], [64, 1, 1], memory)
    """


class UninitializedError(GpuError):
    """An element of shared, local or workspace memory is read before anything was written to it.

    Wrong:
        device = text.parse('''def k(A: float32[64], B: float32[64]):
            for b in thread_binding("blockIdx.x", 1):
                alloc S: float32[64] @shared
                for t in thread_binding("threadIdx.x", 64):
                    B[t] = S[63 - t]''')
        memory = [interp_gpu.Memory.of_array(np.zeros(64, "float32"), p) for p in device.params]
        interp_gpu.run_kernel(device, [1, 1, 1], [64, 1, 1], memory)
    Right:
        device = text.parse('''def k(A: float32[64], B: float32[64]):
            for b in thread_binding("blockIdx.x", 1):
                alloc S: float32[64] @shared
                for t in thread_binding("threadIdx.x", 64):
                    S[63 - t] = A[t]
                    B[t] = S[63 - t]''')
        memory = [interp_gpu.Memory.of_array(np.zeros(64, "float32"), p) for p in device.params]
        interp_gpu.run_kernel(device, [1, 1, 1], [64, 1, 1], memory)
    """


class Memory:
    """Elements of one buffer. `private`: stride of the thread's number; `per_block`: stride of the block's.

    For memory that several threads see: `writer`, `reader` are the last thread of this interval (a number in the
    launch, or nobody, or many), `write_epoch`, `read_epoch` its barrier count, `write_block`, `read_block` the block.
    """

    def __init__(self, buffer: e.Buffer, flat: Any, shape: list[int], kind: str, known: bool) -> None:
        self.buffer, self.flat, self.shape, self.kind = buffer, flat, shape, kind
        self.size = int(np.prod(shape, dtype=np.int64))
        self.known = None if known else np.zeros(len(flat), bool)
        self.tracked = False

    @staticmethod
    def of_array(array: Any, buffer: e.Buffer) -> Memory:
        """An argument: its content is given."""
        return Memory(buffer, np.array(array).reshape(-1), list(array.shape), "global", True)

    @staticmethod
    def fresh(buffer: e.Buffer, shape: list[int], copies: int = 1, kind: str = "global") -> Memory:
        """Memory without content: one array, or one for each block or thread."""
        count = int(np.prod(shape, dtype=np.int64)) * copies
        return Memory(buffer, undefined(count, buffer.dtype), shape, kind, False)

    def begin_launch(self) -> None:
        """Nobody has touched anything yet."""
        self.tracked = False

    def track(self) -> None:
        """Starts the record of who touches what."""
        n = len(self.flat)
        self.tracked = True
        self.writer, self.reader = np.full(n, _NOBODY, np.int64), np.full(n, _NOBODY, np.int64)
        self.write_epoch, self.read_epoch = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        self.write_block, self.read_block = np.full(n, _NOBODY, np.int64), np.full(n, _NOBODY, np.int64)

    # ---------------------------------------------------------------------------------------------------------- places

    def places(self, m: Threads, indices: list[Any]) -> tuple[Any, Any]:
        """(element numbers (threads, lanes), which of them are accessed)."""
        values = [np.asarray(v, np.int64).reshape(_two(v)) for v in indices]
        lanes = max([v.shape[-1] for v in values], default=1)
        active = m.active_lanes(lanes)
        total: Any = np.zeros((1, 1), np.int64)
        bad: Any = None
        for v, size in zip(values, self.shape, strict=True):
            outside = (v < 0) | (v >= size)
            if outside.any():
                bad = outside if bad is None else bad | outside
            total = total * size + v
        total = np.broadcast_to(total, (m.count, lanes))
        if bad is not None:
            wrong = np.broadcast_to(bad, active.shape) & active
            if wrong.any():
                self._outside(m, values, wrong)
            total = np.where(np.broadcast_to(bad, active.shape), 0, total)
        if self.kind == "private":
            total = total + (np.arange(m.count) * self.size).reshape(-1, 1)
        elif self.kind == "block":
            total = total + (m.block_slot * self.size).reshape(-1, 1)
        return total, active

    def _outside(self, m: Threads, values: list[Any], wrong: Any) -> None:
        t, lane = (int(x) for x in np.argwhere(wrong)[0])
        index = [int(np.broadcast_to(v, wrong.shape)[t, lane]) for v in values]
        raise OutOfBoundsError(
            f"buffer {self.buffer.name} of shape {tuple(self.shape)} was accessed at {tuple(index)} by {m.who(t)}",
            where=m.describe(),
            why="the index lies outside the buffer",
            hint="guard the access with the loop's bound, or check the transformation that made it",
        )

    # ---------------------------------------------------------------------------------------------------------- access

    def load(self, m: Threads, indices: list[Any]) -> Any:
        at, active = self.places(m, indices)
        if not self.size:
            return np.zeros(at.shape, self.flat.dtype)
        if self.known is not None:
            unset = active & ~self.known[at]
            if unset.any():
                self._unset(m, at, unset)
        if self.kind != "private":
            self._note_read(m, at, active)
        return self.flat[at]

    def store(self, m: Threads, indices: list[Any], value: Any) -> None:
        at, active = self.places(m, indices)
        value = np.broadcast_to(np.asarray(value).reshape(_two(value)), at.shape)
        threads, _ = np.nonzero(active)
        place, new = at[active], value[active]
        if self.kind != "private" and len(place):
            self._note_write(m, place, new, threads)
        self.flat[place] = new
        if self.known is not None:
            self.known[place] = True

    def _unset(self, m: Threads, at: Any, unset: Any) -> None:
        t, lane = (int(x) for x in np.argwhere(unset)[0])
        raise UninitializedError(
            f"{self._element(int(at[t, lane]))} is read by {m.who(t)} before it is written",
            where=m.describe(),
            why=f"memory of scope {self.buffer.scope} has no content at the start of a kernel",
            hint="initialise it, or check that the stage that fills it covers what is read",
        )

    def _element(self, place: int) -> str:
        index = [int(i) for i in np.unravel_index(place % max(self.size, 1), self.shape)] if self.shape else []
        return f"{self.buffer.name}[{', '.join(map(str, index))}]"

    # ------------------------------------------------------------------------------------------------------------ races

    def _note_read(self, m: Threads, at: Any, active: Any) -> None:
        if not self.tracked:
            if self.buffer not in m.written:
                return  # nobody writes it in this kernel
            self.track()
        threads, _ = np.nonzero(active)
        place = at[active]
        epoch, block, me = m.epoch[threads], m.block[threads], m.number[threads]
        other = (self.write_epoch[place] == epoch) & (self.write_block[place] == block) & (self.writer[place] != me)
        other |= (self.write_block[place] != _NOBODY) & (self.write_block[place] != block)
        if other.any():
            k = int(np.argmax(other))
            self._race(m, int(place[k]), int(threads[k]), "reads", "wrote", int(self.writer[place[k]]))
        stale = (self.read_epoch[place] != epoch) | (self.read_block[place] != block)
        before = np.where(stale, _NOBODY, self.reader[place])
        self.reader[place] = me
        several = (self.reader[place] != me) | ((before != _NOBODY) & (before != me))
        self.reader[place[several]] = _MANY
        before = self.read_block[place]
        self.read_block[place] = block
        several = (self.read_block[place] != block) | ((before != _NOBODY) & (before != block))
        self.read_block[place[several]] = _MANY
        self.read_epoch[place] = epoch

    def _note_write(self, m: Threads, place: Any, new: Any, threads: Any) -> None:
        if not self.tracked:
            self.track()
        epoch, block, me = m.epoch[threads], m.block[threads], m.number[threads]
        read = (self.read_epoch[place] == epoch) & (self.read_block[place] == block) & (self.reader[place] != me)
        read &= self.reader[place] != _NOBODY
        read |= (self.read_block[place] != _NOBODY) & (self.read_block[place] != block)
        if read.any():
            k = int(np.argmax(read))
            self._race(m, int(place[k]), int(threads[k]), "writes", "read", int(self.reader[place[k]]))
        wrote = (self.write_epoch[place] == epoch) & (self.write_block[place] == block) & (self.writer[place] != me)
        wrote |= (self.write_block[place] != _NOBODY) & (self.write_block[place] != block)
        differ = wrote & ~_same(self.flat[place], new)
        if differ.any():
            k = int(np.argmax(differ))
            self._race(m, int(place[k]), int(threads[k]), "writes", "wrote", int(self.writer[place[k]]))
        self.flat[place] = new
        lost = ~_same(self.flat[place], new)
        self.writer[place], self.write_epoch[place], self.write_block[place] = me, epoch, block
        if lost.any():
            k = int(np.argmax(lost))
            self._race(m, int(place[k]), int(threads[k]), "writes", "wrote", int(self.writer[place[k]]))

    def _race(self, m: Threads, place: int, thread: int, now: str, before: str, other: int) -> None:
        who = m.who_number(other) if other >= 0 else "several threads"
        far = other >= 0 and other // m.threads != int(m.number[thread]) // m.threads
        raise RaceError(
            f"{m.who(thread)} {now} {self._element(place)}, which {who} {before}",
            where=m.describe(),
            why="no order is defined between blocks of one launch" if far else "no barrier lies between the two",
            hint="let each block write elements of its own, or make two kernels"
            if far
            else "a barrier is missing (tir.transform.gpu.thread_sync), or the threads should not share the element",
        )


def _two(value: Any) -> tuple[int, int]:
    shape = np.shape(value)
    return (1, 1) if not shape else (1, shape[0]) if len(shape) == 1 else shape


def _same(a: Any, b: Any) -> Any:
    """Equality of bits, but for NaNs, which are all alike."""
    a, b = np.asarray(a), np.asarray(b)
    return (a == b) | ((a != a) & (b != b))
