"""Every primitive: the text of what it makes, before and after lowering, and the same bits on every back end."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import schedule_native as native
from random_schedules import on_host
from schedule_draw import PRIMITIVES as drawn
from schedule_primitives import PRIMITIVES, scheduled

import warpbeam.tir.schedule
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.text import parse, to_text
from warpbeam.tir.transform import lower

LOOKING = {"step", "blocks", "block", "loops", "loop_names", "loop", "extent", "explain"}
LOOKING |= {"get_producers", "get_consumers"}


def arrays(func: PrimFunc) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(-4, 5, [int(d) for d in b.shape]).astype(b.dtype) for b in func.buffers]


@pytest.fixture(scope="module")
def through_c() -> dict[str, native.Call]:
    lowered = [lower(on_host(scheduled(name)[1].func)) for name in PRIMITIVES]
    return dict(zip(PRIMITIVES, native.by_c(lowered), strict=True))


def test_the_table_has_every_primitive():
    public = {n for n, f in inspect.getmembers(Schedule, inspect.isfunction) if not n.startswith("_")}
    assert public - LOOKING == set(PRIMITIVES) - {"split_guard"}
    assert set(drawn) == set(PRIMITIVES), "random sequences draw from the same primitives"


def test_the_table_takes_every_step():
    """Every record a schedule can hold is made by some primitive of the table."""
    for module in pkgutil.iter_modules(warpbeam.tir.schedule.__path__):
        importlib.import_module(f"warpbeam.tir.schedule.{module.name}")
    known, queue = set(), [Step]
    while queue:
        below = queue.pop().__subclasses__()
        queue += below
        own = [c for c in below if c.__module__.startswith("warpbeam.tir.schedule.")]  # te has steps of its own
        known |= {c.__qualname__ for c in own if not c.__name__.startswith("_") and not c.__subclasses__()}
    taken = {type(record).__qualname__ for name in PRIMITIVES for record in scheduled(name)[1].trace}
    assert known == taken


@pytest.mark.parametrize("name", PRIMITIVES)
def test_text(name, golden):
    _, s = scheduled(name)
    made, lowered = to_text(s.func), to_text(lower(on_host(s.func)))
    assert to_text(parse(made)) == made
    golden(f"step_{name}.txt", f"{made.rstrip()}\n\n# lowered\n\n{lowered}")


@pytest.mark.parametrize("name", PRIMITIVES)
def test_same_bits_on_every_back_end(name, through_c):
    func, s = scheduled(name)
    want = arrays(func)
    run(func, *want)
    lowered = lower(on_host(s.func))
    calls = {
        "scheduled": lambda *a: run(s.func, *a),
        "lowered": lambda *a: native.with_workspace(lowered, lambda *b: run(lowered, *b))(*a),
        "llvm": native.by_llvm(lowered),
        "c": through_c[name],
    }
    for where, call in calls.items():
        got = arrays(func)
        call(*got)
        assert got[-1].tobytes() == want[-1].tobytes(), where
