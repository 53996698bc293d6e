"""The classic graph executor face."""

from __future__ import annotations

import numpy as np
import pytest
from runtime_helpers import add_artifact

from warpbeam.runtime import GraphModule, Module, RunError, cpu, cuda, empty

X = np.arange(16, dtype=np.float32)


@pytest.fixture
def graph() -> GraphModule:
    return GraphModule(Module(add_artifact())["default"](cpu(0)))


def test_set_run_get(graph: GraphModule) -> None:
    assert (graph.get_num_inputs(), graph.get_num_outputs()) == (2, 1)
    graph.set_input("x", X)
    graph.set_input(1, X * 2)
    graph.run()
    assert np.array_equal(graph.get_output(0).numpy(), X * 3)
    graph.run(y=X)
    assert np.array_equal(graph.get_output("z").asnumpy(), X * 2)
    out = graph.get_output(0, empty((16,), "float32"))
    assert np.array_equal(out.numpy(), X * 2)
    graph.set_input(x=X, y=X * 5)
    graph["run"]()
    assert np.array_equal(graph.get_output(0).numpy(), X * 6)
    assert np.array_equal(graph.get_input("y").numpy(), X * 5)


def test_inputs_are_copied_and_unset_ones_are_zero(graph: GraphModule) -> None:
    x = X.copy()
    graph.set_input("x", x)
    x[:] = 7
    graph.run()
    assert np.array_equal(graph.get_output(0).numpy(), X)


def test_zero_copy(graph: GraphModule) -> None:
    x, z = X.copy(), np.empty(16, np.float32)
    graph.set_input_zero_copy("x", x)
    graph.set_output_zero_copy(0, z)
    x[:] = 7
    graph.run()
    assert (z == 7).all()


def test_information(graph: GraphModule) -> None:
    assert graph.get_input_index("y") == 1 and graph.get_input_index("q") == -1
    assert graph.get_input_info() == ({"x": (16,), "y": (16,)}, {"x": "float32", "y": "float32"})


def test_symbolic_shapes() -> None:
    graph = GraphModule(Module(add_artifact("n")))
    for n in (3, 5, 0):
        graph.run(x=X[:n], y=X[:n])
        assert np.array_equal(graph.get_output(0).numpy(), 2 * X[:n])


def test_benchmark(graph: GraphModule) -> None:
    for end_to_end in (False, True):
        result = graph.benchmark(cpu(), repeat=2, number=3, end_to_end=end_to_end, x=X)
        assert len(result.results) == 2 and 0 < result.mean < 1
    assert graph.benchmark(min_repeat_ms=1, repeat=1).number > 3


def test_errors(graph: GraphModule) -> None:
    with pytest.raises(RunError, match="not there yet"):
        graph.get_output(0)
    with pytest.raises(RunError, match=r"no input 'q'(.|\n)*x, y"):
        graph.set_input("q", X)
    with pytest.raises(RunError, match="no input 2"):
        graph.set_input(2, X)
    with pytest.raises(RunError, match=r"got float64"):
        graph.set_input("x", X.astype("float64"))
    with pytest.raises(RunError, match="no output 4"):
        graph.get_output(4)
    with pytest.raises(RunError, match="cuda"):
        Module(add_artifact())["default"](cuda(0))
    with pytest.raises(RunError, match="no function 'main2'"):
        Module(add_artifact())["main2"]
