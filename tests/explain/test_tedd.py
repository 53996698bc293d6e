"""Graphs of schedules: their DOT text is read back and compared node by node, edge by edge."""

from __future__ import annotations

import html
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import explain_programs as programs
import pytest

from warpbeam import te
from warpbeam.contrib import tedd
from warpbeam.ir.diagnostics import ScheduleError

_EDGE = re.compile(r"^\s*(\w+)(?::(\w+))? -> (\w+)(?::(\w+))?(?: \[(.*)\])?;$")
_NODE = re.compile(r"^\s*(\w+) \[(.*)\];$")


@dataclass
class Graph:
    """nodes: id -> words of its label. edges: (from, to with port, label)."""

    nodes: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)

    def name(self, id: str) -> str:
        return self.nodes[id.partition(":")[0]].split()[0]

    def named(self) -> set[tuple[str, str]]:
        """Edges between the first words of the labels."""
        return {(self.name(a), self.name(b)) for a, b, _ in self.edges}


def label_of(attrs: str | None) -> str:
    if attrs is None:
        return ""
    if attrs.startswith("label=<"):
        table = attrs[len("label=<") : attrs.rindex(">")]
        return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", table).split()))
    found = re.search(r'label="((?:[^"\\]|\\.)*)"', attrs)
    return found[1].replace("\\n", " ").replace('\\"', '"') if found else ""


def parse(text: str | None) -> Graph:
    assert text is not None and text.startswith("digraph ") and text.count("{") == text.count("}")
    graph = Graph()
    for line in text.splitlines():
        edge, node = _EDGE.match(line), _NODE.match(line)
        if edge:
            to = edge[3] + (f":{edge[4]}" if edge[4] else "")
            graph.edges.append((edge[1], to, label_of(edge[5])))
        elif node and node[1] not in ("graph", "node"):
            assert node[1] not in graph.nodes
            graph.nodes[node[1]] = label_of(node[2])
    assert all(a in graph.nodes and b.partition(":")[0] in graph.nodes for a, b, _ in graph.edges)
    return graph


def view(kind: str, s: Any) -> Graph:
    return parse(getattr(tedd, f"viz_{kind}")(s, output_dot_string=True))


def test_dataflow_with_caches() -> None:
    s, (A, _, _C) = programs.tiled_matmul()
    before = view("dataflow_graph", s)
    assert before.named() == {("A", "C.local"), ("B", "C.local"), ("C.local", "C")}
    assert ("stage_2", "stage_3", "C.local float32[64, 64]") in before.edges
    s.cache_read(A, "shared", [s.stages[2].op.output(0)])
    after = view("dataflow_graph", s)
    assert after.named() == {("A", "A.shared"), ("A.shared", "C.local"), ("B", "C.local"), ("C.local", "C")}
    assert "scope: shared" in next(v for v in after.nodes.values() if v.startswith("A.shared"))


def test_schedule_tree_shows_loops_and_attachment() -> None:
    s, _ = programs.tiled_matmul()
    tree = view("schedule_tree", s)
    assert tree.named() == {("A", "ROOT"), ("B", "ROOT"), ("C", "ROOT"), ("C.local", "C")}
    assert ("stage_2", "stage_3:axis_1", "computed at") in tree.edges
    assert tree.nodes["stage_3"] == (
        "C ComputeOp, scope global i.outer(8) Parallelized j.outer(4) DataPar i.inner(8) DataPar j.inner(16) Vectorized"
    )
    assert "k.outer(16) CommReduce i.c(64) DataPar k.inner(4) Unrolled j.c(64) Vectorized" in tree.nodes["stage_2"]


def chain() -> tuple[Any, Any, Any]:
    A = te.placeholder((32, 8), name="A")
    B = te.compute((32, 8), lambda i, j: A[i, j] + 1, name="B")
    C = te.compute((32, 8), lambda i, j: B[i, j] * 2, name="C")
    return te.create_schedule(C.op), B, C


def test_normalize_moves_an_attachment_to_the_loop_that_is_left() -> None:
    s, B, C = chain()
    i = C.op.axis[0]
    s[B].compute_at(s[C], i)
    s[C].split(i, 4)
    before, after = view("schedule_tree", s), view("schedule_tree", s.normalize())
    assert ("stage_1", "stage_2", "computed at i") in before.edges  # the axis is no loop any more
    assert ("stage_1", "stage_2:axis_1", "computed at") in after.edges
    assert before.nodes == after.nodes


def test_axes_and_their_relations() -> None:
    s, _, C = chain()
    fused = s[C].fuse(*C.op.axis)
    outer, inner = s[C].split(fused, nparts=4)
    s[C].bind(outer, te.thread_axis("blockIdx.x"))
    s[C].reorder(inner, outer)
    graph = view("itervar_relationship_graph", s)
    own = {k: v for k, v in graph.nodes.items() if k.split("_")[1] == "2"}
    assert own == {
        "axis_2_0": "i DataPar extent 32", "axis_2_1": "j DataPar extent 8",
        "axis_2_2": "i.j.fused DataPar extent 256",
        "axis_2_3": "i.j.fused.outer DataPar blockIdx.x extent 4 loop 1",
        "axis_2_4": "i.j.fused.inner DataPar extent 64 loop 0",
        "relation_2_0": "fuse", "relation_2_1": "split nparts=4",
    }  # fmt: skip
    assert [e[:2] for e in graph.edges if "_2_" in e[0]] == [
        ("axis_2_0", "relation_2_0"), ("axis_2_1", "relation_2_0"), ("relation_2_0", "axis_2_2"),
        ("axis_2_2", "relation_2_1"), ("relation_2_1", "axis_2_3"), ("relation_2_1", "axis_2_4"),
    ]  # fmt: skip


def test_other_relations() -> None:
    s, B, C = chain()
    s[B].transform_layout(lambda i, j: [j, i])
    s[C].fuse()
    graph = view("itervar_relationship_graph", s)
    words = set(graph.nodes.values())
    assert {"transform", "singleton"} <= words and "singleton DataPar extent 1 loop 0" in words


def test_inlined_and_grouped_stages() -> None:
    s, B, C = chain()
    s[B].compute_inline()
    tree = view("schedule_tree", s)
    assert tree.named() == {("A", "ROOT"), ("C", "ROOT")} and "inlined" in tree.nodes["stage_1"]
    s, B, C = chain()
    group = s.create_group(outputs=B, inputs=B.op.input_tensors, include_inputs=False)
    group.compute_at(s[C], C.op.axis[0])
    tree = view("schedule_tree", s)
    assert ("stage_1", "group_0", "member of") in tree.edges
    assert ("group_0", "stage_2:axis_0", "computed at") in tree.edges


def test_a_scan() -> None:
    s, _ = programs.running_sum()
    tree = view("schedule_tree", s)
    assert any(label == "updates" for _, _, label in tree.edges)
    assert ("update", "R") in view("dataflow_graph", s).named()


@pytest.mark.parametrize("kind", ["dataflow_graph", "schedule_tree", "itervar_relationship_graph"])
def test_text_is_the_same_every_time_and_written(kind: str, tmp_path: Path) -> None:
    draw = getattr(tedd, f"viz_{kind}")
    path = tmp_path / "graph.dot"
    assert draw(programs.tiled_matmul()[0], dot_file_path=str(path)) is None
    assert path.read_text() == draw(programs.tiled_matmul()[0], False, "", True)


def test_no_svg_without_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match="Graphviz is not installed"):
        assert tedd.viz_schedule_tree(chain()[0], show_svg=True) is None


def test_svg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program that stands for Graphviz."""
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho '<svg/>'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = tedd.viz_dataflow_graph(chain()[0], show_svg=True)
    assert isinstance(found, tedd.Svg) and found._repr_svg_() == "<svg/>\n"


def test_only_te_schedules() -> None:
    with pytest.raises(ScheduleError, match="tedd shows te schedules, not a list"):
        tedd.viz_schedule_tree([])  # type: ignore[arg-type]
