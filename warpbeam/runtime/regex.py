"""Regular expressions in the syntax of RE2, matched in time that is linear in the text whatever the pattern is.

A pattern becomes a small program of characters, choices and assertions; a text is matched by the set of all places in
the program that it may have reached. Nothing is tried and taken back, so no pattern takes exponential time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .errors import RunError

Test = Callable[[str], bool]

_MOST_PLACES = 20_000
_MOST_REPEATS = 1000
_MOST_NESTING = 100
_MOST_KEPT = 1_000_000
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t-\r ",
    "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_REPEAT = re.compile(r"\{(\d{1,9})(,(\d{0,9}))?\}")
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]{1,8}\}|0[0-7]{0,2}|[dDwWsSnrtfva]|[^0-9A-Za-z])", re.DOTALL)
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|\Z)|\\.", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:P?<[A-Za-z_]\w*>|([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)])))?")
_ASSERTIONS = {"\\A": "first", "\\z": "last", "\\b": "edge", "\\B": "inside"}
_PLACE_KINDS = ("first", "last", "edge", "inside", "line", "end")


class Pattern:
    """A compiled pattern.

    Raises:
        RunError: if it is none, uses what cannot be matched in linear time (back references, looking around), or is
        too large.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        tree = _Parser(text).parse()
        self.code: list[tuple[Any, ...]] = []
        self._emit(tree)
        self.code.append(("match",))
        self._known: dict[Any, frozenset[int]] = {}
        self._room = _MOST_KEPT

    def _emit(self, node: tuple[Any, ...]) -> None:
        if len(self.code) > _MOST_PLACES:
            raise _refused(self.text, f"it has more than {_MOST_PLACES} places")
        kind = node[0]
        if kind in ("char", "at"):
            self.code.append(node)
        elif kind == "cat":
            for part in node[1]:
                self._emit(part)
        elif kind == "alt":
            self._choices(node[1])
        else:
            _, part, least, most = node
            for _ in range(least):
                self._emit(part)
            if most is None:
                at = self._split()
                self._emit(part)
                self.code.append(("go", (at,)))
                self.code[at] = ("go", (at + 1, len(self.code)))
            else:
                splits = []
                for _ in range(most - least):
                    splits.append(self._split())
                    self._emit(part)
                for s in splits:
                    self.code[s] = ("go", (s + 1, len(self.code)))

    def _split(self) -> int:
        self.code.append(("go", ()))
        return len(self.code) - 1

    def _choices(self, parts: list[tuple[Any, ...]]) -> None:
        head, starts, ends = self._split(), [], []
        for part in parts:
            starts.append(len(self.code))
            self._emit(part)
            ends.append(self._split())
        self.code[head] = ("go", tuple(starts))
        for e in ends:
            self.code[e] = ("go", (len(self.code),))

    def _closed(self, places: frozenset[int], holds: frozenset[str]) -> frozenset[int]:
        """The places that wait for a character, or are the end, reached from `places` where assertions hold."""
        todo, seen, out = list(places), set(places), set()
        while todo:
            at = todo.pop()
            step = self.code[at]
            if step[0] == "go":
                new = step[1]
            elif step[0] == "at":
                new = (at + 1,) if step[1] in holds else ()
            else:
                out.add(at)
                continue
            fresh = [n for n in new if n not in seen]
            seen.update(fresh)
            todo += fresh
        return frozenset(out)

    def fullmatch(self, text: str) -> bool:
        """Whether the whole text matches."""
        reached = frozenset((0,))
        for k in range(len(text) + 1):
            before, here = text[k - 1 : k] if k else "", text[k : k + 1]
            waiting = self._kept((reached, _holding(before, here)), self._closed)
            if not here:
                return len(self.code) - 1 in waiting
            reached = self._kept((waiting, here), self._passed)
            if not reached:
                return False
        return False

    def _kept(self, key: tuple[frozenset[int], Any], made: Callable[..., frozenset[int]]) -> frozenset[int]:
        """What `made` makes of a key, made once while there is room for it."""
        found = self._known.get(key)
        if found is None:
            found = made(*key)
            self._room -= len(found) + 1
            if self._room < 0:
                self._known.clear()
                self._room = _MOST_KEPT
            self._known[key] = found
        return found

    def _passed(self, waiting: frozenset[int], here: str) -> frozenset[int]:
        """Where one character leads."""
        return frozenset(p + 1 for p in waiting if self.code[p][0] == "char" and self.code[p][1](here))


def _holding(before: str, here: str) -> frozenset[str]:
    """The assertions that hold between two characters."""
    words = [bool(c) and c.isascii() and (c.isalnum() or c == "_") for c in (before, here)]
    found = (not before, not here, words[0] != words[1], words[0] == words[1], before in ("", "\n"), here in ("", "\n"))
    return frozenset(k for k, holds in zip(_PLACE_KINDS, found, strict=True) if holds)


def _refused(pattern: str, why: str) -> RunError:
    return RunError(f"{pattern[:80]!r} is no regular expression that can be matched", why=why)


class _Parser:
    """From a pattern to a tree of ("char", test), ("at", kind), ("cat", parts), ("alt", parts), ("rep", part, least,
    most or None).
    """

    def __init__(self, text: str) -> None:
        plain = _QUOTED.sub(lambda m: m[0] if m[1] is None else re.escape(m[1]), text)
        self.text, self.at, self.flags, self.depth = plain, 0, "", 0

    def parse(self) -> tuple[Any, ...]:
        tree = self._alternatives()
        if self.at < len(self.text):
            raise self._error("a parenthesis is closed that was not opened")
        return tree

    def _error(self, why: str) -> RunError:
        return _refused(self.text, f"{why}, at character {self.at}")

    def _peek(self, start: str) -> bool:
        return self.text.startswith(start, self.at)

    def _alternatives(self) -> tuple[Any, ...]:
        parts = [self._sequence()]
        while self._peek("|"):
            self.at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else ("alt", parts)

    def _sequence(self) -> tuple[Any, ...]:
        parts: list[tuple[Any, ...]] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            item = self._item()
            if item is not None:
                parts.append(self._repeated(item))
        return ("cat", parts)

    def _repeated(self, item: tuple[Any, ...]) -> tuple[Any, ...]:
        bounds = self._bounds()
        if bounds is None:
            return item
        if self._peek("?"):  # lazy: the same texts match
            self.at += 1
        if self.text[self.at : self.at + 1] in ("*", "+", "?") and self.at < len(self.text):
            raise self._error("a repetition is repeated")
        return ("rep", item, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        here = self.text[self.at : self.at + 1]
        if here in simple:
            self.at += 1
            return simple[here]
        found = _REPEAT.match(self.text, self.at) if here == "{" else None
        if found is None:
            return None
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if least > _MOST_REPEATS or (most is not None and not least <= most <= _MOST_REPEATS):
            raise self._error(f"the repetition {found[0]} is not within 0 to {_MOST_REPEATS}")
        self.at = found.end()
        return least, most

    def _item(self) -> tuple[Any, ...] | None:
        here = self.text[self.at]
        if here == "(":
            return self._group()
        if here == "[":
            return self._class()
        if here == "\\":
            return self._escaped()
        if here in "*+?":
            raise self._error("a repetition of nothing")
        self.at += 1
        if here == "^":
            return ("at", "line" if "m" in self.flags else "first")
        if here == "$":
            return ("at", "end" if "m" in self.flags else "last")
        return self._one("." if here == "." else re.escape(here))

    def _one(self, text: str) -> tuple[Any, ...]:
        """One character, by the module for patterns: of a single one it has nothing to take back."""
        flags = re.IGNORECASE if "i" in self.flags else re.NOFLAG
        flags |= re.DOTALL if "s" in self.flags else re.NOFLAG
        try:
            test = re.compile(text, flags)
        except (re.error, OverflowError) as error:
            raise self._error(f"{text[:40]!r}: {error}") from None
        return ("char", lambda c: test.fullmatch(c) is not None)

    def _group(self) -> tuple[Any, ...] | None:
        opened = _GROUP.match(self.text, self.at)
        assert opened is not None
        self.at = opened.end()
        if self._peek("?"):
            raise self._error("looking around, or another group that is not of this syntax")
        outer = self.flags
        self.flags = "".join(f for f in outer + (opened[1] or "") if f not in (opened[2] or ""))
        if set(self.flags + (opened[2] or "")) - set("ism"):
            raise self._error(f"flags {opened[1] or opened[2]!r}")
        if opened[3] == ")":  # flags for the rest of the group around
            return None
        self.depth += 1
        if self.depth > _MOST_NESTING:
            raise self._error(f"groups are nested deeper than {_MOST_NESTING}")
        tree = self._alternatives()
        if not self._peek(")"):
            raise self._error("a parenthesis is not closed")
        self.at, self.flags, self.depth = self.at + 1, outer, self.depth - 1
        return tree

    def _escaped(self) -> tuple[Any, ...]:
        kind = _ASSERTIONS.get(self.text[self.at : self.at + 2])
        if kind is not None:
            self.at += 2
            return ("at", kind)
        inside, negated = self._escape()
        return self._one(f"[{'^' if negated else ''}{inside}]")

    def _escape(self) -> tuple[str, bool]:
        """An escape as what stands in a class of characters, and whether all but these are meant."""
        found = _ESCAPE.match(self.text, self.at)
        if found is None:
            raise self._error(f"escape {self.text[self.at : self.at + 2]!r}")
        self.at = found.end()
        name = found[1]
        if name in "dDwWsS":
            inside = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}[name.lower()]
            return inside, name.isupper()
        if name[0] == "x" and len(name) > 1:
            code = int(name[1:].strip("{}"), 16)
            if code > 0x10FFFF:
                raise self._error("there is no such character")
            return re.escape(chr(code)), False
        if name[0] == "0":
            return re.escape(chr(int(name, 8))), False
        return f"\\{name}", False

    def _class(self) -> tuple[Any, ...]:
        start = self.at
        self.at += 1
        negated = self._peek("^")
        self.at += negated
        parts: list[str] = []
        nots: list[str] = []
        while not self._peek("]") or not (parts or nots):
            if self.at >= len(self.text):
                self.at = start
                raise self._error("a class of characters is not closed")
            if self._peek("[:"):
                self._named(parts, nots)
            elif self._peek("\\"):
                inside, without = self._escape()
                (nots if without else parts).append(inside)
            else:
                here = self.text[self.at]
                parts.append(here if here == "-" else re.escape(here))
                self.at += 1
        self.at += 1
        texts = [f"[{''.join(parts)}]"] if parts else []
        texts += [f"[^{n}]" for n in nots]
        tests = [self._one(t)[1] for t in texts]
        return ("char", lambda c: any(t(c) for t in tests) != negated)

    def _named(self, parts: list[str], nots: list[str]) -> None:
        found = re.compile(r"\[:(\^?)(\w+):\]").match(self.text, self.at)
        if found is None or found[2] not in _POSIX:
            raise self._error("no such class of characters")
        (nots if found[1] else parts).append(_POSIX[found[2]])
        self.at = found.end()
