"""`--remote`: a model runs and is timed on another machine, where a device server listens."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from warpbeam.cli import console, rpc_server
from warpbeam.runtime.errors import RPCError


def add_remote(parser: argparse.ArgumentParser, runs: bool = True) -> None:
    """Adds the options that say where a model runs, or, where it does not run, where `--guard` measures."""
    what = "run it there, on a device server; --guard measures there too" if runs else "--guard measures there, on a "
    what += "" if runs else "device server"
    group = parser.add_argument_group("another machine")
    group.add_argument("--remote", type=place, metavar="HOST:PORT",
                       help=f"{what}; --target says which machine that is")  # fmt: skip
    parser.set_defaults(runs_there=runs)
    rpc_server.add_secret(group)
    group.add_argument("--key", default="", metavar="NAME", help="the server must have this name; with --tracker, "
                       "any server of it")  # fmt: skip
    group.add_argument("--tracker", action="store_true", help="--remote is a tracker, which lends a device server")


def place(text: str) -> tuple[str, int]:
    """(host, port) from `HOST:PORT`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f'cannot read {text!r}; write it as "192.168.1.20:9090"')
    return host.strip("[]"), int(port)


def loaded(args: argparse.Namespace, model: Any) -> Any:
    """A model there: one that was compiled here, or a file.

    Args:
        model: a `CompiledModel`, or the path of a compiled file or an exported library.

    Raises:
        RPCError: if nobody answers, or with the wrong secret.
        LoadError: if it is for another machine than that.
    """
    with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder, console.progress(f"sending it to {args.remote[0]}"):
        path = Path(model) if isinstance(model, str) else Path(folder, "model.wb")
        if not isinstance(model, str):
            model.save(path)
        remote = session(args)
        remote.upload(path, path.name)
        return remote.load_module(path.name)


def session(args: argparse.Namespace) -> Any:
    """The session with the machine that was named, which lasts until the command ends."""
    if "session" not in args:
        args.session = _connected(args)
    return args.session


def _connected(args: argparse.Namespace) -> Any:
    from warpbeam.runtime import rpc

    host, port = args.remote
    secret = rpc_server.secret_of(args, make=False)
    until_the_end = args.cleanup.enter_context
    if not args.tracker:
        return until_the_end(rpc.connect(host, port, key=args.key, secret=secret))
    if not args.key:
        raise RPCError("the tracker must know which device is wanted", hint="add --key NAME")
    tracker = until_the_end(rpc.connect_tracker(host, port, secret=secret))
    return until_the_end(tracker.request(args.key))
