"""Names of binders in text: each its own, kept where possible, never a word of the language."""

from __future__ import annotations

import json
import re
from typing import Any

# fmt: off
KEYWORDS = frozenset((
    "def", "for", "in", "while", "if", "else", "let", "alloc", "eval", "assert", "block", "where", "init", "scope",
    "seq", "pass", "and", "or", "not", "free", "size", "True", "False", "None", "range", "serial", "parallel",
    "vectorized", "unrolled", "thread_binding", "nan", "inf", "spatial", "reduce", "ordered", "opaque", "extent",
    "bits",
))
# fmt: on
SPECIAL = frozenset(["cast", "select", "min", "max", "ramp", "broadcast", "shuffle", "truncmod", "expr", "buffer"])
DTYPE = re.compile(
    r"(?:u?int(?:1|2|4|8|16|32|64|128)|float(?:16|32|64)|bfloat16|float[864]_\w+?|bool|handle|string)(?:x\d+)?\Z"
)
PLAIN = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*\Z", re.ASCII)


def is_reserved(name: str) -> bool:
    """Whether a plain name means something else than a binder."""
    return name in KEYWORDS or name in SPECIAL or DTYPE.match(name) is not None


def quoted(name: str, reserved: bool = False) -> str:
    """The name as it stands in text: in backticks where it is no plain word."""
    if PLAIN.match(name) and not reserved:
        return name
    return "`" + json.dumps(name)[1:-1].replace("`", "\\u0060") + "`"


class Names:
    """Gives every binder a name of its own, in order of appearance."""

    def __init__(self, taken: set[str] | None = None) -> None:
        self.taken = set(taken or ())
        self.of: dict[Any, str] = {}

    def __getitem__(self, binder: Any) -> str:
        return self.give(binder)

    def give(self, binder: Any, prefix: str = "") -> str:
        """The binder's name; where its own is taken, with `prefix`, then with a number."""
        found = self.of.get(binder)
        if found is None:
            base = name = str(binder.name) or "_"
            if name in self.taken:
                base = name = prefix + base
            k = 1
            while name in self.taken or is_reserved(name):
                name = f"{base}_{k}"
                k += 1
            self.taken.add(name)
            found = self.of[binder] = quoted(name)
        return found
