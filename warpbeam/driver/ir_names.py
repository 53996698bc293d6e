"""Classic names of `warpbeam.ir`: modules and programs as JSON, comparing them, users' intrinsics.

The JSON holds the program's text, which is what a program is outside of a process.
"""

from __future__ import annotations

import json
from typing import Any

from warpbeam import op
from warpbeam.driver.intrin_rules import register_intrin_lowering, register_op_attr
from warpbeam.ir import structural, transform
from warpbeam.ir.diagnostics import IRError, TextError
from warpbeam.relay import module_text
from warpbeam.relay import structural as relay_structural
from warpbeam.relay import text as relay_text
from warpbeam.relay.expr import Expr, Function, GlobalVar, IRModule
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.target import Target
from warpbeam.tir import intrin
from warpbeam.tir import text as tir_text
from warpbeam.tir.expr import FloatImm, IntImm, PrimExpr
from warpbeam.tir.stmt import PrimFunc, Range

__all__ = [
    "Expr", "FloatImm", "Function", "GlobalVar", "IRModule", "IntImm", "Op", "PrimExpr", "PrimFunc", "Range", "Target",
    "TensorType", "TupleType", "Type", "assert_structural_equal", "load_json", "register_intrin_lowering",
    "register_op_attr", "save_json", "structural_equal", "structural_hash", "transform",
]  # fmt: skip


class Op:
    """The classic registry of operators: `ir.Op.get("tir.exp")`, which `call.op.same_as` compares with."""

    @staticmethod
    def get(op_name: str) -> Any:
        """An intrinsic's name ("tir.…") or a Relay operator."""
        return intrin.op_name(op_name.removeprefix("tir.")) if op_name.startswith("tir.") else op.get(op_name)


def save_json(node: Any) -> str:
    """A module, Relay function or expression, loop program or target as JSON; also plain values.

    Raises:
        IRError: for what has no text of its own.
    """
    if isinstance(node, IRModule):
        loops = all(isinstance(f, PrimFunc) for f in node.functions.values()) and node.functions
        if not loops and any(isinstance(f, PrimFunc) for f in node.functions.values()):
            raise IRError("a module of Relay functions and loop programs has no JSON", hint="save the parts")
        kind, text = ("loops" if loops else "module"), node.script()
    elif isinstance(node, PrimFunc):
        kind, text = "prim_func", tir_text.to_text(node)
    elif isinstance(node, Expr):
        kind, text = "relay", relay_text.to_text(node)
    elif isinstance(node, Target):
        kind, text = "target", node.to_text()
    elif isinstance(node, str | int | float | bool | list | dict) or node is None:
        return json.dumps({"warpbeam": 1, "kind": "value", "value": node})
    else:
        raise IRError(f"a {type(node).__name__} has no JSON", hint="save the module or function that it is part of")
    return json.dumps({"warpbeam": 1, "kind": kind, "text": text})


def load_json(json_str: str) -> Any:
    """What `save_json` wrote.

    Raises:
        TextError: if it is not that, or its text does not parse.
    """
    try:
        data = json.loads(json_str)
        kind = data["kind"]
    except (ValueError, TypeError, KeyError) as error:
        raise TextError("this is no JSON that save_json wrote", why=str(error)) from error
    if kind == "value":
        return data["value"]
    readers = {
        "loops": module_text.parse_loops, "module": lambda t: relay_text.parse(t, op.get),
        "prim_func": tir_text.parse, "relay": lambda t: relay_text.parse_expr(t, op.get), "target": Target.from_text,
    }  # fmt: skip
    if kind not in readers:
        raise TextError(f"unknown kind {kind!r} of program", hint=f"kinds: {', '.join(readers)}")
    return readers[kind](data["text"])


def structural_hash(node: Any, map_free_vars: bool = False) -> str:
    """A digest that is equal for programs that are the same up to names of variables."""
    if isinstance(node, IRModule) and _loops(node):
        return structural.structural_hash(tuple(f for _, f in sorted((g.name, f) for g, f in node.functions.items())))
    if isinstance(node, IRModule | Expr):
        return relay_structural.structural_hash(node)
    return structural.structural_hash(node)


def structural_equal(lhs: Any, rhs: Any, map_free_vars: bool = False) -> bool:
    """Whether two programs are the same up to names of variables."""
    if type(lhs) is not type(rhs):
        return False
    if isinstance(lhs, IRModule) and (_loops(lhs) or _loops(rhs)):
        names = [sorted(g.name for g in m.functions) for m in (lhs, rhs)]
        return names[0] == names[1] and structural_hash(lhs) == structural_hash(rhs)
    if isinstance(lhs, IRModule | Expr):
        return relay_structural.structural_equal(lhs, rhs)
    return structural.structural_equal(lhs, rhs)


def _loops(mod: IRModule) -> bool:
    return any(isinstance(f, PrimFunc) for f in mod.functions.values())


def assert_structural_equal(lhs: Any, rhs: Any, map_free_vars: bool = False) -> None:
    """Fails with both texts where two programs differ by more than names.

    Raises:
        ValueError: as the classic function does.
    """
    if not structural_equal(lhs, rhs, map_free_vars):
        raise NotEqual("the programs differ", why=f"\n{lhs}\n-- and --\n{rhs}")


class NotEqual(IRError, ValueError):
    """Two programs that should be the same are not.

    Wrong:
        tvm.ir.assert_structural_equal(func, tir.Schedule(func).func.with_attr("noalias", False))
    Right:
        tvm.ir.assert_structural_equal(func, tir.Schedule(func).func)
    """
