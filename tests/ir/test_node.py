"""Nodes: interning, binders, attributes, literals; traversal and rewriting of deep graphs."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import _POOL, Attrs, Node, NodeMemo, children, map_children
from warpbeam.ir.rewrite import Pat, PVar, RuleSet, add_origins, origins, post_order, rewrite, rule, substitute
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s


def test_equal_expressions_are_one_object_and_binders_are_not() -> None:
    i = e.Var("i")
    assert (i + 1) * 2 is (i + 1) * 2
    assert e.Var("i") is not i and e.Buffer("A", (1,)) is not e.Buffer("A", (1,))
    assert e.const(1) is not e.const(1, "int32") and e.const(1.0) is not e.const(1)


def test_float_literals_are_keyed_by_bits() -> None:
    assert e.const(0.0) is not e.const(-0.0)
    assert e.const(math.nan) is e.const(math.nan)
    assert e.const(0.1) is e.const(0.10000000149011612)  # the same float32


def test_nodes_are_read_only_and_die() -> None:
    i = e.Var("i")
    with pytest.raises(IRError, match="read-only"):
        i.name = "j"  # type: ignore[misc]
    before = len(_POOL)
    x = i
    for k in range(5000):
        x = x * 3 + k
    assert len(_POOL) > before + 5000
    del x
    gc.collect()
    assert len(_POOL) <= before + 100


def test_comparisons_of_tuples_of_expressions_work() -> None:
    i = e.Var("i")
    assert (i, e.const(1)) != (i, e.const(2)) and (i, e.const(1)) == (i, e.const(1))
    assert i in (e.Var("i"), i)
    with pytest.raises(IRError, match="no truth value"):
        bool(i < 3)


def test_attrs_tell_types_apart() -> None:
    assert Attrs(a=1) != Attrs(a=1.0) and Attrs(a=1) != Attrs(a=True) and Attrs(a=[1, 2]) == Attrs(a=(1, 2))
    assert list(Attrs(b=1, a=2)) == ["a", "b"] and Attrs(a={"x": [1]}).a.x == (1,)


def test_deep_graphs_need_no_stack() -> None:
    i, j = e.Var("i"), e.Var("j")
    x: e.PrimExpr = i
    for k in range(20_000):
        x = e.Add(e.Mul(x, x), e.const(k))
    assert sum(1 for _ in post_order(x)) > 40_000
    y = substitute(x, {i: j})
    assert y is not x and substitute(y, {j: i}) is x


def test_rewrite_keeps_what_does_not_change_and_carries_origins() -> None:
    i, a = e.Var("i"), e.Buffer("A", (4,))
    body = s.seq(s.BufferStore(a, 1.0, (i,)), s.BufferStore(a, 2.0, (i + 1,)))
    assert rewrite(body, None) is body
    add_origins(body.stmts[1], ["node 7"])
    new = rewrite(body, lambda n: e.const(3.0) if n is e.const(2.0) else None)
    assert new.stmts[0] is body.stmts[0] and origins(new.stmts[1]) == {"node 7"}


def test_the_function_of_a_rewrite_sees_where_a_rebuilt_node_stems_from() -> None:
    i = e.Var("i")
    total = (i + 1) * 2
    add_origins(total, ["node 7"])
    seen: list[Any] = []

    def visit(n: Any) -> Any:
        seen.append(origins(n))
        return e.Var("j") if n is i else e.const(5) if isinstance(n, e.Mul) else None

    assert origins(rewrite(total, visit)) == seen[-1] == {"node 7"}


def test_a_node_that_thousands_became_keeps_some_of_their_origins() -> None:
    x = e.Var("x")
    for k in range(30_000):  # the time is linear
        add_origins(x, [f"node {k}"])
    assert len(origins(x)) == 64 and "node 0" in origins(x)
    y = e.Var("y")
    add_origins(y, [f"n{k:03}" for k in range(100)])
    assert origins(y) == {f"n{k:03}" for k in range(64)}


def test_children_and_map_children_see_nested_tuples() -> None:
    i, a = e.Var("i"), e.Buffer("A", (4, 4))
    load = a[i, i + 1]
    assert children(load) == (a, i, i + 1) and children(i) == ()
    assert map_children(load, lambda n: n) is load


def test_rules_match_repeated_variables_by_identity() -> None:
    x = PVar("x")
    double = rule(Pat(e.Add, (x, x)), lambda x: e.Mul(x, e.const(2)), comment="x + x = 2x")
    rules = RuleSet([double])
    i, j = e.Var("i"), e.Var("j")
    assert rules.apply(e.Add(e.Add(i, i), e.Add(i, i))) is e.Mul(e.Mul(i, e.const(2)), e.const(2))
    assert rules.apply(i + j) is i + j
    assert double.place.split(":")[0].endswith("test_node.py")


def test_each_class_builds_nodes_of_its_own() -> None:
    """Also one whose parent has built some before, and one that has children where its parent has none."""

    class Leaf(Node):
        name: str

    class Sub(Leaf):
        child: Any

    inner = Leaf("a")
    outer = Sub("b", inner)
    assert type(inner) is Leaf and type(outer) is Sub and outer.child is inner
    assert children(inner) == () and children(outer) == (inner,) and children(Leaf("c")) == ()
    assert Sub("b", inner) is outer and Leaf("b") is not outer
    with pytest.raises(IRError, match="missing"):
        Sub("b")


def test_what_is_known_of_a_node_is_kept_with_it() -> None:
    lengths: NodeMemo[int] = NodeMemo()
    others: NodeMemo[int] = NodeMemo()
    i = e.Var("i")
    assert lengths.get(i) is None
    lengths[i] = 1
    others[i] = 2
    assert (lengths.get(i), others.get(i), lengths.get(e.Var("i"))) == (1, 2, None)
