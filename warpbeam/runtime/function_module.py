"""Modules of compiled functions: what `build` returns and `load_module` reads.

    mod = warpbeam.build(schedule, [A, B, C])
    mod(a, b, c)            # the entry; arrays are changed in place
    mod["main"](a, b, c)    # a function by name
    mod.export_library("lib.so"); mod = warpbeam.runtime.load_module("lib.so")

A module is one shared library that describes itself (`wb_module`, JSON). Its code comes with the sources it was made of
while the process that compiled it lives; a loaded one has none.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import export, packed, pool
from .cpu import missing_features, runs_here
from .errors import FunctionError, LoadError, RunError
from .function_call import CompiledFunction
from .loader import Library
from .measure import BenchmarkResult
from .ndarray import Device, device
from .packed import PackedFunc
from .timing import TimeEvaluator

ABOUT, TABLE = "wb_module", "wb_imports"
FORMAT = 1
_WORDS = {"asm": "s", "assembly": "s", "llvm": "ll", "": ""}


@dataclass(slots=True)
class Sources:
    """What a module can be shown or saved as; each is text or bytes, or a function that makes it when asked.

    texts: by format: "ll", "s", "c", "cu", "cl". first: the format of `get_source()`. object: one relocatable object
    with everything in it.
    """

    first: str = ""
    texts: dict[str, str | Callable[[], str]] = field(default_factory=dict)
    object: bytes | Callable[[], bytes] | None = None

    def text(self, fmt: str) -> str | None:
        """The text of a format, made on first use; None if there is none."""
        found = self.texts.get(fmt)
        if callable(found):
            found = self.texts[fmt] = found()
        return found

    def object_bytes(self) -> bytes | None:
        """The relocatable object, made on first use."""
        if callable(self.object):
            self.object = self.object()
        return self.object


class FunctionModule:
    """Compiled functions. `type_key`: "llvm", "c", "cuda", …; "library" for a loaded one.

    A module without code of its own (a device's kernels) holds sources only, and one for another machine (`about` is
    given with its code) is not loaded: both can be saved, and calling them is an error.
    """

    def __init__(self, code: bytes | None, type_key: str, sources: Sources | None = None, name: str = "module",
                 about: Mapping[str, Any] | None = None) -> None:  # fmt: skip
        """Loads the code.

        Raises:
            LoadError: if it is for another machine, is no module, or needs a C function that is not in this process.
        """
        self.type_key = type_key
        self.code = code
        self.sources = sources or Sources()
        self.imported_modules: list[FunctionModule] = []
        self._functions: dict[str, PackedFunc] = {}
        self.about: dict[str, Any] = dict(about or {})
        self.entry_name = ""
        if code is not None and about is None:
            self._load(code, name)
        for row in self.about.get("modules", ()):
            self.imported_modules.append(
                FunctionModule(None, row["kind"], Sources(row["ext"], {row["ext"]: row["source"]}))
            )

    @staticmethod
    def of_sources(type_key: str, fmt: str, text: str, modules: Sequence[Mapping[str, Any]] = ()) -> FunctionModule:
        """A module without machine code: a text, and the texts of imported modules ("kind", "ext", "source")."""
        return FunctionModule(None, type_key, Sources(fmt, {fmt: text}), about={"modules": modules})

    @staticmethod
    def foreign(code: bytes | None, sources: Sources, about: Mapping[str, Any], reason: LoadError) -> FunctionModule:
        """A module for another machine: it can be saved and exported; calling it raises `reason`."""
        made = FunctionModule(code, about["kind"], sources, about=about)

        def refuse(*args: Any) -> Any:
            raise reason

        for row in about["functions"]:
            made.add_function(row["name"], PackedFunc(refuse, row["name"]))
        return made

    def add_function(self, name: str, function: PackedFunc) -> None:
        """Adds a function that is no machine code; the first one is the entry."""
        self._functions[name] = function
        self.entry_name = self.entry_name or name

    def _load(self, code: bytes, name: str) -> None:
        self.library = Library(code, name)
        if ABOUT not in self.library:
            raise LoadError("the library is no module of compiled functions", name, f"it has no symbol {ABOUT}",
                            "load what export_library wrote")  # fmt: skip
        self.about = json.loads(ctypes.string_at(self.library.address(ABOUT)))
        if self.about.get("format") != FORMAT:
            raise LoadError(f"the module has format {self.about.get('format')}", name, f"this runtime reads {FORMAT}")
        reason = other_machine(name, self.about["triple"], self.about["features"])
        if reason is not None:
            raise reason
        self._fill_table()
        self.entry_name = self.about["entry"]
        parallel_for, address = pool.attach(self.library)
        for row in self.about["functions"]:
            self._functions[row["name"]] = CompiledFunction(self, row, (parallel_for, address))

    def _fill_table(self) -> None:
        rows = self.about.get("imports", ())
        if not rows:
            return
        table = (ctypes.c_void_p * len(rows)).from_address(self.library.address(TABLE))
        for i, row in enumerate(rows):
            table[i] = packed.CALL_PACKED_ADDRESS if "packed" in row else _c_function(row["c"])

    # ------------------------------------------------------------------------------------------------------ functions

    @property
    def entry_func(self) -> PackedFunc:
        """The function that calling the module calls."""
        return self.get_function(self.entry_name)

    def get_function(self, name: str, query_imports: bool = False) -> PackedFunc:
        """A function by name; `query_imports`: also those of imported modules.

        Raises:
            FunctionError: (a ValueError) if there is none.
        """
        found = self._functions.get(name)
        if found is None and name in ("__tvm_main__", "main", "default") and self.entry_name:
            found = self._functions.get(self.entry_name)
        if found is None and query_imports:
            for mod in self.imported_modules:
                if name in mod._functions:
                    return mod._functions[name]
        if found is None:
            known = ", ".join(self._functions) or "none"
            raise FunctionError(f"Module has no function '{name}'", hint=f"its functions: {known}")
        return found

    def __getitem__(self, name: str) -> PackedFunc:
        return self.get_function(name)

    def __call__(self, *args: Any) -> Any:
        return self._functions[self.entry_name](*args) if self.entry_name else self.get_function("main")(*args)

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def implements_function(self, name: str, query_imports: bool = False) -> bool:
        """Whether there is a function of this name."""
        return name in self._functions or (query_imports and any(name in m for m in self.imported_modules))

    def import_module(self, module: FunctionModule) -> None:
        """Adds a module whose functions and sources belong to this one."""
        self.imported_modules.append(module)

    # ------------------------------------------------------------------------------------------------- text and files

    @property
    def format(self) -> str:
        """The format of `get_source()`."""
        return self.sources.first

    def get_source(self, fmt: str = "") -> str:
        """The text of the code: "ll", "asm", "c", "cu"; by default what the target's code generator printed.

        A loaded module has no text: the answer is empty then, as ever.
        """
        name = _WORDS.get(fmt, fmt) or self.sources.first
        if not name:
            return ""
        found = self.sources.text(name)
        if found is None:
            known = ", ".join(self.sources.texts) or "none"
            raise FunctionError(f"module of type {self.type_key} has no source {fmt!r}", hint=f"formats: {known}")
        return found

    inspect_source = get_source

    def save(self, file_name: str | os.PathLike[str], fmt: str = "") -> None:
        """Writes one file; its kind is the extension's: .o, .ll, .s (or .asm), .c, .so, .tar; or `fmt`.

        Raises:
            FunctionError: if the module cannot be written so.
        """
        export.save(self, Path(file_name), fmt)

    def export_library(
        self, file_name: str | os.PathLike[str], *, fcompile: Any = None, addons: Any = None,
        workspace_dir: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Writes a shared library (.so) or an archive of objects (.tar), which `load_module` reads; no compiler needed.

        Args:
            fcompile: a function (path, [object files], **kwargs) that links instead, such as contrib.cc.cross_compiler.
            addons: further object files for `fcompile`.
            workspace_dir: folder for the object files given to `fcompile`; a temporary one by default.
            kwargs: passed to `fcompile`.
        """
        export.export_library(self, Path(file_name), fcompile, addons, workspace_dir, kwargs)

    def time_evaluator(
        self, func_name: str, dev: Device | str | None = None, number: int = 10, repeat: int = 1,
        min_repeat_ms: int = 0, limit_zero_time_iterations: int = 100, cooldown_interval_ms: int = 0,
        repeats_to_cooldown: int = 1, cache_flush_bytes: int = 0, f_preproc: str = "", ctx: Device | None = None,
    ) -> Callable[..., BenchmarkResult]:  # fmt: skip
        """A function of the same arguments that measures: `repeat` times the mean time of `number` calls.

        Args:
            dev: where it runs; code for a device without a driver is measured on the processor (`ctx` is its oldest
                name).
            min_repeat_ms: `number` grows until one measurement takes so long.
            limit_zero_time_iterations: measurements of 0 seconds that are tolerated while `number` grows.
            cooldown_interval_ms, repeats_to_cooldown: a pause after every so many measurements.
            cache_flush_bytes: bytes that are overwritten before each measurement, so that caches are cold.
            f_preproc: name of a registered function that is called with the arguments before each measurement.
        """
        where = dev if dev is not None else ctx
        place = device(where) if isinstance(where, str) else where
        function: Any = self.get_function(func_name)
        if hasattr(function, "compiled"):
            function, place = function.compiled(), None
        if not isinstance(function, CompiledFunction):
            raise RunError(f"{func_name} is not machine code", why="only compiled functions can be timed")
        return TimeEvaluator(
            function, place, max(int(number), 1), max(int(repeat), 1), min_repeat_ms,
            limit_zero_time_iterations, cooldown_interval_ms, max(repeats_to_cooldown, 1), cache_flush_bytes, f_preproc,
        )  # fmt: skip

    @property
    def is_dso_exportable(self) -> bool:
        """Whether it holds machine code."""
        return self.code is not None

    def __repr__(self) -> str:
        return f"<FunctionModule {self.type_key}: {', '.join(self._functions) or 'sources only'}>"


def other_machine(name: str, triple: str, features: Sequence[str]) -> LoadError | None:
    """Why code for a triple and features cannot run here; None if it can."""
    missing = missing_features(features)
    if runs_here(triple) and not missing:
        return None
    why = f"this processor lacks {', '.join(missing)}" if runs_here(triple) else f"it is for {triple}"
    return LoadError("the module is for another machine", name, why, "build it for this one")


def _c_function(name: str) -> int:
    """The address of a C function of this process or the C library's mathematics."""
    for library in (None, "libm.so.6", "libm.dylib"):
        try:
            return ctypes.cast(ctypes.CDLL(library)[name], ctypes.c_void_p).value or 0
        except (AttributeError, OSError, TypeError):
            continue
    raise LoadError(f"the C function {name!r} is not in this process", why="call_extern names it",
                    hint="first load its library with ctypes.CDLL(path, ctypes.RTLD_GLOBAL)")  # fmt: skip
