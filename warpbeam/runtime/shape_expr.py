"""Shape expressions: the integers of a Program that may depend on the shapes of its inputs.

A shape expression is an int, the name of a symbol, or a tuple `(operator, operand, ...)`. It is plain data, so that it
can be stored as JSON. Booleans are 0 and 1. Division is floor division, as everywhere in Warpbeam.

    ("add", "n", 1)                 n + 1
    ("ceildiv", ("mul", "n", 4), 64)
    ("dim", 0, 1)                   extent of axis 1 of input 0
    ("load", 7, 0)                  element 0 of the integer tensor with value id 7
    ("tag", 7), ("len", 7)          constructor tag and number of fields of the object with value id 7
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .errors import ArtifactError, RunError

ShapeExpr: TypeAlias = int | str | tuple["ShapeExpr", ...]
Special: TypeAlias = Callable[[str, tuple[int, ...]], int]


def _floordiv(a: int, b: int) -> int:
    if b == 0:
        raise RunError("division by zero in a shape expression", hint="check the shapes of the inputs")
    return a // b


def _mod(a: int, b: int) -> int:
    return a - _floordiv(a, b) * b


OPERATORS: dict[str, tuple[int, Callable[..., int]]] = {
    "add": (2, lambda a, b: a + b),
    "sub": (2, lambda a, b: a - b),
    "mul": (2, lambda a, b: a * b),
    "floordiv": (2, _floordiv),
    "mod": (2, _mod),
    "ceildiv": (2, lambda a, b: -_floordiv(-a, b)),
    "min": (2, min),
    "max": (2, max),
    "neg": (1, lambda a: -a),
    "eq": (2, lambda a, b: int(a == b)),
    "ne": (2, lambda a, b: int(a != b)),
    "lt": (2, lambda a, b: int(a < b)),
    "le": (2, lambda a, b: int(a <= b)),
    "gt": (2, lambda a, b: int(a > b)),
    "ge": (2, lambda a, b: int(a >= b)),
    "and": (2, lambda a, b: int(bool(a) and bool(b))),
    "or": (2, lambda a, b: int(bool(a) or bool(b))),
    "not": (1, lambda a: int(not a)),
    "select": (3, lambda c, a, b: a if c else b),
}
#: Leaves whose operands are plain integers, answered by the caller: they look at inputs and run-time values.
SPECIAL: dict[str, int] = {"dim": 2, "load": 2, "tag": 1, "len": 1}
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "eq": "==", "ne": "!=", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "and": "and", "or": "or",
}  # fmt: skip
MAX_NODES = 100_000


def post_order(expr: ShapeExpr) -> list[ShapeExpr]:
    """Sub-expressions of `expr`, operands before their users, each occurrence once; iterative."""
    order: list[ShapeExpr] = []
    stack: list[tuple[ShapeExpr, bool]] = [(expr, False)]
    while stack:
        node, done = stack.pop()
        if done or not isinstance(node, tuple) or node[0] in SPECIAL:
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((operand, False) for operand in reversed(node[1:]))
    return order


def evaluate(expr: ShapeExpr, env: Mapping[str, int], special: Special | None = None) -> int:
    """The value of `expr`.

    Args:
        env: values of the symbols.
        special: called with the operator and its integer operands for `dim`, `load`, `tag` and `len`.

    Raises:
        RunError: if a symbol has no value, or a divisor is zero.
    """
    if isinstance(expr, int):
        return expr
    values: list[int] = []
    for node in post_order(expr):
        if isinstance(node, int):
            values.append(node)
        elif isinstance(node, str):
            if node not in env:
                raise RunError(f"symbol {node!r} has no value", hint=f"symbols known here: {', '.join(env) or 'none'}")
            values.append(env[node])
        else:
            operator = str(node[0])
            if operator in SPECIAL:
                if special is None:
                    raise RunError(f"shape operator {operator!r} cannot be used here", where=show(node))
                values.append(special(operator, tuple(int(x) for x in node[1:])))  # type: ignore[arg-type]
                continue
            count, function = OPERATORS[operator]
            operands = values[len(values) - count :]
            del values[len(values) - count :]
            values.append(function(*operands))
    return values[0]


def symbols_of(expr: ShapeExpr) -> list[str]:
    """Names of the symbols in `expr`, in order of first use."""
    return list(dict.fromkeys(node for node in post_order(expr) if isinstance(node, str)))


def show(expr: ShapeExpr) -> str:
    """`expr` as readable text."""
    texts: list[str] = []
    for node in post_order(expr):
        if not isinstance(node, tuple):
            texts.append(str(node))
            continue
        operator = str(node[0])
        if operator in SPECIAL:
            texts.append(f"{operator}({', '.join(map(str, node[1:]))})")
            continue
        count = len(node) - 1
        operands = texts[len(texts) - count :]
        del texts[len(texts) - count :]
        infix = _INFIX.get(operator)
        joined = f" {infix} ".join(operands) if infix else ", ".join(operands)
        texts.append(f"({joined})" if infix else f"{operator}({joined})")
    text = texts[0]
    return text[1:-1] if text.startswith("(") and isinstance(expr, tuple) and expr[0] in _INFIX else text


def to_json(expr: ShapeExpr) -> Any:
    """`expr` with tuples turned into lists, as JSON has it."""
    return _rebuild(expr, list)


def from_json(data: Any, where: str = "shape expression") -> ShapeExpr:
    """Reads and checks what `to_json` wrote.

    Raises:
        ArtifactError: if `data` is not a shape expression.
    """
    expr = _rebuild(data, tuple)
    check(expr, where)
    return expr  # type: ignore[no-any-return]


def _rebuild(data: Any, make: Callable[[list[Any]], Any]) -> Any:
    """Copies nested lists or tuples with `make` as the container; iterative."""
    done: list[Any] = []
    stack: list[tuple[Any, bool]] = [(data, False)]
    count = 0
    while stack:
        node, ready = stack.pop()
        count += 1
        if count > MAX_NODES:
            raise ArtifactError("a shape expression is too large", why=f"it has more than {MAX_NODES} nodes")
        if not isinstance(node, (list, tuple)):
            done.append(node)
        elif ready:
            items = done[len(done) - len(node) :]
            del done[len(done) - len(node) :]
            done.append(make(items))
        else:
            stack.append((node, True))
            stack.extend((item, False) for item in reversed(node))
    return done[0]


def check(expr: Any, where: str) -> None:
    """Raises ArtifactError if `expr` is not a well-formed shape expression."""
    stack: list[Any] = [expr]
    while stack:
        node = stack.pop()
        if isinstance(node, bool) or not isinstance(node, (int, str, tuple)) or node in ("", ()):
            raise ArtifactError(f"{node!r} is not a shape expression", where, hint="use an int, a symbol or a tuple")
        if not isinstance(node, tuple):
            continue
        operator = node[0] if isinstance(node[0], str) else repr(node[0])
        arity = SPECIAL.get(operator, OPERATORS.get(operator, (-1,))[0])
        if arity != len(node) - 1:
            known = arity >= 0
            what = f"operator {operator!r} with {len(node) - 1} operands" if known else f"unknown operator {operator!r}"
            raise ArtifactError(f"{what} in a shape expression", where, f"it takes {arity}" if known else "")
        if operator in SPECIAL:
            if not all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in node[1:]):
                raise ArtifactError(f"{operator!r} needs non-negative integers, got {node[1:]!r}", where)
        else:
            stack.extend(node[1:])
