"""Passes over loops and functions called by name: by their text before and after, and by value."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import op
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Constant, Function, GlobalVar, If, IRModule, Var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.structural import assert_structural_equal, structural_equal
from warpbeam.relay.text import parse, to_text
from warpbeam.relay.types import FuncType, TensorType
from warpbeam.tir.expr import SizeVar
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name

ROWS = "Tensor[(4, 3), float32]"
STATE = "Tensor[(1, 2), float32]"
W = "const([[1, 2], [3, 4], [5, 6]], float32)"


def module(*functions: str) -> IRModule:
    return parse("\n".join(functions), op.get)


def loop(step: str, more: str = "", args: str = "", *, x: str = ROWS, count: str = "4i64", name: str = "f") -> str:
    """A loop that adds `step`, of x and i, to its state; more, args: further parameters and what it hands on."""
    params = f"%i: int64, %s: {STATE}, %x: {x}{more}"
    again = f"@{name}(add(%i, 1i64), %t, %x{args})"
    return f"""def @{name}({params}) -> {STATE} {{
      %c = less(%i, {count});
      if (%c) {{ {step}; {again} }} else {{ %s }}
    }}"""


def main(called: str, x: str = ROWS) -> str:
    return f"def @main(%x: {x}, %h: {STATE}) {{ {called} }}"


def same_values(before: IRModule, after: IRModule, rows: int = 4) -> None:
    rng = np.random.default_rng(1)
    x, h = rng.standard_normal((rows, 3)).astype(np.float32), rng.standard_normal((1, 2)).astype(np.float32)
    np.testing.assert_allclose(evaluate(after, [x, h]), evaluate(before, [x, h]), rtol=1e-6)


def products(mod: IRModule) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the products of each function."""
    kinds = ("nn.matmul", "nn.dense")
    return {g.name: [n.ty.shape for n in post_order(f.body) if op_name(n) in kinds] for g, f in mod.functions.items()}


# ----------------------------------------------------------------------------------------------------------- constants

STEP = "%t = add(%s, nn.matmul(reshape(take(%x, %i, axis=0), newshape=[1, 3]), %w))"


def test_constants_of_a_loop_stand_in_its_body() -> None:
    before = module(
        main(f"@f(0i64, %h, %x, {W}, 4i64)"),
        loop(STEP, ", %w: Tensor[(3, 2), float32], %n: int64", ", %w, %n", count="%n"),
    )
    after = passes.SinkConstants()(before)
    assert_structural_equal(after, module(main("@f_1(0i64, %h, %x)"), loop(STEP.replace("%w", W), name="f_1")))
    same_values(before, after)


def test_what_follows_from_constants_reaches_functions_within_functions() -> None:
    inner = "def @g(%y: Tensor[(1, 2), float32], %k: Tensor[(2), float32]) { add(%y, exp(%k)) }"
    outer = "def @f(%y: Tensor[(1, 2), float32], %k: Tensor[(2), float32]) { @g(%y, negative(%k)) }"
    before = module(main("@f(%h, const([0, 0], float32))"), outer, inner)
    after = passes.SinkConstants()(before)
    assert [g.name for g in after.functions] == ["main", "f_1", "g_1"]
    (one,) = [c for c in after["g_1"].body.args if isinstance(c, Constant)]
    np.testing.assert_array_equal(one.numpy(), [1, 1])
    same_values(before, after)


def test_a_function_that_gets_different_constants_becomes_several() -> None:
    fn = "def @g(%y: Tensor[(1, 2), float32], %k: float32) { multiply(%y, %k) }"
    before = module(main("add(add(@g(%h, 2f), @g(%h, 3f)), add(@g(%h, 2f), @g(%h, exp(1f))))"), fn)
    after = passes.SinkConstants()(before)
    assert len([g for g in after.functions if g.name.startswith("g")]) == 3  # 2, 3 and e
    same_values(before, after)


def test_what_a_loop_changes_is_no_constant_in_it() -> None:
    before = module(main("@f(0i64, const([[1, 2]], float32), %x)"), loop(STEP.replace("%w", W)))
    assert structural_equal(passes.SinkConstants()(before), before)


def test_functions_that_are_values_keep_their_parameters() -> None:
    before = module(
        main("@apply(@g, %h)"),
        f"def @g(%y: {STATE}, %k: float32) {{ multiply(%y, %k) }}",
        f"def @apply(%f: fn({STATE}, float32) -> {STATE}, %y: {STATE}) -> {STATE} {{ add(%f(%y, 2f), @g(%y, 2f)) }}",
    )
    after = passes.SinkConstants()(before)
    assert {g.name for g in after.functions} == {"main", "g", "apply"}
    assert len(after["g"].params) == 2
    same_values(before, after)


def test_functions_that_call_each_other_are_not_made_for_each_number_that_they_count() -> None:
    before = module(
        "def @main(%n: int64) { @f(0i64, %n) }",
        "def @f(%i: int64, %n: int64) -> int64 { if (less(%i, 0i64)) { %n } else { @g(add(%i, 1i64), %n) } }",
        "def @g(%i: int64, %n: int64) -> int64 { if (less(%i, %n)) { @f(add(%i, 1i64), %n) } else { %i } }",
    )
    after = passes.SinkConstants()(before)
    assert sorted(g.name for g in after.functions) == ["f", "f_1", "g", "g_1", "main"]
    for n in (0, 3, 8):
        assert evaluate(after, [np.int64(n)]) == evaluate(before, [np.int64(n)])


def test_a_function_that_main_does_not_reach_is_kept_with_what_it_calls() -> None:
    before = module(
        main("@g(%h, 2f)"),
        f"def @g(%y: {STATE}, %k: float32) {{ multiply(%y, %k) }}",
        f"def @other(%y: {STATE}, %k: float32) {{ @g(%y, %k) }}",
    )
    after = passes.SinkConstants()(before)
    assert {g.name for g in after.functions} == {"main", "g_1", "g", "other"}
    assert parse(to_text(after), op.get)["other"].ty is before["other"].ty


# ------------------------------------------------------------------------------------------------------------ products

HOISTED = [
    f"nn.matmul(reshape(take(%x, %i, axis=0), newshape=[1, 3]), {W})",
    f"nn.matmul(take(reshape(%x, newshape=[4, 1, 3]), %i, axis=0), {W})",
    f"exp(nn.matmul(take(%x, reshape(%i, newshape=[1]), axis=0), {W}))",
    "nn.dense(negative(take(%x, subtract(3i64, %i), axis=0)), const([[1, 2, 3], [4, 5, 6]], float32))",
    f"nn.bias_add(expand_dims(nn.matmul(take(%x, %i, axis=0), {W}), axis=0), const([1, 2], float32), axis=-1)",
    f"add(const([[1, 2]], float32), nn.matmul(reshape(take(exp(%x), %i, axis=0), newshape=[1, 3]), {W}))",
    f"nn.matmul(reshape(add(take(%x, %i, axis=0), take(exp(%x), %i, axis=0)), newshape=[1, 3]), {W})",
]


@pytest.mark.parametrize("value", HOISTED)
def test_products_of_rows_leave_the_loop(value: str) -> None:
    before = module(main("@f(0i64, %h, %x)"), loop(f"%t = add(%s, {value})"))
    after = passes.HoistLoopWork()(before)
    inside = products(after)
    assert inside["f"] == [] and [s[0] for s in inside["main"]] == [4]
    assert len(after["f"].params) == 4  # all that can leave leaves as one value
    same_values(before, after)


def test_the_text_of_a_loop_before_and_after() -> None:
    before = module(main("@f(0i64, %h, %x)"), loop(STEP.replace("%w", W)))
    called = f"nn.matmul(reshape(reshape(%x, newshape=[4, 1, 3]), newshape=[4, 3]), {W})"
    all_ = main(f"@f(0i64, %h, %x, reshape({called}, newshape=[4, 1, 2]))")
    step = loop("%t = add(%s, take(%r, %i, axis=0))", ", %r: Tensor[(4, 1, 2), float32]", ", %r")
    assert_structural_equal(passes.HoistLoopWork()(before), module(all_, step))


def test_products_of_what_the_loop_changes_stay() -> None:
    step = "%v2 = exp(%v); %t = add(%s, nn.matmul(reshape(take(%x, %i, axis=0), newshape=[1, 3]), %v))"
    changing = module(main(f"@f(0i64, %h, %x, {W})"), loop(step, ", %v: Tensor[(3, 2), float32]", ", %v2"))
    assert structural_equal(passes.HoistLoopWork()(changing), changing)
    state = f"nn.matmul(add(reshape(take(%x, %i, axis=0), newshape=[1, 3]), sum(%s)), {W})"
    two = f"nn.matmul(reshape(add(take(%x, %i, axis=0), take(%x, subtract(3i64, %i), axis=0)), newshape=[1, 3]), {W})"
    for value in (state, two, "sum(exp(take(%x, %i, axis=0)))"):
        mod = module(main("@f(0i64, %h, %x)"), loop(f"%t = add(%s, {value})"))
        assert structural_equal(passes.HoistLoopWork()(mod), mod), value


@pytest.mark.parametrize("rows, leaves", [(4, True), (8, True), (9, False)])
def test_rows_that_the_loop_does_not_take_are_not_worth_it(rows: int, leaves: bool) -> None:
    x = f"Tensor[({rows}, 3), float32]"
    before = module(main("@f(0i64, %h, %x)", x), loop(STEP.replace("%w", W), x=x))
    after = passes.HoistLoopWork()(before)
    assert bool(products(after)["main"]) is leaves
    same_values(before, after, rows)


def test_loops_that_a_condition_ends_keep_their_products() -> None:
    text = loop(STEP.replace("%w", W)).replace("less(%i, 4i64)", "logical_and(less(%i, 4i64), less(sum(%s), 9f))")
    before = module(main("@f(0i64, %h, %x)"), text)
    assert structural_equal(passes.HoistLoopWork()(before), before)


def symbolic(other: bool) -> IRModule:
    """A loop over as many rows as there are, or as another tensor has."""
    rows = SizeVar("n")
    count = SizeVar("m") if other else rows
    number, state, table = (TensorType(shape, kind) for shape, kind in (
        ((), "int64"), ((1, 2), "float32"), ((rows, 3), "float32")))  # fmt: skip
    i, s, x, n = Var("i", number), Var("s", state), Var("x", table), Var("n", number)
    gv = GlobalVar("f", FuncType((number, state, table, number), state))
    row = op.get("reshape")(op.get("take")(x, i, axis=0), newshape=(1, 3))
    new = op.get("add")(s, op.get("nn.matmul")(row, Constant(np.arange(6, dtype=np.float32).reshape(3, 2))))
    zero, one = (Constant(np.array(k, np.int64)) for k in (0, 1))
    again = Call(gv, (op.get("add")(i, one), new, x, n))
    fn = Function((i, s, x, n), If(op.get("less")(i, n), again, s), state)
    y, h, z = Var("y", table), Var("h", state), Var("z", TensorType((count,), "float32"))
    limit = op.get("shape_tensor")(values=(count,), shape=(), dtype="int64")
    return IRModule({"main": Function((y, h, z), Call(gv, (zero, h, y, limit))), gv: fn})


def test_a_number_of_rows_that_is_open_must_be_that_of_the_iterations() -> None:
    before, other = symbolic(False), symbolic(True)
    after = passes.HoistLoopWork()(before)
    assert products(after)["f"] == [] and len(products(after)["main"]) == 1
    assert products(passes.HoistLoopWork()(other))["main"] == []
    x = np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)
    given = [x, np.zeros((1, 2), np.float32), np.zeros(5, np.float32)]
    np.testing.assert_allclose(evaluate(after, given), evaluate(before, given), rtol=1e-6)


@pytest.mark.parametrize("inner_first", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_a_loop_within_a_loop_hands_its_products_to_the_outermost(own: bool, inner_first: bool) -> None:
    """own: the outer loop has such a product, too. They stay in it where it stands behind the inner one."""
    more = f"add(nn.matmul(take(negative(%x), reshape(%i, newshape=[1]), axis=0), {W}), " if own else ""
    inner = loop(STEP.replace("%w", W), name="g")
    outer = loop(f"%t = {more}@g(0i64, %s, %x){')' if own else ''}")
    before = module(main("@f(0i64, %h, %x)"), *([inner, outer] if inner_first else [outer, inner]))
    after = passes.HoistLoopWork()(before)
    found = products(after)
    assert [found[name] for name in ("g", "f", "main")] == [
        [],
        [(4, 2)] * inner_first,
        [(4, 2)] * (own + 1 - inner_first),
    ]
    same_values(before, after)


def test_rows_beyond_the_last_are_those_that_the_loop_took() -> None:
    """Indices are taken modulo the number of rows; another way to take rows at them is another row."""
    at = "add(reshape(%i, newshape=[1]), 2i64)"
    one = f'nn.matmul(take(%x, {at}, axis=0, mode="wrap"), {W})'
    before = module(main("@f(0i64, %h, %x)"), loop(f"%t = add(%s, {one})"))
    after = passes.HoistLoopWork()(before)
    assert products(after)["f"] == []
    same_values(before, after)
    two = f'nn.matmul(add(take(%x, {at}, axis=0, mode="wrap"), take(%x, {at}, axis=0)), {W})'
    before = module(main("@f(0i64, %h, %x)"), loop(f"%t = add(%s, {two})"))
    after = passes.HoistLoopWork()(before)
    assert len(products(after)["f"]) == 1
    same_values(before, after)


def test_rows_of_tables_of_different_lengths_stay_apart() -> None:
    table = "const([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]], float32)"
    rows = [f"take({t}, reshape(%i, newshape=[1]), axis=0)" for t in ("%x", table)]
    both = f"nn.matmul(add({rows[0]}, {rows[1]}), {W})"
    before = module(main("@f(0i64, %h, %x)"), loop(f"%t = add(%s, {both})"))
    after = passes.HoistLoopWork()(before)
    assert len(products(after)["f"]) == 1
    same_values(before, after)
