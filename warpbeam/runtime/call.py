"""Checking, binding and running one call of a model. The static path is the hot one: keep it flat."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .abi import QUERY_SHAPES
from .context import CallContext, Slot
from .errors import RunError, WarpbeamError
from .memory import address_of
from .ndarray import NDArray, as_numpy
from .shape_expr import evaluate, show

Array = npt.NDArray[Any]
Entry = Any
_READABLE = 0x1 | 0x100  # NumPy flags: row-major without gaps, aligned
_WRITABLE = _READABLE | 0x400


def run_static(
    ctx: CallContext, entry: Entry, inputs: Mapping[str, Any], out: Mapping[str, Any] | None
) -> dict[str, Array]:
    """One call of a model all of whose shapes are integers."""
    keep = []
    spans = []
    for name, tensor, dtype, shape, nbytes, slot in ctx.input_rows:
        try:
            array = inputs[name]
        except KeyError:
            raise missing_input(name, ctx, inputs) from None
        if (
            type(array) is not np.ndarray
            or array.dtype is not dtype
            or array.shape != shape
            or array.flags.num & _READABLE != _READABLE
        ):
            array = adopt_input(slot, array)
            if array.shape != shape:
                raise wrong_shape(slot, array)
        keep.append(array)
        tensor.data = start = address_of(array)
        if out is not None:
            spans.append((start, start + nbytes, tensor, array))
    if len(inputs) != len(keep):
        raise unknown_names("input", inputs, ctx.inputs)
    results = {}
    if out is None:
        for name, tensor, _, _, _, slot in ctx.output_rows:
            results[name] = array = slot.allocate(slot.shape)
            tensor.data = address_of(array)
    else:
        taken: list[tuple[int, int]] = []
        for name, tensor, dtype, shape, nbytes, slot in ctx.output_rows:
            array = out.get(name)
            if array is None:
                array = slot.allocate(shape)
            elif (
                type(array) is not np.ndarray
                or array.dtype is not dtype
                or array.shape != shape
                or array.flags.num & _WRITABLE != _WRITABLE
            ):
                array = adopt_output(slot, array, shape)
            results[name] = array
            tensor.data = start = address_of(array)
            end = start + nbytes
            for low, high, source, value in spans:
                if low < end and start < high:
                    keep.append(separate(source, value))
            if taken:
                no_overlap(slot, start, end, taken)
            taken.append((start, end))
        if not out.keys() <= results.keys():
            raise unknown_names("output", out, ctx.outputs)
    status = entry(ctx.pointer, ctx.arguments, ctx.count)
    if status:
        raise failed(ctx, status)
    return results


def run_symbolic(
    ctx: CallContext, entry: Entry, inputs: Mapping[str, Any], out: Mapping[str, Any] | None
) -> dict[str, Array]:
    """One call of a model with symbolic dimensions: binds them, finds the output shapes, allocates, runs."""
    if inputs.keys() != {slot.name for slot in ctx.inputs}:
        lacking = next((s.name for s in ctx.inputs if s.name not in inputs), None)
        raise missing_input(lacking, ctx, inputs) if lacking else unknown_names("input", inputs, ctx.inputs)
    if out is not None and not out.keys() <= {slot.name for slot in ctx.outputs}:
        raise unknown_names("output", out, ctx.outputs)
    keep = [adopt_input(slot, inputs[slot.name]) for slot in ctx.inputs]
    key = tuple(array.shape for array in keep)
    if key != ctx.shapes_key:
        ctx.shapes_key = None  # binding may fail half way
        bind_shapes(ctx, entry, keep)
        ctx.shapes_key = key
    spans = []
    for slot, array in zip(ctx.inputs, keep, strict=True):
        start = address_of(array)
        slot.tensor.data = start
        spans.append((start, start + slot.nbytes, slot.tensor, array))
    results: dict[str, Array] = {}
    taken: list[tuple[int, int]] = []
    for slot, shape in zip(ctx.outputs, ctx.output_shapes, strict=True):
        if slot.late:
            slot.tensor.data, slot.tensor.byte_offset = None, 0
            continue
        given = out.get(slot.name) if out is not None else None
        array = slot.allocate(shape) if given is None else adopt_output(slot, given, shape)
        slot.set_shape(shape)
        slot.tensor.data = start = address_of(array)
        for low, high, source, value in spans:
            if low < start + slot.nbytes and start < high:
                keep.append(separate(source, value))
        no_overlap(slot, start, start + slot.nbytes, taken)
        taken.append((start, start + slot.nbytes))
        results[slot.name] = array
    status = entry(ctx.pointer, ctx.arguments, ctx.count)
    if status:
        raise failed(ctx, status)
    return {
        slot.name: found_late(slot, out) if slot.late else trimmed(slot, results[slot.name]) for slot in ctx.outputs
    }


def found_late(slot: Slot, out: Mapping[str, Any] | None) -> Array:
    """A copy of an output whose shape depends on the data: the call left it in its scratch memory."""
    shape = slot.read_shape()
    slot.set_shape(shape)
    given = out.get(slot.name) if out is not None else None
    array = slot.allocate(shape) if given is None else adopt_output(slot, given, shape)
    if slot.nbytes:
        ctypes.memmove(address_of(array), slot.tensor.data + slot.tensor.byte_offset, slot.nbytes)
    return array


def bind_shapes(ctx: CallContext, entry: Entry, arrays: list[Array]) -> None:
    """Checks the input shapes against the symbols and computes the output shapes, asking the code where it must."""
    env: dict[str, int] = {}
    source: dict[str, str] = {}
    for slot, array in zip(ctx.inputs, arrays, strict=True):
        if array.ndim != len(slot.shape):
            raise wrong_shape(slot, array)
        for axis, (extent, actual) in enumerate(zip(slot.shape, array.shape, strict=True)):
            if isinstance(extent, int):
                if extent != actual:
                    raise wrong_shape(slot, array)
            elif env.setdefault(str(extent), actual) != actual:
                first = f"{extent} is {env[str(extent)]} by {source[str(extent)]}"
                why = f"{first}, and {actual} by axis {axis} of {slot.name}"
                raise wrong_shape(slot, array, why)
            source.setdefault(str(extent), f"axis {axis} of {slot.name}")
        slot.set_shape(array.shape)
    shapes: list[tuple[int, ...] | None] = []
    for slot in ctx.outputs:
        if slot.late:
            shapes.append((0,) * len(slot.shape))
            continue
        try:
            shapes.append(tuple(evaluate(extent, env) for extent in slot.shape))
        except RunError:
            shapes.append(None)
    if None in shapes:
        ctx.struct.flags = QUERY_SHAPES
        try:
            status = entry(ctx.pointer, ctx.arguments, ctx.count)
            if status:
                raise failed(ctx, status)
        finally:
            ctx.struct.flags = 0
        shapes = [slot.read_shape() if s is None else s for slot, s in zip(ctx.outputs, shapes, strict=True)]
    ctx.output_shapes = tuple(s for s in shapes if s is not None)
    for slot, found in zip(ctx.outputs, ctx.output_shapes, strict=True):
        if min(found, default=0) < 0:
            raise RunError(f"output {slot.name!r} would have shape {found}", why="an extent is negative",
                           hint="the inputs are too small for this model")  # fmt: skip


def trimmed(slot: Slot, array: Array) -> Array:
    """The part of an output that the code filled, when its extent depends on the data."""
    shape = slot.read_shape()
    if shape == array.shape:
        return array
    count = 1
    for extent in shape:
        count *= extent
    if min(shape, default=0) < 0 or count > array.size:
        raise RunError(f"the code set shape {shape} for output {slot.name!r}", why=f"it was given {array.shape}")
    flat: Array = array.reshape(-1)[:count]
    return flat.reshape(shape)


def adopt_input(slot: Slot, value: Any) -> Array:
    """`value` as a compact array of the slot's element type; the shape is the caller's business."""
    try:
        array = as_numpy(value)
    except WarpbeamError as error:
        raise RunError(error.what, f"input {slot.name!r}", error.why, error.hint) from None
    if array.dtype != slot.dtype:
        raise RunError(
            f"input {slot.name!r} has element type {array.dtype}", describe(slot), "values are never cast silently",
            f"pass x.astype({slot.spec.dtype!r})",
        )  # fmt: skip
    return array


def adopt_output(slot: Slot, value: Any, shape: tuple[int, ...]) -> Array:
    """A caller's output array, which must fit exactly."""
    array = value._array if isinstance(value, NDArray) else value
    if not isinstance(array, np.ndarray):
        raise RunError(f"output {slot.name!r} is a {type(value).__name__}", describe(slot), hint="pass a NumPy array")
    if array.dtype != slot.dtype or array.shape != shape:
        raise RunError(
            f"output {slot.name!r}: got {array.dtype} {array.shape}, expected {slot.spec.dtype} {shape}",
            hint=f"allocate it with np.empty({shape}, {slot.spec.dtype!r})",
        )
    if array.flags.num & _WRITABLE != _WRITABLE or not array.dtype.isnative:
        raise RunError(
            f"output {slot.name!r} cannot be written in place", why="it is read-only, not row-major, or not aligned",
            hint="pass a compact array and copy from it",
        )  # fmt: skip
    return array


def separate(tensor: Any, array: Array) -> Array:
    """An input that shares memory with an output is copied first, so that the result is as if it did not."""
    copy = array.copy()
    tensor.data = address_of(copy)
    return copy


def no_overlap(slot: Slot, start: int, end: int, taken: list[tuple[int, int]]) -> None:
    """Two outputs must not share memory."""
    if start < end and any(low < end and start < high for low, high in taken if low < high):
        raise RunError(f"output {slot.name!r} shares memory with another output", hint="pass separate arrays")


def failed(ctx: CallContext, status: int) -> RunError:
    """The error for a non-zero status."""
    return RunError(
        "the model reported a failure", why=ctx.message() or f"status {status}, no message",
        hint="check the values and shapes of the inputs",
    )  # fmt: skip


def describe(slot: Slot) -> str:
    """`name: dtype (extents)` as the model declares it."""
    return f"expected {slot.name}: {slot.spec.dtype} ({', '.join(map(show, slot.shape))})"


def wrong_shape(slot: Slot, array: Array, why: str = "") -> RunError:
    """The error for a shape that does not fit."""
    return RunError(
        f"input {slot.name!r} has shape {array.shape}",
        describe(slot),
        why,
        "reshape or pad it, or compile for this shape",
    )


def missing_input(name: str, ctx: CallContext, inputs: Mapping[str, Any]) -> RunError:
    """The error for an input that was not given."""
    slot = next(s for s in ctx.inputs if s.name == name)
    return RunError(f"input {name!r} is missing", describe(slot), f"given: {', '.join(inputs) or 'nothing'}",
                    f"pass all of: {', '.join(s.name for s in ctx.inputs)}")  # fmt: skip


def unknown_names(what: str, given: Mapping[str, Any], slots: list[Slot]) -> RunError:
    """The error for names that the model does not have."""
    names = [s.name for s in slots]
    odd = [repr(name) for name in given if name not in names]
    return RunError(f"the model has no {what} {', '.join(odd)}", hint=f"its {what}s: {', '.join(names) or 'none'}")
