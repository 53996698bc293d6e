"""What a schedule's explanation says, word by word, and whether its numbers are right."""

from __future__ import annotations

import explain_programs as programs
import pytest

import warpbeam
from warpbeam import target, te
from warpbeam.cost.loop_cycles import loop_cycles
from warpbeam.tir.analysis.footprint import footprint, levels, walk
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.schedule.explain import count_text, size_text, step_text

ZEN = target.get("znver4")

GOLDEN_MATMUL = """
main: 524 k floating operations, 10.7 for each byte of its arguments
znver4: L1 32 KiB, L2 1 MiB, L3 32 MiB

program                          one run touches                                      in all  fits  operations
i_outer in parallel(8)           C_local@local 512 B, A 16 KiB, B 16 KiB, C 16 KiB  48.5 KiB  L2         524 k
  j_outer in range(4)            C_local@local 512 B, A 2 KiB, B 16 KiB, C 2 KiB    20.5 KiB  L1        65.5 k
    k_outer in range(16)         C_local@local 512 B, A 2 KiB, B 4 KiB               6.5 KiB  L1        16.4 k
      i_c in range(8)            C_local@local 512 B, A 128 B, B 256 B                 896 B  L1        1.02 k
        k_inner in unrolled(4)   C_local@local 64 B, A 16 B, B 256 B                   336 B  L1           128
          j_c in vectorized(16)  C_local@local 64 B, A 4 B, B 64 B                     132 B  L1            32
            block C_local        C_local@local 4 B, A 4 B, B 4 B                        12 B  L1             2
    i_inner in range(8)          C 512 B, C_local@local 512 B                          1 KiB  L1             0
      j_inner in vectorized(16)  C 64 B, C_local@local 64 B                            128 B  L1             0
        block C                  C 4 B, C_local@local 4 B                                8 B  L1             0

steps
   1  split("i", (None, 8), names=("i_outer", "i_inner"), guard=True)
   2  split("j", (None, 16), names=("j_outer", "j_inner"), guard=True)
   3  reorder(("i_outer", "j_outer", "i_inner", "j_inner"))
   4  set_kind("i_outer", "parallel")
   5  set_kind("j_inner", "vectorized")
   6  set_scope("C_local", "local")
   7  compute_at("C_local", "j_outer", relax=True, guard=True)
   8  split("k", (None, 4), names=("k_outer", "k_inner"), guard=True)
   9  reorder(("k_outer", "i_c", "k_inner", "j_c"))
  10  set_kind("j_c", "vectorized")
  11  set_kind("k_inner", "unrolled")
"""

GOLDEN_SYMBOLIC = """
main: 64 floating operations
znver4: L1 32 KiB, L2 1 MiB, L3 32 MiB

program                                               one run touches                      in all  fits  operations
i_outer in range((n + 31) // 32)                      D 128 B, A n elements, E n elements       ?  ?             64
  i in range(32)                                      D 128 B, A 128 B                      256 B  L1            32
    block D where likely(i_outer * 32 + i < n)        D 4 B, A 4 B                            8 B  L1             1
  i_inner in range(32)                                E 128 B, D 128 B                      256 B  L1            32
    block E where likely(i_outer * 32 + i_inner < n)  E 4 B, D 4 B                            8 B  L1             1

steps
   1  split("i_1", (None, 32), names=("i_outer", "i_inner"), guard=True)
   2  compute_at("D", "i_outer", relax=True, guard=True)
"""


def test_a_tiled_matmul() -> None:
    s, args = programs.tiled_matmul()
    assert s.explain(args, ZEN) == GOLDEN_MATMUL.strip("\n")
    assert s.explain(target=ZEN) == s.explain(args, ZEN)  # placeholders and outputs are the arguments


def test_symbolic_sizes_are_said_as_such() -> None:
    s, args = programs.symbolic_chain()
    assert s.explain(args, ZEN) == GOLDEN_SYMBOLIC.strip("\n")


def test_cycles_are_a_column_of_a_higher_floor() -> None:
    s, args = programs.tiled_matmul()
    text = warpbeam.explain(s, args, ZEN)
    header = next(line for line in text.splitlines() if line.startswith("program"))
    assert header.endswith("cycles") and "cycles" not in s.explain(args, ZEN)
    func = te.schedule.lower(s, args)
    assert warpbeam.explain(func, target=ZEN).splitlines()[3:] == text.partition("\n\nsteps")[0].splitlines()[3:]
    assert warpbeam.explain(Schedule(func), target=ZEN) == warpbeam.explain(func, target=ZEN)
    s, args = programs.symbolic_chain()
    assert "  ?" in warpbeam.explain(s, args, ZEN)  # not known without the size


def test_better_schedules_are_predicted_to_be_faster() -> None:
    def top(n: int, tiled: bool) -> float:
        A, B = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B")
        k = te.reduce_axis((0, n), name="k")
        C = te.compute((n, n), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C")
        s = te.create_schedule(C.op)
        if tiled:
            xo, yo, xi, yi = s[C].tile(*C.op.axis, 32, 32)
            s[C].reorder(xo, yo, k, xi, yi)
            s[C].vectorize(yi)
        cycles = [loop_cycles(level, ZEN) for level in levels(te.schedule.lower(s, [A, B, C]))]
        return sum(c or 0.0 for c in cycles)

    assert top(512, True) < top(512, False) / 4
    assert top(1024, False) > 7 * top(512, False)


def test_footprints_are_the_elements_that_loops_touch() -> None:
    A = te.placeholder((34, 34), name="A")
    r = te.reduce_axis((0, 3), name="r")
    B = te.compute((32, 32), lambda i, j: te.sum(A[i + r, j + 2], axis=r), name="B")
    s = Schedule(te.create_prim_func([A, B]))
    s.split("i", [None, 8])
    loops = {getattr(v.stmt, "var", v.stmt).name: v for v in walk(levels(s.func))}
    rows = {name: {t.buffer.name: t.bytes for t in level.touched} for name, level in loops.items()}
    assert rows["i_0"] == {"B": 4 * 32 * 32, "A": 4 * 34 * 32}
    assert rows["i_1"] == {"B": 4 * 8 * 32, "A": 4 * 10 * 32}
    assert rows["r"] == {"B": 4, "A": 4 * 3} and loops["i_1"].flops == 8 * 32 * 3
    assert [t.read for t in footprint(s.loop("r"))] == [True, True]
    assert [t.written for t in footprint(s.loop("r"))] == [True, False]


def test_what_is_small_enough_for_a_cache() -> None:
    A = te.placeholder((1 << 10, 1 << 10), name="A")
    B = te.compute((1 << 10, 1 << 10), lambda i, j: A[j, i] + 1, name="B")
    rows = te.create_schedule(B.op).explain([A, B], ZEN).splitlines()[4:]
    assert [r.split()[-2 if k == 2 else -3] for k, r in enumerate(rows)] == ["L3", "L2", "L1"]  # a column is 1024 lines


def test_a_scan_is_shown() -> None:
    s, args = programs.running_sum()
    text = s.explain(args, ZEN)
    assert "block init" in text and "block update" in text
    assert text == s.explain(target=ZEN)  # the state is no argument


@pytest.mark.parametrize(
    "size, text",
    [(12, "12 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (3 << 20, "3 MiB"), (5 << 40, "5 TiB"), (None, "?")],
)
def test_sizes(size: int | None, text: str) -> None:
    assert size_text(size) == text


def test_counts_and_steps() -> None:
    assert [count_text(c) for c in (96, 4194.3, 2.1e9, 3e12)] == ["96", "4.19 k", "2.1 G", "3 T"]
    s = Schedule(te.create_prim_func([te.compute((64,), lambda i: i * 2, name="B")]))
    outer, inner = s.split("i", [None, 16])
    s.vectorize(inner)
    s.annotate(outer, "note", (1, "x"))
    assert [step_text(t) for t in s.trace] == [
        'split("i", (None, 16))', 'set_kind("i_1", "vectorized")', 'annotate("i_0", "note", (1, "x"))',
    ]  # fmt: skip
    assert 'i_0 in range(4) {"note": (1, "x")}' in s.explain(ZEN)
