"""What an artefact keeps to be built again: the model as Relay text after the graph passes, and the way back from the
constants section to the text's constants. Weights are not stored twice.

Section `relay`: the text, its constants by digest. Section `rebuild`, JSON: the target, and for each digest the place
of the constant: offset, element type, shape, and the layout in which a kernel wanted it (null: as it is). What no
kernel reads from the constants section stands in the section `rebuild-data`.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from warpbeam import op
from warpbeam.driver.constants import Constants
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError
from warpbeam.relay import text
from warpbeam.relay.expr import Constant, IRModule
from warpbeam.relay.text_print import constant_digest
from warpbeam.runtime.artifact import Artifact
from warpbeam.target import Target
from warpbeam.tir.schedule.layout import apply_layout


class RecordedConstants(Constants):
    """The constants section, with a note of where each constant went and how it is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, tuple[int, Any]] = {}

    def add(self, const: Constant, layout: Any) -> tuple[int, tuple[int, ...]]:
        """As `Constants.add`."""
        offset, shape = super().add(const, layout)
        key = constant_digest(const)
        if layout is None or key not in self.places:
            self.places[key] = offset, layout
        return offset, shape


def sections(mod: IRModule, constants: RecordedConstants, target: Target) -> tuple[str, dict[str, bytes]]:
    """The Relay text of a fused module, and the sections that go with it."""
    rows: dict[str, Any] = {}
    rest: list[bytes] = []
    size = 0
    for key, array in text.external_constants(mod).items():
        place = constants.places.get(key)
        row = {"dtype": dt.from_numpy(array.dtype), "shape": list(array.shape)}
        if place is not None:
            rows[key] = row | {"offset": place[0], "layout": _plain(place[1])}
        else:
            data = np.ascontiguousarray(array).tobytes()
            rows[key] = row | {"rest": size}
            rest.append(data)
            size += len(data)
    about = {"target": dataclasses.asdict(target), "constants": rows}
    more = {"rebuild": zlib.compress(json.dumps(about, separators=(",", ":")).encode(), 6)}
    if rest:
        more["rebuild-data"] = b"".join(rest)
    return text.to_text(mod, "digest"), more


def _plain(layout: Any) -> Any:
    """A layout as JSON data."""
    if layout is None:
        return None
    return {"shape": _list(layout["shape"]), "packed": _list(layout["packed"]), "map": _list(layout["map"])}


def _list(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_list(v) for v in value]
    return value if isinstance(value, str) else int(value)


def _tuples(value: Any) -> Any:
    """JSON data with tuples for lists, as layouts are where they are made."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def restored(artifact: Artifact) -> tuple[IRModule, Target]:
    """The fused module that an artefact was built from, and the target it was built for.

    Raises:
        CompileError: if the artefact does not hold it, or it does not fit together.
    """
    relay, data = artifact.data("relay"), artifact.data("rebuild")
    name = artifact.manifest.name
    if relay is None or data is None:
        raise CompileError("the artefact holds no Relay text to build from", name, "it was made by an older version",
                           "compile the model again")  # fmt: skip
    try:
        about = json.loads(zlib.decompress(data))
        constants = {key: _array(artifact, row) for key, row in about["constants"].items()}
        fields = {k: tuple(map(tuple, v)) if k == "intrinsics" else v for k, v in about["target"].items()}
        known = {f.name for f in dataclasses.fields(Target)}
        target = Target(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k in known})
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise CompileError("the sections to build from are damaged", name, str(error)) from error
    return text.parse(bytes(relay).decode(), op.get, constants, name), target


def _array(artifact: Artifact, row: Mapping[str, Any]) -> np.ndarray:
    section, offset = ("rebuild-data", row["rest"]) if "rest" in row else ("constants", row["offset"])
    layout = _tuples(row.get("layout"))
    shape = tuple(row["shape"] if layout is None else layout["packed"])
    kind = dt.to_numpy(row["dtype"])
    stored = np.ndarray(shape, kind, artifact.data(section) or b"", offset)
    if layout is not None:
        stored = _unpacked(stored, layout).reshape(tuple(row["shape"]))
    stored.flags.writeable = False
    return stored


def _unpacked(packed: np.ndarray, layout: Mapping[str, Any]) -> np.ndarray:
    """The array that a layout packed: its elements are found where the layout puts their numbers."""
    shape = tuple(layout["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    numbers = apply_layout(np.arange(1, count + 1).reshape(shape), layout)
    used = numbers > 0  # not padding
    out = np.empty(count, packed.dtype)
    out[numbers[used] - 1] = packed[used]
    return out.reshape(shape)
