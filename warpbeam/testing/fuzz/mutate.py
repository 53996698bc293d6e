"""Damaged model files: the compiler refuses them by an error of its own, or computes what onnxruntime does.

Each file is damaged as bytes (flipped bits, cuts, repeated and removed pieces) or as a model (exchanged fields). A
worker with limits of time and memory imports, compiles and runs it; death, a time-out and foreign exceptions are
findings, and so are outputs that neither onnxruntime nor the interpreter gives.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message
from onnx import ModelProto

import warpbeam
from warpbeam.driver.verify import difference, outputs_of
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.relay import interp
from warpbeam.runtime.errors import WarpbeamError as RuntimeWarpbeamError
from warpbeam.testing.fuzz import crew, judge

MEMORY = 2 << 30
LONGEST = 10_000  # characters of a message
_ODD = (0, 1, -1, 2, 7, 255, -128, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**40)


def mutant(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a model, damaged once to three times."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = (_bytes if rng.random() < 0.4 else _fields)(data, rng)
    return data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    if not out:
        return data
    at, length = rng.randrange(len(out)), rng.choice((1, 2, 8, 64))
    kind = rng.randrange(6)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at : at + length] = rng.randbytes(length)
    elif kind == 2:
        del out[at:]
    elif kind == 3:
        del out[at : at + length]
    elif kind == 4:
        out[at:at] = out[at : at + length]
    else:
        other = rng.randrange(len(out))
        out[at : at + length] = out[other : other + length]
    return bytes(out)


def _fields(data: bytes, rng: random.Random) -> bytes:
    """Something in the model as protobuf has it: exchanged with its like, removed, repeated, or given an odd value."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # damaged before, so that it cannot be read
        return _bytes(data, rng)
    message: Any = model
    while True:
        fields = message.ListFields()
        if not fields:
            return data
        spec, value = rng.choice(fields)
        plural = not isinstance(value, Message | bytes | str | int | float)
        if plural and isinstance(value[0], Message) and rng.random() < 0.8:
            message = rng.choice(value)
        elif isinstance(value, Message) and rng.random() < 0.95:
            message = value
        else:
            break
    _damage(message, spec.name, value, plural, rng)
    return model.SerializeToString()


def _damage(message: Any, name: str, value: Any, plural: bool, rng: random.Random) -> None:
    if not plural:
        if isinstance(value, bool | int):
            try:
                setattr(message, name, rng.choice((value + 1, value - 1, *_ODD)))
            except ValueError:  # out of the field's range
                message.ClearField(name)
        elif isinstance(value, float):
            setattr(message, name, rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"))))
        elif isinstance(value, bytes):
            try:
                setattr(message, name, _bytes(value, rng))
            except ValueError:  # a text that is no UTF-8 comes as bytes
                message.ClearField(name)
        elif isinstance(value, str):
            setattr(message, name, rng.choice(("", value + "x", value[:-1], "x" * 300, "../" + value)))
        else:
            message.ClearField(name)
        return
    items = list(value)
    kind, at, other = rng.randrange(4), rng.randrange(len(items)), rng.randrange(len(items))
    if kind == 0:
        items[at], items[other] = items[other], items[at]
    elif kind == 1:
        items.insert(other, items[at])
    elif kind == 2:
        del items[at]
    elif isinstance(items[at], int):
        items[at] = rng.choice((items[at] + 1, items[at] - 1, 0, -1, 2, 100))
    elif isinstance(items[at], str | bytes):
        items[at] = items[other]
    copies = [type(i).FromString(i.SerializeToString()) if isinstance(i, Message) else i for i in items]
    del value[:]
    value.extend(copies)


def examine(paths: list[Path], seed: int, index: int, note: Callable[[str], None]) -> tuple[str, str]:
    """("refused" | "agrees" | "unjudged" | "wrong" | "message", detail) of a damaged file."""
    data = damaged(paths, seed, index)
    note("compile")
    try:
        module = warpbeam.compile(data, workers=1, opt_level=1)
        inputs = _inputs(module, index)
        if inputs is None:
            return "unjudged", "large inputs"
        note("run")
        got = module.run(inputs)
    except (WarpbeamError, RuntimeWarpbeamError) as e:
        return ("refused", type(e).__name__) if len(str(e)) <= LONGEST else ("message", f"{len(str(e))} characters")
    note("onnxruntime")
    theirs = judge.peer(data, inputs)
    if theirs is None:
        return "unjudged", "onnxruntime refuses it"
    if all(_near(n, got[n], theirs[n]) for n in got):
        return "agrees", ""
    note("interpreter")
    try:
        want, own = (_interpreted(data, inputs, dtype) for dtype in ("float64", None))
    except (WarpbeamError, RuntimeWarpbeamError):
        return "unjudged", "the interpreter refuses it"
    if all(_near(n, got[n], w) for n, w in want.items()):
        return "disputed", "onnxruntime and the interpreter differ"
    if any(np.isfinite(w).all() and not np.isfinite(own[n]).all() for n, w in want.items()):
        return "unjudged", "on the way to the result the model's own type overflows"
    return "wrong", "neither onnxruntime nor the interpreter agrees"


def _interpreted(data: bytes, inputs: dict[str, np.ndarray], dtype: str | None) -> dict[str, np.ndarray]:
    """What the interpreter computes, in `dtype` or as the model says."""
    found = import_model(data)
    with np.errstate(all="ignore"):
        got = outputs_of(interp.evaluate(found.module, [inputs[n] for n in found.inputs], dtype=dtype))
    return {n: np.asarray(a) for n, a in zip(found.outputs, got, strict=True)}


def damaged(paths: list[Path], seed: int, index: int) -> bytes:
    """The damaged file of a seed and an index."""
    rng = random.Random(f"{seed}:{index}")
    return mutant(paths[index % len(paths)].read_bytes(), rng)


def _inputs(module: Any, index: int) -> dict[str, np.ndarray] | None:
    if sum(int(np.prod([s if isinstance(s, int) else 1 for s in i.shape], dtype=object)) for i in module.inputs) > 1e7:
        return None
    return dict(module.random_inputs(index))


def _near(name: str, got: Any, want: Any) -> bool:
    """Whether outputs agree as far as damaged constants (huge ones, NaNs) leave them to be compared."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return False
    if got.dtype.kind in "fV" and not (np.abs(want.astype(np.float64)) < 1e6).all():
        return True
    found = difference(name, "", got, want)
    return not found.note and found.relative <= 10 * found.tolerance


def sources(given: list[str]) -> list[Path]:
    """The model files named, and those in folders."""
    found: list[Path] = []
    for each in map(Path, given):
        found += sorted(each.rglob("*.onnx")) if each.is_dir() else [each]
    return found


def main(args: argparse.Namespace) -> int:
    """Damages files, prints what became of them; 1 where something is wrong with the compiler."""
    paths, began, kinds, bad = sources(args.mutate), time.monotonic(), Counter[str](), 0
    if not paths:
        print("error: no model files; what to do: name .onnx files or folders that hold some")
        return 2
    seconds = args.seconds or 10
    with crew.economical():
        judge.warm()
        work = partial(_work, paths, args.seed)
        indices = range(args.first, args.first + args.count)
        for done in crew.run_all(indices, work, args.jobs, seconds, MEMORY):
            kind, detail = done.value if done.kind == "done" else (done.kind, str(done.value))
            if done.kind != "done" and done.stage == "onnxruntime":
                kind = "onnxruntime fails"
            kinds[kind] += 1
            if kind in ("wrong", "message", "crash", "timeout", "raised"):
                bad += 1
                path = _saved(Path(args.save), args.seed, paths, done.task, kind)
                print(
                    f"FAILED {path}: {kind} in {done.stage} after {done.seconds:.1f} s: {crew.brief(detail)}",
                    flush=True,
                )
            elif kind == "disputed":
                print(f"disputed {_saved(Path(args.save), args.seed, paths, done.task, kind)}: {detail}", flush=True)
    took = time.monotonic() - began
    counts = ", ".join(f"{n} {k}" for k, n in kinds.most_common())
    print(
        f"{args.count} damaged files of {len(paths)} models, seed {args.seed}: {counts}; {args.count / took:.1f} per s"
    )
    return 1 if bad else 0


def _work(paths: list[Path], seed: int, index: int, note: Callable[[str], None]) -> tuple[str, str]:
    return examine(paths, seed, index, note)


def _saved(folder: Path, seed: int, paths: list[Path], index: int, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{seed}-{index}.onnx"
    path.write_bytes(damaged(paths, seed, index))
    return path
