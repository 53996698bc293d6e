"""Nodes whose operands or results are no tensors of numbers: who imports them.

Sequences and optionals of known length vanish (`ops_sequence`). Strings are numbers (`runtime.objects`): operators that
move or compare them are imported like any other, those that look into them are host calls (`ops_string`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.frontend.onnx import ops_sequence, ops_sequence_host, ops_string, ops_training, schema, table
from warpbeam.frontend.onnx.inputs import GRADIENT_DOMAIN
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.objects import HandleEntry, is_object
from warpbeam.frontend.onnx.ops_ml import text_results

#: operators that mean the same on the numbers of strings
MOVES = frozenset(
    [
        "Compress", "Concat", "DepthToSpace", "Equal", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
        "Identity", "Pad", "Reshape", "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size",
        "Slice", "SpaceToDepth", "Split", "Squeeze", "TfIdfVectorizer", "Tile", "Transpose", "Unsqueeze", "Where",
    ]
)  # fmt: skip


def special_case(view: NodeView, domain: str, host_sequences: bool = False) -> Callable[..., Any] | None:
    """The function (importer, frame, node) that imports a node, where it is not for a converter of tensors.

    Raises:
        UnsupportedError: where strings or sequences are given to an operator that has no way with them.
    """
    if domain == GRADIENT_DOMAIN and view.op_type == "Gradient":
        return ops_training.gradient
    if domain:
        return None
    open_ended = ops_sequence_host.find(view, host_sequences)
    if open_ended is not None:
        return open_ended
    if view.op_type in ops_sequence.TABLE:
        return ops_sequence.TABLE[view.op_type]
    around = any(is_object(e) for e in view.entries)
    if around and view.op_type == "Loop" and _is_open(view, host_sequences):
        return None
    if around and view.op_type in ops_sequence.ON_OBJECTS:
        return ops_sequence.ON_OBJECTS[view.op_type]
    if around and view.op_type == "Scan":
        raise view.unsupported("a sequence or an optional as an operand")
    found = ops_string.find(view)
    if found is not None:
        return found
    strings = any(e is not None and e.string for e in view.entries)
    if (around or (strings and view.op_type not in MOVES)) and table.find(view.op_type, domain, view.opset) is not None:
        raise view.unsupported("strings as operands" if strings else "a sequence or an optional as an operand")
    return None


def _is_open(view: NodeView, allowed: bool) -> bool:
    """Whether a loop carries sequences whose length cannot be known."""
    handles = any(isinstance(e, HandleEntry) for e in view.entries)
    return handles or (allowed and view.given(0) and view.known(0) is None)


def string_flags(view: NodeView, rules: schema.Rules | None, count: int) -> list[bool]:
    """Which of `count` results hold strings."""
    strings = any(e is not None and e.string for e in view.entries)
    own = text_results(view, strings) if view.domain == "ai.onnx.ml" else None
    if own is not None:
        return [*own, *[False] * count][:count]
    if rules is None or not strings:
        return [False] * count
    found = schema.string_outputs(view, rules)
    return [*found, *[False] * count][:count]
