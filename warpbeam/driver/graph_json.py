"""The classic JSON of a compiled graph, written from its Program, for tools that read it."""

from __future__ import annotations

import json
from typing import Any

from warpbeam.runtime.module import Module
from warpbeam.runtime.program import Branch, CallKernel, Loop, Program, Value
from warpbeam.runtime.shape_expr import show

Ref = tuple[int, int, int]


def graph_json(module: Module) -> str:
    """Nodes ("null" for inputs and constants, "tvm_op" for kernels), heads, and per output shape, type and storage.

    A model with branches or loops is no graph of calls and gives "{}".
    """
    program = module.artifact.program()
    if program is None or any(isinstance(i, Branch | Loop) for i in program.body):
        return "{}"
    return json.dumps(_graph(program), indent=2)


def _graph(program: Program) -> dict[str, Any]:
    writer = _Writer(program)
    for port in program.inputs:
        writer.leaf(port.value, port.name)
    for step in program.body:
        if isinstance(step, CallKernel):
            writer.kernel(step)
    heads = [list(writer.ref(port.value)) for port in program.outputs]
    leaves = [i for i, node in enumerate(writer.nodes) if node["op"] == "null"]
    shown = [writer.values[v] for v in writer.order]
    attrs = {
        "dltype": ["list_str", [v.dtype for v in shown]],
        "shape": ["list_shape", [[e if isinstance(e, int) else show(e) for e in v.shape] for v in shown]],
        "storage_id": ["list_int", writer.storage()],
    }
    rows = [0]
    for node in writer.nodes:
        rows.append(rows[-1] + int(node.get("attrs", {}).get("num_outputs", 1)))
    return {"nodes": writer.nodes, "arg_nodes": leaves, "heads": heads, "attrs": attrs, "node_row_ptr": rows}


class _Writer:
    """Nodes in order, and where each value comes from."""

    def __init__(self, program: Program) -> None:
        self.values: dict[int, Value] = {v.id: v for v in program.values}
        self.nodes: list[dict[str, Any]] = []
        self.order: list[int] = []
        self.made: dict[int, Ref] = {}

    def root(self, value: int) -> int:
        """The value whose storage this one is a view of."""
        while value not in self.made and self.values[value].storage[0] == "view":
            value = int(self.values[value].storage[1])  # type: ignore[arg-type]
        return value

    def leaf(self, value: int, name: str) -> None:
        """An input or constant."""
        self.made[value] = (len(self.nodes), 0, 0)
        self.nodes.append({"op": "null", "name": name, "inputs": []})
        self.order.append(value)

    def ref(self, value: int) -> Ref:
        """[node, output, version] of a value; constants appear when they are first used."""
        value = self.root(value)
        if value not in self.made:
            self.leaf(value, f"p{value}")
        return self.made[value]

    def kernel(self, step: CallKernel) -> None:
        """One kernel call."""
        written = set(step.writes)
        inputs = [list(self.ref(a)) for a in step.args if a not in written]
        results = list(step.writes)
        for i, value in enumerate(results):
            self.made[value] = (len(self.nodes), i, 0)
            self.order.append(value)
        name = next((o for v in results for o in self.values[v].origins), step.kernel)
        attrs = {"func_name": step.kernel, "num_inputs": str(len(inputs)), "num_outputs": str(len(results))}
        self.nodes.append({"op": "tvm_op", "name": name, "inputs": inputs, "attrs": attrs | {"flatten_data": "0"}})

    def storage(self) -> list[int]:
        """A number per storage; equal places have equal numbers."""
        numbers: dict[Any, int] = {}
        return [numbers.setdefault(repr(self.values[v].storage), len(numbers)) for v in self.order]
