"""Tensors that a hand-written statement or a foreign function fills."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from warpbeam.ir.node import EMPTY, Attrs
from warpbeam.te.errors import TEError
from warpbeam.te.operation import ExternOp, Tensor
from warpbeam.te.tag import tag_of
from warpbeam.te.tensor import as_shape
from warpbeam.tir.expr import Buffer, PrimExpr
from warpbeam.tir.stmt import Evaluate, Stmt


def extern(
    shape: Any,
    inputs: Sequence[Tensor],
    fcompute: Callable[[list[Buffer], list[Buffer]], Any],
    name: str = "extern",
    dtype: Any = None,
    in_buffers: Any = None,
    out_buffers: Any = None,
    tag: str = "",
    attrs: dict[str, Any] | None = None,
) -> Any:
    """Tensors of `shape` (a shape, or a list of shapes) that fcompute(ins, outs) fills.

    fcompute gets a Buffer per input and output and returns a statement (tir.ir_builder, hybrid) or a call
    (tir.call_packed, tir.call_extern). dtype: one per output, default that of the inputs where they agree.
    in_buffers, out_buffers: the Buffers to use, where plain ones will not do. Returns a tensor, or a list of them.

        C = te.extern((n, m), [A, B], lambda ins, outs: tir.call_packed("matmul", ins[0], ins[1], outs[0]))
    """
    if isinstance(inputs, Tensor) or not isinstance(inputs, Iterable):
        raise TEError(f"the inputs of extern {name} are a {type(inputs).__name__}", hint="give a list of te tensors")
    if not callable(fcompute):
        raise TEError(f"fcompute of extern {name} is a {type(fcompute).__name__}", hint="give lambda ins, outs: …")
    given = list(inputs)
    for t in given:
        if not isinstance(t, Tensor):
            raise TEError(f"extern {name} is given {t!r} among its inputs", hint="inputs are te tensors")
    ins = _listed(in_buffers) or [Buffer(t.op.name, t.shape, t.dtype) for t in given]
    if len(ins) != len(given):
        raise TEError(f"extern {name} has {len(given)} inputs and {len(ins)} in_buffers")
    outs = _listed(out_buffers) or _outputs(shape, dtype, given, name)
    body = fcompute(list(ins), list(outs))
    if isinstance(body, PrimExpr):
        body = Evaluate(body)
    if not isinstance(body, Stmt):
        raise TEError(
            f"fcompute of extern {name} returned {type(body).__name__}",
            hint="return a statement (ir_builder's get()) or a call expression",
        )
    tag = tag_of(tag)
    notes = Attrs({**(attrs or {}), **({"tag": tag} if tag else {})}) if (attrs or tag) else EMPTY
    op = ExternOp(name, tuple(given), tuple(ins), tuple(outs), body, notes)
    found = [op.output(k) for k in range(len(outs))]
    return found[0] if len(found) == 1 else found


def _listed(buffers: Any) -> list[Buffer]:
    if buffers is None:
        return []
    return [buffers] if isinstance(buffers, Buffer) else list(buffers)


def _outputs(shape: Any, dtype: Any, inputs: list[Tensor], name: str) -> list[Buffer]:
    shapes = list(shape) if isinstance(shape, list | tuple) else [shape]
    if not shapes or not isinstance(shapes[0], list | tuple):
        shapes = [shapes]
    if dtype is None:
        kinds = sorted({t.dtype for t in inputs})
        if len(kinds) != 1:
            raise TEError(f"extern {name} needs a dtype", why=f"its inputs are {kinds}", hint="dtype=...")
        dtypes = kinds * len(shapes)
    else:
        dtypes = [dtype] * len(shapes) if isinstance(dtype, str) else list(dtype)
    if len(dtypes) != len(shapes):
        raise TEError(f"extern {name} has {len(shapes)} outputs and {len(dtypes)} dtypes")
    names = [name] if len(shapes) == 1 else [f"{name}.v{k}" if k else name for k in range(len(shapes))]
    return [Buffer(n, as_shape(s), str(d)) for n, s, d in zip(names, shapes, dtypes, strict=True)]
