"""`Module`: a compiled model, ready to run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import call, pool
from .abi import ABI_VERSION, numpy_dtype
from .artifact import Artifact, Manifest, TensorSpec
from .compiled import CompiledModel, why_not_here
from .context import CallContext, HostContext
from .errors import ArtifactError, LoadError, RunError
from .loader import Library
from .manifest import CALLS, LAYOUT
from .measure import BenchmarkResult, benchmark_call
from .memory import Bytes, aligned_bytes, aligned_copy
from .ndarray import Device, as_numpy
from .shape_expr import symbols_of

if TYPE_CHECKING:
    from .graph_executor import GraphModule
    from .hosted import Hosted
    from .profiler import Profile, Roof
    from .signature import Key

Array = npt.NDArray[Any]


class Module(CompiledModel):
    """A compiled model in this process.

    Calls from several threads run at the same time, each in a context of its own. Arrays are NumPy arrays or anything
    with DLPack or the array interface. An input that is not compact and aligned is copied; a wrong element type or
    shape is an error. An input may share memory with an output: it is then copied first. Outputs must not share memory.
    """

    def __init__(self, artifact: Artifact, library: Library | None = None) -> None:
        """Loads the code of an artefact; `library` is the code where it is loaded already.

        Raises:
            ArtifactError: if the artefact is of another ABI version or for a processor with other features.
            LoadError: if the code cannot be loaded.
        """
        super().__init__(artifact)
        artifact = self.artifact
        manifest = artifact.manifest
        check_machine(manifest, artifact.data("relay") is not None)
        code = artifact.data("code")
        if code is None and library is None:
            raise LoadError("the artefact holds no machine code", manifest.name, hint="rebuild it from its Relay text")
        self.library = library or Library(code or b"", manifest.name)
        self._entry = self.library.function(manifest.entry)
        self._constants = aligned_copy(artifact.data("constants") or b"")
        self._params = _writable(artifact.data("params") or b"")
        if str(self._constants.size) != manifest.extra.get("constants_bytes", str(self._constants.size)):
            raise ArtifactError("the constants are not those of the code", manifest.name,
                                f"{self._constants.size} bytes, not {manifest.extra['constants_bytes']}")  # fmt: skip
        self.measure_roof: Callable[[int], Roof] | None = None
        self._threads = 0
        self._contexts: list[CallContext] = []
        self._free: list[CallContext] = []
        specs = (*manifest.inputs, *manifest.outputs)
        static = all(isinstance(extent, int) for spec in specs for extent in spec.shape)
        self._hosted = _hosted(manifest)
        self._call: Callable[..., dict[str, Array]] = call.run_static if static else call.run_symbolic
        self._release(self._acquire())

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """Runs the model.

        Args:
            inputs: an array for each input name; of str (dtype object) for strings, a list of arrays for a sequence.
            out: arrays to write outputs to; those not named are allocated.

        Returns:
            An array for each output name, or what stands for a sequence or an empty optional: a list, None.

        Raises:
            RunError: if names, shapes or element types do not fit, or the model reports a failure.
        """
        if self._hosted is not None:
            return self._hosted.run(self, inputs, out)
        return self.run_tensors(inputs, out)

    def run_tensors(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """One call of the native entry, on its tensors as the manifest lists them; otherwise as `run`."""
        try:
            ctx = self._free.pop()
        except IndexError:
            ctx = self._acquire()
        try:
            return self._call(ctx, self._entry, inputs, out)
        finally:
            self._free.append(ctx)

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Runs the model on arrays in the order of `inputs`.

        Args:
            out: an array, a sequence of arrays in the order of `outputs`, or a mapping from names to arrays.

        Returns:
            One array if the model has one output, else a tuple.
        """
        layout = self._hosted.layout if self._hosted is not None else None
        names = [spec.name for spec in (layout and layout.inputs) or self.artifact.manifest.inputs]
        if len(arrays) != len(names):
            raise RunError(f"{len(arrays)} arrays given", f"model {self.name}", f"it has {len(names)} inputs",
                           f"pass, in this order: {', '.join(names)}")  # fmt: skip
        results = self.run(dict(zip(names, arrays, strict=True)), self._named_outputs(out))
        return next(iter(results.values())) if len(results) == 1 else tuple(results.values())

    def _named_outputs(self, out: Any) -> Mapping[str, Any] | None:
        if out is None or isinstance(out, Mapping):
            return out
        values = list(out) if isinstance(out, Sequence) else [out]
        names = [spec.name for spec in self.artifact.manifest.outputs]
        if len(values) != len(names):
            raise RunError(f"{len(values)} output arrays given", f"model {self.name}", f"it has {len(names)} outputs")
        return dict(zip(names, values, strict=True))

    @property
    def num_threads(self) -> int:
        """Threads a parallel loop of this model may use; at most `runtime.get_num_threads()`."""
        return min(self._threads or pool.get_num_threads(), pool.get_num_threads())

    @num_threads.setter
    def num_threads(self, count: int) -> None:
        if count < 1:
            raise RunError(f"{count} threads make no sense", hint="use 1 for serial execution")
        self._threads = count
        for ctx in self._contexts:
            ctx.struct.num_threads = count

    def set_param(self, name: str, value: Any) -> None:
        """Overwrites a mutable parameter.

        Raises:
            RunError: if there is no such parameter, or shape or element type differ.
        """
        target = self._param(name)
        source = as_numpy(value)
        if source.dtype != target.dtype or source.shape != target.shape:
            raise RunError(
                f"parameter {name!r}: got {source.dtype} {source.shape}, expected {target.dtype} {target.shape}"
            )
        target[...] = source

    def get_param(self, name: str) -> Array:
        """A copy of a mutable parameter's value."""
        return self._param(name).copy()

    def _param(self, name: str) -> Array:
        for spec in self.artifact.manifest.params:
            if spec.name == name:
                return _view(self._params, spec)
        known = ", ".join(spec.name for spec in self.artifact.manifest.params) or "none"
        raise RunError(f"the model has no mutable parameter {name!r}", hint=f"its parameters: {known}")

    def benchmark(
        self, inputs: Mapping[str, Any] | None = None, repeat: int = 10, number: int = 0, warmup: int = 3
    ) -> BenchmarkResult:
        """Measures the time of one call, outputs preallocated.

        Args:
            inputs: arrays by name; random ones if None.
            repeat: number of measurements.
            number: calls per measurement; 0 = as many as fill a millisecond.
            warmup: calls before the first measurement.
        """
        arrays = dict(inputs) if inputs is not None else self.random_inputs()
        outputs = self.run(arrays) if self._hosted is None else None
        return benchmark_call(lambda: self.run(arrays, outputs), repeat, number, warmup)

    def profile(self, inputs: Mapping[str, Any] | None = None, repeat: int = 10) -> Profile:
        """Runs the model kernel by kernel and measures each, against the machine's limits where those can be measured.

        Raises:
            RunError: if the artefact holds no Program or does not export its kernels.
        """
        from .profiler import profile_module

        roof = self.measure_roof(self.num_threads) if self.measure_roof is not None else None
        return profile_module(self, dict(inputs) if inputs is not None else self.random_inputs(), repeat, roof)

    def _with_params(self, artifact: Artifact) -> Artifact:
        if "params" not in artifact.sections:
            return artifact
        sections = dict(artifact.sections)
        sections["params"] = replace(sections["params"], data=self._params.tobytes())
        return replace(artifact, sections=sections)

    def __getitem__(self, name: str) -> Callable[..., GraphModule]:
        """The classic factory: `lib["default"](device)` is a graph executor over this module."""
        if name not in ("default", self.name):
            raise RunError(f"no function {name!r}", f"model {self.name}", hint='use module["default"](device)')
        from .graph_executor import GraphModule

        return lambda *devices: GraphModule(self, _one_device(devices))

    def host_context(self) -> HostContext:
        """A fresh `wb_ctx` over this module's constants and parameters, for stepping through its kernels."""
        return HostContext(*self._host())

    def constants_view(self) -> Bytes:
        """The constants section, as the code sees it."""
        return self._constants

    def params_view(self) -> Bytes:
        """The mutable parameters, as the code sees them."""
        return self._params

    def _host(self) -> tuple[int, int, int, int, int]:
        parallel_for, pool_address = pool.attach(self.library)
        params = self._params.ctypes.data if self._params.size else 0
        return self._constants.ctypes.data, params, parallel_for, pool_address, self._threads

    def _acquire(self) -> CallContext:
        manifest = self.artifact.manifest
        ctx = CallContext(manifest.inputs, manifest.outputs, *self._host())
        if not symbols_of(manifest.arena_bytes) and isinstance(manifest.arena_bytes, int):
            ctx.reserve(manifest.arena_bytes)
        self._contexts.append(ctx)
        return ctx

    def output_shapes(self, arrays: Sequence[Array]) -> tuple[tuple[int, ...], ...]:
        """The outputs' shapes for inputs of these shapes, in order; the content of the arrays is not read.

        Raises:
            RunError: if the shapes do not fit.
        """
        ctx = self._acquire()
        try:
            call.bind_shapes(ctx, self._entry, list(arrays))
            return ctx.output_shapes
        finally:
            ctx.shapes_key = None
            self._release(ctx)

    def _release(self, ctx: CallContext) -> None:
        self._free.append(ctx)


def load(
    path: str | os.PathLike[str], verify_constants: bool = True, trusted: Key | Iterable[Key] | None = None
) -> Module:
    """Loads a model that `Module.save` wrote.

    Args:
        verify_constants, trusted: as `Artifact.load` takes them.

    Raises:
        ArtifactError: if the file is damaged, for another version or machine, or not signed as required.
        LoadError: if its code cannot be loaded.
    """
    return Module(Artifact.load(path, verify_constants, trusted))


def _hosted(manifest: Manifest) -> Hosted | None:
    """How a model runs that is more than its native entry; loaded only for such models."""
    if LAYOUT not in manifest.extra and CALLS not in manifest.extra:
        return None
    from .hosted import Hosted

    return Hosted.of(manifest)


def check_machine(manifest: Manifest, has_text: bool = False) -> None:
    """Raises ArtifactError if the code that a manifest describes does not run here; `has_text`: it can be rebuilt."""
    if manifest.abi_version != ABI_VERSION:
        raise ArtifactError(f"ABI version {manifest.abi_version}", manifest.name, f"this runtime has {ABI_VERSION}",
                            "compile the model again with this version")  # fmt: skip
    why = why_not_here(manifest)
    if why:
        needs = f" with {', '.join(manifest.cpu_features)}" if manifest.cpu_features else ""
        hint = "compile for this machine: target 'native'"
        hint += "; where the compiler is installed, warpbeam.load does so from this file" if has_text else ""
        raise ArtifactError(f"the code is for {manifest.target}{needs}", manifest.name, why, hint)


def _writable(data: Any) -> Bytes:
    source = np.frombuffer(data, np.uint8)
    target = aligned_bytes(source.size)
    target[:] = source
    return target


def _view(memory: Bytes, spec: TensorSpec) -> Array:
    shape = tuple(int(extent) for extent in spec.shape if isinstance(extent, int))
    return np.ndarray(shape, numpy_dtype(spec.dtype), memory, offset=spec.offset)


def _one_device(devices: tuple[Device, ...]) -> Device | None:
    if len(devices) > 1 or (devices and devices[0].device_type != 1):
        raise RunError(f"device {', '.join(map(str, devices))} is not supported", hint="use cpu()")
    return devices[0] if devices else None
