"""The virtual machine's face: tuples, branches, loops and sizes through one native call; code and library."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerance import close_trees

import warpbeam as tvm
from warpbeam import relay
from warpbeam.relay.expr import IRModule
from warpbeam.runtime import Module
from warpbeam.runtime.container import ADT, tuple_object
from warpbeam.runtime.errors import ArtifactError, RunError, WarpbeamError
from warpbeam.runtime.structure import Structure
from warpbeam.runtime.vm import Executable, VirtualMachine

TERMS = 10  # five rounds of the longest loop, two roundings each
X = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal(2).astype(np.float32)
PAIR = relay.TupleType([relay.TensorType((3, 2)), relay.TupleType([relay.TensorType((2,))])])


def module_of(params: list[Any], body: Any) -> IRModule:
    return IRModule.from_expr(relay.Function(params, body))


def dense() -> IRModule:
    """y = (x + b, (exp(x),)) for any number of rows, and columns as b has them."""
    columns = relay.Any()
    x, b = relay.var("x", shape=(relay.Any(), columns)), relay.var("b", shape=(columns,))
    return module_of([x, b], relay.Tuple([relay.add(x, b), relay.Tuple([relay.exp(x)])]))


def tuples() -> IRModule:
    p, y = relay.var("p", PAIR), relay.var("y", shape=(2,))
    x, z = relay.TupleGetItem(p, 0), relay.TupleGetItem(relay.TupleGetItem(p, 1), 0)
    return module_of([p, y], relay.Tuple([relay.Tuple([relay.add(x, z), z]), p, relay.multiply(y, z)]))


def branches() -> IRModule:
    c, x = relay.var("c", shape=(), dtype="bool"), relay.var("x", shape=(3, 2))
    then = relay.Tuple([x, relay.Tuple([relay.exp(x), x])])
    other = relay.Tuple([relay.negative(x), relay.Tuple([x, relay.tanh(x)])])
    return module_of([c, x], relay.If(c, then, other))


def loop() -> IRModule:
    """The state (x, (y,)) goes n times round."""
    i, s = relay.var("i", shape=(), dtype="int32"), relay.var("s", PAIR)
    f = relay.GlobalVar("loop")
    x, y = relay.TupleGetItem(s, 0), relay.TupleGetItem(relay.TupleGetItem(s, 1), 0)
    new = relay.Tuple([relay.add(x, y), relay.Tuple([relay.multiply(y, relay.const(0.5))])])
    again = relay.Call(f, [relay.subtract(i, relay.const(1)), new])
    mod = IRModule()
    mod[f] = relay.Function([i, s], relay.If(relay.greater(i, relay.const(0)), again, s), PAIR)
    n, a, b = relay.var("n", shape=(), dtype="int32"), relay.var("a", shape=(3, 2)), relay.var("b", shape=(2,))
    mod["main"] = relay.Function([n, a, b], relay.Call(f, [n, relay.Tuple([a, relay.Tuple([b])])]))
    return mod


def single() -> IRModule:
    x = relay.var("x", shape=(3, 2))
    return module_of([x], relay.Tuple([relay.sqrt(relay.abs(x))]))


CASES: dict[str, tuple[Callable[[], IRModule], list[tuple[Any, ...]]]] = {
    "dense": (dense, [(X, Y), (X[:1], Y), (np.ones((7, 1), np.float32), Y[:1])]),
    "tuples": (tuples, [((X, (Y,)), Y)]),
    "branches": (branches, [(np.bool_(True), X), (np.bool_(False), X)]),
    "loop": (loop, [(np.int32(n), X, Y) for n in (0, 1, 5)]),
    "single": (single, [(X,)]),
}


def arrays(value: Any) -> Any:
    """A result as nested lists of arrays."""
    return [arrays(v) for v in value] if isinstance(value, tuple | list) else value.numpy()


@pytest.mark.parametrize("kind", ["vm", "aot", "graph"])
@pytest.mark.parametrize("name", CASES)
def test_executors_agree_with_the_interpreter(name: str, kind: str) -> None:
    make, calls = CASES[name]
    run, meant = (relay.create_executor(k, make()).evaluate() for k in (kind, "debug"))
    for args in calls:
        got = run(*args)
        assert isinstance(got, ADT if kind == "vm" else list) or name == "dense"
        close_trees(arrays(got), arrays(meant(*args)), TERMS)


@pytest.mark.parametrize("suffix", ["so", "wb"])
@pytest.mark.parametrize("name", CASES)
def test_saved_and_loaded(name: str, suffix: str, tmp_path: Path) -> None:
    make, calls = CASES[name]
    exe = relay.vm.compile(make(), "llvm")
    code, lib = exe.save()
    path = tmp_path / f"lib.{suffix}"
    lib.export_library(path) if suffix == "so" else lib.save(path)
    again = tvm.runtime.load_module(path)
    for found in (Executable.load_exec(code, again), again):
        vm = VirtualMachine(found, tvm.cpu())
        for args in calls:
            want = arrays(VirtualMachine(exe).run(*args))
            got = arrays(vm.invoke("main", *args))
            assert json.dumps(jsonable(want)) == json.dumps(jsonable(got))


def jsonable(value: Any) -> Any:
    return [jsonable(v) for v in value] if isinstance(value, list) else [value.dtype.str, value.shape, value.tolist()]


def test_a_call_is_one_native_call(monkeypatch: pytest.MonkeyPatch) -> None:
    vm = VirtualMachine(relay.vm.compile(loop()))
    calls = []
    run = Module.run_tensors
    monkeypatch.setattr(Module, "run_tensors", lambda *args: calls.append(1) or run(*args))
    vm.run(np.int32(9), X, Y)
    assert len(calls) == 1


def test_the_steps_of_the_compiler_and_parameters() -> None:
    x, w = relay.var("x", shape=(3, 2)), relay.var("w", shape=(2,))
    mod = module_of([x, w], relay.multiply(x, w))
    compiler = relay.vm.VMCompiler()
    with pytest.raises(WarpbeamError, match="lower"):
        compiler.get_exec()
    compiler.set_params({"w": Y})
    with relay.PassContext(opt_level=3):
        compiler.lower(mod, "llvm")
    compiler.codegen()
    exe = compiler.get_exec()
    assert np.array_equal(compiler.get_params()["w"].numpy(), Y)
    assert np.array_equal(VirtualMachine(exe, tvm.cpu()).run(X).numpy(), X * Y)
    assert np.array_equal(VirtualMachine(relay.vm.compile(mod, params={"w": Y})).run(X).numpy(), X * Y)
    assert exe.get_function_params("main") == ["x"] and exe.globals == ["main"]
    assert "Constant bytes" in exe.stats and exe.primitive_ops and "program main" in exe.bytecode
    assert len(relay.vm.VMCompiler().optimize(mod, params={"w": Y})[0]["main"].params) == 1


def test_inputs_first_outputs_later() -> None:
    vm = VirtualMachine(relay.vm.compile(dense()), [tvm.cpu()], "pooled")
    with pytest.raises(RunError, match="no output"):
        vm.get_outputs()
    vm.set_input("main", tvm.nd.array(X), b=Y)
    assert [vm.get_input_index(n) for n in ("x", "b", "c")] == [0, 1, -1]
    vm.invoke_stateful("main")
    assert [np.allclose(o.numpy(), e) for o, e in zip(vm.get_outputs(), (X + Y, np.exp(X)), strict=True)] == [True] * 2
    vm.set_one_input("main", "b", Y * 2)
    assert np.array_equal(vm.invoke("main")[0].numpy(), X + Y * 2)
    vm.set_one_input("main", 0, X[:1])
    vm.set_one_input("main", b=Y)
    assert np.array_equal(vm.run()[0].numpy(), X[:1] + Y)
    out = [tvm.nd.array(np.zeros_like(X)), np.zeros_like(X)]
    vm.invoke_with_outputs("main", {"x": X, "b": Y}, out)
    assert np.array_equal(out[0].numpy(), X + Y) and np.allclose(out[1], np.exp(X))
    for end_to_end in (False, True):
        result = vm.benchmark(tvm.cpu(), X, Y, repeat=2, number=3, min_repeat_ms=1, end_to_end=end_to_end)
        assert len(result.results) == 2 and result.number >= 3


def test_results_are_the_caller_s() -> None:
    vm = VirtualMachine(relay.vm.compile(single()))
    first = vm.run(X)[0]
    vm.run(X * 4)
    assert np.allclose(first.numpy(), np.sqrt(np.abs(X)))


def test_python_numbers_are_of_the_type_that_is_wanted() -> None:
    got = VirtualMachine(relay.vm.compile(loop())).run(2, X, Y.tolist())
    close_trees(arrays(got), arrays(VirtualMachine(relay.vm.compile(loop())).run(np.int32(2), X, Y)), TERMS)


def test_a_module_with_state(tmp_path: Path) -> None:
    h, x = relay.var("h", shape=(2,)), relay.var("x", shape=(2,))
    new = relay.add(relay.multiply(h, relay.const(0.5)), x)
    mod = module_of([h, x], relay.Tuple([relay.Tuple([relay.tanh(new)]), new]))
    made = tvm.compile(mod, state={"h": "output_1"})
    vm = VirtualMachine(made)
    assert vm.exe.structure.names == ["x"]
    state = np.zeros(2, np.float32)
    for k in range(3):
        state = state * np.float32(0.5) + Y * k
        ((got,),) = vm.run(Y * k)
        np.testing.assert_allclose(got.numpy(), np.tanh(state), rtol=1e-5)
    np.testing.assert_allclose(made.get_param("h"), state, rtol=1e-6)


def test_sequences_and_strings_of_onnx() -> None:
    from onnx import TensorProto as T
    from onnx import helper as h

    def imported(node: Any, inputs: list[Any], output: Any) -> Any:
        graph = h.make_graph([node], "g", inputs, [output])
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=9)
        return relay.create_executor("vm", relay.frontend.from_onnx(model)[0]).evaluate()

    pair = imported(h.make_node("SequenceConstruct", ["x", "x"], ["s"]), [h.make_tensor_value_info("x", T.FLOAT, [2])],
                    h.make_tensor_sequence_value_info("s", T.FLOAT, [2]))(Y)  # fmt: skip
    assert isinstance(pair, ADT) and [np.array_equal(p.numpy(), Y) for p in pair] == [True, True]
    words = imported(h.make_node("StringConcat", ["a", "b"], ["y"]),
                     [h.make_tensor_value_info(n, T.STRING, [2]) for n in "ab"],
                     h.make_tensor_value_info("y", T.STRING, [2]))  # fmt: skip
    assert words(np.array(["a", "b"]), np.array(["c", "d"])).tolist() == ["ac", "bd"]


def test_tuples_through_the_other_doors(tmp_path: Path) -> None:
    made = tvm.compile(tuples())
    assert [i.name for i in made.inputs] == ["p.0", "p.1.0", "y"] and len(made.outputs) == 5
    made.save(tmp_path / "m.wb")
    meant = relay.create_executor("debug", tuples()).evaluate()
    close_trees(
        arrays(VirtualMachine(tvm.load(tmp_path / "m.wb")).run((X, (Y,)), Y)), arrays(meant((X, (Y,)), Y)), TERMS
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vm: vm.run((X, Y), Y), "'p.1' is no tuple of 1"),
        (lambda vm: vm.run((X, (Y, Y)), Y), "it is one of 2"),
        (lambda vm: vm.run((X, (Y,))), "missing: y"),
        (lambda vm: vm.run((X, (Y,)), Y, Y), "3 arguments for 2"),
        (lambda vm: vm.run((X, (Y,)), Y, p=X), "given twice: p"),
        (lambda vm: vm.run((X, (Y,)), Y, q=X), "unknown: q"),
        (lambda vm: vm.run((X, (Y.astype("float64"),)), Y), "float64"),
        (lambda vm: vm.invoke("other", X), "no function 'other'"),
        (lambda vm: vm.set_one_input("main", "z", X), "no parameter 'z'"),
        (lambda vm: vm.set_one_input("main", X), "one argument"),
        (lambda vm: vm.invoke_with_outputs("main", {"p": (X, (Y,)), "y": Y}, [X]), "1 output arrays"),
    ],
)
def test_mistakes_are_named(call: Callable[[VirtualMachine], Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        call(VirtualMachine(relay.vm.compile(tuples())))


def test_refusals() -> None:
    with pytest.raises(RunError, match="no executable"):
        VirtualMachine(3)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="not supported"):
        VirtualMachine(relay.vm.compile(single()), tvm.cuda())
    with pytest.raises(WarpbeamError, match="no executor of kind 'vn'"):
        relay.create_executor("vn", single())
    with pytest.raises(WarpbeamError, match="gives no tensor"):
        relay.vm.compile(module_of([relay.var("x", shape=(3,))], relay.Tuple([])))


def test_code_belongs_to_its_library(tmp_path: Path) -> None:
    exe, other = relay.vm.compile(single()), relay.vm.compile(tuples())
    code, lib = exe.save()
    assert isinstance(code, bytearray) and lib is exe.mod
    with pytest.raises(ArtifactError, match="different models"):
        Executable.load_exec(code, other.lib)
    with pytest.raises(ArtifactError, match="needs the library"):
        Executable.load_exec(code, None)
    with pytest.raises(ArtifactError, match="no code"):
        Executable.load_exec(code[:-3], lib)
    data = json.loads(code)
    mains = ("[[1],2]", json.dumps([[], nested(300)]), '[[["x",{"tag":0,"fields":[]}]],"y"]',
             '[[],{"tag":"0","fields":[]}]', '[[],{"tag":0}]')  # fmt: skip
    for change in ({"format": "warpbeam.vm 2"}, *({"main": m} for m in mains)):
        with pytest.raises(ArtifactError):
            Executable.load_exec(json.dumps(data | change).encode(), lib)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_a_structure_of_other_tensors_is_refused() -> None:
    manifest = relay.vm.compile(tuples()).mod.artifact.manifest
    for old, new in (('"p.1.0"', '"p.1.1"'), ('"p.1.0"', '"p.0"'), ('"output_4"', '"output_3"')):
        extra = manifest.extra | {"structure": manifest.extra["structure"].replace(old, new)}
        with pytest.raises(ArtifactError, match="other tensors"):
            Structure.of(replace(manifest, extra=extra))


def test_classic_places() -> None:
    import warpbeam.relay.vm as vm

    from warpbeam.runtime import vm as runtime_vm

    assert vm.VMCompiler is tvm.relay.vm.VMCompiler and runtime_vm.Executable is vm.Executable
    package = importlib.import_module("warpbeam.relay")
    assert package.Any() is not relay.Any() and tvm.runtime.container.ADT is ADT


def test_structure_reads_what_it_wrote() -> None:
    made = Structure((("p", ["p.0", ["p.1"]]), ("y", "y")), ["output"])
    assert Structure.from_json(made.to_json()) == made
    assert made.tensors(made.arguments(((1, [2]),), {"y": 3})) == {"p.0": 1, "p.1": 2, "y": 3}
    assert tuple_object([1, 2]) == ADT(0, (1, 2)) and ADT(3, ()).tag == 3
