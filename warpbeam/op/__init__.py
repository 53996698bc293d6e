"""Operators: one class holds every fact of an operator (types, NumPy reference, computation)."""

from __future__ import annotations

from warpbeam.op.table import get, names

__all__ = ["get", "names"]
