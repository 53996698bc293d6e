"""The demonstration's network: a small residual CNN from a fixed seed, written the way exporters write it."""

from __future__ import annotations

from typing import Any

import numpy as np

CLASSES = 10
IMAGE = (1, 3, 64, 64)


class Builder:
    """Collects ONNX nodes and weights; each method adds a layer and gives the name of its result."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """One node with one output, named after its kind and number."""
        from onnx import helper

        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def weight(self, array: np.ndarray) -> str:
        """An initializer."""
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x: str, cin: int, cout: int, size: int = 3, stride: int = 1, groups: int = 1) -> str:
        """Convolution without bias, then batch normalisation."""
        fan = cin // groups * size * size
        w = self.weight(self.rng.standard_normal((cout, cin // groups, size, size)) * np.sqrt(2 / fan))
        pad = size // 2
        y = self.node("Conv", [x, w], kernel_shape=[size] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups)
        stats = [self.rng.uniform(0.5, 1.5, cout), self.rng.standard_normal(cout) * 0.1]
        stats += [self.rng.standard_normal(cout) * 0.1, self.rng.uniform(0.5, 1.5, cout)]
        return self.node("BatchNormalization", [y, *map(self.weight, stats)], epsilon=1e-5)

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self.node("Relu", [x])

    def residual(self, x: str, cin: int, cout: int, stride: int) -> str:
        """Two 3x3 convolutions around a shortcut."""
        y = self.relu(self.conv(x, cin, cout, 3, stride))
        y = self.conv(y, cout, cout)
        shortcut = x if cin == cout and stride == 1 else self.conv(x, cin, cout, 1, stride)
        return self.relu(self.node("Add", [y, shortcut]))


def build(seed: int = 0) -> Any:
    """The network as an `onnx.ModelProto`: a stem, four residual blocks, a depthwise layer, pooling, classifier."""
    from onnx import TensorProto, checker, helper

    b = Builder(seed)
    x = b.relu(b.conv("image", 3, 16, 3, 2))
    x = b.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for cin, cout, stride in ((16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)):
        x = b.residual(x, cin, cout, stride)
    x = b.relu(b.conv(x, 64, 64, 3, 1, 64))
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x])], axis=1)
    w, bias = b.weight(b.rng.standard_normal((CLASSES, 64)) * 0.02), b.weight(b.rng.standard_normal(CLASSES) * 0.1)
    x = b.node("Gemm", [x, w, bias], transB=1)
    b.nodes.append(helper.make_node("Softmax", [x], ["probabilities"], "softmax", axis=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(IMAGE))
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(b.nodes, "demo_cnn", [image], [result], b.weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="warpbeam"
    )
    checker.check_model(model)
    return model
