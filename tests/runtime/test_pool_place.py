"""Where the pool's threads run: a worker on the caller's processor goes to another, and may run anywhere afterwards."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator

import llvmlite.binding as llvm
import pytest
from runtime_helpers import compile_ir

from warpbeam.runtime import Library, link_shared
from warpbeam.runtime.pool_ll import EXPORTS, pool_ir

PLACE_AT = 200  # bytes from the pool's begin
LOOP = 1024  # what the word `job` grows by from loop to loop

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool's threads need Linux")


class Placed:
    """The two functions on a pool whose threads never start."""

    def __init__(self) -> None:
        text = pool_ir(llvm.get_default_triple())
        names = ("note_place", "step_aside")
        for name in names:
            text = text.replace(f"define internal void @{name}", f"define void @{name}")
        self.library = Library(link_shared([compile_ir(text)], [*EXPORTS, *names]))
        self.library.pin()
        make = self.library.function("wb_pool_create")
        make.restype = ctypes.c_void_p
        self.address = make(ctypes.c_int32(2), None, ctypes.c_int32(0))

    @property
    def word(self) -> int:
        return ctypes.c_uint64.from_address(self.address + PLACE_AT).value

    @word.setter
    def word(self, value: int) -> None:
        ctypes.c_uint64.from_address(self.address + PLACE_AT).value = value

    def note(self, job: int) -> None:
        self.library.function("note_place")(ctypes.c_void_p(self.address), ctypes.c_int64(job))

    def step_aside(self, job: int) -> None:
        self.library.function("step_aside")(ctypes.c_void_p(self.address), ctypes.c_int64(job))


@pytest.fixture(scope="module")
def placed() -> Iterator[Placed]:
    placed = Placed()
    yield placed
    placed.library.function("wb_pool_destroy")(ctypes.c_void_p(placed.address), None)


def _apart(act: Callable[[], None]) -> None:
    """Runs it on a thread of its own, whose processors it may choose."""
    failed = list[BaseException]()

    def run() -> None:
        try:
            act()
        except BaseException as e:  # also what skips
            failed.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _only(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})


def test_the_note_holds_the_loop_and_the_processor(placed: Placed) -> None:
    def act() -> None:
        for cpu in os.sched_getaffinity(0):
            _only(cpu)
            placed.note(7 * LOOP + 2)
            assert placed.word == 7 * LOOP + cpu, "the number of workers gives way to the processor"

    _apart(act)


def test_a_worker_leaves_the_callers_processor_and_may_run_anywhere_then(placed: Placed) -> None:
    def act() -> None:
        everywhere, processor = os.sched_getaffinity(0), ctypes.CDLL(None).sched_getcpu
        if len(everywhere) < 2:
            pytest.skip("one processor")
        cpu = min(everywhere)
        moved = False
        for _ in range(50):  # the system may move it back at once
            _only(cpu)
            placed.note(7 * LOOP)
            os.sched_setaffinity(0, everywhere)
            placed.step_aside(8 * LOOP)
            moved = moved or processor() != cpu
            assert os.sched_getaffinity(0) == everywhere
        assert moved

    _apart(act)


def test_on_the_only_processor_it_stays(placed: Placed) -> None:
    def act() -> None:
        cpu = min(os.sched_getaffinity(0))
        _only(cpu)
        placed.note(7 * LOOP)
        placed.step_aside(7 * LOOP)
        assert os.sched_getaffinity(0) == {cpu}
        assert placed.word == 0, "who has tried does not try again before the next note"

    _apart(act)


@pytest.mark.parametrize(
    ("loops", "tries"), [(0, True), (63, True), (64, False), (-1, False)], ids=["now", "late", "old", "older loop"]
)
def test_old_notes_are_not_believed(placed: Placed, loops: int, tries: bool) -> None:
    def act() -> None:
        _only(min(os.sched_getaffinity(0)))
        placed.note(100 * LOOP)
        placed.step_aside((100 + loops) * LOOP)
        assert (placed.word == 0) == tries

    _apart(act)


def test_a_note_of_another_processor_and_none_move_nobody(placed: Placed) -> None:
    def act() -> None:
        cpu = min(os.sched_getaffinity(0))
        _only(cpu)
        for word in (100 * LOOP + cpu + 1, 0):
            placed.word = word
            placed.step_aside(100 * LOOP if word else 0)
            assert placed.word == word and os.sched_getaffinity(0) == {cpu}

    _apart(act)
