"""Whole road: Relay in, native module out, against the interpreter; no result depends on threads, level or cache."""

import numpy as np
import pytest
from tolerance import close

import warpbeam
from warpbeam import op
from warpbeam.driver import kernels
from warpbeam.driver.workers import Compiler
from warpbeam.relay.expr import Function, IRModule, Tuple, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.text import to_text
from warpbeam.tir.expr import SizeVar

RNG = np.random.default_rng(7)


def call(name, *args, **attrs):
    return op.get(name)(*args, **attrs)


def weights(*shape, dtype="float32"):
    return const((RNG.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(dtype))


def check(func, arrays, reduce=1, **options):
    """The module's results against the float64 interpreter, within 8 (K+2) u of the largest value."""
    module = warpbeam.compile(func, cache=False, **options)
    got = module(*arrays)
    want = evaluate(func, list(arrays), dtype="float64")
    got = got if isinstance(got, tuple) else (got,)
    want = want if isinstance(want, list | tuple) else (want,)
    for g, w in zip(got, want, strict=True):
        assert g.shape == np.shape(w)
        close(g, np.asarray(w), reduce)
    return module


def conv(x, w, stride, pad, **attrs):
    attrs = {"data_layout": "NHWC", "kernel_layout": "HWIO", **attrs}
    return call("nn.conv2d", x, w, strides=(stride, stride), padding=(pad,) * 4, **attrs)


@pytest.mark.parametrize(
    "height,channels,filters,kernel,stride",
    [(7, 16, 40, 3, 1), (9, 3, 21, 5, 2), (8, 32, 64, 1, 1), (13, 8, 16, 1, 2), (6, 5, 7, 3, 1), (1, 64, 10, 1, 1)],
)
def test_convolution_with_bias_residual_and_activation(height, channels, filters, kernel, stride):
    x = var("x", shape=(2, height, height, channels))
    y = conv(x, weights(kernel, kernel, channels, filters), stride, kernel // 2)
    r = var("r", y.ty)
    func = Function([x, r], call("nn.relu", call("add", call("add", y, weights(filters)), r)))
    arrays = [RNG.standard_normal(p.ty.shape).astype(np.float32) for p in (x, r)]
    check(func, arrays, channels * kernel * kernel)


@pytest.mark.parametrize("groups,channels,filters", [(4, 16, 32), (24, 24, 24), (8, 8, 16)])
def test_grouped_and_depthwise_convolution(groups, channels, filters):
    x = var("x", shape=(1, 10, 11, channels))
    func = Function([x], conv(x, weights(3, 3, channels // groups, filters), 1, 1, groups=groups))
    check(func, [RNG.standard_normal((1, 10, 11, channels)).astype(np.float32)], 9 * channels // groups)


@pytest.mark.parametrize("rows,columns,reduce", [(1, 1000, 64), (49, 70, 33), (15, 16, 1), (128, 96, 100), (3, 5, 7)])
def test_matrix_products_with_every_remainder(rows, columns, reduce):
    x = var("x", shape=(rows, reduce))
    func = Function([x], call("nn.dense", x, weights(columns, reduce)))
    check(func, [RNG.standard_normal((rows, reduce)).astype(np.float32)], reduce)


def test_batched_products_of_two_variables():
    a, b = var("a", shape=(3, 17, 20)), var("b", shape=(3, 20, 33))
    arrays = [RNG.standard_normal(p.ty.shape).astype(np.float32) for p in (a, b)]
    check(Function([a, b], call("nn.matmul", a, b)), arrays, 20)


def attention(x, size):
    def heads(w, axes):
        return call("transpose", call("reshape", call("nn.matmul", x, w), newshape=(2, size, 4, 8)), axes=axes)

    q, k, v = (
        heads(weights(32, 32), (0, 2, 1, 3)),
        heads(weights(32, 32), (0, 2, 3, 1)),
        heads(weights(32, 32), (0, 2, 1, 3)),
    )
    a = call("nn.softmax", call("multiply", call("nn.matmul", q, k), const(0.35)), axis=-1)
    y = call("reshape", call("transpose", call("nn.matmul", a, v), axes=(0, 2, 1, 3)), newshape=(2, size, 32))
    return call("nn.layer_norm", call("add", y, x), weights(32), weights(32), axis=-1)


def test_one_artefact_serves_every_sequence_length(monkeypatch):
    n = SizeVar("n")
    x = var("x", shape=(2, n, 32))
    func = Function([x], attention(x, n))
    module = warpbeam.compile(func, cache=False)
    monkeypatch.setattr(Compiler, "submit", lambda *_: pytest.fail("something is compiled for a size"))
    for size in (1, 5, 16, 47):
        array = RNG.standard_normal((2, size, 32)).astype(np.float32)
        want = evaluate(func, [array], dtype="float64")
        np.testing.assert_allclose(module(array), np.asarray(want), rtol=0, atol=2e-5)


def test_results_are_the_same_for_every_number_of_threads_and_fusion_level():
    x = var("x", shape=(2, 24, 32))
    func = Function([x], attention(x, 24))
    array = RNG.standard_normal((2, 24, 32)).astype(np.float32)
    module = check(func, [array], 64)
    first = module(array)
    for threads in (1, 2, 3):
        module.num_threads = threads
        np.testing.assert_array_equal(module(array), first)
    plain = warpbeam.compile(func, opt_level=0, cache=False)
    np.testing.assert_allclose(plain(array), first, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_other_number_types(dtype):
    x = var("x", shape=(6, 40), dtype=dtype)
    y = call("multiply", call("add", x, const(np.asarray(3, dtype))), x)
    arrays = [RNG.integers(-8, 8, (6, 40)).astype(dtype)]
    check(Function([x], call("sum", y, axis=(1,), keepdims=True)), arrays, 40)


def test_outputs_that_no_kernel_computes_are_copied():
    x = var("x", shape=(3, 4))
    y = call("reshape", x, newshape=(12,))
    func = Function([x], Tuple((x, y, const(np.arange(3, dtype=np.float32)), call("nn.relu", x), x)))
    check(func, [RNG.standard_normal((3, 4)).astype(np.float32)])


def test_compiled_models_come_back_from_the_cache(tmp_path, monkeypatch):
    from warpbeam.cli import demo_model
    from warpbeam.driver.api import compile_with_report

    monkeypatch.setenv("WARPBEAM_CACHE_DIR", str(tmp_path))
    model = demo_model.build(0)
    first, report = compile_with_report(model)
    second, again = compile_with_report(model)
    inputs = first.random_inputs(3)
    assert not report.cached and again.cached
    for name, value in first.run(inputs).items():
        np.testing.assert_array_equal(second.run(inputs)[name], value)


def test_a_model_in_the_cache_is_not_hashed_again_unless_it_was_changed(tmp_path, monkeypatch):
    """What was just written is known to be whole; a byte changed at once, or one later, is found all the same."""
    from warpbeam.driver.api import compile_with_report
    from warpbeam.runtime import artifact

    monkeypatch.setenv("WARPBEAM_CACHE_DIR", str(tmp_path))
    x, weights = var("x", shape=(4, 64)), RNG.standard_normal((32, 64)).astype(np.float32)
    model, hashed = IRModule.from_expr(Function([x], call("nn.dense", x, const(weights)))), []
    path = tmp_path / "m.relay"
    path.write_text(to_text(model))
    digest = artifact._Reader.digest
    monkeypatch.setattr(artifact._Reader, "digest", staticmethod(lambda d: (hashed.append(len(d)), digest(d))[1]))
    compile_with_report(path)
    (entry,) = [f for f in (tmp_path / "artifacts").rglob("*") if f.is_file()]
    for where in (-1, -2):
        hashed.clear()
        assert compile_with_report(path)[1].cached and weights.nbytes not in hashed
        data = bytearray(entry.read_bytes())
        data[where] ^= 1
        with entry.open("r+b") as file:
            file.write(data)
        assert not compile_with_report(path)[1].cached, "it is damaged, and built again"


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
@pytest.mark.parametrize("columns", [1, 3, 7, 16, 33])
def test_reductions_along_rows_of_every_length(dtype, columns):
    array = RNG.integers(0, 20, (5, columns)).astype(dtype)
    x = var("x", shape=(5, columns), dtype=dtype)
    results = [call(name, x, axis=(1,)) for name in ("min", "max", "sum")]
    for got, want in zip(warpbeam.compile(Function([x], Tuple(tuple(results))), cache=False)(array),
                         (array.min(1), array.max(1), array.sum(1)), strict=True):  # fmt: skip
        np.testing.assert_array_equal(got, want.astype(got.dtype))


@pytest.mark.parametrize("shape", [(3, 1), (1, 1), (1, 7), (2, 3, 1)])
@pytest.mark.parametrize("name", ["nn.softmax", "nn.log_softmax"])
def test_rows_of_one_column_and_single_rows(name, shape):
    x = var("x", shape=shape)
    check(Function([x], call(name, x, axis=-1)), [RNG.standard_normal(shape).astype(np.float32)], shape[-1])


def test_outputs_in_another_shape_can_be_profiled():
    x = var("x", shape=(4, 6))
    y = call("nn.relu", x)
    module = warpbeam.compile(Function((x,), call("reshape", y, newshape=(24,))), cache=False)
    (kernel,) = module.profile(repeat=1).kernels
    assert kernel.calls == 1 and kernel.roof and kernel.roof > 0


def test_compilations_that_share_kernels_schedule_each_once(monkeypatch):
    x = var("x", shape=(4, 24))
    func = Function([x], call("exp", call("multiply", x, x)))
    made = []
    schedule = kernels.schedule
    monkeypatch.setattr(kernels, "schedule", lambda *a: made.append(a) or schedule(*a))
    alone = warpbeam.compile(func, cache=False)
    assert len(made) == 1
    with kernels.sharing():
        modules = [warpbeam.compile(func, cache=False, opt_level=level) for level in (3, 3, 2)]
    assert len(made) == 2
    assert modules[0].artifact.to_bytes() == alone.artifact.to_bytes()
    warpbeam.compile(func, cache=False)
    assert len(made) == 3
