"""Programs under their classic paths: `python -m warpbeam.exec.rpc_server`."""
