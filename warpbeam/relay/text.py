"""Relay as text and back, exactly.

    #[version = "1.0"]

    def @main(%x: Tensor[(?n, 3), float32], %w: Tensor[(4, 3), float32]) -> Tensor[(?n, 4), float32] {
      %0 = nn.dense(%x, %w);
      nn.relu(%0)
    }

`%x` is a variable, `%0` names a node of the graph, `@f` a function, `?n` a symbolic size. Scalars carry a suffix (`1f`,
`2i64`); larger constants stand in a metadata section, or outside by digest. Attributes at their defaults are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Constant, Expr, Function, IRModule, Var, free_vars
from warpbeam.relay.op import Op
from warpbeam.relay.text_lex import Source
from warpbeam.relay.text_names import Names, inline_constant
from warpbeam.relay.text_parse import Parser
from warpbeam.relay.text_parse_expr import Scope
from warpbeam.relay.text_print import Printer, constant_digest, run_jobs
from warpbeam.relay.types import Type

__all__ = ["Lookup", "external_constants", "parse", "parse_expr", "parse_type", "print_type", "to_text"]

Lookup = Mapping[str, Op] | Callable[[str], Op | None]


def to_text(
    program: IRModule | Expr, constants: str = "inline", show_types: bool = False, show_origins: bool = False
) -> str:
    """The text of a module or expression.

    constants: "inline" (base64), "digest" (kept outside, see `external_constants`), or "elide" (for reading only).
    """
    printer = Printer(constants, show_types, show_origins)
    if isinstance(program, IRModule):
        return printer.module(program)
    return printer.expression(program, [] if isinstance(program, Var) else free_vars(program))


def print_type(t: Type) -> str:
    """The text of a type."""
    return Names().type(t)


def external_constants(program: IRModule | Expr) -> dict[str, np.ndarray]:
    """Arrays that a text with constants="digest" refers to, by digest."""
    roots = list(program.functions.values()) if isinstance(program, IRModule) else [program]
    found = (n for n in post_order(*roots) if isinstance(n, Constant))
    return {constant_digest(c): c.numpy() for c in found if inline_constant(c) is None}


def _lookup(ops: Lookup) -> Callable[[str], Op | None]:
    if isinstance(ops, Mapping):
        table = ops

        def find(name: str) -> Op | None:
            return table.get(name)

        find.names = lambda: list(table)  # type: ignore[attr-defined]
        return find
    return ops


def parse(
    text: str,
    ops: Lookup,
    constants: Mapping[str, np.ndarray] | None = None,
    source: str = "text",
    spans: bool = False,
) -> IRModule:
    """The module a text describes.

    Args:
        ops: operators by name. constants: arrays by digest, for texts printed with constants="digest".
        source: name of the text in errors; with `spans`, every call's origin becomes `source:line:column`.
    Raises: TextError with line and caret.
    """
    return Parser(Source(text, source), _lookup(ops), constants, None, spans).module()


def parse_expr(
    text: str,
    ops: Lookup,
    module: IRModule | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    variables: Mapping[str, Var] | None = None,
    source: str = "text",
) -> Any:
    """The expression (or function) a text describes; `variables` gives free variables by name, as `free_var` does."""
    parser = Parser(Source(text, source), _lookup(ops), constants, module or IRModule())
    scope = Scope()
    scope.names.update(variables or {})
    for i, t in enumerate(parser.tokens):
        if t.text == "meta" and parser.tokens[i + 2].kind == "number":
            parser.at = i + 1
            parser.meta_entry()
    parser.at = 0
    while parser.token.kind == "mark":
        parser.at += 1
    if parser.take("dims"):
        parser.dims_line()
    while parser.take("free_var"):
        parser.declared(scope)
        parser.expect(";")
    result = run_jobs(parser.block(scope, ""))
    if parser.token.kind not in ("end", "mark"):
        parser.fail(f"unexpected {parser.token.text!r} after the expression")
    return result


def parse_type(text: str, source: str = "text") -> Type:
    """The type a text describes."""
    parser = Parser(Source(text, source), lambda name: None)
    found = parser.type()
    parser.kind("end", "the end")
    return found


def function_of(expr: Any) -> Function:
    """`expr` as a function over its free variables."""
    return expr if isinstance(expr, Function) else Function(tuple(free_vars(expr)), expr)
