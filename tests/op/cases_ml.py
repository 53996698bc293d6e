"""Cases of operators of classical models: trees, tables, coupling of pairs."""

from __future__ import annotations

import numpy as np
from cases_nn import Case, real


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def _trees() -> list[Case]:
    """Eleven trees over three features: seven of depth two (node 0), four that share its lower left part (node 1)."""
    x = real(6, 3)
    x[2, 1] = np.nan
    out: list[Case] = []
    yes, no = _i(1, 3, 5, 3, 4, 5, 6), _i(2, 4, 6, 3, 4, 5, 6)
    first, target = _i(0, 0, 0, 0, 1, 3, 3, 4), _i(1, 0, 1, 0)
    root = _i(*[0] * 7, *[1] * 4)
    for dtype in (np.float32, np.float64):
        cut = np.array([0.1, -0.2, 0.3, 0, 0, 0, 0], dtype)
        weight = np.array([1.5, -2.0, 0.25, 3.0], dtype)
        for combine in ("sum", "min", "max"):
            for mode in (_i(0, 0, 0, 0, 0, 0, 0), _i(1, 10, 3, 0, 0, 0, 0), _i(13, 4, 2, 0, 0, 0, 0)):
                attrs = {"targets": 3, "depth": 2, "modes": tuple(sorted({int(m) for m in mode})), "combine": combine}
                nodes = (_i(0, 1, 2, 0, 0, 0, 0), cut, mode, yes, no, first, root, target, weight)
                out.append(("trees.scores", attrs, (x.astype(dtype), *nodes)))
    return out


def _tables() -> list[Case]:
    whole, parts = np.array([-4, 0, 3, 9]), np.array([-1.5, 0.5, np.nan], np.float32)
    return [
        ("lookup", {}, (np.array([[9, -4, 1], [-5, 10, 0]]), whole, real(4), np.array(7.0, np.float32))),
        ("lookup", {}, (np.float32([0.5, np.nan, -9, 9]), parts, np.array([1, 2, 3]), np.array(-1))),
        ("lookup", {}, (np.array([4, 5]), np.array([5]), np.array([8]), np.array(-1))),
    ]


def _pairs() -> list[Case]:
    out: list[Case] = []
    for classes in (2, 3, 5):
        pairs = classes * (classes - 1) // 2
        r = np.random.default_rng(classes).uniform(0.05, 0.95, (4, pairs)).astype(np.float32)
        out.append(("pairwise_coupling", {"classes": classes}, (r,)))
    return out


CASES: list[Case] = [*_trees(), *_tables(), *_pairs()]
