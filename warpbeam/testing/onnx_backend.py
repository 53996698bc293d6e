"""Warpbeam behind `onnx.backend.base`, so that ONNX's own test suites run on it.

    from warpbeam.frontend.onnx import backend
    outputs = backend.prepare(model, "CPU").run([array, ...])

Small inputs whose contents decide shapes (axes, pads, target shapes given as graph inputs) are compiled in: such a
model is specialised when it is run, once for each contents seen. So is a model in which such contents tell the branch
of an If, and one whose symbolic dimensions must satisfy what cannot be decided without their values.
"""

from __future__ import annotations

import unittest
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper
from onnx.backend.base import Backend, BackendRep

import warpbeam
from warpbeam.frontend.onnx import NeedsContentError, import_model
from warpbeam.frontend.onnx.loader import newest_opset
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError

__all__ = ["BackendIsNotSupposedToImplementIt", "Compiled", "WarpbeamBackend", "prepare", "run_model", "run_node"]


class BackendIsNotSupposedToImplementIt(UnsupportedError, unittest.SkipTest):  # the name ONNX's suites look for
    """The model is valid, but something in it has no implementation."""


def _refusal(error: UnsupportedError) -> BackendIsNotSupposedToImplementIt:
    return BackendIsNotSupposedToImplementIt(error.what, error.where, error.why, error.hint)


class Compiled(BackendRep):  # type: ignore[misc]
    """A prepared model; `run(inputs)` takes arrays in the graph's order, or by name."""

    def __init__(self, model: Any, options: Mapping[str, Any]) -> None:
        self.model = model
        self.options = dict(options)
        self.modules: dict[Any, Any] = {}
        self.bound: tuple[str, ...] = ()
        self.fixed = self._around()
        if self.fixed:  # lengths and shapes are those of the values that come
            return
        try:
            imported = import_model(model, host_sequences=False)
        except NeedsContentError as e:
            self.bound = e.inputs
        except UnsupportedError as e:
            raise _refusal(e) from e
        except ImportModelError:
            if not self._dynamic():
                raise
            self.fixed = True
        else:
            self.bound = imported.guessed
            if not self.bound:
                self.modules[("None",)] = self._compile(imported)

    def _around(self) -> bool:
        """Whether an input is a sequence or an optional."""
        return any(i.type.WhichOneof("value") != "tensor_type" for i in self.model.graph.input)

    def _dynamic(self) -> bool:
        """Whether an input has a dimension without a number."""
        shapes = [i.type.tensor_type.shape for i in self.model.graph.input]
        return any(not d.HasField("dim_value") for s in shapes for d in s.dim)

    def _compile(self, imported: Any) -> tuple[Any, list[str]]:
        try:
            names = [n for n in self._inputs() if n not in self.bound]
            return warpbeam.compile(imported.module, name=imported.name, **self.options), names
        except UnsupportedError as e:
            raise _refusal(e) from e

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in the graph's order."""
        given = self._named(inputs)
        module, names = self._module(given)
        return tuple(module.run({n: given[n] for n in names}).values())

    def _named(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return {k: _value(v) for k, v in inputs.items()}
        values = list(inputs) if isinstance(inputs, Sequence) else [inputs]
        names = [i.name for i in self.model.graph.input]
        if len(values) != len(names):
            names = self._inputs()
        return {n: _value(v) for n, v in zip(names, values, strict=False)}

    def _inputs(self) -> list[str]:
        """Names of the inputs that are no initializers."""
        constants = {i.name for i in self.model.graph.initializer}
        return [i.name for i in self.model.graph.input if i.name not in constants]

    def _module(self, given: dict[str, Any]) -> tuple[Any, list[str]]:
        """The module for these contents; names more inputs to bind as the importer asks for them."""
        while True:
            shapes = {n: _shape(given[n]) for n in self._inputs() if n not in self.bound} if self.fixed else None
            bound = {n: given[n] for n in self.bound}
            key = (str(shapes), *[(n, v.dtype.str, v.shape, _contents(v)) for n, v in bound.items()])
            if key in self.modules:
                return self.modules[key]  # type: ignore[no-any-return]
            try:
                imported = import_model(self.model, shapes, constants=bound, host_sequences=False)
            except NeedsContentError as e:
                more = [n for n in e.inputs if n not in self.bound]
                if not more:
                    raise _refusal(e) from e
                self.bound = (*self.bound, *more)
                continue
            except UnsupportedError as e:
                raise _refusal(e) from e
            except ImportModelError:
                if self.fixed or not self._dynamic():
                    raise
                self.fixed = True
                continue
            if more := [n for n in imported.guessed if n not in self.bound]:
                self.bound = (*self.bound, *more)
                continue
            self.modules[key] = self._compile(imported)


def _value(value: Any) -> Any:
    """An input as arrays: one, a list of them for a sequence, None for an empty optional."""
    if value is None or isinstance(value, np.ndarray):
        return value
    return [_value(v) for v in value] if isinstance(value, list | tuple) else np.asarray(value)


def _shape(value: Any) -> Any:
    return [v.shape for v in value] if isinstance(value, list) else None if value is None else value.shape


def _contents(value: np.ndarray) -> Any:
    return tuple(value.flat) if value.dtype.kind == "O" else value.tobytes()


class WarpbeamBackend(Backend):  # type: ignore[misc]
    """`onnx.backend.base.Backend` over `warpbeam.compile`. Keyword arguments go to `warpbeam.compile`."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> Compiled:
        """Compiles a model.

        Raises:
            BackendIsNotSupposedToImplementIt: something in it has no implementation.
            ImportModelError: it is broken.
        """
        if not cls.supports_device(device):
            raise BackendIsNotSupposedToImplementIt(f"device {device!r}", hint="only CPU is served")
        return Compiled(model, kwargs)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[np.ndarray, ...]:
        """Compiles and runs a model."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[np.ndarray, ...]:
        """Runs one node on arrays. The version of the operator set is `opset_version`, the newest by default."""
        version = kwargs.pop("opset_version", newest_opset())
        names = [n for n in node.input if n]
        arrays = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        infos = [
            helper.make_tensor_value_info(
                n, helper.np_dtype_to_tensor_dtype(np.asarray(arrays[n]).dtype), np.shape(arrays[n])
            )
            for n in dict.fromkeys(names)
        ]
        outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
        graph = helper.make_graph([node], node.name or node.op_type, infos, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether models run on a device such as "CPU" or "CPU:0"."""
        return device.partition(":")[0] == "CPU"


prepare = WarpbeamBackend.prepare
run_model = WarpbeamBackend.run_model
run_node = WarpbeamBackend.run_node
supports_device = WarpbeamBackend.supports_device
is_compatible = WarpbeamBackend.is_compatible
