"""Tokens of Relay text, and errors that show the line with a caret."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from warpbeam.ir.diagnostics import TextError

_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|/\*.*?\*/|//[^\n]*)
  | (?P<mark>\#\[[^\]\n]*\])
  | (?P<local>%(?:"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|\w+))
  | (?P<global>@(?:"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|\w+))
  | (?P<size>\?(?:"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|[A-Za-z_]\w*)?)
  | (?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")
  | (?P<number>(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?P<suffix>(?:f|bf|i|u)\d*(?![\w]))?)
  | (?P<field>\.\d+)
  | (?P<word>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
  | (?P<sign>->|=>|::|==|!=|<=|>=|//|[-+*/%<>=(){}\[\],:;?_])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


class Token(NamedTuple):
    kind: str
    text: str
    pos: int

    @property
    def name(self) -> str:
        """The name of a local, global or size token, unquoted."""
        rest = self.text[1:]
        return json.loads(rest) if rest.startswith('"') else rest


class Source:
    """A text with its tokens; `//` comments are not skipped within dimension expressions (there it is a quotient)."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.tokens = self._scan()

    def _scan(self) -> list[Token]:
        out: list[Token] = []
        pos, text, size = 0, self.text, len(self.text)
        while pos < size:
            m = _TOKEN.match(text, pos)
            if m is None:
                self.fail(f"unexpected character {text[pos]!r}", pos)
            kind = m.lastgroup or ""
            if kind == "suffix":
                kind = "number"
            if kind == "skip" and m.group().startswith("//") and self._divides(out, m.end(), m.start()):
                out.append(Token("sign", "//", pos))
                pos += 2
                continue
            if kind != "skip":
                out.append(Token(kind, m.group(), pos))
            pos = m.end()
        out.append(Token("end", "", size))
        return out

    def _divides(self, out: list[Token], end: int, start: int) -> bool:
        """Whether `//` is a quotient: it follows an operand on its line and is followed by one."""
        if not out or "\n" in self.text[out[-1].pos : start]:
            return False
        after = self.text[start + 2 : end].lstrip()
        return (out[-1].kind in ("size", "number") or out[-1].text == ")") and bool(re.match(r"[?(\d]", after))

    def place(self, pos: int) -> tuple[int, int]:
        """Line and column, from 1."""
        line = self.text.count("\n", 0, pos) + 1
        return line, pos - (self.text.rfind("\n", 0, pos) + 1) + 1

    def fail(self, message: str, pos: int, hint: str = "", why: str = "") -> NoReturn:
        """Raises a TextError with the line and a caret below the place."""
        line, column = self.place(pos)
        start = self.text.rfind("\n", 0, pos) + 1
        end = self.text.find("\n", pos)
        shown = self.text[start : len(self.text) if end < 0 else end]
        shift = max(0, column - 80)
        excerpt = f"\n    {shown[shift : shift + 110]}\n    {' ' * (column - 1 - shift)}^"
        raise TextError(message, where=f"{self.name}:{line}:{column}{excerpt}", why=why, hint=hint)


def nearest(name: str, known: list[str]) -> str:
    """A hint with the known names closest to a wrong one."""
    near = get_close_matches(name, known, 3)
    return f"did you mean {', '.join(near)}?" if near else ""
