"""A process that compiles one model for some sizes: a line of JSON in on stdin, an answer out on stdout.

The request has what `compile` was given ("path", or "bytes" that follow the line), the sizes, and the file to write;
the answer is {"ok"}, and "why" where it is false.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from warpbeam.driver.api import compile as compile_model
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.ir.transform import PassContext
from warpbeam.target import Target

_NICE = 10
_OPTIONS = ("shapes", "opt_level", "cache", "workers", "name", "accuracy", "precision", "guard", "max_memory")


def made(request: dict[str, Any], payload: bytes) -> dict[str, Any]:
    """Compiles and writes the file; the answer."""
    level, required, disabled, config = request["context"]
    options = {k: request[k] for k in _OPTIONS}
    targets = [Target.from_text(t) for t in request["targets"]]
    try:
        with PassContext(level, required, disabled, config=config):
            compile_model(payload or request["path"], target=targets, **options).save(request["to"])
    except (WarpbeamError, OSError) as error:
        return {"ok": False, "why": str(error)}
    return {"ok": True}


def main() -> None:
    """Entry of the process, which leaves the machine to whoever needs it."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(_NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints may disturb the answer
    request = json.loads(sys.stdin.buffer.readline())
    answers.write(json.dumps(made(request, sys.stdin.buffer.read(request["bytes"]))).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
