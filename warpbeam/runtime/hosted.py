"""Running a module whose inputs or outputs are strings or sequences, or whose program calls the host.

Without host calls the native entry runs, on the numbers that stand for strings. With them the program is stepped
through: its kernels are the compiled ones, its host calls run between them.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import host_calls
from .call import adopt_input
from .context import Slot
from .errors import ArtifactError, RunError
from .executor import External, Machine, execute
from .manifest import CALLS, LAYOUT, Manifest
from .objects import Layout, Table, using

if TYPE_CHECKING:
    from .module import Module


def host_calls_of(manifest: Manifest) -> list[str]:
    """The host functions that a model's program calls."""
    try:
        names = json.loads(manifest.extra.get(CALLS, "[]"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ArtifactError("the list of host calls is damaged", "manifest")
    return names


class Hosted:
    """The way to run one such module."""

    def __init__(self, layout: Layout, calls: list[str]) -> None:
        self.layout = layout
        self.calls = calls

    @staticmethod
    def of(manifest: Manifest) -> Hosted | None:
        """How to run a model; None where its native entry on plain tensors is all there is to it."""
        calls = host_calls_of(manifest)
        if LAYOUT not in manifest.extra and not calls:
            return None
        layout = Layout.from_json(manifest.extra[LAYOUT]) if LAYOUT in manifest.extra else None
        return Hosted(layout or Layout(), calls)

    @contextlib.contextmanager
    def entered(self, inputs: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], Table]]:
        """A call: the entry's tensors for named inputs, and the table of its strings and sequences."""
        table = Table(self.layout.strings)
        with using(table):
            yield (self.layout.flat(inputs, table) if self.layout.inputs else dict(inputs)), table

    @property
    def externals(self) -> dict[str, External]:
        """The host functions that the program calls."""
        return {name: functools.partial(host_calls.call, name) for name in self.calls}

    def run(self, module: Module, inputs: Mapping[str, Any], out: Mapping[str, Any] | None) -> dict[str, Any]:
        """Runs the module on arrays, arrays of str, and lists of such.

        Raises:
            RunError: as `Module.run` does.
        """
        if out:
            raise RunError("outputs of this model cannot be preallocated", f"model {module.name}",
                           "strings, sequences and host calls make their own")  # fmt: skip
        with self.entered(inputs) as (flat, table):
            results = self._stepped(module, flat) if self.calls else module.run_tensors(flat, None)
            return self.layout.named(results, table) if self.layout.outputs else results

    def _stepped(self, module: Module, flat: Mapping[str, Any]) -> dict[str, Any]:
        program = module.artifact.program()
        if program is None:
            raise RunError("the artefact holds no Program", f"model {module.name}", hint="compile it with its Program")
        manifest = module.artifact.manifest
        lacking = [s.name for s in manifest.inputs if s.name not in flat]
        if lacking:
            raise RunError(f"inputs {lacking} are missing", f"model {module.name}")
        arrays = [_fitting(Slot(s), flat[s.name]) for s in manifest.inputs]
        symbols = {k.name: k.symbol for k in manifest.kernels}
        machine = Machine(
            module.library, module.host_context(), module.constants_view(), module.params_view(), symbols,
            self.externals,
        )  # fmt: skip
        found = execute(program, machine, arrays)
        return {s.name: value.copy() for s, value in zip(manifest.outputs, found, strict=True)}


def _fitting(slot: Slot, value: Any) -> Any:
    array = adopt_input(slot, value)
    same = array.ndim == len(slot.shape) and all(
        not isinstance(e, int) or e == a for e, a in zip(slot.shape, array.shape, strict=True)
    )
    if not same:
        raise RunError(f"input {slot.name!r} has shape {array.shape}", f"expected {slot.shape}",
                       hint="compile it for this shape")  # fmt: skip
    return array
