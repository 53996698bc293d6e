"""`warpbeam rpc-tracker`: knows where device servers are, and lends each to one client at a time."""

from __future__ import annotations

import argparse

from warpbeam.cli import rpc_server


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="where to listen; 0.0.0.0: all addresses (default: 127.0.0.1)")  # fmt: skip
    parser.add_argument("--port", type=int, default=9190, metavar="N", help="0: any that is free (default: 9190)")
    parser.add_argument("--device", action="append", default=[], metavar="KEY=HOST:PORT",
                        help="a device server; several may have one key (give the option once for each)")  # fmt: skip
    rpc_server.add_secret(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    from warpbeam.runtime.rpc import tracker

    devices = tracker.parse_devices(args.device)
    served = tracker.Tracker(devices, rpc_server.secret_of(args))
    served.run(args.host, args.port, lambda port: print(f"listening on {args.host}:{port}", flush=True))
    return 0
