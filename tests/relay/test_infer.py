"""InferType on programs without annotations, and what it says about wrong ones."""

from __future__ import annotations

import pytest

from warpbeam import op
from warpbeam.ir.diagnostics import TypeCheckError, WarpbeamError
from warpbeam.relay.infer import infer_types, is_typed
from warpbeam.relay.text import parse, print_type

PROGRAM = """
type List[A] { Cons(A, List[A]), Nil, }
def @map<A, B>(%f: fn (A) -> B, %l: List[A]) -> List[B] {
  match (%l) { Cons(%h, %t) => { Cons(%f(%h), @map(%f, %t)) }, Nil => Nil() }
}
def @sum(%l) { match (%l) { Cons(%h, %t) => { add(%h, @sum(%t)) }, Nil => 0 } }
def @grow(%x: Tensor[(?n, 3), float32]) -> Tensor[((?n + 1), 3), float32] { concatenate(%x, ones(shape=[1, 3])) }
def @main(%x: Tensor[(5, 3), float32]) {
  let %inc = fn (%y) { add(%y, 1) };
  let %list = Cons(1, Cons(2, Nil()));
  let %floats = Cons(%x, Nil());
  let %fact = fn (%n, %acc) { if (less_equal(%n, 1)) { %acc } else { %fact(subtract(%n, 1), multiply(%acc, %n)) } };
  let %cell = ref(%x);
  let %u = ref_write(%cell, multiply(ref_read(%cell), 2f));
  (@grow(%x), @sum(@map(%inc, %list)), %fact(5, 1), ref_read(%cell), %floats)
}
"""


def test_recursion_polymorphism_cells_and_sizes():
    mod = infer_types(parse(PROGRAM, op.get))
    assert is_typed(mod)
    assert infer_types(mod) is mod
    expected = "(Tensor[(6, 3), float32], int32, int32, Tensor[(5, 3), float32], List[Tensor[(5, 3), float32]])"
    assert print_type(mod["main"].body.ty) == expected
    assert print_type(mod["sum"].ty) == "fn (List[int32]) -> int32"


def test_typed_programs_are_returned_as_they_are():
    mod = parse("def @main(%x: Tensor[(2,), float32]) { exp(%x) }", op.get)
    assert infer_types(mod) is mod


WRONG = [
    ("def @main(%x) { add(%x, 1) }", "the types of %x are not determined"),
    ("def @main(%c: bool) { if (%c) { 1f } else { 1 } }", "float32 and int32 are different types"),
    ("def @main(%x: float32) { let %y = %x; add(%y, 1) }", "operands have dtypes"),
    ("def @main(%x: float32) { let %f = fn (%a) { %a }; (%f(%x), %f(1)) }", "float32 and int32"),
    ("def @main() { let %f = fn (%g) { %g(%g) }; %f }", "contain itself"),
    ("def @main(%x: float32) { let %y = %x; %y(1) }", "is called"),
    ("def @main(%x: float32) { let %y = (%x, %x); %y.4 }", "has no field 4"),
    ("def @f(%a: float32) -> float32 { %a } def @main() { @f(1) }", "expected float32, got int32"),
    ("def @main(%x: float32) -> int32 { %x }", "int32 and float32"),
]


@pytest.mark.parametrize("text, message", WRONG)
def test_errors_name_what_is_wrong(text, message):
    with pytest.raises(WarpbeamError) as info:
        infer_types(parse(text, op.get, spans=True))
    assert message in str(info.value)


def test_errors_carry_the_place_of_the_call():
    with pytest.raises(TypeCheckError) as info:
        infer_types(
            parse("def @main(%x: float32) {\n  let %y = %x;\n  add(%y, 1)\n}", op.get, spans=True, source="m.relay")
        )
    assert info.value.where == "m.relay:3:3"
