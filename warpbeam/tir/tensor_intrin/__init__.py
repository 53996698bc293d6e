"""Tensor intrinsics: instructions over small tensors as data; see `record` for what one is, `table` for all of them."""

from warpbeam.tir.tensor_intrin.record import TensorIntrin
from warpbeam.tir.tensor_intrin.table import get, names, resolve

__all__ = ["TensorIntrin", "get", "names", "resolve"]
