"""`relay.vm`: Relay modules compiled for the face of the virtual machine.

exe = relay.vm.compile(mod, target="llvm", params=params)
vm = runtime.vm.VirtualMachine(exe, warpbeam.cpu())
result = vm.invoke("main", x)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warpbeam.driver import relay_build
from warpbeam.driver.relay_build import VMExecutor
from warpbeam.ir.diagnostics import CompileError
from warpbeam.relay.expr import IRModule
from warpbeam.runtime.ndarray import NDArray
from warpbeam.runtime.vm import Executable

__all__ = ["Executable", "VMCompiler", "VMExecutor", "compile"]


def compile(
    mod: Any, target: Any = None, target_host: Any = None, params: Mapping[str, Any] | None = None
) -> Executable:
    """Compiles a module for `runtime.vm.VirtualMachine`, under the current `PassContext` as `relay.build` does.

    Raises:
        WarpbeamError: as `relay.build`.
    """
    compiler = VMCompiler()
    if params:
        compiler.set_params(params)
    compiler.lower(mod, target, target_host)
    compiler.codegen()
    return compiler.get_exec()


class VMCompiler:
    """Compilation in the classic steps: `set_params`, `lower`, `codegen`, `get_exec`."""

    def __init__(self) -> None:
        self._params: dict[str, Any] = {}
        self._factory: relay_build.ExecutorFactory | None = None

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Values of main's parameters by name; they become constants."""
        self._params = dict(params)

    def get_params(self) -> dict[str, NDArray]:
        """The parameters that were set."""
        return {name: NDArray(array) for name, array in relay_build.arrays_of(self._params).items()}

    def lower(self, mod: Any, target: Any = None, target_host: Any = None) -> None:
        """Compiles the module.

        Raises:
            WarpbeamError: as `relay.build`.
        """
        self._factory = relay_build.build(mod, target, target_host, params=self._params)

    def codegen(self) -> None:
        """The end of the classic steps; the code is there after `lower`."""

    def optimize(
        self, mod: Any, target: Any = None, target_host: Any = None, params: Mapping[str, Any] | None = None
    ) -> tuple[IRModule, dict[str, NDArray]]:
        """The module after the graph passes, and the parameters; see `relay.optimize`."""
        return relay_build.optimize(mod, target, params or self._params)

    def get_exec(self) -> Executable:
        """The executable.

        Raises:
            CompileError: if nothing was lowered.
        """
        if self._factory is None:
            raise CompileError("nothing was compiled", "VMCompiler", hint="call lower(mod, target) first")
        return Executable(self._factory.module)
