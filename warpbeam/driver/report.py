"""What one compilation did: stages with times, passes, kernels with their sketch and decisions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the report of a model from the cache does without these
    from warpbeam.runtime.program import Program


_RUNNERS_UP = 2  # decisions that a kernel's sketch would have taken next


@dataclass(slots=True)
class Report:
    """Events of one compilation in order; `text` renders them for a terminal, `data` for JSON.

    others: by kernel, what gives the decisions that its sketch would have taken next (see `sketch.base.Plan`).
    """

    model: str
    target: str
    stages: list[tuple[str, float]] = field(default_factory=list)
    passes: list[tuple[str, float]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)
    host_calls: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    guard: list[dict[str, Any]] = field(default_factory=list)
    precision: dict[str, Any] = field(default_factory=dict)
    cached: bool = False
    others: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages.append((name, time.perf_counter() - start))

    def kernels(self, program: Program, kernels: dict[str, Any]) -> None:
        """One row per kernel call of the program."""
        from warpbeam.runtime.program import CallExternal, CallKernel, walk

        origins = {v.id: v.origins for v in program.values}
        for step in walk(program.body):
            if isinstance(step, CallExternal):
                names = [n for w in step.results for n in origins[w]]
                self.host_calls.append({"function": step.function, "nodes": names})
            if isinstance(step, CallKernel):
                k = kernels[step.kernel]
                names = [n for w in step.writes for n in origins[w]]
                row = {
                    "kernel": step.kernel,
                    "sketch": k.plan.sketch,
                    "decisions": dict(k.plan.decisions),
                    "cycles": k.plan.cycles,
                    "nodes": names,
                }
                if k.plan.others is not None:
                    self.others[step.kernel] = k.plan.others
                self.rows.append({**row, "notes": list(k.plan.notes)})

    def data(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "target": self.target,
            "cached": self.cached,
            "stages": [{"name": n, "seconds": s} for n, s in self.stages],
            "passes": [{"name": n, "seconds": s} for n, s in self.passes],
            "precision": self.precision or {"precision": "fp32"},
            "choices": self.choices,
            "guard": self.guard,
            "memory": self.memory,
            "kernels": self.rows,
            "host_calls": self.host_calls,
        }

    def text(self) -> str:
        from warpbeam.driver import guard_text, plan_report

        lines = [f"{self.model} for {self.target}" + (" (from cache)" if self.cached else "")]
        lines += [f"  {name:<24}{seconds * 1e3:10.1f} ms" for name, seconds in self.stages]
        lines += [f"  {_precision(self.precision)}"] if self.precision else []
        lines += [f"  {_choice(c)}" for c in self.choices]
        lines += [f"  {line}" for line in guard_text.lines(self.guard)]
        lines += [f"  {line}" for line in plan_report.text(self.memory)]
        told: set[str] = set()
        for row in self.rows:
            chosen = ", ".join(f"{k}={v}" for k, v in row["decisions"].items())
            lines.append(f"  {row['kernel']}  {row['sketch']:<12} {chosen:<40} {', '.join(row['nodes'][:3])}")
            why = "" if row["kernel"] in told else self._why(row)
            told.add(row["kernel"])
            lines += [f"      {why}"] if why else []
        lines += [f"  host call {c['function']}  {', '.join(c['nodes'][:3])}" for c in self.host_calls]
        return "\n".join(lines)

    def _why(self, row: dict[str, Any]) -> str:
        """Why a kernel is scheduled as it is, and what the prior expects of the next best decisions."""
        parts = [note for note in row["notes"] if note]
        if row["cycles"] is not None:
            parts.insert(0, f"{row['cycles'] / 1e3:.0f} thousand cycles predicted")
        others = self.others.get(row["kernel"])
        near = [] if others is None else others(_RUNNERS_UP)
        shown = [f"{_differs(d, row['decisions'])} {cycles / 1e3:.0f}" for d, cycles in near]
        return "; ".join([*parts, *([f"next best: {' | '.join(shown)}"] if shown else [])])


def _differs(decisions: dict[str, Any], own: dict[str, Any]) -> str:
    """The decisions that are others than a kernel's own."""
    return ", ".join(f"{k}={v}" for k, v in decisions.items() if own.get(k) != v)


def _precision(told: dict[str, Any]) -> str:
    """What was requested, and what became of it."""
    what = f"{told['products']} products of {told['dtype']} by pairs, {told['weights']} of its weights alone"
    return f"precision {told['precision']}: {what}, {told['rounded']} results kept in {told['dtype']}"


def _choice(choice: dict[str, Any]) -> str:
    """An algorithm with its predicted cycles, and the others with theirs, the next best first; measured errors."""
    cycles = choice["cycles"]
    others = sorted((c, name) for name, c in cycles.items() if name != choice["chosen"])
    rest = "; ".join(f"{name} {c / 1e3:.0f}" for c, name in others)
    own = cycles.get(choice["chosen"])
    told = f" {own / 1e3:.0f}" if own is not None else ""
    told += " thousand cycles predicted" + (f"; {rest}" if rest else "")
    if choice.get("errors"):
        errors = ", ".join(f"{name} {error:.1e}" for name, error in choice["errors"].items())
        told += f"; largest error on normal data, of the largest result: {errors}"
    return f"{choice['node']}: {choice['chosen']}{told}"
