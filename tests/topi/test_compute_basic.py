"""Broadcast, elementwise, reducing and moving computations against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from topi_values import floats, ints, value

from warpbeam import te, topi
from warpbeam.tir import expr as E
from warpbeam.tir import interp

BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "floor_divide": np.floor_divide, "floor_mod": np.mod, "equal": np.equal, "not_equal": np.not_equal,
    "less": np.less, "less_equal": np.less_equal, "greater": np.greater, "greater_equal": np.greater_equal,
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
def test_broadcast(name):
    fn = getattr(topi, name)
    for a, b in [(ints(3, 1, 4), ints(2, 1)), (ints(5), ints(5))]:
        b = np.where(b == 0, 3, b).astype(np.int32)
        np.testing.assert_array_equal(value(fn, a, b), BINARY[name](a, b))
    np.testing.assert_array_equal(value(lambda x: fn(x, 3), ints(2, 2) * 0 + 7), BINARY[name](np.full((2, 2), 7), 3))
    np.testing.assert_array_equal(value(lambda x: fn(3, x), ints(2, 2) * 0 + 7), BINARY[name](3, np.full((2, 2), 7)))


def test_integer_bits_and_logic():
    a, b = ints(4, 3, low=0), ints(3, low=0)
    for name, ref in [("left_shift", np.left_shift), ("right_shift", np.right_shift), ("bitwise_and", np.bitwise_and),
                      ("bitwise_or", np.bitwise_or), ("bitwise_xor", np.bitwise_xor)]:  # fmt: skip
        np.testing.assert_array_equal(value(getattr(topi, name), a, b), ref(a, b))
    for name in ("logical_and", "logical_or", "logical_xor"):
        np.testing.assert_array_equal(value(getattr(topi, name), a, b), getattr(np, name)(a, b))


def test_scalars_promotion_and_errors():
    assert topi.add(1, 2).value == 3
    n = te.var("n")
    assert isinstance(topi.multiply(n, 2), E.PrimExpr)
    x = ints(3)
    out = value(lambda t: topi.multiply(t, 0.5), x)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, x * np.float32(0.5))
    np.testing.assert_array_equal(value(topi.divide, ints(3), floats(3)).dtype, np.float32)
    with pytest.raises(ValueError, match="do not broadcast"):
        topi.add(te.placeholder((2,)), te.placeholder((3,)))
    with pytest.raises(ValueError, match="takes floats"):
        topi.exp(te.placeholder((2,), "int32"))


def test_operators_of_tensors():
    a, b = floats(4, 5), floats(5)
    np.testing.assert_allclose(value(lambda x, y: (x - y) / 2.0 * y + 1, a, b), (a - b) / 2 * b + 1, rtol=1e-6)
    np.testing.assert_array_equal(value(lambda x: -x, a), -a)


UNARY = {
    "exp": np.exp, "tanh": np.tanh, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint,
    "abs": np.abs, "sign": np.sign, "cos": np.cos, "sin": np.sin, "tan": np.tan, "negative": np.negative,
    "fast_exp": np.exp, "identity": np.array, "atan": np.arctan, "sinh": np.sinh, "isnan": np.isnan,
    "isfinite": np.isfinite, "isinf": np.isinf, "erf": None, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}  # fmt: skip
POSITIVE = {"log": np.log, "log2": np.log2, "log10": np.log10, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x)}


@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
def test_elementwise(name):
    x = floats(3, 4) if name in UNARY else np.abs(floats(3, 4)) + 0.1
    ref = {**UNARY, **POSITIVE}[name]
    if name == "erf":
        import math

        want = np.vectorize(math.erf)(x).astype(np.float32)
    else:
        want = ref(x)
    np.testing.assert_allclose(value(getattr(topi, name), x), want, rtol=1e-6)


def test_elementwise_others():
    x, y = floats(3, 4), floats(3, 4)
    np.testing.assert_array_equal(value(lambda t: topi.cast(t, "int32"), x), x.astype(np.int32))
    np.testing.assert_array_equal(value(lambda t: topi.clip(t, -1, 0.5), x), np.clip(x, -1, np.float32(0.5)))
    np.testing.assert_array_equal(value(lambda s, t: topi.elemwise_sum([s, t]), x, y), x + y)
    np.testing.assert_array_equal(value(lambda t: topi.full_like(t, 3), x), np.full_like(x, 3))
    np.testing.assert_array_equal(value(lambda: topi.full((2, 3), "int32", 7)), np.full((2, 3), 7))
    half = floats(5).astype(np.float16)
    np.testing.assert_array_equal(value(topi.exp, half), np.exp(half.astype(np.float32)).astype(np.float16))


REDUCE = ["sum", "prod", "max", "min", "argmax", "argmin"]


@pytest.mark.parametrize("name", REDUCE)
def test_reduction(name):
    x = ints(3, 4, 2)

    def ref(x, **how):
        return getattr(np, name)(x, **how).astype(np.int32)  # products wrap

    for axis in (None, 0, -1):
        for keep in (False, True):
            got = value(lambda t, a=axis, k=keep: getattr(topi, name)(t, axis=a, keepdims=k), x)
            np.testing.assert_array_equal(got, ref(x, axis=axis, keepdims=keep))
            assert got.dtype == np.int32
    if not name.startswith("arg"):
        np.testing.assert_array_equal(value(lambda t: getattr(topi, name)(t, axis=(0, 2)), x), ref(x, axis=(0, 2)))


def test_reduction_of_bools_and_tags():
    b = ints(3, 4) > 0
    np.testing.assert_array_equal(value(lambda t: topi.all(t, axis=1), b), b.all(axis=1))
    np.testing.assert_array_equal(value(lambda t: topi.any(t, axis=0), b), b.any(axis=0))
    x = te.placeholder((3, 4))
    total = topi.sum(x, axis=1)
    assert topi.tag.of(total) == topi.tag.COMM_REDUCE and len(total.op.reduce_axis) == 1
    assert topi.tag.is_injective(topi.tag.of(topi.transpose(x))) and topi.tag.is_broadcast(topi.tag.of(x + 1.0))
    assert total.op.tag == "comm_reduce"


def test_shapes_and_orders():
    x = ints(2, 3, 4)
    for got, want in [
        (value(lambda t: topi.reshape(t, (4, -1)), x), x.reshape(4, -1)),
        (value(lambda t: topi.transpose(t, (2, 0, 1)), x), x.transpose(2, 0, 1)),
        (value(topi.transpose, x), x.T),
        (value(lambda t: topi.expand_dims(t, 1, 2), x), x.reshape(2, 1, 1, 3, 4)),
        (value(lambda t: topi.squeeze(t), x[:1]), x[0]),
        (value(lambda t: topi.flip(t, 1), x), x[:, ::-1]),
        (value(lambda t: topi.repeat(t, 2, 1), x), np.repeat(x, 2, 1)),
        (value(lambda t: topi.tile(t, (2, 1, 2)), x), np.tile(x, (2, 1, 2))),
        (value(lambda t: topi.broadcast_to(t, (5, 2, 3, 4)), x), np.broadcast_to(x, (5, 2, 3, 4))),
        (value(lambda t: topi.strided_slice(t, [0, 1], [2, 3], [1, 1]), x), x[0:2, 1:3]),
        (value(lambda t: topi.strided_slice(t, [0, 1], [1, -1], slice_mode="size"), x), x[0:1, 1:]),
        (value(lambda t: topi.strided_slice(t, [3], [0], [-2], [2]), x), x[:, :, 3:0:-2]),
    ]:
        np.testing.assert_array_equal(got, want)


def test_joins_and_pieces():
    x, y = ints(2, 3), ints(2, 4)
    np.testing.assert_array_equal(value(lambda a, b: topi.concatenate((a, b), 1), x, y), np.concatenate((x, y), 1))
    np.testing.assert_array_equal(value(lambda a, b: topi.stack([a, b], 1), x, x * 2), np.stack([x, x * 2], 1))
    for given in (2, (1, 3)):
        got = value(lambda a, g=given: topi.split(a, g, 1), y)
        for g, w in zip(got, np.split(y, list(given) if isinstance(given, tuple) else given, 1), strict=True):
            np.testing.assert_array_equal(g, w)
    c = x > 0
    np.testing.assert_array_equal(value(topi.where, c, x, -x), np.where(c, x, -x))
    grid = value(lambda a, b: topi.meshgrid([a, b], "xy"), x[0], y[0])
    for g, w in zip(grid, np.meshgrid(x[0], y[0]), strict=True):
        np.testing.assert_array_equal(g, w)


def test_reading_at_indices():
    x, i = ints(4, 5), np.array([3, 0, 2], np.int32)
    np.testing.assert_array_equal(value(lambda a, b: topi.take(a, b, 1), x, i), np.take(x, i, 1))
    np.testing.assert_array_equal(value(topi.take, x, i), np.take(x, i))
    at = np.array([[0, 3, 1, 2, 0]], np.int64)
    np.testing.assert_array_equal(value(lambda a, b: topi.gather(a, 0, b), x, at), np.take_along_axis(x, at, 0))
    pairs = np.array([[0, 3], [4, 1]], np.int64)
    np.testing.assert_array_equal(value(topi.gather_nd, x, pairs), x[pairs[0], pairs[1]])
    hot = value(lambda a: topi.one_hot(a, 2, -1, 4, 1, "int32"), i)
    np.testing.assert_array_equal(hot, np.where(np.arange(4) == i[:, None], 2, -1))
    lengths = np.array([1, 3, 0, 4, 2], np.int32)
    masked = value(lambda a, b: topi.sequence_mask(a, b, 9, 0), x, lengths)
    np.testing.assert_array_equal(masked, np.where(np.arange(4)[:, None] < lengths, x, 9))
    flat = np.array([0, 7, 19], np.int64)
    np.testing.assert_array_equal(value(lambda a: topi.unravel_index(a, (4, 5)), flat), np.unravel_index(flat, (4, 5)))


def test_positions():
    np.testing.assert_array_equal(value(lambda: topi.arange(2, 11, 3, "int32")), np.arange(2, 11, 3))
    np.testing.assert_array_equal(value(lambda: topi.arange(4)), np.arange(4, dtype=np.float32))
    assert value(lambda a: topi.shape(a), ints(2, 3)).tolist() == [2, 3]
    assert int(value(lambda a: topi.ndarray_size(a), ints(2, 3))) == 6


def test_products():
    a, b = ints(3, 4), ints(4, 5)
    np.testing.assert_array_equal(value(topi.matmul, a, b), a @ b)
    np.testing.assert_array_equal(value(lambda x, y: topi.matmul(x, y, True, True), a.T.copy(), b.T.copy()), a @ b)
    x, y = ints(2, 3, 4), ints(3, 4, 5)
    np.testing.assert_array_equal(value(topi.tensordot, x, y), np.tensordot(x, y))
    np.testing.assert_array_equal(
        value(lambda s, t: topi.tensordot(s, t, ((1,), (0,))), x, y), np.tensordot(x, y, ((1,), (0,)))
    )
    for rule, parts in [("ij,jk->ik", (a, b)), ("ij,jk", (a, b)), ("ijk->ki", (x,)), ("ii->i", (ints(3, 3),))]:
        np.testing.assert_array_equal(value(lambda *t, r=rule: topi.einsum(r, *t), *parts), np.einsum(rule, *parts))


def test_layouts():
    x = ints(2, 8, 3, 5)
    blocked = x.reshape(2, 2, 4, 3, 5).transpose(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(value(lambda a: topi.layout_transform(a, "NCHW", "NHWC"), x), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(value(lambda a: topi.layout_transform(a, "NCHW", "NCHW4c"), x), blocked)
    back = value(lambda a: topi.layout_transform(a, "NCHW4c", "NCHW"), np.ascontiguousarray(blocked))
    np.testing.assert_array_equal(back, x)
    padded = value(lambda a: topi.layout_transform(a, "NCHW", "NCHW3c"), x)
    assert padded.shape == (2, 3, 3, 5, 3) and not padded[:, 2, :, :, 2].any()


def test_symbolic_sizes():
    n = te.size_var("n")
    a = te.placeholder((n, 4), name="a")
    out = topi.sum(topi.exp(a + 1.0) * 2.0, axis=1)
    x, got = floats(3, 4), np.zeros(3, np.float32)
    interp.run(te.create_prim_func([a], [out], "f"), x, got)
    np.testing.assert_allclose(got, (np.exp(x + 1) * 2).sum(axis=1), rtol=1e-5)


def test_utils():
    assert topi.utils.get_const_int(E.const(4)) == 4
    assert topi.utils.get_const_tuple((E.const(4), 5)) == (4, 5)
    with pytest.raises(ValueError, match="not a constant"):
        topi.utils.get_const_int(te.var("n"))
    assert topi.nn.get_pad_tuple("SAME", (3, 4)) == (1, 2, 1, 1)
    assert topi.nn.get_pad_tuple((1, 2), (3, 3)) == (1, 2, 1, 2)
    assert topi.util is topi.utils and topi.broadcast_add is topi.add
