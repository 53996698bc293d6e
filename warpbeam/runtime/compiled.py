"""`CompiledModel`: what a compiled model is without running it: names, shapes, files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .abi import numpy_dtype
from .artifact import Artifact
from .cpu import host_machine, missing_features, runs_here
from .errors import ArtifactError, LoadError, RunError
from .manifest import LAYOUT, Manifest
from .shape_expr import ShapeExpr

if TYPE_CHECKING:
    from .export_model import Exported
    from .objects import Layout
    from .signature import Key


Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, shape (integers, symbol names or expressions of them) and element type of an input or output."""

    name: str
    shape: tuple[ShapeExpr, ...]
    dtype: str


class CompiledModel:
    """A model compiled for a machine, perhaps another one than this: it can be looked at, saved and exported.

    Attributes:
        artifact: the model for one machine.
        whole: the artefact with the code of all machines it was compiled for.
    """

    def __init__(self, whole: Artifact) -> None:
        """Takes what fits this machine out of an artefact, or its first machine's part."""
        self.whole = whole
        self.artifact = whole.chosen(fits_here)
        #: writes C source or objects: (kind, artefact, file, name, freestanding); set where the compiler is
        self.emit: Callable[[str, Artifact, Path, str, bool], Exported] | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.artifact.manifest.name

    @property
    def inputs(self) -> list[TensorInfo]:
        """The model's inputs in order."""
        return [TensorInfo(s.name, s.shape, s.dtype) for s in self.artifact.manifest.inputs]

    @property
    def outputs(self) -> list[TensorInfo]:
        """The model's outputs in order."""
        return [TensorInfo(s.name, s.shape, s.dtype) for s in self.artifact.manifest.outputs]

    def random_inputs(self, seed: int = 0, **symbols: int) -> dict[str, Array]:
        """Arrays that fit the inputs: floats from a normal distribution, integers 0 or 1, strings empty or "a", lists
        of these; symbols as given, else 1.
        """
        generator = np.random.default_rng(seed)
        arrays = {}
        for spec in self.artifact.manifest.inputs:
            shape = tuple(e if isinstance(e, int) else symbols.get(str(e), 1) for e in spec.shape)
            integral = spec.dtype.startswith(("int", "uint", "bool"))
            values = generator.integers(0, 2, shape) if integral else generator.standard_normal(shape)
            arrays[spec.name] = np.asarray(values).astype(numpy_dtype(spec.dtype))
        layout = self.layout
        if layout is None:
            return arrays
        for n in layout.inputs:
            words = n.ports() if n.string else []
            arrays.update({p: np.array(["", "a"], object)[arrays[p]] for p in words if p in arrays})
        return layout.gathered(arrays, {})

    @property
    def layout(self) -> Layout | None:
        """How inputs and outputs that are strings or sequences stand in tensors; None if all are tensors of numbers."""
        text = self.artifact.manifest.extra.get(LAYOUT)
        if text is None:
            return None
        from .objects import Layout

        return Layout.from_json(text)

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        """Raises RunError: the code is for another machine, see `Module` for models that run here."""
        raise self._foreign()

    def run(self, inputs: Any, out: Any = None) -> dict[str, Any]:
        """Raises RunError: the code is for another machine, see `Module` for models that run here."""
        raise self._foreign()

    def _foreign(self) -> RunError:
        manifest = self.artifact.manifest
        if "code" not in self.artifact.sections:
            return RunError("the model has no machine code", self.name, "it was compiled for a C compiler",
                            "export it as C source, or compile for 'native'")  # fmt: skip
        hint = "save or export it, and run it on that machine; or compile for 'native'"
        return RunError(f"the model was compiled for {manifest.target}", self.name, why_not_here(manifest), hint)

    def snapshot(self) -> Artifact:
        """The artefact of one machine with the current values of mutable parameters."""
        return self._with_params(self.artifact)

    def _with_params(self, artifact: Artifact) -> Artifact:
        return artifact

    def save(self, path: str | os.PathLike[str], key: Key | None = None) -> None:
        """Writes the artefact to a file, with the current values of mutable parameters.

        Args:
            key: PEM file of an Ed25519 private key that signs the file.

        Raises:
            ArtifactError: if the model was loaded from an exported library, which is no artefact.
        """
        if "code" not in self.artifact.sections:
            raise ArtifactError("a model without its machine code cannot be saved", self.name,
                                hint="export it; if it came from an exported library, copy that file")  # fmt: skip
        self._with_params(self.whole).save(path, key)

    def export_library(
        self, path: str | os.PathLike[str], *, format: str = "", name: str = "", freestanding: bool = False
    ) -> Exported:
        """Writes the model for other programs: one library that needs nothing, with a C header and a C++ header.

        Args:
            path: the file; headers get its name with .h and .hpp.
            format: "so" (shared library), "a" (static archive), "wasm" (WebAssembly module, for the target wasm32),
                "o" or "obj" (one relocatable object for the target's own linker: Mach-O, COFF or ELF) or "c" (C11
                source); the last two take the compiler. By default what the file's name says.
            name: prefix of the C functions; by default the file's name.
            freestanding: without system calls, malloc and threads; the caller gives the memory. WebAssembly modules
                and single objects always are.

        Raises:
            ArtifactError: if the model was compiled by a version that kept no objects.
            LoadError: if the name or format makes no sense, or the file cannot be written.
        """
        from .export_model import export_model
        from .hosted import host_calls_of

        calls = host_calls_of(self.artifact.manifest)
        if calls or LAYOUT in self.artifact.manifest.extra:
            why = f"it calls host functions: {', '.join(calls)}" if calls else "its inputs or outputs are no tensors"
            raise LoadError("the model cannot be exported as a library", self.name, why,
                            "save it, and run it with warpbeam.load")  # fmt: skip
        kind = {"obj": "o"}.get(format or Path(path).suffix[1:], format or Path(path).suffix[1:])
        if kind in ("c", "o"):
            if self.emit is None:
                what = "C source" if kind == "c" else "an object"
                raise LoadError(f"{what} cannot be made here", self.name, "it takes the compiler",
                                "load the model with warpbeam.load")  # fmt: skip
            return self.emit(kind, self.snapshot(), Path(path), name, freestanding)
        return export_model(self.snapshot(), Path(path), format, name, freestanding)

    def __repr__(self) -> str:
        tensors = f"{', '.join(map(_show, self.inputs))} -> {', '.join(map(_show, self.outputs))}"
        return f"<{type(self).__name__} {self.name}: {tensors}>"


def fits_here(manifest: Manifest) -> bool:
    """Whether this machine can run the code that a manifest describes."""
    return not why_not_here(manifest)


def why_not_here(manifest: Manifest) -> str:
    """What keeps code from running on this machine, in words; empty if nothing does."""
    if not runs_here(manifest.target):
        return f"this machine is {host_machine()}"
    missing = missing_features(manifest.cpu_features)
    return f"this processor lacks {', '.join(missing)}" if missing else ""


def _show(info: TensorInfo) -> str:
    return f"{info.name}: {info.dtype}{list(info.shape)}"
