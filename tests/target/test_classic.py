"""Classic target strings: what each option does, the current target, errors."""

from __future__ import annotations

import pytest

import warpbeam as tvm
from warpbeam.target import Target, TargetError, get, named


def test_plain_llvm_is_this_machine() -> None:
    assert Target("llvm") == get("native") and Target("llvm") is Target("llvm")
    assert tvm.target.create("llvm") == get("native") == tvm.target.llvm()
    assert Target(get("native")) is get("native")
    assert Target("llvm").kind == "llvm" and Target("llvm").kind.name == "llvm" and Target("llvm").keys == ["cpu"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("llvm", "llvm -keys=cpu"), ("cuda -arch=sm_75", "cuda -keys=cuda,gpu -arch=sm_75"), ("native", "native"),
        ("llvm -mcpu=skylake-avx512", "llvm -keys=cpu -mcpu=skylake-avx512"), ("znver4", "znver4"),
        ("llvm -keys=arm_cpu,cpu -mtriple=aarch64-linux-gnu", "llvm -keys=arm_cpu,cpu -mtriple=aarch64-linux-gnu"),
    ],
)  # fmt: skip
def test_text(given: str, text: str) -> None:
    t = Target(given)
    assert str(t) == text and Target(text) == t and Target(t.to_text()) == t
    assert str(t.replace(cores=3)) == t.name  # what was said is no longer true


@pytest.mark.parametrize(
    ("cpu", "bits"), [("skylake-avx512", 512), ("core-avx2", 256), ("nehalem", 128), ("cortex-a72", 128)]
)
def test_mcpu_names_a_processor(cpu: str, bits: int) -> None:
    t = Target(f"llvm -mcpu={cpu}")
    assert (t.mcpu, t.vector_bits) == (cpu, bits)
    assert Target({"kind": "llvm", "mcpu": cpu}) == t


def test_mattr_widens_and_is_kept() -> None:
    t = Target("llvm -mcpu=nehalem -mattr=+avx2,-sse4a")
    assert t.vector_bits == 256 and t.fma and t.mattr == ["+avx2", "-sse4a"] and t.cpu == "nehalem"
    assert t.attrs["mattr"] == ["+avx2", "-sse4a"]
    vnni = Target("llvm -mcpu=skylake-avx512 -mattr=+avx512vnni")
    assert vnni.intrinsic("dot4.uint8.int8.x16") and "avx512vnni" in vnni.required_features


def test_mtriple_is_another_machine() -> None:
    t = Target("llvm -mtriple=aarch64-linux-gnu -mattr=+neon -keys=arm_cpu,cpu -device=arm_cpu")
    assert t.triple == "aarch64-linux-gnu" and t.fma and t.keys == ["arm_cpu", "cpu"] and t.device_name == "arm_cpu"
    assert Target(t.to_text()) == t
    assert tvm.target.arm_cpu("rasp4b64").mcpu == "cortex-a72"


def test_gpus() -> None:
    t = Target("cuda -arch=sm_70 -libs=cudnn,cublas", host="llvm")
    assert t.kind == "cuda" and t.arch.split("_") == ["sm", "70"] and t.host == "llvm" and t.libs == ["cudnn", "cublas"]
    assert t.max_num_threads == 1024 and t.thread_warp_size == 32 and t.keys == ["cuda", "gpu"]
    assert tvm.target.cuda() == named("cuda") and tvm.target.cuda(arch="sm_80").arch == "sm_80"
    assert Target("opencl -max_num_threads=64").max_num_threads == 64
    assert Target("c").kind == "c"


def test_current() -> None:
    assert Target.current() is None and Target.current(allow_none=True) is None
    with pytest.raises(ValueError, match="no current target"):
        Target.current(allow_none=False)
    with Target("cuda"), Target("llvm") as inner:
        assert Target.current(allow_none=False) is inner
    assert Target.current() is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("llvm -mcpu=abacus", "unknown processor"),
        ("llvm -colour=red", "unknown option -colour"),
        ("llvm red", "stray word"),
        ("pdp11", "unknown target"),
        ("", "empty"),
        (3, "is no target"),
        ("llvm -mtriple=pdp11-dec", "no built-in target"),
    ],
)
def test_errors(spec: object, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        Target(spec)


def test_options_without_effect_warn() -> None:
    with pytest.warns(UserWarning, match="link-params has no effect"):
        assert Target("llvm -link-params").vector_bits == get("native").vector_bits
