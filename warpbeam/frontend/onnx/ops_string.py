"""Operators that look into strings: calls of host functions. Constant strings are computed while importing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import fields, reshape, shape_of
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.frontend.onnx.ops_content import cut
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.op import get
from warpbeam.relay.expr import Expr
from warpbeam.runtime.objects import current
from warpbeam.topi import dims
from warpbeam.topi.common import broadcast_shapes

STRING = 8


def host_call(function: str, operands: Sequence[Expr], results: Sequence[tuple[Any, str]], **options: Any) -> Expr:
    """A call of a host function; results: (shape, dtype) each."""
    text = json.dumps(options, sort_keys=True) if options else ""
    kinds = tuple((tuple(shape), dtype) for shape, dtype in results)
    return get("host.call")(*operands, function=function, options=text, results=kinds)  # type: ignore[no-any-return]


def _texts(importer: Any, view: NodeView, *exprs: Expr, fixed: bool | None = None) -> list[Entry]:
    known = all(e is None or e.constant for e in view.entries) if fixed is None else fixed
    return [Entry(importer.found.guarded(e, []), fixed=known, string=True) for e in exprs]


def _concat(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    a, b = view.operand(0), view.operand(1)
    shape = broadcast_shapes(get("add"), shape_of(a), shape_of(b))
    return _texts(importer, view, host_call("string.concat", [a, b], [(shape, "int64")]))


def _split(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    x = view.operand(0)
    shape = shape_of(x)
    options: dict[str, Any] = {"delimiter": view.attr("delimiter", "")}
    if view.has_attr("maxsplit"):
        options["maxsplit"] = view.attr("maxsplit")
    counts, most = fields(host_call("string.split_counts", [x], [(shape, "int64"), ((), "int64")], **options), 2)
    size = view.found.size(view.name, most)
    pieces = host_call("string.split", [x], [((*shape, size), "int64")], **options)
    return [*_texts(importer, view, pieces, fixed=False), Entry(counts)]


def _normalize(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    x = view.operand(0)
    shape = shape_of(x)
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 1):
        raise view.error(f"takes [C] or [1, C], not {dims.shape_text(shape)}")
    change = view.attr("case_change_action", "NONE")
    if change not in ("NONE", "LOWER", "UPPER"):
        raise view.error(f"case_change_action {change[:20]!r}")
    locale = view.attr("locale", "")  # letters change as Unicode says in any locale, but it must be the name of one
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{0,64}", locale) or ".." in locale:
        raise view.error(f"locale {locale[:40]!r}")
    options = {
        "case": change,
        "sensitive": view.attr("is_case_sensitive", 0),
        "stopwords": view.attr("stopwords", []),
    }
    flat = reshape(x, shape[-1:])
    room = max(shape[-1], 1) if isinstance(shape[-1], int) else shape[-1]
    padded, count = fields(host_call("string.normalize", [flat], [((room,), "int64"), ((), "int64")], **options), 2)
    found, size = cut(view, padded, count)
    out = found if len(shape) == 1 else get("reshape")(found, newshape=(1, size))
    return _texts(importer, view, out, fixed=False)


def _full_match(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    x = view.operand(0)
    found = host_call("string.full_match", [x], [(shape_of(x), "bool")], pattern=view.attr("pattern", ""))
    return [Entry(found, fixed=view.entries[0].constant)]  # type: ignore[union-attr]


def _cast(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    """To or from strings."""
    x, entry = view.operand(0), view.entries[0]
    assert entry is not None
    if view.op_type == "CastLike":
        other = view.entry(1)
        to, dtype = (STRING, "") if other is not None and other.string else (0, other.type.dtype)  # type: ignore[union-attr]
    else:
        to = view.attr("to")
        dtype = "" if to == STRING else elem_dtype(to, view.name)
    if to == STRING:
        if entry.string:
            return [entry]
        wide = x
        if x.ty.dtype in ("bfloat16", "float16") or x.ty.dtype.startswith("float8"):
            wide = get("cast")(x, dtype="float32")
        found = host_call("string.text_of", [wide], [(shape_of(x), "int64")])
        return _texts(importer, view, found, fixed=entry.constant)
    plain = dtype if dtype in _PLAIN else "float32"
    found = host_call("string.number_of", [x], [(shape_of(x), plain)], dtype=plain)
    return [Entry(found if plain == dtype else get("cast")(found, dtype=dtype), fixed=entry.constant)]


_PLAIN = (
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip


def _constant(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    """A constant of strings."""
    name = view.attributes[0]
    value = view.attr(name)
    array = value if isinstance(value, np.ndarray) else np.array(value, object)
    return [importer.constant(array)]


def _image(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    """ImageDecoder: the size comes out of the data, so the data is read twice."""
    data = view.operand(0)
    form = view.attr("pixel_format", "RGB")
    if form not in ("RGB", "BGR", "Grayscale"):
        raise view.error(f"pixel_format {form[:20]!r}")
    shape = host_call("image.shape", [data], [((3,), "int64")], format=form)
    sizes = [view.found.size(view.name, shape, k) for k in range(2)]
    out = host_call("image.pixels", [data], [((*sizes, 1 if form == "Grayscale" else 3), "uint8")], format=form)
    return [Entry(importer.found.guarded(out, []))]


Special = Callable[[Any, Any, NodeView], list[Entry]]

TABLE: dict[str, Special] = {
    "ImageDecoder": _image,
    "RegexFullMatch": _full_match,
    "StringConcat": _concat,
    "StringNormalizer": _normalize,
    "StringSplit": _split,
}


def find(view: NodeView) -> Special | None:
    """The function that imports a node on strings; None where it is none, or only moves them."""
    strings = any(e is not None and e.string for e in view.entries)
    if view.op_type in TABLE:
        return TABLE[view.op_type]
    if view.op_type == "Constant":
        names = view.attributes
        if names in (["value_string"], ["value_strings"]):
            return _constant
        return _constant if names == ["value"] and view.is_string("value") else None
    if view.op_type == "Cast" and (strings or view.attr("to") == STRING):
        return _cast
    return _cast if view.op_type == "CastLike" and strings else None


def pool(texts: Sequence[str]) -> np.ndarray:
    """The numbers of strings that are part of a model."""
    return current().encode(np.array(list(texts), object))
