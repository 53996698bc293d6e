"""Words of Relay text: names of variables, dimensions, types, attribute values and literals."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import TextError
from warpbeam.ir.node import Attrs, Node
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Constant, Var
from warpbeam.relay.types import FuncType, GlobalTypeVar, RefType, TensorType, TupleType, Type, TypeCall, TypeVar
from warpbeam.tir import expr as E
from warpbeam.topi import dims

WORD = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)
SUFFIX = {
    "float32": "f", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int32": "", "int64": "i64", "int16": "i16",
    "int8": "i8", "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
}  # fmt: skip
INFIX = {
    E.Add: "+", E.Sub: "-", E.Mul: "*", E.FloorDiv: "//", E.FloorMod: "%", E.EQ: "==", E.NE: "!=", E.LT: "<",
    E.LE: "<=", E.GT: ">", E.GE: ">=",
}  # fmt: skip
PREFIX = {E.Min: "min", E.Max: "max", E.Div: "div", E.Mod: "mod", E.And: "and", E.Or: "or", E.Not: "not",
          E.Select: "select"}  # fmt: skip
INLINE_ELEMENTS = 8


def quoted(name: str) -> str:
    """A name as a word, or as a JSON string where it is none."""
    return name if WORD.match(name) else json.dumps(name)


class Names:
    """Unique texts for binders: variables within one function, sizes and type variables within the module."""

    def __init__(self) -> None:
        self.found: dict[Node, str] = {}
        self.sizes: dict[str, int] = {}
        self.types: dict[str, int] = {}
        self.locals: dict[str, int] = {}
        self.declared: list[E.Var] = []

    def start_function(self) -> None:
        """Local names begin anew."""
        self.locals = {}

    def _unique(self, node: Node, wish: str, taken: dict[str, int]) -> str:
        name = self.found.get(node)
        if name is None:
            name = wish
            while name in taken:
                taken[wish] = taken.get(wish, 0) + 1
                name = f"{wish}_{taken[wish]}"
            taken[name] = 0
            self.found[node] = name
        return name

    def local(self, var: Var) -> str:
        return "%" + quoted(self._unique(var, var.name, self.locals))

    def size(self, var: E.Var) -> str:
        if var not in self.found and (var.dtype != "int64" or size_words(var)):
            self.declared.append(var)
        return "?" + quoted(self._unique(var, var.name, self.sizes))

    def type_name(self, var: Node) -> str:
        return quoted(self._unique(var, var.name, self.types))  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------------------- dimensions

    def expr(self, root: E.PrimExpr) -> str:
        """A scalar expression, fully parenthesised."""
        text: dict[int, str] = {}
        for n in post_order(root):
            text[id(n)] = self._scalar(n, text)
        return text[id(root)]

    def _scalar(self, n: Any, text: dict[int, str]) -> str:
        if isinstance(n, E.Var):
            return self.size(n)
        if isinstance(n, E.IntImm):
            return str(n.value) if n.type == "int64" else f"imm({n.value}, {json.dumps(n.type)})"
        if isinstance(n, E.FloatImm):
            return f"imm({float_text(n.value)}, {json.dumps(n.type)})"
        if type(n) in INFIX:
            return f"({text[id(n.a)]} {INFIX[type(n)]} {text[id(n.b)]})"
        if isinstance(n, E.Cast):
            return f"cast({json.dumps(n.type)}, {text[id(n.value)]})"
        if type(n) in PREFIX:
            return f"{PREFIX[type(n)]}({', '.join(text[id(getattr(n, f))] for f in type(n)._fields)})"
        if isinstance(n, E.Call) and not n.attrs:
            parts = [json.dumps(n.op), json.dumps(n.type), *(text[id(a)] for a in n.args)]
            return f"call({', '.join(parts)})"
        raise TextError(f"{type(n).__name__} has no text in a dimension or attribute")

    def dim(self, d: Any) -> str:
        return self.expr(d) if isinstance(d, E.PrimExpr) else str(d)

    # ------------------------------------------------------------------------------------------ types

    def type(self, root: Type) -> str:
        """A type, such as Tensor[(1, ?n), float32]."""
        if isinstance(root, TensorType):
            return self._tensor(root)
        text: dict[int, str] = {}
        for n in post_order(root, enter=lambda n: isinstance(n, Type) and not isinstance(n, TensorType)):
            if isinstance(n, Type):
                text[id(n)] = self._type(n, text)
        return text[id(root)]

    def _tensor(self, t: TensorType) -> str:
        if not t.shape:
            return t.dtype
        return f"Tensor[{_tuple([self.dim(d) for d in t.shape])}, {t.dtype}]"

    def _type(self, n: Any, text: dict[int, str]) -> str:
        def row(items: Any) -> list[str]:
            return [text[id(i)] for i in items]

        if isinstance(n, TensorType):
            return self._tensor(n)
        if isinstance(n, TupleType):
            return _tuple(row(n.fields))
        if isinstance(n, FuncType):
            free = f"<{', '.join(map(self.type_name, n.type_params))}>" if n.type_params else ""
            return f"fn {free}({', '.join(row(n.params))}) -> {text[id(n.ret)]}"
        if isinstance(n, RefType):
            return f"ref({text[id(n.value)]})"
        if isinstance(n, TypeCall):
            return f"{text[id(n.func)]}[{', '.join(row(n.args))}]"
        if isinstance(n, TypeVar | GlobalTypeVar):
            return self.type_name(n)
        raise TextError(f"type {type(n).__name__} has no text")

    # ----------------------------------------------------------------------------------------- values

    def attr(self, value: Any, where: str) -> str:
        """An attribute value; `where` names it in errors."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int):
            return str(value)
        if isinstance(value, float):
            return float_text(value)
        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        if type(value) is tuple:
            return f"[{', '.join(self.attr(v, where) for v in value)}]"
        if isinstance(value, Attrs):
            return "{" + self.attrs(value, ": ") + "}"
        if isinstance(value, E.IntImm):
            return f"imm({value.value}, {json.dumps(value.type)})"
        if isinstance(value, E.PrimExpr):
            return self.expr(value)
        if isinstance(value, Type):
            return f"type({self.type(value)})"
        raise TextError(f"{where} holds a {type(value).__name__}, which has no text")

    def attrs(self, attrs: Attrs, sep: str = "=") -> str:
        return ", ".join(f"{attr_key(k)}{sep}{self.attr(v, f'attribute {k}')}" for k, v in attrs.items())


def attr_key(key: str) -> str:
    return key if DOTTED.match(key) else json.dumps(key, ensure_ascii=False)


def float_text(value: float) -> str:
    """A float that reads back exactly and is told from an int."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(value)


def _tuple(items: list[str]) -> str:
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def inline_constant(node: Constant) -> str | None:
    """A scalar or small tensor as a literal, or None where it belongs into the metadata section."""
    array = node.numpy()
    dtype = dt.from_numpy(array.dtype)
    if dtype == "string":
        items = [x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else str(x) for x in array.reshape(-1)]
        return f"const({json.dumps(items)}, {_tuple([str(d) for d in array.shape])}, string)"
    if array.ndim == 0 and dtype == "bool":
        return str(bool(array))
    if array.ndim == 0 and dtype in SUFFIX and _finite(array):
        return _number(array[()], dtype) + SUFFIX[dtype]
    if not 0 < array.size <= INLINE_ELEMENTS or array.ndim > 4:
        return None
    return _nested(array, dtype)


def _finite(array: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(array.astype(np.float64))))


def _number(value: Any, dtype: str) -> str:
    if not dt.is_float(dtype):
        return str(int(value))
    text = repr(float(value)) if dtype == "float64" else str(value)
    return text[:-2] if text.endswith(".0") else text


def _nested(array: np.ndarray, dtype: str) -> str | None:
    """const([…], dtype) where the elements read back bit for bit."""
    flat = array.reshape(-1)
    if dt.is_float(dtype):
        words = [_number(x, dtype) if np.isfinite(float(x)) and x != 0 else float_text(float(x)) for x in flat]
        again = np.array([float(x) for x in words]).astype(array.dtype)
        if again.tobytes() != flat.tobytes():
            return None
    else:
        words = [str(bool(x)) if dtype == "bool" else str(int(x)) for x in flat]
    for size in reversed(array.shape):
        words = [f"[{', '.join(words[i : i + size])}]" for i in range(0, len(words), size)]
    return f"const({words[0]}, {dtype})"


def size_words(var: E.Var) -> str:
    """What follows the dtype where a size is declared: it may be negative, is found at run time, is at least 1."""
    told = (" counted" if dims.is_counted(var) else "") + (" positive" if dims.is_positive(var) else "")
    return ("" if var.nonneg else " any") + told
