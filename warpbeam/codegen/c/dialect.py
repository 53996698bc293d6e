"""What tells one language of the C family from another, as data: the printer itself knows only C's statements.

The printer writes neutral words: C11's integer types, `wb_index` for an index, and `wb_<operation>_<type>` for what C
leaves partly undefined or does not have. A dialect says what stands for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from warpbeam.ir import dtype as dt


@dataclass(frozen=True)
class Dialect:
    """One language.

    Attributes:
        name: how errors call it.
        words: neutral word -> the language's ("int32_t" -> "int").
        infix: operations on integers that are plain operators ("add" -> "+"); others are calls.
        native: "sqrt_f32" -> name of the language's own function with that meaning.
        math: "exp" -> templates for float and double; {0}, {1} are operands.
        memory: dtype -> type of its elements in memory, where it is not that of its values.
        load, store: dtype -> templates that bring an element from memory and to it.
        helpers: definitions that replace the prelude's, by name.
        function: qualifiers of helper functions.
        hex_floats: floating literals are written in base 16.
        table: qualifiers of a constant table in a function.
        array: qualifiers of an array of 16 bytes or more in a function.
        long_suffix: ending of 64-bit literals.
        limit: longer expressions get a name.
    """

    name: str
    words: Mapping[str, str] = field(default_factory=dict)
    infix: Mapping[str, str] = field(default_factory=dict)
    native: Mapping[str, str] = field(default_factory=dict)
    math: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    memory: Mapping[str, str] = field(default_factory=dict)
    load: Mapping[str, str] = field(default_factory=dict)
    store: Mapping[str, str] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    function: str = "WB_FN"
    hex_floats: bool = True
    table: str = "static const"
    array: str = ""
    long_suffix: str = "LL"
    limit: int = 90

    def apply(self, operation: str, ending: str, *operands: str) -> str:
        """An operation on operands of one type, such as ("add", "i32") or ("floor", "f32")."""
        own = self.native.get(f"{operation}_{ending}")
        if own is not None:
            return f"{own}({', '.join(operands)})"
        if operation in self.infix and ending[0] in "iu":
            text = f"({operands[0]} {self.infix[operation]} {operands[1]})"
            return text if ending[1:] in ("32", "64") else f"({_short(ending)}){text}"
        return f"wb_{operation}_{ending}({', '.join(operands)})"

    def function_of(self, op: str, dtype: str, operands: list[str]) -> str | None:
        """A mathematical function that the language has, or None."""
        found = self.math.get(op)
        if found is None:
            return None
        template = found[1] if dt.scalar(dtype) == "float64" else found[0]
        return template.format(*operands)

    def spelled(self, text: str) -> str:
        """A printed text with neutral words replaced."""
        if not self.words:
            return text
        text = _WORD.sub(lambda m: self.words.get(m[0], m[0]), text)
        return text if self.long_suffix == "LL" else _LONG.sub(rf"\1{self.long_suffix}", text)


def bare(text: str) -> str:
    """A text without parentheses around all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for k, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0 and k < len(text) - 1:
            return text
    return text[1:-1]


_WORD = re.compile(r"\b[A-Za-z_]\w*\b")
_LONG = re.compile(r"\b(\d+U?)LL\b", re.I)


def _short(ending: str) -> str:
    return f"{'u' if ending[0] == 'u' else ''}int{ending[1:]}_t"


C11 = Dialect("C", array="WB_ARRAY")
LIMITS = {
    "INT8_MIN": "(-128)", "INT8_MAX": "127", "UINT8_MAX": "255", "INT16_MIN": "(-32768)", "INT16_MAX": "32767",
    "UINT16_MAX": "65535", "INT32_MIN": "(-2147483647 - 1)", "INT32_MAX": "2147483647", "UINT32_MAX": "4294967295U",
    "INT64_MIN": "(-9223372036854775807LL - 1)", "INT64_MAX": "9223372036854775807LL",
    "UINT64_MAX": "18446744073709551615ULL",
}  # fmt: skip
