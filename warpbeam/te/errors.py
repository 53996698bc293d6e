"""Errors of the tensor-expression language."""

from __future__ import annotations

from warpbeam.ir.diagnostics import IRError


class TEError(IRError, ValueError):
    """A tensor expression is built from parts that do not fit together.

    It is a ValueError too, so that programs which catch that keep working.

    Wrong:
        te.compute((4, 4), lambda i: A[i, 0])  # one index for two dimensions
    Right:
        te.compute((4, 4), lambda i, j: A[i, j])
    """
