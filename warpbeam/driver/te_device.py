"""Programs for GPUs: the host part, and kernels as text in an imported module.

    mod = warpbeam.build(s, [A, B, C], target="cuda")
    mod.imported_modules[0].get_source()

There is no driver here that runs them: calling the functions is an error. Built under
`PassContext(config={"warpbeam.gpu_executor": True})` they run on the CPU, by an executor that keeps the rules of a GPU
and reports races; it is slow and meant for tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam.codegen.packed import explicit_args
from warpbeam.ir.transform import PassContext
from warpbeam.runtime.errors import ArgumentError, RunError
from warpbeam.runtime.function_module import FunctionModule
from warpbeam.runtime.ndarray import as_numpy
from warpbeam.runtime.packed import PackedFunc
from warpbeam.target import Target
from warpbeam.tir.expr import Var
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.gpu import lower_gpu

EXECUTOR = "warpbeam.gpu_executor"
#: extension of the text by kind of target
_EXTENSIONS = {"cuda": "cu", "opencl": "cl"}


def build(funcs: Sequence[PrimFunc], target: Target) -> FunctionModule:
    """A module whose kernels are text for the target's own compiler.

    Raises:
        LowerError: for programs that are no kernels ("Did you forget to bind?"), or that the device cannot run.
    """
    parts = [lower_gpu(f, target) for f in funcs]
    devices = [d for _, kernels in parts for d in kernels]
    source = importlib.import_module(f"warpbeam.codegen.{target.kind}").print_kernels(devices, target)
    ext = _EXTENSIONS.get(str(target.kind), "txt")
    rows = [{"kind": str(target.kind), "ext": ext, "source": source}]
    text = "\n\n".join(to_text(host) for host, _ in parts)
    module = FunctionModule.of_sources("host", "tir", text, rows)
    execute = bool(PassContext.current().config.get(EXECUTOR))
    for func, (host, kernels) in zip(funcs, parts, strict=True):
        call = _executor(func, host, kernels) if execute else _refusal(func.name, target)
        module.add_function(func.name, PackedFunc(call, func.name))
    return module


def _refusal(name: str, target: Target) -> Callable[..., Any]:
    why = f"kernels for {target.kind} are printed, not driven, by this runtime"
    hint = f'read imported_modules[0].get_source(); PassContext(config={{"{EXECUTOR}": True}}) runs them on the CPU'

    def refuse(*args: Any) -> Any:
        raise RunError(f"{name} cannot run here", why=why, hint=hint)

    return refuse


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
