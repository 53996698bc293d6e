"""Programs for GPUs: the host part, and kernels as text in an imported module.

    mod = warpbeam.build(s, [A, B, C], target="cuda")
    mod.imported_modules[0].get_source()

There is no driver here that runs them. Calling the functions runs the same scheduled program on the processor, with
blocks and threads as loops, compiled on the first call: results are those of a GPU, times are not. Built under
`PassContext(config={"warpbeam.gpu_executor": True})` they run by an executor that keeps the rules of a GPU and reports
races; it is slow and meant for tests. It also stands in for what a processor has no instruction for (matrix units).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.codegen.packed import explicit_args
from warpbeam.driver import intrin_rules
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.transform import PassContext
from warpbeam.runtime.errors import ArgumentError, LoadError
from warpbeam.runtime.function_module import FunctionModule
from warpbeam.runtime.ndarray import as_numpy
from warpbeam.runtime.packed import PackedFunc
from warpbeam.target import Target, parse
from warpbeam.tir.expr import Var
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.gpu import lower_device, lower_gpu
from warpbeam.tir.transform.gpu.serialize_threads import serialize_threads

EXECUTOR = "warpbeam.gpu_executor"
#: extension of the text by kind of target
_EXTENSIONS = {"cuda": "cu", "opencl": "cl"}


def build(funcs: Sequence[PrimFunc], target: Target) -> FunctionModule:
    """A module whose kernels are text for the target's own compiler.

    Raises:
        LowerError: for programs that are no kernels ("Did you forget to bind?"), or that the device cannot run.
    """
    parts = [lower_gpu(intrin_rules.apply(f, target), target) for f in funcs]
    devices = [d for _, kernels in parts for d in kernels]
    source = importlib.import_module(f"warpbeam.codegen.{target.kind}").print_kernels(devices, target)
    ext = _EXTENSIONS.get(str(target.kind), "txt")
    rows = [{"kind": str(target.kind), "ext": ext, "source": source}]
    text = "\n\n".join(to_text(host) for host, _ in parts)
    module = FunctionModule.of_sources("host", "tir", text, rows)
    execute = bool(PassContext.current().config.get(EXECUTOR))
    together = StandIn(list(funcs), target.replace(warp_shuffle=False))
    for func, (host, kernels) in zip(funcs, parts, strict=True):
        strict = _executor(func, host, kernels)
        call = PackedFunc(strict, func.name) if execute else OnProcessor(together, strict, func.name)
        module.add_function(func.name, call)
    return module


@dataclass(slots=True)
class StandIn:
    """Programs for a device, as the processor runs them: compiled when first asked for."""

    funcs: list[PrimFunc]
    target: Target
    module: FunctionModule | None = None

    def compiled(self) -> FunctionModule:
        """The functions as machine code.

        Raises:
            LowerError, LoadError: if there is an instruction or function in them that only the device has.
        """
        if self.module is None:
            from warpbeam.driver import te_build, te_link

            host = parse("llvm")
            ready = [serialize_threads(lower_device(intrin_rules.apply(f, host), self.target)) for f in self.funcs]
            self.module = te_link.build_llvm([te_build.entry(f, host) for f in ready], host)
        return self.module


class OnProcessor(PackedFunc):
    """A device's function that runs on the processor."""

    __slots__ = ("_strict", "_together")

    def __init__(self, together: StandIn, strict: Callable[..., Any], name: str) -> None:
        super().__init__(self._run, name)
        self._together, self._strict = together, strict

    def compiled(self) -> PackedFunc:
        """The machine code, for measuring."""
        return self._together.compiled()[self.name]

    def _run(self, *args: Any) -> Any:
        try:
            found: Callable[..., Any] = self.compiled()
        except (LowerError, LoadError) as error:
            found = self._strict  # a matrix unit, or a function that only the device's library has
            warnings.warn(f"{self.name} runs by the executor of GPU rules, which is slow: {error.what}", RuntimeWarning,
                          stacklevel=3)  # fmt: skip
        return found(*args)


def _executor(func: PrimFunc, host: PrimFunc, kernels: Sequence[PrimFunc]) -> Callable[..., Any]:
    """Runs the host part and its kernels on the CPU, as a GPU would."""
    explicit = explicit_args(func)

    def run(*args: Any) -> None:
        from warpbeam.tir import interp_gpu

        if len(args) != len(explicit):
            raise ArgumentError(f"{func.name}: num_args should be {len(explicit)}", why=f"{len(args)} were given")
        given = dict(zip(explicit, args, strict=True))
        arrays = [as_numpy(given[p], compact=False) for p in host.buffers if p in given]
        numbers = [int(given[p]) for p in host.params if isinstance(p, Var) and p in given]
        back = [np.asarray(a, order="C") for a in arrays]
        interp_gpu.run(host, list(kernels), *back, *numbers)
        for array, result in zip(arrays, back, strict=True):
            if array is not result and array.flags.writeable:
                array[...] = result

    return run
