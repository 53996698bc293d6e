"""Every rewrite rule, numerically: pattern and replacement give the same bits on special and random values."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from effort import calls

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.rewrite import Pat, PVar, Rule, match
from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, bounds, linear, modular, prove, simplify
from warpbeam.tir.arith.rules import GROUPS
from warpbeam.tir.interp_machine import Machine

DTYPES = ["int64", "int8", "uint8", "int32", "float32", "float64", "float16", "bool"]
RULES = [(f"{group}-{k}-{r.comment}", r) for group, rules in GROUPS.items() for k, r in enumerate(rules)]
LITERALS = {
    "lit0": lambda t: e.const(False, "bool"),
    "lit1": lambda t: e.const(True, "bool"),
    "one": lambda t: e.FloatImm(1.0, t),
    "minus_zero": lambda t: e.FloatImm(-0.0, t),
    "plus_zero": lambda t: e.FloatImm(0.0, t),
    "x": lambda t: e.FloatImm(0.1, t),
    "y": lambda t: e.FloatImm(-7.3, t),
}


def instance(pattern: Any, dtype: str, other: str, made: dict[str, Any]) -> Any:
    """A node that the pattern describes: variables for pattern variables, literals where it asks for them."""
    if isinstance(pattern, Pat):
        return pattern.cls(*[instance(a, dtype, other, made) for a in pattern.args])
    if not isinstance(pattern, PVar):
        return pattern
    name = pattern.name
    if name not in made:
        if name in LITERALS:
            made[name] = LITERALS[name](dtype)
        elif name in ("t", "u"):
            made[name] = other if name == "u" or "u" not in made else dtype
        else:
            made[name] = e.Var(name, "bool" if name in ("p", "q") else dtype)
    return made[name]


def values(dtype: str) -> list[Any]:
    kind = dt.to_numpy(dtype).type
    if dt.is_float(dtype):
        return [kind(v) for v in (0.0, -0.0, 1.0, -2.5, 1e-7, np.inf, -np.inf, np.nan, 3e4)]
    if dtype == "bool":
        return [np.bool_(False), np.bool_(True)]
    low, high = dt.int_range(dtype)
    return [kind(v) for v in {low, high, 0, 1, 5, max(low, -3)}]


def evaluate(expr: e.PrimExpr, env: dict[Any, Any]) -> Any:
    m = Machine()
    m.env = env
    with np.errstate(all="ignore"):
        return np.asarray(m.value(expr))


def instances(r: Rule, dtypes: list[str]) -> list[tuple[e.PrimExpr, e.PrimExpr]]:
    found = []
    for dtype, other in itertools.product(dtypes, DTYPES):
        if (
            other != dtype
            and "u" not in repr(r.pattern.args)
            and "t" not in [getattr(a, "name", "") for a in r.pattern.args]
        ):
            continue
        try:
            node = instance(r.pattern, dtype, other, {})
        except IRError:  # a pattern for other dtypes
            continue
        got: dict[str, Any] = {}
        if match(r.pattern, node, got) and (r.guard is None or r.guard(**got)):
            new = r.build(**got)
            if new is not None:
                found.append((node, new))
    return found


@pytest.mark.parametrize(("name", "r"), RULES, ids=[n for n, _ in RULES])
def test_rule_keeps_every_value(name: str, r: Rule) -> None:
    assert r.place.split(":")[0].endswith("rules.py")
    dtypes = [t for t in DTYPES if dt.is_float(t)] if name.startswith("float") else DTYPES
    pairs = complements(r) if "not p" in r.comment and r.guard else instances(r, dtypes)
    assert pairs, "no instance of the pattern was made"
    for old, new in pairs:
        assert old.dtype == new.dtype
        from warpbeam.ir.rewrite import post_order

        names = [n for n in post_order(old) if type(n) is e.Var]
        for point in itertools.product(*[values(v.dtype) for v in names]):
            env = dict(zip(names, point, strict=True))
            a, b = evaluate(old, env), evaluate(new, env)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(np.signbit(a.astype(float)), np.signbit(b.astype(float)))


def complements(r: Rule) -> list[tuple[e.PrimExpr, e.PrimExpr]]:
    p = e.Var("p", "bool")
    return [(r.pattern.cls(p, e.Not(p)), r.build(p=p, q=e.Not(p)))]


# ------------------------------------------------------------------------------------------------ identities by example

I, J, K = e.Var("i"), e.Var("j"), e.Var("k")
N, M = e.SizeVar("n"), e.SizeVar("m")


def bound(**sizes: int) -> Facts:
    facts = Facts()
    for v in (I, J, K):
        if v.name in sizes:
            facts.bind(v, 0, sizes[v.name])
    return facts


def test_linear_normal_form_is_one_node() -> None:
    assert simplify((I + J) * 3 - J) is simplify(J + I * 2 + I + J)
    assert simplify(I - I + 0 * J) is e.const(0)
    assert simplify((I + 1) * (N + 1)) is simplify(I * N + I + N + 1)


def test_quotients_and_remainders_join() -> None:
    f = bound(i=8, j=16)
    assert simplify((I * 16 + J) // 16, f) is I and simplify((I * 16 + J) % 16, f) is J
    assert simplify((K // 4) * 4 + K % 4) is K
    assert simplify(8 * (K // 4) * 3 + 2 * (K % 4) * 3) is simplify(6 * K)
    assert simplify((K // 4) % 8 * 4 + K % 4) is simplify(K % 32)
    assert simplify((K * 8) % 8) is e.const(0) and simplify((K // 3) // 5) is simplify(K // 15)
    assert simplify(K - 4 * (K // 4)) is simplify(K % 4)
    assert simplify((I * 4 + J // 4) * 4 + J % 4, f) is simplify(I * 16 + J)


def test_what_was_joined_comes_apart_where_that_divides() -> None:
    """(k // 3 * 2 + i) * 3 + k % 3 is k // 3 * 3 + k + 3 * i, whose sixth is k // 3 for i of two values."""
    for apart, count in ((3, 2), (2, 4), (4, 2)):
        f = bound(i=count)
        joined = simplify((K // apart * count + I) * apart + K % apart, f)
        assert simplify(joined // (apart * count), f) is simplify(K // apart)
        assert simplify(joined // apart % count, f) is I and simplify(joined % apart, f) is simplify(K % apart)
    assert simplify((K + I + K // 3 * 3) // 6) is simplify((K + I + K // 3 * 3) // 6)  # i may be anything


def test_tails_of_split_loops() -> None:
    f = Facts()
    o, t = e.Var("o"), e.Var("t")
    f.bind(o, 0, e.ceildiv(N, 16))
    f.bind(t, 0, e.minimum(16, N - o * 16))
    assert prove(o * 16 + t < N, f) is True and prove(t < 16, f) is True
    assert prove(o * 16 + t < N - 1, f) is None and bounds(t, f) == (0, 15)
    whole = bound(i=3)
    assert simplify(e.minimum(14, 49 - 14 * I), whole) is e.const(14)
    one = Facts()
    one.bind(I, 3, 1)
    assert simplify(e.minimum(14, 49 - 14 * I), one) is e.const(7)


def test_symbolic_fusion_comes_apart() -> None:
    f = Facts()
    for v, size in ((I, 5), (J, N), (K, M)):
        f.bind(v, 0, size)
    x = (I * N + J) * M + K
    assert simplify(x // (N * M), f) is I
    assert simplify((x // M) % N, f) is J and simplify(x % M, f) is K
    assert prove(x < 5 * N * M, f) is True


def test_facts_are_scoped_and_versioned() -> None:
    f = bound(i=8)
    with f.scope():
        f.assume(I < 4)
        assert prove(I < 4, f) is True and bounds(I, f) == (0, 3)
        f.assume((N % 8) == 0)
        assert simplify(N // 8 * 8, f) is N and modular(N + 3, f) == (8, 3)
        f.assume(N * M == K)
        assert prove(N * M * 2 == K + K, f) is True
    assert prove(I < 4, f) is None and bounds(I, f) == (0, 7)
    assert prove((N % 8) == 0, f) is None


def test_unknown_stays_unknown_and_false_is_false() -> None:
    assert prove(N > 0) is None and prove(N >= 0) is True and prove(N + 1 > N) is True
    assert prove(I * 2 == 2 * J + 1) is False and prove(N == M) is None


def test_linear_gives_coefficients() -> None:
    found = linear(I * 4 + J * N - 3, [I, J])
    assert found is not None
    coefs, rest = found
    assert coefs[I] is e.const(4) and coefs[J] is N and rest is e.const(-3)
    assert linear(I * J, [I, J]) is None and linear(I // 2, [I]) is None


def test_narrow_integers_that_may_wrap_are_left_alone() -> None:
    a = e.Buffer("a", (4,), "uint8")
    x, y = a[e.const(0)], a[e.const(1)]
    assert type(simplify((x + y) // e.const(2, "uint8"))) is e.FloorDiv
    assert prove(x + y >= x) is None
    assert simplify(x + y - y) is x
    low = x - y  # wraps where y is larger: 0 - 1 = 255
    assert prove(low <= x) is None and prove(x - e.const(1, "uint8") < x) is None
    assert type(simplify((x - y) // e.const(2, "uint8"))) is e.FloorDiv


def test_vectors_follow_the_scalar_rules() -> None:
    f = bound(i=8)
    r = e.Ramp(I * 16, e.const(1), 16)
    assert simplify(r // 16, f) is e.Broadcast(I, 16)
    assert simplify(r % 16, f) is e.Ramp(e.const(0), e.const(1), 16)
    assert simplify(r + e.Broadcast(J, 16)) is e.Ramp(simplify(I * 16 + J), e.const(1), 16)
    assert simplify(r < e.Broadcast(e.const(128), 16), f) is e.Broadcast(e.const(True), 16)
    assert simplify(e.Ramp(e.const(0), e.const(4), 8) // 4) is e.Ramp(e.const(0), e.const(1), 8)
    a = e.Buffer("A", (999,))
    inside = simplify(e.Add(a[e.Ramp(I + I, e.const(1), 4)], a[e.Ramp(2 * I, e.const(1), 4)]))
    assert inside.a is inside.b


@pytest.mark.parametrize("seed", range(40))
def test_random_vectors_keep_their_lanes(seed: int) -> None:
    import random

    from scalar_eval import evaluate as lanes_of

    rng = random.Random(seed)

    def make(depth: int) -> e.PrimExpr:
        if depth == 0:
            scalar = rng.choice([I, J, I * 4 + 1, e.const(rng.randint(0, 9))])
            return rng.choice([e.Broadcast(scalar, 4), e.Ramp(scalar, e.const(rng.randint(0, 3)), 4)])
        cls = rng.choice([e.Add, e.Sub, e.Mul, e.FloorDiv, e.FloorMod, e.Min, e.Max])
        right = e.Broadcast(e.const(rng.choice([2, 3, 4])), 4) if cls in (e.FloorDiv, e.FloorMod) else make(depth - 1)
        return cls(make(depth - 1), right)  # type: ignore[no-any-return]

    f = bound(i=5, j=7)
    for _ in range(10):
        x = make(3)
        new = simplify(x, f)
        for i, j in itertools.product(range(5), range(0, 7, 3)):
            assert np.array_equal(lanes_of(new, {I: i, J: j}), lanes_of(x, {I: i, J: j}))


def test_index_expressions_take_few_calls() -> None:
    f = bound(i=16, j=16, k=16)
    exprs = [(((I * c + J) * 7 + K) // d) % 12 * d + K % 3 + c for c in range(1, 41) for d in (2, 3, 7, 14, 21)] * 5
    made = calls(lambda: [simplify(x, f) for x in exprs]) / len(exprs)
    assert made < 400
