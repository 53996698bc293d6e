"""`contrib.util`: the oldest name of `contrib.utils`."""

from __future__ import annotations

from warpbeam.contrib.utils import TempDirectory, tempdir

__all__ = ["TempDirectory", "tempdir"]
