"""`warpbeam.rpc`: sessions with a machine that runs compiled code, this one or another.

remote = rpc.connect("192.168.1.20", 9090, secret="...")     # or rpc.LocalSession()
remote.upload("lib.so")
f = remote.load_module("lib.so")
x, y = tvm.nd.array(a, remote.cpu()), tvm.nd.empty(a.shape, "float32", remote.cpu())
f(x, y)
f.time_evaluator(f.entry_name, remote.cpu(), number=100, repeat=3)(x, y)

The other end is `warpbeam rpc-server`, or the server in C (`SERVER_SOURCE`), which needs no Python: both speak the
protocol that the C source describes.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import RPCError
from .server import Server
from .session import LocalSession, RPCSession, connect
from .tracker import TrackerSession, connect_tracker

__all__ = [
    "SERVER_SOURCE", "LocalSession", "RPCError", "RPCSession", "Server", "TrackerSession", "connect", "connect_tracker",
    "write_server_source",
]  # fmt: skip

#: the device server's C source; it includes the headers next to it and `HEADER_PATH`
SERVER_SOURCE = Path(__file__).parents[1] / "device" / "server.c"


def write_server_source(folder: str | Path) -> list[Path]:
    """Writes all that the device server is compiled from into a folder: `cc -std=c11 -O2 server.c -pthread -ldl -lm`.

    Returns:
        The files.
    """
    from ..abi import HEADER_PATH

    Path(folder).mkdir(parents=True, exist_ok=True)
    sources = [SERVER_SOURCE, *sorted(SERVER_SOURCE.parent.glob("*.h")), HEADER_PATH]
    written = [Path(folder) / source.name for source in sources]
    for source, target in zip(sources, written, strict=True):
        target.write_bytes(source.read_bytes())
    return written
