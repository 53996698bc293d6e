"""Warpbeam: a deep-learning compiler in pure Python. Model in, fast native module out.

    import warpbeam
    module = warpbeam.compile("model.onnx")
    outputs = module.run({"x": array})

Everything is loaded on first use, so that importing the package costs little.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warpbeam.driver.api import compile, load

__version__ = "0.1.0"

#: whether the compiler is installed too; the runtime ships alone as well
HAS_COMPILER = os.path.isdir(os.path.join(__path__[0], "driver"))

_DEVICES = ("cl", "context", "cpu", "cuda", "device", "ext_dev", "gpu", "hexagon", "metal", "opencl", "rocm", "vulkan",
            "webgpu")  # fmt: skip
_NAMES = {
    "compile": "warpbeam.driver.api:compile",
    "load": "warpbeam.driver.api:load" if HAS_COMPILER else "warpbeam.runtime.model:open_model",
    "lower": "warpbeam.driver.te_build:lower",
    "build": "warpbeam.driver.te_build:build",
    "explain": "warpbeam.driver.explain:explain",
    "driver": "warpbeam.driver",
    "IRModule": "warpbeam.relay.expr:IRModule",
    "ir": "warpbeam.ir",
    "instrument": "warpbeam.ir.instrument",
    "transform": "warpbeam.ir.transform",
    "relay": "warpbeam.relay_api",
    "te": "warpbeam.te",
    "topi": "warpbeam.topi",
    "tir": "warpbeam.tir",
    "target": "warpbeam.target",
    "frontend": "warpbeam.frontend",
    "contrib": "warpbeam.contrib",
    "testing": "warpbeam.testing",
    "runtime": "warpbeam.runtime",
    "rpc": "warpbeam.runtime.rpc",
    "hybrid": "warpbeam.te.hybrid",
    "nd": "warpbeam.runtime.ndarray",
    "error": "warpbeam.runtime.errors",
    "Module": "warpbeam.runtime.module:Module",
    "WarpbeamError": "warpbeam.runtime.errors:WarpbeamError",
    "TVMError": "warpbeam.runtime.errors:TVMError",
    **{n: f"warpbeam.runtime.ndarray:{n}" for n in _DEVICES},
    **{
        n: f"warpbeam.runtime.packed:{n}"
        for n in ("convert", "get_global_func", "register_func", "register_global_func")
    },
}

# Classic import path -> the module that it stands for: `import warpbeam.nd`, `from warpbeam.error import TVMError`.
_ALIASES = {
    f"warpbeam.{alias}": f"warpbeam.{module}"
    for alias, module in {
        "_ffi": "runtime.packed",
        "contrib.rpc": "runtime.rpc",
        "driver.build_module": "driver.te_build",
        "error": "runtime.errors",
        "hybrid": "te.hybrid",
        "instrument": "ir.instrument",
        "ir.module": "driver.ir_names",
        "ir.op": "driver.ir_names",
        "nd": "runtime.ndarray",
        "ndarray": "runtime.ndarray",
        "relay.transform": "transform",
        "relay.vm": "driver.vm",
        "rpc": "runtime.rpc",
        "testing.utils": "testing",
        "topi.nn.util": "topi.nn.utils",
        "topi.util": "topi.utils",
    }.items()
}


class _Aliases:
    """Finds and loads modules by their classic paths, where no file has that name.

    It has the methods of `importlib.abc.MetaPathFinder` and `Loader`, whose import would cost more than our own.
    """

    own: ModuleSpec | None

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        loader: Any = self
        if fullname in _ALIASES:
            return ModuleSpec(fullname, loader)
        if not HAS_COMPILER and fullname.startswith("warpbeam."):
            from warpbeam.runtime.errors import NotInstalledError

            why = "this is the runtime alone: it runs compiled models"
            hint = "pip uninstall warpbeam-runtime, then pip install warpbeam"
            raise NotInstalledError("the compiler is not installed", fullname, why, hint)
        return None

    def create_module(self, spec: ModuleSpec) -> Any:
        module = importlib.import_module(_ALIASES[spec.name])
        self.own = module.__spec__
        return module

    def exec_module(self, module: Any) -> None:
        module.__spec__ = self.own  # the import system has put the alias there


sys.meta_path.append(_Aliases())

__all__ = ["WarpbeamError", "__version__", "compile", "load"]


def __getattr__(name: str) -> Any:
    place = _NAMES.get(name)
    if place is None:
        raise AttributeError(f"module 'warpbeam' has no attribute {name!r}")
    module, _, attr = place.partition(":")
    try:
        value = importlib.import_module(module)
    except ModuleNotFoundError as error:
        from warpbeam.runtime.errors import not_installed

        raise not_installed(error) from error
    if attr:
        value = getattr(value, attr)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
