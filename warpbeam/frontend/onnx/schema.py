"""The format's own statements about operators: checks of nodes, and bodies of operators defined as functions."""

from __future__ import annotations

from functools import cache
from typing import Any

from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.frontend.onnx.tensors import DTYPES
from warpbeam.ir.diagnostics import ImportModelError

_CODES = {name: code for code, name in DTYPES.items()}


class Rules:
    """What a schema says about nodes: counts, attributes, and the dtypes each operand may have (None: any)."""

    __slots__ = (
        "attributes",
        "constraints",
        "deprecated",
        "inputs",
        "outputs",
        "required",
        "schema",
        "types",
        "variadic",
    )

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.inputs = (schema.min_input, schema.max_input)
        self.outputs = (schema.min_output, schema.max_output)
        self.attributes = frozenset(schema.attributes)
        self.required = frozenset(n for n, a in schema.attributes.items() if a.required)
        self.deprecated = schema.deprecated
        allowed = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
        self.types = [(p.type_str, allowed.get(p.type_str, frozenset([p.type_str]))) for p in schema.inputs]
        last = schema.inputs[-1] if schema.inputs else None
        self.variadic = last is not None and last.option.name == "Variadic"
        self.constraints = not (last is not None and self.variadic and not last.is_homogeneous)


@cache
def rules(op_type: str, version: int, domain: str) -> Rules | None:
    """The schema of an operator as of a version of its set; None where the format has none."""
    import onnx

    try:
        return Rules(onnx.defs.get_schema(op_type, version, domain))
    except onnx.defs.SchemaError:
        return None


def check(view: NodeView, found: Rules) -> None:
    """Refuses a node that breaks its schema."""
    if found.deprecated:
        raise view.error(f"was taken out of the format in or before operator set {view.opset}")
    for what, names, (low, high) in (("inputs", view.inputs, found.inputs), ("outputs", view.outputs, found.outputs)):
        count = len(names)
        while count and not names[count - 1]:
            count -= 1
        if not low <= count <= high:
            raise view.error(f"has {count} {what}, it takes {low}" + (f" to {high}" if high != low else ""))
    unknown = sorted(set(view.attributes) - found.attributes)
    absent = sorted(found.required - set(view.attributes))
    if unknown or absent:
        parts = [f"attribute {k[:40]!r} is unknown" for k in unknown] + [f"attribute {k!r} is missing" for k in absent]
        raise view.error(", ".join(parts))
    _check_types(view, found)


def _check_types(view: NodeView, found: Rules) -> None:
    bound: dict[str, str] = {}
    for i, entry in enumerate(view.entries):
        if entry is None or not found.types:
            continue
        if i >= len(found.types) and not found.variadic:
            continue
        name, allowed = found.types[min(i, len(found.types) - 1)]
        text = entry.kind
        if allowed and text not in allowed:
            raise view.error(
                f"input {i} is {_said(entry)}, which this operator does not take in operator set {view.opset}"
            )
        if i >= len(found.types) - 1 and found.variadic and not found.constraints:
            continue
        if bound.setdefault(name, text) != text:
            raise view.error(f"input {i} is {_said(entry)}, another of the same type parameter is {bound[name]}")


def _said(entry: Entry) -> str:
    """An operand's type in words."""
    return entry.kind if entry.type is None or entry.string else entry.type.dtype


def string_outputs(view: NodeView, found: Rules) -> list[bool]:
    """Which outputs hold strings, as the operator's type parameters say."""
    bound = {found.types[min(i, len(found.types) - 1)][0]: e.kind for i, e in enumerate(view.entries) if e is not None}
    outs = found.schema.outputs
    kinds = [outs[min(k, len(outs) - 1)].type_str for k in range(len(view.outputs))]
    return [bound.get(kind, kind) == "tensor(string)" for kind in kinds]


def missing(domain: str, op_type: str) -> str:
    """How an operator without implementation is named."""
    return f"operator {domain + '.' if domain else ''}{op_type[:60]}"


def has_body(view: NodeView, domain: str) -> bool:
    """Whether the operator is defined in terms of others, at least for some operands."""
    found = rules(view.op_type, view.opset, domain)
    if found is None:
        return False
    schema = found.schema
    return bool(schema.function_opset_versions or schema.context_dependent_function_opset_versions)


def function_body(view: NodeView, found: Rules) -> Any:
    """The FunctionProto that defines the operator in terms of others, or None."""
    import onnx

    schema = found.schema
    versions = [v for v in schema.function_opset_versions if v <= view.opset]
    if versions:
        return _parse(onnx, schema.get_function_with_opset_version(max(versions)))
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= view.opset]
    if not versions:
        return None
    try:
        types = [_type_bytes(onnx, e) for e in view.entries]
        data = schema.get_context_dependent_function_with_opset_version(
            max(versions), view.proto.SerializeToString(), types
        )
    except Exception as e:
        raise ImportModelError(f"{view.op_type}: its definition cannot be expanded", why=str(e)[:200]) from None
    return _parse(onnx, data) if data else None


def _parse(onnx: Any, data: bytes) -> Any:
    proto = onnx.FunctionProto()
    proto.ParseFromString(data)
    return proto if proto.node else None


def _type_bytes(onnx: Any, entry: Entry | None) -> bytes:
    proto = onnx.TypeProto()
    if entry is not None and entry.string:
        proto.tensor_type.elem_type = 8
        return proto.SerializeToString()  # type: ignore[no-any-return]
    if entry is not None and entry.type is not None:
        t = entry.type
        proto.tensor_type.elem_type = _CODES[t.dtype]
        proto.tensor_type.shape.SetInParent()
        for d in t.shape:
            one = proto.tensor_type.shape.dim.add()
            if isinstance(d, int):
                one.dim_value = d
    return proto.SerializeToString()  # type: ignore[no-any-return]
