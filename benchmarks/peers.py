"""What is measured: Warpbeam and its peers behind one interface, each configured the way its manual says is fast.

Every peer gets the same model and inputs, the same thread count, full fp32 unless another precision is asked for (those
that have no such mode stay in fp32, and say so), and runs with inputs and outputs bound beforehand where its API can do
that.
"""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .models import MODELS, load_inputs, torch_module

Arrays = dict[str, np.ndarray]


class Peer(ABC):
    """One system under test, holding one loaded model at a time."""

    package = ""
    precision = "fp32"  # what it runs in
    able: tuple[str, ...] = ("fp32",)  # what it can be asked for
    wanted = "fp32"  # what it was asked for, with all words

    def ask(self, precision: str) -> None:
        """The precision that is wanted; what a peer cannot do it does not."""
        name = precision.partition(",")[0]
        if name in self.able:
            self.precision, self.wanted = name, precision

    def prepare(self, ref: str, path: Path) -> None:  # noqa: B027 - most peers have nothing to prepare
        """Work that is not part of the load time (rebuilding a model from code)."""

    @abstractmethod
    def load(self, path: Path, inputs: Arrays, threads: int) -> None:
        """Read and compile the model and bind its inputs."""

    @abstractmethod
    def run(self) -> Any:
        """One inference."""

    @abstractmethod
    def results(self) -> Arrays:
        """The outputs of the last inference."""

    def version(self) -> str:
        """The installed version."""
        return importlib.metadata.version(self.package)


class Warpbeam(Peer):
    """`warpbeam.compile` with default options but the precision; outputs are preallocated."""

    package = "warpbeam"
    able = ("fp32", "bf16", "fp16")

    def load(self, path: Path, inputs: Arrays, threads: int) -> None:
        import warpbeam

        self.module = warpbeam.compile(str(path), threads=threads, precision=self.wanted)
        self.module.num_threads = threads
        self.inputs = inputs
        self.out = dict(self.module.run(inputs))
        self.call = self._bind()

    def _bind(self) -> Callable[[], Any]:
        module, inputs, out = self.module, self.inputs, self.out
        return lambda: module.run(inputs, out=out)

    def run(self) -> Any:
        self.call()

    def results(self) -> Arrays:
        return {name: np.asarray(a) for name, a in self.out.items()}

    def version(self) -> str:
        import warpbeam

        return str(getattr(warpbeam, "__version__", "source"))


class OnnxRuntime(Peer):
    """All graph optimisations, one operator at a time, inputs and outputs bound."""

    package = "onnxruntime"

    def load(self, path: Path, inputs: Arrays, threads: int) -> None:
        import onnxruntime as ort  # type: ignore[import-untyped]

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [o.name for o in self.session.get_outputs()]
        self.binding = self.session.io_binding()
        for name, array in inputs.items():
            self.binding.bind_cpu_input(name, array)
        self.outputs = []
        for name, array in zip(self.names, self.session.run(None, inputs), strict=True):
            self.outputs.append(ort.OrtValue.ortvalue_from_numpy(array))
            self.binding.bind_ortvalue_output(name, self.outputs[-1])

    def run(self) -> Any:
        self.session.run_with_iobinding(self.binding)

    def results(self) -> Arrays:
        return {n: v.numpy() for n, v in zip(self.names, self.outputs, strict=True)}


class OpenVino(Peer):
    """Latency hint; fp32 execution unless bf16 is asked for (its default would be bfloat16 on some processors)."""

    package = "openvino"
    able = ("fp32", "bf16")

    def load(self, path: Path, inputs: Arrays, threads: int) -> None:
        import openvino as ov  # type: ignore[import-untyped]

        core = ov.Core()
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self.compiled = core.compile_model(core.read_model(str(path)), "CPU", config)
        hint = self.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.precision = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}.get(hint, hint)
        self.request = self.compiled.create_infer_request()
        self.held = inputs
        for name, array in inputs.items():
            self.request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    def run(self) -> Any:
        self.request.infer()

    def results(self) -> Arrays:
        return {p.get_any_name(): self.request.get_tensor(p).data.copy() for p in self.compiled.outputs}


class OpenVinoBf16(OpenVino):
    """The same in bf16, whatever is asked for."""

    precision = "bf16"
    able = ()


class Torch(Peer):
    """The same model in torch operators, eager mode under `inference_mode`."""

    package = "torch"

    def prepare(self, ref: str, path: Path) -> None:
        self.module, self.ins, self.outs = torch_module(*resolve(ref))

    def load(self, path: Path, inputs: Arrays, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.args = [torch.from_numpy(inputs[n]) for n in self.ins]
        self.call = self.compiled()

    def compiled(self) -> Any:
        """What is called: the module itself."""
        return self.module

    def run(self) -> Any:
        with self.torch.inference_mode():
            self.last = self.call(*self.args)

    def results(self) -> Arrays:
        return {n: t.detach().numpy() for n, t in zip(self.outs, self.last, strict=True)}


class Inductor(Torch):
    """`torch.compile`, weights frozen, recurrent layers traced; needs a C++ compiler and tens of seconds a model."""

    def compiled(self) -> Any:
        """What is called: the compiled module."""
        import torch._dynamo.config as tracing
        import torch._inductor.config as config

        config.freezing, tracing.allow_rnn = True, True
        return self.torch.compile(self.module, fullgraph=True, dynamic=False)


class Peak(Peer):
    """No model: a loop of independent fused multiply-adds, the ceiling of the machine."""

    def load(self, path: Path, inputs: Arrays, threads: int) -> None:
        from .peak import FmaPeak

        self.loop = FmaPeak(threads)
        self.run = self.loop.run  # type: ignore[method-assign]

    def run(self) -> Any:
        raise AssertionError("replaced by load")

    def results(self) -> Arrays:
        return {}

    def version(self) -> str:
        return "1"


PEERS: dict[str, type[Peer]] = {
    "warpbeam": Warpbeam,
    "ort": OnnxRuntime,
    "ov": OpenVino,
    "ov_bf16": OpenVinoBf16,
    "torch": Torch,
    "inductor": Inductor,
    "peak": Peak,
}


def resolve(ref: str) -> tuple[Callable[..., None], dict[str, Any]]:
    """("model:resnet50" or "op:gemm_512x512x512") -> (builder, sizes)."""
    kind, name = ref.split(":", 1)
    if kind == "model":
        return MODELS[name].build, MODELS[name].sizes
    from .models.cases import CASES

    return CASES[name].build, CASES[name].sizes


def inputs_of(path: Path) -> Arrays:
    """The inputs stored beside a model file (none for the peak loop)."""
    return load_inputs(path) if path.suffix == ".onnx" else {}
