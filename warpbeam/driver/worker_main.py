"""A compiling worker: LLVM IR text in on stdin, object bytes out on stdout, until stdin ends.

A request is a line of JSON {"name", "bytes", "machine", "level"} followed by `bytes` bytes of text. An answer is a line
of JSON {"ok", "bytes"} followed by the object, or by LLVM's complaint. LLVM may abort the process on texts it cannot
compile: that is why this is a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import IO

from warpbeam.codegen.machine import binding, emit


def limit_memory(limit: int) -> None:
    """Bounds the address space of this process, in bytes, where the system can; 0: no bound."""
    if limit <= 0:
        return
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answers requests until the stream ends."""
    while line := requests.readline():
        head = json.loads(line)
        text = requests.read(head["bytes"]).decode()
        try:
            ok, payload = True, emit(text, head["machine"], head["level"], head.get("assembly", False))
        except (RuntimeError, MemoryError, ValueError) as error:
            ok, payload = False, (str(error) or type(error).__name__).encode()
        answers.write(json.dumps({"ok": ok, "bytes": len(payload)}).encode() + b"\n" + payload)
        answers.flush()


def main() -> None:
    """Entry of the process; argument 1: memory limit in bytes (0 = none)."""
    limit_memory(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that prints may disturb the answers
    binding()
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
