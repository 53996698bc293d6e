"""`warpbeam reduce`: a failing model made smaller while it still fails."""

from __future__ import annotations

import argparse
import sys

from warpbeam.cli import options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("model", metavar="MODEL.onnx", help="the model that fails")
    parser.add_argument(
        "--check", required=True, metavar="crash|wrong|refused|COMMAND",
        help="what the smaller model must still do; a shell command gets its path for {} and must fail as at first",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE.onnx", help="where it goes (default: MODEL.reduced.onnx)")
    parser.add_argument("-i", "--inputs", metavar="FILE.npz", help="arrays by input name; what is missing is random")
    parser.add_argument("--seed", type=options.count, default=0, help="seed of random inputs (default: 0)")
    parser.add_argument("--opt-level", type=options.count, default=3, metavar="N", help="0 to 4 (default: 3)")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of one check; longer is a crash")
    parser.add_argument("--checks", type=options.count, default=2000, help="how many are made at most (default: 2000)")
    options.add_sizes(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the smaller model, and the arrays with which it fails; exit code 1 where the check does not hold."""
    from pathlib import Path

    import numpy as np
    import onnx

    from warpbeam.cli import files
    from warpbeam.testing.reduce import Reducer
    from warpbeam.testing.reduce_checks import check_of

    path = Path(args.model)
    model = onnx.load(path)
    given = files.read_npz(args.inputs) if args.inputs else {}
    inputs = _inputs(model, args.seed, dict(args.sizes or {}), given)
    reducer = Reducer(
        check_of(args.check, args.opt_level, args.seconds), args.checks, lambda text: print(text, file=sys.stderr)
    )
    try:
        found = reducer.reduce(model, inputs)
    except ValueError as e:
        print(f"error: {args.model}: {e}\n  what to do: see what `warpbeam verify` says of it", file=sys.stderr)
        return 1
    out = Path(args.output) if args.output else path.with_suffix(".reduced.onnx")
    onnx.save(found.model, out)
    np.savez(out.with_suffix(".npz"), **found.inputs)
    (now, elements), beside = found.size, out.with_suffix(".npz")
    print(f"{out}: {now} of {len(model.graph.node)} nodes, {elements} elements, {reducer.tried} checks")
    print(f"inputs in {beside}")
    return 0


def _inputs(model: object, seed: int, sizes: dict[str, int], given: dict[str, object]) -> dict[str, object]:
    """Arrays for all inputs: those given, random ones else; a symbolic dimension is what `sizes` says, or 2."""
    import numpy as np
    from onnx import helper

    rng, found = np.random.default_rng(seed), {}
    held = {t.name for t in model.graph.initializer}  # type: ignore[attr-defined]
    for value in model.graph.input:  # type: ignore[attr-defined]
        if value.name in held:
            continue
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        dims = value.type.tensor_type.shape.dim
        shape = [sizes.get(d.dim_param, 2) if d.dim_param or not d.HasField("dim_value") else d.dim_value for d in dims]
        array = rng.standard_normal(shape) if kind.kind not in "iu" else rng.integers(0, 4, shape)
        found[value.name] = np.asarray(given.get(value.name, array)).astype(kind, copy=False)
    return found
