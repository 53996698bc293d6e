"""The benchmark models: one table, one function that builds a model once into the cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import sequence, vision
from .net import CountNet, InputSpec, Net, make_inputs

__all__ = ["MODELS", "Spec", "cache_dir", "gflop", "load_inputs", "onnx_path", "torch_module"]


@dataclass(frozen=True)
class Spec:
    """A model: its builder, the sizes that make a small one for tests, and GFLOP without attention and recurrence."""

    name: str
    build: Callable[..., None]
    gflop: float = 0.0
    small: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)


def _table() -> dict[str, Spec]:
    tiny = {"width": 64, "depth": 2, "vocab": 100}
    specs = (
        Spec("resnet50", vision.resnet50, 8.18, {"size": 32, "width": 8, "layers": (1, 1, 1, 1), "classes": 10}),
        Spec("mobilenetv2", vision.mobilenetv2, 0.60, {"size": 32, "width": 0.25, "depth": 1, "classes": 10}),
        Spec("inceptionv3", vision.inceptionv3, 11.43, {"size": 75, "div": 16, "classes": 10}),
        Spec("efficientnetb0", vision.efficientnetb0, 0.77, {"size": 32, "depth": 1, "classes": 10}),
        Spec("bert", sequence.bert, 21.74, {"seq": 8, **tiny}),
        Spec("gpt2_prefill", sequence.gpt2_prefill, 21.74, {"seq": 8, **tiny}),
        Spec("gpt2_decode", sequence.gpt2_decode, 0.17, {"past": 8, **tiny}),
        Spec("vitb16", sequence.vitb16, 33.70, {"size": 32, "width": 64, "depth": 2, "classes": 10}),
        Spec("transformer", sequence.transformer, 6.29, {"seq": 8, **tiny}),
        Spec("crnn", vision.crnn, 4.01, {"length": 32, "width": 8, "hidden": 8}),
        Spec("dien", sequence.dien, 0.78, {"batch": 4, "steps": 5, "vocab": 20}),
        Spec("wav2vec2", sequence.wav2vec2, 27.65, {"samples": 1000, "channels": 16, "width": 64, "depth": 2}),
        Spec("dcgan", vision.dcgan, 0.21, {"width": 8}),
    )
    return {s.name: s for s in specs}


MODELS: dict[str, Spec] = _table()


def cache_dir() -> Path:
    """$WARPBEAM_BENCH_CACHE, or ~/.cache/warpbeam-bench."""
    root = os.environ.get("WARPBEAM_BENCH_CACHE") or str(Path.home() / ".cache" / "warpbeam-bench")
    path = Path(root)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _source_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem == "torch_net":  # has no part in the files
            continue
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def gflop(spec: Spec) -> tuple[float, float]:
    """(GFLOP of convolutions and dense layers, GFLOP with attention and recurrent cells too)."""
    net = CountNet()
    spec.build(net, **spec.sizes)
    plain = net.macs["conv"] + net.macs["matmul"]
    return 2e-9 * plain, 2e-9 * sum(net.macs.values())


def build_onnx(
    build: Callable[..., None], sizes: dict[str, Any], name: str, seed: int = 0
) -> tuple[Any, list[InputSpec]]:
    """The `onnx.ModelProto` of a builder and the inputs it declares."""
    from .onnx_net import OnnxNet

    net = OnnxNet(seed)
    build(net, **sizes)
    return net.model(name), net.inputs


def onnx_path(spec: Spec) -> Path:
    """The model's ONNX file, written on first use; the name carries a digest of the builders and of the sizes."""
    sizes = hashlib.sha256(repr(sorted(spec.sizes.items())).encode()).hexdigest()[:6]
    path = cache_dir() / f"{spec.name}-{_source_digest()}-{sizes}.onnx"
    if path.exists():
        return path
    model, inputs = build_onnx(spec.build, spec.sizes, spec.name)
    np.savez(path.with_suffix(".npz"), **make_inputs(inputs))  # type: ignore[arg-type]
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_bytes(model.SerializeToString())
    partial.rename(path)
    for old in path.parent.glob(f"{spec.name}-*-{sizes}.*"):  # what earlier builders wrote
        if old.stem != path.stem:
            old.unlink(missing_ok=True)
    return path


def load_inputs(path: Path) -> dict[str, np.ndarray]:
    """The inputs that belong to a cached model file."""
    with np.load(path.with_suffix(".npz")) as data:
        return {name: data[name] for name in data.files}


def torch_module(build: Callable[..., None], sizes: dict[str, Any], seed: int = 0) -> tuple[Any, list[str], list[str]]:
    """(torch module, names of its inputs, names of its outputs) with the weights of the ONNX file."""
    from .torch_net import TorchNet

    net: Net = TorchNet(seed)
    build(net, **sizes)
    return net.module(), [s.name for s in net.inputs], [n for n, _ in net.outputs]  # type: ignore[attr-defined]


def describe() -> str:
    """The table of models as JSON (used by `--list`)."""
    return json.dumps({s.name: dict(zip(("gflop", "gflop_all"), gflop(s), strict=True)) for s in MODELS.values()})
