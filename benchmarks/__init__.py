"""Benchmarks: models built from code, the same work on Warpbeam and on its peers, measured interleaved."""
