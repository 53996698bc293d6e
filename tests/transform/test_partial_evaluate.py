"""Programs with lets, closures, data types and recursion compile to what the interpreter says they mean."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from tolerance import close_trees

from warpbeam import relay
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Function, GlobalVar, IRModule, Let
from warpbeam.relay.interp_values import Data
from warpbeam.runtime.container import ADT
from warpbeam.transform import passes
from warpbeam.transform.partial_evaluate import evaluated

TERMS = 50  # five times five rounds of the longest loops, two roundings each
X = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
T = "Tensor[(3, 2), float32]"
LIST = "type List[A] { Cons(A, List[A]), Nil, } "
MAP = """
def @map<A, B>(%f: fn (A) -> B, %l: List[A]) -> List[B] {
  match (%l) { Cons(%h, %t) => { Cons(%f(%h), @map(%f, %t)) }, Nil => { Nil() }, }
}
"""
FOLD = """
def @fold<A, B>(%f: fn (B, A) -> B, %b: B, %l: List[A]) -> B {
  match (%l) { Cons(%h, %t) => { @fold(%f, %f(%b, %h), %t) }, Nil => { %b }, }
}
"""

#: name -> (text, argument lists)
PROGRAMS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "lets": (f"def @main(%x: {T}) {{ let %a = exp(%x); let %b = add(%a, %x); (multiply(%b, %a), %b) }}", [(X,)]),
    "closure": (f"def @main(%x: {T}) {{ let %f = fn (%y: {T}) {{ add(%y, %x) }}; %f(%f(exp(%x))) }}", [(X,)]),
    "function of functions": (
        f"def @main(%x: {T}) {{ let %twice = fn (%g: fn ({T}) -> {T}, %y: {T}) {{ %g(%g(%y)) }};"
        f" let %h = fn (%y: {T}) {{ multiply(tanh(%y), %x) }}; %twice(%h, %x) }}",
        [(X,)],
    ),
    "list": (
        LIST + MAP + FOLD + f"def @main(%x: {T}) {{ let %l = Cons(%x, Cons(exp(%x), Cons(tanh(%x), Nil())));"
        f" (@map(fn (%y: {T}) {{ multiply(%y, %x) }}, %l), @fold(fn (%a: {T}, %b: {T}) {{ add(%a, %b) }}, %x, %l)) }}",
        [(X,)],
    ),
    "if between data": (
        LIST + f"def @main(%c: bool, %x: {T}) {{ if (%c) {{ Cons(%x, Nil()) }} else {{ Cons(exp(%x), Nil()) }} }}",
        [(np.bool_(c), X) for c in (True, False)],
    ),
    "loop": (
        f"""def @main(%n: int32, %x: {T}) {{
          let %half = fn (%y: {T}) {{ add(multiply(%y, 0.5f), %x) }};
          let %loop = fn (%i: int32, %s: ({T}, {T})) -> ({T}, {T}) {{
            let %a = %s.0;
            if (less(%i, %n)) {{ %loop(add(%i, 1), (%half(%a), add(%s.1, %a))) }} else {{ %s }}
          }};
          let %r = %loop(0, (%x, exp(%x)));
          (%r.1, %loop(1, (%r.0, %x)).0)
        }}""",
        [(np.int32(n), X) for n in (0, 1, 4)],
    ),
    "loop in a loop": (
        f"""def @main(%n: int32, %x: {T}) {{
          let %outer = fn (%i: int32, %a: {T}) -> {T} {{
            let %inner = fn (%j: int32, %b: {T}) -> {T} {{
              if (less(%j, %i)) {{ %inner(add(%j, 1), add(%b, multiply(%a, 0.1f))) }} else {{ %b }}
            }};
            if (less(%i, %n)) {{ %outer(add(%i, 1), tanh(%inner(0, %a))) }} else {{ %a }}
          }};
          %outer(0, %x)
        }}""",
        [(np.int32(n), X) for n in (0, 1, 5)],
    ),
    "captured list in a loop": (
        LIST + FOLD + f"""def @main(%n: int32, %x: {T}) {{
          let %l = Cons(%x, Cons(exp(%x), Nil()));
          let %sum = fn (%y: {T}) {{ @fold(fn (%a: {T}, %b: {T}) {{ add(%a, multiply(%b, 0.25f)) }}, %y, %l) }};
          let %loop = fn (%i: int32, %s: {T}) -> {T} {{
            if (less(%i, %n)) {{ %loop(add(%i, 1), %sum(%s)) }} else {{ %s }}
          }};
          %loop(0, %x)
        }}""",
        [(np.int32(n), X) for n in (0, 3)],
    ),
    "two functions by turns": (
        LIST + f"""
        def @even<A>(%l: List[A], %x: {T}) -> {T} {{
          match (%l) {{ Cons(_, %t) => {{ @odd(%t, exp(%x)) }}, Nil => {{ %x }}, }}
        }}
        def @odd<B>(%l: List[B], %x: {T}) -> {T} {{
          match (%l) {{ Cons(_, %t) => {{ @even(%t, tanh(%x)) }}, Nil => {{ %x }}, }}
        }}
        def @main(%x: {T}) {{ @even(Cons(1, Cons(2, Cons(3, Nil()))), %x) }}""",
        [(X,)],
    ),
    "sizes of an argument": (
        f"""def @main(%x: {T}, %y: Tensor[(?m, 2), float32]) {{
          let %f = fn (%z: Tensor[(?k, 2), float32]) {{ reshape(%z, newshape=[(?k * 2)]) }};
          (%f(%x), %f(%y))
        }}""",
        [(X, np.ones((m, 2), np.float32)) for m in (1, 6)],
    ),
}  # fmt: skip


def plain(value: Any) -> Any:
    """Values of either executor as nested lists with the tags of data."""
    if isinstance(value, Data):
        return [value.tag, *(plain(f) for f in value.fields)]
    if isinstance(value, ADT):
        return [value.tag, *map(plain, value)]
    if isinstance(value, tuple | list):
        return [0, *map(plain, value)]
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_as_interpreted(name: str) -> None:
    text, calls = PROGRAMS[name]
    mod = relay.parse(text)
    vm, meant = (relay.create_executor(kind, mod).evaluate() for kind in ("vm", "debug"))
    for args in calls:
        close_trees(plain(vm(*args)), plain(meant(*args)), TERMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_of_it_is_left(name: str) -> None:
    mod, _ = evaluated(passes.InferType()(relay.parse(PROGRAMS[name][0])))
    for node in post_order(*mod.functions.values()):
        assert not isinstance(node, Let)
        assert not isinstance(node, Call) or not isinstance(node.op, Function)
    assert all(f.type_params == () for f in mod.functions.values())
    assert evaluated(mod)[0] is mod


def test_a_loop_stays_one_function() -> None:
    mod, _ = evaluated(passes.InferType()(relay.parse(PROGRAMS["loop in a loop"][0])))
    assert sorted(g.name for g in mod.functions) == ["inner", "main", "outer"]
    calls = [n for n in post_order(mod["outer"]) if isinstance(n, Call) and isinstance(n.op, GlobalVar)]
    assert {c.op.name for c in calls} == {"inner", "outer"}


def test_first_order_modules_are_left_alone() -> None:
    mod = passes.InferType()(relay.parse(f"def @main(%x: {T}) {{ add(exp(%x), %x) }}"))
    assert evaluated(mod) == (mod, mod["main"].body)
    assert passes.PartialEvaluate()(mod) is mod


def test_long_chains_and_long_lists() -> None:
    x = relay.var("x", shape=(3, 2))
    body: Any = x
    names = [relay.Var(f"v{k}", relay.TensorType((3, 2))) for k in range(3000)]
    body = names[-1]
    for k in reversed(range(3000)):
        body = relay.Let(names[k], relay.negative(names[k - 1] if k else x), body)
    mod, _ = evaluated(IRModule.from_expr(relay.Function([x], body)))
    assert sum(isinstance(n, Call) for n in post_order(mod["main"])) == 3000
    items = "Cons(%x, " * 150 + "Nil()" + ")" * 150
    text = LIST + FOLD + f"def @main(%x: {T}) {{ @fold(fn (%a: {T}, %b: {T}) {{ add(%a, %b) }}, %x, {items}) }}"
    np.testing.assert_allclose(relay.create_executor("vm", relay.parse(text)).evaluate()(X).numpy(), X * 151, rtol=1e-5)
    result = relay.create_executor("vm", relay.parse(LIST + f"def @main(%x: {T}) {{ {items} }}")).evaluate()(X)
    for _ in range(150):
        assert result.tag == 0 and np.array_equal(result[0].numpy(), X)
        result = result[1]
    assert result == () and result.tag == 1
    with pytest.raises(CompileError, match="256 deep"):
        relay.vm.compile(relay.parse(LIST + f"def @main(%x: {T}) {{ {items.replace('Nil()', items)} }}"))


REFUSED = {
    "a match on what is not known": (
        LIST + f"def @main(%l: List[{T}], %x: {T}) {{ match (%l) {{ Cons(%h, _) => {{ %h }}, Nil => {{ %x }}, }} }}",
        "which case a value is",
    ),
    "different cases": (
        LIST + f"def @main(%c: bool, %x: {T}) {{ if (%c) {{ Cons(%x, Nil()) }} else {{ Nil() }} }}", "different cases"
    ),
    "recursion without end": (
        LIST + f"def @f(%l: List[{T}], %x: {T}) -> {T} {{ @f(Cons(%x, %l), %x) }}"
        f"def @main(%x: {T}) {{ @f(Nil(), %x) }}",
        "does not end",
    ),
    "a reference": (f"def @main(%x: {T}) {{ let %r = ref(%x); ref_read(%r) }}", "references"),
    "a function as a result": (f"def @main(%x: {T}) {{ fn (%y: {T}) {{ add(%y, %x) }} }}", "is a function"),
    "a list as a state": (
        LIST + f"""def @main(%n: int32, %x: {T}) {{
          let %loop = fn (%i: int32, %l: List[{T}]) -> List[{T}] {{
            if (less(%i, %n)) {{ %loop(add(%i, 1), Cons(%x, %l)) }} else {{ %l }} }};
          %loop(0, Nil()) }}""",
        "does not end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(CompileError) as caught:
        relay.vm.compile(relay.parse(text))
    assert re.search(message, str(caught.value))
    assert "what to do" in str(caught.value)
