"""CUDA C++ as data for the C-family printer. Names are those of the CUDA C++ programming guide and math API."""

from __future__ import annotations

from warpbeam.codegen.c.device import Device
from warpbeam.codegen.c.dialect import LIMITS, Dialect

_SINGLE = ["sqrt", "floor", "ceil", "trunc", "copysign"]
_MATH = "exp exp2 exp10 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh erf"
_TWO = "pow atan2 fmod hypot nextafter"

NATIVE = {
    **{f"{f}_f32": f"{f}f" for f in _SINGLE},
    **{f"{f}_f64": f for f in _SINGLE},
    "round_f32": "rintf", "round_f64": "rint", "abs_f32": "fabsf", "abs_f64": "fabs", "fma_f32": "fmaf",
    "fma_f64": "fma", "mod_f32": "fmodf", "mod_f64": "fmod", "popcount_i32": "__popc", "popcount_u32": "__popc",
    "clz_i32": "__clz", "clz_u32": "__clz", "popcount_i64": "__popcll", "clz_i64": "__clzll",
    **{f"{f}_{t}": f for f in ("min", "max") for t in ("i32", "u32", "i64", "u64")},
}  # fmt: skip

MATH = {
    **{f: (f"{f}f({{0}})", f"{f}({{0}})") for f in _MATH.split()},
    **{f: (f"{f}f({{0}}, {{1}})", f"{f}({{0}}, {{1}})") for f in _TWO.split()},
    "ldexp": ("ldexpf({0}, (int32_t){1})", "ldexp({0}, (int32_t){1})"),
    "rsqrt": ("rsqrtf({0})", "rsqrt({0})"),
    "sigmoid": ("(1.0f / (1.0f + expf(-{0})))", "(1.0 / (1.0 + exp(-{0})))"),
    "sign": ("wb_sign_f32({0})", "wb_sign_f64({0})"),
}
_BITS = {
    "wb_bits_f32": "WB_FN uint32_t wb_bits_f32(float x) { return __float_as_uint(x); }",
    "wb_from_f32": "WB_FN float wb_from_f32(uint32_t u) { return __uint_as_float(u); }",
    "wb_bits_f64": "WB_FN uint64_t wb_bits_f64(double x) { return (uint64_t)__double_as_longlong(x); }",
    "wb_from_f64": "WB_FN double wb_from_f64(uint64_t u) { return __longlong_as_double((int64_t)u); }",
    "wb_f16_to_f32": "WB_FN float wb_f16_to_f32(uint16_t h) { return __half2float(__ushort_as_half(h)); }",
    "wb_f32_to_f16": "WB_FN uint16_t wb_f32_to_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }",
}
SIGNS = {
    f"wb_sign_{n}": f"WB_FN {t} wb_sign_{n}({t} x) {{ return x != x ? x : ({t})((x > 0) - (x < 0)); }}"
    for n, t in (("f32", "float"), ("f64", "double"))
}

CUDA = Dialect(
    name="CUDA",
    words={
        "int8_t": "signed char", "uint8_t": "unsigned char", "int16_t": "short", "uint16_t": "unsigned short",
        "int32_t": "int", "uint32_t": "unsigned int", "int64_t": "long long", "uint64_t": "unsigned long long",
        **LIMITS,
    },
    infix={"add": "+", "sub": "-", "mul": "*"},
    native=NATIVE,
    math=MATH,
    memory={"float16": "half", "bfloat16": "__nv_bfloat16"},
    load={"float16": "__half2float({0})", "bfloat16": "__bfloat162float({0})"},
    store={"float16": "__float2half_rn({0})", "bfloat16": "__float2bfloat16_rn({0})"},
    helpers={**_BITS, **SIGNS},
    function="static __device__ __forceinline__",
    hex_floats=False,
    table="const",
    limit=200,
)  # fmt: skip

RESERVED = """auto bool char class const continue default delete do double else enum extern float for goto half if int
long new operator private public register return short signed static struct switch template this typedef union unsigned
using virtual void volatile while warpSize"""

DEVICE = Device(
    dialect=CUDA,
    head='extern "C" __global__ void {threads}{name}({params})',
    bound="__launch_bounds__({0}) ",
    buffer="{type}* {restrict}{name}",
    scalar="{type} {name}",
    restrict="__restrict__ ",
    axes={f"{n}.{k}": f"{n}.{k}" for n in ("blockIdx", "threadIdx") for k in "xyz"},
    scopes={"shared": "__shared__", "local": "", "register": ""},
    align="__align__({0})",
    barriers={"shared": "__syncthreads();", "global": "__syncthreads();", "warp": "__syncwarp();"},
    vectors={
        ("float", 2): "float2", ("float", 4): "float4", ("double", 2): "double2", ("int32_t", 2): "int2",
        ("int32_t", 4): "int4", ("uint32_t", 4): "uint4", ("half", 2): "half2", ("half", 4): "uint2",
        ("half", 8): "uint4", ("int8_t", 4): "char4", ("uint8_t", 4): "uchar4", ("int8_t", 16): "int4",
        ("uint8_t", 16): "uint4", ("int64_t", 2): "longlong2",
    },
    move="*({type}*)(&{to}) = *(const {type}*)(&{source});",
    aligned=True,
    unroll="#pragma unroll",
    index=("int", "long long"),
    shuffles={
        "warp_shuffle": "__shfl_sync({mask}, {0}, {1}, {2})",
        "warp_shuffle_down": "__shfl_down_sync({mask}, {0}, {1}, {2})",
        "warp_shuffle_up": "__shfl_up_sync({mask}, {0}, {1}, {2})",
        "warp_shuffle_xor": "__shfl_xor_sync({mask}, {0}, {1}, {2})",
    },
    fragments=True,
    includes={"wmma": "#include <mma.h>", "half": "#include <cuda_fp16.h>", "bfloat16": "#include <cuda_bf16.h>"},
    reserved=frozenset(RESERVED.split()),
)  # fmt: skip
