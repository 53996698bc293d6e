"""Models with state: equal to the same model whose state the caller carries; saved, exported, called from C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from export_helpers import build, execute
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

import warpbeam
from warpbeam.ir.diagnostics import CompileError

STATE = {"h": "h_next", "n": "n_next"}


def recurrent(batch: int | str = 2) -> onnx.ModelProto:
    """h' = tanh(x w + h u), n' = n + 1, y = h' * n': one step of a network with memory."""
    rng = np.random.default_rng(0)
    w, u = ((rng.standard_normal(s) / 2).astype(np.float32) for s in ((3, 4), (4, 4)))
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["xw"]), h.make_node("MatMul", ["h", "u"], ["hu"]),
        h.make_node("Add", ["xw", "hu"], ["sum"]), h.make_node("Tanh", ["sum"], ["h_next"]),
        h.make_node("Add", ["n", "one"], ["n_next"]), h.make_node("Cast", ["n_next"], ["nf"], to=T.FLOAT),
        h.make_node("Mul", ["h_next", "nf"], ["y"]),
    ]  # fmt: skip

    def info(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
        return h.make_tensor_value_info(name, kind, shape)

    graph = h.make_graph(
        nodes, "step",
        [info("h", T.FLOAT, batch, 4), info("x", T.FLOAT, batch, 3), info("n", T.INT64, 1)],
        [info("h_next", T.FLOAT, batch, 4), info("y", T.FLOAT, batch, 4), info("n_next", T.INT64, 1)],
        [nh.from_array(w, "w"), nh.from_array(u, "u"), nh.from_array(np.array([1]), "one")],
    )  # fmt: skip
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def steps(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).standard_normal((count, 2, 3)).astype(np.float32))


def carried(xs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs when the caller carries the state."""
    module = warpbeam.compile(recurrent())
    state = {"h": np.zeros((2, 4), np.float32), "n": np.zeros(1, np.int64)}
    out = []
    for x in xs:
        found = module.run({"x": x, **state})
        state = {"h": found["h_next"], "n": found["n_next"]}
        out.append(found["y"])
    return out


def test_the_module_carries_the_state() -> None:
    module = warpbeam.compile(recurrent(), state=STATE)
    assert [s.name for s in module.inputs] == ["x"] and [s.name for s in module.outputs] == ["y"]
    xs = steps(5)
    assert all(np.array_equal(module(x), want) for x, want in zip(xs, carried(xs), strict=True))
    assert module.get_param("n") == 5 and np.abs(module.get_param("h")).max() > 0
    module.set_param("h", np.zeros((2, 4), np.float32))
    module.set_param("n", np.zeros(1, np.int64))
    assert np.array_equal(module(xs[0]), carried(xs[:1])[0])


def test_state_is_saved_and_built_again(tmp_path: Path) -> None:
    module = warpbeam.compile(recurrent(), state=STATE)
    xs = steps(4)
    want = carried(xs)
    module(xs[0])
    module(xs[1])
    module.save(tmp_path / "m.wb")
    again = warpbeam.load(tmp_path / "m.wb")
    assert np.array_equal(again(xs[2]), want[2]) and np.array_equal(module(xs[2]), want[2])
    from warpbeam.driver.build import Options, rebuild
    from warpbeam.runtime import Module
    from warpbeam.target import get

    rebuilt = Module(rebuild(again.artifact, Options(get("native"))).artifact)
    assert [s.name for s in rebuilt.inputs] == ["x"]
    assert np.array_equal(rebuilt(xs[0]), want[0])


def test_profile_steps_through_a_model_with_state() -> None:
    module = warpbeam.compile(recurrent(), state=STATE)
    assert module.profile({"x": steps(1)[0]}, repeat=1).kernels


@pytest.mark.parametrize("form", ["so", "a", "c"])
def test_c_programs_have_the_state_in_their_contexts(form: str, tmp_path: Path) -> None:
    module = warpbeam.compile(recurrent(), state=STATE)
    xs = steps(3)
    want = carried(xs)
    module.export_library(tmp_path / f"net.{form}", name="net")

    def numbers(arrays: list[np.ndarray]) -> str:
        return ", ".join(float(v).hex() + "f" for v in np.concatenate([a.ravel() for a in arrays]))

    (tmp_path / "main.c").write_text(f"""
#include <stddef.h>
#include <string.h>
#include "net.h"
static const float x[] = {{{numbers(xs)}}}, want[] = {{{numbers(want)}}};
int main(void) {{
  for (int round = 0; round < 2; ++round) {{
    net_context* c = net_create();
    float y[8];
    for (int k = 0; k < 3; ++k)
      if (!c || net_run(c, x + 6 * k, y) || memcmp(y, want + 8 * k, sizeof y)) return 1 + k;
    if (*(int64_t*)net_param(c, 1) != 3) return 9;
    net_destroy(c);
  }}
  return 0;
}}
""")
    flags = ["-O2", "-ffp-contract=off", "-march=native"]
    build("c", *flags, "main.c", f"./net.{form}", "-o", "main", "-lm", "-lpthread", folder=tmp_path)
    execute(tmp_path / "main")


def test_wrong_states_are_named() -> None:
    for state, message in (
        ({"g": "h_next"}, "unknown inputs: g"), ({"h": "g"}, "unknown outputs: g"), ({"n": "y"}, "of another type"),
        ({"h": "y", "x": "y"}, "next value of two states"),
    ):  # fmt: skip
        with pytest.raises(CompileError, match=message):
            warpbeam.compile(recurrent(), state=state)
    with pytest.raises(CompileError, match="size is not known"):
        warpbeam.compile(recurrent("batch"), state=STATE)
