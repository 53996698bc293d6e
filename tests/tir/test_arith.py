"""simplify keeps values, bounds hold, prove is never wrong, on random expressions; and the identities by name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_eval import evaluate

from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, bounds, modular, prove, simplify

I, J, K = e.Var("i"), e.Var("j"), e.Var("k")
N, M = e.SizeVar("n"), e.SizeVar("m")

ints = st.integers(-3, 12).map(lambda v: e.const(v, "int64"))
leaves = st.one_of(st.sampled_from([I, J, K, N]), ints)
divisors = st.one_of(st.sampled_from([1, 2, 3, 4, 6, 8, 12, -2, -3, 0]).map(lambda v: e.const(v, "int64")), st.just(N))


def _grow(inner: st.SearchStrategy) -> st.SearchStrategy:
    small = st.sampled_from([1, 2, 3, 4, 8, -1]).map(lambda v: e.const(v, "int64"))
    cond = st.builds(lambda c, a, b: c(a, b), st.sampled_from([e.LT, e.LE, e.GT, e.GE, e.EQ, e.NE]), inner, inner)
    conds = st.one_of(cond, st.builds(e.And, cond, cond), st.builds(e.Or, cond, cond), st.builds(e.Not, cond))
    return st.one_of(
        st.builds(e.Add, inner, inner),
        st.builds(e.Sub, inner, inner),
        st.builds(e.Mul, inner, small),
        st.builds(e.Mul, inner, inner),
        st.builds(e.FloorDiv, inner, divisors),
        st.builds(e.FloorMod, inner, divisors),
        st.builds(e.Div, inner, divisors),
        st.builds(e.Mod, inner, divisors),
        st.builds(e.Min, inner, inner),
        st.builds(e.Max, inner, inner),
        st.builds(e.Select, conds, inner, inner),
        st.builds(lambda c: e.cast("int64", c), conds),
    )


exprs = st.recursive(leaves, _grow, max_leaves=12)


def _facts(low: int, size_i: int, size_j: int, mode: int) -> tuple[Facts, list[dict[e.Var, int]]]:
    """Facts and every assignment they allow."""
    facts = Facts()
    points = []
    facts.bind(I, low, size_i)
    for n in (1, 2, 5) if mode else (0, 1, 3):
        for i in range(low, low + size_i):
            for j in range(n) if mode else range(size_j):
                for k in (-5, 0, 7):
                    points.append({I: i, J: j, K: k, N: n})
    if mode:
        facts.assume(N <= 5)
        facts.bind(J, 0, N)
    else:
        facts.bind(J, 0, size_j)
    return facts, points[:: max(1, len(points) // 60)]


params = st.tuples(st.sampled_from([0, 1, -2]), st.integers(1, 5), st.integers(1, 9), st.integers(0, 1))


@settings(max_examples=400, deadline=None)
@given(exprs, params)
def test_simplify_keeps_value_and_bounds_hold(expr: e.PrimExpr, p: tuple[int, int, int, int]) -> None:
    facts, points = _facts(*p)
    new = simplify(expr, facts)
    lo, hi = bounds(expr, facts)
    coef, base = modular(expr, facts)
    for point in points:
        value = evaluate(expr, point)
        assert evaluate(new, point) == value
        assert (lo is None or lo <= value) and (hi is None or value <= hi)
        assert value == base if coef == 0 else value % coef == base


@settings(max_examples=300, deadline=None)
@given(exprs, exprs, st.sampled_from([e.LT, e.LE, e.GT, e.GE, e.EQ, e.NE]), params)
def test_prove_is_never_wrong(a: e.PrimExpr, b: e.PrimExpr, cls: type, p: tuple[int, int, int, int]) -> None:
    facts, points = _facts(*p)
    verdict = prove(cls(a, b), facts)
    for point in points:
        truth = bool(evaluate(cls(a, b), point))
        assert verdict is None or verdict == truth


@settings(max_examples=200, deadline=None)
@given(exprs, exprs, exprs, params)
def test_assumptions_are_used_soundly(
    c: e.PrimExpr, d: e.PrimExpr, x: e.PrimExpr, p: tuple[int, int, int, int]
) -> None:
    facts, points = _facts(*p)
    cond = e.LE(c, d)
    with facts.scope():
        facts.assume(cond)
        new, (lo, hi) = simplify(x, facts), bounds(x, facts)
    for point in points:
        if evaluate(cond, point):
            value = evaluate(x, point)
            assert evaluate(new, point) == value
            assert (lo is None or lo <= value) and (hi is None or value <= hi)


def test_quotients_of_quotients():
    """Rounding a size that is a quotient itself down to whole tiles stays within it."""
    w = e.SizeVar("w")
    for size in ((w + 1) // 2, ((w + 1) // 2 + 1) // 2, (w - 1) // 2 + 1):
        for c in (2, 3, 8):
            whole = simplify(size // c * c)
            assert prove(whole <= size) is True and prove(size < whole + c) is True
            assert prove(size < whole + (c - 1)) is None and prove(size <= whole) is None


@pytest.mark.parametrize("height", [8, 9, 12, 13])
def test_whole_tiles_of_what_other_tiles_leave(height):
    """Tiles of 4, 3, 2 and 1 of what a number of full ones leaves: each lies within what is left; all make it up."""
    n = e.SizeVar("n")
    rest, wholes = e.as_expr(n), []
    for c in (height, 4, 3, 2, 1):
        whole = simplify(rest // c * c)
        assert prove(whole >= 0) is True and prove(whole <= rest) is True
        wholes.append(whole)
        rest = simplify(rest - whole)
    assert rest is e.const(0, "int64")
    for value in range(3 * height):
        left = value
        for c, whole in zip((height, 4, 3, 2, 1), wholes, strict=True):
            assert int(evaluate(whole, {n: value})) == left // c * c
            left %= c


def test_what_is_known_of_a_quotient_holds_for_what_is_divided():
    s = e.SizeVar("s")
    frames = (s + 128) // 160 - 3
    facts = Facts()
    facts.assume(frames >= 1)
    assert prove(s >= 512, facts) is True and prove(s >= 513, facts) is None
    whole = frames // 8 * 8
    assert prove(whole >= 0, facts) is True and prove(whole <= frames, facts) is True
    facts = Facts()
    facts.assume((s // 7 - 1) // 2 <= 3)
    assert prove(s <= 62, facts) is True and prove(s <= 61, facts) is None


def test_a_quotient_of_what_may_wrap_says_nothing():
    x = e.Var("x", "uint8")
    facts = Facts()
    facts.assume(e.floordiv(x - e.const(5, "uint8"), e.const(4, "uint8")) >= e.const(1, "uint8"))  # 0 - 5 is 251
    assert prove(x >= e.const(9, "uint8"), facts) is None


def test_sums_of_very_many_terms() -> None:
    """A multiple of a long sum is one, too; a product of two is an atom whose bounds are those of its factors."""
    sizes = [e.SizeVar(f"s{k}") for k in range(100)]
    total = sum(sizes[1:], sizes[0])
    assert bounds(simplify(total * 4), None)[0] == 0
    assert prove(e.EQ(simplify(total * 4), simplify(sum((s * 4 for s in sizes[1:]), sizes[0] * 4)))) is True
    square = simplify((total + 1) * (total + 2))
    assert bounds(square, None) == (2, None)
    assert prove(square >= 2) is True


@pytest.mark.parametrize("kind", ["min", "max", "both", "sum"])
def test_tiles_of_what_tiles_leave_of_a_smaller_size(kind: str) -> None:
    """(m % 11) // 4 tiles of 4 fit into m % 11 rows, whatever m is made of."""
    n, i = e.SizeVar("n"), e.Var("i", "int64")
    m = {
        "min": e.minimum(n, 150), "max": e.maximum(n, 1), "sum": n + e.minimum(n, 7),
        "both": e.maximum(e.minimum(n, 150), 3),
    }[kind]  # fmt: skip
    facts = Facts()
    left = e.floormod(m, 11)
    with facts.scope():
        facts.bind(i, 0, simplify(e.floordiv(left, 4), facts))
        assert simplify(e.minimum(4, left - i * 4), facts) is e.const(4, "int64")
