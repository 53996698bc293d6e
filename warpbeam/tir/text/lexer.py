"""Tokens of loop-program text: indentation becomes tokens, line breaks inside brackets do not count."""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn

from warpbeam.ir.diagnostics import TextError

_TOKEN = re.compile(
    r"""
    (?P<skip>[ \t]+|\#[^\n]*)
  | (?P<line>\n)
  | (?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
  | (?P<int>\d+)
  | (?P<word>[A-Za-z_]\w*(?:\.\w+)*)
  | (?P<quoted>`(?:[^`\\\n]|\\.)*`)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<sign>//|==|!=|<=|>=|[-+*/%<>=(){}\[\],:@])
    """,
    re.VERBOSE | re.ASCII,
)


class Token(NamedTuple):
    """kind: word, quoted, int, float, string, sign, or the layout tokens newline, indent, dedent, end."""

    kind: str
    text: str
    pos: int

    def describe(self) -> str:
        words = {"newline": "the end of the line", "indent": "deeper indentation", "dedent": "the end of the block"}
        return words.get(self.kind, "the end of the text" if self.kind == "end" else repr(self.text))


class Source:
    """A text, its tokens, and errors that show a place in it."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.tokens = self._layout(self._scan())

    def fail(self, message: str, pos: int, expected: str = "") -> NoReturn:
        """Raises TextError with line:column, the line, and a caret."""
        line = self.text.count("\n", 0, pos) + 1
        start = self.text.rfind("\n", 0, pos) + 1
        end = self.text.find("\n", pos)
        content = self.text[start : len(self.text) if end < 0 else end]
        column = pos - start
        left = max(0, column - 90)
        shown = content[left : left + 140]
        caret = " " * (column - left) + "^"
        where = f"{self.name}:{line}:{column + 1}\n    {shown}\n    {caret}"
        raise TextError(message, where=where, hint=f"expected {expected}" if expected else "")

    def _scan(self) -> list[Token]:
        out: list[Token] = []
        pos = 0
        while pos < len(self.text):
            m = _TOKEN.match(self.text, pos)
            if m is None:
                self.fail(f"unexpected character {self.text[pos]!r}", pos)
            kind = m.lastgroup or ""
            if kind != "skip":
                out.append(Token(kind, m.group(), pos))
            pos = m.end()
        return out

    def _layout(self, tokens: list[Token]) -> list[Token]:
        out: list[Token] = []
        indents = [0]
        depth = 0
        fresh = True
        for t in tokens:
            if t.kind == "line":
                if depth == 0 and not fresh:
                    out.append(Token("newline", "", t.pos))
                    fresh = True
                continue
            if fresh and depth == 0:
                self._indent(t, indents, out)
                fresh = False
            if t.kind == "sign":
                depth += (t.text in "([{") - (t.text in ")]}")
                depth = max(depth, 0)
            out.append(t)
        end = len(self.text)
        if not fresh:
            out.append(Token("newline", "", end))
        out += [Token("dedent", "", end)] * (len(indents) - 1)
        out.append(Token("end", "", end))
        return out

    def _indent(self, t: Token, indents: list[int], out: list[Token]) -> None:
        column = t.pos - (self.text.rfind("\n", 0, t.pos) + 1)
        if column > indents[-1]:
            indents.append(column)
            out.append(Token("indent", "", t.pos))
        while column < indents[-1]:
            indents.pop()
            out.append(Token("dedent", "", t.pos))
        if column != indents[-1]:
            self.fail("this line's indentation matches no line above", t.pos)


def unquote(t: Token) -> str:
    """The name or string of a token."""
    if t.kind == "word":
        return t.text
    return json.loads('"' + t.text[1:-1] + '"')  # type: ignore[no-any-return]
