"""The child process of `benchmarks.dynamic`: a model with open sizes, fed with inputs of ever new shapes.

Requests as in `worker`: {"do": "open", "path", "threads"}, {"do": "feed", "specs", "runs", "save"},
{"do": "slice", "seconds"}.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .models.net import InputSpec, make_inputs
from .peers import Arrays
from .worker import main, timed_slice

Run = Callable[[Arrays], Any]


class Warpbeam:
    """One artefact for all shapes."""

    def __init__(self, path: str, threads: int) -> None:
        self.path, self.threads, self.modules = path, threads, 0
        self.open()

    def open(self) -> None:
        """What is done before the stream begins."""
        self.module = self.compiled()

    def compiled(self, shapes: dict[str, tuple[int, ...]] | None = None) -> Any:
        """The model compiled, for given shapes if there are any."""
        import warpbeam

        self.modules += 1
        module = warpbeam.compile(self.path, threads=self.threads, shapes=shapes)
        module.num_threads = self.threads
        return module

    def bind(self, inputs: Arrays) -> Run:
        """What answers requests of the inputs' shapes."""
        return self.module.run  # type: ignore[no-any-return]

    def named(self, outputs: Any) -> Arrays:
        """Outputs by name."""
        return {k: np.asarray(v) for k, v in outputs.items()}


class Static(Warpbeam):
    """An artefact of its own for each shape, compiled before its runs are timed."""

    def open(self) -> None:
        self.known: dict[Any, Any] = {}

    def bind(self, inputs: Arrays) -> Run:
        shapes = {k: v.shape for k, v in inputs.items()}
        key = tuple(sorted(shapes.items()))
        if key not in self.known:
            self.known[key] = self.compiled(shapes)
        return self.known[key].run  # type: ignore[no-any-return]


class OnnxRuntime(Warpbeam):
    """One session for all shapes, all graph optimisations."""

    def open(self) -> None:
        import onnxruntime as ort  # type: ignore[import-untyped]

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self.modules = 1
        self.session = ort.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])

    def bind(self, inputs: Arrays) -> Run:
        return lambda given: self.session.run(None, given)

    def named(self, outputs: Any) -> Arrays:
        return {o.name: v for o, v in zip(self.session.get_outputs(), outputs, strict=True)}


PEERS: dict[str, type[Warpbeam]] = {"warpbeam": Warpbeam, "static": Static, "ort": OnnxRuntime}


class Worker:
    """The state between requests."""

    def __init__(self, name: str, precision: str) -> None:
        self.kind = PEERS[name]
        self.peer: Any = None

    def open(self, path: str, threads: int) -> dict[str, Any]:
        """Load the model; answers seconds."""
        start = time.perf_counter()
        self.peer = self.kind(str(Path(path)), threads)
        return {"load_s": time.perf_counter() - start}

    def feed(self, specs: list[list[Any]], runs: int, save: str) -> dict[str, Any]:
        """Run `runs` times on inputs of new shapes; answers the seconds of each, and how many compilations there were
        so far.
        """
        inputs = make_inputs([InputSpec(n, tuple(shape), dtype, high, ones) for n, shape, dtype, high, ones in specs])
        call = self.peer.bind(inputs)
        gc.collect()
        gc.disable()
        samples = []
        for _ in range(runs):
            start = time.perf_counter()
            out = call(inputs)
            samples.append(time.perf_counter() - start)
        gc.enable()
        if save:
            np.savez(save, **self.peer.named(out))  # type: ignore[arg-type]
        self.last = call, inputs
        return {"samples": samples, "compiled": self.peer.modules}

    def slice(self, seconds: float) -> dict[str, Any]:
        """Run on the inputs of the last `feed` for a while; answers the samples."""
        call, inputs = self.last
        return {"samples": timed_slice(lambda: call(inputs), seconds, 1)}


if __name__ == "__main__":
    main(Worker)
