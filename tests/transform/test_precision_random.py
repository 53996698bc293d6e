"""Random models in bf16 are what the interpreter makes of the graph after all passes: it rounds at the same places."""

from __future__ import annotations

import numpy as np

from warpbeam.driver import source
from warpbeam.driver.api import compile_with_report, precise
from warpbeam.driver.pipeline import before_fusion
from warpbeam.relay.interp import evaluate
from warpbeam.target import get
from warpbeam.testing.fuzz.grow import grow

_MODELS = range(12)
_FLIP = 2.0**16  # a sum that ends beside a tie may be rounded to the other neighbour: 2^-8, not 2^-24, of its value


def _apart(seed: int, index: int) -> tuple[list[float], int]:
    """How far each floating output is from the interpreter's, in units of what float32's rounding can do to it; and how
    many operands and results are short.
    """
    grown = grow(seed, index)
    found = source.read(grown.model)
    with precise("bf16"):
        rounded = before_fusion(found.module, 3, get("native"))
        module, report = compile_with_report(grown.model, workers=1, cache=False)
        got = module.run(grown.inputs)
    with np.errstate(all="ignore"):
        want = evaluate(rounded, [grown.inputs[n] for n in found.inputs])
    results = want if isinstance(want, tuple) else (want,)
    ratios = []
    for name, expected in zip(found.outputs, results, strict=True):
        if expected.dtype.kind == "f" and grown.bounds.get(name):
            error = np.abs(np.asarray(got[name], np.float64) - expected.astype(np.float64))
            ratios.append(float(error.max(initial=0.0)) / (2 * grown.bounds[name]))  # both may be off by that
    return ratios, sum(report.precision.get(k, 0) for k in ("products", "weights", "rounded"))


def test_random_models_round_where_the_graph_says() -> None:
    found = [_apart(911, index) for index in _MODELS]
    ratios = [r for several, _ in found for r in several]
    assert len(ratios) >= len(_MODELS) and max(ratios) <= _FLIP
    assert sum(short > 0 for _, short in found) >= len(_MODELS) // 3
    assert np.mean([r <= 1 for r in ratios]) >= 0.9  # a tie is rare
