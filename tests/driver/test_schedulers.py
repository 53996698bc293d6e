"""Kernels scheduled by other processes: the same kernels, and made here where those fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnx.parser
import pytest

import warpbeam
from warpbeam.codegen.llvm import print_kernel
from warpbeam.driver import scheduler_main, schedulers, source
from warpbeam.driver.api import compile_with_report
from warpbeam.driver.kernels import KernelSet, open_sizes
from warpbeam.driver.pipeline import optimize
from warpbeam.driver.plan_pieces import kernel_calls
from warpbeam.driver.schedulers import Job, scheduled_ahead, warm
from warpbeam.ir import budget
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.transform import PassContext
from warpbeam.ir.wire import packed
from warpbeam.op.elementwise import Unary
from warpbeam.target import get

TARGET = get("native")
WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96)


def model(rows: int | str = 10) -> Any:
    """A product and a softmax for each of several widths, apart from each other: many small kernels, all different."""
    rng, tensor = np.random.default_rng(0), onnx.helper.make_tensor_value_info
    body, weights, ends = [], [], []
    for k, width in enumerate(WIDTHS):
        weights.append(onnx.numpy_helper.from_array(rng.normal(size=(width, 20)).astype(np.float32), f"w{k}"))
        body.append(onnx.helper.make_node("MatMul", [f"x{k}", f"w{k}"], [f"y{k}"]))
        body.append(onnx.helper.make_node("Softmax", [f"x{k}"], [f"z{k}"]))
        ends.append([tensor(f"{n}{k}", 1, [rows, c]) for n, c in zip("xyz", (width, 20, width))])
    inputs, outputs = [e[0] for e in ends], [t for e in ends for t in e[1:]]
    graph = onnx.helper.make_graph(body, "apart", inputs, outputs, weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def jobs() -> list[Job]:
    mod = optimize(source.read(model(), None, "apart").module, 3, TARGET)
    return KernelSet(TARGET).wanted(kernel_calls(mod))


def texts(workers: int, of: Any = None) -> dict[str, str]:
    found: dict[str, str] = {}
    of = of or model()
    compile_with_report(of, cache=False, workers=workers, dump=lambda k, text: found.update({k.symbol: text}))
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The groups that were sent to other processes."""
    found: list[Job] = []
    send = schedulers._Scheduler._send

    def noted(self: Any, job: Job, settings: Any) -> None:
        found.append(job)
        send(self, job, settings)

    monkeypatch.setattr(schedulers._Scheduler, "_send", noted)
    return found


def test_the_kernels_are_the_same_wherever_they_are_made(sent: list[Job]) -> None:
    alone = texts(1)
    assert not sent
    beside = texts(3)
    assert sent, "nothing was sent to another process"
    assert beside == alone
    rng = np.random.default_rng(1)
    x = {f"x{k}": rng.normal(size=(10, w)).astype(np.float32) for k, w in enumerate(WIDTHS)}
    two = [warpbeam.compile(model(), cache=False, workers=w).run(x) for w in (1, 3)]
    for name, value in two[0].items():
        np.testing.assert_array_equal(value, two[1][name])


def test_another_process_makes_the_whole_kernel() -> None:
    wanted = jobs()
    warm(2, len(wanted))
    with scheduled_ahead(wanted, TARGET, 2) as ahead:
        assert ahead is not None
        for job in wanted:
            while job in ahead.waiting:
                time.sleep(0.01)
            made = job.made()
            assert made is not None
            here = KernelSet(TARGET).of(job.fn, job.constants)
            assert print_kernel(made[0].func, TARGET) == print_kernel(here.func, TARGET)
            assert (made[0].symbol, made[0].plan.sketch) == (here.symbol, here.plan.sketch)
            assert made[0].plan.decisions == here.plan.decisions
            assert made[1] == (here.plan.others is not None)
            assert made[0].layouts == here.layouts


def test_runners_up_of_a_kernel_made_elsewhere() -> None:
    told = [compile_with_report(model(), cache=False, workers=w)[1] for w in (1, 3)]
    lines = [[line for line in t.text().splitlines() if "next best" in line] for t in told]
    assert lines[0] == lines[1] != []


def test_what_nobody_began_is_made_by_who_needs_it() -> None:
    wanted = jobs()
    ahead = schedulers.Ahead(wanted)
    assert ahead.begun(wanted[3].key) is None
    assert wanted[3] not in ahead.waiting, "it would be made twice"
    assert ahead.next() is wanted[0]
    assert ahead.begun(wanted[0].key) is wanted[0]
    ahead.stop()
    assert ahead.next() is None
    assert wanted[1].made() is None, "nobody makes it any more"


def test_a_kernel_that_fails_while_another_is_awaited_is_told_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    mod = optimize(source.read(model(), None, "apart").module, 3, TARGET)
    calls = kernel_calls(mod)
    kernels = KernelSet(TARGET)
    kernels.ahead = ahead = schedulers.Ahead(kernels.wanted(calls))
    begun, failing = ahead.next(), ahead.waiting[0]
    assert begun is not None

    def build(self: KernelSet, fn: Any, constants: Any) -> Any:
        begun.done.set()
        if fn is failing.fn:
            raise ValueError("it cannot be made")
        return made(self, fn, constants)

    made = KernelSet._build
    monkeypatch.setattr(KernelSet, "_build", build)
    with budget.limited(seconds=60):
        assert kernels.get(calls[0].op, calls[0].args)
        with pytest.raises(ValueError, match="it cannot be made"):
            kernels.get(calls[1].op, calls[1].args)


def test_kernels_of_open_sizes_are_made_elsewhere_too(sent: list[Job]) -> None:
    alone = texts(1, model("n"))
    beside = texts(3, model("n"))
    assert any(open_sizes(job.fn) for job in sent), "no kernel of an open size was sent to another process"
    assert beside == alone
    module = warpbeam.compile(model("n"), cache=False, workers=3)
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model().graph.initializer}
    rng = np.random.default_rng(2)
    for rows in (1, 7, 33):
        x = {f"x{k}": rng.normal(size=(rows, w)).astype(np.float32) for k, w in enumerate(WIDTHS)}
        found = module.run(x)
        for k, width in enumerate(WIDTHS):
            want = x[f"x{k}"].astype(np.float64) @ weights[f"w{k}"]
            np.testing.assert_allclose(found[f"y{k}"], want, rtol=0, atol=2.0**-24 * (width + 2) * 4 * width**0.5)
            np.testing.assert_allclose(found[f"z{k}"].sum(-1), 1, atol=1e-5)


def test_sizes_that_are_known_at_run_time_only_are_so_elsewhere(sent: list[Job]) -> None:
    """Rows that are not zero are found at run time; there may be none."""
    rng, make = np.random.default_rng(0), onnx.helper
    body = [make.make_node("NonZero", ["c"], ["p"]), make.make_node("Squeeze", ["p", "first"], ["at"])]
    weights, ends = [onnx.numpy_helper.from_array(np.array([0]), "first")], []
    for k, width in enumerate(WIDTHS):
        weights.append(onnx.numpy_helper.from_array(rng.normal(size=(9, width)).astype(np.float32), f"w{k}"))
        body.append(make.make_node("Gather", [f"w{k}", "at"], [f"g{k}"], axis=0))
        body.append(make.make_node("Softmax", [f"g{k}"], [f"y{k}"]))
        ends.append(make.make_tensor_value_info(f"y{k}", 1, [None, width]))
    graph = make.make_graph(body, "found", [make.make_tensor_value_info("c", 1, [9])], ends, weights)
    found = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    alone = texts(1, found)
    assert texts(3, found) == alone
    assert any(job.told[0] for job in sent), "no size was known at run time only"
    module = warpbeam.compile(found, cache=False, workers=3)
    for count in (0, 1, 9):
        chosen = module.run({"c": (np.arange(9) < count).astype(np.float32)})
        for k, width in enumerate(WIDTHS):
            assert chosen[f"y{k}"].shape == (count, width)
            np.testing.assert_allclose(chosen[f"y{k}"].sum(-1), 1, atol=1e-5)


def test_a_size_that_is_open_inside_a_group_is_the_same_one_here() -> None:
    graph = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        open (float[n, 4] x, int64[2] k) => (int64[2] y) { s = Shape(x)  y = Add(s, k) }""")
    mod = optimize(source.read(graph, None, "open").module, 3, TARGET)
    calls = kernel_calls(mod)
    kernels = KernelSet(TARGET)
    kernels.ahead = schedulers.Ahead(kernels.wanted(calls))
    told = []
    while (job := kernels.ahead.next()) is not None:
        settings = TARGET, (3, [], [], {})
        job.answer = scheduler_main.made({}, packed((job.fn, job.constants, job.told, settings), job.fn))
        job.done.set()
        told.append(job.made())
    assert any(made is not None and made[0].sizes for made in told), "no size was open"
    for call in calls:
        kernel, own = kernels.get(call.op, call.args)
        assert len(kernel.sizes) == len(own)
        assert set(own) <= set(open_sizes(call.op))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
def test_a_process_that_dies_costs_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = schedulers._Scheduler.work

    def dying(self: Any, ahead: Any, settings: Any) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        begun(self, ahead, settings)

    alone = texts(1)
    monkeypatch.setattr(schedulers._Scheduler, "work", dying)
    assert texts(3) == alone


class Triple(Unary):
    """An operator that other processes do not know."""

    name = "test.triple"

    def compute(self, attrs: Any, inputs: Any, out_type: Any) -> Any:
        from warpbeam import te

        (x,) = inputs
        return te.compute(x.shape, lambda *i: x[i] * 3.0, "triple")

    def numpy(self, attrs: Any, *args: np.ndarray) -> Any:
        return args[0] * 3.0


def test_an_operator_of_this_program_is_made_here() -> None:
    from warpbeam.relay.expr import Function, IRModule, Var
    from warpbeam.relay.types import TensorType

    x = Var("x", TensorType((4, 5)))
    fn = optimize(IRModule.from_expr(Function((x,), Triple()(x))), 3, TARGET)
    wanted = KernelSet(TARGET).wanted(kernel_calls(fn))
    assert len(wanted) == 1
    warm(2, schedulers.FEWEST)
    wanted *= schedulers.FEWEST
    with scheduled_ahead(wanted, TARGET, 2) as ahead:
        assert ahead is not None
        ahead.next()
        assert wanted[-1].made() is None


def test_the_seconds_of_a_compilation_count() -> None:
    job = jobs()[0]  # nobody works at it
    with budget.limited(seconds=0.05), pytest.raises(CompileError, match=r"compiling takes more than 0\.05 s"):
        job.made()


def test_a_process_that_is_held_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "PATIENCE", 0.05)
    assert jobs()[0].made() is None  # nobody works at it


def test_watched_passes_run_here() -> None:
    wanted = jobs()
    warm(2, len(wanted))
    with PassContext(3, events=[lambda event: None]), scheduled_ahead(wanted, TARGET, 2) as ahead:
        assert ahead is None
    own = {"tir.add_lower_pass": [(1, lambda func: func)]}
    with PassContext(3, config=own), scheduled_ahead(wanted, TARGET, 2) as ahead:
        assert ahead is None


def test_few_kernels_start_no_process() -> None:
    assert schedulers._count(8, schedulers.FEWEST - 1) == 0
    assert schedulers._count(1, 100) == 0
    assert schedulers._count(0, 100) == 0
    assert schedulers._count(2, 100) == 1
    assert schedulers._count(64, 100) == schedulers.MOST


def test_compilations_side_by_side_share_the_processes() -> None:
    warm(3, 100)
    alive = len(schedulers._alive(schedulers._ALL))
    assert alive >= 2
    busy = schedulers._taken(alive)
    warm(3, 100)
    assert len(schedulers._alive(schedulers._ALL)) == alive
    for scheduler in busy:
        schedulers._free(scheduler)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
def test_a_program_ends_with_its_processes() -> None:
    code = """
import os, signal
from warpbeam.driver import schedulers
schedulers.warm(2, 100)
(busy,) = schedulers._taken(1)
os.kill(busy.process.pid, signal.SIGSTOP)  # it would not end by itself
print(busy.process.pid)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    pid = int(ran.stdout)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
