"""Recurrent models beside their peers: our CRNN and DIEN, ONNX files, and those with recurrent layers in folders.

    python -m benchmarks.recurrent [FILE-OR-FOLDER …] [--inputs FOLDER] [--models crnn,dien] [--threads 1,2]

A model of a folder gets its inputs from FOLDER/NAME.npz, NAME being that of the file or of the folder that it lies in,
or from the .npz beside it; arrays are called as inputs are, or "in:" and that. Shapes are fixed to those of the inputs
for all peers, where onnxruntime takes that. With one thread the clock is that of the processor, so that the table can
be made on a machine that does other things too; with more it is the wall's, and the machine must be quiet.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]

from .harness import Bench, Row
from .models import MODELS, gflop, onnx_path
from .peers import PEERS
from .run import common_arguments, names
from .table import last_line, write

LAYERS = ("LSTM", "GRU", "RNN", "Loop", "Scan", "DynamicQuantizeLSTM")
OURS = "crnn,dien"


def operators(graph: Any) -> Iterator[str]:
    """The kinds of all nodes, those in the graphs that nodes hold included."""
    stack = [graph]
    while stack:
        for node in stack.pop().node:
            yield node.op_type
            stack += [g for a in node.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]


def is_recurrent(path: Path) -> bool:
    """Whether a model file has recurrent layers or loops."""
    return any(kind in LAYERS for kind in operators(onnx.load(path, load_external_data=False).graph))


def found(places: list[str]) -> list[Path]:
    """Files as given, and the recurrent models in folders."""
    files: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            sys.exit(f"{place} is missing: give ONNX files, or folders of them")
        files += filter(is_recurrent, sorted(place.rglob("*.onnx"))) if place.is_dir() else [place]
    return files


def inputs(path: Path, folder: str) -> tuple[str, dict[str, np.ndarray]] | None:
    """(name of a model, its inputs), or None where there is no file of them."""
    choices = [(Path(folder) / f"{n}.npz", n) for n in (path.parent.name, path.stem)] if folder else []
    for file, name in [*choices, (path.with_suffix(".npz"), path.stem)]:
        if file.exists():
            with np.load(file) as held:
                arrays = {k: held[k] for k in held.files}
            given = {k.removeprefix("in:"): v for k, v in arrays.items() if k.startswith("in:")}
            return name, given or arrays
    return None


def fixed(path: Path, name: str, given: dict[str, np.ndarray], folder: Path) -> Path:
    """The model with its inputs' shapes fixed, if it can have them, and their arrays beside it."""
    model = onnx.load(path)
    open_ = model.SerializeToString()
    for port in model.graph.input:
        if port.name in given:
            shape = port.type.tensor_type.shape
            del shape.dim[:]
            for size in given[port.name].shape:
                shape.dim.add().dim_value = size
    for port in model.graph.output:  # what was said of open sizes may not hold any more
        port.type.tensor_type.ClearField("shape")
    made = folder / f"{name}.onnx"
    made.write_bytes(model.SerializeToString() if _runs(model, given) else open_)
    np.savez(made.with_suffix(".npz"), **given)  # type: ignore[arg-type]
    return made


def _runs(model: Any, given: dict[str, np.ndarray]) -> bool:
    """Whether onnxruntime takes a model with fixed shapes; one whose branches are for different shapes it does not."""
    try:
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given)
    except (ort.capi.onnxruntime_pybind11_state.Fail, ort.capi.onnxruntime_pybind11_state.RuntimeException):
        return False
    return True


def cases(places: list[str], folder: str, models: list[str], into: Path) -> list[tuple[str, str, Path, float]]:
    """(name, reference, file, floating-point operations) of our models and of those in folders."""
    out = [(n, f"model:{n}", onnx_path(MODELS[n]), gflop(MODELS[n])[0] * 1e9) for n in models]
    for path in found(places):
        have = inputs(path, folder)
        if have is None:
            print(f"{path}: no inputs, left out", file=sys.stderr)
            continue
        out.append((have[0], "", fixed(path, *have, into), 0.0))
    return out


def main() -> None:
    """Measure all of them and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", help="ONNX files, and folders in which to look for such")
    parser.add_argument("--inputs", default="", help="folder of .npz files, called as models or their folders")
    parser.add_argument("--models", default=OURS, help="our own models, comma separated")
    common_arguments(parser, "warpbeam,ort")
    parser.set_defaults(threads="1,2")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a slice")
    args = parser.parse_args()
    models, peers = names(args.models, dict(MODELS), "model"), names(args.peers, dict(PEERS), "peer")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="wb-recurrent-") as into:
        chosen = cases(args.places, args.inputs, models, Path(into))
        for threads in (int(t) for t in args.threads.split(",")):
            for name, ref, path, flops in chosen:
                with Bench(peers, threads, clock="cpu" if threads == 1 else "wall") as bench:
                    rows.append(bench.measure(name, ref, path, flops, args.repeat, args.seconds))
                print(last_line(rows[-1], peers, 1e3), file=sys.stderr, flush=True)
    print(write(rows, peers, args.json, args.md, 1e3, "ms"))


if __name__ == "__main__":
    main()
