"""One kernel on one page: its loop program, LLVM IR and assembly side by side, corresponding lines lit up together.

The correspondence is what the code generator says: every instruction carries the line of the program that it was made
for (`print_kernel(…, lines=True)`), through LLVM into the assembly's `.loc`. Nothing is matched by names.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from warpbeam.codegen import packed
from warpbeam.codegen.llvm.compile import assembly_text
from warpbeam.codegen.llvm.kernel import print_kernel
from warpbeam.driver import intrin_rules
from warpbeam.driver.te_build import BuildError, entry
from warpbeam.target import Target, parse
from warpbeam.te.schedule import Schedule
from warpbeam.te.schedule.lower import lower
from warpbeam.tir.schedule import Schedule as LoopSchedule
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.text.printer import numbered

Row = tuple[int, str]  # the program's line that a line of text belongs to (0: none), and the text

_MARK = re.compile(r", !dbg !(\d+)$")
_PLACE = re.compile(r"^!(\d+) = !DILocation\(line: (\d+),")
_LOC = re.compile(r"^\s*\.loc\s+\d+ (\d+)")
_INSTRUCTION = re.compile(r"^\s+[a-z]")
_NOISE = re.compile(
    r"^\s*(\.(file|loc|cfi_\w+|section\s+\.debug_\w+|ident|addrsig)\b|\.L(tmp|func_begin|func_end)\d+:)"
)
_ASIDE = re.compile(r"^\s*\.section\s+\.debug_")


def side_by_side(
    func_or_schedule: Schedule | LoopSchedule | PrimFunc,
    args: Sequence[Any] | None = None,
    target: Any = None,
    path: str = "",
) -> str:
    """A self-contained HTML page; hovering over a line lights up what it became, a click scrolls the others to it.

    Args:
        func_or_schedule: a te schedule, a loop schedule or a loop program (it is lowered if it is not yet).
        args: parameters of a te schedule's function; by default its placeholders, then its outputs.
        target: a Target or string that LLVM generates code for; by default the current one, else this machine.
        path: where to write the page as well.

    Raises:
        BuildError: (a ValueError) if the target's code does not come from LLVM, or there is nothing to show.
        WarpbeamError: what scheduling, lowering and code generation raise.
    """
    machine = parse(target if target is not None else Target.current() or "llvm")
    if machine.kind != "llvm" or machine.device != "cpu":
        raise BuildError(f"side_by_side shows LLVM's code, not that of {machine.name}", hint='use target="llvm"')
    func = kernel_of(func_or_schedule, args, machine)
    program, ir, assembly = panes(func, machine)
    page = _page(func, machine, program, ir, assembly)
    if path:
        Path(path).write_text(page, encoding="utf-8")
    return page


def kernel_of(given: Any, args: Sequence[Any] | None, target: Target) -> PrimFunc:
    """The lowered program that is printed as a kernel."""
    if isinstance(given, Schedule):
        given = lower(given, given.default_args() if args is None else list(args))
    if isinstance(given, LoopSchedule):
        given = given.func
    if not isinstance(given, PrimFunc):
        raise BuildError(f"a {type(given).__name__} has no code", hint="give a schedule or a PrimFunc")
    made = packed.kernel(entry(intrin_rules.apply(given, target), target))
    return PrimFunc(given.name, made.params, made.body, made.attrs)


def panes(func: PrimFunc, target: Target) -> tuple[list[Row], list[Row], list[Row]]:
    """Lines of the program, of the IR and of the assembly, each with the line of the program that it belongs to."""
    text, _ = numbered(func)
    marked = print_kernel(func, target, lines=True)
    program = list(enumerate(text.splitlines(), 1))
    return program, ir_rows(marked), assembly_rows(assembly_text(marked, target, name=func.name))


def ir_rows(marked: str) -> list[Row]:
    """IR without its metadata."""
    lines = marked.splitlines()
    places = {m[1]: int(m[2]) for m in map(_PLACE.match, lines) if m}
    rows = []
    for line in lines:
        if line.startswith("!"):
            continue
        found = _MARK.search(line)
        plain = re.sub(r" !dbg !\d+ \{$", " {", _MARK.sub("", line))
        rows.append((places[found[1]] if found else 0, plain))
    return rows


def assembly_rows(text: str) -> list[Row]:
    """Assembly without directives about debugging and frames; the sections of debug information are dropped."""
    rows: list[Row] = []
    line = 0
    for given in text.splitlines():
        if _ASIDE.match(given):
            break
        found = _LOC.match(given)
        if found:
            line = int(found[1])
        elif ".cfi_startproc" in given:
            line = 0
        if _NOISE.match(given) or not given.strip():
            continue
        rows.append((line if _INSTRUCTION.match(given) else 0, given.replace("\t", "    ")))
    return rows


# ---------------------------------------------------------------------------------------------------------------- page


def _page(func: PrimFunc, target: Target, program: list[Row], ir: list[Row], assembly: list[Row]) -> str:
    spans = _spans(func)
    counts = Counter(line for line, _ in assembly if line)
    total = sum(bool(_INSTRUCTION.match(text)) for _, text in assembly)
    first = []
    for n, text in program:
        first.append(f'<i data-l="{n}" data-e="{spans.get(n, n)}"><b>{counts[n] or ""}</b>{html.escape(text)}</i>')
    known = 100 * sum(counts.values()) // max(total, 1)
    facts = f"{target.name}, {total} instructions, {known} % of them with a line of the program"
    return Template(_PAGE).substitute(
        title=html.escape(f"{func.name} on {target.name}"), name=html.escape(func.name), facts=html.escape(facts),
        program="".join(first), ir="".join(map(_shown, ir)), assembly="".join(map(_shown, assembly)),
    )  # fmt: skip


def _shown(row: Row) -> str:
    line, text = row
    place = f' data-l="{line}"' if line else ""
    return f"<i{place}>{html.escape(text) or ' '}</i>"


def _spans(func: PrimFunc) -> dict[int, int]:
    """Line of a statement -> last line of what it holds."""
    places = numbered(func)[1]
    found = {}
    for k, (line, depth, _) in enumerate(places):
        last = line
        for inner, deeper, _ in places[k + 1 :]:
            if deeper <= depth:
                break
            last = inner
        found[line] = last
    return found


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --dim: #8a929c; --edge: #d8dde3;
  --hit: #ffe08a; --near: #fff5d6; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #d5dae0; --dim: #6c7682; --edge: #2c323a;
  --hit: #66510f; --near: #2f2a19; } }
* { box-sizing: border-box; }
body { margin: 0; height: 100vh; display: flex; flex-direction: column; background: var(--back); color: var(--text);
  font: 13px/1.45 system-ui, sans-serif; }
header { padding: .6em 1em; border-bottom: 1px solid var(--edge); }
h1 { font-size: 1.1em; display: inline; margin-right: 1em; }
header span { color: var(--dim); }
main { flex: 1; min-height: 0; display: grid; grid-template-columns: 1fr 1fr 1fr; }
section { display: flex; flex-direction: column; min-width: 0; border-left: 1px solid var(--edge); }
section:first-child { border-left: 0; }
h2 { font-size: .85em; margin: 0; padding: .4em 1em; color: var(--dim); border-bottom: 1px solid var(--edge); }
pre { margin: 0; flex: 1; overflow: auto; font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; padding: .4em 0; }
i { font-style: normal; display: block; padding: 0 1em; width: max-content; min-width: 100%; }
i[data-l] { cursor: pointer; }
i b { display: inline-block; width: 3em; margin-right: 1em; text-align: right; font-weight: 400; color: var(--dim); }
.near { background: var(--near); } .hit { background: var(--hit); }
</style></head><body>
<header><h1>$name</h1><span>$facts. Hover: what a line became; click: go there.</span></header>
<main>
<section><h2>Loop program, with instructions per line</h2><pre>$program</pre></section>
<section><h2>LLVM IR</h2><pre>$ir</pre></section>
<section><h2>Assembly</h2><pre>$assembly</pre></section>
</main>
<script>
"use strict";
const all = [...document.querySelectorAll("[data-l]")];
const byLine = new Map();
for (const e of all) {
  const l = +e.dataset.l;
  if (!byLine.has(l)) byLine.set(l, []);
  byLine.get(l).push(e);
}
let lit = [];
function show(from) {
  for (const e of lit) e.classList.remove("hit", "near");
  lit = [];
  if (!from) return;
  const first = +from.dataset.l, last = +(from.dataset.e || first);
  for (let l = first; l <= last; l++)
    for (const e of byLine.get(l) || []) { e.classList.add(l === first ? "hit" : "near"); lit.push(e); }
}
document.querySelector("main").addEventListener("mouseover", (event) => show(event.target.closest("[data-l]")));
document.querySelector("main").addEventListener("click", (event) => {
  const from = event.target.closest("[data-l]");
  if (!from) return;
  show(from);
  for (const pane of document.querySelectorAll("pre")) {
    const there = lit.find((e) => pane.contains(e) && e.classList.contains("hit")) || lit.find((e) => pane.contains(e));
    if (there && !pane.contains(from)) there.scrollIntoView({ block: "center" });
  }
});
</script></body></html>
"""
