"""The classic way to compile: `relay.build(mod, target, params=params)` gives a factory of executors.

lib = relay.build(mod, target="llvm", params=params)
m = graph_executor.GraphModule(lib["default"](warpbeam.cpu()))
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from warpbeam.driver import graph_json, source
from warpbeam.driver.build import Options
from warpbeam.driver.build import build as build_artifact
from warpbeam.driver.pipeline import graph_passes
from warpbeam.ir.diagnostics import CompileError, UnsupportedError
from warpbeam.ir.rewrite import substitute
from warpbeam.ir.transform import PassContext, Sequential
from warpbeam.relay.expr import Constant, Expr, Function, IRModule
from warpbeam.runtime.container import ADT
from warpbeam.runtime.module import Module
from warpbeam.runtime.ndarray import Device, NDArray, as_numpy, cpu
from warpbeam.runtime.vm import Executable, VirtualMachine
from warpbeam.target import Target, TargetError, get, parse

KINDS = ("debug", "graph", "vm", "aot")


class ExecutorFactory:
    """What `relay.build` returns: `lib["default"](device)` makes a `GraphModule`.

    Parameters are compiled into the artefact; `get_params` gives those that the module was built with.
    """

    def __init__(self, module: Module, ir_mod: IRModule, params: Mapping[str, np.ndarray], libmod_name: str) -> None:
        self.module = module
        self.ir_mod = ir_mod
        self.params = {name: NDArray(array) for name, array in params.items()}
        self.libmod_name = libmod_name
        self.target = module.artifact.manifest.target

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The maker of executors, under the name given to `build`, or "default"; or a fact by its classic name."""
        facts: dict[str, Callable[..., Any]] = {
            "get_graph_json": self.get_graph_json,
            "get_params": self.get_params,
            "get_executor_config": self.get_executor_config,
        }
        if name in facts:
            return facts[name]
        return self.module["default" if name == self.libmod_name else name]

    def get_params(self) -> dict[str, NDArray]:
        """Parameters by name."""
        return self.params

    def get_lib(self) -> Module:
        """The compiled module."""
        return self.module

    @property
    def lib(self) -> Module:
        """The compiled module."""
        return self.module

    def get_graph_json(self) -> str:
        """The classic description of the graph: nodes, storage, shapes. It is for reading; nothing executes it."""
        return graph_json.graph_json(self.module)

    get_executor_config = get_graph_json
    graph_json = property(get_graph_json)

    def export_library(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Writes a shared library (.so), a static archive (.a) or C source (.c) for other programs, which
        `runtime.load_module` reads if it is a shared library; else the artefact.

        Raises:
            UnsupportedError: for a library of another system (.dll, .dylib).
        """
        suffix = Path(path).suffix.lower()
        if suffix in (".dll", ".dylib"):
            raise UnsupportedError(
                f"cannot export {Path(path).name}",
                why="libraries are written for Linux only",
                hint=f"export {Path(path).stem}.wb and load it with warpbeam.load(path), or {Path(path).stem}.c",
            )
        if options:
            warnings.warn(f"export_library ignores {', '.join(sorted(options))}: no compiler is needed", stacklevel=2)
        if suffix in (".so", ".a", ".c"):
            from warpbeam.driver.api import equipped

            equipped(self.module).export_library(path)
        else:
            self.module.save(path)

    def __iter__(self) -> Iterator[Any]:
        """(graph_json, lib, params), as the oldest scripts unpack it."""
        warnings.warn(
            "unpacking into graph, lib, params is deprecated; use lib directly", DeprecationWarning, stacklevel=2
        )
        return iter((self.get_graph_json(), self.module, self.params))

    def __repr__(self) -> str:
        return f"<ExecutorFactory {self.libmod_name}: {self.module!r}>"


GraphExecutorFactoryModule = ExecutorFactory


def build(
    ir_mod: IRModule | Function | Any,
    target: Any = None,
    target_host: Any = None,
    executor: Any = None,
    runtime: Any = None,
    workspace_memory_pools: Any = None,
    constant_memory_pools: Any = None,
    params: Mapping[str, Any] | None = None,
    mod_name: str = "default",
) -> ExecutorFactory:
    """Compiles a Relay module under the current `PassContext` (default: opt_level 2).

    Args:
        target: a target, its name, or a classic string ("llvm", "llvm -mcpu=znver4"); None: this machine.
        params: values of parameters by name; they become constants.
        mod_name: the name under which the factory gives executors, next to "default".
        target_host, executor, runtime, workspace_memory_pools, constant_memory_pools: accepted, with a warning.

    Raises:
        WarpbeamError: if the module does not type, or uses what is not supported.
    """
    given = {
        "target_host": target_host, "executor": executor, "runtime": runtime,
        "workspace_memory_pools": workspace_memory_pools, "constant_memory_pools": constant_memory_pools,
    }  # fmt: skip
    ignored = sorted(name for name, value in given.items() if value is not None)
    if ignored:
        warnings.warn(f"relay.build ignores {', '.join(ignored)}", stacklevel=2)
    arrays = arrays_of(params)
    mod = bind_params(_as_module(ir_mod), arrays)
    found = source.from_relay(mod, mod_name)
    options = Options(classic_target(target), PassContext.current().opt_level, None, None, mod_name)
    built = build_artifact(found.module, found.inputs, found.outputs, options)
    return ExecutorFactory(Module(built.artifact), mod, arrays, mod_name)


def optimize(
    mod: IRModule | Function | Any, target: Any = None, params: Mapping[str, Any] | None = None
) -> tuple[IRModule, dict[str, NDArray]]:
    """The module after the graph passes of the current `PassContext`, before fusion; and the parameters."""
    arrays = arrays_of(params)
    bound = bind_params(_as_module(mod), arrays)
    passes: Any = graph_passes(classic_target(target))
    return Sequential(passes)(bound), {name: NDArray(a) for name, a in arrays.items()}


def bind_params(mod: IRModule, params: Mapping[str, np.ndarray]) -> IRModule:
    """The module with main's parameters of these names replaced by constants.

    Raises:
        CompileError: if an array does not fit its parameter's type. Names that main lacks are ignored, as ever.
    """
    if not params:
        return mod
    main = mod["main"]
    values: dict[Expr, Constant] = {}
    for p in main.params:
        if p.name in params:
            constant = Constant(params[p.name])
            if p.ty is not None and constant.ty is not p.ty:
                raise CompileError(f"parameter {p.name!r} is {constant.ty}", why=f"main declares {p.ty}")
            values[p] = constant
    rest = tuple(p for p in main.params if p not in values)
    new = IRModule(dict(mod.functions), mod.types)
    new["main"] = Function(rest, substitute(main.body, values), main.ret_type, main.type_params, main.attrs)
    return new


def classic_target(spec: Any) -> Target:
    """A target from what classic scripts give: "llvm" is this machine, "-mcpu=NAME" a built-in target.

    Raises:
        TargetError: if there is no such target.
    """
    if spec is None:
        return get("native")
    if isinstance(spec, Mapping) and len(spec) == 1 and not isinstance(next(iter(spec)), str):
        spec = next(iter(spec.values()))  # {device: target}
    found = parse(spec)
    if found.device != "cpu":
        raise TargetError(
            f"target {found.name!r} is not for models yet", why="models run on the CPU", hint='use "llvm"'
        )
    return found


def create_executor(
    kind: str = "debug",
    mod: IRModule | Function | None = None,
    device: Device | None = None,
    target: Any = None,
    params: Mapping[str, Any] | None = None,
) -> Executor:
    """An executor of expressions: "debug" interprets; "graph", "vm" and "aot" compile, all three the same code.

    Tuples come as lists, from "vm" as `runtime.container.ADT`. A parameter of main that `params` has is bound to it.

    Raises:
        CompileError: if there is no such kind.
    """
    if kind not in KINDS:
        raise CompileError(f"there is no executor of kind {kind!r}", hint=f"kinds are {', '.join(KINDS)}")
    return Executor(
        kind, _as_module(mod) if mod is not None else IRModule(), device or cpu(), target, arrays_of(params)
    )


class Executor:
    """Evaluates expressions and functions of a module."""

    executable: Executable | None = None  #: what was compiled last

    def __init__(self, kind: str, mod: IRModule, device: Device, target: Any, params: Mapping[str, np.ndarray]) -> None:
        self.kind = kind
        self.mod = mod
        self.device = device
        self.target = target
        self.params = params

    def evaluate(self, expr: Any = None) -> Any:
        """A Python function for a Relay function or for main (None); the value itself for any other expression."""
        function = expr is None or isinstance(expr, Function) or hasattr(expr, "name")
        mod = self.mod if expr is None else self._with(expr)
        run = self._interpreter(mod) if self.kind == "debug" else self._compiled(mod)
        return run if function else run()

    def _with(self, expr: Any) -> IRModule:
        if not isinstance(expr, Expr):
            raise CompileError(f"{type(expr).__name__} is not a Relay expression")
        if hasattr(expr, "name") and expr in self.mod:
            expr = self.mod[expr.name]
        functions = {g: f for g, f in self.mod.functions.items() if g.name != "main"}
        return IRModule.from_expr(expr, functions)

    def _interpreter(self, mod: IRModule) -> Callable[..., Any]:
        from warpbeam.relay import interp

        bound = bind_params(mod, self.params)

        def run(*args: Any, **kwargs: Any) -> Any:
            return _wrap(interp.evaluate(bound, _ordered(bound, args, kwargs)))

        return run

    def _compiled(self, mod: IRModule) -> Callable[..., Any]:
        self.executable = Executable(build(mod, self.target, params=self.params).module)
        vm = VirtualMachine(self.executable, self.device)
        return vm.run if self.kind == "vm" else lambda *args, **kwargs: _lists(vm.run(*args, **kwargs))


VMExecutor = Executor


def _ordered(mod: IRModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """Arguments of main in order, from positions and names."""
    names = [p.name for p in mod["main"].params]
    left = names[len(args) :]
    missing, unknown = [n for n in left if n not in kwargs], [n for n in kwargs if n not in left]
    if missing or unknown or len(args) > len(names):
        raise CompileError(
            f"{len(args)} arguments and {sorted(kwargs)} do not fit main", hint=f"its parameters: {', '.join(names)}"
        )
    return [_value(a) for a in (*args, *(kwargs[n] for n in left))]


def _wrap(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_wrap(v) for v in value]
    return NDArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, ADT) else value


def _value(value: Any) -> Any:
    return tuple(map(_value, value)) if isinstance(value, tuple) else _array(value)


def _array(value: Any) -> np.ndarray:
    return np.asarray(value) if isinstance(value, int | float | list | tuple) else as_numpy(value)


def arrays_of(params: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Values of parameters as arrays: numbers, lists, arrays of any kind, Relay constants."""
    found = {}
    for name, value in (params or {}).items():
        found[name] = value.numpy() if isinstance(value, Constant) else _array(value)
    return found


def _as_module(value: Any) -> IRModule:
    if isinstance(value, IRModule):
        return value
    if isinstance(value, Expr):
        return IRModule.from_expr(value)
    raise CompileError(f"{type(value).__name__} cannot be compiled", hint="give a Relay module or function")
