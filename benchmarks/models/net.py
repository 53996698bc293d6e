"""One small vocabulary of layers in which every benchmark model is written exactly once.

A model is a function `build(net, **sizes)` that calls methods of `Net`. The base class computes shapes, counts
multiply-adds and draws parameters; a backend only says what a layer looks like in its own world (`OnnxNet` emits the
nodes that real exporters emit, `TorchNet` records a `torch.fx` graph, `CountNet` nothing). Weights depend on the seed
and on the parameter's name alone, so the backends agree without sharing files.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]
Ints = int | tuple[int, ...]


@dataclass(frozen=True)
class T:
    """A tensor while a model is being built: the backend's value, its static shape and its dtype."""

    value: Any
    shape: Shape
    dtype: str = "float32"


@dataclass(frozen=True)
class InputSpec:
    """A model input: `high` > 0 draws integers in [0, high), `ones` fills with one, else standard normal values."""

    name: str
    shape: Shape
    dtype: str = "float32"
    high: int = 0
    ones: bool = False


def _rng(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def draw(seed: int, name: str, shape: Shape, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    """Normal float32 values of `shape` that depend on nothing but `seed` and `name`."""
    values = _rng(seed, name).standard_normal(shape, dtype=np.float32)
    return values * np.float32(std) + np.float32(mean)


def make_inputs(specs: list[InputSpec], seed: int = 0) -> dict[str, np.ndarray]:
    """The inputs every peer is given for a model with these specifications."""
    out: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.ones:
            out[spec.name] = np.ones(spec.shape, spec.dtype)
        elif spec.high:
            out[spec.name] = _rng(seed, "input:" + spec.name).integers(0, spec.high, spec.shape).astype(spec.dtype)
        else:
            out[spec.name] = draw(seed, "input:" + spec.name, spec.shape).astype(spec.dtype)
    return out


def tup(value: Ints, n: int) -> Shape:
    """`value` repeated `n` times when it is one integer."""
    return (value,) * n if isinstance(value, int) else tuple(value)


def broadcast(a: Shape, b: Shape) -> Shape:
    """The NumPy broadcast of two shapes."""
    return tuple(int(d) for d in np.broadcast_shapes(a, b))


class Net(ABC):
    """Shapes, parameters and the count of multiply-adds; `emit` is what a backend adds."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.inputs: list[InputSpec] = []
        self.outputs: list[tuple[str, T]] = []
        self.macs: dict[str, int] = {"conv": 0, "matmul": 0, "attention": 0, "recurrent": 0}

    # -- what a backend provides
    @abstractmethod
    def emit(self, op: str, args: list[Any], **attrs: Any) -> Any:
        """Add layer `op` over backend values; returns the backend value of its result."""

    @abstractmethod
    def param(self, name: str, shape: Shape, mean: float = 0.0, std: float = 1.0, positive: bool = False) -> Any:
        """A constant drawn from `seed` and `name` (`positive` takes its absolute value)."""

    @abstractmethod
    def constant(self, name: str, array: np.ndarray) -> Any:
        """A constant with the given value."""

    @abstractmethod
    def input_value(self, spec: InputSpec) -> Any:
        """The backend value of a model input."""

    # -- edges
    def input(self, name: str, shape: Shape, dtype: str = "float32", high: int = 0, ones: bool = False) -> T:
        """Declare a model input."""
        spec = InputSpec(name, shape, dtype, high, ones)
        self.inputs.append(spec)
        return T(self.input_value(spec), shape, dtype)

    def output(self, name: str, x: T) -> None:
        """Declare a model output."""
        self.outputs.append((name, x))

    def weight(self, name: str, shape: Shape, mean: float = 0.0, std: float = 1.0) -> T:
        """A free-standing learned constant (class token, position table, …)."""
        return T(self.param(name, shape, mean, std), shape)

    def const(self, name: str, array: np.ndarray) -> T:
        """A constant with the given value."""
        return T(self.constant(name, array), tuple(array.shape), str(array.dtype))

    # -- contractions
    def conv(
        self,
        x: T,
        name: str,
        cout: int,
        k: Ints,
        stride: Ints = 1,
        pad: Ints = 0,
        groups: int = 1,
        dilation: Ints = 1,
        bias: bool = True,
        gain: float = 2.0,
    ) -> T:
        """N-D convolution over [N, C, *spatial] with symmetric padding; `gain` 2 is He's rule for a ReLU behind it."""
        n = len(x.shape) - 2
        ks, st, pd, dl = tup(k, n), tup(stride, n), tup(pad, n), tup(dilation, n)
        cin = x.shape[1] // groups
        fan_in = cin * math.prod(ks)
        args = [x.value, self.param(name + ".weight", (cout, cin, *ks), std=math.sqrt(gain / fan_in))]
        if bias:
            args.append(self.param(name + ".bias", (cout,), std=0.02))
        spatial = tuple(
            (d + 2 * p - e * (q - 1) - 1) // s + 1 for d, q, s, p, e in zip(x.shape[2:], ks, st, pd, dl, strict=True)
        )
        self.macs["conv"] += x.shape[0] * cout * math.prod(spatial) * fan_in
        value = self.emit("conv", args, kernel=ks, stride=st, pad=pd, dilation=dl, groups=groups)
        return T(value, (x.shape[0], cout, *spatial))

    def conv_transpose(self, x: T, name: str, cout: int, k: int, stride: int, pad: int, bias: bool = False) -> T:
        """2-D transposed convolution over [N, C, H, W]."""
        batch, cin, h, w = x.shape
        std = math.sqrt(2.0 * stride * stride / (cin * k * k))
        args = [x.value, self.param(name + ".weight", (cin, cout, k, k), std=std)]
        if bias:
            args.append(self.param(name + ".bias", (cout,), std=0.02))
        self.macs["conv"] += batch * h * w * cin * cout * k * k
        shape = (batch, cout, (h - 1) * stride - 2 * pad + k, (w - 1) * stride - 2 * pad + k)
        return T(self.emit("conv_transpose", args, kernel=(k, k), stride=(stride, stride), pad=(pad, pad)), shape)

    def linear(self, x: T, name: str, out: int, bias: bool = True, gain: float = 1.0) -> T:
        """x @ W + b over the last axis: Gemm for two dimensions, MatMul and Add for more, as exporters do."""
        k = x.shape[-1]
        args = [x.value, self.param(name + ".weight", (k, out), std=math.sqrt(gain / k))]
        if bias:
            args.append(self.param(name + ".bias", (out,), std=0.02))
        self.macs["matmul"] += math.prod(x.shape) * out
        return T(self.emit("linear", args, rank=len(x.shape)), (*x.shape[:-1], out))

    def matmul(self, a: T, b: T, kind: str = "matmul") -> T:
        """Batched matrix product of two activations."""
        shape = (*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        self.macs[kind] += math.prod(shape) * a.shape[-1]
        return T(self.emit("matmul", [a.value, b.value]), shape)

    def attention(
        self, q: T, k: T, v: T, mask: T | None = None, causal: bool = False, k_bshd: bool = False, style: str = "div"
    ) -> T:
        """softmax(q k' / sqrt(d) + mask) v over [B, H, S, D] (`k_bshd`: k still is [B, S, H, D]).

        `style` "div" divides the scores (BERT, GPT-2); "sdpa" scales q and k' first, as the export of torch's
        scaled_dot_product_attention does. torch itself gets its fused operator.
        """
        batch, heads, sq, dim = q.shape
        sk = k.shape[1] if k_bshd else k.shape[2]
        self.macs["attention"] += 2 * batch * heads * sq * sk * dim
        args = [q.value, k.value, v.value] + ([mask.value] if mask is not None else [])
        value = self.emit("attention", args, dim=dim, sq=sq, sk=sk, causal=causal, k_bshd=k_bshd, style=style)
        return T(value, (batch, heads, sq, v.shape[-1]))

    def recurrent(self, x: T, name: str, hidden: int, cell: str, bidirectional: bool = False) -> T:
        """One LSTM or GRU layer over time-major [T, B, I], zero initial state -> [T, B, directions * hidden]."""
        steps, batch, size = x.shape
        gates, dirs = (4 if cell == "lstm" else 3), (2 if bidirectional else 1)
        args, bound = [x.value], 1.0 / math.sqrt(hidden)
        for d in range(dirs):
            args += [
                self.param(f"{name}.w{d}", (gates * hidden, size), std=bound),
                self.param(f"{name}.r{d}", (gates * hidden, hidden), std=bound),
                self.param(f"{name}.bw{d}", (gates * hidden,), std=0.02),
                self.param(f"{name}.br{d}", (gates * hidden,), std=0.02),
            ]
        self.macs["recurrent"] += steps * batch * dirs * gates * hidden * (size + hidden)
        value = self.emit("recurrent", args, cell=cell, hidden=hidden, dirs=dirs, steps=steps, batch=batch)
        return T(value, (steps, batch, dirs * hidden))

    # -- normalisation
    def batch_norm(self, x: T, name: str, scale: float = 1.0) -> T:
        """Inference batch normalisation with statistics near zero and one; `scale` tames residual branches."""
        c = (x.shape[1],)
        args = [
            x.value,
            self.param(name + ".weight", c, scale, 0.1 * scale),
            self.param(name + ".bias", c, 0.0, 0.1),
            self.param(name + ".mean", c, 0.0, 0.1),
            self.param(name + ".var", c, 1.0, 0.1, positive=True),
        ]
        return T(self.emit("batch_norm", args, eps=1e-5), x.shape)

    def layer_norm(self, x: T, name: str, eps: float = 1e-5) -> T:
        """Layer normalisation over the last axis."""
        c = (x.shape[-1],)
        args = [x.value, self.param(name + ".weight", c, 1.0, 0.1), self.param(name + ".bias", c, 0.0, 0.1)]
        return T(self.emit("layer_norm", args, eps=eps, size=c[0]), x.shape)

    def instance_norm(self, x: T, name: str) -> T:
        """Instance normalisation over the spatial axes of [N, C, *spatial]."""
        c = (x.shape[1],)
        args = [x.value, self.param(name + ".weight", c, 1.0, 0.1), self.param(name + ".bias", c, 0.0, 0.1)]
        return T(self.emit("instance_norm", args, eps=1e-5), x.shape)

    # -- elementwise, pooling, shape
    def unary(self, op: str, x: T) -> T:
        """relu, relu6, sigmoid, tanh, silu, gelu (erf), gelu_tanh."""
        return T(self.emit(op, [x.value]), x.shape)

    def relu(self, x: T) -> T:
        """max(x, 0)."""
        return self.unary("relu", x)

    def binary(self, op: str, a: T, b: T) -> T:
        """add, sub, mul with broadcasting."""
        return T(self.emit(op, [a.value, b.value]), broadcast(a.shape, b.shape))

    def add(self, a: T, b: T) -> T:
        """a + b."""
        return self.binary("add", a, b)

    def mul(self, a: T, b: T) -> T:
        """a * b."""
        return self.binary("mul", a, b)

    def softmax(self, x: T, axis: int = -1) -> T:
        """Softmax over one axis."""
        return T(self.emit("softmax", [x.value], axis=axis), x.shape)

    def pool(self, op: str, x: T, k: Ints, stride: Ints, pad: Ints = 0) -> T:
        """max_pool or avg_pool (padding counted) over [N, C, H, W]."""
        ks, st, pd = tup(k, 2), tup(stride, 2), tup(pad, 2)
        spatial = tuple((d + 2 * p - q) // s + 1 for d, q, s, p in zip(x.shape[2:], ks, st, pd, strict=True))
        return T(self.emit(op, [x.value], kernel=ks, stride=st, pad=pd), (*x.shape[:2], *spatial))

    def global_avg_pool(self, x: T) -> T:
        """[N, C, H, W] -> [N, C, 1, 1]."""
        return T(self.emit("global_avg_pool", [x.value]), (*x.shape[:2], 1, 1))

    def reduce(self, op: str, x: T, axes: Shape, keep: bool = False) -> T:
        """mean, sum or l2 over `axes`."""
        shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes)
        return T(self.emit("reduce", [x.value], kind=op, axes=axes, keep=keep), shape)

    def reshape(self, x: T, shape: Shape) -> T:
        """Reshape; one extent may be -1."""
        if -1 in shape:
            known = -math.prod(shape)
            shape = tuple(math.prod(x.shape) // known if d == -1 else d for d in shape)
        return T(self.emit("reshape", [x.value], shape=shape), shape, x.dtype)

    def transpose(self, x: T, perm: Shape) -> T:
        """Permute the axes."""
        return T(self.emit("transpose", [x.value], perm=perm), tuple(x.shape[p] for p in perm), x.dtype)

    def concat(self, xs: list[T], axis: int) -> T:
        """Concatenate along `axis`."""
        axis %= len(xs[0].shape)
        shape = tuple(sum(x.shape[i] for x in xs) if i == axis else d for i, d in enumerate(xs[0].shape))
        return T(self.emit("concat", [x.value for x in xs], axis=axis), shape)

    def split(self, x: T, axis: int, parts: int) -> list[T]:
        """Cut `axis` into equal parts."""
        axis %= len(x.shape)
        size = x.shape[axis] // parts
        values = self.emit("split", [x.value], axis=axis, parts=parts, size=size)
        shape = tuple(size if i == axis else d for i, d in enumerate(x.shape))
        return [T(value, shape) for value in values]

    def slice(self, x: T, axis: int, start: int, stop: int) -> T:
        """x[start:stop] along `axis`."""
        shape = tuple(stop - start if i == axis else d for i, d in enumerate(x.shape))
        return T(self.emit("slice", [x.value], axis=axis, start=start, stop=stop), shape)

    def take(self, x: T, axis: int, index: int) -> T:
        """x[index] along `axis`; the axis disappears."""
        shape = tuple(d for i, d in enumerate(x.shape) if i != axis)
        return T(self.emit("take", [x.value], axis=axis, index=index), shape)

    def embedding(self, ids: T, name: str, vocab: int, dim: int, std: float = 1.0) -> T:
        """Rows of a learned table."""
        table = self.param(name + ".weight", (vocab, dim), std=std)
        return T(self.emit("embedding", [table, ids.value]), (*ids.shape, dim))

    def mask_bias(self, mask: T) -> T:
        """A 0/1 integer mask [B, S] as the additive [B, 1, 1, S] bias of attention scores."""
        batch, size = mask.shape
        return T(self.emit("mask_bias", [mask.value]), (batch, 1, 1, size))


class CountNet(Net):
    """Counts multiply-adds and shapes; makes nothing."""

    def emit(self, op: str, args: list[Any], **attrs: Any) -> Any:
        """Nothing to emit; a split yields one empty value a part."""
        return [None] * attrs["parts"] if op == "split" else None

    def param(self, name: str, shape: Shape, mean: float = 0.0, std: float = 1.0, positive: bool = False) -> Any:
        """No values are drawn."""

    def constant(self, name: str, array: np.ndarray) -> Any:
        """No values are kept."""

    def input_value(self, spec: InputSpec) -> Any:
        """Inputs have no value."""
