"""`python -m warpbeam.exec.rpc_server`: the same as `warpbeam rpc-server`."""

from __future__ import annotations

import sys

from warpbeam.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["rpc-server", *sys.argv[1:]]))
