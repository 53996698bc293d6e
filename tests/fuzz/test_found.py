"""What random and damaged models have found, minimised; each at every level."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from tolerance import close

import warpbeam
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.testing.exported import run_exported

LEVELS = (0, 1, 2, 3)


def parsed(text: str) -> Any:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')


@pytest.mark.parametrize("level", LEVELS)
def test_a_bias_whose_size_is_open_is_taken_to_fit(level: int) -> None:
    """The bias became an operand of a sum at level 3, and the sum's type rule wanted to know its size."""
    model = parsed("g (float[1, 3, 4] x, float[3, 3, 1] w, float[n] b) => (float[1, 3, 4] y) { y = Conv(x, w, b) }")
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((1, 3, 4), (3, 3, 1), (3,)))
    want = np.einsum("oi,nix->nox", w[..., 0], x) + b[None, :, None]
    close(module.run({"x": x, "w": w, "b": b})["y"], want, terms=4)
    with pytest.raises(WarpbeamError):
        module.run({"x": x, "w": w, "b": np.zeros(1, np.float32)})


@pytest.mark.parametrize("level", LEVELS)
def test_parameters_of_a_batch_norm_whose_sizes_are_open_are_taken_to_fit(level: int) -> None:
    model = parsed(
        "g (float[2, 3, 4] x, float[n] s, float[3] b, float[m] u, float[3] v) => (float[2, 3, 4] y)"
        "{ y = BatchNormalization(x, s, b, u, v) }"
    )
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    s, b, u, v = (rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
    along = (slice(None), None)
    want = (x - u[along]) / np.sqrt(v[along] + 1e-5) * s[along] + b[along]
    close(module.run({"x": x, "s": s, "b": b, "u": u, "v": v})["y"], want, terms=6)


@pytest.mark.parametrize("level", LEVELS)
def test_a_slice_of_at_most_one_row_is_repeated(level: int) -> None:
    """The extent, (min(3, n) + 1 - min(2, n)) // 2, was taken to be n; it is 1 from n = 3 on."""
    model = parsed(
        "g (float[n, 2] x) => (float[n, 2] y) <int64[1] b = {2}, int64[1] e = {3}, int64[1] a = {0}, int64[1] s = {2}>"
        "{ r = Slice(x, b, e, a, s)  y = Mul(x, r) }"
    )
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    for n in (3, 7):
        x = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
        np.testing.assert_array_equal(module.run({"x": x})["y"], x * x[2:3])
    with pytest.raises(WarpbeamError):
        module.run({"x": np.ones((2, 2), np.float32)})


SLICED = "<int64[1] b = {%d}, int64[1] e = {%d}, int64[1] a = {0}, int64[1] s = {%d}>"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("node", ["Add(r, w)", "Max(w, r)", "Where(t, r, w)"])
def test_a_slice_that_is_one_row_at_one_size_and_fits_at_another(level: int, node: str) -> None:
    """n - 2 rows against 6 were taken to be equal; with n = 3 the one row is repeated."""
    slicing = SLICED % (2, 99, 1)
    model = parsed(f"g (float[n, 4] x, float[6, 4] w, bool[4] t) => (float[6, 4] y) {slicing}"
                   f"{{ r = Slice(x, b, e, a, s)  y = {node} }}")  # fmt: skip
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    rng = np.random.default_rng(0)
    w, t = rng.standard_normal((6, 4)).astype(np.float32), np.array([True, False, True, True])
    for n in (3, 8):
        x = rng.standard_normal((n, 4)).astype(np.float32)
        r = np.broadcast_to(x[2:], (6, 4))
        want = {"A": r + w, "M": np.maximum(r, w), "W": np.where(t, r, w)}[node[0]]
        np.testing.assert_array_equal(module.run({"x": x, "w": w, "t": t})["y"], want)
    with pytest.raises(WarpbeamError, match="must be 1 or 6"):
        module.run({"x": np.ones((5, 4), np.float32), "w": w, "t": t})


@pytest.mark.parametrize("level", LEVELS)
def test_two_slices_either_of_which_may_be_one_row(level: int) -> None:
    """Both have one row where n = 4; the first has one and the second two where n = 5."""
    model = parsed(
        "g (float[n, 4] x) => (float[k, 4] y) <int64[1] b = {1}, int64[1] e = {-1}, int64[1] c = {2}, int64[1] a = {0},"
        "int64[1] three = {3}> { r = Slice(x, b, e, a, three)  q = Slice(x, c, e, a, b)  y = Mul(r, q) }"
    )
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    for n in (4, 5):
        x = np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)
        np.testing.assert_array_equal(module.run({"x": x})["y"], x[1:-1:3] * x[2:-1])
    with pytest.raises(WarpbeamError, match="must be 1 or"):
        module.run({"x": np.ones((6, 4), np.float32)})


@pytest.mark.parametrize("level", LEVELS)
def test_a_slice_that_can_only_be_repeated(level: int) -> None:
    """It has three rows at most, so that it cannot be equal to the other's six: an error said that they do not fit."""
    model = parsed("g (float[n, 4] x, float[6, 4] w) => (float[6, 4] y, float[6, 4] z) "
                   + SLICED[:-1] % (3, 8, 2) + ", int64[2] shape = {6, 4}>"
                   "{ r = Slice(x, b, e, a, s)  y = Add(r, w)  z = Expand(r, shape) }")  # fmt: skip
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    x, w = (np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32) for n in (5, 6))
    got = module.run({"x": x, "w": w})
    np.testing.assert_array_equal(got["y"], x[3:8:2] + w)
    np.testing.assert_array_equal(got["z"], np.broadcast_to(x[3:8:2], (6, 4)))
    with pytest.raises(WarpbeamError):
        module.run({"x": np.ones((8, 4), np.float32), "w": w})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [3, 5, 9])
def test_the_largest_of_a_power_of_two_and_one(level: int, size: int) -> None:
    """The one that is left over was no vector, and the printer shuffled it."""
    model = parsed(
        f"g (float[1, 3, 2, {size}] x) => (float[1, 3, 1, 1] y, float[1, 3, 1, 1] z) <int64[2] a = {{2, 3}}>"
        f"{{ y = MaxPool <kernel_shape = [2, {size}]> (x)  z = ReduceMin <keepdims = 1> (x, a) }}"
    )
    x = np.random.default_rng(0).standard_normal((1, 3, 2, size)).astype(np.float32)
    got = warpbeam.compile(model, opt_level=level, workers=1, cache=False).run({"x": x})
    np.testing.assert_array_equal(got["y"], x.max((2, 3), keepdims=True))
    np.testing.assert_array_equal(got["z"], x.min((2, 3), keepdims=True))


def test_a_constant_without_elements_and_of_huge_dimensions_is_refused() -> None:
    """NumPy refused the shape (0, 2^62) in its own words."""
    model = parsed("g (float[2] x) => (float[2] y) <float[1] c = {1}> { y = Add(x, c) }")
    tensor = model.graph.initializer[0]
    del tensor.dims[:], tensor.float_data[:]
    tensor.dims.extend([0, 1 << 62, 1 << 62])
    with pytest.raises(WarpbeamError, match="too large"):
        warpbeam.compile(model, workers=1, cache=False)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_c_source_of_a_model_whose_tensors_are_named_as_ours_were(tmp_path: Path) -> None:
    """Outputs t1 and list were parameters of a function that had variables of these names."""
    model = parsed("g (float[2] t2, float[2] t_0) => (float[2] t1, float[2] list) { t1 = Add(t2, t_0) list = Neg(t1) }")
    module = warpbeam.compile(model, workers=1, cache=False)
    inputs = {"t2": np.array([1, 2], np.float32), "t_0": np.array([3, 5], np.float32)}
    got = run_exported(module, "c", inputs, [np.zeros(2, np.float32)] * 2, tmp_path)
    np.testing.assert_array_equal(got[0], [4, 7])
    np.testing.assert_array_equal(got[1], [-4, -7])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_c_source_of_an_open_model_with_a_scalar_input(tmp_path: Path) -> None:
    """The program that called it said that the scalar had one axis."""
    module = warpbeam.compile(parsed("g (float[n] x, float s) => (float[n] y) { y = Mul(x, s) }"), cache=False)
    inputs = {"x": np.array([1, 2], np.float32), "s": np.array(3, np.float32)}
    (got,) = run_exported(module, "c", inputs, [np.zeros(2, np.float32)], tmp_path)
    np.testing.assert_array_equal(got, [3, 6])


WINDOWS = {
    "MaxPool <kernel_shape = [3, 2], strides = [3, 2]> (x)": lambda x: x.max(2, keepdims=True),
    "AveragePool <kernel_shape = [3, 2], strides = [3, 2]> (x)": lambda x: x.mean(2, keepdims=True),
    "AveragePool <kernel_shape = [3, 2], strides = [3, 2], count_include_pad = 1> (x)": lambda x: x.mean(
        2, keepdims=True
    ),
    "LpPool <kernel_shape = [3, 2], strides = [3, 2], p = 1> (x)": lambda x: np.abs(x).sum(2, keepdims=True),
}


@pytest.mark.parametrize("node", WINDOWS)
def test_a_window_larger_than_the_data_by_less_than_its_step_is_one_window(node: str) -> None:
    """ONNX's shape inference rounds (1 - 3) / 3 towards 0, so there is one window; it was refused."""
    x = np.random.default_rng(0).standard_normal((1, 2, 1, 4)).astype(np.float32)
    got = warpbeam.compile(parsed(f"g (float[1, 2, 1, 4] x) => (float[1, 2, a, b] y) {{ y = {node} }}"), cache=False)
    want = WINDOWS[node](x.reshape(1, 2, 2, 2).transpose(0, 1, 3, 2))  # the two columns of a window side by side
    np.testing.assert_allclose(got.run({"x": x})["y"], want, rtol=3 * 2**-24, atol=2e-7)  # one sum, one quotient
    with pytest.raises(WarpbeamError, match="does not fit"):
        warpbeam.compile(parsed(f"g (float[1, 2, 4, 0] x) => (float[1, 2, a, b] y) {{ y = {node} }}"), cache=False)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "node", ["MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", "Conv <strides = [2, 2]> (x, w)"]
)
def test_a_window_that_does_not_fit_is_refused_when_the_program_runs(level: int, node: str) -> None:
    """It gave a result without elements, and its mean, NaN; in a branch that is not taken nothing is asked for."""
    text = "g (float[1, 1, h, 8] x) => (float[1, 1, 1, 1] y) <float[1, 1, 2, 2] w = {1, 1, 1, 1}, int64[1] two = {2}>"
    module = warpbeam.compile(
        parsed(f"{text} {{ t = {node}  y = GlobalAveragePool(t) }}"), opt_level=level, cache=False
    )
    assert np.isfinite(module.run({"x": np.ones((1, 1, 2, 8), np.float32)})["y"]).all()
    with pytest.raises(WarpbeamError, match="a window of 2 does not fit a dimension of h"):
        module.run({"x": np.ones((1, 1, 1, 8), np.float32)})
    other = "b () => (float[1, 1, 1, 1] n) { n = GlobalMaxPool(x) }"
    first = f"a () => (float[1, 1, 1, 1] m) {{ t = {node}  m = GlobalAveragePool(t) }}"
    asked = "h = Shape <start = 2, end = 3> (x)  q = GreaterOrEqual(h, two)  c = Squeeze(q)"
    body = f"{asked}  y = If (c) <then_branch = {first}, else_branch = {other}>"
    chosen = warpbeam.compile(parsed(f"{text} {{ {body} }}"), opt_level=level, cache=False)
    assert chosen.run({"x": np.full((1, 1, 1, 8), 3, np.float32)})["y"].item() == 3


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    """Protobuf gives such a name as bytes, and printing the C interface failed in Python's words."""
    model = parsed("g (float[2] x) => (float[2] y) { y = Abs(x) }")
    for name in (b"x", b"y"):
        data = model.SerializeToString().replace(b"\x01" + name, b"\x01\xff")
        with pytest.raises(WarpbeamError, match="UTF-8"):
            warpbeam.compile(data, workers=1, cache=False)


@pytest.mark.parametrize("level", LEVELS)
def test_blocks_of_open_sizes(level: int) -> None:
    """Maps whose size is known when the program runs were refused, because they might not divide into blocks."""
    text = "g (float[1, c, h, w] x) => (float[1, d, a, b] y) { t = SpaceToDepth <blocksize = 2> (x)  %s }"
    there = warpbeam.compile(parsed(text % "y = Neg(t)"), opt_level=level, cache=False)
    back = warpbeam.compile(parsed(text % "y = DepthToSpace <blocksize = 2> (t)"), opt_level=level, cache=False)
    alone = parsed("g (float[1, c, h, w] x) => (float[1, d, a, b] y) { y = DepthToSpace <blocksize = 2> (x) }")
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 6)).astype(np.float32)
    blocks = x.reshape(1, 3, 2, 2, 3, 2).transpose(0, 3, 5, 1, 2, 4).reshape(1, 12, 2, 3)
    np.testing.assert_array_equal(there.run({"x": x})["y"], -blocks)
    np.testing.assert_array_equal(back.run({"x": x})["y"], x)
    np.testing.assert_array_equal(warpbeam.compile(alone, opt_level=level, cache=False).run({"x": blocks})["y"], x)
    with pytest.raises(WarpbeamError, match="that the model needs must agree"):
        there.run({"x": x[:, :, :3]})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("m, k, n", [(0, 64, 32), (4, 0, 32), (4, 64, 0), (0, 0, 0)])
def test_products_without_elements(level: int, m: int, k: int, n: int) -> None:
    """The prior had no tile to choose from for no rows."""
    text = f"g (float[{m}, {k}] x, float[{k}, {n}] w) => (float[{m}, {n}] y) {{ y = MatMul(x, w) }}"
    module = warpbeam.compile(parsed(text), opt_level=level, cache=False)
    got = module.run({"x": np.ones((m, k), np.float32), "w": np.ones((k, n), np.float32)})["y"]
    np.testing.assert_array_equal(got, np.zeros((m, n), np.float32))


@pytest.mark.parametrize("level", LEVELS)
def test_a_reshape_of_an_open_size_divides_when_the_program_runs(level: int) -> None:
    """A size that a shape with -1 must divide was refused where its value was not known."""
    text = "g (float[1, n, 6] x) => (float[a, 2, 1, 6] y) <int64[4] s = {-1, 2, 1, 6}>"
    module = warpbeam.compile(parsed(text + " { h = Neg(x)  y = Reshape(h, s) }"), opt_level=level, cache=False)
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    np.testing.assert_array_equal(module.run({"x": x})["y"], -x.reshape(2, 2, 1, 6))
    with pytest.raises(WarpbeamError, match="that the model needs must agree"):
        module.run({"x": x[:, :3]})


@pytest.mark.parametrize("level", LEVELS)
def test_a_transposed_convolution_of_a_map_that_may_be_empty(level: int) -> None:
    """Taken apart, its size was written as no less than none, and what read it did not fit any more."""
    text = "g (float[1, 1, n] x) => (float[1, 1, m] y) <float[1, 1, 2] v = {1, 1}, float[1, 1, 1] w = {2}>"
    body = "{ s = Conv(x, v)  t = ConvTranspose <strides = [2]> (s, w)  y = Neg(t) }"
    module = warpbeam.compile(parsed(text + body), opt_level=level, cache=False)
    x = np.array([[[1, 2, 4]]], np.float32)
    np.testing.assert_array_equal(module.run({"x": x})["y"], [[[-6, 0, -12]]])
    np.testing.assert_array_equal(module.run({"x": x[:, :, :2]})["y"], [[[-6]]])


@pytest.mark.parametrize("level", LEVELS)
def test_a_window_over_a_map_of_many_parts_of_open_size(level: int) -> None:
    """Rows of a part were read where another part was meant, past their ends, in a nest too deep to walk."""
    parts = ", ".join(["x"] * 12)
    ones = ", ".join(["1"] * 32 * 16 * 3)
    text = f"g (float[1, 16, n] x) => (float[1, 32, m] y) <float[32, 16, 3] w = {{{ones}}}>"
    model = parsed(f"{text} {{ d = Concat <axis = 2> ({parts})  y = Conv <pads = [1, 1]> (d, w) }}")

    def deep(left: int) -> warpbeam.Module:
        return deep(left - 1) if left else warpbeam.compile(model, opt_level=level, cache=False)

    module = deep(250)
    for n in (1, 5, 16, 23):
        x = np.random.default_rng(n).integers(-4, 5, (1, 16, n)).astype(np.float32)
        line = np.pad(np.tile(x.sum(1)[0], 12), 1)
        want = line[:-2] + line[1:-1] + line[2:]
        np.testing.assert_array_equal(module.run({"x": x})["y"], np.broadcast_to(want, (1, 32, 12 * n)))


@pytest.mark.parametrize("level", LEVELS)
def test_a_reshape_divides_by_dimensions_that_are_differences(level: int) -> None:
    """(36 n - 72) // (18 n - 36) was not seen to be 2."""
    text = "g (float[6, 3, n, 4] x) => (float[3, m, 6, 2] y) <int64[4] s = {0, 0, 0, -1}>"
    pool = "p = MaxPool <kernel_shape = [2, 3], dilations = [2, 1], strides = [1, 2], ceil_mode = 1> (x)"
    body = f"{{ {pool}  t = Transpose <perm = [1, 2, 0, 3]> (p)  y = Reshape(t, s) }}"
    module = warpbeam.compile(parsed(f"{text} {body}"), opt_level=level, cache=False)
    for n in (3, 7):
        x = np.arange(72 * n, dtype=np.float32).reshape(6, 3, n, 4)
        want = x[:, :, 2:, [2, 3]].transpose(1, 2, 0, 3)
        np.testing.assert_array_equal(module.run({"x": x})["y"], want)


@pytest.mark.parametrize("level", LEVELS)
def test_a_reshape_divides_a_product_of_open_sizes_when_the_program_runs(level: int) -> None:
    """Whether (6 n m) // 42 loses anything was not known of two open sizes."""
    text = "g (float[n, 6, m] x) => (float[a, 6, 7, 1] y) <int64[4] s = {-1, 6, 7, 1}>"
    module = warpbeam.compile(parsed(text + " { h = Neg(x)  y = Reshape(h, s) }"), opt_level=level, cache=False)
    for n, m in ((1, 7), (7, 2), (3, 14)):
        x = np.arange(6 * n * m, dtype=np.float32).reshape(n, 6, m)
        np.testing.assert_array_equal(module.run({"x": x})["y"], -x.reshape(n * m // 7, 6, 7, 1))
    with pytest.raises(WarpbeamError, match="that the model needs must agree"):
        module.run({"x": np.zeros((2, 6, 3), np.float32)})


@pytest.mark.parametrize("level", LEVELS)
def test_all_pieces_of_a_map_are_handed_to_a_branch(level: int) -> None:
    """What a split gives with channels last, read whole by a branch, was asked for the order of its dimensions."""
    text = "g (float[1, 16, 6, 6] x, float[16, 16, 3, 3] w, bool k) => (float[1, 8, 6, 6] y, float[1, 8, 6, 6] z)"
    body = "c = Conv <pads = [1, 1, 1, 1]> (x, w)  a, b = Split <axis = 1, num_outputs = 2> (c)  z = Neg(a)"
    branches = "t () => (float[1, 8, 6, 6] u) { u = Sub(a, b) }", "e () => (float[1, 8, 6, 6] v) { v = Add(a, b) }"
    choice = "y = If (k) <then_branch = {}, else_branch = {}>".format(*branches)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (1, 16, 6, 6)).astype(np.float32)
    w = np.zeros((16, 16, 3, 3), np.float32)
    w[range(16), range(16), 1, 1] = 2
    module = warpbeam.compile(parsed(f"{text} {{ {body}  {choice} }}"), opt_level=level, cache=False)
    for k, sign in ((True, -1), (False, 1)):
        got = module.run({"x": x, "w": w, "k": np.array(k)})
        np.testing.assert_array_equal(got["y"], 2 * (x[:, :8] + sign * x[:, 8:]))
        np.testing.assert_array_equal(got["z"], -2 * x[:, :8])


@pytest.mark.parametrize("level", LEVELS)
def test_a_reshape_to_numbers_has_as_many_elements_when_the_program_runs(level: int) -> None:
    """Of a piece that is as long as its source allows it was not known whether it is whole."""
    text = "g (float[n, 3] x) => (float[3, 2] y) <int64[2] s = {3, 2}, int64[1] b = {0}, int64[1] e = {2}>"
    model = parsed(text + " { c = Slice(x, b, e, b)  y = Reshape(c, s) }")
    module = warpbeam.compile(model, opt_level=level, cache=False)
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    for n in (2, 3, 5):
        np.testing.assert_array_equal(module.run({"x": x[:n]})["y"], x[:2].reshape(3, 2))
    with pytest.raises(WarpbeamError, match="that the model needs must agree"):
        module.run({"x": x[:1]})
