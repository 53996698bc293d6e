"""`Model`: a saved model by its path, in the manner of small deployment runtimes.

model = warpbeam.runtime.Model("resnet50.wb")
probabilities = model.run({"input": image})[0]
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import RunError
from .module import Module, load
from .signature import Key

Array = npt.NDArray[Any]


def open_model(
    path: str | os.PathLike[str], verify_constants: bool = True, trusted: Key | Iterable[Key] | None = None
) -> Module:
    """A model from a file that `Module.save` or `Module.export_library` wrote.

    Args:
        verify_constants, trusted: as `Artifact.load` takes them. Exported libraries carry no signature.

    Raises:
        ArtifactError: if it is none of these, is damaged, for another machine, or not signed as required.
        LoadError: if its code cannot be loaded.
    """
    try:
        with open(path, "rb") as file:
            is_library = file.read(4) == b"\x7fELF"
    except OSError:
        is_library = False
    if is_library and trusted is None:
        from .exported import load_exported

        module = load_exported(path)
        if module is not None:
            return module
    return load(path, verify_constants, trusted)


class Model:
    """A compiled model: names in order, results in a list."""

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        dev_type: str = "cpu",
        dev_id: int = 0,
        trusted: Key | Iterable[Key] | None = None,
    ) -> None:
        """Loads a file (.wb or an exported .so).

        Args:
            trusted: public keys, one of which must have signed the file; see `Artifact.load`.

        Raises:
            RunError: if the device is not there.
            ArtifactError, LoadError: as `open_model` does.
        """
        if dev_type != "cpu" or dev_id != 0:
            raise RunError(f"there is no device {dev_type}:{dev_id}", hint="models run on cpu:0")
        self.module = open_model(model_path, trusted=trusted)
        self.input_names = [s.name for s in self.module.inputs]
        self.output_names = [s.name for s in self.module.outputs]
        self._results: dict[str, Array] = {}
        self._given: dict[str, Any] = {}

    def run(self, input_values: Any) -> list[Array]:
        """Runs the model.

        Args:
            input_values: arrays by name, a list in the order of the inputs, or the array of a model's only input.
        """
        if isinstance(input_values, Mapping):
            given = dict(input_values)
        elif isinstance(input_values, Sequence) and not isinstance(input_values, str):
            if len(input_values) != len(self.input_names):
                raise RunError(f"{len(input_values)} arrays for {len(self.input_names)} inputs",
                               hint=f"the inputs: {', '.join(self.input_names)}")  # fmt: skip
            given = dict(zip(self.input_names, input_values, strict=True))
        elif len(self.input_names) == 1:
            given = {self.input_names[0]: input_values}
        else:
            raise RunError("one array for several inputs", hint=f"the inputs: {', '.join(self.input_names)}")
        self._results = self.module.run(given)
        self._given = given
        return [self._results[name] for name in self.output_names]

    def get_input_names(self) -> list[str]:
        """The inputs' names in order."""
        return list(self.input_names)

    def get_output_names(self) -> list[str]:
        """The outputs' names in order."""
        return list(self.output_names)

    def get_input_dtypes(self) -> list[str]:
        """The inputs' element types."""
        return [s.dtype for s in self.module.inputs]

    def get_output_dtypes(self) -> list[str]:
        """The outputs' element types."""
        return [s.dtype for s in self.module.outputs]

    def get_input(self, name: str) -> Array:
        """What the last run was given for an input."""
        if name not in self._given:
            raise RunError(f"no value of input {name!r}", hint="run the model first")
        return np.asarray(self._given[name])

    def get_output(self, index: int) -> Array:
        """An output of the last run."""
        if not 0 <= index < len(self.output_names) or not self._results:
            raise RunError(f"no output {index}", hint="run the model first")
        return self._results[self.output_names[index]]

    def get_version(self) -> str:
        """The version of the compiler that made the model."""
        return self.module.artifact.manifest.compiler_version

    def set_num_threads(self, count: int) -> None:
        """Threads that the model may use."""
        self.module.num_threads = count

    def __repr__(self) -> str:
        return f"<Model {self.module.name}: {', '.join(self.input_names)} -> {', '.join(self.output_names)}>"
