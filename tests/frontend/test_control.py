"""If, Loop and Scan: compiled into branches and loops of the program, against onnxruntime or NumPy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parent))

from models import INT64, model, node, run, value
from tolerance import close

import warpbeam
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError
from warpbeam.runtime.errors import RunError
from warpbeam.runtime.program import Branch, CallKernel, Loop

BOOL = TensorProto.BOOL
RNG = np.random.default_rng(3)
X = RNG.standard_normal((4, 6)).astype(np.float32)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], name: str = "body") -> Any:
    return helper.make_graph([node(*n) for n in nodes], name, [value(*i) for i in inputs], [value(*o) for o in outputs])


def both(proto: Any, *arrays: np.ndarray) -> Any:
    """Results of the compiled module, which equal those of the interpreter."""
    module = warpbeam.compile(proto, cache=False)
    got = module(*arrays)
    want = run(proto, *arrays)
    for g, w in zip(
        got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple | list) else (want,), strict=True
    ):
        np.testing.assert_allclose(np.asarray(g), np.asarray(w), rtol=1e-5, atol=1e-6)
    return got, module.artifact.program()


def branching() -> Any:
    then = graph([("Relu", "y", "t")], [], [("t", None)])
    other = graph([("Neg", "y", "n"), ("Exp", "n", "o")], [], [("o", None)])
    attrs = {"then_branch": then, "else_branch": other}
    nodes = [("Tanh", "x", "y"), ("If", "c", "z", attrs), ("Add", "z y", "w")]
    return model(nodes, [("x", [4, 6]), ("c", [], BOOL)], [("w", None)])


def test_only_the_chosen_branch_runs() -> None:
    for chosen in (True, False):
        got, program = both(branching(), X, np.array(chosen))
        y = np.tanh(X)
        np.testing.assert_allclose(got, (np.maximum(y, 0) if chosen else np.exp(-y)) + y, rtol=1e-5, atol=1e-6)
    (branch,) = [i for i in program.body if isinstance(i, Branch)]
    assert all(any(isinstance(i, CallKernel) for i in b) for b in (branch.then, branch.other))


def test_branches_inside_branches_capture_what_is_outside() -> None:
    inner = {
        "then_branch": graph([("Add", "y x", "a")], [], [("a", None)]),
        "else_branch": graph([("Sub", "y x", "b")], [], [("b", None)]),
    }
    outer = {
        "then_branch": graph([("Exp", "x", "e"), ("If", "d", "f", inner), ("Mul", "e f", "g")], [], [("g", None)]),
        "else_branch": graph([("Identity", "y", "h")], [], [("h", None)]),
    }
    proto = model(
        [("Tanh", "x", "y"), ("If", "c", "z", outer)], [("x", [4, 6]), ("c", [], BOOL), ("d", [], BOOL)], [("z", None)]
    )
    for c in (True, False):
        for d in (True, False):
            got, _ = both(proto, X, np.array(c), np.array(d))
            y = np.tanh(X)
            np.testing.assert_allclose(got, np.exp(X) * (y + X if d else y - X) if c else y, rtol=1e-5, atol=1e-6)


def test_branches_of_different_shapes() -> None:
    attrs = {
        "then_branch": graph([("Relu", "x", "t")], [], [("t", None)]),
        "else_branch": graph([("Transpose", "x", "o")], [], [("o", None)]),
    }
    proto = model([("If", "c", "z", attrs)], [("x", [4, 6]), ("c", [], BOOL)], [("z", None)])
    for c in (True, False):
        got, _ = both(proto, X, np.array(c))
        np.testing.assert_array_equal(got, np.maximum(X, 0) if c else X.T)


def test_branches_of_different_types_are_refused() -> None:
    attrs = {
        "then_branch": graph([("Relu", "x", "t")], [], [("t", None)]),
        "else_branch": graph([("Cast", "x", "o", {"to": TensorProto.DOUBLE})], [], [("o", None)]),
    }
    with pytest.raises(UnsupportedError, match="branches give output 0"):
        import_model(model([("If", "c", "z", attrs)], [("x", [4, 6]), ("c", [], BOOL)], [("z", None)]))


def half_fitting(wrong_first: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attributes of an If one branch of which multiplies matrices that do not fit."""
    wrong = graph([("MatMul", "x x", "p")], [], [("p", None)])
    right = graph([("MatMul", "x w", "q"), ("Relu", "q", "r")], [], [("r", None)])
    first, second = (wrong, right) if wrong_first else (right, wrong)
    return {"then_branch": first, "else_branch": second}, {"w": RNG.standard_normal((6, 6)).astype(np.float32)}


@pytest.mark.parametrize("wrong_first", [False, True])
def test_a_branch_that_cannot_work_with_the_shapes_is_refused_where_it_is_asked_for(wrong_first: bool) -> None:
    attrs, held = half_fitting(wrong_first)
    m = model([("If", "c", "z", attrs, "choice")], [("x", [4, 6]), ("c", [], BOOL)], [("z", None)], held)
    module = warpbeam.compile(m, cache=False)
    np.testing.assert_allclose(module(X, np.array(not wrong_first)), np.maximum(X @ held["w"], 0), rtol=1e-5)
    with pytest.raises(RunError, match=r"node 'choice': the branch .* MatMul"):
        module(X, np.array(wrong_first))


def test_a_branch_that_cannot_work_matters_only_where_it_is_reached() -> None:
    attrs, held = half_fitting(False)
    outer = {
        "then_branch": graph([("If", "d", "i", attrs)], [], [("i", None)]),
        "else_branch": graph([("Neg", "x", "n")], [], [("n", None)]),
    }
    m = model([("If", "c", "z", outer)], [("x", [4, 6]), ("c", [], BOOL), ("d", [], BOOL)], [("z", None)], held)
    module = warpbeam.compile(m, cache=False)
    no, yes = np.array(False), np.array(True)
    np.testing.assert_array_equal(module(X, no, no), -X)
    np.testing.assert_allclose(module(X, yes, yes), np.maximum(X @ held["w"], 0), rtol=1e-5)
    with pytest.raises(RunError, match="does not fit these shapes"):
        module(X, yes, no)


def test_a_model_with_two_branches_that_cannot_work_is_refused() -> None:
    wrong = graph([("MatMul", "x x", "p")], [], [("p", None)])
    m = model(
        [("If", "c", "z", {"then_branch": wrong, "else_branch": wrong})],
        [("x", [4, 6]), ("c", [], BOOL)],
        [("z", None)],
    )
    with pytest.raises(ImportModelError, match="MatMul"):
        import_model(m)


def counting(condition: bool) -> Any:
    nodes = [("MatMul", "s w", "p"), ("Tanh", "p", "n"), ("Tanh", "w", "v"), ("ReduceSum", "v", "q", {"keepdims": 0})]
    nodes += [("Mul", "n q", "m"), ("ReduceMax", "m", "top", {"keepdims": 0}), ("Less", "top limit", "go_on")]
    if not condition:
        nodes[-1] = ("Identity", "go", "go_on")
    outs = [("go_on", [], BOOL), ("m", [4, 4])] + ([] if condition else [("top", [])])
    body = graph(nodes, [("i", [], INT64), ("go", [], BOOL), ("s", [4, 4])], outs)
    out = "r" if condition else "r tops"
    consts = {"limit": np.array(0.9, np.float32), "yes": np.array(True)}
    return model(
        [("Loop", "n yes x", out, {"body": body})],
        [("n", [], INT64), ("x", [4, 4]), ("w", [4, 4])],
        [(o, None) for o in out.split()],
        consts,
    )


def test_loops_stop_by_their_condition() -> None:
    w = RNG.standard_normal((4, 4)).astype(np.float32) * 0.3
    x = RNG.standard_normal((4, 4)).astype(np.float32)
    for n in (0, 1, 7):
        got, program = both(counting(True), np.array(n, np.int64), x, w)
        s, q = x, np.tanh(w).sum()
        for _ in range(n):
            s = np.tanh(s @ w) * q
            if not s.max() < 0.9:
                break
        np.testing.assert_allclose(got, s, rtol=1e-4, atol=1e-5)
    assert any(isinstance(i, Loop) for i in program.body)


def test_what_does_not_change_is_computed_before_the_loop() -> None:
    _, program = both(counting(True), np.array(2, np.int64), X[:, :4], X[:, :4])
    (loop,) = [i for i in program.body if isinstance(i, Loop)]
    before = [i for i in program.body if isinstance(i, CallKernel)]
    assert len(before) >= 2 and len([i for i in loop.body if isinstance(i, CallKernel)]) >= 2


def scanning(backward: int, axis: int) -> Any:
    nodes = [("Add", "s e", "t"), ("Mul", "t e", "o"), ("Identity", "t", "t2")]
    body = graph(nodes, [("s", [6]), ("e", [6])], [("t2", [6]), ("o", [6])])
    attrs = {"body": body, "num_scan_inputs": 1, "scan_input_directions": [backward], "scan_output_axes": [axis]}
    attrs["scan_output_directions"] = [backward]
    return model([("Scan", "b x", "f y", attrs)], [("b", [6]), ("x", ["N", 6])], [("f", None), ("y", None)])


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_scan_of_any_length_direction_and_axis(backward: int, axis: int) -> None:
    proto = scanning(backward, axis)
    module = warpbeam.compile(proto, cache=False)
    for n in (1, 5, 9):
        x = RNG.standard_normal((n, 6)).astype(np.float32)
        s, rows = np.ones(6, np.float32), {}
        for i in range(n)[::-1] if backward else range(n):
            s = s + x[i]
            rows[i] = s * x[i]
        final, y = module(np.ones(6, np.float32), x)
        want = np.stack([rows[i] for i in range(n)], axis=axis)
        np.testing.assert_allclose(final, s, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_loops_with_a_fixed_number_of_iterations_gather() -> None:
    body = graph(
        [("Add", "s one", "t"), ("Identity", "go", "g"), ("Mul", "t t", "o")],
        [("i", [], INT64), ("go", [], BOOL), ("s", [3])],
        [("g", [], BOOL), ("t", [3]), ("o", [3])],
    )
    consts = {"n": np.array(4, np.int64), "yes": np.array(True), "one": np.array(1, np.float32)}
    proto = model([("Loop", "n yes x", "r all", {"body": body})], [("x", [3])], [("r", None), ("all", None)], consts)
    x = np.arange(3, dtype=np.float32)
    (r, rows), _ = both(proto, x)
    np.testing.assert_array_equal(r, x + 4)
    np.testing.assert_array_equal(rows, np.stack([(x + k) ** 2 for k in range(1, 5)]))


def test_a_loop_whose_state_grows_is_refused() -> None:
    body = graph(
        [("Concat", "s s", "t", {"axis": 0}), ("Identity", "go", "g")],
        [("i", [], INT64), ("go", [], BOOL), ("s", [3])],
        [("g", [], BOOL), ("t", [6])],
    )
    consts = {"n": np.array(4, np.int64), "yes": np.array(True)}
    with pytest.raises(UnsupportedError, match="state 0 is"):
        import_model(model([("Loop", "n yes x", "r", {"body": body})], [("x", [3])], [("r", None)], consts))


def test_scan_with_an_axis_of_batches() -> None:
    """Version 8 of the operator: every batch is a scan of its own; the second sequence runs backward."""
    body = graph(
        [("Add", "s a", "t"), ("Mul", "t b", "r")], [("s", [2]), ("a", [2]), ("b", [2])], [("t", [2]), ("r", [2])]
    )
    attrs = {"body": body, "num_scan_inputs": 2, "directions": [0, 1]}
    scan = model([("Scan", "_ s x z", "y r", attrs)], [("s", [3, 2]), ("x", [3, 4, 2]), ("z", [3, 4, 2])],
                 [("y", [3, 2]), ("r", [3, 4, 2])], opset=8)  # fmt: skip
    s, x, z = (RNG.standard_normal(n).astype(np.float32) for n in ((3, 2), (3, 4, 2), (3, 4, 2)))
    (y, r), _ = both(scan, s, x, z)
    sums = s[:, None] + np.cumsum(x, 1)
    np.testing.assert_allclose(y, sums[:, -1], rtol=1e-5)
    np.testing.assert_allclose(r, sums * z[:, ::-1], rtol=1e-5)


def test_states_that_a_body_hands_on_are_not_copied() -> None:
    """Exporters pass weights through a loop as states; what depends on them alone is computed once, before it."""
    nodes = [("Tanh", "w", "v"), ("MatMul", "s v", "t"), ("Identity", "go", "on")]
    ports = [("i", [], INT64), ("go", [], BOOL), ("w", [4, 4]), ("s", [2, 4])]
    body = graph(nodes, ports, [("on", [], BOOL), ("w", [4, 4]), ("t", [2, 4])])
    proto = model(
        [("Loop", "n yes a x", "b r", {"body": body})],
        [("n", [], INT64), ("a", [4, 4]), ("x", [2, 4])],
        [("b", None), ("r", None)],
        {"yes": np.array(True)},
    )
    a, x = X[:, :4] * np.float32(0.5), X[:2, :4]
    for n in (0, 1, 3):
        (b, r), program = both(proto, np.array(n, np.int64), a, x)
        np.testing.assert_array_equal(b, a)
        np.testing.assert_allclose(r, x @ np.linalg.matrix_power(np.tanh(a), n), rtol=1e-4, atol=1e-5)
    (loop,) = [i for i in program.body if isinstance(i, Loop)]
    shapes = {v.id: v.shape for v in program.values}
    written = [shapes[w] for i in loop.body if isinstance(i, CallKernel) for w in i.writes]
    assert (2, 4) in written and (4, 4) not in written


def exported_layers(steps: int | str, layers: int = 1) -> Any:
    """Loops as exporters write recurrent layers: the condition counts, rows are taken and gathered at a counter."""
    rng = np.random.default_rng(5)
    held = {"w0": rng.standard_normal((3, 3)), "u0": rng.standard_normal((3, 3)), "h": np.zeros((1, 3))}
    held = {k: 0.3 * v.astype(np.float32) for k, v in held.items()}  # errors of a step shrink in the next
    held |= {"one": np.array(1, np.int32), "zero": np.array(0, np.int32), "yes": np.array(True), "at": np.array(0)}
    kind = TensorProto.INT32
    ports = [("i", [], INT64), ("go", [], BOOL), ("t", [], kind), ("s", [1, 3]), ("w", [3, 3]), ("u", [3, 3])]
    outs = [("go_on", [], BOOL), ("t2", [], kind), ("s2", [1, 3]), ("w", [3, 3]), ("u", [3, 3]), ("y", [1, 3])]
    nodes: list[Any] = []
    for k in range(layers):
        step = [
            ("Gather", f"x{k} t", "row", {"axis": 0}),
            ("MatMul", "row w", "p"),
            ("MatMul", "s u", "q"),
            ("Add", "p q", "z"),
            ("Tanh", "z", "s2"),
            ("Identity", "s2", "y"),
            ("Add", "t one", "t2"),
            ("Cast", "t2", "a", {"to": TensorProto.FLOAT}),
            ("Less", f"a limit{k}", "go_on"),
        ]
        if isinstance(steps, int):
            held[f"limit{k}"] = np.array(steps, np.float32)
        else:
            cast = ("Cast", f"count{k}", f"limit{k}", {"to": TensorProto.FLOAT})
            nodes += [("Shape", f"x{k}", f"size{k}"), ("Gather", f"size{k} at", f"count{k}"), cast]
        ends = f"te{k} se{k} we{k} ue{k} x{k + 1}"
        nodes.append(("Loop", "_ yes zero h w0 u0", ends, {"body": graph(step, ports, outs)}))
    return model(nodes, [("x0", [steps, 1, 3])], [(f"x{layers}", None), (f"se{layers - 1}", None)], held), held


def layers_result(x: np.ndarray, held: dict[str, np.ndarray], layers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    for _ in range(layers):
        s, rows = held["h"], []
        for row in x:
            s = np.tanh(row @ held["w0"] + s @ held["u0"])
            rows.append(s)
        x = np.stack(rows)
    return x, s


def test_a_loop_that_a_counter_ends_runs_a_known_number_of_times() -> None:
    """Its results have known sizes, its condition is not computed, and the rows' product is made before it."""
    proto, held = exported_layers(7)
    x = RNG.standard_normal((7, 1, 3)).astype(np.float32)
    (rows, last), program = both(proto, x)
    want = layers_result(x, held)
    np.testing.assert_allclose(rows, want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, want[1], rtol=1e-5, atol=1e-6)
    (loop,) = [i for i in program.body if isinstance(i, Loop)]
    assert not program.symbols
    shapes = {v.id: v.shape for v in program.values}
    before = [shapes[w] for i in program.body if isinstance(i, CallKernel) for w in i.writes]
    assert (7, 3) in before or (7, 1, 3) in before  # x by w, of all rows
    dtypes = {v.id: v.dtype for v in program.values}
    written = [dtypes[w] for i in loop.body if isinstance(i, CallKernel) for w in i.writes]
    assert written.count("bool") == 1 and "float32" in written  # only whether there is another round


def test_loops_that_count_to_an_open_size_are_counted_without_their_work() -> None:
    """Each once, however many values have sizes that follow from them."""
    proto, held = exported_layers("N", 3)
    module = warpbeam.compile(proto, cache=False)
    for n in (1, 4, 9):
        x = RNG.standard_normal((n, 1, 3)).astype(np.float32)
        for got, want in zip(module(x), layers_result(x, held, 3), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    program = module.artifact.program()
    shapes = {v.id: v.shape for v in program.values}
    loops = [i for i in program.body if isinstance(i, Loop)]
    written = [[shapes[w] for i in one.body if isinstance(i, CallKernel) for w in i.writes] for one in loops]
    assert [(1, 3) in w for w in written].count(True) == 3 and len(loops) == 6


@pytest.mark.parametrize("bound", [None, 0, 3, 5])
def test_conditions_that_constants_decide_are_decided_once(bound: int | None) -> None:
    """s doubles while it is below 30: 1, 2, 4, 8, 16 and 32 are seen, unless there is a bound."""
    body = graph(
        [("Add", "k k", "k2"), ("Less", "k2 top", "go_on"), ("Add", "s one", "s2"), ("Identity", "s2", "y")],
        [("i", [], INT64), ("go", [], BOOL), ("k", []), ("s", [2])],
        [("go_on", [], BOOL), ("k2", []), ("s2", [2]), ("y", [2])],
    )
    held = {k: np.array(v, np.float32) for k, v in (("top", 30), ("one", 1), ("first", 1))}
    held |= {"yes": np.array(True)} | ({} if bound is None else {"m": np.array(bound, np.int64)})
    ends = [("k_end", None), ("s_end", None), ("all", None)]
    first = "_" if bound is None else "m"
    proto = model([("Loop", f"{first} yes first x", "k_end s_end all", {"body": body})], [("x", [2])], ends, held)
    done = 5 if bound is None else bound
    (k, s, rows), program = both(proto, X[0, :2])
    assert k == 2.0**done and rows.shape == (done, 2) and not program.symbols
    close(s, X[0, :2] + done, terms=done)


@pytest.mark.parametrize(("go_on", "done"), [("Identity go", 4), ("Less i two", 3), ("Less k two", 2)])
def test_the_condition_is_true_wherever_the_body_reads_it(go_on: str, done: int) -> None:
    """Also where constants decide how often the loop runs; here it begins a loop within, and chooses a value."""
    within = graph(
        [("Identity", "g", "h"), ("Add", "r one", "r2")], [("j", [], INT64), ("g", [], BOOL), ("r", [2])],
        [("h", [], BOOL), ("r2", [2])], "within",
    )  # fmt: skip
    op, ins = go_on.split(" ", 1)
    body = graph(
        [
            (op, ins, "go_on"), ("Add", "k step", "k2"), ("Loop", "two go s", "t", {"body": within}),
            ("Where", "go t x", "s2"),
        ],
        [("i", [], INT64), ("go", [], BOOL), ("k", [], INT64), ("s", [2])],
        [("go_on", [], BOOL), ("k2", [], INT64), ("s2", [2])],
    )  # fmt: skip
    held = {"one": np.array(1, np.float32), "two": np.array(2), "step": np.array(2), "zero": np.array(0)}
    held |= {"m": np.array(4), "yes": np.array(True)}
    proto = model([("Loop", "m yes zero x", "k_end s_end", {"body": body})], [("x", [2])], [("s_end", None)], held)
    got, _ = both(proto, X[0, :2])
    close(got, X[0, :2] + 2 * done, terms=2 * done)


def test_a_loop_too_long_to_be_tried_is_counted_when_it_runs() -> None:
    body = graph(
        [("Add", "k one", "k2"), ("Less", "k2 top", "go_on"), ("Identity", "k2", "y")],
        [("i", [], INT64), ("go", [], BOOL), ("k", [], INT64)],
        [("go_on", [], BOOL), ("k2", [], INT64), ("y", [], INT64)],
    )
    held = {"one": np.array(1), "top": np.array(5000), "zero": np.array(0), "yes": np.array(True)}
    proto = model(
        [("Loop", "_ yes zero", "k_end all", {"body": body}), ("Mul", "all x", "z")],
        [("x", [], INT64)],
        [("z", None, INT64)],
        held,
    )
    module = warpbeam.compile(proto, cache=False)
    np.testing.assert_array_equal(module(np.array(2)), 2 * np.arange(1, 5001))
    assert len([i for i in module.artifact.program().body if isinstance(i, Loop)]) == 2


def test_the_classic_import_keeps_the_functions_of_loops() -> None:
    from warpbeam.frontend.onnx import from_onnx
    from warpbeam.relay.interp import evaluate

    proto, held = exported_layers(4)
    mod, params = from_onnx(proto)
    x = RNG.standard_normal((4, 1, 3)).astype(np.float32)
    got = evaluate(mod, {"x0": x, **params})
    np.testing.assert_allclose(got[0], layers_result(x, held)[0], rtol=1e-5, atol=1e-6)
