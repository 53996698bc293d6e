"""ai.onnx.ml: every operator against onnxruntime; trees also against NumPy."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

import warpbeam
from warpbeam.ir.diagnostics import ImportModelError
from warpbeam.runtime.errors import RunError

ort = pytest.importorskip("onnxruntime")

SLOW = pytest.mark.slow
F32 = np.float32
RNG = np.random.default_rng(11)


def proto(kind: str, inputs: dict[str, np.ndarray], outputs: list[str], version: int = 3, **attrs: Any) -> Any:
    node = helper.make_node(kind, list(inputs), outputs, domain="ai.onnx.ml", name="it", **attrs)
    codes = {n: 8 if a.dtype == object else helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in inputs.items()}
    ins = [helper.make_tensor_value_info(n, codes[n], a.shape) for n, a in inputs.items()]
    outs = [helper.make_empty_tensor_value_info(o) for o in outputs]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(helper.make_graph([node], "g", ins, outs), opset_imports=opsets, ir_version=8)


def same(kind: str, inputs: dict[str, np.ndarray], outputs: list[str], rtol: float = 1e-5, **attrs: Any) -> None:
    """Our results are those of onnxruntime."""
    m = proto(kind, inputs, outputs, **attrs)
    want = ort.InferenceSession(m.SerializeToString()).run(None, inputs)
    got = warpbeam.compile(m, cache=False).run(inputs)
    for name, w in zip(outputs, want, strict=True):
        g, w = np.asarray(got[name]), np.asarray(w)
        assert g.shape == w.shape and (g.dtype == w.dtype or w.dtype == object), (name, g.shape, w.shape, g.dtype)
        if w.dtype.kind == "f":
            np.testing.assert_allclose(g, w, rtol=rtol, atol=rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(g, w, err_msg=name)


def real(*shape: int, dtype: Any = F32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [F32, np.float64, np.int64, np.int32])
def test_scaling_and_norms(dtype: Any) -> None:
    x = (real(5, 3) * 4).astype(dtype)
    same("Scaler", {"x": x}, ["y"], offset=[0.5, -1.0, 2.0], scale=[2.0, 0.5, 1.0])
    same("Scaler", {"x": x}, ["y"], offset=[0.5], scale=[3.0])
    for norm in ("MAX", "L1", "L2"):
        x[2] = 0
        same("Normalizer", {"x": x}, ["y"], norm=norm)


def test_binarizer_and_columns() -> None:
    x = real(4, 5)
    same("Binarizer", {"x": x}, ["y"], threshold=0.25)
    same("ArrayFeatureExtractor", {"x": x, "i": np.array([[3, 0, 3]])}, ["y"])
    same("ArrayFeatureExtractor", {"x": real(6), "i": np.array([1, 5])}, ["y"])
    same("ArrayFeatureExtractor", {"x": real(2, 3, 4), "i": np.array([2])}, ["y"])


def test_imputer() -> None:
    x = real(4, 3)
    x[1, 2] = x[3, 0] = np.nan
    same("Imputer", {"x": x}, ["y"], imputed_value_floats=[1.0, 2.0, 3.0], replaced_value_float=float("nan"))
    x[1, 2] = x[3, 0] = 7.0
    same("Imputer", {"x": x}, ["y"], imputed_value_floats=[9.0], replaced_value_float=7.0)
    i = RNG.integers(0, 3, (4, 3))
    same("Imputer", {"x": i}, ["y"], imputed_value_int64s=[4, 5, 6], replaced_value_int64=1)


TABLES = {
    "int64s": ([5, -3, 8, 0, 5], np.array([[5, 8, 1], [0, -3, 7]])),
    "floats": ([1.5, -2.0, 0.25, 1.5, 9.0], np.array([[1.5, 0.0, np.nan], [9.0, -2.0, 1.25]], F32)),
    "strings": (["b", "a", "zz", "", "c"], np.array([["b", "?", ""], ["zz", "a", "c"]], object)),
}
VALUES = {"int64s": [1, 2, 3, 4, 5], "floats": [0.5, 1.5, 2.5, 3.5, 4.5], "strings": ["u", "v", "w", "x", "u"]}


@pytest.mark.parametrize(
    "keys, values", [p for p in itertools.product(TABLES, VALUES) if p[0] != p[1] or p[0] == "strings"]
)
def test_label_encoder(keys: str, values: str) -> None:
    known, x = TABLES[keys]
    attrs: dict[str, Any] = {f"keys_{keys}": known, f"values_{values}": VALUES[values]}
    same("LabelEncoder", {"x": x}, ["y"], version=2, **attrs)
    other = {"int64s": ("default_int64", 77), "floats": ("default_float", 7.5), "strings": ("default_string", "none")}
    attrs[other[values][0]] = other[values][1]
    same("LabelEncoder", {"x": x}, ["y"], version=2, **attrs)


def test_label_encoder_of_tensors() -> None:
    x = np.array([[1.0, 2.5, -1.0]])
    keys, values = numpy_helper.from_array(np.array([2.5, 1.0])), numpy_helper.from_array(np.array([4.0, 3.0]))
    other = numpy_helper.from_array(np.array([0.5]))
    m = proto("LabelEncoder", {"x": F32([np.nan, 2, 3])}, ["y"], version=4, keys_floats=[3.0, float("nan")],
              values_floats=[1.0, 2.0], default_float=0.0)  # fmt: skip
    np.testing.assert_array_equal(warpbeam.compile(m, cache=False)(F32([np.nan, 2, 3])), [2, 0, 1])
    same("LabelEncoder", {"x": x}, ["y"], version=4, keys_tensor=keys, values_tensor=values, default_tensor=other)


def test_large_tables_are_searched_by_bisection() -> None:
    for size in (1, 2, 3, 8, 1000):
        keys = RNG.permutation(5000)[:size] - 2500
        x = np.concatenate([keys, keys + 1, [np.iinfo(np.int64).min, np.iinfo(np.int64).max]])
        same("LabelEncoder", {"x": x}, ["y"], version=2, keys_int64s=keys, values_floats=real(size), default_float=-8.0)


def test_categories() -> None:
    words, text = ["red", "green", "blue"], np.array([["blue", "red"], ["pink", "green"]], object)
    same("CategoryMapper", {"x": text}, ["y"], cats_strings=words, cats_int64s=[7, 8, 9], default_int64=-5)
    whole = np.array([[9, 8], [1, 7]])
    same("CategoryMapper", {"x": whole}, ["y"], cats_strings=words, cats_int64s=[7, 8, 9], default_string="none")
    same("LabelEncoder", {"x": text}, ["y"], version=1, classes_strings=words, default_int64=-4)
    same("LabelEncoder", {"x": whole}, ["y"], version=1, classes_strings=words, default_string="?")
    same("OneHotEncoder", {"x": text}, ["y"], cats_strings=words)
    for dtype in (np.int64, F32, np.float64):
        same("OneHotEncoder", {"x": whole.astype(dtype)}, ["y"], cats_int64s=[7, 8, 9], zeros=1)


def test_a_category_that_must_be_known_is_refused() -> None:
    m = proto("OneHotEncoder", {"x": np.zeros((2, 2), np.int64)}, ["y"], cats_int64s=[1, 2], zeros=0)
    module = warpbeam.compile(m, cache=False)
    np.testing.assert_array_equal(module(np.array([[1, 2], [2, 2]]))[0], [[1, 0], [0, 1]])
    with pytest.raises(RunError):
        module(np.array([[1, 2], [3, 2]]))


def test_features_side_by_side() -> None:
    a, b = real(3, 2), real(3, 4)
    same("FeatureVectorizer", {"a": a, "b": b}, ["y"], inputdimensions=[2, 4])
    same("FeatureVectorizer", {"a": a, "b": b}, ["y"], inputdimensions=[3, 2])


POST = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")


@pytest.mark.parametrize("post", ["SOFTMAX_ZERO", *(pytest.param(p, marks=SLOW) for p in POST if p != "SOFTMAX_ZERO")])
def test_linear_models(post: str) -> None:
    x, w, b = real(6, 4), real(3, 4) * F32(0.1), real(3) * F32(0.1)
    if post == "PROBIT":  # takes probabilities
        x, w, b = abs(x), abs(w) * F32(0.2), abs(b) + F32(0.1)
    same("LinearRegressor", {"x": x}, ["y"], coefficients=w.ravel(), intercepts=b, targets=3, post_transform=post)
    shared = {"post_transform": post, "rtol": 1e-4}
    for ints in (True, False):
        labels = {"classlabels_ints": [4, 9, 2]} if ints else {"classlabels_strings": ["a", "b", "c"]}
        same("LinearClassifier", {"x": x}, ["l", "s"], coefficients=w.ravel(), intercepts=b, **labels, **shared)
    if post != "PROBIT":  # onnxruntime leaves the second score unset
        two = {"classlabels_ints": [5, 6]}
        same("LinearClassifier", {"x": x}, ["l", "s"], coefficients=w[0], intercepts=b[:1], **two, **shared)


def test_a_regressor_of_one_target_is_transformed() -> None:
    x, w = real(6, 4), real(4)
    m = proto("LinearRegressor", {"x": x}, ["y"], coefficients=w, targets=1, post_transform="LOGISTIC")
    np.testing.assert_allclose(warpbeam.compile(m, cache=False)(x)[:, 0], 1 / (1 + np.exp(-x @ w)), rtol=1e-5)


@pytest.mark.parametrize("kernel", ["RBF", *(pytest.param(k, marks=SLOW) for k in ("LINEAR", "POLY", "SIGMOID"))])
def test_support_vector_machines(kernel: str) -> None:
    x, vectors = real(7, 3), abs(real(6, 3))
    shared: dict[str, Any] = {"kernel_type": kernel, "kernel_params": [0.3, 0.5, 3.0], "rtol": 2e-4}
    one = {"coefficients": real(6), "support_vectors": vectors.ravel(), "rho": [0.25], "n_supports": 6}
    same("SVMRegressor", {"x": x}, ["y"], **one, **shared)
    same("SVMRegressor", {"x": x}, ["y"], one_class=1, **one, **shared)
    for classes, sizes in ((2, [4, 2]), (3, [1, 2, 3])):
        pairs = classes * (classes - 1) // 2
        many = {"coefficients": real((classes - 1) * 6), "support_vectors": vectors.ravel(), "rho": real(pairs)}
        many |= {"vectors_per_class": sizes, "classlabels_ints": [3, 1, 2][:classes]}
        for post in ("NONE", "LOGISTIC", "SOFTMAX"):
            same("SVMClassifier", {"x": x}, ["l", "s"], post_transform=post, **many, **shared)
        same("SVMClassifier", {"x": x}, ["l", "s"], prob_a=-abs(real(pairs)), prob_b=real(pairs), **many, **shared)


def test_linear_machines() -> None:
    x = real(7, 3)
    plain: dict[str, Any] = {"kernel_params": [1.0, 0.0, 3.0], "rtol": 1e-4}
    same("SVMRegressor", {"x": x}, ["y"], coefficients=real(3), rho=[0.5], n_supports=0, **plain)
    for classes in (2, 4):
        labels = {"classlabels_strings": ["a", "b", "c", "d"][:classes]}
        same("SVMClassifier", {"x": x}, ["l", "s"], coefficients=real(classes * 3), rho=[0.1], **labels, **plain)
        same("SVMClassifier", {"x": x}, ["l", "s"], coefficients=abs(real(classes * 3)), rho=[0.1], **labels, **plain)


# ------------------------------------------------------------------------------------------------------------- trees

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def forest(trees: int, depth: int, features: int, outputs: int, kind: str, modes: list[str], every: bool = True) -> Any:
    """Attributes of random trees of uneven depth; `every`: a leaf gives something to each output."""
    a: dict[str, list[Any]] = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids",
                                              "falsenodeids", "missing_value_tracks_true")}  # fmt: skip
    leaf: dict[str, list[Any]] = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    for t in range(trees):
        todo, count = [(0, 0)], 1
        while todo:
            number, level = todo.pop(0)
            is_leaf = level == depth or (level and RNG.random() < 0.25)
            children = (0, 0) if is_leaf else (count, count + 1)
            for key, value in zip(
                a, (t, number, int(RNG.integers(features)), float(np.round(RNG.standard_normal(), 1)),
                    "LEAF" if is_leaf else modes[RNG.integers(len(modes))], *children, int(RNG.integers(2))),
                strict=True,
            ):  # fmt: skip
                a[key].append(value)
            if is_leaf:
                for o in range(outputs) if every else [int(RNG.integers(outputs))]:
                    for key, value in zip(leaf, (t, number, o, float(RNG.standard_normal())), strict=True):
                        leaf[key].append(value)
            else:
                todo += [(c, level + 1) for c in children]
                count += 2
    return {f"nodes_{k}": v for k, v in a.items()} | {f"{kind}_{k}": v for k, v in leaf.items()}


def samples(dtype: Any = F32) -> np.ndarray:
    x = np.round(real(40, 5), 1).astype(dtype)
    if x.dtype.kind == "f":
        x[::7, 2] = np.nan
    return x


@pytest.mark.parametrize("combine", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("modes", [MODES[:1], MODES])
def test_tree_regressors(combine: str, modes: list[str]) -> None:
    for targets, every in ((1, True), (3, True), (3, False)):
        attrs = forest(11, 5, 5, targets, "target", modes, every)
        if every:  # onnxruntime leaves the base value out where no leaf gives anything
            attrs["base_values"] = [0.5] * targets
        same("TreeEnsembleRegressor", {"x": samples()}, ["y"], n_targets=targets, aggregate_function=combine, **attrs)


def test_tree_regressors_of_other_numbers() -> None:
    attrs = forest(9, 4, 5, 2, "target", MODES[:2])
    same("TreeEnsembleRegressor", {"x": samples(np.float64)}, ["y"], n_targets=2, **attrs)
    x = RNG.integers(-3, 4, (20, 5))
    results = []
    for dtype in (F32, np.int64, np.int32):
        m = proto("TreeEnsembleRegressor", {"x": x.astype(dtype)}, ["y"], n_targets=2, **attrs)
        results.append(warpbeam.compile(m, cache=False)(x.astype(dtype)))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


@pytest.mark.parametrize("post", ["NONE", *(pytest.param(p, marks=SLOW) for p in ("SOFTMAX", "SOFTMAX_ZERO"))])
def test_tree_classifiers(post: str) -> None:
    for labels in ({"classlabels_int64s": [3, 1, 7]}, {"classlabels_strings": ["a", "b", "c"]}):
        attrs = forest(10, 4, 5, 3, "class", MODES[:1])
        same("TreeEnsembleClassifier", {"x": samples()}, ["l", "s"], post_transform=post, rtol=1e-4, **attrs, **labels)
        same("TreeEnsembleClassifier", {"x": samples()}, ["l", "s"], post_transform=post, rtol=1e-4,
             base_values=[0.1, 0.2, -0.3], **attrs, **labels)  # fmt: skip


@pytest.mark.parametrize("post", ["LOGISTIC", *(pytest.param(p, marks=SLOW) for p in ("NONE", "SOFTMAX"))])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("base", [[], [0.25]])
def test_tree_classifiers_of_two_classes(post: str, positive: bool, base: list[float]) -> None:
    attrs = forest(6, 4, 5, 1, "class", MODES[:1])
    if positive:
        attrs["class_weights"] = [abs(v) / 6 for v in attrs["class_weights"]]
    if base:
        attrs["base_values"] = base
    same("TreeEnsembleClassifier", {"x": samples()}, ["l", "s"], post_transform=post, rtol=1e-4,
         classlabels_int64s=[4, 9], **attrs)  # fmt: skip


@pytest.mark.parametrize("dtype", [F32, np.float64])
def test_tree_ensemble_5(dtype: Any) -> None:
    splits = np.array([0.5, -0.5, np.nan, 1.5], dtype)
    attrs: dict[str, Any] = {
        "n_targets": 2, "aggregate_function": 1, "post_transform": 0, "tree_roots": [0, 2],
        "nodes_featureids": [0, 1, 2, 0], "nodes_truenodeids": [1, 0, 2, 1], "nodes_trueleafs": [0, 1, 1, 1],
        "nodes_falsenodeids": [1, 1, 3, 3], "nodes_falseleafs": [1, 1, 0, 1], "leaf_targetids": [0, 1, 0, 1],
        "nodes_splits": numpy_helper.from_array(splits), "nodes_modes": numpy_helper.from_array(np.uint8([0, 1, 6, 3])),
        "leaf_weights": numpy_helper.from_array(np.array([1.0, 2.5, -3.0, 4.0], dtype)),
        "membership_values": numpy_helper.from_array(np.array([1.2, 3.7, 8.0, np.nan], dtype)),
    }  # fmt: skip
    attrs["nodes_falsenodeids"][1] = 1
    x = np.array([[0.4, -1, 3.7], [0.4, 1, 8.0], [2.0, 0, 5.0], [1.0, 0, 1.2]], dtype)
    m = proto("TreeEnsemble", {"x": x}, ["y"], version=5, **attrs)
    got = warpbeam.compile(m, cache=False).run({"x": x})["y"]
    leaf = [(0, 1.0), (1, 2.5), (0, -3.0), (1, 4.0)]
    want = np.zeros((4, 2), dtype)
    for row, (a, b, c) in enumerate(x):
        first = 1 if a > 0.5 else (0 if b < -0.5 else 1)
        second = 2 if c in np.array([1.2, 3.7, 8.0], dtype) else (1 if a > 1.5 else 3)
        for k in (first, second):
            want[row, leaf[k][0]] += leaf[k][1]
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)


def test_trees_that_are_none_are_refused() -> None:
    attrs = forest(2, 3, 5, 1, "target", MODES[:1])
    x = samples()
    for key, value in (("nodes_truenodeids", 0), ("nodes_falsenodeids", 99), ("target_nodeids", 77)):
        broken = {k: list(v) for k, v in attrs.items()}
        broken[key][0] = value
        with pytest.raises(ImportModelError):
            warpbeam.compile(proto("TreeEnsembleRegressor", {"x": x}, ["y"], n_targets=1, **broken), cache=False)
    with pytest.raises(ImportModelError, match="looks at feature"):
        m = proto("TreeEnsembleRegressor", {"x": x[:, :1]}, ["y"], n_targets=1, **attrs)
        warpbeam.compile(m, cache=False)
