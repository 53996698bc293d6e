"""The Relay interpreter: functions, closures, recursion, references, data, symbolic sizes, depth, the wide oracle."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import op
from warpbeam.ir.diagnostics import VerifyError
from warpbeam.relay.adt import Prelude, from_list, to_list
from warpbeam.relay.expr import Function, If, Let, RefRead, RefWrite, Tuple, Var, const, var
from warpbeam.relay.infer import infer_types
from warpbeam.relay.interp import evaluate
from warpbeam.relay.text import parse
from warpbeam.relay.types import TensorType

add = op.get("add")


def run(text, *inputs, **options):
    return evaluate(infer_types(parse(text, op.get)), list(inputs), **options)


def test_closures_capture_and_recursion_ends():
    text = """
    def @even(%n: int32) -> bool { if (equal(%n, 0)) { True } else { @odd(subtract(%n, 1)) } }
    def @odd(%n: int32) -> bool { if (equal(%n, 0)) { False } else { @even(subtract(%n, 1)) } }
    def @main(%x: int32) {
      let %adder = fn (%k: int32) { fn (%v: int32) { add(add(%k, %v), %x) } };
      let %sum = fn (%n: int32, %acc: int32) -> int32 {
        if (less_equal(%n, 0)) { %acc } else { %sum(subtract(%n, 1), add(%acc, %n)) }
      };
      (%adder(10)(5), %sum(2000, 0), @even(301))
    }"""
    assert [int(v) for v in run(text, np.int32(1))] == [16, 2001000, 0]


def test_references_are_cells_of_their_own_and_effects_happen_in_order():
    text = """
    def @main(%x: int32) {
      let %a = ref(%x);
      let %b = ref(%x);
      let %bump = fn () { ref_write(%a, add(ref_read(%a), 1)) };
      let %u = %bump();
      let %before = ref_read(%a);
      let %v = %bump();
      (%before, ref_read(%a), ref_read(%b))
    }"""
    assert [int(v) for v in run(text, np.int32(5))] == [6, 7, 5]


def test_only_the_chosen_branch_has_effects():
    cell, c = Var("cell"), Var("c", TensorType((), "bool"))
    body = Let(cell, op_ref(const(1)), Let(Var("u"), If(c, RefWrite(cell, const(2)), Tuple(())), RefRead(cell)))
    fn = Function((c,), body)
    assert int(evaluate(fn, [True])) == 2
    assert int(evaluate(fn, [False])) == 1


def op_ref(value):
    from warpbeam.relay.expr import RefCreate

    return RefCreate(value)


def test_data_types_and_matching():
    text = """
    type Tree[A] { Leaf, Node(Tree[A], A, Tree[A]), }
    def @sum(%t: Tree[int32]) -> int32 {
      match (%t) { Node(Leaf, %v, Leaf) => %v, Node(%l, %v, %r) => add(%v, add(@sum(%l), @sum(%r))), Leaf => 0 }
    }
    def @main() { @sum(Node(Node(Leaf(), 1, Leaf()), 2, Node(Leaf(), 3, Leaf()))) }"""
    assert int(run(text)) == 6
    assert [int(v) for v in to_list(evaluate(Function((), from_list([const(1), const(2)]))))] == [1, 2]
    nil = Prelude().nil()
    assert to_list(evaluate(Function((), nil))) == []


def test_symbolic_sizes_come_from_shapes():
    text = """
    def @main(%x: Tensor[(?n, 2), float32], %y: Tensor[((?n * 2),), float32]) {
      let %flat = fn (%z: Tensor[(?k, 2), float32]) { reshape(%z, newshape=[(?k * 2)]) };
      add(%flat(%x), %y)
    }"""
    assert run(text, np.ones((3, 2), "f"), np.ones(6, "f")).shape == (6,)
    with pytest.raises(VerifyError, match="axis 0 contradicts"):
        run(text, np.ones((3, 2), "f"), np.ones(5, "f"))


def test_float64_mode_is_an_oracle():
    x = var("x", shape=(1,))
    big = add(add(x, const(1e8)), const(-1e8))
    fn = Function((x,), op.get("cast")(big, dtype="float32"))
    assert evaluate(fn, [np.ones(1, "f")])[0] == 0
    wide = evaluate(fn, [np.ones(1, "f")], dtype="float64")
    assert wide.dtype == np.float64 and wide[0] == 1


def test_depth_costs_no_python_stack_and_values_are_freed():
    x = y = var("x", shape=(1 << 16,))
    for i in range(5_000):
        y = add(y, const(float(i % 3)))
    got = evaluate(Function((x,), y), [np.zeros(1 << 16, "f")])
    assert got[0] == sum(i % 3 for i in range(5_000))


def test_inputs_are_checked():
    x = var("x", shape=(2,))
    fn = Function((x,), add(x, x))
    assert evaluate(fn, {"x": [1, 2]}).tolist() == [2, 4]
    for bad, message in (
        ({"y": 1}, "missing"),
        ([np.ones(2)], "dtype float64"),
        ([np.ones(3, "f")], "axis 0"),
        ([], "0 in"),
    ):
        with pytest.raises(VerifyError, match=message):
            evaluate(fn, bad)
