"""Kernel quality: untuned fp32 contractions with constant weights, as a share of the FMA peak, on one thread.

    python -m benchmarks.kernels [--cases dense,conv] [--accuracy exact] [--json OUT]

Each case is a channels-last Relay function compiled with defaults. Its native entry is called with preallocated
outputs; the peak loop runs in the same process between the slices, and a case's percentage is the median over rounds
of (kernel FLOP/s / peak FLOP/s of that round). Padded taps count as work, and FLOPs are those of the plain sum whatever
the algorithm, so Winograd shows more than 100 %; `--accuracy exact` measures plain sums alone. Results are checked
against float64.
The exit code is 1 when a case misses its bar.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .models.cases import CONVS
from .models.net import draw
from .peak import FmaPeak
from .table import finish
from .worker import timed_slice

BAR, SMALL_BAR = 0.88, 0.80
DENSE = ((512, 512, 512), (1024, 1024, 1024), (2048, 32, 512), (128, 768, 3072), (512, 32, 512))  # M, N, K


@dataclass(frozen=True)
class Case:
    """`dense`: sizes are (M, N, K); `conv`: (H, IC, OC, k, stride) with padding k // 2."""

    kind: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """A readable name."""
        return f"{self.kind}_" + "x".join(str(s) for s in self.sizes)

    @property
    def bar(self) -> float:
        """The share of the peak to reach."""
        return SMALL_BAR if self.sizes == (512, 32, 512) else BAR

    @property
    def reduction(self) -> int:
        """Terms summed for one output element."""
        return self.sizes[2] if self.kind == "dense" else self.sizes[1] * self.sizes[3] ** 2

    @property
    def flops(self) -> float:
        """Multiply and add of each tap, padded ones included."""
        if self.kind == "dense":
            return 2.0 * math.prod(self.sizes)
        h, _, cout, k, stride = self.sizes
        out = (h + 2 * (k // 2) - k) // stride + 1
        return 2.0 * out * out * cout * self.reduction

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(input, weight): dense [M, K], [N, K]; convolution NHWC and HWIO."""
        scale = 1 / math.sqrt(self.reduction)
        if self.kind == "dense":
            m, n, k = self.sizes
            return draw(0, self.name + ".x", (m, k)), draw(0, self.name + ".w", (n, k), std=scale)
        h, cin, cout, k, _ = self.sizes
        return draw(0, self.name + ".x", (1, h, h, cin)), draw(0, self.name + ".w", (k, k, cin, cout), std=scale)


CASES = [Case("dense", s) for s in DENSE] + [Case("conv", s) for s in CONVS]


def make_relay(case: Case) -> Any:
    """The case as a Relay module with one input "x" and a constant weight."""
    from warpbeam import relay

    x_value, w_value = case.arrays()
    x = relay.var("x", shape=x_value.shape, dtype="float32")
    w = relay.const(w_value)
    if case.kind == "dense":
        y = relay.nn.dense(x, w)
    else:
        k, stride = case.sizes[3:]
        y = relay.nn.conv2d(
            x, w, strides=(stride, stride), padding=(k // 2, k // 2), data_layout="NHWC", kernel_layout="HWIO"
        )
    return relay.IRModule.from_expr(relay.Function([x], y))


def reference(case: Case, absolute: bool = False) -> np.ndarray:
    """The result in float64 (`absolute`: of |x| and |w|, the scale of the rounding error)."""
    x, w = (np.abs(a).astype(np.float64) if absolute else a.astype(np.float64) for a in case.arrays())
    if case.kind == "dense":
        return np.asarray(x @ w.T)
    h, _, cout, k, stride = case.sizes
    pad = k // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = (h + 2 * pad - k) // stride + 1
    y = np.zeros((1, out, out, cout))
    for i in range(k):
        for j in range(k):
            y += x[:, i : i + stride * out : stride, j : j + stride * out : stride] @ w[i, j]
    return y


def error_factor(case: Case, result: np.ndarray) -> float:
    """The c in |error| = c (K + 2) u |A||B|, worst element; 8 is the limit."""
    unit = 2.0**-24 * (case.reduction + 2)
    error = np.abs(result.astype(np.float64).reshape(-1) - reference(case).reshape(-1))
    return float((error / (unit * reference(case, absolute=True).reshape(-1) + 1e-300)).max())


def bind_entry(module: Any, inputs: dict[str, np.ndarray]) -> tuple[Callable[[], Any], dict[str, np.ndarray]]:
    """(a call of the native entry with everything bound, the output arrays it writes).

    The entry is called as `Module.run` calls it, with a call context of its own whose tensors stay bound to our
    arrays; the checks of `run` (a microsecond or two) are not part of a kernel. Other modules go through `run`.
    """
    out = {name: np.asarray(a) for name, a in module.run(inputs).items()}
    if not hasattr(module, "_acquire"):
        return (lambda: module.run(inputs, out=out)), out
    context = module._acquire()
    module._call(context, module._entry, inputs, out)
    entry, pointer, arguments, count = module._entry, context.pointer, context.arguments, context.count

    def call(bound: Any = (module, inputs, out)) -> None:  # keeps the code and the bound arrays alive
        if entry(pointer, arguments, count):
            raise RuntimeError(context.message() or "the kernel failed")

    return call, out


def compiled(func: Any, accuracy: str) -> tuple[Any, str]:
    """(module, algorithm) of a Relay module."""
    from warpbeam.driver.api import compile_with_report

    module, report = compile_with_report(func, accuracy=accuracy, cache=False)
    return module, ", ".join(c["chosen"] for c in report.choices) or "direct"


@dataclass
class Outcome:
    """What one case reached."""

    name: str
    microseconds: float
    gflops: float
    peak_gflops: float
    share: float
    bar: float
    error_factor: float
    ok: bool
    algorithm: str


def measure(case: Case, peak: FmaPeak, rounds: int, seconds: float, accuracy: str = "default") -> Outcome:
    """Compile, check and time one case against the peak loop."""
    module, algorithm = compiled(make_relay(case), accuracy)
    module.num_threads = 1
    call, out = bind_entry(module, {"x": case.arrays()[0]})
    call()
    factor = error_factor(case, next(iter(out.values())))
    batch = max(1, math.ceil(2e-4 * 2e11 / case.flops))
    times, peaks, shares = [], [], []
    for _ in range(rounds):
        before = peak.measure(seconds / 4)
        took = float(np.median(timed_slice(call, seconds, batch)))
        ceiling = (before + peak.measure(seconds / 4)) / 2
        times.append(took)
        peaks.append(ceiling)
        shares.append(case.flops / took / 1e9 / ceiling)
    median, share = float(np.median(times)), float(np.median(shares))
    return Outcome(
        case.name,
        median * 1e6,
        case.flops / median / 1e9,
        float(np.median(peaks)),
        share,
        case.bar,
        factor,
        share >= case.bar and factor <= 8,
        algorithm,
    )


def main() -> None:
    """Measure, print the table, exit by the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="comma separated beginnings of case names; all by default")
    parser.add_argument("--repeat", type=int, default=8, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a slice")
    parser.add_argument("--accuracy", choices=("exact", "default", "fast"), default="default")
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    chosen = [c for c in CASES if c.name.startswith(tuple(args.cases.split(",")))]
    peak, outcomes = FmaPeak(1), []
    print("|case|us|GFLOP/s|peak|share|bar|error c|ok|algorithm|\n|-|-|-|-|-|-|-|-|-|")
    for case in chosen:
        o = measure(case, peak, args.repeat, args.seconds, args.accuracy)
        outcomes.append(o)
        print(
            f"|{o.name}|{o.microseconds:.1f}|{o.gflops:.0f}|{o.peak_gflops:.0f}|{100 * o.share:.1f} %"
            f"|{100 * o.bar:.0f} %|{o.error_factor:.2f}|{'yes' if o.ok else 'NO'}|{o.algorithm}|",
            flush=True,
        )
    sys.exit(finish(outcomes, args.json))


if __name__ == "__main__":
    main()
