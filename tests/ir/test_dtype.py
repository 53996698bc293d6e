"""Facts of number types, small ones included, against NumPy's types of `ml_dtypes`."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam.ir import dtype as dt
from warpbeam.runtime.abi import DLPACK_TYPES, numpy_dtype
from warpbeam.tir.expr import const

ml_dtypes = pytest.importorskip("ml_dtypes")


@pytest.mark.parametrize("name", [*dt.SMALL_FLOATS, *dt.SMALL_INTS])
def test_small_types(name: str) -> None:
    assert dt.to_numpy(name) == np.dtype(getattr(ml_dtypes, name)) == numpy_dtype(name)
    assert dt.from_numpy(dt.to_numpy(name)) == name
    assert dt.nbytes(name) == 1 and dt.nbytes(f"{name}x16") == 16 and dt.bits(name) == DLPACK_TYPES[name][1]
    assert dt.is_small(f"{name}x4") and dt.carrier(f"{name}x4").endswith("int8x4")
    assert str(const(1, name)).startswith(f"{name}(") or name in str(const(1, name))


@pytest.mark.parametrize("name", dt.SMALL_FLOATS)
def test_limits_of_small_floats(name: str) -> None:
    info = ml_dtypes.finfo(dt.to_numpy(name))
    assert dt.is_float(name) and not dt.is_int(name)
    assert dt.SMALL_FLOATS[name].maximum == float(info.max)


@pytest.mark.parametrize("name", dt.SMALL_INTS)
def test_limits_of_small_integers(name: str) -> None:
    info = ml_dtypes.iinfo(dt.to_numpy(name))
    assert dt.is_int(name) and dt.int_range(name) == (info.min, info.max)


def test_other_types_carry_themselves() -> None:
    assert dt.carrier("int8") == "int8" and dt.carrier("bfloat16") == "bfloat16" and not dt.is_small("uint8")
