"""What joining operators is worth: kernels, bytes moved and time of whole models, against joining pairs and nothing.

    python -m benchmarks.stitching [--models bert,transformer,dien,crnn,wav2vec2] [--threads 1,2] [--repeat 24]

The variants of a model are compiled once, and several times loaded into one process and run in turn for a moment each,
another one first in each round and in each loading: all see the same machine, and where the system happens to place
their memory (which moves a run by half a percent) is drawn anew. What a variant is compared to is what pairs took in
the same round. All is float32.
"alone": each operator is a kernel. "pairs": the classic FuseOps (config "relay.FuseOps.mode"). "regions": what
`compile` does. Times are medians with the range from the 10th to the 90th of a hundred; ratios are medians over rounds
with the interval that holds the median with 95 % probability, by the order of the rounds' ratios (no distribution is
assumed): variants whose interval holds 1 were not told apart.
A kernel call is memory-bound where it does less than 4 floating-point operations per byte that it moves. Bytes are
those of operands and results, each whole and once per call; weights and tables are read however operators are joined,
so what is moved without them stands beside the total.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .models import MODELS, load_inputs, onnx_path
from .run import names
from .worker import timed_slice

VARIANTS: dict[str, tuple[int, str]] = {"alone": (0, "regions"), "pairs": (3, "pairs"), "regions": (3, "regions")}
INTENSITY = 4.0


@dataclass
class Line:
    """One variant of one model. `bytes`: moved by kernels and copies in a run, `weights`: of these, constants.
    `samples`: seconds of runs, `rounds`: their median in each round.
    """

    model: str
    threads: int
    variant: str
    kernels: int
    memory_bound: int
    copies: int
    bytes: int
    weights: int
    arena: int
    samples: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)


def compiled(path: str, variant: str) -> tuple[Any, Any]:
    """(module, report) of a model with the operators joined as the variant says."""
    from warpbeam.driver.api import compile_with_report
    from warpbeam.ir.transform import PassContext

    level, mode = VARIANTS[variant]
    with PassContext(config={"relay.FuseOps.mode": mode}):
        return compile_with_report(path, opt_level=level, cache=False)


def kernel_calls(module: Any) -> list[Any]:
    """What the manifest says of the kernel of each call in a module's Program, in order."""
    from warpbeam.runtime.program import CallKernel, walk

    work = {k.name: k for k in module.artifact.manifest.kernels}
    return [work[i.kernel] for i in walk(module.artifact.program().body) if isinstance(i, CallKernel)]


def memory_bound(calls: list[Any]) -> list[Any]:
    """Those of the calls that do less than INTENSITY floating-point operations per byte."""
    return [k for k in calls if int(k.flops) < INTENSITY * int(k.bytes)]


def counted(model: str, threads: int, variant: str, module: Any, report: Any) -> Line:
    """The figures of a variant that need no clock."""
    calls = kernel_calls(module)
    memory = report.memory
    moved = memory["copies"], memory["moved"], memory["moved_constants"]
    return Line(model, threads, variant, len(calls), len(memory_bound(calls)), *moved, memory["arena"])


def measure(model: str, threads: int, rounds: int, seconds: float, loads: int = 4) -> list[Line]:
    """All variants of a model, run in turn; the rounds are shared out over so many loadings."""
    path = onnx_path(MODELS[model])
    inputs = load_inputs(path)
    with tempfile.TemporaryDirectory() as folder:
        lines = []
        for variant in VARIANTS:
            module, report = compiled(str(path), variant)
            module.save(Path(folder) / variant)
            lines.append(counted(model, threads, variant, module, report))
            del module
        for k in range(loads):
            share = rounds * (k + 1) // loads - rounds * k // loads
            _rounds(lines[k % len(lines) :] + lines[: k % len(lines)], Path(folder), inputs, share, seconds)
    return lines


def _rounds(lines: list[Line], folder: Path, inputs: Any, rounds: int, seconds: float) -> None:
    """Loads the variants, in this order, each from a copy of its file, and runs them in turn; adds the times to lines.

    A file's pages stay where they are once it was read: only those of a copy are placed anew.
    """
    from warpbeam.runtime import load

    runs = []
    for line in lines:
        fresh = Path(shutil.copyfile(folder / line.variant, folder / "fresh"))
        module = load(fresh)
        fresh.unlink()
        module.num_threads = line.threads
        outputs = {k: v.copy() for k, v in module.run(inputs).items()}
        runs.append(lambda m=module, o=outputs: m.run(inputs, o))
    for k in range(rounds):
        for j in range(len(runs)):
            at = (j + k) % len(runs)
            taken = timed_slice(runs[at], seconds, 1)
            lines[at].samples += taken
            lines[at].rounds.append(statistics.median(taken))


def markdown(lines: list[Line]) -> str:
    """A row per variant; in brackets, what is left of the variant that joins pairs, or a range."""
    out = [
        "|model|threads|joined|kernels|memory-bound|copies|MB moved|MB without weights|arena MB|ms|of pairs|",
        "|" + "-|" * 11,
    ]
    base = {(x.model, x.threads): x for x in lines if x.variant == "pairs"}
    for x in lines:
        ref = base[x.model, x.threads]
        cells = [
            x.model, str(x.threads), x.variant, f"{x.kernels} [{x.kernels / ref.kernels:.2f}]",
            f"{x.memory_bound} [{x.memory_bound / max(ref.memory_bound, 1):.2f}]", str(x.copies),
            _share(x.bytes, ref.bytes), _share(x.bytes - x.weights, ref.bytes - ref.weights),
            f"{x.arena / 1e6:.2f}",
            _spread([1e3 * t for t in x.samples], 10, ".4g"),
            _settled([a / b for a, b in zip(x.rounds, ref.rounds, strict=True)]),
        ]  # fmt: skip
        out.append("|" + "|".join(cells) + "|")
    return "\n".join(out)


def _share(size: int, of: int) -> str:
    return f"{size / 1e6:.1f} [{size / max(of, 1):.2f}]"


def _spread(values: list[float], percent: int, form: str) -> str:
    """The median, and the range without so many percent at each end."""
    low, middle, high = np.percentile(values, [percent, 50, 100 - percent])
    return f"{middle:{form}} [{low:{form}}-{high:{form}}]"


def _settled(values: list[float]) -> str:
    """The median, and between which values of the sorted ones it lies in 95 of 100 cases (normal approximation of the
    binomial distribution of how many values lie below the median).
    """
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    low = max(0, math.floor(len(values) / 2 - half))
    high = min(len(values) - 1, math.ceil(len(values) / 2 + half) - 1)
    return f"{statistics.median(values):.3f} [{ordered[low]:.3f}-{ordered[high]:.3f}]"


def main() -> None:
    """Measure the chosen models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="bert,transformer,dien,crnn,wav2vec2", help="comma separated, or all")
    parser.add_argument("--threads", default="2", help="comma separated thread counts")
    parser.add_argument("--repeat", type=int, default=24, help="rounds; in each every variant gets one slice")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a slice")
    parser.add_argument("--json", default="", help="write all figures here")
    args = parser.parse_args()
    lines: list[Line] = []
    for model in names(args.models, dict(MODELS), "model"):
        for threads in (int(t) for t in args.threads.split(",")):
            lines += measure(model, threads, args.repeat, args.seconds)
    print(markdown(lines))
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(x) for x in lines], indent=1) + "\n")


if __name__ == "__main__":
    main()
