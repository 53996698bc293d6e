"""`python -m warpbeam.exec.rpc_tracker`: the same as `warpbeam rpc-tracker`."""

from __future__ import annotations

import sys

from warpbeam.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["rpc-tracker", *sys.argv[1:]]))
