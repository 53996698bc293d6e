"""States of loops in the memory of their predecessors: what may be, and what must not; every plan is replayed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op
from warpbeam.ir.transform import PassContext
from warpbeam.relay.interp import evaluate
from warpbeam.relay.text import parse
from warpbeam.runtime import program as P

S = "Tensor[(2, 8), float32]"
ROWS = "Tensor[(5, 2, 8), float32]"


def looping(states: dict[str, str], steps: str, new: list[str], body: str = "") -> Any:
    """A function that runs `steps` five times over states a, b, …; body: further functions."""
    params = ", ".join(f"%{n}: {t}" for n, t in states.items())
    types = ", ".join(states.values())
    outer = ", ".join(f"%{n}" for n in states)
    return parse(
        f"""def @main({params}) {{ @f(0i64, {outer}) }}
        def @f(%i: int64, {params}) -> ({types},) {{
          %go = less(%i, 5i64);
          if (%go) {{ {steps} @f(add(%i, 1i64), {", ".join(new)}) }} else {{ ({outer},) }}
        }}
        {body}""",
        op.get,
    )


def several(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def moved(mod: Any, shapes: list[tuple[int, ...]]) -> int:
    """Bytes that the loop copies in each iteration; results are those of the interpreter and of a plan that shares
    nothing.
    """
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    module = warpbeam.compile(mod, cache=False)
    with PassContext(config={"driver.share_memory": False}):
        plain = warpbeam.compile(mod, cache=False)
    for g, p, w in zip(several(module(*arrays)), several(plain(*arrays)), evaluate(mod, arrays), strict=True):
        np.testing.assert_array_equal(g, p)
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)
    program = module.artifact.program()
    values = {v.id: v for v in program.values}
    loops = [i for i in P.walk(program.body) if isinstance(i, P.Loop)]
    copies = [i for loop in loops for i in P.walk(loop.body) if isinstance(i, P.Move) and not P.in_place(i, values)]
    sizes = [int(np.prod(values[i.result].shape)) * 4 for i in copies if values[i.result].dtype == "float32"]
    return sum(sizes)


def test_a_state_that_only_its_successor_reads_stays_where_it_is() -> None:
    assert moved(looping({"a": S}, "%t = tanh(add(%a, 1f));", ["%t"]), [(2, 8)]) == 0


def test_states_that_are_read_before_both_are_new_stay_where_they_are() -> None:
    """As in a recurrent cell: the gate reads both, then each becomes its own successor."""
    steps = "%g = softmax(add(%a, %b)); %c2 = multiply(%g, %b); %h = tanh(add(multiply(%a, %g), %c2));"
    assert moved(looping({"a": S, "b": S}, steps.replace("softmax", "nn.softmax"), ["%h", "%c2"]), [(2, 8)] * 2) == 0


def test_one_row_of_a_gathered_output_is_written_in_an_iteration() -> None:
    steps = "%t = tanh(%a); %u = scatter_nd(%r, reshape(%i, newshape=[1, 1]), reshape(%t, newshape=[1, 2, 8]));"
    mod = looping({"a": S, "r": ROWS}, steps, ["%t", "%u"])
    assert moved(mod, [(2, 8), (5, 2, 8)]) == 0
    module = warpbeam.compile(mod, cache=False)
    (loop,) = [i for i in module.artifact.program().body if isinstance(i, P.Loop)]
    assert [i for i in loop.body if isinstance(i, P.CallKernel) and "_over_" in i.kernel and i.donates]


def test_states_that_change_places_are_copied() -> None:
    assert moved(looping({"a": S, "b": S}, "", ["%b", "%a"]), [(2, 8)] * 2) > 0


def test_a_state_that_is_read_after_its_successor_is_begun_is_copied() -> None:
    """b needs the old a, and a the old b."""
    steps = "%x = nn.softmax(add(%a, %b)); %y = nn.softmax(subtract(%a, %x)); %z = nn.softmax(multiply(%a, %y));"
    assert moved(looping({"a": S, "b": S}, steps, ["%x", "%z"]), [(2, 8)] * 2) == 2 * 8 * 4


def test_one_value_for_two_states_is_copied_once() -> None:
    assert moved(looping({"a": S, "b": S}, "%t = tanh(add(%a, %b));", ["%t", "%t"]), [(2, 8)] * 2) == 2 * 8 * 4


def test_a_kernel_that_cannot_write_over_its_operand_leaves_a_copy() -> None:
    """A product by the state itself reads all of it again for each panel of columns."""
    square = "Tensor[(64, 64), float32]"
    mod = looping({"a": square}, "%t = nn.matmul(%a, %a);", ["%t"])
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((64, 64)) / 8).astype(np.float32)
    module = warpbeam.compile(mod, cache=False)
    np.testing.assert_allclose(module(x), evaluate(mod, [x])[0], rtol=1e-4, atol=1e-4)
    program = module.artifact.program()
    values = {v.id: v for v in program.values}
    (loop,) = [i for i in program.body if isinstance(i, P.Loop)]
    wide = [i for i in loop.body if isinstance(i, P.Move) and values[i.result].shape == (64, 64)]
    assert [P.in_place(i, values) for i in wide] == [False]


def test_the_state_of_a_loop_within_a_loop_is_that_of_the_outer_one() -> None:
    inner = f"""def @g(%k: int64, %s: {S}) -> {S} {{
      %c = less(%k, 3i64);
      if (%c) {{ @g(add(%k, 1i64), tanh(add(%s, 1f))) }} else {{ %s }}
    }}"""
    assert moved(looping({"a": S}, "%t = @g(0i64, %a);", ["%t"], inner), [(2, 8)]) == 0


@pytest.mark.parametrize("seed", range(20))
def test_random_bodies(seed: int) -> None:
    pick = random.Random(seed)
    names = ["a", "b", "e"][: pick.randint(1, 3)]
    known = [f"%{n}" for n in names]
    steps = []
    for k in range(pick.randint(1, 6)):
        fn = pick.choice(["tanh(add({0}, {1}))", "nn.softmax({0})", "reshape({0}, newshape=[2, 8])", "tanh({0})"])
        if pick.random() < 0.2:
            steps.append(f"%s{k} = less(sum({pick.choice(known)}), 0f);")
            two = [pick.choice(known), pick.choice(known)]
            steps.append(f"%t{k} = if (%s{k}) {{ exp(negative(abs({two[0]}))) }} else {{ tanh({two[1]}) }};")
        else:
            steps.append(f"%t{k} = {fn.format(pick.choice(known), pick.choice(known))};")
        known.append(f"%t{k}")
    moved(looping(dict.fromkeys(names, S), " ".join(steps), [pick.choice(known) for _ in names]), [(2, 8)] * len(names))
