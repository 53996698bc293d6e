"""A model's entry in C11."""

from __future__ import annotations

from warpbeam.codegen.c.kernel import quoted, signature
from warpbeam.codegen.c.prelude import prelude
from warpbeam.codegen.c.values import memory_type
from warpbeam.codegen.host_writer import Writer
from warpbeam.target import Target

_INFIX = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&&", "or": "||"}
_WRAPPING = {"add", "sub", "mul", "min", "max", "floordiv"}
HELPERS = r"""
WB_FN int wb_compact(const wb_tensor* t) {
  int64_t step = 1;
  int ok = 1;
  if (!t->strides) return 1;
  for (int32_t i = t->ndim; i-- > 0;) {
    if (t->shape[i] == 0) return 1;
    if (t->shape[i] != 1 && t->strides[i] != step) ok = 0;
    step = wb_mul_i64(step, t->shape[i]);
  }
  return ok;
}
WB_FN int64_t wb_stride(const wb_tensor* t, int32_t axis) {
  int64_t step = 1;
  if (t->strides) return t->strides[axis];
  for (int32_t i = axis + 1; i < t->ndim; ++i) step = wb_mul_i64(step, t->shape[i]);
  return step;
}
WB_FN void wb_copy(void* to, const void* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; ++i) ((uint8_t*)to)[i] = ((const uint8_t*)from)[i];
}
"""


class CWriter(Writer):
    """Writes C; every value is a constant of its own, so the order of evaluation is the order of lines."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.declared: list[str] = []
        self.head: list[str] = []
        self.lines: list[str] = []
        self.depth = 1
        self.count_ = 0
        self.names: dict[str | int, str] = {}

    def _line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def _v(self, text: str, type: str = "int64_t") -> str:
        self.count_ += 1
        self._line(f"{type} v{self.count_} = {text};")
        return f"v{self.count_}"

    def declare(self, kernel: str, buffers: int, scalars: int) -> None:
        self.declared.append(f"{signature(kernel, buffers, scalars)};")

    def begin(self, name: str) -> None:
        text = f"int32_t {name}(wb_ctx* ctx, wb_tensor** args, int32_t n)"
        self.head = [f"{text};", f"{text} {{"]

    def end(self) -> str:
        return "\n".join([prelude(self.target), HELPERS, *self.declared, self.close()])

    def close(self) -> str:
        """The function alone, as it stands in a file after the prelude, HELPERS and what it calls."""
        self._line("return 0;")
        return "\n".join([*self.head, *self.lines, "}", ""])

    def return_ok(self) -> None:
        self._line("return 0;")

    # ------------------------------------------------------------------------------------------------------- values

    def number(self, value: int) -> str:
        if value == -(1 << 63):
            return "INT64_MIN"
        return f"({value}LL)" if value < 0 else f"{value}LL"

    def op(self, operator: str, *operands: str) -> str:
        if operator in _WRAPPING:
            return self._v(f"wb_{operator}_i64({', '.join(operands)})")
        if operator in _INFIX:
            return self._v(f"{operands[0]} {_INFIX[operator]} {operands[1]}")
        a = operands[0]
        texts = {
            "mod": lambda: f"wb_floormod_i64({a}, {operands[1]})",
            "neg": lambda: f"wb_sub_i64(0, {a})",
            "not": lambda: f"!{a}",
            "select": lambda: f"{a} ? {operands[1]} : {operands[2]}",
            "ceildiv": lambda: f"wb_sub_i64(0, wb_floordiv_i64(wb_sub_i64(0, {a}), {operands[1]}))",
        }
        return self._v(texts[operator]())

    def variable(self, name: str) -> None:
        self.names[name] = f"s{len(self.names)}"
        self._line(f"int64_t {self.names[name]} = 0;")
        self._line(f"(void){self.names[name]};")

    def get(self, name: str) -> str:
        return self._v(self.names[name])

    def set(self, name: str, value: str) -> None:
        self._line(f"{self.names[name]} = {value};")

    def load(self, address: str, offset: int, dtype: str) -> str:
        return self._v(f"(int64_t)*(const {memory_type(dtype)}*)((const uint8_t*){address} + {offset})")

    # --------------------------------------------------------------------------------------- arguments and context

    def count(self) -> str:
        return "n"

    def context(self, field: str) -> str:
        return self._v(f"ctx->{field}")

    def section(self, name: str) -> str:
        return self._v(f"(uint8_t*)ctx->{name}", "uint8_t*")

    def field(self, index: int, name: str) -> str:
        t = f"args[{index}]"
        if name == "ndim":
            return self._v(f"{t}->ndim")
        return self._v(f"(int64_t){t}->code | (int64_t){t}->bits << 8 | (int64_t){t}->lanes << 16")

    def extent(self, index: int, axis: int) -> str:
        return self._v(f"args[{index}]->shape[{axis}]")

    def stride(self, index: int, axis: int) -> str:
        return self._v(f"wb_stride(args[{index}], {axis})")

    def set_extent(self, index: int, axis: int, value: str) -> None:
        self._line(f"args[{index}]->shape[{axis}] = {value};")

    def data(self, index: int) -> str:
        return self._v(f"(uint8_t*)args[{index}]->data + args[{index}]->byte_offset", "uint8_t*")

    def absent(self, index: int) -> str:
        return self._v(f"!args[{index}]->data")

    def set_data(self, index: int, address: str) -> None:
        self._line(f"args[{index}]->data = {address};")
        self._line(f"args[{index}]->byte_offset = 0;")

    def check_compact(self, index: int, message: str) -> None:
        self.check(f"wb_compact(args[{index}])", message)

    # ---------------------------------------------------------------------------------------------------- addresses

    def offset(self, address: str, amount: str) -> str:
        return self._v(f"{address} + {amount}", "uint8_t*")

    def pointer_variable(self, number: int) -> None:
        self.names[number] = f"p{number}"
        self._line(f"uint8_t* p{number} = 0;")
        self._line(f"(void)p{number};")

    def get_pointer(self, number: int) -> str:
        return self._v(self.names[number], "uint8_t*")

    def set_pointer(self, number: int, address: str) -> None:
        self._line(f"{self.names[number]} = {address};")

    # ------------------------------------------------------------------------------------------------------ effects

    def check(self, condition: str, message: str) -> None:
        self._line(f"if (!({condition})) return wb_fail(ctx, {quoted(message)});")

    def reserve(self, size: str) -> None:
        self._line(f"if ({size} > ctx->arena_bytes) {{")
        self._line('  if (!ctx->reserve) return wb_fail(ctx, "the arena is too small and the context cannot grow it");')
        self._line(f"  const int32_t status = ctx->reserve(ctx, {size});")
        self._line("  if (status) return status;")
        self._line("}")

    def copy(self, target: str, source: str, size: str) -> None:
        self._line(f"wb_copy({target}, {source}, {size});")

    def call(self, kernel: str, buffers: list[str], scalars: list[str]) -> None:
        self._line(f"{{ const int32_t status = {kernel}({', '.join(['ctx', *buffers, *scalars])});")
        self._line("  if (status) return status; }")

    # ------------------------------------------------------------------------------------------------------ control

    def if_(self, condition: str) -> None:
        self._line(f"if ({condition}) {{")
        self.depth += 1

    def else_(self) -> None:
        self.depth -= 1
        self._line("} else {")
        self.depth += 1

    def end_if(self) -> None:
        self.depth -= 1
        self._line("}")

    def loop(self) -> None:
        self._line("for (;;) {")
        self.depth += 1

    def while_(self, condition: str) -> None:
        self._line(f"if (!({condition})) break;")

    def end_loop(self) -> None:
        self.end_if()
