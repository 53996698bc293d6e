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
from collections.abc import Callable
from typing import Any

from warpbeam.codegen.machine import binding, emit

Answer = Callable[[dict[str, Any], bytes], bytes]


def limit_memory(limit: int) -> None:
    """Bounds the address space of this process, in bytes, where the system can; 0: no bound."""
    if limit <= 0:
        return
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def answering(answer: Answer, failures: tuple[type[Exception], ...]) -> None:
    """Answers requests on stdin, on stdout, until stdin ends, and the process with it; what prints goes to stderr.

    answer: gives the payload of the answer to a head and a payload. failures: errors that are an answer, too.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    while line := requests.readline():
        head = json.loads(line)
        data = requests.read(head["bytes"])
        try:
            ok, payload = True, answer(head, data)
        except failures as error:
            ok, payload = False, (str(error) or type(error).__name__).encode()
        answers.write(json.dumps({"ok": ok, "bytes": len(payload)}).encode() + b"\n" + payload)
        answers.flush()
    os._exit(0)  # nothing is left to save, and whoever closed the stream may wait for the end


def _object(head: dict[str, Any], data: bytes) -> bytes:
    return emit(data.decode(), head["machine"], head["level"], head.get("assembly", False))


def main() -> None:
    """Entry of the process; argument 1: memory limit in bytes (0 = none)."""
    limit_memory(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    binding()
    answering(_object, (RuntimeError, MemoryError, ValueError))


if __name__ == "__main__":
    main()
