"""The operators, by name. A module is loaded when one of its operators is first asked for."""

from __future__ import annotations

import importlib
from functools import cache

from warpbeam.ir.diagnostics import IRError
from warpbeam.relay.op import Op

ELEMENTWISE = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh",
    "bitwise_not": "BitwiseNot", "cast": "Cast", "ceil": "Ceil", "clip": "Clip", "copy": "Copy", "cos": "Cos",
    "cosh": "Cosh", "erf": "Erf", "exp": "Exp", "floor": "Floor", "isfinite": "IsFinite", "isinf": "IsInf",
    "isnan": "IsNan", "log": "Log", "log10": "Log10", "log2": "Log2", "logical_not": "LogicalNot",
    "negative": "Negative", "nn.relu": "Relu", "ones_like": "OnesLike",
    "reinterpret": "Reinterpret", "round": "Round", "rsqrt": "Rsqrt",
    "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
    "trunc": "Trunc", "zeros_like": "ZerosLike",
}  # fmt: skip

BROADCAST = {
    "add": "Add", "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor",
    "divide": "Divide", "equal": "Equal", "floor_divide": "FloorDivide", "floor_mod": "FloorMod", "greater": "Greater",
    "greater_equal": "GreaterEqual", "left_shift": "LeftShift", "less": "Less", "less_equal": "LessEqual",
    "logical_and": "LogicalAnd", "logical_or": "LogicalOr", "logical_xor": "LogicalXor", "maximum": "Maximum",
    "minimum": "Minimum", "mod": "Mod", "multiply": "Multiply", "not_equal": "NotEqual", "power": "Power",
    "right_shift": "RightShift", "subtract": "Subtract", "trunc_divide": "TruncDivide", "trunc_mod": "TruncMod",
    "where": "Where",
}  # fmt: skip

REDUCE = {
    "all": "All", "any": "Any_", "argmax": "ArgMax", "argmin": "ArgMin", "logsumexp": "LogSumExp", "max": "Max",
    "mean": "Mean", "min": "Min", "prod": "Prod", "sum": "Sum", "variance": "Variance",
}  # fmt: skip

SHAPE = {
    "assume_shape": "AssumeShape", "broadcast_to": "BroadcastTo", "expand_dims": "ExpandDims", "repeat": "Repeat",
    "reshape": "Reshape", "reverse": "Reverse", "spread": "Spread", "squeeze": "Squeeze", "tile": "Tile",
    "transpose": "Transpose",
}  # fmt: skip

SHAPE_JOIN = {
    "concatenate": "Concatenate", "nn.depth_to_space": "DepthToSpace", "nn.space_to_depth": "SpaceToDepth",
    "split": "Split", "stack": "Stack", "strided_slice": "StridedSlice",
}  # fmt: skip

CREATION = {"arange": "Arange", "full": "Full", "ones": "Ones", "shape_tensor": "ShapeTensor", "zeros": "Zeros"}

NN_CONV = {f"nn.conv{n}d{t}": f"Conv{n}d{t.title().replace('_', '')}" for n in (1, 2, 3) for t in ("", "_transpose")}

NN_WINOGRAD = {
    "nn.contrib_conv1d_winograd_weight_transform": "WinogradWeightTransform1d",
    "nn.contrib_conv1d_winograd_without_weight_transform": "WinogradConv1d",
    "nn.contrib_conv2d_winograd_weight_transform": "WinogradWeightTransform",
    "nn.contrib_conv2d_winograd_without_weight_transform": "WinogradConv2d",
    "nn.contrib_conv3d_winograd_weight_transform": "WinogradWeightTransform3d",
    "nn.contrib_conv3d_winograd_without_weight_transform": "WinogradConv3d",
}

NN_POOL = {
    f"nn.{_kind}_pool{_n}d": f"{_cls}Pool{_n}d"
    for _kind, _cls in {
        "max": "Max", "avg": "Avg", "lp": "Lp",
        "global_max": "GlobalMax", "global_avg": "GlobalAvg", "global_lp": "GlobalLp",
    }.items()
    for _n in (1, 2, 3)
}  # fmt: skip

NN_POOL_INDEX = {
    "nn.max_pool_places1d": "MaxPoolPlaces1d", "nn.max_pool_places2d": "MaxPoolPlaces2d",
    "nn.max_pool_places3d": "MaxPoolPlaces3d",
    "nn.max_pool_with_indices1d": "MaxPoolWithIndices1d", "nn.max_pool_with_indices2d": "MaxPoolWithIndices2d",
    "nn.max_pool_with_indices3d": "MaxPoolWithIndices3d", "nn.max_unpool": "MaxUnpool",
}  # fmt: skip

NN_MATMUL = {
    "nn.batch_matmul": "BatchMatmul", "nn.bias_add": "BiasAdd", "nn.dense": "Dense", "nn.matmul": "Matmul",
}  # fmt: skip

NN_SOFTMAX = {
    "nn.hardmax": "Hardmax", "nn.l2_normalize": "L2Normalize", "nn.log_softmax": "LogSoftmax",
    "nn.lp_normalize": "LpNormalize", "nn.mean_variance_norm": "MeanVarianceNorm", "nn.softmax": "Softmax",
}  # fmt: skip

NN_NORM = {
    "nn.batch_norm": "BatchNorm", "nn.group_norm": "GroupNorm", "nn.instance_norm": "InstanceNorm",
    "nn.layer_norm": "LayerNorm", "nn.lrn": "Lrn", "nn.rms_norm": "RmsNorm",
}  # fmt: skip

NN_PAD = {"nn.leaky_relu": "LeakyRelu", "nn.pad": "Pad", "nn.prelu": "Prelu"}

NN_DEFORM = {"nn.deformable_conv2d": "DeformableConv2d"}

NN_LOSS = {"nn.nll_loss": "NllLoss"}

NN_RECURRENT = {"nn.gru": "Gru", "nn.lstm": "Lstm", "nn.rnn": "Rnn"}

INDEX_GATHER = {
    "gather": "Gather", "gather_nd": "GatherNd", "one_hot": "OneHot", "reverse_sequence": "ReverseSequence",
    "take": "Take",
}  # fmt: skip

INDEX_SCATTER = {
    "scatter_elements": "ScatterElements", "scatter_nd": "ScatterNd", "tensor_scatter": "TensorScatter",
}  # fmt: skip

INDEX_SCAN = {"cumprod": "CumProd", "cumsum": "CumSum"}

COUNTED = {
    "counted.arange": "CountedArange", "counted.broadcast_to": "BroadcastTo", "counted.cut": "Cut",
    "counted.given": "Given", "counted.pad": "PadBy", "counted.range": "RangeOf", "counted.reshape": "ReshapeTo",
    "counted.shape_tensor": "CountedShape", "counted.slice": "SliceAt",
}  # fmt: skip

CONTENT = {
    "broadcast_sizes": "BroadcastSizes", "nonzero_places": "NonzeroPlaces", "range_count": "RangeCount",
    "resolve_shape": "ResolveShape", "slice_plan": "SlicePlan", "unique_places": "UniquePlaces",
    "unravel_rows": "UnravelRows", "vision.nms": "NonMaxSuppression",
}  # fmt: skip

SORT = {"argsort": "Argsort", "sort": "Sort", "topk": "TopK"}

IMAGE_RESIZE = {"image.resize": "Resize"}

IMAGE_SAMPLE = {"image.affine_grid": "AffineGrid", "image.grid_sample": "GridSample"}

IMAGE_REGION = {"vision.roi_align": "RoiAlign", "vision.roi_pool": "RoiPool"}

HOST = {"host.call": "HostCall"}

RANDOM = {"random.normal": "Normal", "random.uniform": "Uniform"}

NGRAMS = {"count_ngrams": "CountNgrams"}

LINALG = {"col2im": "Col2Im", "eye": "Eye", "linalg.det": "Det", "trilu": "Trilu"}

TREES = {"lookup": "Lookup", "trees.scores": "TreeScores"}

COUPLING = {"pairwise_coupling": "PairwiseCoupling"}

OPS: dict[str, str] = {}
for _module, _ops in {
    "elementwise": ELEMENTWISE,
    "broadcast": BROADCAST,
    "reduce": REDUCE,
    "shape": SHAPE,
    "shape_join": SHAPE_JOIN,
    "creation": CREATION,
    "nn_conv": NN_CONV,
    "nn_winograd": NN_WINOGRAD,
    "nn_pool": NN_POOL,
    "nn_pool_index": NN_POOL_INDEX,
    "nn_matmul": NN_MATMUL,
    "nn_softmax": NN_SOFTMAX,
    "nn_norm": NN_NORM,
    "nn_pad": NN_PAD,
    "nn_deform": NN_DEFORM,
    "nn_loss": NN_LOSS,
    "nn_recurrent": NN_RECURRENT,
    "index_gather": INDEX_GATHER,
    "index_scatter": INDEX_SCATTER,
    "index_scan": INDEX_SCAN,
    "sort_ops": SORT,
    "counted": COUNTED,
    "content": CONTENT,
    "image_resize": IMAGE_RESIZE,
    "image_sample": IMAGE_SAMPLE,
    "image_region": IMAGE_REGION,
    "linalg_ops": LINALG,
    "ngrams": NGRAMS,
    "random_ops": RANDOM,
    "random_twister": {"random.twister": "Twister"},
    "host": HOST,
    "trees": TREES,
    "coupling": COUPLING,
}.items():
    OPS.update({_name: f"{_module}:{_cls}" for _name, _cls in _ops.items()})


@cache
def get(name: str) -> Op:
    """The operator called `name`."""
    place = OPS.get(name)
    if place is None:
        raise IRError(f"there is no operator {name!r}", hint="warpbeam.op.names() lists them; add it to op/table.py")
    module, _, cls = place.partition(":")
    return getattr(importlib.import_module(f"warpbeam.op.{module}"), cls)()  # type: ignore[no-any-return]


def names() -> list[str]:
    """Names of all operators, sorted."""
    return sorted(OPS)
