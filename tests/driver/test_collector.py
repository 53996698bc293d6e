"""The cycle collector stands still while a model is compiled, and is as it was afterwards."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from warpbeam import op
from warpbeam.driver.api import compile_with_report
from warpbeam.driver.collector import collector_paused
from warpbeam.relay.expr import Function, var


@pytest.fixture(autouse=True)
def collector_on() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_on_again_after_the_last_has_left_whatever_happens() -> None:
    with pytest.raises(KeyError), collector_paused():
        with collector_paused():
            pass
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_off_stays_off() -> None:
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_threads_that_overlap() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with collector_paused():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with collector_paused():
        thread.start()
        assert entered.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join(10)
    assert gc.isenabled()


def test_compiling_pauses_it() -> None:
    x = var("x", shape=(4,))
    states: list[bool] = []
    compile_with_report(Function([x], op.get("exp")(x)), cache=False, dump=lambda *_: states.append(gc.isenabled()))
    assert states == [False] and gc.isenabled()
