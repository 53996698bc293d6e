"""Structural equality and hash: blind to identity and names of binders, sensitive to all else, the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from effort import calls

from warpbeam.ir.structural import structural_equal, structural_hash
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s


def func(**change: Any) -> s.PrimFunc:
    """A small program; each keyword changes one thing in it."""
    get = change.get
    n = e.Var(get("size", "n"), "int64", get("nonneg", True))
    a = e.Buffer(get("buffer", "A"), (n, get("dim", 4)), get("dtype", "float32"), get("scope", "global"))
    c = e.Buffer("C", (n, get("dim", 4)), get("dtype", "float32"))
    i, j = e.Var("i"), e.Var("j")
    first, second = (j, i) if get("swap") else (i, j)
    value = e.call(get("op", "exp"), a[first, second]) + e.const(get("literal", 0.5), get("dtype", "float32"))
    body = s.For(j, 0, 4, get("kind", "serial"), s.BufferStore(c, value, (i, j)), get("notes", {}))
    params = (c, a, n) if get("order") else (a, c, n)
    return s.PrimFunc(get("name", "f"), params, s.For(i, 0, n, "serial", body), get("attrs", {"x": (1, 2.0)}))


CHANGES: list[dict[str, Any]] = [
    {"nonneg": False},
    {"dim": 8},
    {"dtype": "float64"},
    {"scope": "shared"},
    {"swap": True},
    {"op": "log"},
    {"literal": 0.25},
    {"kind": "parallel"},
    {"notes": {"pragma": 1}},
    {"order": True},
    {"name": "g"},
    {"attrs": {"x": (1, 2)}},
    {"attrs": {"x": (1, 2.0), "y": None}},
]


def test_names_and_identity_of_binders_do_not_count() -> None:
    assert structural_equal(func(), func()) and structural_hash(func()) == structural_hash(func())
    other = func(size="m", buffer="weights")
    assert structural_equal(func(), other) and structural_hash(func()) == structural_hash(other)
    assert not structural_equal(func(), other, names=True)
    assert structural_hash(func(), names=True) != structural_hash(other, names=True)


@pytest.mark.parametrize("change", CHANGES, ids=[str(c) for c in CHANGES])
def test_everything_else_counts(change: dict[str, Any]) -> None:
    assert not structural_equal(func(), func(**change))
    assert structural_hash(func()) != structural_hash(func(**change))


def test_negative_zero_and_sharing_of_variables_count() -> None:
    assert not structural_equal(e.const(0.0), e.const(-0.0))
    i, j, k = e.Var("i"), e.Var("j"), e.Var("k")
    assert structural_equal(i + j, j + k) and not structural_equal(i + j, e.Add(i, i))
    assert structural_equal((i, j), (j, i)) and not structural_equal((i, i), (i, j))


SCRIPT = """
from warpbeam.ir.structural import structural_hash
from warpbeam.tir import expr as e, stmt as s
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.text import to_text
junk = [e.Var("x") for _ in range({junk})]
n, i, j, k = e.SizeVar("n"), e.Var("i"), e.Var("j"), e.Var("k")
a = e.Buffer("A", (n, 64), "int64")
f = Facts()
for v, size in ((k, 8), (i, n), (j, 64)):
    f.bind(v, 0, size)
x = simplify((j * 3 + i * n + k * j + 7 + (k * 64 + j) // 16 + e.minimum(j, k) + e.maximum(i, n - 3)) % 37, f)
func = s.PrimFunc("f", (a, n, i, j, k), s.BufferStore(a, x, (i, j)), {{"b": 1, "a": ("z", 2.5)}})
print(structural_hash(func), to_text(func))
"""


def test_hash_text_and_normal_forms_do_not_depend_on_the_process() -> None:
    outputs = set()
    for seed, junk in (("0", 0), ("1", 17), ("12345", 5000)):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        script = SCRIPT.format(junk=junk)
        outputs.add(subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True).stdout)
    assert len(outputs) == 1


def test_hash_is_fast_and_needs_no_stack() -> None:
    a, x = e.Buffer("A", (4,), "int64"), e.Var("i")
    value: e.PrimExpr = x
    for k in range(20_000):
        value = e.Add(value, e.const(k))
    store = s.BufferStore(a, value, (x,))
    assert calls(lambda: structural_hash(store)) < 200 * 20_000
