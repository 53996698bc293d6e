"""OpenCL C 1.2 as data for the C-family printer. Names are those of the Khronos OpenCL C specification."""

from __future__ import annotations

from warpbeam.codegen.c.device import Device
from warpbeam.codegen.c.dialect import LIMITS, Dialect
from warpbeam.codegen.cuda.dialect import SIGNS

_PLAIN = ["sqrt", "floor", "ceil", "trunc", "copysign", "fma"]
_MATH = (
    "exp exp2 exp10 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh erf rsqrt"
)
_INTS = [f"{s}{b}" for s in "iu" for b in (8, 16, 32, 64)]
_NAMES = {"i8": "char", "u8": "uchar", "i16": "short", "u16": "ushort", "i32": "int", "u32": "uint", "i64": "long",
          "u64": "ulong"}  # fmt: skip

OPENCL = Dialect(
    name="OpenCL C",
    words={
        **{f"{'u' if k[0] == 'u' else ''}int{k[1:]}_t": v for k, v in _NAMES.items()},
        **LIMITS,
    },
    infix={"add": "+", "sub": "-", "mul": "*"},
    native={
        **{f"{f}_{t}": f for f in _PLAIN for t in ("f32", "f64")},
        **{f"{f}_{t}": g for f, g in (("round", "rint"), ("abs", "fabs"), ("mod", "fmod")) for t in ("f32", "f64")},
        **{f"{f}_{t}": f for f in ("min", "max", "popcount", "clz") for t in _INTS},
        **{f"to_{t}": f"convert_{name}_sat" for t, name in _NAMES.items()},
    },
    math={
        **{f: (f"{f}({{0}})",) * 2 for f in _MATH.split()},
        **{f: (f"{f}({{0}}, {{1}})",) * 2 for f in ("pow", "atan2", "fmod", "hypot", "nextafter")},
        "ldexp": ("ldexp({0}, (int32_t){1})",) * 2,
        "sigmoid": ("(1.0f / (1.0f + exp(-{0})))", "(1.0 / (1.0 + exp(-{0})))"),
        "sign": ("wb_sign_f32({0})", "wb_sign_f64({0})"),
    },
    helpers={
        "wb_bits_f32": "WB_FN uint32_t wb_bits_f32(float x) { return as_uint(x); }",
        "wb_from_f32": "WB_FN float wb_from_f32(uint32_t u) { return as_float(u); }",
        "wb_bits_f64": "WB_FN uint64_t wb_bits_f64(double x) { return as_ulong(x); }",
        "wb_from_f64": "WB_FN double wb_from_f64(uint64_t u) { return as_double(u); }",
        **SIGNS,
    },
    function="static inline",
    hex_floats=False,
    table="const",
    limit=200,
    long_suffix="L",
)

RESERVED = """auto bool break case char const constant continue default do double else enum extern float for global goto
half if image int kernel local long private read_only register return short signed sizeof static struct switch typedef
uchar uint ulong union unsigned ushort void volatile while"""

DEVICE = Device(
    dialect=OPENCL,
    head="__kernel {threads}void {name}({params})",
    bound="",
    buffer="__global {type}* {restrict}{name}",
    scalar="{type} {name}",
    restrict="restrict ",
    axes={
        **{f"blockIdx.{d}": f"get_group_id({k})" for k, d in enumerate("xyz")},
        **{f"threadIdx.{d}": f"get_local_id({k})" for k, d in enumerate("xyz")},
    },
    scopes={"shared": "__local", "local": "", "register": ""},
    align="__attribute__((aligned({0})))",
    barriers={
        "shared": "barrier(CLK_LOCAL_MEM_FENCE);",
        "global": "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);",
    },
    vectors={(t, n): f"{t}{n}" for t in ("float", "double", *_NAMES.values()) for n in (2, 4, 8, 16)},
    move="vstore{lanes}(vload{lanes}(0, &{source}), 0, &{to});",
    aligned=False,
    unroll="#pragma unroll",
    index=("int", "long"),
    includes={"double": "#pragma OPENCL EXTENSION cl_khr_fp64 : enable"},
    reserved=frozenset(RESERVED.split()),
)  # fmt: skip
