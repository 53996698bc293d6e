"""Programs that cross from one process to another."""

import sys
from types import ModuleType

import pytest

from warpbeam import op, te
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Node
from warpbeam.ir.structural import structural_equal, structural_hash
from warpbeam.ir.wire import packed, unpacked
from warpbeam.relay import expr as R
from warpbeam.relay.types import TensorType
from warpbeam.te.create import create_prim_func
from warpbeam.tir import expr as E


class Own(Node):
    """A node that only this program knows."""

    value: int


def program() -> object:
    a, b = te.placeholder((12, 9), name="a"), te.placeholder((9, 7), name="b")
    k = te.reduce_axis((0, 9), "k")
    c = te.compute((12, 7), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "c")
    return create_prim_func([a, b], [c], "product")


def test_a_program_is_the_same_on_the_other_side() -> None:
    func = program()
    found, told = unpacked(packed((func, {"rows": 12, "near": (1.5, None)}), func))
    assert structural_equal(found, func, names=True)
    assert structural_hash(found, names=True) == structural_hash(func, names=True)
    assert found is not func, "its buffers and variables have identities of their own"
    assert found.buffers[0] is not func.buffers[0]  # type: ignore[attr-defined]
    assert told == {"rows": 12, "near": (1.5, None)}


def test_what_is_one_binder_stays_one() -> None:
    v = E.Var("v", "int64")
    left, right = unpacked(packed((v + 1, v * 2)))
    assert left.a is right.a
    assert left.a is not v


def test_nodes_without_binders_are_the_very_same_here() -> None:
    ty = TensorType((3, 4), "float16")
    assert unpacked(packed(ty)) is ty


def test_constants_and_attributes_cross() -> None:
    x = R.Var("x", TensorType((2, 3)))
    call = op.get("multiply")(x, R.const([[1.0, 2.0, 3.0]], "float32"))
    fn = R.Function((x,), call, attrs={"origins": ("a", "b"), "Primitive": 1})
    found = unpacked(packed(fn, fn))
    assert structural_equal(found, fn, names=True)
    assert found.attrs == fn.attrs


def test_a_deep_program_crosses_without_recursion() -> None:
    at: E.PrimExpr = E.Var("v", "int64")
    for k in range(50_000):
        at = E.Min(at, E.Max(at, E.const(k, "int64")))
    found = unpacked(packed(at, at))
    assert structural_hash(found, names=True) == structural_hash(at, names=True)


def test_what_only_this_program_knows_does_not_cross() -> None:
    with pytest.raises(IRError, match="a value that cannot be sent to another process") as caught:
        packed(Own(1))
    assert "Own" in caught.value.why
    with pytest.raises(IRError, match="a value that cannot be sent to another process"):
        packed({"others": lambda count: count})


def test_a_module_whose_name_begins_like_one_of_ours_is_not_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("numpy_of_a_program")
    module.Near = type("Near", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(IRError, match="a value that cannot be sent to another process") as caught:
        packed(module.Near())
    assert module.__name__ in caught.value.why


def test_only_our_classes_come_out() -> None:
    import pickle
    from fractions import Fraction

    with pytest.raises(IRError, match=r"fractions\.Fraction in what another process sent"):
        unpacked(pickle.dumps(([], Fraction(1, 2))))
