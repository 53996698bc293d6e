"""Programs: shape expressions, JSON, text, validation, and the debug executor's meaning of each instruction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_helpers import add_artifact, add_program

from warpbeam.runtime import ArtifactError, Module, Program, RunError, shape_expr
from warpbeam.runtime.executor import Machine, Object, execute
from warpbeam.runtime.program import (
    Alloc,
    Branch,
    CallClosure,
    CallExternal,
    CallKernel,
    CallProgram,
    Check,
    DeviceCopy,
    Free,
    GetField,
    Instruction,
    Loop,
    MakeObject,
    Move,
    Port,
    Return,
    SetSymbol,
    ShapeOf,
    Symbol,
    Sync,
    Value,
    View,
    walk,
)  # fmt: skip
from warpbeam.runtime.shape_expr import ShapeExpr, evaluate

X = np.arange(8, dtype=np.float32)
MODULE = Module(add_artifact("n"))
EXPRESSIONS = st.recursive(
    st.one_of(st.integers(-50, 50), st.sampled_from(["n", "m"])),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["add", "sub", "mul", "min", "max", "eq", "lt", "le", "and", "or"]), inner, inner),
        st.tuples(st.sampled_from(["floordiv", "mod", "ceildiv"]), inner, st.integers(1, 9)),
        st.tuples(st.just("not"), inner),
        st.tuples(st.just("select"), inner, inner, inner),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS, st.integers(0, 99), st.integers(0, 99))
def test_expressions_evaluate_as_their_text_in_python(expr: ShapeExpr, n: int, m: int) -> None:
    names = {
        "min": min, "max": max, "select": lambda c, a, b: a if c else b, "n": n, "m": m,
        "ceildiv": lambda a, b: -(-a // b),
    }  # fmt: skip
    text = shape_expr.show(expr)
    value = evaluate(expr, {"n": n, "m": m})
    if not any(word in text for word in ("and", "or", "not", "==", "<")):  # Python's have other values or chain
        assert value == int(eval(text, {"__builtins__": {}}, names))
    assert shape_expr.from_json(json.loads(json.dumps(shape_expr.to_json(expr)))) == expr


def test_expressions_of_any_depth() -> None:
    deep: ShapeExpr = "n"
    for _ in range(5000):
        deep = ("add", deep, 1)
    assert evaluate(deep, {"n": 3}) == 5003 and len(shape_expr.show(deep)) > 5000


@pytest.mark.parametrize(
    "bad", [True, 1.5, "", (), ("add", 1), ("launch", 1, 2), ("dim", "n", 0), ("dim", -1, 0), None]
)
def test_bad_expressions_are_refused(bad: Any) -> None:
    with pytest.raises(ArtifactError):
        shape_expr.check(bad, "here")


def test_expression_errors() -> None:
    with pytest.raises(RunError, match="symbol 'q' has no value"):
        evaluate("q", {"n": 1})
    for operator in ("floordiv", "mod", "ceildiv"):
        with pytest.raises(RunError, match="division by zero"):
            evaluate((operator, 1, 0), {})


def tensor(number: int, storage: tuple[Any, ...], shape: tuple[Any, ...] = (8,), dtype: str = "float32") -> Value:
    return Value(number, "tensor", dtype, shape, storage=storage, name=f"v{number}")


def program(values: Sequence[Value], body: Sequence[Instruction], **fields: Any) -> Program:
    """A program from input %0 to output %1."""
    base = (tensor(0, ("input", 0)), tensor(1, ("output", 0)))
    return Program("p", (Port("x", 0),), (Port("y", 1),), (*base, *values), tuple(body), **fields)


def run(p: Program, *inputs: Any, **externals: Any) -> Any:
    p.validate()
    assert Program.from_json(p.to_json()) == p
    assert str(p).startswith("program p(")
    machine = Machine(
        MODULE.library, MODULE.host_context(), np.arange(64, dtype=np.uint8), np.zeros(64, np.uint8),
        {"add": "add_kernel"}, externals,
    )  # fmt: skip
    return execute(p, machine, inputs or (X,))[0]


def add(a: int, b: int, out: int) -> CallKernel:
    return CallKernel("add", (a, b, out), (8,), writes=(out,))


def test_kernels_arena_views_and_constants() -> None:
    values = [
        tensor(2, ("arena", 64)), tensor(3, ("view", 2, 16), (4,)), tensor(4, ("const", 0), (16,)),
        tensor(5, ("view", 3, 4), (2,)),
    ]  # fmt: skip
    body = [add(0, 0, 2), CallKernel("add", (3, 3, 3), (4,), donates=(3,), writes=(3,)), add(2, 0, 1)]
    got = run(program(values, body, arena_bytes=128))
    assert got.tolist() == (3 * X + np.where(X >= 4, 2 * X, 0)).tolist()
    p = program(
        values, [add(0, 0, 2), CallExternal("same", (4,), ()), CallExternal("same", (5,), ()), Move(1, 0)],
        arena_bytes=128,
    )  # fmt: skip
    seen: list[Any] = []
    run(p, same=lambda a: seen.append(a.copy()) or [])
    assert seen[0].tobytes() == bytes(range(64))  # the constants of `run`
    assert seen[1].tolist() == (2 * X)[5:7].tolist()  # 16 + 4 bytes into the sums


def test_symbols_checks_and_branches() -> None:
    def build(limit: int) -> Program:
        body = [
            ShapeOf("extent", 0, 0),
            SetSymbol("double", ("mul", "extent", 2)),
            Check(("eq", "double", 16), "must be 8"),
            Branch(("lt", "n", limit), (add(0, 0, 1), Return()), (Move(1, 0),)),
        ]
        return program([], body, symbols=(Symbol("n", ("dim", 0, 0)),))

    assert run(build(9)).tolist() == (2 * X).tolist()
    assert run(build(8)).tolist() == X.tolist()
    failing = program([], [Check(0, "never works")])
    with pytest.raises(RunError, match="never works"):
        run(failing)


def test_loops_count_and_stop() -> None:
    body = [Move(1, 0), Loop("i", 5, ("lt", "i", 3), (add(1, 0, 1),))]
    assert run(program([], body)).tolist() == (4 * X).tolist()
    bounded = [Move(1, 0), Loop("i", 2, 1, (add(1, 0, 1),))]
    assert run(program([], bounded)).tolist() == (3 * X).tolist()
    flag = tensor(2, ("alloc",), (), "int64")
    data_dependent = [
        Alloc(2), CallExternal("zero", (2,), ()), Move(1, 0),
        Loop("i", -1, ("lt", ("load", 2, 0), 4), (add(1, 0, 1), CallExternal("step", (2,), ()))),
    ]  # fmt: skip

    def step(value: Any) -> list[Any]:
        value += 1
        return []

    assert run(program([flag], data_dependent), zero=lambda a: a.fill(0) or [], step=step).tolist() == (5 * X).tolist()


def test_allocation_lives_between_alloc_and_free() -> None:
    value = tensor(2, ("alloc",), ("n",))
    symbols = (Symbol("n", ("dim", 0, 0)),)
    assert run(program([value], [Alloc(2), add(0, 0, 2), Move(1, 2), Free(2), Sync((1, 0))], symbols=symbols))[1] == 2
    for body in ([add(0, 0, 2)], [Alloc(2), Free(2), Move(1, 2)]):
        with pytest.raises(RunError, match="before it exists"):
            run(program([value], body, symbols=symbols))


def test_run_time_views_and_copies() -> None:
    values = [tensor(2, ("alloc",), (4,)), tensor(3, ("alloc",), (8,))]
    body = [View(2, 0, 16), DeviceCopy(3, 0), Move(1, 3), CallKernel("add", (2, 2, 1), (4,), writes=(1,))]
    assert run(program(values, body)).tolist() == [8, 10, 12, 14, 4, 5, 6, 7]
    with pytest.raises(RunError, match="outside its storage"):
        run(program(values, [View(2, 0, 20)]))


def test_objects_closures_and_calls() -> None:
    double = Program(
        "double", (Port("a", 0),), (Port("b", 1),),
        (tensor(0, ("input", 0)), tensor(1, ("output", 0))), (add(0, 0, 1),),
    )  # fmt: skip
    plus = Program(
        "plus", (Port("a", 0), Port("b", 1)), (Port("c", 2),),
        (tensor(0, ("input", 0)), tensor(1, ("input", 1)), tensor(2, ("output", 0))), (add(0, 1, 2),),
    )  # fmt: skip
    values = [
        Value(2, "tuple"), Value(3, "closure"), Value(4, "adt"), tensor(5, ("alloc",)), tensor(6, ("alloc",)),
    ]  # fmt: skip
    body = [
        CallProgram("double", (0,), (5,)),
        MakeObject(2, (0, 5)),
        MakeObject(3, (5,), function="plus"),
        MakeObject(4, (2,), tag=7),
        GetField(2, 4, 0),
        GetField(6, 2, ("sub", ("len", 2), 1)),
        CallClosure(3, (6,), (1,)),
        Check(("eq", ("tag", 4), 7), "tag"),
    ]
    assert run(program(values, body, functions=(double, plus))).tolist() == (4 * X).tolist()
    with pytest.raises(RunError, match="field 2 of %2 does not exist"):
        run(program(values, [MakeObject(2, (0, 0)), GetField(6, 2, 2)]))
    give = program([Value(2, "sequence")], [CallExternal("make", (), (2,)), GetField(1, 2, 0)])
    assert run(give, make=lambda: [Object((X + 1,))]).tolist() == (X + 1).tolist()


def test_endless_recursion_is_an_error() -> None:
    forever = Program(
        "f", (Port("a", 0),), (Port("b", 1),), (tensor(0, ("input", 0)), tensor(1, ("output", 0))),
        (CallProgram("f", (0,), (1,)),),
    )  # fmt: skip
    with pytest.raises(RunError, match="deep"):
        run(program([], [CallProgram("f", (0,), (1,))], functions=(forever,)))


def test_executor_agrees_with_the_native_entry() -> None:
    machine = Machine(
        MODULE.library, MODULE.host_context(), X.view(np.uint8), X.view(np.uint8), {"add": "add_kernel"}, {}
    )
    assert np.array_equal(execute(add_program("n"), machine, (X, X))[0], MODULE(X, X))
    with pytest.raises(RunError, match="1 inputs given"):
        execute(add_program(8), machine, (X,))


def test_failing_kernels_and_missing_externals_are_errors() -> None:
    with pytest.raises(RunError, match="'engine' is not available"):
        run(program([], [CallExternal("engine", (0,), (1,))]))


@pytest.mark.parametrize(
    ("values", "body", "fields", "message"),
    [
        ([tensor(0, ("input", 0))], [], {}, "same id"),
        ([], [add(0, 0, 9)], {}, "%9 does not exist"),
        ([tensor(2, ("input", 3))], [], {}, "input 3 of 1"),
        ([tensor(2, ("output", "n"))], [], {}, "output 'n' of 1"),
        ([tensor(2, ("const", -4))], [], {}, "bad const offset"),
        ([tensor(2, ("moon",))], [], {}, "unknown storage"),
        ([tensor(2, ("object",))], [], {}, "no storage"),
        ([tensor(2, ("arena", 0), dtype="float33")], [], {}, "float33"),
        ([Value(2, "heap")], [], {}, "unknown kind"),
        ([tensor(2, ("view", 3, 0)), tensor(3, ("view", 2, 0))], [], {}, "leads nowhere"),
        ([tensor(2, ("view", 7, 0))], [], {}, "leads nowhere"),
        ([tensor(2, ("arena", 0), ("q",))], [], {}, "'q' is used before"),
        ([], [Check("q", "")], {}, "'q' is used before"),
        ([], [Branch(1, (SetSymbol("q", 1),)), Check("q", "")], {}, "'q' is used before"),
        ([], [Check(("dim", 1, 0), "")], {}, "no input 1"),
        ([], [Check(("dim", 0, 1), "")], {}, "no axis 1"),
        ([], [ShapeOf("s", 0, 1)], {}, "no axis 1"),
        ([], [Free(0)], {}, "its storage is input"),
        ([], [CallProgram("f", (0,), (1,))], {}, "'f' does not exist"),
        ([], [CallKernel("k", (0,), writes=(1,))], {}, "no argument"),
        ([Value(2, "tuple")], [add(2, 0, 1)], {}, "%2 is a tuple"),
        ([Value(2, "tuple")], [Move(2, 0)], {}, "another kind"),
        ([Value(2, "closure")], [MakeObject(2, (), function="f")], {}, "unknown program 'f'"),
        ([], [], {"alignment": 3}, "power of two"),
        ([], [], {"arena_bytes": "q"}, "'q'"),
        ([], [], {"functions": (add_program(), add_program())}, "same name"),
        ([], [], {"functions": (replace(add_program(), functions=(add_program(),)),)}, "cannot hold"),
    ],
)
def test_inconsistent_programs_are_refused(values: list[Value], body: list[Any], fields: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        program(values, body, **fields).validate()


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ArtifactError, match="called with 1 inputs"):
        program([], [CallProgram("add", (0,), (1,))], functions=(add_program(),)).validate()


def test_nesting_is_bounded() -> None:
    body: tuple[Instruction, ...] = ()
    for _ in range(70):
        body = (Branch(1, body),)
    nested = program([], body)
    assert len(list(walk(nested.body))) == 70
    with pytest.raises(ArtifactError, match="nested"):
        nested.validate()
    with pytest.raises(ArtifactError, match="depth"):
        Program.from_json(nested.to_json())


def test_sizes_nested_too_deeply_for_json_are_an_error_of_ours() -> None:
    deep: ShapeExpr = "n"
    for _ in range(5000):
        deep = ("add", deep, 1)
    with pytest.raises(ArtifactError) as error:
        program([], (SetSymbol("m", deep),)).to_json()
    assert "a size of the model cannot be stored" in str(error.value) and "give fewer inner values" in str(error.value)


def forged(*path: Any, value: Any) -> str:
    data = json.loads(add_program("n").to_json())
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "Program expected"),
        ("{}", "Program.name is missing"),
        (forged("surprise", value=1), "no field surprise"),
        (forged("body", 0, "op", value="Launch"), "unknown instruction 'Launch'"),
        (forged("body", 0, "args", value=[True]), "integer"),
        (forged("body", 0, "kernel", value=3), "string"),
        (forged("body", value={}), "list"),
        (forged("values", 0, "device", value=[1]), "two integers"),
        (forged("values", 0, "storage", value=[7]), "not a storage"),
        (forged("values", 0, "shape", value=[["add", 1]]), "operands"),
    ],
)
def test_forged_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Program.from_json(text)


def test_text() -> None:
    text = str(add_program("n"))
    assert text == "\n".join(
        [
            "program add(x=%0, y=%1) -> (z=%2)",
            "  symbol n = dim(0, 0)",
            "  arena 0 bytes, aligned 64",
            "  %0: float32[n] @ input 0 x  # Add_0",
            "  %1: float32[n] @ input 1 y  # Add_0",
            "  %2: float32[n] @ output 0 z  # Add_0",
            "  call add(%0, %1, %2; n) writes %2",
            "  return",
        ]
    )


def test_booleans_are_zero_and_one() -> None:
    for operator, expected in (("and", 0), ("or", 1), ("lt", 1), ("le", 1), ("eq", 0), ("ne", 1), ("gt", 0), ("ge", 0)):
        assert evaluate((operator, 0, 5), {}) == expected
    assert evaluate(("not", 7), {}) == 0 and evaluate(("not", 0), {}) == 1 and evaluate(("neg", 4), {}) == -4
