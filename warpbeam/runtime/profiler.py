"""Where the time goes: a model run kernel by kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from .call import adopt_input
from .context import Slot
from .errors import RunError
from .executor import Machine, execute
from .hosted import Hosted
from .manifest import KernelInfo, Manifest
from .objects import Layout
from .program import CallKernel
from .shape_expr import ShapeExpr, evaluate

if TYPE_CHECKING:
    from .module import Module


@dataclass(frozen=True, slots=True)
class Roof:
    """What a machine can do at best: `flops` a second, and for growing working sets in bytes, bytes a second."""

    flops: float
    levels: tuple[tuple[float, float], ...]

    def share(self, flops: float, size: float, seconds: float) -> float:
        """The least time that so much work on so many bytes can take, as a share of the time taken."""
        rate = next((r for limit, r in self.levels if size <= limit), self.levels[-1][1])
        return max(flops / self.flops, size / rate) / max(seconds, 1e-12)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel's share. Times are per run of the model, in µs; `calls` per run; `origins`: source nodes.

    `roof`: how near the machine's limit for such work it is (1.0 is the limit); None where that was not measured.
    """

    name: str
    calls: int
    median_us: float
    share: float
    gflops: float
    gbytes: float
    roof: float | None
    origins: tuple[str, ...]

    def numbers(self) -> tuple[str, ...]:
        """µs, % of the run, GFLOP/s, GB/s and % of the roof as text; "-" for what is not known."""
        return (
            f"{self.median_us:.2f}",
            f"{100 * self.share:.1f}",
            f"{self.gflops:.1f}" if self.gflops else "-",
            f"{self.gbytes:.1f}" if self.gbytes else "-",
            "-" if not self.roof else f"{100 * self.roof:.0f}",
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """Kernels of a model, the most expensive first. `total_us`: sum of the kernels' medians."""

    model: str
    total_us: float
    kernels: tuple[KernelTime, ...]

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("kernel", "calls", "µs", "%", "GFLOP/s", "GB/s", "% of roof", "computes")]
        for k in self.kernels:
            rows.append((k.name, str(k.calls), *k.numbers(), ", ".join(k.origins)))
        rows.append(("total", "", f"{self.total_us:.2f}", "", "", "", "", ""))
        widths = [max(len(row[c]) for row in rows) for c in range(8)]
        lines = []
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(row[c].rjust(widths[c]) for c in range(1, 7)), row[7]]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def profile_module(module: Module, inputs: Mapping[str, Any], repeat: int, roof: Roof | None = None) -> Profile:
    """Steps through the module's Program `repeat` times and reports each kernel's median time.

    Raises:
        RunError: if the artefact holds no Program, or does not export a kernel.
    """
    program = module.artifact.program()
    if program is None:
        raise RunError("the artefact holds no Program", f"model {module.name}", hint="compile it with its Program")
    manifest = module.artifact.manifest
    infos = {k.name: k for k in manifest.kernels}
    lacking = [n for n, k in infos.items() if k.symbol not in module.library]
    if lacking:
        raise RunError(f"kernels are not exported: {', '.join(lacking)}", f"model {module.name}")
    hosted = Hosted.of(manifest) or Hosted(Layout(), [])
    runs: list[dict[str, _Tally]] = []

    def observe(i: CallKernel, seconds: float, env: Mapping[str, int]) -> None:
        info = infos.get(i.kernel, KernelInfo(i.kernel, i.kernel))
        runs[-1].setdefault(i.kernel, _Tally()).add(seconds, _number(info.flops, env), _number(info.bytes, env))

    symbols = {name: info.symbol for name, info in infos.items()}
    machine = Machine(
        module.library, module.host_context(), module.constants_view(), module.params_view(), symbols,
        hosted.externals, observe,
    )  # fmt: skip
    for _ in range(max(repeat, 1) + 1):
        runs.append({})
        with hosted.entered(inputs) as (flat, _):
            execute(program, machine, [adopt_input(Slot(spec), flat[spec.name]) for spec in manifest.inputs])
    return _summary(module.name, runs[1:], infos, roof if roof is None else _in_pairs(roof, manifest))


def _in_pairs(roof: Roof, manifest: Manifest) -> Roof:
    """The limit of a model whose products take pairs of bfloat16: one instruction does twice as many."""
    pairs = manifest.precision.startswith("bf16") and "avx512bf16" in manifest.cpu_features
    return replace(roof, flops=2 * roof.flops) if pairs else roof


@dataclass(slots=True)
class _Tally:
    seconds: float = 0.0
    flops: int = 0
    bytes: int = 0
    calls: int = 0

    def add(self, seconds: float, flops: int, size: int) -> None:
        self.seconds += seconds
        self.flops += flops
        self.bytes += size
        self.calls += 1


def _number(expr: ShapeExpr, env: Mapping[str, int]) -> int:
    """The value; 0 where it depends on a size that this part of the program does not know (one found in a loop)."""
    try:
        return evaluate(expr, env)
    except RunError:
        return 0


def _summary(model: str, runs: list[dict[str, _Tally]], infos: Mapping[str, KernelInfo], roof: Roof | None) -> Profile:
    names = list(dict.fromkeys(name for run in runs for name in run))
    medians = {name: sorted(run[name].seconds for run in runs if name in run) for name in names}
    seconds = {name: times[len(times) // 2] for name, times in medians.items()}
    total = sum(seconds.values())
    rows = []
    for name in sorted(names, key=lambda n: (-seconds[n], n)):
        tally = next(run[name] for run in reversed(runs) if name in run)
        spent = max(seconds[name], 1e-12)
        origins = infos[name].origins if name in infos else ()
        rows.append(
            KernelTime(
                name, tally.calls, seconds[name] * 1e6, seconds[name] / max(total, 1e-12), tally.flops / spent / 1e9,
                tally.bytes / spent / 1e9,
                None if roof is None else roof.share(tally.flops, tally.bytes, spent), origins,
            )
        )  # fmt: skip
    return Profile(model, total * 1e6, tuple(rows))
