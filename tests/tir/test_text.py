"""Text of loop programs: what it looks like, exact round trips, errors that show the place."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.ir.diagnostics import TextError
from warpbeam.ir.node import Attrs
from warpbeam.ir.structural import structural_equal, structural_hash
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.text import brief, parse, to_text


def round_trip(func: s.PrimFunc) -> s.PrimFunc:
    text = to_text(func)
    back = parse(text)
    assert to_text(back) == text
    assert structural_equal(func, back), text
    assert structural_hash(func) == structural_hash(back)
    return back


def matmul_tile() -> s.PrimFunc:
    """A block under tiled loops with a short tail, symbolic rows, attributes."""
    n = e.SizeVar("n")
    a, b, c = e.Buffer("A", (n, 64)), e.Buffer("B", (64, 32)), e.Buffer("C", (n, 32))
    io, ii, j, k = (e.Var(x) for x in ("io", "ii", "j", "k"))
    vi, vj, vk = (e.Var(x) for x in ("vi", "vj", "vk"))
    block = s.Block(
        "C",
        (s.IterVar(vi, n), s.IterVar(vj, 32), s.IterVar(vk, 64, "reduce")),
        (io * 8 + ii, j, k),
        True,
        s.BufferStore(c, 0.0, (vi, vj)),
        s.BufferStore(c, c[vi, vj] + a[vi, vk] * b[vk, vj], (vi, vj)),
    )
    body: s.Stmt = s.For(j, 0, 32, "vectorized", s.For(k, 0, 64, "serial", block, {"unroll": 4}))
    body = s.For(io, 0, e.ceildiv(n, 8), "parallel", s.For(ii, 0, e.minimum(8, n - io * 8), "serial", body))
    return s.PrimFunc("matmul", (a, b, c, n), body, {"noalias": True, "layouts": {"B": (64, ("i0", 2.0, None))}})


def lowered() -> s.PrimFunc:
    """Vectors, registers, lets, branches, intrinsics: what lowering leaves."""
    a, c, acc = e.Buffer("A", (4, 16)), e.Buffer("C", (4, 16), "int8"), e.Buffer("acc", (16,), "float32", "register")
    i, x = e.Var("i"), e.Var("x", "float32")
    lanes = e.Ramp(e.const(0), e.const(1), 16)
    fused = e.call("fma", acc[lanes], e.Broadcast(x, 16), a[i, lanes])
    steps = s.seq(
        s.BufferStore(acc, e.Broadcast(e.const(-0.0), 16), (lanes,)),
        s.BufferStore(acc, fused, (lanes,)),
        s.IfThenElse(
            e.land(i > 1, e.Not(i == 2)),
            s.BufferStore(c, e.cast("int8", acc[lanes]), (i, lanes)),
            s.Evaluate(e.Call("int64", "prefetch", (a[i, 0], e.const(3, "int32")), {"locality": 2})),
        ),
        s.AssertStmt(i < 4, 'i is "small"'),
    )
    body = s.For(i, 0, 4, "serial", s.LetStmt(x, e.if_then_else(i > 0, a[i, 0], 1.5), s.Allocate(acc, steps)))
    return s.PrimFunc("lowered", (a, c), body)


@pytest.mark.parametrize("make", [matmul_tile, lowered])
def test_golden_programs_round_trip(make: Callable[[], s.PrimFunc], golden: Callable[[str, str], None]) -> None:
    func = make()
    golden(f"{make.__name__}.txt", to_text(func))
    round_trip(func)


def test_names_are_made_unique_and_never_words_of_the_language() -> None:
    a, i, i2, for_ = e.Buffer("A", (9,), "int64"), e.Var("i"), e.Var("i"), e.Var("for")
    odd = e.Buffer("odd name", (1,), "int64")
    inner = s.For(i2, 0, 3, "serial", s.BufferStore(a, i * 3 + i2 + for_, (i * 3 + i2,)))
    func = s.PrimFunc("while", (a, odd), s.For(for_, 0, 1, "serial", s.For(i, 0, 3, "serial", inner)))
    text = to_text(func)
    assert "def `while`(A: int64[9], `odd name`: int64[1]):" in text
    assert "for for_1 in range(1)" in text and "for i_1 in range(3)" in text
    round_trip(func)


def test_scopes_sequences_and_free_names_keep_their_structure() -> None:
    a, t, n = e.Buffer("A", (4,), "int64"), e.Var("t"), e.SizeVar("n")
    local = e.Buffer("tmp", (n,), "int64", "local")
    store = s.BufferStore(a, t, (e.const(0),))
    nested = s.SeqStmt((s.LetStmt(t, n + 1, store), s.SeqStmt((store,)), s.Allocate(local, s.SeqStmt(()))))
    body = s.SeqStmt((s.LetStmt(t, n, s.SeqStmt((store, nested))), s.LetStmt(t, n, store)))
    text = to_text(s.PrimFunc("f", (a,), body))
    assert text.startswith("free n: size\n") and "scope:" in text and "seq:" in text and "pass" in text
    round_trip(s.PrimFunc("f", (a,), body))


FLOATS = [0.0, -0.0, 1.0, 0.1, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan"), 1 / 3]
FLOATS.append(struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_float_literals_keep_their_bits(dtype: str) -> None:
    out = e.Buffer("out", (1,), dtype)
    stores = [s.BufferStore(out, e.FloatImm(v, dtype), (e.const(0),)) for v in FLOATS]
    round_trip(s.PrimFunc("floats", (out,), s.SeqStmt(tuple(stores))))


BAD = {
    "def f(A: float32[4]):\n    A[i] = 1.0\n": ("2:7", "'i' is not in scope"),
    "def f(A: float32[4]):\n    for i in range(4):\n        A[i] = 1\n        B[i] = 2.0\n": (
        "4:9",
        "'B' is not in scope",
    ),
    "def f(A: float32[4]):\n    for i of range(4):\n": ("2:11", "found 'of'"),
    "def f(A: float31[4]):\n    pass\n": ("1:10", "found 'float31'"),
    "def f(A: float32[4]):\n    A[0] = A[0] + 1\n": ("2:17", "Add of float32 and int64"),
    "def f(A: float32[4]):\n    A[0, 1] = 1.0\n": ("2:5", "has 1 dimensions"),
    "def f(A: float32[4]):\n    A[0] = $\n": ("2:12", "unexpected character"),
    "def f(A: float32[4]):\n    if True:\n        A[0] = 1.0\n      A[1] = 2.0\n": ("4:7", "indentation"),
    "def f(A: float32[4]):\n    let x = 1\n": ("2:5", "nothing follows this let"),
    "def f(A: float32[4]):\n    for i in sideways(4):\n        A[i] = 1.0\n": ("2:14", "unknown loop kind"),
}


@pytest.mark.parametrize("text", BAD)
def test_errors_show_the_place(text: str) -> None:
    place, message = BAD[text]
    with pytest.raises(TextError) as caught:
        parse(text, "kernel.txt")
    assert message in str(caught.value)
    assert f"kernel.txt:{place}\n" in str(caught.value)
    lines = caught.value.where.split("\n")
    assert lines[2].index("^") - 4 == int(place.split(":")[1]) - 1


def test_hand_written_text_reads_as_expected() -> None:
    text = "def f(A: int64[n, 4], n: size):  # comment\n  for i in range(2, extent=n - 2):\n    A[i, 0] = 0 - i + 1\n"
    func = parse(text)
    assert isinstance(func.body, s.For) and e.const_int(func.body.min) == 2
    assert func.params[1].nonneg and func.params[0].shape[0] is func.params[1]


def test_deep_expressions_and_deep_nests_need_no_stack() -> None:
    a, i = e.Buffer("A", (4,), "int64"), e.Var("i")
    x: e.PrimExpr = i
    for k in range(3000):
        x = (x + k) * 3 if k % 2 else k - x
    body: s.Stmt = s.BufferStore(a, x, (i,))
    for k in range(300):
        body = s.For(e.Var(f"v{k}"), 0, 1, "serial", body)
    round_trip(s.PrimFunc("deep", (a, i), body))


def test_brief_is_one_short_line() -> None:
    assert brief(matmul_tile().body) == "for io in parallel((n + 7) // 8):"
    assert len(brief(e.StringImm("x" * 1000))) == 160


# ----------------------------------------------------------------------------------------------------- random programs


class Maker:
    """Builds random well-typed programs."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ints = [e.Var(self.rng.choice(["i", "j", "n", "x"]), "int64", self.rng.random() < 0.2) for _ in range(3)]
        self.floats = [e.Var("x", "float32"), e.Var("y", "float64")]
        self.buffers = [
            e.Buffer(self.rng.choice("ABx"), (4,) * self.rng.randint(0, 2), dtype, scope)
            for dtype, scope in [
                ("int64", "global"),
                ("float32", "global"),
                ("float32", "register"),
                ("int8", "shared"),
            ]
        ]

    def expr(self, dtype: str, depth: int) -> e.PrimExpr:
        pick = self.rng.random()
        if depth <= 0 or pick < 0.15:
            return self.leaf(dtype)
        if pick < 0.6 and dtype != "bool":
            classes = [e.Add, e.Sub, e.Mul, e.Div, e.Mod, e.Min, e.Max]
            cls = self.rng.choice(classes + ([] if dtype.startswith("float") else [e.FloorDiv, e.FloorMod]))
            return cls(self.expr(dtype, depth - 1), self.expr(dtype, depth - 1))
        if pick < 0.6:
            kind = self.rng.choice(["int64", "float32", "int8"])
            cls = self.rng.choice([e.EQ, e.NE, e.LT, e.LE, e.GT, e.GE])
            return cls(self.expr(kind, depth - 1), self.expr(kind, depth - 1))
        return self.rich(dtype, depth)

    def rich(self, dtype: str, depth: int) -> e.PrimExpr:
        def make(d: str = dtype) -> e.PrimExpr:
            return self.expr(d, depth - 1)

        options: list[Callable[[], Any]] = [
            lambda: e.Select(make("bool"), make(), make()),
            lambda: e.Cast(dtype, make("int64" if dtype == "int8" else "int8")),
            lambda: e.Call(dtype, "if_then_else", (make("bool"), make(), make())),
            lambda: e.Call(dtype, self.rng.choice(["exp", "min", "odd op", "fma"]), (make(), make("int64"))),
            lambda: e.Call(dtype, "vector_reduce_add", (e.Broadcast(make(), 4),), {"k": (1, make())}),
            lambda: e.Let(self.ints[0], make("int64"), make()),
        ]
        if dtype == "bool":
            options = [lambda: e.And(make(), make()), lambda: e.Or(make(), make()), lambda: e.Not(make())]
        return self.rng.choice(options)()  # type: ignore[no-any-return]

    def leaf(self, dtype: str) -> e.PrimExpr:
        found: list[e.PrimExpr] = [e.const(self.rng.randint(-4, 9) if dtype != "bool" else True, dtype)]
        found += [v for v in self.ints + self.floats if v.dtype == dtype]
        index = self.rng.choice(self.ints)
        found += [e.BufferLoad(b, (index,) * len(b.shape)) for b in self.buffers if b.dtype == dtype]
        return self.rng.choice(found)

    def stmt(self, depth: int) -> s.Stmt:
        pick = self.rng.randint(0, 9) if depth > 0 else 0
        body = self.stmt(depth - 1) if pick else None
        if pick in (1, 2):
            notes = {"a": 1.5, "b": ("x", None, {"c": True})} if pick == 2 else {}
            kind = self.rng.choice(s.FOR_KINDS)
            thread = "threadIdx.x" if kind == "thread_binding" else ""
            low = e.const(self.rng.choice([0, 2]))
            return s.For(self.rng.choice(self.ints), low, self.expr("int64", 2), kind, body, notes, thread)
        if pick in (3, 4):
            return s.SeqStmt(tuple(self.stmt(depth - 1) for _ in range(self.rng.randint(0, 3))))
        if pick == 5:
            return s.IfThenElse(self.expr("bool", 2), body, self.rng.choice([None, self.stmt(depth - 1)]))
        if pick == 6:
            return s.LetStmt(self.ints[1], self.expr("int64", 2), body)
        if pick == 7:
            return s.Allocate(self.buffers[2], body, Attrs(self.rng.choice([{}, {"align": 64}])))
        if pick == 8:
            axes = (s.IterVar(e.Var("v"), 4), s.IterVar(e.Var("r", "int32"), 5, "reduce"))
            bindings = (self.expr("int64", 1), e.const(3, "int32"))
            init = self.rng.choice([None, self.stmt(0)])
            return s.Block("b" + str(depth), axes, bindings, self.rng.choice([True, self.expr("bool", 1)]), init, body)
        if pick == 9:
            return s.While(self.expr("bool", 1), body)
        b = self.rng.choice(self.buffers)
        return s.BufferStore(b, self.expr(b.dtype, 3), tuple(self.expr("int64", 1) for _ in b.shape))

    def func(self) -> s.PrimFunc:
        params = (self.buffers[0], self.ints[2], self.buffers[1])
        return s.PrimFunc("f", params, self.stmt(4), {"n": self.ints[2], "b": (self.buffers[0],)})


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 10**9))
def test_random_programs_round_trip(seed: int) -> None:
    round_trip(Maker(seed).func())
