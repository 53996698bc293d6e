"""A scheduling process: groups in on stdin, kernels out on stdout, until stdin ends. See `schedulers`.

A request is a line of JSON {"bytes"} and a packed (function, numbers of the constant operands, what is known of its
sizes, (target, context)). An answer is a line of JSON {"ok", "bytes"} and a packed (kernel, whether its
sketch knows runners-up, the places of its sizes among the function's open ones), or why there is none.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from warpbeam.driver.collector import collector_paused
from warpbeam.driver.kernels import KernelSet, open_sizes
from warpbeam.driver.worker_main import answering, limit_memory
from warpbeam.ir.transform import PassContext
from warpbeam.ir.wire import packed, unpacked
from warpbeam.topi import dims


def made(head: dict[str, Any], data: bytes) -> bytes:
    """The answer to a request."""
    with collector_paused():
        fn, constants, told, (target, (level, required, disabled, config)) = unpacked(data)
        dims.tell(told)
        with PassContext(level, required, disabled, config=config):
            kernel = KernelSet(target).of(fn, constants)
        sent = replace(kernel, plan=replace(kernel.plan, others=None))
        sizes = open_sizes(fn)
        places = tuple(sizes.index(v) for v in kernel.sizes)
        return packed((sent, kernel.plan.others is not None, places), sent.plan.func, sent.func)


def main() -> None:
    """Entry of the process; argument 1: memory limit in bytes (0 = none)."""
    limit_memory(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    answering(made, (Exception,))


if __name__ == "__main__":
    main()
