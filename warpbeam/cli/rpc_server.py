"""`warpbeam rpc-server`: lets other machines upload compiled code, run it here and measure it."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="where to listen; 0.0.0.0: all addresses (default: 127.0.0.1)")  # fmt: skip
    parser.add_argument("--port", type=int, default=9090, metavar="N", help="0: any that is free (default: 9090)")
    add_secret(parser)
    parser.add_argument("--key", default="", metavar="NAME", help="a name that clients may ask for")
    parser.add_argument("--folder", default="", metavar="DIR", help="where files of sessions go")
    parser.add_argument("--max-bytes", type=int, default=1 << 30, metavar="N",
                        help="limit of a session's files, and of its arrays (default: 1 GiB)")  # fmt: skip
    parser.add_argument("--idle", type=float, default=3600.0, metavar="SECONDS",
                        help="a session without requests ends after this time (default: 3600)")  # fmt: skip
    parser.add_argument("--max-sessions", type=int, default=4, metavar="N", help="at the same time (default: 4)")
    parser.add_argument("--silent", action="store_true", help="print nothing")
    parser.add_argument("--write-c", metavar="FOLDER", help="write the C source of the server that needs no Python, "
                        "and end")  # fmt: skip


def add_secret(parser: Any) -> None:
    """Adds the option that says what clients must know."""
    parser.add_argument("--secret-file", metavar="FILE", help="what both ends must know; a server makes a file that is "
                        "not there (default: the environment variable WARPBEAM_RPC_SECRET)")  # fmt: skip


def secret_of(args: argparse.Namespace, make: bool = True) -> bytes:
    """The secret that was given; RPCError if there is none. `make`: a file that is not there is made."""
    from warpbeam.runtime.rpc import wire

    return wire.checked_secret(_secret(Path(args.secret_file), make) if args.secret_file else None)


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM, or writes the C source."""
    from warpbeam.runtime.rpc import write_server_source
    from warpbeam.runtime.rpc.service import Service

    if args.write_c:
        files = write_server_source(args.write_c)
        print(f"{args.write_c}: {', '.join(f.name for f in files)}")
        print(f"cc -std=c11 -O2 {files[0]} -o wb-server -pthread -ldl -lm")
        return 0
    limits = args.max_bytes, args.idle, max(args.max_sessions, 1)
    Service(secret_of(args), args.host, args.port, args.key, *limits, args.folder, args.silent).run()
    return 0


def _secret(path: Path, make: bool) -> bytes:
    """The content of a file, which is made for its owner only if it is not there and `make` allows it."""
    if make and not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(16) + "\n")
    return path.read_bytes()
