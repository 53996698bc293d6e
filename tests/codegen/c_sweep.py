"""A plugin of pytest that watches what tests run, and then does the same through C:

    python -m pytest -p c_sweep tests/tir tests/te tests/codegen tests/sketch        (with tests/codegen on the path)

Every lowered program that a test prints for LLVM or runs on the interpreter is printed as C and compiled by
`gcc -O2 -std=c11 -ffp-contract=off -Wall -Wextra -Werror`, many programs in one file. Where the test ran it, C, LLVM
and the interpreter get the same arguments and must leave the same bits, or fail alike; short programs that the test
only printed get drawn arguments. Programs with mathematical functions or types of less than 8 bits in them go through
those passes of the pipeline first. What C refuses must be refused by LLVM's printer, too, or call a function of LLVM's
that TIR has no words for. The last lines say what was done.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tir"))

import cg_native
import schedule_native as native

from warpbeam import target
from warpbeam.codegen import c, llvm
from warpbeam.codegen.analysis import check_lowered
from warpbeam.codegen.llvm import kernel
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError, WarpbeamError
from warpbeam.ir.node import children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import interp, intrin_llvm
from warpbeam.tir.expr import Buffer, BufferLoad, Call, IntImm, Var
from warpbeam.tir.interp_machine import KernelAssertError, Machine
from warpbeam.tir.mathlib import FUNCTIONS
from warpbeam.tir.stmt import BufferStore, For, PrimFunc, Stmt
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.byte_small_types import byte_small_types
from warpbeam.tir.transform.expand_math import expand_math
from warpbeam.tir.transform.legalize_floats import fp8_compute_legalize

LIMIT = 1 << 22  # bytes of arguments that are kept
TRIPS = 20_000  # statements that a program with drawn arguments may run
SIZE = 5  # what sizes are then
BATCH = 60
Arrays = list[Any]

seen: dict[PrimFunc, Arrays | None] = {}  # program -> the arguments of one run, before it
by_hand = {"c_call", "call_packed", "call_extern"}
working = [False]


def note(func: PrimFunc, args: tuple[Any, ...] | None) -> None:
    """Remembers a lowered program and, once, arguments."""
    if working[0] or seen.get(func) is not None:
        return
    try:
        check_lowered(without_small_types(func))
    except WarpbeamError:
        return
    if args is not None and sum(getattr(a, "nbytes", 8) for a in args) > LIMIT:
        args = None
    seen[func] = None if args is None else [a.copy() if isinstance(a, np.ndarray) else a for a in args]


def pytest_configure(config: Any) -> None:
    """Watches the interpreter, the LLVM printer and the tests' own way to run machine code."""
    run, add, build = interp.run, kernel.add_kernel, cg_native.build

    def running(func: PrimFunc, *args: Any, **keys: Any) -> Any:
        note(func, args)
        return run(func, *args, **keys)

    def printing(module: Any, func: PrimFunc, *rest: Any, **keys: Any) -> Any:
        note(func, None)
        return add(module, func, *rest, **keys)

    def building(func: PrimFunc, *rest: Any, **keys: Any) -> Callable[..., Any]:
        made = build(func, *rest, **keys)

        def call(*args: Any, **more: Any) -> Any:
            note(func, args)
            return made(*args, **more)

        return call

    interp.run, kernel.add_kernel, cg_native.build = running, printing, building


def pytest_terminal_summary(terminalreporter: Any) -> None:
    working[0] = True
    failures, counts = sweep()
    write = terminalreporter.write_line
    for text in failures:
        write(f"C SWEEP FAILED {text}")
    write(f"C sweep: {dict(counts)}, {len(failures)} failures")


@dataclass
class Case:
    """A program as it is printed, the one that the interpreter runs in its place, and arguments."""

    printed: PrimFunc
    meant: PrimFunc
    args: Arrays | None


def case(func: PrimFunc, args: Arrays | None) -> Case:
    printed = without_small_types(func)
    if any(isinstance(n, Call) and n.op in FUNCTIONS for n in post_order(printed.body)):
        try:
            meant = printed = expand_math(printed)
        except LowerError:  # powers of integers
            return Case(printed, func, args)
        bytewise = {np.dtype(dt.to_numpy(b.dtype)) for b in func.buffers if dt.is_small(b.dtype)}
        args = args and [a.view(np.uint8) if getattr(a, "dtype", None) in bytewise else a for a in args]
        return Case(printed, meant, args)
    return Case(printed, func, args)


def without_small_types(func: PrimFunc) -> PrimFunc:
    """The function with bytes in the place of floats of 8 bits and other small types."""
    nodes = (*func.params, *post_order(func.body))
    if any(isinstance(n, Buffer | Var) and dt.is_small(n.dtype) for n in nodes):
        return byte_small_types(fp8_compute_legalize(func))
    return func


def sweep() -> tuple[list[str], Counter[str]]:
    """Prints, compiles and compares all that was seen; gives the failures and what was done."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    cases = []
    for func, args in seen.items():
        why = left_out(func)
        if why is None:
            one_case = case(func, args)
            try:
                c.print_kernel(one_case.printed, target.get("c").replace(fma=True))
                cases.append(one_case)
            except WarpbeamError as error:
                why = refusal(one_case.printed, error)
                if why is None:
                    failures.append(f"{func.name}: {str(error).splitlines()[0]}")
        if why is not None:
            counts[why] += 1
    for k in range(0, len(cases), BATCH):
        batch(cases[k : k + BATCH], failures, counts)
    return failures, counts


def refusal(func: PrimFunc, error: WarpbeamError) -> str | None:
    """How to call a refusal of the C printer that is right, else None."""
    calls = [n for n in post_order(func.body) if isinstance(n, Call) and n.op in intrin_llvm.CALLS]
    if any(intrin_llvm.equivalent(n) is None for n in calls):
        named = isinstance(error, LowerError) and str(error).startswith("LLVM's function llvm.")
        return "LLVM's own functions, refused by name" if named else None
    try:
        llvm.print_kernel(func, target.get("native"))
    except WarpbeamError:
        return "refused by LLVM's printer, too"
    return None


def left_out(func: PrimFunc) -> str | None:
    """Why a program is none for the C back end of a host: it is a device's, or an error is what it is for."""
    nodes = list(post_order(func.body))
    if any(isinstance(n, For) and n.kind == "thread_binding" for n in nodes):
        return "a device's"
    if any(isinstance(n, Call) and n.op in by_hand for n in nodes):
        return "calls functions that only the test has"
    known = set(func.buffers) | {n.buffer for n in nodes if type(n).__name__ == "Allocate"}
    if any(n.buffer not in known for n in nodes if isinstance(n, BufferLoad)):
        return "not whole"
    return None


def batch(cases: list[Case], failures: list[str], counts: Counter[str]) -> None:
    """Compiles programs together and compares those that have arguments; by halves where gcc refuses."""
    try:
        calls = native.by_c([x.printed.replace(attrs=x.printed.attrs.updated(workspace=0)) for x in cases])
    except subprocess.CalledProcessError as refused:
        if len(cases) == 1:
            failures.append(f"{cases[0].printed.name}: gcc: {refused.stderr[:600]}")
            return
        half = len(cases) // 2
        batch(cases[:half], failures, counts)
        batch(cases[half:], failures, counts)
        return
    counts["compiled"] += len(cases)
    for x, call in zip(cases, calls, strict=True):
        if x.args is not None:
            counts[one(x, call, failures)] += 1
        elif (args := drawn(x.meant)) is not None:
            counts["drawn arguments: " + one(replace(x, args=args), call, failures)] += 1


def of_a_machine(func: PrimFunc) -> bool:
    """Whether it calls functions that LLVM has for one kind of processor, which this one need not be."""
    calls = [n for n in post_order(func.body) if isinstance(n, Call) and n.op in intrin_llvm.CALLS]
    return any(n.attrs["name"].split(".")[1] in ("x86", "aarch64", "arm", "hexagon") for n in calls)


def drawn(func: PrimFunc) -> Arrays | None:
    """Arguments for a program of which none are known; None where it would run for long."""
    if any(isinstance(n, Call) and n.op == "call_pure_extern" for n in post_order(func.body)):
        return None  # of the C library, with which `cg_native` does not link
    at = {p.name: SIZE for p in func.params if isinstance(p, Var)}
    if trips(func.body) > TRIPS:
        return None
    rng, args = np.random.default_rng(7), []
    for b in func.buffers[: len(func.buffers) - int(func.attrs.get("workspace", 0))]:
        try:
            shape = [native.number(d, at) for d in b.shape]
        except KeyError:
            return None
        if b.strides or b.elem_offset != 0 or np.prod(shape) * dt.nbytes(b.dtype) > LIMIT:
            return None
        kind = dt.to_numpy(b.dtype)
        whole = rng.standard_normal(shape) if dt.is_float(b.dtype) else rng.integers(0, 2, shape)
        args.append(np.asarray(whole).astype(kind))
    return [*args, *at.values()]


def trips(body: Stmt) -> int:
    """How often the statements below one run, sizes being `SIZE`."""
    total, stack = 0, [(body, 1)]
    while stack:
        node, times = stack.pop()
        if isinstance(node, BufferStore):
            total += times
        if isinstance(node, For):
            times *= node.extent.value if isinstance(node.extent, IntImm) else SIZE * 4
        stack.extend((n, times) for n in children(node) if isinstance(n, Stmt))
    return total


def one(x: Case, by_c: native.Call, failures: list[str]) -> str:
    """Compares what the interpreter, LLVM and C leave on the same arguments; says how it went."""
    func = x.printed
    by_llvm: native.Call = cg_native.build(func if not of_a_machine(func) else intrin_llvm.without_llvm(func))
    arrays = [a for a in x.args or () if isinstance(a, np.ndarray)]
    missing = len(func.buffers) - len(arrays)
    if missing:
        if missing != func.attrs.get("workspace", 0):
            return "called in another way"
        by_llvm, by_c = native.with_workspace(func, by_llvm), native.with_workspace(func, by_c)
    numbers = sizes(x.meant, arrays, [a for a in x.args or () if not isinstance(a, np.ndarray)])
    left = []
    for road in (lambda *a: interp.run(x.meant, *a), by_llvm, by_c):
        mine = [np.array(a, order="C") for a in arrays]
        try:
            road(*mine, *numbers)
        except (KernelAssertError, AssertionError):
            left.append([np.frombuffer(b"failed", np.uint8)])
            continue
        except WarpbeamError:
            return "refused by the interpreter"
        left.append([bits(a, b.dtype) for a, b in zip(mine, x.meant.buffers, strict=False)])
    return verdict(x, left, failures)


def verdict(x: Case, left: list[Arrays], failures: list[str]) -> str:
    def alike(how: Callable[[np.ndarray], bytes], one_of: Arrays) -> bool:
        return [how(a) for a in one_of] == [how(a) for a in left[2]]

    if all(alike(np.ndarray.tobytes, road) for road in left[:2]):
        return "same bits"
    if all(alike(_signless, road) for road in left[:2]):
        return "same bits but for the sign of zeros"  # minimum and maximum of zeros may give either
    same = [
        n for n, road in zip(("the interpreter's", "LLVM's"), left, strict=False) if alike(np.ndarray.tobytes, road)
    ]
    failures.append(f"{x.printed.name}: C has {' and '.join(same) or 'its own'} bits: {to_text(x.meant)[:900]}")
    return "other bits"


def sizes(func: PrimFunc, arrays: Arrays, numbers: Arrays) -> Arrays:
    """All size arguments, those that the shapes of arrays state included."""
    m = Machine(True)
    interp._bind_sizes(func, arrays, numbers, m)
    return [int(m.env[p]) for p in func.params if isinstance(p, Var)]


def _signless(raw: np.ndarray) -> bytes:
    """Bits with zeros without signs."""
    top = np.asarray(1 << (8 * raw.dtype.itemsize - 1), raw.dtype) if raw.dtype.kind == "u" else None
    return (raw if top is None else np.where(raw == top, np.asarray(0, raw.dtype), raw)).tobytes()


def bits(a: np.ndarray, dtype: str) -> np.ndarray:
    """The bits of an array as whole numbers, all NaNs alike."""
    if dtype == "bfloat16":
        raw = a.view(np.uint16)
        return np.where((raw & 0x7FFF) > 0x7F80, 0x7FC0, raw).astype(np.uint16)
    if dt.is_small(dtype):
        return np.where(np.isnan(a.astype(np.float32)), 0xFF, a.view(np.uint8)).astype(np.uint8)
    if a.dtype.kind == "f":
        a = np.where(np.isnan(a), np.asarray(np.nan, a.dtype), a)
    return a.view(f"u{a.dtype.itemsize}") if a.dtype.kind == "f" else a
