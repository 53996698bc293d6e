"""Models with open batch and length or size: a random stream of shapes through one artefact.

For each shape of the stream, Warpbeam's one artefact and onnxruntime's one session answer in turn: the first answer is
what a server gives at a shape it has not seen before. At a sample of the shapes, artefacts compiled for just that shape
are measured beside them, in short slices in turn.

For instance:
    python -m benchmarks.dynamic --models bert,mobilenetv2 --threads 1,2 --shapes 200 --json dynamic.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .harness import PeerProcess, WorkerFailed, relative_difference
from .symbolic import symbolic_path
from .table import geomean, machine

Specs = list[list[Any]]
PEERS = ("warpbeam", "ort")


@dataclass(frozen=True)
class Stream:
    """A model, the extents that are open, and how requests are drawn."""

    dims: dict[str, int]
    draw: Callable[[np.random.Generator], Specs]


def _tokens(rng: np.random.Generator) -> Specs:
    shape = [int(rng.integers(1, 5)), int(rng.integers(8, 129))]
    made = (("input_ids", 30522, False), ("attention_mask", 0, True), ("token_type_ids", 2, False))
    return [[name, shape, "int64", high, ones] for name, high, ones in made]


def _images(rng: np.random.Generator) -> Specs:
    batch, high, wide = int(rng.integers(1, 5)), *(int(v) for v in rng.integers(96, 257, 2))
    return [["input", [batch, 3, high, wide], "float32", 0, False]]


STREAMS: dict[str, Stream] = {
    "bert": Stream({"batch": 2, "seq": 37}, _tokens),
    "mobilenetv2": Stream({"batch": 2, "size": 96}, _images),
    "resnet50": Stream({"batch": 2, "size": 96}, _images),
}


@dataclass
class Request:
    """One shape: seconds of the first answer and the median of the later ones, by peer."""

    shape: list[int]
    first: dict[str, float] = field(default_factory=dict)
    later: dict[str, float] = field(default_factory=dict)
    rel_diff: float = 0.0


@dataclass
class Sample:
    """One shape with an artefact of its own beside the dynamic one: median seconds by peer."""

    shape: list[int]
    median: dict[str, float]


@dataclass
class Row:
    """One model at one thread count. compiled: artefacts that Warpbeam made, the whole stream long: more than one would
    be a stall to compile.
    """

    name: str
    threads: int
    requests: list[Request]
    samples: list[Sample]
    compiled: int
    load: dict[str, float]

    def ratios(self, kind: str) -> list[float]:
        """onnxruntime's time over Warpbeam's, for each shape."""
        return [getattr(r, kind)["ort"] / getattr(r, kind)["warpbeam"] for r in self.requests]

    def total(self, kind: str) -> float:
        """onnxruntime's time over Warpbeam's, for the whole stream."""
        ours, theirs = (sum(getattr(r, kind)[p] for r in self.requests) for p in PEERS)
        return theirs / ours

    def slow(self, peer: str) -> int:
        """First answers that took twice as long as the later ones and 20 ms more, as where memory grows."""
        return sum(r.first[peer] > 2 * r.later[peer] + 0.02 for r in self.requests)

    def of_static(self) -> list[float]:
        """The speed of the dynamic artefact as a share of the static one's, for each sampled shape."""
        return [s.median["static"] / s.median["warpbeam"] for s in self.samples]

    def to_json(self) -> dict[str, Any]:
        """Everything, with the derived numbers."""
        derived = {"first": self.total("first"), "later": self.total("later"), "compile_stalls": self.compiled - 1}
        return asdict(self) | derived | {"of_static": self.of_static()}


def measure(name: str, threads: int, count: int, sampled: int, seed: int, runs: int, seconds: float) -> Row:
    """Runs a model's stream."""
    stream, path = STREAMS[name], symbolic_path(name, STREAMS[name].dims)
    rng = np.random.default_rng(seed)
    drawn = [stream.draw(rng) for _ in range(count)]
    workers = {p: PeerProcess(p, threads, module="benchmarks.stream_worker") for p in (*PEERS, "static")}
    try:
        load = {p: w.ask(do="open", path=str(path), threads=threads)["load_s"] for p, w in workers.items()}
        requests, compiled = [], 0
        for index, specs in enumerate(drawn):
            request, compiled = _answer(workers, specs, index, runs)
            requests.append(request)
        samples = [_compare(workers, drawn[k], seconds) for k in range(0, count, max(1, count // max(1, sampled)))]
    finally:
        for worker in workers.values():
            worker.close()
    return Row(name, threads, requests, samples[:sampled], compiled, load)


def _answer(workers: dict[str, PeerProcess], specs: Specs, index: int, runs: int) -> tuple[Request, int]:
    request, compiled = Request(specs[0][1]), 0
    with tempfile.TemporaryDirectory(prefix="wb-bench-") as folder:
        for peer in PEERS if index % 2 else PEERS[::-1]:
            save = str(Path(folder, f"{peer}.npz"))
            got = workers[peer].ask(do="feed", specs=specs, runs=runs + 1, save=save)
            request.first[peer], request.later[peer] = got["samples"][0], float(np.median(got["samples"][1:]))
            compiled = got["compiled"] if peer == "warpbeam" else compiled
        with np.load(Path(folder, "warpbeam.npz")) as ours, np.load(Path(folder, "ort.npz")) as theirs:
            request.rel_diff = relative_difference(dict(ours), dict(theirs))
    return request, compiled


def _compare(workers: dict[str, PeerProcess], specs: Specs, seconds: float) -> Sample:
    """All peers at one shape, in short slices in turn."""
    times: dict[str, list[float]] = {p: [] for p in workers}
    for worker in workers.values():
        worker.ask(do="feed", specs=specs, runs=2, save="")
    for k in range(6):
        for peer in list(workers)[k % 3 :] + list(workers)[: k % 3]:
            times[peer] += workers[peer].ask(do="slice", seconds=seconds)["samples"]
    return Sample(specs[0][1], {p: float(np.median(t)) for p, t in times.items()})


def _spread(values: list[float]) -> str:
    low, middle, high = np.percentile(values, (10, 50, 90)) if values else (np.nan,) * 3
    return f"{middle:.2f} [{low:.2f}-{high:.2f}]"


def markdown(rows: list[Row], seed: int) -> str:
    """The table."""
    out = [
        f"Streams of random shapes, seed {seed}. Ratios above 1: Warpbeam is faster. Median [p10-p90] over shapes.\n",
        "|model|threads|shapes|ort / ours, whole stream: first answers|later|ort / ours, a shape|static / ours, a shape"
        "|compile stalls|slow first answers: ours, ort|largest rel diff|",
        "|" + "-|" * 10,
    ]
    out += [
        f"|{r.name}|{r.threads}|{len({tuple(q.shape) for q in r.requests})}|{r.total('first'):.2f}"
        f"|{r.total('later'):.2f}"
        f"|{_spread(r.ratios('later'))}|{_spread(r.of_static())}, mean {geomean(r.of_static()):.2f}"
        f"|{r.compiled - 1}|{r.slow('warpbeam')}, {r.slow('ort')}|{max(q.rel_diff for q in r.requests):.0e}|"
        for r in rows
    ]
    return "\n".join(out) + "\n"


def main() -> None:
    """Measure the chosen models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="bert,mobilenetv2", help=f"comma separated, of {', '.join(STREAMS)}")
    parser.add_argument("--threads", default="2", help="comma separated thread counts")
    parser.add_argument("--shapes", type=int, default=200, help="requests in a stream")
    parser.add_argument("--sampled", type=int, default=8, help="shapes at which a static artefact is measured too")
    parser.add_argument("--runs", type=int, default=3, help="answers at each shape after the first")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a slice beside static artefacts")
    parser.add_argument("--seed", type=int, default=0, help="of the shapes")
    parser.add_argument("--json", default="", help="write all results here")
    args = parser.parse_args()
    rows: list[Row] = []
    for name in args.models.split(","):
        if name not in STREAMS:
            sys.exit(f"unknown model {name!r}; known: {', '.join(STREAMS)}")
        for threads in (int(t) for t in args.threads.split(",")):
            try:
                rows.append(measure(name, threads, args.shapes, args.sampled, args.seed, args.runs, args.seconds))
            except WorkerFailed as error:
                sys.exit(f"{name}: {error}")
            if args.json:
                data = {"machine": machine(), "seed": args.seed, "rows": [r.to_json() for r in rows]}
                Path(args.json).write_text(json.dumps(data, indent=1) + "\n")
    print(markdown(rows, args.seed))


if __name__ == "__main__":
    main()
