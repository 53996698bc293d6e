"""Names of the classic interface beside those that `script_names.txt` lists: there, callable, with these keywords."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import warpbeam as tvm
from warpbeam import te
from warpbeam.contrib import cc, clang, tar, utils

# name: keywords that scripts pass to it
TOP = """
tvm.lower: args name binds simple_mode
tvm.build: args target target_host name binds
tvm.nd.empty: shape dtype device ctx
tvm.opencl:
tvm.IRModule:
tvm.IRModule.from_expr:
tvm.ir.save_json:
tvm.ir.load_json:
tvm.ir.register_op_attr: level
tvm.ir.register_intrin_lowering: target f level
tvm.runtime.enabled:
tvm.target.arm_cpu:
tvm.transform.PassContext: opt_level config instruments disabled_pass required_pass
tvm.transform.PassContext.current:
tvm.transform.Sequential:
tvm.transform.PrintIR:
tvm.contrib.cc.create_shared:
tvm.contrib.graph_executor.GraphModule:
relay.load_param_dict:
tvm.tir.decl_buffer: shape dtype name scope data_alignment offset_factor strides elem_offset
tvm.tir.call_llvm_pure_intrin:
tvm.tir.any:
tvm.tir.indexdiv:
tvm.tir.For:
tvm.tir.Call:
tvm.tir.stmt_functor.ir_transform:
tvm.tir.stmt_functor.post_order_visit:
tvm.tir.stmt_functor.substitute:
tvm.tir.transform.prim_func_pass: opt_level name
topi.sum: axis keepdims
topi.broadcast_add:
topi.broadcast_mul:
topi.nn.conv2d_nchw: dilation out_dtype
topi.nn.sparse_dense:
topi.generic.schedule_injective:
topi.generic.schedule_reduce:
topi.utils.get_const_tuple:
topi.utils.get_const_int:
topi.utils.traverse_inline:
"""
TE = """
te.compute: shape fcompute name tag attrs varargs_names
te.size_var: name dtype
te.const: dtype
te.reduce_axis: dom name
te.thread_axis: dom tag name
te.sum: axis where
te.min: axis where
te.max: axis where
te.scan: init update state_placeholder inputs name
te.extern: shape inputs fcompute name dtype in_buffers out_buffers
te.hybrid.script:
te.decl_tensor_intrin: op fcompute name binds scalar_params default_buffer_params
te.create_prim_func:
te.schedule.AutoInlineElemWise:
te.schedule.InferBound:
te.schedule.ScheduleOps:
te.tag_scope: tag
te.SpecializedCondition:
te.if_then_else: cond t f
te.all:
te.min_value: dtype
te.max_value: dtype
te.power:
te.fmod:
te.add:
te.subtract:
te.multiply:
te.div:
te.floordiv:
te.floormod:
te.truncdiv:
te.truncmod:
te.indexdiv:
te.indexmod:
te.popcount:
te.abs:
te.log:
te.tanh:
te.sigmoid:
te.sqrt:
te.rsqrt:
te.erf:
te.round:
te.nearbyint:
te.trunc:
te.floor:
te.ceil:
te.isnan:
te.isfinite:
te.isinf:
"""
SCHEDULE = """
cache_read: tensor scope readers
cache_write: tensor scope
rfactor: tensor axis factor_axis
create_group: outputs inputs include_inputs
"""
STAGE = """
split: parent factor nparts
tile: x_parent y_parent x_factor y_factor
prefetch:
storage_align:
double_buffer:
rolling_buffer:
set_scope:
env_threads:
transform_layout:
"""
MODULE = """
time_evaluator: func_name dev ctx number repeat min_repeat_ms limit_zero_time_iterations cooldown_interval_ms f_preproc
"""
ARRAY = ["asnumpy", "numpy", "copyto", "copyfrom"]
ATTRIBUTES = {
    "Tensor": ["shape", "dtype", "ndim", "name", "op", "value_index"],
    "ComputeOp": ["axis", "reduce_axis", "body", "name", "tag", "attrs", "input_tensors", "num_outputs", "output"],
    "Schedule": ["stages", "outputs", "stage_map", "groups"],
    "Stage": ["op", "leaf_iter_vars", "all_iter_vars", "iter_var_attrs", "relations", "attach_type", "scope"],
    "Module": ["entry_name", "imported_modules", "type_key", "entry_func"],
}


def rows(table: str) -> list[tuple[str, list[str]]]:
    found = []
    for line in table.strip().splitlines():
        name, _, words = line.partition(":")
        found.append((name, words.split()))
    return found


def usable(found: Any, words: list[str]) -> None:
    """It can be called, with these keywords: in its signature, or in what it says of its **keywords."""
    assert callable(found)
    if not words:
        return
    make = getattr(found, "_normalize", found)  # a class of nodes takes what this does
    places = inspect.signature(make).parameters
    assert set(words) <= set(places) or any(p.kind is p.VAR_KEYWORD for p in places.values()), (words, list(places))


@pytest.mark.parametrize(("path", "words"), rows(TOP) + rows(TE), ids=lambda x: x if isinstance(x, str) else "")
def test_function(path: str, words: list[str]) -> None:
    first, *rest = path.split(".")
    found: Any = tvm if first == "tvm" else getattr(tvm, first)
    for part in rest:
        found = getattr(found, part)
    usable(found, words)


def program() -> tuple[Any, Any, Any, Any]:
    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: a[i] + 1, name="B")
    return te.create_schedule(b.op), a, b, b.op


@pytest.mark.parametrize(("name", "words"), rows(SCHEDULE))
def test_method_of_a_schedule(name: str, words: list[str]) -> None:
    usable(getattr(program()[0], name), words)


@pytest.mark.parametrize(("name", "words"), rows(STAGE))
def test_method_of_a_stage(name: str, words: list[str]) -> None:
    s, _, b, _ = program()
    usable(getattr(s[b], name), words)


@pytest.mark.parametrize(("name", "words"), rows(MODULE))
def test_method_of_a_module(name: str, words: list[str]) -> None:
    s, a, b, _ = program()
    usable(getattr(tvm.build(s, [a, b]), name), words)


def test_attributes() -> None:
    s, a, b, op = program()
    objects = {"Tensor": b, "ComputeOp": op, "Schedule": s, "Stage": s[b], "Module": tvm.build(s, [a, b])}
    for kind, names in ATTRIBUTES.items():
        for name in names:
            assert hasattr(objects[kind], name), f"{kind}.{name}"
    for name in ARRAY:
        assert callable(getattr(tvm.nd.array([1.0]), name))


def test_helpers_of_contrib() -> None:
    for found in (cc.create_shared, cc.cross_compiler, clang.create_llvm, tar.tar, utils.tempdir):
        assert callable(found)
