"""Which of the ONNX standard's own cases become compiled code alone, and which call functions of the host.

    python -m benchmarks.onnx_suite [--filter REGEX] [--json OUT]

Every case that the onnx package ships is imported with its own inputs, as the backend does; nothing is compiled. The
values are the business of the suite itself, over `warpbeam.frontend.onnx.backend`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Function
from warpbeam.relay.op import Op
from warpbeam.testing.onnx_backend import Compiled

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


class Imported(Compiled):
    """A prepared model that stops where it would be compiled: in place of a module, the names of its host calls."""

    def _compile(self, imported: Any) -> tuple[Any, list[str]]:
        functions = [f for f in imported.module.functions.values() if isinstance(f, Function)]
        calls = [c for f in functions for c in post_order(f) if isinstance(c, Call) and isinstance(c.op, Op)]
        return sorted({str(c.attrs["function"]) for c in calls if c.op.host}), []


def cases() -> list[tuple[str, Any, list[Any]]]:
    """(name, model, first inputs) of every case whose model is at hand."""
    import onnx
    from onnx import numpy_helper
    from onnx.backend.test.loader import load_model_tests

    out: list[tuple[str, Any, list[Any]]] = []
    for kind in KINDS:
        for case in load_model_tests(kind=kind):
            if case.model is not None:
                out.append((case.name, case.model, list(case.data_sets[0][0])))
                continue
            folder = Path(case.model_dir)
            tensors = [onnx.load_tensor(str(p)) for p in sorted(folder.glob("test_data_set_0/input_*.pb"))]
            out.append((case.name, onnx.load(str(folder / "model.onnx")), [numpy_helper.to_array(t) for t in tensors]))
    return out


def main() -> int:
    """Count and print; 1 if a case is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", help="only cases whose name it matches")
    parser.add_argument("--json", default="", help="write what each case calls here")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    for name, model, inputs in cases():
        if re.search(args.filter, name):
            try:
                prepared = Imported(model, {})
                found[name] = prepared._module(prepared._named(inputs))[0]
            except WarpbeamError as e:
                refused[name] = str(e).splitlines()[0]
    host = {n: c for n, c in found.items() if c}
    print(f"{len(found) - len(host)} cases compiled alone, {len(host)} with host calls, {len(refused)} refused")
    for function, count in Counter(f for c in host.values() for f in c).most_common():
        print(f"  {function}: {count}")
    for name, why in refused.items():
        print(f"  refused {name}: {why}")
    if args.json:
        Path(args.json).write_text(json.dumps({"calls": found, "refused": refused}, indent=1) + "\n")
    return bool(refused)


if __name__ == "__main__":
    sys.exit(main())
