"""`warpbeam sign`: signs a compiled file, so that it can be opened with `--trusted` only if it is what was signed."""

from __future__ import annotations

import argparse
from pathlib import Path

from warpbeam.cli import console, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="a compiled model")
    parser.add_argument("--key", metavar="KEY.pem", help="Ed25519 private key, PEM without a password")
    parser.add_argument("-o", "--output", metavar="FILE", help="the signed file (default: FILE itself)")
    parser.add_argument("--new-keys", metavar="NAME", help="make NAME.pem (private) and NAME.pub.pem (public) first")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Makes keys, signs a file, or both."""
    from warpbeam.runtime.artifact import Artifact
    from warpbeam.runtime.errors import WarpbeamError
    from warpbeam.runtime.signature import fingerprint, make_keys, public_keys

    if not args.new_keys and not (args.file and args.key):
        raise WarpbeamError("nothing to do", hint="warpbeam sign model.wb --key my.pem, or warpbeam sign --new-keys my")
    done: dict[str, str] = {}
    key = args.key
    if args.new_keys:
        private, public = f"{args.new_keys}.pem", f"{args.new_keys}.pub.pem"
        done |= {"public_key": public, "fingerprint": fingerprint(make_keys(private, public))}
        key = key or private
    if args.file:
        output = Path(args.output or args.file)
        Artifact.load(args.file).save(output, key)
        done["signed"] = str(output)
    if args.json:
        console.emit_json(done)
        return 0
    if args.new_keys:
        print(f"{private}: keep it secret; {done['public_key']}: give it to those who load your files")
        print(f"fingerprint {fingerprint(public_keys(done['public_key'])[0])}")
    if args.file:
        print(f"{done['signed']}: signed")
    return 0
