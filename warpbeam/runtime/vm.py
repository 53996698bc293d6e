"""The classic virtual machine's face: `VirtualMachine(exe, device).invoke("main", x)`.

There is no machine that interprets instructions here: a call is one call of the compiled module, whatever branches,
loops and sizes the program has. What this adds are arguments and results that are tuples, and the classic names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .abi import numpy_dtype
from .container import ADT
from .errors import ArtifactError, RunError
from .measure import BenchmarkResult, benchmark_call
from .module import Module
from .ndarray import Device, NDArray, as_numpy, cpu
from .structure import Structure

__all__ = ["Executable", "VirtualMachine"]

Array = npt.NDArray[Any]
MAIN = "main"
_CODE = "warpbeam.vm 1"


class Executable:
    """A compiled module and how its values are made of its tensors.

    `save` gives two parts, as it always did: the code is a description of a few hundred bytes, and everything else is
    in the library, which `export_library` or `Module.save` write.
    """

    def __init__(self, mod: Module) -> None:
        self.mod = mod
        self.structure = Structure.of(mod.artifact.manifest)

    @property
    def lib(self) -> Module:
        """The compiled module."""
        return self.mod

    module = lib

    def save(self) -> tuple[bytearray, Module]:
        """(code, library) for `load_exec`."""
        return bytearray(self._code()), self.mod

    def _code(self) -> bytes:
        m = self.mod.artifact.manifest
        data = {"format": _CODE, "model": m.name, "ports": _fingerprint(self.mod), "main": self.structure.to_json()}
        return json.dumps(data, ensure_ascii=True).encode()

    @staticmethod
    def load_exec(bytecode: bytes | bytearray | memoryview, lib: Module | None) -> Executable:
        """What `save` took apart.

        Raises:
            ArtifactError: if the code is damaged, or is that of another library.
        """
        try:
            data = json.loads(bytes(bytecode))
            name, ports, kind = str(data["model"]), data["ports"], data["format"]
            structure = Structure.from_json(data["main"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ArtifactError("this is no code that Executable.save gave", why=str(error)[:200]) from None
        if kind != _CODE:
            raise ArtifactError(f"code of format {kind!r}", name, f"this runtime reads {_CODE!r}", "save it again")
        if not isinstance(lib, Module):
            raise ArtifactError("load_exec needs the library", name, f"{type(lib).__name__} is given",
                                "load it with runtime.load_module(path)")  # fmt: skip
        if ports != _fingerprint(lib):
            raise ArtifactError("code and library are of different models", f"{name} and {lib.name}",
                                hint="load both from one call of save")  # fmt: skip
        made = Executable(lib)
        made.structure = structure
        return made

    @property
    def bytecode(self) -> str:
        """The host side of the model as text."""
        from .program_text import program_text

        program = self.mod.artifact.program()
        return "" if program is None else program_text(program)

    @property
    def stats(self) -> str:
        """Counts of what is in the executable, in words."""
        m = self.mod.artifact.manifest
        constants = len(self.mod.artifact.data("constants") or b"")
        lines = ("Warpbeam executable:", f"  Constant bytes: {constants}", f"  Globals (1): [{MAIN!r}]",
                 f"  Primitive ops (#{len(m.kernels)}): [{', '.join(self.primitive_ops)}]")  # fmt: skip
        return "\n".join(lines) + "\n"

    @property
    def primitive_ops(self) -> list[str]:
        """Names of the kernels."""
        return [k.name for k in self.mod.artifact.manifest.kernels]

    @property
    def globals(self) -> list[str]:
        """Names of the functions that can be called."""
        return [MAIN]

    def get_function_params(self, func_name: str) -> list[str]:
        """Names of a function's parameters in order."""
        _check(func_name)
        return self.structure.names

    def __repr__(self) -> str:
        return f"<Executable {self.mod!r}>"


class VirtualMachine:
    """Calls an executable's function, with state for those who set inputs first and read outputs later."""

    NAIVE_ALLOCATOR = 1
    POOLED_ALLOCATOR = 2

    def __init__(
        self, exe: Executable | Module, device: Device | list[Device] | None = None, memory_cfg: Any = None
    ) -> None:
        """Makes a machine.

        Args:
            exe: an executable, or the module that its library loads to.
            memory_cfg: read by nobody: memory is planned when a model is compiled.

        Raises:
            RunError: if the device is not there.
        """
        if not isinstance(exe, Executable | Module):
            raise RunError(f"{type(exe).__name__} is no executable", hint="give what relay.vm.compile returned")
        self.exe = exe if isinstance(exe, Executable) else Executable(exe)
        self.module = self.exe.mod
        devices = device if isinstance(device, list | tuple) else [device or cpu()]
        if any(d.device_type != 1 for d in devices):
            raise RunError(f"device {', '.join(map(str, devices))} is not supported", hint="use cpu()")
        self.device = devices[0]
        self._types = {s.name: s.dtype for s in self.module.artifact.manifest.inputs}
        self._set: dict[str, Any] = {}
        self._outputs: list[NDArray] | None = None

    def set_input(self, func_name: str, *args: Any, **kwargs: Any) -> None:
        """Sets all arguments of a function, by position or name. They are read when it is called, not copied.

        Raises:
            RunError: if there is no such function, or arguments are missing or unknown.
        """
        _check(func_name)
        self._set = self.exe.structure.arguments(args, kwargs)

    def set_one_input(self, func_name: str, *args: Any, **kwargs: Any) -> None:
        """Sets one argument: by its number or name, then its value; or as a keyword."""
        _check(func_name)
        names = self.exe.structure.names
        if len(args) + 2 * len(kwargs) != 2:
            raise RunError("set_one_input takes one argument", hint='set_one_input("main", "x", value)')
        key, value = args if args else next(iter(kwargs.items()))
        if isinstance(key, int) and 0 <= key < len(names):
            key = names[key]
        if key not in names:
            raise RunError(f"there is no parameter {key!r}", f"model {self.module.name}", hint=", ".join(names))
        self._set[key] = value

    def invoke(self, func_name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a function; without arguments, on those that were set.

        Returns:
            An NDArray, or an `ADT` (a tuple) of values.

        Raises:
            RunError: if the arguments do not fit, or the model reports a failure.
        """
        _check(func_name)
        if args or kwargs:
            self.set_input(func_name, *args, **kwargs)
        results = self._call()
        self._outputs = None
        value = self.exe.structure.value(results, _leaf, ADT)
        self._outputs = _flat(value)
        return value

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """`invoke` of main."""
        return self.invoke(MAIN, *args, **kwargs)

    def invoke_stateful(self, func_name: str, *args: Any, **kwargs: Any) -> None:
        """Calls a function whose outputs are then read with `get_outputs`."""
        self.invoke(func_name, *args, **kwargs)

    def invoke_with_outputs(self, func_name: str, input_args: Mapping[str, Any], output_args: list[Any]) -> None:
        """Calls a function, which writes its tensors into arrays of the caller, in the order of `get_outputs`.

        Raises:
            RunError: as `invoke`, and where the arrays do not fit.
        """
        self.set_input(func_name, **input_args)
        names = [s.name for s in self.module.outputs]
        if len(output_args) != len(names):
            raise RunError(f"{len(output_args)} output arrays given", hint=f"the outputs: {', '.join(names)}")
        self._call({n: as_numpy(a, compact=False) for n, a in zip(names, output_args, strict=True)})

    def get_outputs(self) -> list[NDArray]:
        """The tensors of the last call's result, in order.

        Raises:
            RunError: if nothing was called.
        """
        if self._outputs is None:
            raise RunError("there is no output yet", f"model {self.module.name}", hint='call invoke_stateful("main")')
        return list(self._outputs)

    def get_input_index(self, input_name: str, func_name: str = MAIN) -> int:
        """The number of a parameter; -1 if there is none of this name."""
        names = self.exe.get_function_params(func_name)
        return names.index(input_name) if input_name in names else -1

    def benchmark(
        self, device: Device | None = None, *args: Any, func_name: str = MAIN, repeat: int = 5, number: int = 5,
        min_repeat_ms: int | None = None, end_to_end: bool = False, **kwargs: Any,
    ) -> BenchmarkResult:  # fmt: skip
        """Times calls on given arguments, or those that were set; with `end_to_end`, copies of them are counted too.

        Args:
            min_repeat_ms: raises `number` until a measurement lasts this long.
        """
        _check(func_name)
        if args or kwargs:
            self.set_input(func_name, *args, **kwargs)
        function: Callable[[], object] = self._end_to_end if end_to_end else self._call
        if min_repeat_ms:
            once = benchmark_call(function, 1, 1, 1).median
            number = max(number, int(min_repeat_ms * 1e-3 / max(once, 1e-9)) + 1)
        return benchmark_call(function, repeat, number, 1)

    def _end_to_end(self) -> None:
        given = {n: np.array(as_numpy(v)) for n, v in self._tensors().items()}
        for array in self.module.run(given).values():
            np.array(array)

    def _tensors(self) -> dict[str, Any]:
        given = self.exe.structure.arguments((), self._set)
        return {n: self._array(n, v) for n, v in self.exe.structure.tensors(given).items()}

    def _array(self, name: str, value: Any) -> Any:
        """Python's numbers and lists of them as arrays of the type that is wanted."""
        plain = isinstance(value, bool | int | float) or (isinstance(value, list) and name in self._types)
        return np.asarray(value, numpy_dtype(self._types[name])) if plain else value

    def _call(self, out: Mapping[str, Any] | None = None) -> dict[str, Array]:
        return self.module.run(self._tensors(), out)


def _check(func_name: str) -> None:
    if func_name != MAIN:
        raise RunError(f"there is no function {func_name!r}", hint='the others are part of "main", which can be called')


def _leaf(value: Any) -> Any:
    """An array as NDArray, a sequence as a tuple of these; strings as they are."""
    if isinstance(value, list):
        return ADT(0, map(_leaf, value))
    return NDArray(value) if isinstance(value, np.ndarray) and value.dtype != object else value


def _flat(value: Any) -> list[Any]:
    return [t for item in value for t in _flat(item)] if isinstance(value, ADT) else [value]


def _fingerprint(module: Module) -> str:
    """What tells whether code and library belong together: the tensors that the library takes and gives."""
    m = module.artifact.manifest
    ports = [[(s.name, s.dtype, s.shape) for s in group] for group in (m.inputs, m.outputs, m.params)]
    facts = json.dumps([ports, m.extra.get("constants_bytes", ""), [k.name for k in m.kernels]])
    return hashlib.sha256(facts.encode()).hexdigest()
