"""A plugin of pytest that watches what tests run, and then does the same through C:

    python -m pytest -p c_sweep tests/tir tests/te tests/codegen tests/sketch        (with tests/codegen on the path)

Every lowered program that a test prints for LLVM or runs on the interpreter is printed as C and compiled by
`gcc -O2 -std=c11 -ffp-contract=off -Wall -Wextra -Werror`, many programs in one file. Where the test ran it, C, LLVM
and the interpreter get the same arguments and must leave the same bits. The last lines say what was compared.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
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
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import interp
from warpbeam.tir.expr import BufferLoad, Call
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.text import to_text

LIMIT = 1 << 22  # bytes of arguments that are kept
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
        check_lowered(func)
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


def sweep() -> tuple[list[str], Counter[str]]:
    """Prints, compiles and compares all that was seen; gives the failures and what was done."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    funcs = []
    for func in seen:
        why = left_out(func)
        if why is None:
            try:
                c.print_kernel(func, target.get("c").replace(fma=True))
                funcs.append(func)
            except WarpbeamError as error:
                if refused_by_llvm(func):
                    counts["refused by LLVM's printer, too"] += 1
                else:
                    failures.append(f"{func.name}: {str(error).splitlines()[0]}")
        else:
            counts[why] += 1
    for k in range(0, len(funcs), BATCH):
        batch(funcs[k : k + BATCH], failures, counts)
    return failures, counts


def refused_by_llvm(func: PrimFunc) -> bool:
    try:
        llvm.print_kernel(func, target.get("native"))
    except WarpbeamError:
        return True
    return False


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


def batch(funcs: list[PrimFunc], failures: list[str], counts: Counter[str]) -> None:
    """Compiles programs together and compares those that have arguments; by halves where gcc refuses."""
    try:
        calls = native.by_c([f.replace(attrs=f.attrs.updated(workspace=0)) for f in funcs])
    except subprocess.CalledProcessError as refused:
        if len(funcs) == 1:
            failures.append(f"{funcs[0].name}: gcc: {refused.stderr[:600]}")
            return
        half = len(funcs) // 2
        batch(funcs[:half], failures, counts)
        batch(funcs[half:], failures, counts)
        return
    counts["compiled"] += len(funcs)
    for func, call in zip(funcs, calls, strict=True):
        args = seen[func]
        if args is not None:
            counts[one(func, args, call, failures)] += 1


def one(func: PrimFunc, args: Arrays, by_c: native.Call, failures: list[str]) -> str:
    """Compares what the interpreter, LLVM and C leave on the same arguments; says how it went."""
    by_llvm: native.Call = cg_native.build(func)
    missing = len(func.buffers) - sum(isinstance(a, np.ndarray) for a in args)
    if missing and missing == func.attrs.get("workspace", 0):
        by_llvm, by_c = native.with_workspace(func, by_llvm), native.with_workspace(func, by_c)
    elif missing or len(args) != len(func.params):
        return "called in another way"
    left = []
    for road in (lambda *a: interp.run(func, *a), by_llvm, by_c):
        mine = [np.ascontiguousarray(a).copy() if isinstance(a, np.ndarray) else a for a in args]
        try:
            road(*mine)
        except Exception as error:
            if not left:
                return "refused by the interpreter"
            failures.append(f"{func.name}: {error}")
        left.append([bits(a, b.dtype) for a, b in zip(_arrays(mine), func.buffers, strict=False)])
    if all(a.tobytes() == b.tobytes() for one_of in left[:2] for a, b in zip(one_of, left[2], strict=True)):
        return "same bits"
    if all(_signless(a) == _signless(b) for one_of in left[:2] for a, b in zip(one_of, left[2], strict=True)):
        return "same bits but for the sign of zeros"  # minimum and maximum of zeros may give either
    same = [
        name for name, x in zip(("the interpreter's", "LLVM's"), left, strict=False)
        if all(a.tobytes() == b.tobytes() for a, b in zip(x, left[2], strict=True))
    ]  # fmt: skip
    failures.append(f"{func.name}: C has {' and '.join(same) or 'its own'} bits: {to_text(func)[:900]}")
    return "other bits"


def _arrays(args: Arrays) -> list[np.ndarray]:
    return [a for a in args if isinstance(a, np.ndarray)]


def _signless(raw: np.ndarray) -> bytes:
    """Bits with zeros without signs."""
    top = np.asarray(1 << (8 * raw.dtype.itemsize - 1), raw.dtype) if raw.dtype.kind == "u" else None
    return (raw if top is None else np.where(raw == top, np.asarray(0, raw.dtype), raw)).tobytes()


def bits(a: np.ndarray, dtype: str) -> np.ndarray:
    """The bits of an array as whole numbers, all NaNs alike."""
    if dtype == "bfloat16":
        raw = a.view(np.uint16)
        return np.where((raw & 0x7FFF) > 0x7F80, 0x7FC0, raw).astype(np.uint16)
    if a.dtype.kind == "f":
        a = np.where(np.isnan(a), np.asarray(np.nan, a.dtype), a)
    return a.view(f"u{a.dtype.itemsize}") if a.dtype.kind == "f" else a
