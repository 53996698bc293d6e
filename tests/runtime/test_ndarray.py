"""Arrays, devices, and exchange of memory with other libraries."""

from __future__ import annotations

import gc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from warpbeam.runtime import RunError, array, as_numpy, cpu, cuda, device, dlpack, empty, from_dlpack, gpu
from warpbeam.runtime.context import HostContext
from warpbeam.runtime.memory import LARGE_PAGE, address_of, aligned_bytes

TYPES = [*"?bBhHiIlLefdFD", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


def test_devices() -> None:
    assert str(cpu()) == "cpu(0)" and gpu is cuda and device("cuda:1") == cuda(1) == device("gpu", 1)
    assert device(2).kind == "cuda"
    for bad in ("tpu", "cuda:x"):
        with pytest.raises(RunError, match="unknown device"):
            device(bad)
    with pytest.raises(RunError, match="no memory manager"):
        empty((2,), device=device(99))


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_dlpack_round_trip(kind: Any) -> None:
    source = np.arange(24).astype(np.dtype(kind)).reshape(2, 3, 4)
    for view in (source, source.T, source[:, ::2], source[::-1], source[0, 0, 0], source[:0]):
        adopted = dlpack.adopt(dlpack.export(np.asarray(view)))
        assert adopted.dtype == source.dtype and adopted.shape == view.shape
        assert adopted.tobytes() == np.asarray(view).tobytes()
        if view.size > 1:
            assert np.shares_memory(adopted, source)
    gc.collect()
    assert not dlpack._exported, "consumed capsules are freed"


def test_unconsumed_capsules_are_freed() -> None:
    capsule = dlpack.export(np.zeros(3))
    assert len(dlpack._exported) == 1
    del capsule
    gc.collect()
    assert not dlpack._exported


def test_memory_lives_as_long_as_its_views() -> None:
    adopted = dlpack.adopt(dlpack.export(np.arange(1000.0)))
    gc.collect()
    part = adopted[500:]
    del adopted
    gc.collect()
    assert part[0] == 500 and len(dlpack._exported) == 1
    del part
    gc.collect()
    assert not dlpack._exported


def test_numpy_reads_ours_and_we_read_numpy() -> None:
    ours = array(np.arange(6.0).reshape(2, 3))
    theirs = np.from_dlpack(ours)
    ours[0, 0] = 42
    assert theirs[0, 0] == 42
    assert np.array_equal(np.asarray(ours), theirs)
    source = np.arange(5, dtype=np.int16)
    shared = from_dlpack(source)
    source[0] = 9
    assert shared.numpy()[0] == 9


def test_copies() -> None:
    a, b = array([1.5, 2.5]), empty((2,), "float64")
    assert a.copyto(b) is b and b.numpy().tolist() == [1.5, 2.5]
    assert a.copyto(cpu()).numpy().tolist() == [1.5, 2.5]
    b.copyfrom(np.zeros(2))
    assert b.asnumpy().tolist() == [0, 0] and (b.shape, b.dtype, b.ndim, b.size, len(b)) == ((2,), "float64", 1, 2, 2)
    b[1] = 3.0
    assert b[1] == 3.0 and b[1:].numpy().tolist() == [3.0] and "float64" in repr(b)
    with pytest.raises(RunError, match=r"float64 \(2,\) into float32"):
        a.copyto(empty((2,), "float32"))


def test_as_numpy_compacts_without_casting() -> None:
    source = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert as_numpy(source) is source
    compact = as_numpy(source.T)
    assert compact.flags.c_contiguous and np.array_equal(compact, source.T)
    assert np.shares_memory(as_numpy(source.T, compact=False), source)
    native = as_numpy(source.astype(">i2"))
    assert native.dtype == np.int16 and np.array_equal(native, source)
    assert as_numpy(np.float32(3)).shape == ()
    for bad in ("text", [1, 2], None, 3.5):
        with pytest.raises(RunError, match="is not an array"):
            as_numpy(bad)


def test_tensors_on_other_devices_are_refused() -> None:
    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **_: Any) -> Any:
            raise AssertionError("must not be asked")

    with pytest.raises(RunError, match=r"cuda\(0\)"):
        as_numpy(Elsewhere())


def test_unknown_element_types_have_no_capsule() -> None:
    with pytest.raises(RunError, match="no DLPack code"):
        dlpack.export(np.array(["a"]))
    with pytest.raises(RunError, match="float7"):
        empty((1,), "float7")


@pytest.mark.parametrize("size", [0, 1, 100, 1 << 20, (2 << 20) + 1])
def test_aligned_memory(size: int) -> None:
    memory = aligned_bytes(size)
    assert memory.size == size and (size == 0 or memory.ctypes.data % 64 == 0)
    memory[:] = 1


@pytest.mark.parametrize("size", [2 << 20, 3 << 20, (4 << 20) + 64])
def test_large_scratch_memory_lies_in_large_pages(size: int) -> None:
    context = HostContext(0, 0, 0, 0, 1)
    context.reserve(size)
    assert context.arena.size == size and context.arena.ctypes.data % LARGE_PAGE == 0


def test_address_of_agrees_with_numpy() -> None:
    source = np.arange(10, dtype=np.float32)
    for view in (source, source[3:], source[::-1], source.reshape(2, 5).T, np.array(1.0), np.zeros((0, 3))):
        assert address_of(view) == view.ctypes.data
