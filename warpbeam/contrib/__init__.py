"""Classic import paths: `from warpbeam.contrib import graph_executor`."""
