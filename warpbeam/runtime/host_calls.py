"""Operators without a compiled kernel, as functions that a program calls on the host: what looks into strings, what
changes sequences whose length is found at run time, and decoding of images.

Each function takes the call's table, its options, and the operands as arrays; it gives the results as arrays. Strings
and sequences are numbers of the table (`objects`). The compiler lists the calls of a program in its report and in the
manifest; everything else of the program stays compiled.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .abi import numpy_dtype
from .errors import RunError
from .objects import Table, current
from .regex import Pattern

Array = npt.NDArray[Any]
Function = Callable[..., Sequence[Any]]


def call(function: str, options: str, *arrays: Array) -> list[Array]:
    """Runs a host function by name in the call in progress.

    Raises:
        RunError: if there is no such function, or the values do not fit it.
    """
    found = FUNCTIONS.get(function)
    if found is None:
        raise RunError(f"there is no host function {function!r}", hint="the file may need a newer runtime")
    return [np.asarray(r) for r in found(current(), json.loads(options) if options else {}, *arrays)]


# ---------------------------------------------------------------------------------------------------------- strings


def _texts(table: Table, numbers: Array) -> list[str]:
    return [table.text(int(n)) for n in numbers.flat]


def _numbers(table: Table, texts: Sequence[str], shape: Sequence[int]) -> Array:
    return np.array([table.number(t) for t in texts], np.int64).reshape(tuple(shape))


def concat(table: Table, options: dict[str, Any], a: Array, b: Array) -> Sequence[Array]:
    """Strings of b after those of a, with broadcasting."""
    x, y = np.broadcast_arrays(a, b)
    return [_numbers(table, [p + q for p, q in zip(_texts(table, x), _texts(table, y), strict=True)], x.shape)]


def _pieces(table: Table, options: dict[str, Any], x: Array) -> list[list[str]]:
    delimiter, most = options.get("delimiter") or None, options.get("maxsplit")
    return [t.split(delimiter, -1 if most is None else most) for t in _texts(table, x)]


def split_counts(table: Table, options: dict[str, Any], x: Array) -> Sequence[Array]:
    """(pieces of each string, largest number of pieces)."""
    counts = np.array([len(p) for p in _pieces(table, options, x)], np.int64).reshape(x.shape)
    return [counts, np.array(counts.max(initial=0), np.int64)]


def split(table: Table, options: dict[str, Any], x: Array) -> Sequence[Array]:
    """The pieces of each string along a new last axis, empty strings after them."""
    pieces = _pieces(table, options, x)
    width = max(map(len, pieces), default=0)
    flat = [t for row in pieces for t in (*row, *[""] * (width - len(row)))]
    return [_numbers(table, flat, (*x.shape, width))]


def normalize(table: Table, options: dict[str, Any], x: Array) -> Sequence[Array]:
    """(strings without stop words and with changed case, empty ones after them; how many are left, at least 1)."""
    change = {"LOWER": str.lower, "UPPER": str.upper}.get(options["case"], lambda t: t)
    exact = bool(options["sensitive"])
    stops = {w if exact else w.casefold() for w in options["stopwords"]}
    kept = [t for t in _texts(table, x) if (t if exact else t.casefold()) not in stops]
    size = max(x.size, 1)
    texts = [change(t) for t in kept]
    padded = _numbers(table, [*texts, *[""] * (size - len(texts))], (size,))
    return [padded, np.array(max(len(texts), 1), np.int64)]


def full_match(table: Table, options: dict[str, Any], x: Array) -> Sequence[Array]:
    """Whether each string as a whole matches a regular expression of RE2's syntax."""
    pattern = Pattern(options["pattern"])
    return [np.array([pattern.fullmatch(t) for t in _texts(table, x)], bool).reshape(x.shape)]


def text_of(table: Table, options: dict[str, Any], x: Array) -> Sequence[Array]:
    """Numbers as strings: floats with as many digits as their type holds, bools as 1 and 0."""
    if x.dtype.kind in "iub":
        texts = [str(int(v)) for v in x.flat]
    else:
        digits = 17 if x.dtype.itemsize == 8 else 8
        texts = [_float_text(float(v), digits) for v in x.flat]
    return [_numbers(table, texts, x.shape)]


def _float_text(value: float, digits: int) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "INF" if value > 0 else "-INF"
    return f"{value:.{digits}g}"


def number_of(table: Table, options: dict[str, Any], x: Array) -> Sequence[Array]:
    """Strings as numbers of a type."""
    integral = options["dtype"].startswith(("int", "uint", "bool"))
    out = [_parsed(t, integral) for t in _texts(table, x)]
    if options["dtype"] == "bool":
        return [np.array([v != 0 for v in out], bool).reshape(x.shape)]
    try:
        return [np.array(out, np.dtype(options["dtype"])).reshape(x.shape)]
    except OverflowError as error:
        raise RunError(f"a string is no number of type {options['dtype']}", why=str(error)) from None


def _parsed(text: str, integral: bool) -> Any:
    try:
        if integral:
            return int(text)
    except ValueError:
        pass
    try:
        return int(float(text)) if integral else float(text)
    except (ValueError, OverflowError):
        raise RunError(f"string {text[:80]!r} is no {'integer' if integral else 'number'}") from None


# ----------------------------------------------------------------------------------------------------------- images


def _image(options: dict[str, Any], data: Array) -> Array:
    try:
        pil: Any = importlib.import_module("PIL.Image")
    except ImportError:
        raise RunError(
            "decoding of images needs a decoder", why="Pillow is not installed", hint="pip install pillow"
        ) from None
    mode = "L" if options["format"] == "Grayscale" else "RGB"
    try:
        with pil.open(io.BytesIO(data.tobytes())) as image:
            pixels = np.asarray(image.convert(mode))
    except (OSError, ValueError, pil.DecompressionBombError) as error:  # one it cannot identify is an OSError
        raise RunError("the data is no image that can be decoded", why=str(error)[:200]) from None
    if mode == "L":
        return pixels[:, :, None]
    return pixels[:, :, ::-1] if options["format"] == "BGR" else pixels


def image_shape(table: Table, options: dict[str, Any], data: Array) -> Sequence[Array]:
    """(height, width, channels) of an encoded image."""
    return [np.array(_image(options, data).shape, np.int64)]


def image_pixels(table: Table, options: dict[str, Any], data: Array) -> Sequence[Array]:
    """The pixels of an encoded image: uint8 of shape (height, width, channels)."""
    return [np.ascontiguousarray(_image(options, data))]


# -------------------------------------------------------------------------------------------------------- sequences


def _place(table: Table, sequence: Array, position: Array, end: int = 0) -> tuple[tuple[Array, ...], int]:
    """(elements, place counted from the front); `end` is 1 where the place behind the last one counts."""
    items = table.sequence(int(sequence))
    at = int(position)
    if not -len(items) <= at < len(items) + end:
        raise RunError(f"position {at} of a sequence of {len(items)}", hint="positions run from -length to length - 1")
    return items, at + len(items) if at < 0 else at


def sequence_of(table: Table, options: dict[str, Any], *items: Array) -> Sequence[Any]:
    """A sequence of tensors."""
    return [np.array(table.add(tuple(i.copy() for i in items)), np.int64)]


def sequence_length(table: Table, options: dict[str, Any], sequence: Array) -> Sequence[Any]:
    """The number of elements."""
    return [np.array(len(table.sequence(int(sequence))), np.int64)]


def sequence_insert(table: Table, options: dict[str, Any], sequence: Array, item: Array, *at: Array) -> Sequence[Any]:
    """A sequence with one more element, at a place or at the end."""
    items, place = _place(table, sequence, at[0] if at else np.array(len(table.sequence(int(sequence)))), 1)
    return [np.array(table.add((*items[:place], item.copy(), *items[place:])), np.int64)]


def sequence_erase(table: Table, options: dict[str, Any], sequence: Array, *at: Array) -> Sequence[Any]:
    """A sequence without the element at a place, or the last one."""
    items, place = _place(table, sequence, at[0] if at else np.array(-1))
    return [np.array(table.add((*items[:place], *items[place + 1 :])), np.int64)]


def sequence_shape(table: Table, options: dict[str, Any], sequence: Array, at: Array) -> Sequence[Any]:
    """The shape of an element, which must have the rank that the model declares."""
    items, place = _place(table, sequence, at)
    return [np.array(_ranked(items[place], options).shape, np.int64)]


def sequence_at(table: Table, options: dict[str, Any], sequence: Array, at: Array) -> Sequence[Any]:
    """The element at a place."""
    items, place = _place(table, sequence, at)
    return [_ranked(items[place], options)]


def _ranked(item: Array, options: dict[str, Any]) -> Array:
    if item.ndim != options["rank"] or item.dtype != numpy_dtype(options["dtype"]):
        raise RunError(
            f"an element of a sequence is {item.dtype} with {item.ndim} dimensions",
            why=f"the model was compiled for {options['dtype']} with {options['rank']}",
        )
    return item


def _joined(table: Table, options: dict[str, Any], sequence: Array) -> Array:
    items = [_ranked(i, options) for i in table.sequence(int(sequence))]
    try:
        return np.stack(items, options["axis"]) if options["stack"] else np.concatenate(items, options["axis"])
    except ValueError as error:
        raise RunError("the elements of a sequence cannot be joined", why=str(error)) from None


def sequence_joined_shape(table: Table, options: dict[str, Any], sequence: Array) -> Sequence[Any]:
    """The shape of all elements joined along an axis."""
    return [np.array(_joined(table, options, sequence).shape, np.int64)]


def sequence_joined(table: Table, options: dict[str, Any], sequence: Array) -> Sequence[Any]:
    """All elements joined along an axis, or stacked along a new one."""
    return [_joined(table, options, sequence)]


FUNCTIONS: dict[str, Function] = {
    "image.pixels": image_pixels,
    "image.shape": image_shape,
    "sequence.at": sequence_at,
    "sequence.erase": sequence_erase,
    "sequence.insert": sequence_insert,
    "sequence.joined": sequence_joined,
    "sequence.joined_shape": sequence_joined_shape,
    "sequence.length": sequence_length,
    "sequence.of": sequence_of,
    "sequence.shape": sequence_shape,
    "string.concat": concat,
    "string.full_match": full_match,
    "string.normalize": normalize,
    "string.number_of": number_of,
    "string.split": split,
    "string.split_counts": split_counts,
    "string.text_of": text_of,
}
