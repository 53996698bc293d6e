"""What `verify` says of extents and arrays that it cannot know."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

from warpbeam.driver.verify import verify
from warpbeam.ir.diagnostics import VerifyError
from warpbeam.runtime.errors import RunError


def _model(text: str) -> Any:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')


PIECES = """g (float[n, m] x) => (float[n, a] y, float[n, b] z) {
    s = Constant <value_ints = [3, 5]> ()  y, z = Split <axis = 1> (x, s) }"""


def test_names_that_no_extent_has() -> None:
    with pytest.raises(RunError, match="no extent is called q"):
        verify(_model("g (float[n, m] x) => (float[n, m] y) { y = Relu(x) }"), symbols={"q": 5})
    with pytest.raises(RunError, match="no extent is called q") as error:
        verify(_model("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }"), symbols={"q": 5})
    assert "all extents of this model are fixed" in str(error.value)


def test_a_sequence_of_nobody_knows_how_many() -> None:
    model = _model("g (seq(float[n, m]) x) => (float[a, m] y) { y = ConcatFromSequence <axis = 0> (x) }")
    with pytest.raises(VerifyError, match="no array is known for input 'x'"):
        verify(model)


def test_extents_that_inputs_have_are_taken() -> None:
    model = _model("g (float[n, m] x, float[m] b) => (float[n, m] y) { y = Add(x, b) }")
    result = verify(model, inputs={"x": np.ones((3, 4), np.float32)})
    assert result.passed and result.sizes == {}


def test_pieces_of_an_open_dimension_are_all_of_it() -> None:
    result = verify(_model(PIECES))
    assert result.passed and result.sizes == {"m": 8}
    for size in (7, 9):
        with pytest.raises(RunError, match="m, and the 8 that the model needs"):
            verify(_model(PIECES), symbols={"m": size})
