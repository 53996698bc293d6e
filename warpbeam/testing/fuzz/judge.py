"""Judging a random model: compiled at several levels, against exact arithmetic and, where installed, onnxruntime."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

import warpbeam
from warpbeam.driver.kernels import sharing
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.relay import interp
from warpbeam.testing.exported import run_exported
from warpbeam.testing.fuzz.grow import Grown, grow

SANITIZERS = ("gcc", "-march=native", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
GUARD = 0.25  # seconds of measuring at level 4: which variant is kept hardly matters here, that each may be does
PEER = "onnxruntime"  # what is noted while it computes
Arrays = Mapping[str, np.ndarray]


@dataclass(slots=True)
class Verdict:
    """failures: what is wrong with the compiler; disputed: where the oracles disagree; ops, dropped: as in `Grown`."""

    failures: list[str] = field(default_factory=list)
    disputed: list[str] = field(default_factory=list)
    ops: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    sizes: int = 0


def judge(
    seed: int, index: int, levels: Sequence[int], in_c: bool, note: Callable[[str], None], beside: bool = True
) -> Verdict:  # fmt: skip
    """Grows a model and judges it; kernels come from the disk cache where they can. `note` is told what is being done,
    for the case that it ends badly. Not `beside`: onnxruntime, which may not survive the model, is not asked.

    Raises: what the compiler raises that is no error of ours.
    """
    note("grow")
    grown = grow(seed, index)
    verdict = Verdict(ops=grown.ops, dropped=dict(grown.dropped))
    note(PEER)
    theirs = peer(grown.model, grown.inputs) if beside else None
    verdict.disputed += [
        f"onnxruntime: {n}: {why}" for n, why in _wrong(theirs or {}, grown.expected, grown.bounds).items()
    ]
    others = _other_sizes(grown, seed, index) if beside else None
    with sharing():
        found = _at_levels(grown, levels, theirs, others, note)
    verdict.failures += found.failures
    verdict.disputed += found.disputed
    verdict.sizes = found.sizes
    if in_c:
        note("C source")
        verdict.failures += _in_c(grown)
    return verdict


def _at_levels(
    grown: Grown, levels: Sequence[int], theirs: Arrays | None, others: Grown | None, note: Callable[[str], None]
) -> Verdict:
    """What is wrong at each level; what levels have in common is scheduled once, and its machine code made once."""
    verdict = Verdict()
    for level in levels:
        note(f"level {level}")
        try:
            module = warpbeam.compile(grown.model, opt_level=level, workers=1, guard=GUARD if level == 4 else None)
            got = module.run(grown.inputs)
        except WarpbeamError as e:
            verdict.failures.append(f"level {level}: refused: {e}")
            continue
        for name, why in _wrong(got, grown.expected, grown.bounds).items():
            backed = theirs is not None and _apart(got[name], theirs[name], grown.bounds.get(name, 0.0)) is None
            (verdict.disputed if backed else verdict.failures).append(f"level {level}: {name}: {why}")
        if others is not None:
            note(f"level {level}, other sizes")
            verdict.sizes += 1
            try:
                got = module.run(others.inputs)
            except WarpbeamError as e:
                verdict.failures.append(f"level {level}: other sizes refused: {e}")
                continue
            verdict.failures += [
                f"level {level}: other sizes: {n}: {w}" for n, w in _wrong(got, others.expected, others.bounds).items()
            ]
    return verdict


def warm() -> None:
    """Imports what workers need, by using it, so that each of them need not."""
    grown = grow(0, 0)
    module = warpbeam.compile(grown.model, opt_level=1, workers=1, cache=False)
    module.run(grown.inputs)
    with contextlib.suppress(ImportError):
        import onnxruntime  # noqa: F401


def peer(model: ModelProto | bytes, inputs: Arrays) -> dict[str, np.ndarray] | None:
    """What onnxruntime computes; None where it is absent or refuses."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception:  # a peer's refusal, of any class it likes, is no verdict on ours
        return None


def _wrong(got: Arrays, expected: Arrays, bounds: Mapping[str, float]) -> dict[str, str]:
    """The outputs that are not as expected, and why."""
    found = {n: _apart(got[n], expected[n], bounds.get(n, 0.0)) for n in expected if n in got}
    return {n: why for n, why in found.items() if why is not None}


def _apart(got: Any, expected: Any, bound: float) -> str | None:
    """Why two tensors differ, None where they do not. Integers and booleans must be equal."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return f"shape {got.shape} instead of {expected.shape}"
    if got.dtype.kind != "f":
        return None if np.array_equal(got, expected) else f"{int(np.sum(got != expected))} elements differ"
    with np.errstate(all="ignore"):
        off = np.abs(got.astype(np.float64) - expected)
    bad = ~(off <= bound)
    if not bad.any():
        return None
    at = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)
    where = [int(i) for i in at]
    return (
        f"{float(got[at])!r} instead of {float(expected[at])!r} at {where}, allowed {bound:.3g}, {int(bad.sum())} bad"
    )


def _other_sizes(grown: Grown, seed: int, index: int) -> Grown | None:
    """The same model at other sizes of its symbolic dimensions, where both oracles give one answer; else None."""
    rng = np.random.default_rng((seed, index))
    sizes: dict[str, int] = {}
    inputs = {}
    for value in grown.model.graph.input:
        shape = []
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param and d.dim_param not in sizes:
                sizes[d.dim_param] = int(rng.choice([1, 2, 4, 9, 16]))
            shape.append(sizes[d.dim_param] if d.dim_param else d.dim_value)
        old = grown.inputs[value.name].reshape(-1)
        inputs[value.name] = np.resize(old, shape).astype(old.dtype) if old.size else np.zeros(shape, old.dtype)
    if not sizes:
        return None
    theirs = peer(grown.model, inputs)
    if theirs is None:
        return None
    try:
        found = import_model(grown.model)
        with np.errstate(all="ignore"):
            got = interp.evaluate(found.module, [inputs[n] for n in found.inputs], dtype="float64")
    except WarpbeamError:
        return None
    several = got if isinstance(got, tuple | list) else [got]
    expected = {n: np.asarray(a) for n, a in zip(found.outputs, several, strict=True)}
    bounds = {n: 8 * b for n, b in grown.bounds.items()}  # sizes grow by less than 6, sums with them
    if any(not np.isfinite(a).all() for a in expected.values() if a.dtype.kind == "f"):
        return None
    if _wrong(theirs, expected, bounds):
        return None
    return Grown(grown.model, inputs, expected, bounds, grown.ops)


def _in_c(grown: Grown) -> list[str]:
    """What is wrong with the model as C source under the sanitizers."""
    try:
        model = warpbeam.compile(grown.model, workers=1, cache=False)
        types = {o.name: o.dtype for o in model.outputs}
        outputs = [np.zeros(grown.expected[o.name].shape, types[o.name]) for o in model.outputs]
        with tempfile.TemporaryDirectory() as folder:
            got = run_exported(model, "c", grown.inputs, outputs, Path(folder), SANITIZERS)
    except (WarpbeamError, RuntimeError) as e:
        return [f"C source: {e}"]
    named = {o.name: a for o, a in zip(model.outputs, got, strict=True)}
    return [f"C source: {n}: {why}" for n, why in _wrong(named, grown.expected, grown.bounds).items()]
