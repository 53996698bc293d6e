"""Errors that teach: what was found, where, why it is refused, what to do about it.

Every error that Warpbeam raises on purpose derives from `WarpbeamError`, so one `except` catches them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from warpbeam.runtime.errors import WarpbeamError

__all__ = [
    "CompileError",
    "Diagnostics",
    "IRError",
    "ImportModelError",
    "LowerError",
    "ScheduleError",
    "Span",
    "TextError",
    "TypeCheckError",
    "UnsupportedError",
    "VerifyError",
    "WarpbeamError",
]


class IRError(WarpbeamError):
    """A node was built from parts that do not fit together.

    Wrong:
        tir.For(tir.Var("i", "int64"), 0, 4, "sideways", tir.Evaluate(0))
    Right:
        tir.For(tir.Var("i", "int64"), 0, 4, "parallel", tir.Evaluate(0))
    """


class TypeCheckError(WarpbeamError):
    """Types or shapes of operands contradict an operator's rule.

    Wrong:
        relay.nn.dense(relay.var("x", shape=(2, 3)), relay.var("w", shape=(5, 4)))
    Right:
        relay.nn.dense(relay.var("x", shape=(2, 3)), relay.var("w", shape=(5, 3)))
    """


class TextError(WarpbeamError):
    """A program text does not parse.

    Wrong:
        text.parse("def f(A: float32[4]):\\n    A[0] ==")
    Right:
        text.parse("def f(A: float32[4]):\\n    A[0] = 1.0")
    """


class ScheduleError(WarpbeamError):
    """A schedule primitive's precondition does not hold; the program is unchanged.

    Wrong:
        tir.Schedule(func).split("rows", [None, 2])
    Right:
        tir.Schedule(func).split("i", [None, 2])
    """


class LowerError(WarpbeamError):
    """A program cannot be lowered or printed for the target.

    Wrong:
        from warpbeam.codegen.llvm import print_kernel
        print_kernel(func, tvm.target.get("generic-cpu"))
    Right:
        print_kernel(tir.transform.lower(func), tvm.target.get("generic-cpu"))
    """


class ImportModelError(WarpbeamError):
    """A model file is broken, hostile, or outside what the format allows.

    Wrong:
        from onnx import helper
        x_info, y_info = (helper.make_tensor_value_info(n, 1, [4]) for n in ("x", "y"))
        node = helper.make_node("Relu", ["z"], ["y"])  # nothing gives z
        tvm.compile(helper.make_model(helper.make_graph([node], "relu", [x_info], [y_info])))
    Right:
        node = helper.make_node("Relu", ["x"], ["y"])
        tvm.compile(helper.make_model(helper.make_graph([node], "relu", [x_info], [y_info])))
    """


class UnsupportedError(ImportModelError):
    """A model is valid but uses something that has no implementation; lists all that is missing at once.

    Wrong:
        node = helper.make_node("Mystery", ["x"], ["y"], domain="com.example")
        x_info, y_info = (helper.make_tensor_value_info(n, 8, [1]) for n in ("x", "y"))
        graph = helper.make_graph([node], "mystery", [x_info], [y_info])
        tvm.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("com.example", 1)]))
    Right:
        node = helper.make_node("Relu", ["x"], ["y"])
        x_info, y_info = (helper.make_tensor_value_info(n, 1, [1]) for n in ("x", "y"))
        tvm.compile(helper.make_model(helper.make_graph([node], "numbers", [x_info], [y_info])))
    """


class CompileError(WarpbeamError):
    """A module could not be compiled.

    Wrong:
        t = te.create_schedule(B.op)
        t[B].pragma(B.op.axis[0], "import_llvm", "define i32 @g() { ret i64 0 }")
        tvm.build(t, [A, B])
    Right:
        t = te.create_schedule(B.op)
        t[B].pragma(B.op.axis[0], "import_llvm", "define i32 @g() { ret i32 0 }")
        tvm.build(t, [A, B])
    """


class VerifyError(WarpbeamError):
    """Two executions of the same program disagree beyond the stated tolerance.

    Wrong:
        from warpbeam.relay.structural import assert_structural_equal
        assert_structural_equal(relay.const(1.0), relay.const(2.0))
    Right:
        assert_structural_equal(relay.const(1.0), relay.const(1.0))
    """


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a source: a model file's node, or line and column of a text."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(slots=True)
class Diagnostics:
    """Collects problems so that all of them can be reported at once."""

    problems: list[tuple[str, Span | None]] = field(default_factory=list)

    def add(self, message: str, span: Span | None = None) -> None:
        self.problems.append((message, span))

    def __bool__(self) -> bool:
        return bool(self.problems)

    def render(self) -> str:
        return "\n".join(f"  - {text}" + (f"  (at {span})" if span else "") for text, span in self.problems)
