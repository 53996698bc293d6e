"""Iterator maps against enumeration of all iterations."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_eval import evaluate

from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, detect_iter_map, is_bijective, is_injective, simplify, stride, subspace

I, J, K = e.Var("i"), e.Var("j"), e.Var("k")
N = e.SizeVar("n")


def test_split_and_fuse_are_read_back() -> None:
    forms = detect_iter_map([I // 4, I % 4], {I: 32})
    assert forms is not None
    assert [(s.lower_factor, s.extent, s.scale) for f in forms for s in f.splits] == [(4, 8, 1), (1, 4, 1)]
    assert is_bijective([I // 4, I % 4], {I: 32}, [8, 4])
    assert is_bijective([I * 4 + J], {I: 8, J: 4}, [32])
    assert not is_bijective([I * 4 + J], {I: 8, J: 5})
    assert not is_bijective([I // 4, I % 4], {I: 30})  # the last group is short
    assert is_injective([I // 4, I % 4], {I: 30})
    fused = I * 4 + J
    assert is_bijective([fused // 8, fused % 8], {I: 8, J: 4}, [4, 8])
    assert not is_injective([fused // 8, fused % 4], {I: 8, J: 4})
    assert not is_injective([I // 2], {I: 8})
    assert is_injective([I * 7 + J], {I: 3, J: 7}) and not is_injective([I * 6 + J], {I: 3, J: 7})


def test_symbolic_extents() -> None:
    assert is_bijective([I * N + J], {I: 8, J: N}, [8 * N])
    assert is_bijective([(I * N + J) // N, (I * N + J) % N], {I: 8, J: N}, [8, N])
    facts = Facts()
    facts.assume(N % 8 == 0)
    assert is_bijective([I // 8, I % 8], {I: N}, None, facts)
    assert not is_bijective([I // 8, I % 8], {I: N})


def test_fusion_of_symbolic_extents() -> None:
    m = e.SizeVar("m")
    assert is_bijective([I // N, I % N], {I: m * N}, [m, N])
    assert is_injective([I // ((N + 1) // 2), I % ((N + 1) // 2)], {I: m * ((N + 1) // 2)})
    assert not is_injective([I // N, I % m], {I: m * N})
    assert not is_injective([I // (N - 5), I % (N - 5)], {I: m * (N - 5)})  # may be negative


def test_subspace_and_stride() -> None:
    parts = subspace([I * 16 + J, K], {I: 4, J: 16, K: 3}, [J])
    assert parts is not None
    facts = Facts()
    for v, extent in ((I, 4), (J, 16), (K, 3)):
        facts.bind(v, 0, extent)
    assert parts[0][0].expr(facts) is simplify(I * 16) and parts[0][1].expr(facts) is J
    assert parts[1][0].expr(facts) is K and parts[1][1].splits == ()
    assert subspace([(I * 3 + J) // 2], {I: 4, J: 3}, [J]) is None
    assert stride(I * 12 + J - 3, I) == 12 and stride(J + 1, I) == 0 and stride(I // 2, I) is None
    assert stride(I * N, I) is N


def _pieces(x: e.PrimExpr) -> st.SearchStrategy:
    return st.sampled_from([x, x // 2, x % 2, x // 3, x % 3, x // 4, x % 4, (x // 2) % 2, (x % 6) // 3])


def _index() -> st.SearchStrategy:
    atom = st.one_of(_pieces(I), _pieces(J), _pieces(I * 6 + J), _pieces(J * 4 + I))
    return st.builds(lambda a, b, c, d: a * c + b * d, atom, atom, *[st.sampled_from([0, 1, 2, 3, 4, 6, 12])] * 2)


@settings(max_examples=400, deadline=None)
@given(st.lists(_index(), min_size=1, max_size=3), st.sampled_from([1, 2, 4, 6]), st.sampled_from([1, 3, 6, 12]))
def test_verdicts_agree_with_enumeration(indices: list[e.PrimExpr], size_i: int, size_j: int) -> None:
    iters = {I: size_i, J: size_j}
    points = [{I: i, J: j} for i, j in itertools.product(range(size_i), range(size_j))]
    values = [tuple(evaluate(x, p) for x in indices) for p in points]
    distinct = len(set(values)) == len(points)
    if is_injective(indices, iters):
        assert distinct
    if is_bijective(indices, iters):
        box = [max(v[k] for v in values) + 1 for k in range(len(indices))]
        assert distinct and set(values) == set(itertools.product(*map(range, box)))
    forms = detect_iter_map(indices, iters)
    for x, form in zip(indices, forms or [], strict=False):
        for p in points[::5]:
            assert evaluate(form.expr(), p) == evaluate(x, p)
