"""Passes as classic objects: on programs and modules, in between other passes, told by configuration."""

from __future__ import annotations

import numpy as np
import pass_check as check
import pytest

import warpbeam
from warpbeam import tir
from warpbeam.ir.diagnostics import IRError, LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext, Sequential
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import AssertStmt, For
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import PASSES, lower, lower_simple

TEXT = """
    def f(A: float32[10], B: float32[10]):
        for o in range(3):
            for i in unrolled(4):
                if likely(o * 4 + i < 10):
                    B[o * 4 + i] = A[o * 4 + i] * 2.0
    """


def test_every_pass_has_a_name_of_its_own_and_says_why():
    assert len({p.name for p in PASSES}) == len(PASSES)
    names = [n for n in tir.transform.__all__ if n[0].isupper() and n not in ("PASSES", "PHASES", "PrimFuncPass")]
    for name in names:
        assert getattr(tir.transform, name).__doc__, name
    assert len(names) >= 25


@pytest.mark.parametrize(
    "name",
    [n for n in tir.transform.__all__ if n[0].isupper() and n not in ("PASSES", "PHASES", "PrimFuncPass", "Apply")],
)
def test_every_pass_keeps_results(name):
    func = check.program(TEXT)
    if name == "VerifyMemory":
        with pytest.raises(LowerError, match="Memory verification failed"):
            tir.transform.VerifyMemory()(func)
        return
    got = getattr(tir.transform, name)()(func)
    a, want, out = np.arange(10, dtype=np.float32), np.zeros(10, np.float32), np.zeros(10, np.float32)
    run(func, a, want)
    run(got, a, out)
    np.testing.assert_array_equal(out, want)


def test_passes_run_on_modules_and_in_a_row():
    mod = warpbeam.IRModule.from_expr(check.program(TEXT))
    t = tir.transform
    out = Sequential([t.LoopPartition(), t.UnrollLoop(), t.Simplify()])(mod)
    assert not any(isinstance(n, For) and n.kind == "unrolled" for n in post_order(out["f"].body))
    assert "likely" not in to_text(out["f"])
    with PassContext(disabled_pass=["tir.LoopPartition"]):
        assert "likely" in to_text(lower(check.program(TEXT)))
    with pytest.raises(IRError, match="got a int"):
        t.Simplify()(3)


def test_own_passes_join_lowering():
    calls = []

    @tir.transform.prim_func_pass(opt_level=0)
    def doubled(func, mod, ctx):
        calls.append(ctx.config)
        return func.replace(attrs=func.attrs.updated(mark=1))

    @tir.transform.prim_func_pass(opt_level=1, name="named")
    class Maker:
        def __init__(self, factor):
            self.factor = factor

        def transform_function(self, func, mod, ctx):
            return func.replace(attrs=func.attrs.updated(factor=self.factor))

    maker = Maker(7)
    assert doubled.info.name == "doubled" and maker.info.name == "named"
    with PassContext(config={"tir.add_lower_pass": [(0, doubled), (1, maker), (3, doubled)]}):
        got = lower(check.program(TEXT))
        assert got.attrs["mark"] == 1 and got.attrs["factor"] == 7 and len(calls) == 2
        assert lower_simple(check.program(TEXT)).attrs["factor"] == 7
    with pytest.raises(ValueError, match="opt_level"):
        tir.transform.prim_func_pass(lambda f, m, c: f)
    with PassContext(config={"tir.add_lower_pass": [3]}), pytest.raises(LowerError, match="add_lower_pass"):
        lower(check.program(TEXT))
    bad = [(1, lambda f: None)]
    with PassContext(config={"tir.add_lower_pass": bad}), pytest.raises(LowerError, match="returned a NoneType"):
        lower(check.program(TEXT))


def test_instruments_see_lowering():
    class Watch:
        def __init__(self):
            self.names = []

        def run_after_pass(self, mod, info):
            self.names.append(info.name)

    watch = Watch()
    with PassContext(instruments=[watch]):
        lower(check.program(TEXT))
    assert "tir.LoopPartition" in watch.names and "tir.Verify" in watch.names
    assert "tir.InjectVirtualThread" not in watch.names  # there is nothing for it to do


def test_configuration_is_obeyed():
    func = check.program(TEXT.replace("unrolled", "vectorized").replace("float32[10]", "float32[12]"))
    assert "ramp" in to_text(lower(func))
    with PassContext(config={"tir.disable_vectorize": True}):
        assert "ramp" not in to_text(lower(func))
    checked = check.program(
        """
        def f(B: float32[4]):
            for i in range(4):
                assert i < 9, "large"
                B[i] = 1.0
        """
    )
    with PassContext(config={"tir.disable_assert": True}):
        assert not any(isinstance(n, AssertStmt) for n in post_order(lower(checked).body))
    with PassContext(config={"tir.noalias": False}):
        assert lower(checked).attrs["noalias"] is False
    single = check.program("def f(B: float32[4]):\n    for i in range(1):\n        B[i] = 1.0\n")
    with PassContext(config={"tir.debug_keep_trivial_loop": True}):
        assert "range(1)" in to_text(lower(single))
    with pytest.raises(IRError, match="did you mean"):
        PassContext(config={"tir.disable_vectorise": True})
    with pytest.warns(UserWarning, match="no effect"):
        PassContext(config={"tir.usmp.enable": True})
