"""Lowering: passes over loop programs, and their order."""

from warpbeam.tir.transform.pipeline import PASSES, lower

__all__ = ["PASSES", "lower"]
