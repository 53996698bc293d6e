"""What ships to a device: arrays, the artefact and its loader, the thread pool, Programs and the faces that run them.

Imports nothing else of the package. The usual way in is `load(path)`, which gives a `Module`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .abi import HEADER_PATH
from .artifact import Artifact, KernelInfo, Manifest, Section, TensorSpec
from .compiled import CompiledModel, TensorInfo
from .errors import ArgumentError, ArtifactError, FunctionError, LinkError, LoadError, RunError, TVMError, WarpbeamError
from .loader import Library
from .measure import BenchmarkResult
from .model import Model, open_model
from .module import Module, load
from .ndarray import Device, NDArray, array, as_numpy, cl, context, cpu, cuda, device, empty, from_dlpack, gpu, opencl
from .pool import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from .export import load_module
    from .function_call import CompiledFunction
    from .function_module import FunctionModule
    from .graph_executor import GraphModule
    from .linker import link_shared
    from .packed import (
        PackedFunc,
        convert,
        get_global_func,
        list_global_func_names,
        register_func,
        register_global_func,
        remove_global_func,
    )
    from .params import load_param_dict, save_param_dict
    from .pool_ll import pool_ir
    from .profiler import KernelTime, Profile
    from .program import Program

#: names that running a model does not need, loaded on first use: submodule -> its names
_LATE = {
    "export": "load_module",
    "function_call": "CompiledFunction",
    "function_module": "FunctionModule",
    "graph_executor": "GraphModule",
    "linker": "link_shared",
    "packed": "PackedFunc convert get_global_func list_global_func_names register_func register_global_func "
    "remove_global_func",
    "params": "load_param_dict save_param_dict",
    "pool_ll": "pool_ir",
    "profiler": "KernelTime Profile",
    "program": "Program",
}
_HOME = {name: module for module, names in _LATE.items() for name in names.split()}
_SUBMODULES = ("container", "vm")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def enabled(target: str) -> bool:
    """Whether code for a target ("llvm", "cuda -arch=sm_70", …) runs on this machine through this runtime."""
    words = target.split()
    kind = words[0] if words else ""
    return kind in ("llvm", "cpu", "c", "stackvm", "native")


__all__ = [
    "HEADER_PATH", "ArgumentError", "Artifact", "ArtifactError", "BenchmarkResult", "CompiledFunction",
    "CompiledModel", "Device",
    "FunctionError", "FunctionModule", "GraphModule", "KernelInfo", "KernelTime", "Library", "LinkError", "LoadError",
    "Manifest", "Model", "Module", "NDArray", "PackedFunc", "Profile", "Program", "RunError", "Section", "TVMError",
    "TensorInfo", "TensorSpec", "WarpbeamError", "array", "as_numpy", "cl", "context", "convert", "cpu", "cuda",
    "device", "empty", "enabled", "from_dlpack", "get_global_func", "get_num_threads", "gpu", "link_shared",
    "list_global_func_names", "load", "load_module", "load_param_dict", "open_model", "opencl", "pool_ir",
    "register_func",
    "register_global_func", "remove_global_func", "save_param_dict", "set_num_threads",
]  # fmt: skip
