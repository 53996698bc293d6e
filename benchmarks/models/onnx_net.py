"""Layers as the ONNX nodes that exporters emit for them (opset 17)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .net import InputSpec, Net, Shape, draw

OPSET = 17
_RENAMED = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "matmul": "MatMul",
    "global_avg_pool": "GlobalAveragePool",
    "embedding": "Gather",
}
# torch orders LSTM gates i f g o and GRU gates r z n; ONNX wants i o f c and z r h.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


class OnnxNet(Net):
    """Builds an `onnx.ModelProto`; values are tensor names."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.count: dict[str, int] = {}

    # -- Net's four duties
    def emit(self, op: str, args: list[Any], **attrs: Any) -> Any:
        """Dispatch to the layer's own method, or to a node of the same meaning."""
        if op in _RENAMED:
            return self.node(_RENAMED[op], args)
        return getattr(self, "op_" + op)(args, **attrs)

    def param(self, name: str, shape: Shape, mean: float = 0.0, std: float = 1.0, positive: bool = False) -> str:
        """An initializer drawn from the seed and its name."""
        if name not in self.tensors:
            values = draw(self.seed, name, shape, mean, std)
            self.tensors[name] = np.abs(values) if positive else values
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        """An initializer with the given value."""
        self.tensors.setdefault(name, np.array(array, order="C", copy=None))
        return name

    def input_value(self, spec: InputSpec) -> str:
        """A graph input."""
        return spec.name

    # -- nodes
    def node(self, op: str, args: list[str], **attrs: Any) -> str:
        """Append a node with one output; returns the output's name."""
        return self.nodes_out(op, args, 1, **attrs)[0]

    def nodes_out(self, op: str, args: list[str], outs: int, **attrs: Any) -> list[str]:
        """Append one node with a readable unique name; returns its output names."""
        index = self.count[op] = self.count.get(op, -1) + 1
        stem = f"/{op}_{index}"
        names = [f"{stem}_output_{i}" for i in range(outs)]
        self.nodes.append(helper.make_node(op, args, names, name=stem, **attrs))
        return names

    def ints(self, values: tuple[int, ...]) -> str:
        """A shared int64 vector."""
        text = "_".join(str(v) for v in values)
        return self.constant(f"const.i64.{text}", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A shared float32 scalar."""
        return self.constant(f"const.f32.{value!r}", np.array(value, np.float32))

    # -- layers
    def op_conv(self, args: list[str], kernel: Shape, stride: Shape, pad: Shape, dilation: Shape, groups: int) -> str:
        return self.node(
            "Conv", args, kernel_shape=kernel, strides=stride, pads=pad + pad, dilations=dilation, group=groups
        )

    def op_conv_transpose(self, args: list[str], kernel: Shape, stride: Shape, pad: Shape) -> str:
        return self.node("ConvTranspose", args, kernel_shape=kernel, strides=stride, pads=pad + pad)

    def op_linear(self, args: list[str], rank: int) -> str:
        if rank == 2:
            name = args[1] + ".t"
            self.constant(name, self.tensors.pop(args[1]).T)
            return self.node("Gemm", [args[0], name, *args[2:]], transB=1)
        y = self.node("MatMul", args[:2])
        return self.node("Add", [args[2], y]) if len(args) > 2 else y

    def op_attention(self, args: list[str], dim: int, sq: int, sk: int, causal: bool, k_bshd: bool, style: str) -> str:
        q, k, v = args[:3]
        k = self.node("Transpose", [k], perm=[0, 2, 3, 1] if k_bshd else [0, 1, 3, 2])
        if style == "sdpa":
            root = self.scalar(dim**-0.25)
            scores = self.node("MatMul", [self.node("Mul", [q, root]), self.node("Mul", [k, root])])
        else:
            scores = self.node("Div", [self.node("MatMul", [q, k]), self.scalar(math.sqrt(dim))])
        if causal:
            keep = np.tril(np.ones((sk, sk), bool))[sk - sq :].reshape(1, 1, sq, sk)
            keep_name = self.constant(f"const.causal.{sq}x{sk}", keep)
            scores = self.node("Where", [keep_name, scores, self.scalar(float(np.finfo(np.float32).min))])
        if len(args) > 3:
            scores = self.node("Add", [scores, args[3]])
        return self.node("MatMul", [self.node("Softmax", [scores], axis=-1), v])

    def op_mask_bias(self, args: list[str]) -> str:
        wide = self.node("Unsqueeze", [args[0], self.ints((1, 2))])
        keep = self.node("Cast", [wide], to=TensorProto.FLOAT)
        drop = self.node("Sub", [self.scalar(1.0), keep])
        return self.node("Mul", [drop, self.scalar(float(np.finfo(np.float32).min))])

    def op_recurrent(self, args: list[str], cell: str, hidden: int, dirs: int, steps: int, batch: int) -> str:
        order = [slice(g * hidden, (g + 1) * hidden) for g in _GATES[cell]]
        stem = args[1].rsplit(".", 1)[0]

        def stack(first: int) -> np.ndarray:
            taken = [self.tensors.pop(args[1 + 4 * d + first]) for d in range(dirs)]
            return np.stack([np.concatenate([t[s] for s in order]) for t in taken])

        w, r, bw, br = (stack(i) for i in range(4))
        names = [
            self.constant(f"{stem}.{n}", t) for n, t in (("W", w), ("R", r), ("B", np.concatenate([bw, br], axis=1)))
        ]
        attrs: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if dirs == 2 else "forward"}
        if cell == "gru":
            attrs["linear_before_reset"] = 1
        y = self.node(cell.upper(), [args[0], *names], **attrs)
        if dirs == 1:
            return self.node("Squeeze", [y, self.ints((1,))])
        y = self.node("Transpose", [y], perm=[0, 2, 1, 3])
        return self.node("Reshape", [y, self.ints((steps, batch, dirs * hidden))])

    def op_batch_norm(self, args: list[str], eps: float) -> str:
        return self.node("BatchNormalization", args, epsilon=eps)

    def op_layer_norm(self, args: list[str], eps: float, size: int) -> str:
        return self.node("LayerNormalization", args, axis=-1, epsilon=eps)

    def op_instance_norm(self, args: list[str], eps: float) -> str:
        return self.node("InstanceNormalization", args, epsilon=eps)

    def op_relu6(self, args: list[str]) -> str:
        return self.node("Clip", [args[0], self.scalar(0.0), self.scalar(6.0)])

    def op_silu(self, args: list[str]) -> str:
        return self.node("Mul", [args[0], self.node("Sigmoid", args)])

    def op_gelu(self, args: list[str]) -> str:
        erf = self.node("Erf", [self.node("Div", [args[0], self.scalar(math.sqrt(2.0))])])
        scaled = self.node("Mul", [args[0], self.node("Add", [erf, self.scalar(1.0)])])
        return self.node("Mul", [scaled, self.scalar(0.5)])

    def op_gelu_tanh(self, args: list[str]) -> str:
        x = args[0]
        cube = self.node("Mul", [self.node("Pow", [x, self.scalar(3.0)]), self.scalar(0.044715)])
        inner = self.node("Mul", [self.node("Add", [x, cube]), self.scalar(math.sqrt(2.0 / math.pi))])
        gate = self.node("Add", [self.node("Tanh", [inner]), self.scalar(1.0)])
        return self.node("Mul", [self.node("Mul", [x, self.scalar(0.5)]), gate])

    def op_softmax(self, args: list[str], axis: int) -> str:
        return self.node("Softmax", args, axis=axis)

    def op_max_pool(self, args: list[str], kernel: Shape, stride: Shape, pad: Shape) -> str:
        return self.node("MaxPool", args, kernel_shape=kernel, strides=stride, pads=pad + pad)

    def op_avg_pool(self, args: list[str], kernel: Shape, stride: Shape, pad: Shape) -> str:
        return self.node("AveragePool", args, kernel_shape=kernel, strides=stride, pads=pad + pad, count_include_pad=1)

    def op_reduce(self, args: list[str], kind: str, axes: Shape, keep: bool) -> str:
        if kind == "sum":
            return self.node("ReduceSum", [args[0], self.ints(axes)], keepdims=int(keep))
        return self.node({"mean": "ReduceMean", "l2": "ReduceL2"}[kind], args, axes=axes, keepdims=int(keep))

    def op_reshape(self, args: list[str], shape: Shape) -> str:
        return self.node("Reshape", [args[0], self.ints(shape)])

    def op_transpose(self, args: list[str], perm: Shape) -> str:
        return self.node("Transpose", args, perm=perm)

    def op_concat(self, args: list[str], axis: int) -> str:
        return self.node("Concat", args, axis=axis)

    def op_split(self, args: list[str], axis: int, parts: int, size: int) -> list[str]:
        return self.nodes_out("Split", [args[0], self.ints((size,) * parts)], parts, axis=axis)

    def op_slice(self, args: list[str], axis: int, start: int, stop: int) -> str:
        return self.node("Slice", [args[0], self.ints((start,)), self.ints((stop,)), self.ints((axis,))])

    def op_take(self, args: list[str], axis: int, index: int) -> str:
        at = self.constant(f"const.index.{index}", np.array(index, np.int64))
        return self.node("Gather", [args[0], at], axis=axis)

    # -- the model
    def model(self, name: str) -> ModelProto:
        """The finished model; outputs get their declared names."""
        rename = {t.value: out for out, t in self.outputs}
        for node in self.nodes:
            node.input[:] = [rename.get(n, n) for n in node.input]
            node.output[:] = [rename.get(n, n) for n in node.output]

        def info(label: str, dtype: str, shape: Shape) -> Any:
            return helper.make_tensor_value_info(label, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        graph = helper.make_graph(
            self.nodes,
            name,
            [info(s.name, s.dtype, s.shape) for s in self.inputs],
            [info(out, t.dtype, t.shape) for out, t in self.outputs],
            [numpy_helper.from_array(np.array(a, order="C", copy=None), n) for n, a in self.tensors.items()],
        )
        return helper.make_model(
            graph, producer_name="warpbeam-benchmarks", ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)]
        )
