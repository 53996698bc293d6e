"""The classic face of Relay: `relay.var`, `relay.nn.conv2d`, `relay.transform.FoldConstant`, `relay.build`, …

Operators become functions generated from the operator table: operands first, then attributes by position or name, as
the classic signatures have them. Everything is loaded on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any as _Any  # `Any` is a name of this module: an unknown size

from warpbeam import op as _op
from warpbeam.ir.diagnostics import IRError
from warpbeam.relay.expr import Call, Constant, Expr, TupleGetItem, as_relay, const
from warpbeam.relay.op import Op
from warpbeam.relay.types import TupleType

# Public name -> "module" or "module:attribute".
_PLACES: dict[str, str] = {
    "load_param_dict": "warpbeam.runtime.params:load_param_dict",
    "save_param_dict": "warpbeam.runtime.params:save_param_dict",
    **{
        n: f"warpbeam.relay.expr:{n}"
        for n in (
            "Call", "Clause", "Constant", "Constructor", "Expr", "Function", "GlobalVar", "IRModule", "If", "Let",
            "Match", "PatternConstructor", "PatternTuple", "PatternVar", "PatternWildcard", "RefCreate", "RefRead",
            "RefWrite", "Tuple", "TupleGetItem", "TypeData", "Var", "const", "free_vars", "var",
        )
    },
    **{
        n: f"warpbeam.relay.types:{n}"
        for n in ("FuncType", "GlobalTypeVar", "RefType", "TensorType", "TupleType", "Type", "TypeCall", "TypeVar")
    },
    "Any": "warpbeam.relay.types:unknown_dim",
    **{n: f"warpbeam.relay.builder:{n}" for n in ("ScopeBuilder", "bind", "bind_params_by_name")},
    "Prelude": "warpbeam.relay.adt:Prelude",
    "PassContext": "warpbeam.ir.transform:PassContext",
    "build_config": "warpbeam.ir.transform:PassContext",
    "adt": "warpbeam.relay.adt",
    "analysis": "warpbeam.relay.analysis",
    "build_module": "warpbeam.relay.builder",
    "expr": "warpbeam.relay.expr",
    "op": "warpbeam.relay.op",
    "ty": "warpbeam.relay.types",
    "transform": "warpbeam.transform",
    "vm": "warpbeam.driver.vm",
    "evaluate": "warpbeam.relay.interp:evaluate",
    "structural_equal": "warpbeam.relay.structural:structural_equal",
    "assert_structural_equal": "warpbeam.relay.structural:assert_structural_equal",
    "to_text": "warpbeam.relay.text:to_text",
    "astext": "warpbeam.relay.text:to_text",
    "build": "warpbeam.driver.relay_build:build",
    "create_executor": "warpbeam.driver.relay_build:create_executor",
    "optimize": "warpbeam.driver.relay_build:optimize",
}  # fmt: skip


def parse(text: str, source: str = "text", **options: _Any) -> _Any:
    """The module that a Relay text describes, over the operator table."""
    from warpbeam.relay.text import parse as parse_text

    return parse_text(text, _op.get, source=source, **options)


fromtext = parse


def parse_expr(text: str, **options: _Any) -> _Any:
    """The expression that a Relay text describes, over the operator table."""
    from warpbeam.relay.text import parse_expr as parse_text

    return parse_text(text, _op.get, **options)


# ----------------------------------------------------------------------------------------------- operators as functions


def _operands(op: Op, args: tuple[_Any, ...]) -> tuple[list[Expr], list[_Any]]:
    """(tensor operands, attributes given by position)."""
    if op.arity is None:
        if args and isinstance(args[0], list | tuple):
            return [as_relay(a) for a in args[0]], list(args[1:])
        count = next((i for i, a in enumerate(args) if not isinstance(a, Expr)), len(args))
        return list(args[:count]), list(args[count:])
    return [as_relay(a) for a in args[: op.arity]], list(args[op.arity :])


def _call(name: str, args: tuple[_Any, ...], attrs: dict[str, _Any]) -> _Any:
    op = _op.get(name)
    adapt = _ADAPT.get(name)
    if adapt is not None:
        args, attrs = adapt(op, args, attrs)
    operands, rest = _operands(op, args)
    names = list(op.defaults)
    if len(rest) > len(names):
        raise IRError(f"{name} takes {op.arity} operands and {len(names)} attributes, got {len(operands) + len(rest)}")
    given = {**dict(zip(names, rest, strict=False)), **attrs}
    unset = [k for k, v in given.items() if k not in names and v in (None, "")]
    operands[op.alike] = _matched(operands[op.alike])
    found = Call(op, tuple(operands), op.attrs({k: v for k, v in given.items() if k not in unset}))
    if isinstance(found.ty, TupleType):
        return tuple(TupleGetItem(found, i) for i in range(len(found.ty.fields)))
    return found


def _matched(operands: list[Expr]) -> list[Expr]:
    """Scalar constants take the dtype of the tensor beside them, as Python numbers do."""
    dtypes = {o.ty.dtype for o in operands if not isinstance(o, Constant) and hasattr(o.ty, "dtype")}
    if len(dtypes) != 1:
        return operands
    (dtype,) = dtypes
    return [_adapted(o, dtype) for o in operands]


def _adapted(c: _Any, dtype: str) -> Expr:
    """What a bare Python number becomes beside a tensor of `dtype`; anything else as it is."""
    weak = isinstance(c, Constant) and c.numpy().ndim == 0 and c.ty.dtype in ("int32", "float32")
    return const(c.numpy(), dtype) if weak and c.ty.dtype != dtype else c


Adapted = tuple[tuple[_Any, ...], dict[str, _Any]]


def _conv(op: Op, args: tuple[_Any, ...], attrs: dict[str, _Any]) -> Adapted:
    """Classic convolutions repeat the kernel's shape (kernel_size, channels); it must agree."""
    attrs = dict(attrs)
    size, channels = attrs.pop("kernel_size", None), attrs.pop("channels", None)
    weight = args[1].ty if len(args) > 1 else None
    transposed = op.name.endswith("_transpose")
    layout = attrs.get("kernel_layout") or ("IO" if transposed else "OI") + "DHW"[5 - weight.ndim if weight else 0 :]
    if weight is not None:
        letters = [c for c in layout if c in "DHW"]
        shape = dict(zip(layout, weight.shape, strict=False))
        wanted = (size,) * len(letters) if isinstance(size, int) else tuple(size or ())
        if wanted and any(w != shape[c] for w, c in zip(wanted, letters, strict=True)):
            raise IRError(f"{op.name}: kernel_size {wanted} does not agree with the weight {tuple(weight.shape)}")
        groups = attrs.get("groups", 1) if transposed else 1
        if channels is not None and shape["O"] * groups != channels:
            raise IRError(f"{op.name}: channels={channels} does not agree with the weight {tuple(weight.shape)}")
    return args, attrs


def _pad(op: Op, args: tuple[_Any, ...], attrs: dict[str, _Any]) -> Adapted:
    """nn.pad(data, pad_width, pad_value=0, pad_mode="constant")"""
    attrs = dict(attrs)
    names = ("pad_width", "pad_value", "pad_mode")
    if len(args) > 1 and not isinstance(args[1], Expr):
        attrs = {**dict(zip(names, args[1:], strict=False)), **attrs}
        args = args[:1]
    if len(args) == 1:
        value = attrs.pop("pad_value", 0)
        args = (args[0], value if isinstance(value, Expr) else const(value, args[0].ty.dtype))
    return args, attrs


_ADAPT: dict[str, Callable[[Op, tuple[_Any, ...], dict[str, _Any]], Adapted]] = {
    **{f"nn.conv{n}d{t}": _conv for n in (1, 2, 3) for t in ("", "_transpose")},
    "nn.pad": _pad,
}


def _batch_norm(
    data: _Any, gamma: _Any, beta: _Any, moving_mean: _Any, moving_var: _Any, *args: _Any, **attrs: _Any
) -> _Any:
    """(result, moving mean, moving variance), as the classic operator returns them; inference only."""
    found = _call("nn.batch_norm", (data, gamma, beta, moving_mean, moving_var, *args), attrs)
    return found, moving_mean, moving_var


def _batch_flatten(data: _Any) -> _Any:
    """All dimensions but the first joined."""
    total: _Any = 1
    for d in data.ty.shape[1:]:
        total = total * d
    return _call("reshape", (data,), {"newshape": (data.ty.shape[0], total)})


def _dropout(data: _Any, rate: float = 0.5) -> _Any:
    """The data: at inference nothing is dropped."""
    return data


def _resize2d(
    data: _Any,
    size: _Any,
    roi: _Any = None,
    layout: str = "NCHW",
    method: str = "linear",
    coordinate_transformation_mode: str = "half_pixel",
    rounding_method: str = "",
    cubic_alpha: float = -0.5,
    cubic_exclude: int = 0,
    extrapolation_value: float = 0.0,
    out_dtype: str | None = None,
) -> _Any:
    """Two spatial axes resized; see image.resize for the attributes' meaning."""
    attrs = {
        "size": tuple(size), "axes": (layout.index("H"), layout.index("W")), "cubic_alpha": cubic_alpha,
        "method": method, "cubic_exclude": bool(cubic_exclude),
        "coordinate_transformation_mode": coordinate_transformation_mode, "extrapolation_value": extrapolation_value,
    }  # fmt: skip
    if rounding_method:
        attrs["rounding_method"] = rounding_method
    found = _call("image.resize", (data,), attrs)
    return _call("cast", (found,), {"dtype": out_dtype}) if out_dtype else found


_FUNCTIONS: dict[str, Callable[..., _Any]] = {
    "nn.batch_norm": _batch_norm,
    "nn.batch_flatten": _batch_flatten,
    "nn.dropout": _dropout,
    "image.resize2d": _resize2d,
}


def _operator(name: str) -> Callable[..., _Any] | None:
    """The function that builds calls of an operator, or None where there is no such operator."""
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if name not in _op.names():
        return None

    def make(*args: _Any, **attrs: _Any) -> _Any:
        return _call(name, args, attrs)

    make.__name__ = name.rpartition(".")[2]
    make.__qualname__ = name
    make.__doc__ = type(_op.get(name)).__doc__
    return make


class _Namespace:
    """Operators whose names start with a prefix: `relay.nn`, `relay.image`, `relay.vision`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __getattr__(self, name: str) -> _Any:
        found = None if name.startswith("__") else _operator(f"{self._prefix}.{name}")
        if found is None:
            near = get_close_matches(name, dir(self), 3)
            raise AttributeError(f"there is no operator {self._prefix}.{name}" + (f"; near: {near}" if near else ""))
        return found

    def __dir__(self) -> list[str]:
        start = self._prefix + "."
        return sorted(n[len(start) :] for n in {*_op.names(), *_FUNCTIONS} if n.startswith(start))


class _Frontend:
    """`relay.frontend.from_onnx(model, shape=…)` and its kin."""

    def __getattr__(self, name: str) -> _Any:
        if name == "from_onnx":
            return importlib.import_module("warpbeam.frontend.onnx").from_onnx
        raise AttributeError(f"there is no front end {name!r}; there is from_onnx")


nn, image, vision, random = (_Namespace(p) for p in ("nn", "image", "vision", "random"))
frontend = _Frontend()


def __getattr__(name: str) -> _Any:
    if name.startswith("__"):
        raise AttributeError(name)
    place = _PLACES.get(name)
    if place is not None:
        module, _, attr = place.partition(":")
        found = importlib.import_module(module)
        return getattr(found, attr) if attr else found
    made = _operator(name)
    if made is None:
        near = get_close_matches(name, __dir__(), 3)
        raise AttributeError(f"relay has no {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    return made


def __dir__() -> list[str]:
    plain = (n for n in _op.names() if "." not in n)
    return sorted({*_PLACES, *plain, "parse", "fromtext", "parse_expr", "nn", "image", "vision", "random", "frontend"})
