"""Layers as torch operators, recorded as a `torch.fx` graph (so eager mode and Inductor run plain torch calls)."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from .net import InputSpec, Net, Shape, draw

_CALLS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "matmul": torch.matmul,
}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _min_mask(mask: torch.Tensor) -> torch.Tensor:
    return (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min


class TorchNet(Net):
    """Builds an `fx.GraphModule`; values are fx nodes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.attrs: dict[str, Any] = {}

    # -- Net's four duties
    def emit(self, op: str, args: list[Any], **attrs: Any) -> Any:
        """Dispatch to the layer's own method, or to a torch function of the same meaning."""
        if op in _CALLS:
            return self.call(_CALLS[op], *args)
        return getattr(self, "op_" + op)(args, **attrs)

    def param(self, name: str, shape: Shape, mean: float = 0.0, std: float = 1.0, positive: bool = False) -> Any:
        """A module attribute drawn from the seed and its name."""
        if name in self.attrs:
            return self.attrs[name]
        values = draw(self.seed, name, shape, mean, std)
        return self.constant(name, np.abs(values) if positive else values)

    def constant(self, name: str, array: np.ndarray) -> Any:
        """A module attribute: float tensors are parameters, others buffers."""
        if name not in self.attrs:
            tensor, attr = torch.from_numpy(np.array(array, order="C", copy=None)), "p_" + name.replace(".", "_")
            if tensor.is_floating_point():
                self.root.register_parameter(attr, nn.Parameter(tensor, requires_grad=False))
            else:
                self.root.register_buffer(attr, tensor)
            self.attrs[name] = self.graph.get_attr(attr)
        return self.attrs[name]

    def input_value(self, spec: InputSpec) -> Any:
        """A placeholder."""
        return self.graph.placeholder(spec.name.replace(".", "_"))

    def call(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Record one torch call."""
        return self.graph.call_function(fn, args, kwargs)

    # -- layers
    def op_conv(self, args: list[Any], kernel: Shape, stride: Shape, pad: Shape, dilation: Shape, groups: int) -> Any:
        x, w, *rest = args
        return self.call(_CONV[len(kernel)], x, w, rest[0] if rest else None, stride, pad, dilation, groups)

    def op_conv_transpose(self, args: list[Any], kernel: Shape, stride: Shape, pad: Shape) -> Any:
        x, w, *rest = args
        return self.call(F.conv_transpose2d, x, w, rest[0] if rest else None, stride, pad)

    def op_linear(self, args: list[Any], rank: int) -> Any:
        x, w, *rest = args
        held = getattr(self.root, w.target)
        if not hasattr(held, "turned"):  # stored [K, N] for ONNX; torch wants [N, K]
            held = nn.Parameter(held.data.t().contiguous(), requires_grad=False)
            held.turned = True  # type: ignore[attr-defined]
            setattr(self.root, w.target, held)
        return self.call(F.linear, x, w, rest[0] if rest else None)

    def op_attention(self, args: list[Any], dim: int, sq: int, sk: int, causal: bool, k_bshd: bool, style: str) -> Any:
        q, k, v = args[:3]
        if k_bshd:
            k = self.call(torch.transpose, k, 1, 2)
        mask = args[3] if len(args) > 3 else None
        # A single query sees every key, so a causal mask is empty then.
        return self.call(F.scaled_dot_product_attention, q, k, v, mask, 0.0, causal and sq == sk)

    def op_mask_bias(self, args: list[Any]) -> Any:
        return self.call(_min_mask, args[0])

    def op_recurrent(self, args: list[Any], cell: str, hidden: int, dirs: int, steps: int, batch: int) -> Any:
        size = getattr(self.root, args[1].target).shape[1]
        layer = (nn.LSTM if cell == "lstm" else nn.GRU)(size, hidden, bidirectional=dirs == 2)
        for d in range(dirs):
            suffix = "_l0" + ("_reverse" if d else "")
            for i, part in enumerate(("weight_ih", "weight_hh", "bias_ih", "bias_hh")):
                getattr(layer, part + suffix).data.copy_(getattr(self.root, args[1 + 4 * d + i].target))
        for p in layer.parameters():
            p.requires_grad_(False)
        name = args[1].target + "_cell"
        self.root.add_module(name, layer)
        return self.call(operator.getitem, self.graph.call_module(name, (args[0],)), 0)

    def op_batch_norm(self, args: list[Any], eps: float) -> Any:
        x, w, b, mean, var = args
        return self.call(F.batch_norm, x, mean, var, w, b, False, 0.0, eps)

    def op_layer_norm(self, args: list[Any], eps: float, size: int) -> Any:
        return self.call(F.layer_norm, args[0], (size,), args[1], args[2], eps)

    def op_instance_norm(self, args: list[Any], eps: float) -> Any:
        return self.call(F.instance_norm, args[0], weight=args[1], bias=args[2], eps=eps)

    def op_gelu_tanh(self, args: list[Any]) -> Any:
        return self.call(F.gelu, args[0], approximate="tanh")

    def op_softmax(self, args: list[Any], axis: int) -> Any:
        return self.call(torch.softmax, args[0], axis)

    def op_max_pool(self, args: list[Any], kernel: Shape, stride: Shape, pad: Shape) -> Any:
        return self.call(F.max_pool2d, args[0], kernel, stride, pad)

    def op_avg_pool(self, args: list[Any], kernel: Shape, stride: Shape, pad: Shape) -> Any:
        return self.call(F.avg_pool2d, args[0], kernel, stride, pad)

    def op_global_avg_pool(self, args: list[Any]) -> Any:
        return self.call(F.adaptive_avg_pool2d, args[0], 1)

    def op_reduce(self, args: list[Any], kind: str, axes: Shape, keep: bool) -> Any:
        if kind == "l2":
            return self.call(torch.linalg.vector_norm, args[0], 2, axes, keep)
        return self.call({"mean": torch.mean, "sum": torch.sum}[kind], args[0], axes, keep)

    def op_reshape(self, args: list[Any], shape: Shape) -> Any:
        return self.call(torch.reshape, args[0], shape)

    def op_transpose(self, args: list[Any], perm: Shape) -> Any:
        return self.call(torch.permute, args[0], perm)

    def op_concat(self, args: list[Any], axis: int) -> Any:
        return self.call(torch.cat, args, axis)

    def op_split(self, args: list[Any], axis: int, parts: int, size: int) -> Any:
        whole = self.call(torch.split, args[0], size, axis)
        return [self.call(operator.getitem, whole, i) for i in range(parts)]

    def op_slice(self, args: list[Any], axis: int, start: int, stop: int) -> Any:
        return self.call(torch.narrow, args[0], axis, start, stop - start)

    def op_take(self, args: list[Any], axis: int, index: int) -> Any:
        return self.call(torch.select, args[0], axis, index)

    def op_embedding(self, args: list[Any]) -> Any:
        return self.call(F.embedding, args[1], args[0])

    # -- the model
    def module(self) -> fx.GraphModule:
        """The finished module; it returns a tuple in the order of `outputs`."""
        self.graph.output(tuple(t.value for _, t in self.outputs))
        return fx.GraphModule(self.root, self.graph).eval()
