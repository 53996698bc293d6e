"""The classic graph executor face: set inputs, run, get outputs. A thin shell around `Module`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .abi import numpy_dtype
from .compiled import TensorInfo
from .errors import RunError
from .measure import BenchmarkResult, benchmark_call
from .module import Module
from .ndarray import Device, NDArray, as_numpy, cpu
from .params import load_param_dict
from .shape_expr import ShapeExpr

Array = npt.NDArray[Any]


class GraphModule:
    """An executor with state: `set_input`, `run`, `get_output`.

    Made by `GraphModule(lib["default"](device))`, or directly over a `Module`. Inputs that are never set are zeros if
    their shape is known, as they always were in the classic executor.
    """

    def __init__(self, module: Module | GraphModule, device: Device | None = None) -> None:
        if isinstance(module, GraphModule):
            device = module.device
        self.module: Module = module.module if isinstance(module, GraphModule) else module
        self.device: Device = device or cpu()
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}
        self._names = [info.name for info in self.module.inputs]
        self._params = {spec.name for spec in self.module.artifact.manifest.params}

    def set_input(self, key: str | int | None = None, value: Any = None, **params: Any) -> None:
        """Sets one input by name or number, and others by keyword. Mutable parameters count as inputs here.

        Values are copied. Converting the element type is the caller's business. Keywords that are no inputs are left
        out with a warning: parameters that were compiled in are such.

        Raises:
            RunError: if there is no input `key`, or a value does not fit.
        """
        if key is not None:
            self._set(self._name(key), value)
        for name, item in params.items():
            if name in self._names or name in self._params:
                self._set(name, item)
            else:
                warnings.warn(f"{name!r} is no input of model {self.module.name}, or was compiled in: the value given "
                              "is not read", stacklevel=2)  # fmt: skip

    def load_params(self, params_bytes: bytes | bytearray) -> None:
        """Sets the inputs and mutable parameters named in `save_param_dict`'s bytes; other names are left out."""
        for name, value in load_param_dict(params_bytes).items():
            if name in self._names or name in self._params:
                self._set(name, value)

    def set_input_zero_copy(self, key: str | int, value: Any) -> None:
        """Like `set_input`, but reads the caller's memory at each run. The array must be compact."""
        array = as_numpy(value)
        self._check(self._info(self._name(key)), array)
        self._inputs[self._name(key)] = array

    def set_output_zero_copy(self, key: str | int, value: Any) -> None:
        """Makes `run` write output `key` into the caller's array."""
        self._outputs[self._output(key)] = as_numpy(value, compact=False)

    def _name(self, key: str | int) -> str:
        if isinstance(key, int):
            if not 0 <= key < len(self._names):
                raise RunError(f"there is no input {key}", f"model {self.module.name}", f"it has {len(self._names)}")
            return self._names[key]
        if key not in self._names and key not in self._params:
            known = ", ".join([*self._names, *sorted(self._params)])
            raise RunError(f"there is no input {key!r}", f"model {self.module.name}", hint=f"its inputs: {known}")
        return key

    def _info(self, name: str) -> TensorInfo:
        return next(info for info in self.module.inputs if info.name == name)

    def _check(self, info: TensorInfo, array: Array) -> None:
        fits = len(info.shape) == array.ndim and all(
            not isinstance(want, int) or want == have for want, have in zip(info.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != numpy_dtype(info.dtype):
            raise RunError(
                f"input {info.name!r}: got {array.dtype} {array.shape}", f"model {self.module.name}",
                f"expected {info.dtype} {info.shape}", "convert it with astype or reshape first",
            )  # fmt: skip

    def _set(self, name: str, value: Any) -> None:
        if name in self._params:
            self.module.set_param(name, value)
            return
        array = np.asarray(value) if isinstance(value, (int, float, list, tuple)) else as_numpy(value, compact=False)
        self._check(self._info(name), array)
        known = self._inputs.get(name)
        if known is not None and known.shape == array.shape and known.flags.writeable:
            known[...] = array
        else:
            self._inputs[name] = np.array(array, order="C", copy=True)

    def _complete(self) -> dict[str, Array]:
        for info in self.module.inputs:
            if info.name not in self._inputs:
                if not all(isinstance(extent, int) for extent in info.shape):
                    raise RunError(
                        f"input {info.name!r} was not set", f"model {self.module.name}", f"shape {info.shape}"
                    )
                self._inputs[info.name] = np.zeros(info.shape, numpy_dtype(info.dtype))  # type: ignore[arg-type]
        return self._inputs

    def run(self, **inputs: Any) -> None:
        """Sets the inputs given by keyword and runs the model."""
        if inputs:
            self.set_input(**inputs)
        symbolic = any(not isinstance(extent, int) for info in self.module.outputs for extent in info.shape)
        self._outputs = self.module.run(self._complete(), None if symbolic else self._outputs)

    def get_num_inputs(self) -> int:
        """Number of inputs."""
        return len(self._names)

    def get_num_outputs(self) -> int:
        """Number of outputs."""
        return len(self.module.outputs)

    def get_input(self, index: str | int, out: Any = None) -> NDArray:
        """The value of an input, or a mutable parameter, as it is set now."""
        name = self._name(index)
        value = self.module.get_param(name) if name in self._params else self._complete()[name]
        return _deliver(value, out)

    def get_input_index(self, name: str) -> int:
        """Position of an input; -1 if there is none of this name."""
        return self._names.index(name) if name in self._names else -1

    def get_input_info(self) -> tuple[dict[str, tuple[ShapeExpr, ...]], dict[str, str]]:
        """Shapes and element types of the inputs by name."""
        infos = self.module.inputs
        return {i.name: i.shape for i in infos}, {i.name: i.dtype for i in infos}

    def _output(self, index: str | int) -> str:
        names = [info.name for info in self.module.outputs]
        if isinstance(index, int) and 0 <= index < len(names):
            return names[index]
        if index in names:
            return str(index)
        raise RunError(
            f"there is no output {index!r}", f"model {self.module.name}", hint=f"its outputs: {', '.join(names)}"
        )

    def get_output(self, index: str | int, out: Any = None) -> NDArray:
        """A copy of an output of the last run; written to `out` if given.

        Raises:
            RunError: if the model has not run.
        """
        name = self._output(index)
        if name not in self._outputs:
            raise RunError(f"output {name!r} is not there yet", f"model {self.module.name}", hint="call run() first")
        return _deliver(self._outputs[name], out)

    def benchmark(
        self,
        device: Device | None = None,
        func_name: str = "run",
        repeat: int = 5,
        number: int = 5,
        min_repeat_ms: int = 0,
        end_to_end: bool = False,
        **kwargs: Any,
    ) -> BenchmarkResult:
        """Times `run`. With `end_to_end`, copies of all inputs and outputs are counted too.

        Args:
            min_repeat_ms: raises `number` until a measurement lasts this long.
        """
        if func_name != "run":
            raise RunError(f"there is no function {func_name!r} to measure", hint="only run can be measured")
        if kwargs:
            self.set_input(**kwargs)
        self.run()
        there: Callable[..., BenchmarkResult] | None = getattr(self.module, "measure", None)
        if there is not None and not end_to_end:  # a model at the other end of a session is measured there
            return there(self._complete(), repeat, number, min_repeat_ms)
        function: Callable[[], object] = self._end_to_end if end_to_end else self.run
        if min_repeat_ms:
            once = benchmark_call(function, 1, 1, 1).median
            number = max(number, int(min_repeat_ms * 1e-3 / max(once, 1e-9)) + 1)
        return benchmark_call(function, repeat, number, 1)

    def _end_to_end(self) -> None:
        for name, array in list(self._inputs.items()):
            self._inputs[name] = array.copy()
        self.run()
        for index in range(self.get_num_outputs()):
            self.get_output(index)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """A method by its classic name, such as `m["run"]`."""
        if name.startswith("_") or not callable(getattr(self, name, None)):
            raise RunError(f"there is no function {name!r}", hint="set_input, run, get_output, ...")
        method: Callable[..., Any] = getattr(self, name)
        return method


def _deliver(value: Array, out: Any) -> NDArray:
    if out is None:
        return NDArray(value.copy())
    target = out if isinstance(out, NDArray) else NDArray(as_numpy(out, compact=False))
    return NDArray(value).copyto(target)
