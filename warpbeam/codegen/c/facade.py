"""The C interface of a model that is exported as C source: the functions of its header, in C11."""

from __future__ import annotations

import string

from warpbeam.codegen.c.kernel import quoted
from warpbeam.runtime.abi import ABI_VERSION, DLPACK_TYPES
from warpbeam.runtime.export_header import CONTEXT_HEADER, arguments, is_static
from warpbeam.runtime.manifest import Manifest, TensorSpec


def print_facade(manifest: Manifest, name: str, entry: str, params: int, external: bool, hosted: bool) -> str:
    """The functions, after the prelude and the entry.

    Args:
        name: prefix of the functions. entry: name of the model's entry.
        params: bytes of the mutable parameters. external: the caller brings the constants.
        hosted: with `create`, which takes memory from malloc.
    """
    arena = manifest.arena_bytes if isinstance(manifest.arena_bytes, int) else 0
    n = f"{name}_"
    copy = f"""  for (int64_t i = 0; i < {params}; ++i)
    ((uint8_t*)c + {CONTEXT_HEADER})[i] = ((const uint8_t*){n}params_data)[i];
  c->ctx.params = (uint8_t*)c + {CONTEXT_HEADER};
"""
    missing = quoted(f"the constants are missing: call {n}use_constants first")
    given = f"""  if (!{n}constants_at) return wb_fail(&context->ctx, {missing});
  context->ctx.constants = {n}constants_at;
"""
    values = {
        "N": n, "ENTRY": entry, "ABI": f"{ABI_VERSION}u", "CONSTANTSINIT": "0" if external else f"{n}constants_data",
        "FIXED": CONTEXT_HEADER + -(-params // 64) * 64, "ARENA": -(-arena // 64) * 64, "HEADERBYTES": CONTEXT_HEADER,
        "RESERVE": f"{n}reserve", "COPYPARAMS": copy if params else "", "GIVEN": given if external else "",
    }  # fmt: skip
    parts = [_tables(manifest, n), string.Template(_HEAD + (_HOSTED if hosted else "") + _CALLS).substitute(values)]
    parts.append(_call(f"{n}run", manifest, n))
    if external:
        parts.append(f"void {n}use_constants(const void* data) {{ {n}constants_at = data; }}\n")
    return "".join([*parts, _questions(manifest, n)])


def _call(function: str, manifest: Manifest, n: str) -> str:
    names, args = arguments(manifest)
    count = len(manifest.inputs)
    local = "t"  # of our own variables: no beginning of a parameter's name, which is the model's
    while any(name.startswith(local) for name in names):
        local += "_"
    lines = [f"int32_t {function}({', '.join([f'{n}context* context', *args])}) {{"]
    rows = []
    for i, (name, spec) in enumerate(zip(names, (*manifest.inputs, *manifest.outputs), strict=True)):
        if not is_static(manifest):
            rows.append(name)
            continue
        code, bits = DLPACK_TYPES[spec.dtype]
        value = f"(void*){name}" if i < count else name
        fields = f"{value}, 1, 0, {len(spec.shape)}, {code}, {bits}, 1, {n}rows[{i}].shape, 0, 0"
        lines.append(f"  wb_tensor {local}{i} = {{{fields}}};")
        rows.append(f"&{local}{i}")
    lines.append(f"  wb_tensor* {local}list[] = {{{', '.join(rows) or '0'}}};")
    lines.append(f"  return {n}call(context, {local}list, {len(rows)});")
    return "\n".join([*lines, "}", ""])


def _tables(manifest: Manifest, n: str) -> str:
    specs: tuple[TensorSpec, ...] = (*manifest.inputs, *manifest.outputs, *manifest.params)
    lines, rows = [], []
    for i, spec in enumerate(specs):
        extents = [str(e) if isinstance(e, int) else "-1" for e in spec.shape] or ["0"]
        lines.append(f"static int64_t {n}shape{i}[] = {{{', '.join(extents)}}};")
        rows.append(
            f"  {{{quoted(spec.name)}, {quoted(spec.dtype)}, {n}shape{i}, {len(spec.shape)}, {max(spec.offset, 0)}}},"
        )
    rows.append("  {0, 0, 0, 0, 0},")
    fields = "const char* name; const char* dtype; int64_t* shape; int32_t ndim; int64_t offset;"
    record = f"typedef struct {{ {fields} }} {n}row;"
    return "\n".join(["", *lines, record, f"static const {n}row {n}rows[] = {{", *rows, "};", ""])


def _questions(manifest: Manifest, n: str) -> str:
    ins, outs, params = len(manifest.inputs), len(manifest.outputs), len(manifest.params)
    end = ins + outs + params
    lines = [
        f"const char* {n}name(void) {{ return {quoted(manifest.name)}; }}",
        f"const char* {n}compiler(void) {{ return {quoted(manifest.compiler_version)}; }}",
        f"int32_t {n}abi(void) {{ return {ABI_VERSION}; }}",
    ]
    groups = [("input", ins, 0), ("output", outs, ins), ("param", params, ins + outs)]
    for group, count, first in groups if params else groups[:2]:
        lines.append(f"int32_t {n}num_{group}s(void) {{ return {count}; }}")
        inside = f"index >= 0 && index < {count} ? index + {first} : {end}" if count else f"(void)index, {end}"
        lines.append(f"static const {n}row* {n}{group}_row(int32_t index) {{ return &{n}rows[{inside}]; }}")
        for what, kind in (
            ("name", "const char*"),
            ("dtype", "const char*"),
            ("ndim", "int32_t"),
            ("shape", "const int64_t*"),
        ):
            lines.append(f"{kind} {n}{group}_{what}(int32_t index) {{ return {n}{group}_row(index)->{what}; }}")
    if params:
        lines += [
            f"void* {n}param({n}context* context, int32_t index) {{",
            f"  if (!context || index < 0 || index >= {params}) return 0;",
            f"  return (uint8_t*)context->ctx.params + {n}param_row(index)->offset;",
            "}",
        ]
    return "\n".join([*lines, ""])


_HEAD = """
struct ${N}context {
  wb_ctx ctx;
  void* block; /* what was allocated */
  void* grown; /* the arena's own memory */
};
typedef char ${N}fits[sizeof(struct ${N}context) <= ${HEADERBYTES} ? 1 : -1];
static const void* ${N}constants_at = ${CONSTANTSINIT};
const void* ${N}constants(void) { return ${N}constants_at; }

static int32_t ${N}serial(wb_ctx* ctx, wb_loop_fn fn, void* closure, int64_t n) {
  return n > 0 ? fn(ctx, closure, 0, n) : 0;
}
static void ${N}fill(${N}context* c, int64_t arena) {
  static const ${N}context none;
  *c = none;
  c->ctx.abi_version = ${ABI};
  c->ctx.constants = ${N}constants_at;
${COPYPARAMS}  c->ctx.parallel_for = ${N}serial;
  c->ctx.arena = (uint8_t*)c + ${FIXED};
  c->ctx.arena_bytes = arena;
}
int64_t ${N}context_bytes(void) { return (int64_t)${FIXED} + ${ARENA}; }
${N}context* ${N}create_in(void* memory, int64_t bytes) {
  const int64_t lost = (int64_t)(-(uintptr_t)memory & 63u);
  ${N}context* c = (${N}context*)(void*)((uint8_t*)memory + lost);
  if (!memory || bytes - lost < (int64_t)${FIXED} + ${ARENA}) return 0;
  ${N}fill(c, bytes - lost - ${FIXED});
  return c;
}
"""
_HOSTED = """
static int32_t ${N}reserve(wb_ctx* ctx, int64_t bytes) {
  ${N}context* c = (${N}context*)(void*)ctx;
  const int64_t half = ctx->arena_bytes + ctx->arena_bytes / 2;
  const int64_t want = bytes > half ? bytes : half;
  uint8_t* made = want < INT64_MAX - 64 && (uint64_t)want + 64 <= SIZE_MAX ? malloc((size_t)want + 64) : 0;
  if (!made) return wb_fail(ctx, "out of memory");
  uint8_t* at = made + (-(uintptr_t)made & 63u);
  wb_copy(at, ctx->arena, ctx->arena_bytes);
  free(c->grown);
  c->grown = made;
  ctx->arena = at;
  ctx->arena_bytes = want;
  return 0;
}
${N}context* ${N}create(void) {
  const int64_t bytes = ${N}context_bytes() + 63;
  void* block = malloc((size_t)bytes);
  ${N}context* c = ${N}create_in(block, bytes);
  if (!c) {
    free(block);
    return 0;
  }
  c->block = block;
  c->ctx.arena_bytes = ${ARENA};
  c->ctx.reserve = ${RESERVE};
  return c;
}
void ${N}destroy(${N}context* context) {
  if (!context) return;
  free(context->grown);
  free(context->block);
}
"""
_CALLS = """
const char* ${N}error(const ${N}context* context) { return context ? context->ctx.message : "no context"; }
int32_t ${N}call(${N}context* context, wb_tensor** args, int32_t n) {
  if (!context) return 1;
  context->ctx.message[0] = 0;
${GIVEN}  context->ctx.status = ${ENTRY}(&context->ctx, args, n);
  return context->ctx.status;
}
int32_t ${N}shapes(${N}context* context, wb_tensor** args, int32_t n) {
  if (!context) return 1;
  context->ctx.flags = WB_QUERY_SHAPES;
  const int32_t status = ${N}call(context, args, n);
  context->ctx.flags = 0;
  return status;
}
"""
