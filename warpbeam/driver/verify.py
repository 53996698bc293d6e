"""Is the compiled model right? Compares it with oracles that share no code with it, and finds what differs first.

The oracle is the Relay interpreter, every operator's NumPy reference, computed in float64; onnxruntime is a second one
where it is installed and the model is an ONNX file. Errors are relative to the largest magnitude of an output.

When outputs differ, two searches name the culprit (`driver.bisect`): the graph after each pass is interpreted and
compared with the graph as imported; and each compiled kernel is run alone on the values it really got, and compared
with the interpretation of its group of operators.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from warpbeam.driver import source
from warpbeam.driver.api import compile_with_report, precise
from warpbeam.ir.diagnostics import VerifyError
from warpbeam.relay import interp
from warpbeam.runtime.extents import check_symbols, symbol_sizes, that_fit, unknown_symbols
from warpbeam.runtime.module import Module
from warpbeam.runtime.objects import scattered
from warpbeam.target import get
from warpbeam.transform.to_mixed_precision import requested

#: largest error, relative to the output's largest magnitude, by element type
TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "float16": 5e-3, "bfloat16": 4e-2}
QUANTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one tensor is from what an oracle says.

    Attributes:
        name: of the output (or kernel result); against: the oracle.
        error: largest absolute difference; relative: the same over the largest finite magnitude of the oracle's tensor.
        percentiles: of the absolute differences, by percent.
        where: index of the largest difference; got, expected: the two values there.
        tolerance: what `relative` may be; 0 for integers and booleans, which must be equal.
        note: what else there is to say, such as unequal shapes.
    """

    name: str
    against: str
    dtype: str
    shape: tuple[int, ...]
    error: float
    relative: float
    percentiles: dict[int, float]
    where: tuple[int, ...]
    got: float
    expected: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return not self.note and self.relative <= self.tolerance


@dataclass(slots=True)
class VerifyResult:
    """The verdict, the differences it rests on, and, where it is bad, what was found to differ first.

    sizes: those taken for symbolic dimensions that nobody gave, if 1 does not fit.
    """

    model: str
    target: str
    opt_level: int
    differences: list[Difference] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    precision: str = "fp32"
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every output agrees with the interpreter (other oracles are shown, they do not decide)."""
        return all(d.passed for d in self.differences if d.against == "interpreter")

    def __bool__(self) -> bool:
        return self.passed

    def data(self) -> dict[str, Any]:
        """As JSON data."""
        rows = [asdict(d) | {"passed": d.passed} for d in self.differences]
        return {
            "model": self.model, "target": self.target, "opt_level": self.opt_level,
            "precision": self.precision, "passed": self.passed,
            "differences": rows, "findings": list(self.findings), "seconds": dict(self.seconds),
            "sizes": dict(self.sizes),
        }  # fmt: skip


def verify(
    model: Any,
    shapes: Mapping[str, Any] | None = None,
    target: Any = "native",
    opt_level: int = 3,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,
    symbols: Mapping[str, int] | None = None,
    bisect: bool = True,
    cache: bool = False,
    threads: int | None = None,
    module: Module | None = None,
    guard: bool | float | None = None,
    precision: str | None = None,
) -> VerifyResult:
    """Compiles a model, runs it, and compares its outputs with the interpreter's (and onnxruntime's, where installed).

    Args:
        model: what `compile` takes.
        inputs: arrays by name; random ones from `seed` where absent.
        symbols: sizes of symbolic dimensions; where absent, as inputs have them, else 1, or larger ones that fit.
        module: the model compiled before, to be judged instead of a new compilation.
        bisect: on a difference, name the first graph pass and kernel that differ.
        guard, precision: see `compile`. A shorter precision allows the errors of its type (`TOLERANCE`).

    Raises:
        WarpbeamError: if the model cannot be read or compiled.
    """
    with precise(precision):
        return _verified(
            model, shapes, get(target), opt_level, seed, inputs, symbols, bisect, cache, threads, module, guard
        )


def _verified(
    model: Any,
    shapes: Mapping[str, Any] | None,
    tgt: Any,
    opt_level: int,
    seed: int,
    inputs: Mapping[str, Any] | None,
    symbols: Mapping[str, int] | None,
    bisect: bool,
    cache: bool,
    threads: int | None,
    module: Module | None,
    guard: bool | float | None,
) -> VerifyResult:
    """See `verify`; the precision is the current context's."""
    found = source.read(model, shapes)
    result = VerifyResult(found.name, str(tgt.name), opt_level, precision=str(requested()))
    if module is None:
        with _clock(result, "compile"):
            module, _ = compile_with_report(
                model,
                target=tgt,
                shapes=shapes,
                opt_level=opt_level,
                cache=cache,
                name=found.name,
                guard=guard,
            )
    if threads is not None:
        module.num_threads = threads
    layout = module.layout
    if layout is not None and any(n.string for n in (*layout.inputs, *layout.outputs)):
        raise VerifyError("a model on strings cannot be verified", found.name, "numbers are compared",
                          "run it, and compare its strings yourself")  # fmt: skip
    arrays, result.sizes = _arrays(module, seed, symbols or {}, inputs or {})
    flat = scattered(arrays)
    missing = [name for name in found.inputs if name not in flat]
    if missing:
        why = "how many tensors a sequence has is not known"
        raise VerifyError(f"no array is known for input {missing[0]!r}", found.name, why, "give some as inputs")
    ordered = [flat[name] for name in found.inputs]
    with _clock(result, "run"):
        got = scattered(module.run(arrays))
    with _clock(result, "interpret"):
        expected = outputs_of(interp.evaluate(found.module, ordered, dtype="float64"))
    for name, reference in zip(found.outputs, expected, strict=True):
        result.differences.append(_judge(name, got[name], reference, found, ordered))
    with _clock(result, "onnxruntime"):
        result.differences += _against_onnxruntime(model, arrays, got)
    if bisect and not result.passed:
        from warpbeam.driver.bisect import bisect as search

        with _clock(result, "bisect"):
            result.findings = search(found, module, ordered, tgt, opt_level)
    return result


def _arrays(
    module: Module, seed: int, symbols: Mapping[str, int], inputs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Arrays for all inputs, and the sizes that had to be found for them."""
    check_symbols(module, symbols, "symbols")
    known = {**symbol_sizes(module, {k: v.shape for k, v in inputs.items() if hasattr(v, "shape")}), **symbols}

    def made(more: Mapping[str, int]) -> dict[str, Any]:
        arrays = {**module.random_inputs(seed, **{**known, **more}), **inputs}
        return arrays if module.layout is None else module.layout.gathered(arrays, arrays)

    return that_fit(module, made, unknown_symbols(module, known))


def difference(name: str, against: str, got: Any, expected: Any, scale: float | None = None) -> Difference:
    """Compares two tensors. NaN equals NaN, infinities equal themselves; other non-finite values are all wrong."""
    got, expected = np.asarray(got), np.asarray(expected)
    dtype = str(got.dtype)
    tolerance = TOLERANCE.get(dtype, 0.0)
    if tolerance:
        tolerance = max(tolerance, TOLERANCE[requested().dtype])
    if got.shape != expected.shape:
        note = f"shape {got.shape} instead of {expected.shape}"
        return Difference(name, against, dtype, got.shape, np.inf, np.inf, {}, (), np.nan, np.nan, tolerance, note)
    if not got.size:
        return Difference(name, against, dtype, got.shape, 0.0, 0.0, {}, (), 0.0, 0.0, tolerance)
    a, b = (np.asarray(x).astype(np.float64) if x.dtype.kind not in "iu" else x for x in (got, expected))
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.abs(wide_a - wide_b)
        apart = np.where((a == b) | (np.isnan(wide_a) & np.isnan(wide_b)), 0.0, apart)
        apart = np.where(np.isnan(apart) | (~np.isfinite(wide_a) ^ ~np.isfinite(wide_b)), np.inf, apart)
    finite = np.abs(wide_b[np.isfinite(wide_b)])
    top = scale if scale is not None else float(finite.max(initial=0.0))
    worst = np.unravel_index(int(np.argmax(apart)), apart.shape)
    error = float(apart[worst])
    relative = 0.0 if error == 0 else error / top if top > 0 else error
    percentiles = {q: float(np.percentile(apart, q, method="higher")) for q in QUANTILES}
    at = tuple(int(i) for i in worst)
    here, there = float(wide_a[worst]), float(wide_b[worst])
    return Difference(name, against, dtype, got.shape, error, relative, percentiles, at, here, there, tolerance)


def outputs_of(value: Any) -> list[np.ndarray]:
    """An interpreter's result as a list of arrays."""
    return [np.asarray(v) for v in value] if isinstance(value, tuple | list) else [np.asarray(value)]


def _judge(
    name: str, got: np.ndarray, reference: np.ndarray, found: source.Source, ordered: Sequence[np.ndarray]
) -> Difference:
    """The difference from the float64 oracle; where that is too large, the better of it and the model's own precision.

    Half-precision and integer outputs can differ from exact arithmetic for reasons the model itself states (a rounding
    in the middle, the index of one of two nearly equal maxima); a result is right if its own precision gives it too.
    """
    exact = difference(name, "interpreter", got, reference)
    if exact.passed:
        return exact
    narrow = outputs_of(interp.evaluate(found.module, ordered))[found.outputs.index(name)]
    own = difference(name, "interpreter", got, narrow)
    return own if own.relative < exact.relative else exact


def _against_onnxruntime(model: Any, arrays: Mapping[str, Any], got: Mapping[str, np.ndarray]) -> list[Difference]:
    """Differences from onnxruntime; none where it is absent, refuses the model, or the model is not ONNX."""
    data = str(model) if isinstance(model, str | os.PathLike) else model
    if hasattr(data, "SerializeToString"):
        data = data.SerializeToString()
    if not isinstance(data, str | bytes) or (isinstance(data, str) and data.endswith(".relay")):
        return []
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        return []
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        wanted = {i.name: arrays[i.name] for i in session.get_inputs()}
        theirs = scattered(dict(zip(names, session.run(names, wanted), strict=True)))
    except Exception:  # a peer's refusal, of any class it likes, is no verdict on ours
        return []
    return [difference(n, "onnxruntime", got[n], theirs[n]) for n in theirs if n in got]


class _clock:
    """Adds the time of a block to a result."""

    def __init__(self, result: VerifyResult, name: str) -> None:
        self.result, self.name = result, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.result.seconds[self.name] = time.perf_counter() - self.start


def check(model: Any, **options: Any) -> VerifyResult:
    """As `verify`, but raises where the model is wrong.

    Raises:
        VerifyError: with the largest difference and the first part that differs.
    """
    result = verify(model, **options)
    if not result.passed:
        worst = max((d for d in result.differences if not d.passed), key=lambda d: d.relative)
        raise VerifyError(
            f"output {worst.name!r} differs by {worst.relative:.3g} of its largest value",
            f"model {result.model}, index {worst.where}",
            worst.note or f"got {worst.got:.6g}, expected {worst.expected:.6g}, tolerance {worst.tolerance:g}",
            "; ".join(result.findings) or "report this with the model",
        )
    return result
