"""What dimensions are at most, and what is known of sums of very many of them."""

from __future__ import annotations

from typing import Any

import pytest

from warpbeam.tir import expr as E
from warpbeam.topi import dims
from warpbeam.topi.dim_bounds import upper

N, A, B, U = (E.SizeVar("n"), *(dims.counted(c) for c in "abu"))  # n is known at entry, u has no bound
BOUNDS = {A: N * 2, B: E.as_expr(7)}
CASES: dict[str, tuple[Any, Any]] = {
    "a number": (5, 5),
    "a size known at entry": (N + 1, N + 1),
    "a size found": (A + 1, N * 2 + 1),
    "a product": (A * B * 3, N * 42),
    "what is taken off": (A - E.minimum(B, A), N * 2),
    "a quotient": (A // 2, N),
    "the smaller one": (E.minimum(U, B + 1), 8),
    "the larger one": (E.maximum(A, B), E.maximum(N * 2, 7)),
    "no bound": (U + A, None),
    "no bound for one side": (E.maximum(U, B), None),
}


@pytest.mark.parametrize("name", CASES)
def test_upper(name: str) -> None:
    value, want = CASES[name]
    found = upper(value if isinstance(value, int) else dims.dim(value), BOUNDS.get)
    assert found is want if want is None else dims.same(found, want) is True


def test_sizes_that_may_stay() -> None:
    assert dims.same(upper(A + U, lambda v: v if v is U else BOUNDS.get(v)), N * 2 + U) is True


def test_signs_of_very_many_terms() -> None:
    many = [dims.counted(f"m{k}") for k in range(90)]
    total = dims.dim(sum(many[1:], many[0]))
    assert dims.sign(total) == 1
    assert dims.sign(E.minimum(total, 1 << 40)) == 1
    assert dims.sign(total * total) == 1 and dims.same(total * total + 1, 0) is False
    assert dims.sign(E.sub(0, total)) == -1 and dims.sign(total - N) is None
    assert upper(total, lambda v: 3) == 270
