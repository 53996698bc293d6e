"""Equalities that a type rule takes for granted are listed for the host program to check."""

from __future__ import annotations

import pytest

from warpbeam import op
from warpbeam.ir.diagnostics import TypeCheckError
from warpbeam.op.assumed import equalities
from warpbeam.relay.types import TensorType
from warpbeam.tir.expr import SizeVar


def test_undecided_channels_are_listed() -> None:
    c = SizeVar("c")
    conv = op.get("nn.conv2d")
    types = [TensorType((1, c, 8, 8)), TensorType((4, 3, 3, 3))]
    (found,) = equalities(conv, types, conv.attrs({}))
    assert found[0] is c and found[1] == 3 and "nn.conv2d" in found[2]


def test_decided_dimensions_are_not() -> None:
    n = SizeVar("n")
    dense = op.get("nn.dense")
    assert equalities(dense, [TensorType((n, 7)), TensorType((5, 7))], dense.attrs({})) == []


def test_certain_disagreement_is_an_error() -> None:
    dense = op.get("nn.dense")
    with pytest.raises(TypeCheckError, match=r"nn\.dense.*summed dimensions do not agree: 6 and 7"):
        dense.infer([TensorType((2, 6)), TensorType((5, 7))], dense.attrs({}))
