"""Graphs of te schedules as DOT text, under the classic names.

    tedd.viz_dataflow_graph(s, dot_file_path="dataflow.dot")       # which stage reads which
    tedd.viz_schedule_tree(s, dot_file_path="tree.dot")            # loops of each stage, and where stages are computed
    tedd.viz_itervar_relationship_graph(s, dot_file_path="axes.dot")  # how axes come from one another

The text is the same for the same schedule; identifiers are numbers of stages and axes. An SVG is made where the program
`dot` of Graphviz is installed.
"""

from __future__ import annotations

import html
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warpbeam.te.schedule import Schedule
from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.errors import require
from warpbeam.te.schedule.roots import outputs_of
from warpbeam.te.schedule.stage import INLINE, SCAN_UPDATE, SCOPE, Stage
from warpbeam.tir.expr import const_int

__all__ = ["viz_dataflow_graph", "viz_itervar_relationship_graph", "viz_schedule_tree"]

_FILLS = {
    "DataPar": "#ffffff", "ThreadIndex": "#c6dbef", "CommReduce": "#fdd0a2", "Ordered": "#d9d9d9",
    "Opaque": "#d9d9d9", "Unrolled": "#dadaeb", "Vectorized": "#c7e9c0", "Parallelized": "#fcbba1",
    "Tensorized": "#9ecae1",
}  # fmt: skip


class Svg(str):
    """An SVG picture that notebooks show."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def viz_dataflow_graph(
    sch: Schedule, show_svg: bool = False, dot_file_path: str = "", output_dot_string: bool = False
) -> str | None:
    """Stages as nodes, tensors as edges from the stage that computes them to those that read them.

    show_svg: gives the picture, if Graphviz is installed. dot_file_path: where to write the DOT text.
    output_dot_string: gives the DOT text. Raises ScheduleError if `sch` is no te schedule.
    """
    stages = _stages(sch)
    lines = _head("dataflow", "rankdir=TB")
    for k, s in enumerate(stages):
        words = [s.op.name, type(s.op).__name__, f"scope: {s.scope or 'global'}"]
        lines.append(f"  stage_{k} [{_attrs(label=chr(10).join(words), shape='box', peripheries=1 + s.is_output)}];")
    owner = {t: k for k, s in enumerate(stages) for t in outputs_of(s.op)}
    for k, s in enumerate(stages):
        for t in s.op.input_tensors:
            label = f"{t.name} {t.dtype}[{', '.join(map(str, t.shape))}]"
            lines.append(f"  stage_{owner[t]} -> stage_{k} [{_attrs(label=label)}];")
    return _give([*lines, "}"], show_svg, dot_file_path, output_dot_string)


def viz_schedule_tree(
    sch: Schedule, show_svg: bool = False, dot_file_path: str = "", output_dot_string: bool = False
) -> str | None:
    """Every stage with its loops, outer first, and an edge to the loop inside which it is computed.

    Arguments as of `viz_dataflow_graph`.
    """
    stages = _stages(sch)
    names = {**{s: f"stage_{k}" for k, s in enumerate(stages)}, **{g: f"group_{k}" for k, g in enumerate(sch.groups)}}
    lines = [*_head("schedule_tree", "rankdir=BT"), f"  root [{_attrs(label='ROOT', shape='box')}];"]
    for s in [*stages, *sch.groups]:
        dashed = {"style": "dashed"} if s.attach_type == INLINE else {}
        lines.append(f"  {names[s]} [label=<{_table(s, names[s])}>, {_attrs(shape='plain', **dashed)}];")
    for s in [*stages, *sch.groups]:
        to, how = _attached(s, names)
        if to:
            lines.append(f"  {names[s]} -> {to} [{_attrs(label=how)}];")
    return _give([*lines, "}"], show_svg, dot_file_path, output_dot_string)


def viz_itervar_relationship_graph(
    sch: Schedule, show_svg: bool = False, dot_file_path: str = "", output_dot_string: bool = False
) -> str | None:
    """The axes of every stage and the splits and fusions between them. Loops are bold, with their place from outside.

    Arguments as of `viz_dataflow_graph`.
    """
    lines = _head("itervar_relations", "rankdir=TB")
    for k, s in enumerate(_stages(sch)):
        lines += [f"  subgraph cluster_{k} {{", f"    graph [{_attrs(label=s.op.name)}];"]
        sizes = _extents(s)
        names = {a: f"axis_{k}_{n}" for n, a in enumerate(s.all_iter_vars)}
        for a, name in names.items():
            kind = _kind(s, a)
            words = [ax.name_of(a), f"{kind}{_bound(s, a)}", *([f"extent {sizes[a]}"] if sizes.get(a) else [])]
            place = next((n for n, leaf in enumerate(s.leaf_iter_vars) if leaf is a), None)
            if place is not None:
                words.append(f"loop {place}")
            look = {"penwidth": 2} if place is not None else {}
            label = chr(10).join(words)
            lines.append(
                f"    {name} [{_attrs(label=label, shape='box', style='filled', fillcolor=_FILLS[kind], **look)}];"
            )
        lines += _relations(s, names, k)
        lines.append("  }")
    return _give([*lines, "}"], show_svg, dot_file_path, output_dot_string)


# -------------------------------------------------------------------------------------------------------------- pieces


def _stages(sch: Any) -> list[Stage]:
    require(
        isinstance(sch, Schedule), f"tedd shows te schedules, not a {type(sch).__name__}", hint="te.create_schedule(op)"
    )
    return list(sch.stages)


def _head(name: str, graph: str) -> list[str]:
    return [f"digraph {name} {{", f"  graph [{graph}];", '  node [fontname="Courier"];']


def _attrs(**values: Any) -> str:
    return ", ".join(f"{k}={_quoted(str(v))}" for k, v in values.items())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _kind(stage: Stage, axis: Any) -> str:
    """The name of what an axis is, or was made."""
    attr = stage.iter_var_attrs.get(axis)
    return ax.KIND_NAMES[ax.iter_type(axis) if attr is None else attr.iter_type]


def _bound(stage: Stage, axis: Any) -> str:
    attr = stage.iter_var_attrs.get(axis)
    return "" if attr is None or attr.bind_thread is None else f" {ax.thread_tag(attr.bind_thread)}"


def _table(stage: Stage, name: str) -> str:
    """A stage as a table with one port per loop."""
    title = f"group {name.removeprefix('group_')}" if stage.op is None else stage.op.name
    what = "" if stage.op is None else f"{type(stage.op).__name__}, scope {stage.scope or 'global'}"
    where = ", inlined" if stage.attach_type == INLINE else ""
    rows = [f"<tr><td><b>{html.escape(title)}</b></td></tr>"]
    if what:
        rows.append(f"<tr><td>{html.escape(what + where)}</td></tr>")
    sizes = _extents(stage)
    for n, a in enumerate(stage.leaf_iter_vars):
        size = f"({sizes[a]})" if sizes.get(a) else ""
        text = html.escape(f"{ax.name_of(a)}{size} {_kind(stage, a)}{_bound(stage, a)}")
        rows.append(f'<tr><td port="axis_{n}" bgcolor="{_FILLS[_kind(stage, a)]}">{text}</td></tr>')
    return f'<table border="0" cellborder="1" cellspacing="0">{"".join(rows)}</table>'


def _attached(stage: Stage, names: dict[Stage, str]) -> tuple[str, str]:
    """(the node, and perhaps the port, that a stage hangs on; how), or empty where it has no loops of its own."""
    if stage.attach_type in (SCOPE, SCAN_UPDATE) and stage.attach_stage is not None:
        leaves = stage.attach_stage.leaf_iter_vars
        at = next((n for n, leaf in enumerate(leaves) if leaf is stage.attach_ivar), None)
        to = names[stage.attach_stage]
        how = "computed at" if stage.attach_type == SCOPE else "updates"
        return (to, f"{how} {ax.name_of(stage.attach_ivar)}") if at is None else (f"{to}:axis_{at}", how)
    if stage.attach_type == INLINE:
        return "", ""
    return ("root", "") if stage.group is None else (names[stage.group], "member of")


def _extents(stage: Stage) -> dict[Any, str]:
    """Extents as far as the schedule itself says them; a producer inside another stage gets its own by lowering."""
    found: dict[Any, Any] = {a: a.extent for a in stage.all_iter_vars if a.extent is not None}
    for r in stage.relations:
        if isinstance(r, ax.Split):
            given, other = (r.inner, r.outer) if r.nparts is None else (r.outer, r.inner)
            size, whole = const_int(r.factor if r.nparts is None else r.nparts), _number(found.get(r.parent))
            found[given] = size
            found[other] = None if size is None or whole is None else -(-whole // size)
        elif isinstance(r, ax.Fuse):
            a, b = _number(found.get(r.outer)), _number(found.get(r.inner))
            found[r.fused] = None if a is None or b is None else a * b
    return {a: str(e) for a, e in found.items() if e is not None}


def _number(extent: Any) -> int | None:
    return None if extent is None else const_int(extent)


def _relations(stage: Stage, names: dict[Any, str], k: int) -> list[str]:
    lines = []
    for n, r in enumerate(stage.relations):
        before, after = _ends(r)
        label = type(r).__name__.lower()
        if isinstance(r, ax.Split):
            label += f" factor={r.factor}" if r.nparts is None else f" nparts={r.nparts}"
        lines.append(f"    relation_{k}_{n} [{_attrs(label=label, shape='ellipse')}];")
        lines += [f"    {names[a]} -> relation_{k}_{n};" for a in before]
        lines += [f"    relation_{k}_{n} -> {names[a]};" for a in after]
    return lines


def _ends(r: ax.Relation) -> tuple[Sequence[Any], Sequence[Any]]:
    """(axes that a relation takes, axes that it makes)."""
    if isinstance(r, ax.Split):
        return [r.parent], [r.outer, r.inner]
    if isinstance(r, ax.Fuse):
        return [r.outer, r.inner], [r.fused]
    return ([], [r.iter]) if isinstance(r, ax.Singleton) else (r.original, r.new)


def _give(lines: list[str], show_svg: bool, path: str, as_text: bool) -> str | None:
    text = "\n".join(lines) + "\n"
    if path:
        Path(path).write_text(text, encoding="utf-8")
    if show_svg:
        program = shutil.which("dot")
        if program is not None:
            done = subprocess.run([program, "-Tsvg"], input=text, capture_output=True, text=True, check=True)
            return Svg(done.stdout)
        warnings.warn(
            "no SVG is made: the program dot of Graphviz is not installed; write dot_file_path and show it elsewhere",
            stacklevel=3,
        )
    return text if as_text else None
