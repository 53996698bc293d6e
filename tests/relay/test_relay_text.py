"""Relay text: what is printed reads back exactly, and errors show the place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam import op
from warpbeam.ir.diagnostics import TextError
from warpbeam.relay.expr import (
    Call,
    Constant,
    Function,
    If,
    IRModule,
    Let,
    RefCreate,
    Tuple,
    TupleGetItem,
    Var,
    const,
    var,
)  # fmt: skip
from warpbeam.relay.structural import assert_structural_equal, structural_equal, structural_hash
from warpbeam.relay.text import external_constants, parse, parse_expr, parse_type, print_type, to_text
from warpbeam.relay.types import FuncType, RefType, TensorType, TupleType
from warpbeam.tir.expr import SizeVar
from warpbeam.tir.expr import Var as ScalarVar

add, multiply, reshape = op.get("add"), op.get("multiply"), op.get("reshape")

GOLDEN = """#[version = "1.0"]

type List[A] {
  Cons(A, List[A]),
  Nil,
}

def @length<A_1>(%list: List[A_1]) -> int32 {
  match (%list) {
    Cons(_, %tail: List[A_1]) => {
      %0 = @length(%tail);
      add(%0, 1)
    },
    Nil => {
      0
    },
  }
}

def @main(%x: Tensor[(?n, 3), float32], %"a b": int32, Inline=1) -> Tensor[(?n, 3), float32] {
  %0 = multiply(%x, 2f);
  let %f: fn (Tensor[(?n, 3), float32]) -> Tensor[(?n, 3), float32] = fn (%y: Tensor[(?n, 3), float32]) {
    add(%y, %0)
  };
  let %cell: ref(int32) = ref(%"a b");
  let %other: ref(int32) = ref(%"a b");
  let %done: () = ref_write(%cell, 5);
  %1 = less(%"a b", 3);
  %3 = if (%1) {
    %f(%x)
  } else {
    %2 = exp(%0);
    add(%2, const([1, 2.5, -3], float32))
  };
  %4 = (%3, %0);
  %5 = strided_slice(%4.1, begin=[0], end=[?n]);
  add(%4.0, %5)
}
"""


def both_ways(program, **options):
    text = to_text(program, **options)
    again = parse(text, op.get) if isinstance(program, IRModule) else parse_expr(text, op.get)
    assert_structural_equal(program, again)
    assert to_text(again, **options) == text
    return text


def test_golden_module_reads_and_prints_the_same():
    mod = parse(GOLDEN, op.get)
    assert to_text(mod) == GOLDEN
    both_ways(mod)
    both_ways(mod, show_types=True)


def test_constants_inline_outside_and_elided():
    big = const(np.arange(600, dtype="float32").reshape(20, 30))
    fn = Function((x := var("x", shape=(20, 30)),), add(x, big))
    assert "meta[relay.Constant][0]" in both_ways(fn)
    text = to_text(fn, constants="digest")
    kept = external_constants(fn)
    assert structural_equal(parse_expr(text, op.get, constants=kept), fn)
    with pytest.raises(TextError, match="is not given"):
        parse_expr(text, op.get)
    with pytest.raises(TextError, match="left out"):
        parse_expr(to_text(fn, constants="elide"), op.get)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8", "uint64", "int64", "bool"])
def test_scalars_and_small_tensors_keep_every_bit(dtype):
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values = np.array([0, 1, 3.14159265, 1e-3, 120]).astype(kind)
    parts = [Constant(v) for v in values] + [Constant(values), Constant(values[:4].reshape(2, 2)), Constant(values[:0])]
    both_ways(Tuple(tuple(parts)))


def test_special_floats_and_strings():
    odd = np.array([np.inf, -np.inf, np.nan, -0.0], "float32")
    text = Constant(np.array(["a\n", 'b"'], dtype=object))
    both_ways(Tuple((*(Constant(v) for v in odd), Constant(odd), text)))


def test_types_and_sizes():
    n, m = SizeVar("n"), ScalarVar("m", "int32")
    dims = ((n + 1) // 2, n * 3 % 4, n, 5)
    for t in (TensorType(dims), TupleType(()), FuncType((TensorType((n,)),), RefType(TensorType((), "int8")))):
        x = Var("x", t)
        both_ways(Function((x,), x))
    both_ways(Function((x := var("x", shape=(m.astype("int64"),)),), x))
    assert (
        print_type(parse_type("fn <A>(A, Tensor[(1, 2), int8]) -> (A,)")) == "fn <A>(A, Tensor[(1, 2), int8]) -> (A,)"
    )


def test_shared_nodes_stand_outside_the_branches_that_share_them():
    x, c = var("x", shape=(2,)), Var("c", TensorType((), "bool"))
    shared = add(x, const(1.0))
    fn = Function((x, c), If(c, multiply(shared, shared), shared))
    text = both_ways(fn)
    assert text.index("add(") < text.index("if (")


def test_equal_let_values_show_their_own_text():
    a, b = Var("a"), Var("b")
    fn = Function((), Let(a, RefCreate(const(1)), Let(b, RefCreate(const(1)), Tuple((a, b)))))
    assert to_text(fn).count("ref(1)") == 2
    both_ways(fn)


def test_names_are_made_unique_and_odd_names_quoted():
    a, b, n = var("x", shape=()), var("x", shape=()), var("0:/odd", shape=())
    text = both_ways(Function((a, b, n), Tuple((a, b, n))))
    assert "%x_1" in text and '%"0:/odd"' in text


ERRORS = [
    ("def @main(%x: float32) { ad(%x, %x) }", "there is no operator 'ad'", ":1:26"),
    ("def @main(%x: float32) { add(%x, %y) }", "unknown variable %y", ":1:34"),
    ("def @main(%x: flot32) { %x }", "unknown type 'flot32'", ":1:15"),
    ("def @main(%x: float32) {\n  add(%x, 1i64)\n}", "operands have dtypes float32, int64", ":2:3"),
    ("def @main() { @other() }", "unknown function @other", ":1:15"),
    ("def @main(%x: float32) { clip(%x, a_mn=1) }", "unknown attribute a_mn", ":1:26"),
    ("def @main() { 1 ", "not closed", ":1:10"),
    ("def @main() { 1 } def @main() { 1 }", "defined twice", ":1:19"),
    ("def @main() { 1 $ }", "unexpected character", ":1:17"),
    ("def @main() { const([1, [2]], float32) }", "", ":1:"),
    ("def @main() { " + "(" * 5000 + "1" + ")" * 5000 + " }", None, ""),
    ("def @main(%x: " + "(" * 5000 + ")" * 5000 + ") { 1 }", "nest at most", ":1:"),
]


@pytest.mark.parametrize("text, message, place", ERRORS)
def test_errors_show_the_place(text, message, place):
    if message is None:
        assert parse(text, op.get)["main"].body.numpy() == 1
        return
    with pytest.raises(TextError) as info:
        parse(text, op.get)
    assert message in str(info.value)
    assert place in info.value.where and "^" in info.value.where


def test_twenty_thousand_bindings_deep_blocks_and_lets():
    x = y = var("x", shape=(4,))
    for i in range(20_000):
        y = add(y, const(float(i)))
    fn = Function((x,), y)
    assert structural_equal(parse_expr(to_text(fn), op.get), fn)
    body = y = x
    lets = []
    for _ in range(20_000):
        v = Var("v", x.ty)
        lets.append((v, add(y, const(1.0))))
        y = v
    body = y
    for v, e in reversed(lets):
        body = Let(v, e, body)
    fn = Function((x,), body)
    assert structural_equal(parse_expr(to_text(fn), op.get), fn)
    c, nested = Var("c", TensorType((), "bool")), x
    for i in range(400):
        nested = If(c, nested, add(x, const(float(i))))
    fn = Function((c, x), nested)
    assert structural_equal(parse_expr(to_text(fn), op.get), fn)


def test_structural_equality_sees_what_matters():
    def make(name, value, attr=1):
        x = var(name, shape=(SizeVar("s" + name), 2))
        return Function((x,), add(x, const(value)), attrs={"k": attr})

    assert structural_equal(make("a", 1.0), make("b", 1.0))
    assert structural_hash(make("a", 1.0)) == structural_hash(make("b", 1.0))
    for other in (make("a", 2.0), make("a", 1.0, 1.0), make("a", 1.0, True)):
        assert not structural_equal(make("a", 1.0), other)
    x, y = var("x", shape=()), var("y", shape=())
    assert not structural_equal(Function((x, y), add(x, y)), Function((x, y), add(y, x)))


@st.composite
def graphs(draw):
    x, c = var("x", shape=(2, 3)), Var("c", TensorType((), "bool"))
    pool = [x, const(np.float32(1.5)), add(x, x)]
    full = [x, pool[2]]
    for i in range(draw(st.integers(1, 12))):
        kind = draw(st.integers(0, 6))
        a = full[draw(st.integers(0, len(full) - 1))]
        b = pool[draw(st.integers(0, len(pool) - 1))]
        if kind == 0:
            new = add(a, b)
        elif kind == 1:
            new = TupleGetItem(Tuple((a, b)), 0)
        elif kind == 2:
            new = If(c, a, add(a, b))
        elif kind == 3:
            v = Var(f"v{i % 2}", a.ty)
            new = Let(v, a, multiply(v, b))
        elif kind == 4:
            p = var("p", shape=(2, 3))
            new = Call(Function((p,), add(multiply(p, b), a)), (a,))
        elif kind == 5:
            new = reshape(reshape(a, newshape=(6,)), newshape=(2, 3))
        else:
            r = Var("r", RefType(a.ty))
            new = Let(r, RefCreate(a), add(a, b))
        pool.append(new)
        full.append(new)
    return Function((x, c), Tuple(tuple(full[-3:])))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_random_graphs_round_trip(fn):
    both_ways(fn)
    both_ways(IRModule.from_expr(fn))


@pytest.mark.parametrize("text", [
    'meta[0]: Tensor[(1), float32] = base64 "AA\x01";',
    'def @main(%x: Tensor[(1), float32]) { %"a\\q" = abs(%x); %"a\\q" }',
    'meta[0]: fn () -> () = base64 "AA";',
    'meta[0]: Tensor[(1), float99] = base64 "AA";',
])  # fmt: skip
def test_what_python_would_refuse_in_its_own_words(text):
    with pytest.raises(TextError, match="text:1"):
        parse(text, op.get)
