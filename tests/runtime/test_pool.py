"""The thread pool: every iteration once, errors travel, nesting and several callers are safe, forks work."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from runtime_helpers import add_artifact, compile_ir

from warpbeam.runtime import Library, Module, RunError, get_num_threads, link_shared, pool, set_num_threads
from warpbeam.runtime.abi import EITHER_WAY, LOOP_FN, Context
from warpbeam.runtime.pool_ll import EXPORTS, MAX_THREADS, pool_ir

BODY = """
%context = type { i32, i32, ptr, i64, ptr, ptr, ptr, ptr, ptr, ptr, i32, i32, [176 x i8] }

; counts iterations: closure[i] += 1
define i32 @body(ptr %ctx, ptr %closure, i64 %begin, i64 %end) {
entry:
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %out
loop:
  %i = phi i64 [ %begin, %entry ], [ %i1, %loop ]
  %p = getelementptr i64, ptr %closure, i64 %i
  %old = atomicrmw add ptr %p, i64 1 monotonic
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %end
  br i1 %more, label %loop, label %out
out:
  ret i32 0
}

; each iteration runs a nested loop of 7 over closure
define i32 @nest(ptr %ctx, ptr %closure, i64 %begin, i64 %end) {
entry:
  %pf.p = getelementptr %context, ptr %ctx, i32 0, i32 6
  %pf = load ptr, ptr %pf.p
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %i1, %loop ]
  %rc = call i32 %pf(ptr %ctx, ptr @body, ptr %closure, i64 7)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %end
  br i1 %more, label %loop, label %out
out:
  ret i32 0
}

; fails in the range that holds iteration closure[0]
define i32 @fail(ptr %ctx, ptr %closure, i64 %begin, i64 %end) {
  %bad = load i64, ptr %closure
  %a = icmp sle i64 %begin, %bad
  %b = icmp slt i64 %bad, %end
  %c = and i1 %a, %b
  %r = select i1 %c, i32 42, i32 0
  ret i32 %r
}

define i32 @many(ptr %ctx, ptr %closure, i64 %n, i64 %times) {
entry:
  %pf.p = getelementptr %context, ptr %ctx, i32 0, i32 6
  %pf = load ptr, ptr %pf.p
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  %r = call i32 %pf(ptr %ctx, ptr @body, ptr %closure, i64 %n)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %times
  br i1 %more, label %loop, label %out
out:
  ret i32 %r
}
"""
TRIPLE = llvm.get_default_triple()


class Pool:
    """A pool of its own, apart from the process's."""

    def __init__(
        self, threads: int, spin: int = 2000, create: ctypes.c_void_p | None = None, text: str | None = None
    ) -> None:
        objects = [compile_ir(text or pool_ir(TRIPLE)), compile_ir(BODY)]
        self.library = Library(link_shared(objects, [*EXPORTS, "body", "nest", "fail", "many"]))
        self.library.pin()
        make = self.library.function("wb_pool_create")
        make.restype = ctypes.c_void_p
        self.pthread_create = create or ctypes.cast(ctypes.CDLL(None).pthread_create, ctypes.c_void_p)
        self.address = make(ctypes.c_int32(threads), self.pthread_create, ctypes.c_int32(spin))

    def context(self, num_threads: int = 0) -> Context:
        parallel_for = self.library.address("wb_pool_parallel_for")
        return Context(abi_version=1, pool=self.address, parallel_for=parallel_for, num_threads=num_threads)

    def loop(self, function: str | int, closure: np.ndarray, n: int, num_threads: int = 0, flags: int = 0) -> int:
        address = self.library.address(function) if isinstance(function, str) else function
        context = self.context(num_threads)
        context.flags = flags
        return self.library.function("wb_pool_parallel_for")(
            ctypes.byref(context), ctypes.c_void_p(address), ctypes.c_void_p(closure.ctypes.data),
            ctypes.c_int64(n),
        )  # fmt: skip

    def resize(self, threads: int) -> int:
        return self.library.function("wb_pool_resize")(ctypes.c_void_p(self.address), ctypes.c_int32(threads))

    def destroy(self) -> None:
        join = ctypes.cast(ctypes.CDLL(None).pthread_join, ctypes.c_void_p)
        self.library.function("wb_pool_destroy")(ctypes.c_void_p(self.address), join)


@pytest.fixture(params=[(1, 2000), (2, 2000), (2, 0), (5, 50)], ids=lambda p: f"{p[0]}threads-spin{p[1]}")
def team(request: pytest.FixtureRequest) -> Iterator[Pool]:
    team = Pool(*request.param)
    yield team
    team.destroy()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 7, 64, 1001])
def test_every_iteration_once(team: Pool, n: int) -> None:
    counts = np.zeros(max(n, 1), np.int64)
    for _ in range(20):
        assert team.loop("body", counts, n) == 0
    assert (counts[:n] == 20).all()


def test_negative_count_does_nothing(team: Pool) -> None:
    assert team.loop("body", np.zeros(1, np.int64), -5) == 0


def _note(seen: list[tuple[int, int, int]], wait: float = 0.0) -> Any:
    """A loop body that notes (thread, begin, end), slowly."""
    lock = threading.Lock()

    def note(_context: int, _closure: int, begin: int, end: int) -> int:
        with lock:
            seen.append((threading.get_ident(), begin, end))
        time.sleep(wait)
        return 0

    return LOOP_FN(note)


def _address(callback: Any) -> int:
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address is not None
    return address


@pytest.mark.parametrize(("n", "threads", "asked"), [(10, 4, 0), (3, 3, 0), (4, 4, 0), (2**62, 4, 0), (10, 4, 2)])
def test_parts_cover_and_end_where_ranges_do(n: int, threads: int, asked: int) -> None:
    team, seen = Pool(threads), list[tuple[int, int, int]]()
    callback, workers = _note(seen), asked or threads
    for _ in range(20):
        seen.clear()
        team.loop(_address(callback), np.zeros(1, np.int64), n, num_threads=asked)
        parts = sorted((begin, end) for _, begin, end in seen)
        assert parts[0][0] == 0 and parts[-1][1] == n
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts)) and all(a < b for a, b in parts)
        serial = parts == [(0, n)]  # on a busy machine the pool may decide that help is not worth waiting for
        assert serial or {n * i // workers for i in range(workers)} <= {begin for begin, _ in parts}
        assert len({thread for thread, _, _ in seen}) <= workers, "the context bounds the number of threads"
    team.destroy()


def test_a_thread_keeps_its_range() -> None:
    team, seen = Pool(2, spin=10**6), list[tuple[int, int, int]]()
    callback, firsts = _note(seen, 0.002), []
    for _ in range(40):
        seen.clear()
        team.loop(_address(callback), np.zeros(1, np.int64), 8)
        firsts.append({thread: begin for thread, begin, _ in reversed(seen)})
    me = threading.get_ident()
    assert all(first[me] == 0 for first in firsts), "the caller begins with its own range"
    assert any(4 in first.values() for first in firsts), "the worker begins with its own, if it comes in time"
    team.destroy()


def test_loops_that_may_go_to_and_fro() -> None:
    team, seen = Pool(2), list[tuple[int, int, int]]()
    callback, me = _note(seen), threading.get_ident()

    def first(flags: int) -> int | None:
        """Where the caller begins; None if the pool ran the loop serially."""
        seen.clear()
        assert team.loop(_address(callback), np.zeros(1, np.int64), 32, flags=flags) == 0
        parts = sorted((begin, end) for _, begin, end in seen)
        assert parts[0][0] == 0 and parts[-1][1] == 32
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
        return None if len(parts) == 1 else next(begin for thread, begin, _ in seen if thread == me)

    back, begins = False, list[tuple[bool, int]]()
    for k in range(60):
        free = k % 5 != 0
        begin = first(EITHER_WAY if free else 0)
        if begin is not None:
            back = free and not back
            begins.append((back, begin))
    assert set(begins) == {(False, 0), (True, 8)}, "from the last two of four parts, or from the first"
    team.destroy()


def test_the_caller_does_not_wait_for_a_worker_that_never_comes() -> None:
    held = threading.Event()

    def create(thread: Any, _attributes: Any, start: int, slot: int) -> int:
        def late() -> None:
            held.wait()
            ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(start)(slot)

        threads.append(threading.Thread(target=late))
        threads[-1].start()
        return 0

    threads: list[threading.Thread] = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    callback = kind(create)
    team, counts = Pool(3, create=ctypes.cast(callback, ctypes.c_void_p)), np.zeros(64, np.int64)
    for _ in range(100):
        assert team.loop("body", counts, 64) == 0
    assert (counts == 100).all() and len(threads) == 2
    held.set()
    for _ in range(100):
        assert team.loop("body", counts, 64) == 0
    assert (counts == 200).all(), "those who come late do nothing twice"
    team.library.function("wb_pool_destroy")(ctypes.c_void_p(team.address), ctypes.c_void_p(None))
    for thread in threads:
        thread.join()


_ASLEEP = 136  # where in a pool stands how many parts its caller sleeps for, 0 if it does not


class _Stalling:
    """Loops of a pool of two by a clock that stands still, whose worker may lose its processor in a part of its own."""

    def __init__(self) -> None:
        self.clock = ctypes.c_int64(1 << 40)
        own = f"%now = load atomic i64, ptr inttoptr (i64 {ctypes.addressof(self.clock)} to ptr) monotonic, align 8"
        text, found = re.subn(
            r"(define weak hidden i64 @wb_clock\(\) noinline nounwind) prologue .*\{\n  ret i64 -1",
            rf"\1 {{\n  {own}\n  ret i64 %now",
            pool_ir(TRIPLE),
        )
        assert found == 1
        self.team, self.caller, self.seen = Pool(2, text=text), threading.get_ident(), list[tuple[int, int]]()
        self.begun, self.work, self.wait = threading.Event(), 0, 0
        self.body = LOOP_FN(self._body)

    def _body(self, _context: int, _closure: int, begin: int, end: int) -> int:
        """The caller waits for the worker, which goes on when the caller sleeps; time goes by as was asked for."""
        self.seen.append((begin, end))
        if self.wait and (begin, end) != (0, 8) and threading.get_ident() == self.caller:
            self.begun.wait(60)
        elif self.wait and (begin, end) != (0, 8) and not self.begun.is_set():
            self.clock.value += self.work
            self.begun.set()
            while not ctypes.c_int32.from_address(self.team.address + _ASLEEP).value:
                time.sleep(0.001)
            self.clock.value += self.wait
        return 0

    def serial(self, after: int = 0, work: int = 0, wait: int = 0) -> bool:
        """Runs a loop when so much time has gone: whether in one piece. Otherwise it takes `work`, its worker `wait`
        more."""
        self.begun.clear()
        self.seen.clear()
        self.clock.value += after
        self.work, self.wait = work, wait
        assert self.team.loop(_address(self.body), np.zeros(1, np.int64), 8) == 0
        return self.seen == [(0, 8)]


def test_a_worker_that_is_late_by_less_than_it_saves_is_waited_for() -> None:
    loops = _Stalling()
    for _ in range(4):
        assert not loops.serial(work=1000, wait=2000)
    assert not loops.serial(work=1000, wait=2001)
    assert loops.serial()
    loops.team.destroy()


def test_after_a_stall_loops_run_serially_for_as_long() -> None:
    """However often it happens, where loops run side by side for more than twice as long between."""
    loops = _Stalling()
    for _ in range(6):
        assert not loops.serial(after=2001, wait=1000)
        assert loops.serial() and loops.serial(after=1000)
    assert not loops.serial(after=1)
    loops.team.destroy()


def test_stalls_one_after_the_other_keep_loops_serial_for_longer() -> None:
    loops = _Stalling()
    for pause in (1, 2, 4, 8, 16, 32, 32):
        assert not loops.serial(after=1, wait=1000)
        assert loops.serial(after=1000 * pause)
    assert not loops.serial(after=2001, wait=1000)
    assert loops.serial(after=1000)
    assert not loops.serial(after=1)
    loops.team.destroy()


def test_many_loops_under_load_and_resizing() -> None:
    """More threads than processors, other busy threads, sizes that change: nothing is lost or done twice."""
    team, stop, counts = Pool(6, spin=200), threading.Event(), np.zeros(37, np.int64)
    busy = np.zeros(1, np.int64)
    many = team.library.function("many")

    def burn() -> None:  # a loop of one iteration many times: no pool, no interpreter lock
        context = Context(abi_version=1, parallel_for=team.library.address("wb_serial_parallel_for"))
        while not stop.is_set():
            many(ctypes.byref(context), ctypes.c_void_p(busy.ctypes.data), ctypes.c_int64(1), ctypes.c_int64(10**5))

    def change() -> None:
        for size in itertools.cycle((1, 6, 2, 5, 3)):
            team.resize(size)
            if stop.wait(0.0005):
                return

    threads = [threading.Thread(target=work) for work in (burn, burn, change)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        many(ctypes.byref(team.context()), ctypes.c_void_p(counts.ctypes.data), ctypes.c_int64(37), ctypes.c_int64(500))
    stop.set()
    for thread in threads:
        thread.join()
    assert (counts == 10_000).all()
    team.destroy()


def test_reset_of_a_used_pool() -> None:
    team, counts = Pool(3), np.zeros(64, np.int64)
    for _ in range(10):
        team.loop("body", counts, 64)
    reset = team.library.function("wb_pool_reset")  # the threads of before live on, harmlessly
    reset(ctypes.c_void_p(team.address), ctypes.c_int32(1), team.pthread_create, ctypes.c_int32(100))
    assert team.loop("body", counts, 64) == 0 and (counts == 11).all()
    team.resize(2)
    for _ in range(10):
        assert team.loop("body", counts, 64) == 0
    assert (counts == 21).all()
    team.destroy()


def test_nested_loops_run_serially(team: Pool) -> None:
    counts = np.zeros(7, np.int64)
    assert team.loop("nest", counts, 100) == 0
    assert counts.tolist() == [100] * 7


@pytest.mark.parametrize("bad", [0, 50, 99])
def test_errors_travel(team: Pool, bad: int) -> None:
    assert team.loop("fail", np.array([bad], np.int64), 100) == 42
    counts = np.zeros(10, np.int64)
    assert team.loop("body", counts, 10) == 0 and (counts == 1).all(), "the next loop is not affected"


def test_many_short_loops(team: Pool) -> None:
    counts = np.zeros(8, np.int64)
    status = team.library.function("many")(
        ctypes.byref(team.context()), ctypes.c_void_p(counts.ctypes.data), ctypes.c_int64(8), ctypes.c_int64(3000)
    )
    assert status == 0 and (counts == 3000).all()


def test_loops_after_sleep() -> None:
    team, counts = Pool(3, spin=0), np.zeros(30, np.int64)
    for _ in range(10):
        team.loop("body", counts, 30)
        time.sleep(0.001)
    assert (counts == 10).all()
    team.destroy()


def test_several_callers_at_once() -> None:
    team = Pool(3)
    counts = [np.zeros(64, np.int64) for _ in range(4)]

    def work(mine: np.ndarray) -> None:
        for _ in range(200):
            assert team.loop("body", mine, 64) == 0

    threads = [threading.Thread(target=work, args=(c,)) for c in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((c == 200).all() for c in counts)
    team.destroy()


def test_resize_between_loops() -> None:
    team, counts = Pool(1), np.zeros(100, np.int64)
    sizes = [4, 1, 3, 2, 6, 0, 2]
    assert [team.resize(size) for size in sizes] == [4, 1, 3, 2, 6, 1, 2]
    assert team.resize(10**6) == MAX_THREADS
    for size in sizes:
        team.resize(size)
        for _ in range(50):
            team.loop("body", counts, 100)
    assert (counts == 50 * len(sizes)).all()
    team.destroy()


def test_a_forked_child_runs_serially_and_can_be_reset() -> None:
    team, counts = Pool(3), np.zeros(64, np.int64)
    team.loop("body", counts, 64)
    pid = os.fork()
    if pid == 0:
        ok = team.loop("body", counts, 64) == 0  # a wiped pool is serial
        reset = team.library.function("wb_pool_reset")
        reset(ctypes.c_void_p(team.address), ctypes.c_int32(3), team.pthread_create, ctypes.c_int32(100))
        ok = ok and all(team.loop("body", counts, 64) == 0 for _ in range(100)) and bool((counts == 102).all())
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    team.loop("body", counts, 64)
    assert (counts == 2).all()
    team.destroy()


@pytest.mark.parametrize(
    "triple",
    ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "riscv64-unknown-linux-gnu", "x86_64-pc-windows-msvc",
     "wasm32-unknown-unknown", "armv7-unknown-linux-gnueabihf", "arm64-apple-darwin"],
)  # fmt: skip
def test_text_compiles_without_undefined_symbols(triple: str) -> None:
    data = compile_ir(pool_ir(triple), triple)
    functions = list(llvm.parse_assembly(pool_ir(triple)).functions)
    assert {f.name for f in functions if f.is_declaration and not f.name.startswith("llvm.")} == set()
    assert {*EXPORTS} <= {f.name for f in functions}
    if "linux" in triple and triple.startswith(("x86_64", "aarch64")):
        link_shared([data], EXPORTS)


def test_process_pool_threads_and_fork() -> None:
    module, before = Module(add_artifact()), get_num_threads()
    x = np.ones(16, np.float32)
    try:
        set_num_threads(2)
        assert get_num_threads() == 2 and module.num_threads == 2
        module.num_threads = 1
        assert module.num_threads == 1
        pid = os.fork()
        if pid == 0:
            os._exit(0 if (module(x, x) == 2).all() and get_num_threads() == 2 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(RunError, match="0 threads"):
            set_num_threads(0)
        with pytest.raises(RunError, match="threads"):
            module.num_threads = 0
    finally:
        set_num_threads(before)


def test_environment_sets_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool._state, "threads", 0)
    monkeypatch.setenv(pool.THREADS_VARIABLE, "7")
    assert get_num_threads() == 7
    monkeypatch.setattr(pool._state, "threads", 0)
    monkeypatch.setenv(pool.THREADS_VARIABLE, "many")
    with pytest.raises(RunError, match="many"):
        get_num_threads()
