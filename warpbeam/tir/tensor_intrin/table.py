"""All tensor intrinsics by name, each built when it is first asked for."""

from __future__ import annotations

import difflib
import functools
import re
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.tensor_intrin.dots import DOTS
from warpbeam.tir.tensor_intrin.record import TensorIntrin
from warpbeam.tir.tensor_intrin.tiles import fma_tile, widening_row

_TILE = re.compile(r"fma\.f32\.(\d+)x(\d+)(?:\.v(\d+))?")


def names() -> list[str]:
    """Names of the intrinsics; tiles stand for all of the form fma.f32.ROWSxCOLUMNS.vLANES (or with 16 lanes)."""
    return [*DOTS, "arm32.s8s8s16", "fma.f32.6x16", "fma.f32.4x16.v8"]


@functools.cache
def get(name: str) -> TensorIntrin:
    """The intrinsic of that name.

    Raises:
        ScheduleError: if there is none; the message lists similar names.
    """
    if name in DOTS:
        return DOTS[name].record(name)
    if name == "arm32.s8s8s16":
        return widening_row(name)
    tile = _TILE.fullmatch(name)
    if tile is not None:
        rows, columns, width = int(tile[1]), int(tile[2]), int(tile[3] or 16)
        if 0 < width <= columns and columns % width == 0 and 0 < rows * columns <= 4096:
            return fma_tile(name, rows, columns, width)
    near = difflib.get_close_matches(name, names(), cutoff=0.3) or names()
    raise ScheduleError(f"there is no tensor intrinsic {name!r}", hint=f"did you mean {', '.join(near)}")


def resolve(intrin: Any) -> TensorIntrin:
    """An intrinsic from a record, a name, or something that has a `record`."""
    if isinstance(intrin, str):
        return get(intrin)
    found = getattr(intrin, "record", intrin)
    if not isinstance(found, TensorIntrin):
        raise ScheduleError(f"{intrin!r} is no tensor intrinsic", hint="a name, a record, or te.decl_tensor_intrin(…)")
    return found
