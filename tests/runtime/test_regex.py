"""Regular expressions: what Python's module says of them where both know the syntax, in linear time always."""

from __future__ import annotations

import random
import re
import time

import pytest

from warpbeam.runtime.errors import RunError
from warpbeam.runtime.regex import Pattern

TEXTS = ["", "a", "b", "ab", "aab", "abc", "A1_", "a b", "\n", "a\nb", "aaaa", "x-y", "[", "\\", "é", "0", "ba.", "aba"]
ATOMS = ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\s", "(a|b)", "(?:ab)", "[a-c1]", r"\.", "(?i:A)", "", r"\b"]
REPEATS = ["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?", "+?"]


def drawn(rng: random.Random, depth: int = 2) -> str:
    parts = []
    for _ in range(rng.randint(1, 3)):
        atom = f"({drawn(rng, depth - 1)})" if depth and rng.random() < 0.3 else rng.choice(ATOMS)
        parts.append(atom + (rng.choice(REPEATS) if atom and atom != r"\b" else ""))
    return "".join(parts) + (f"|{drawn(rng, depth - 1)}" if depth and rng.random() < 0.3 else "")


def test_random_patterns_match_what_python_matches() -> None:
    rng = random.Random(11)
    matched = 0
    for _ in range(600):
        text = drawn(rng)
        ours, theirs = Pattern(text), re.compile(text, re.ASCII)
        for t in TEXTS:
            want = theirs.fullmatch(t) is not None
            matched += want
            assert ours.fullmatch(t) is want, (text, t)
    assert matched > 500


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^a$", ["a"], ["a\n"]),
        (r"\Aa\z", ["a"], ["ab"]),
        ("(?m)a$\n^b", ["a\nb"], ["ab"]),
        ("(?s)a.b", ["a\nb"], ["ab"]),
        ("(?i)abc", ["aBC"], ["abd"]),
        ("(?i)a(?-i:b)", ["Ab"], ["AB"]),
        (r"[[:alpha:]_]+[[:^digit:]]", ["ab_!"], ["ab1"]),
        (r"[^\d\s]+", ["abc"], ["a1", "a c"]),
        (r"\Qa.b\E+", ["a.bb"], ["axb"]),
        (r"\x41\x{1F600}\t", ["A\U0001f600\t"], ["A"]),
        ("(?P<word>a+)b", ["aab"], ["b"]),
        (r"[]a\]-]+", ["]a-"], ["b"]),
        ("x{", ["x{"], ["x"]),
        (r"\B", [""], ["a"]),
    ],
)
def test_the_rest_of_the_syntax(pattern: str, yes: list[str], no: list[str]) -> None:
    ours = Pattern(pattern)
    assert all(ours.fullmatch(t) for t in yes)
    assert not any(ours.fullmatch(t) for t in no)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+", "(a*)*b", "(.*a){20}", "((a?){30}a{30})+"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    start = time.perf_counter()
    Pattern(pattern).fullmatch("a" * 2000 + "!")
    assert time.perf_counter() - start < 5  # taking choices back would take longer than the universe is old


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "not closed"),
        (")", "not opened"),
        ("[a", "not closed"),
        ("*a", "repetition of nothing"),
        ("a**", "repetition is repeated"),
        ("a{3,2}", "not within"),
        ("a{2000}", "not within"),
        (r"(a)\1", "escape"),
        ("(?=a)", "not of this syntax"),
        ("(?x)a", "flags"),
        (r"\pL", "escape"),
        ("[z-a]", "bad character range"),
        ("[[:nope:]]", "no such class"),
        ("(" * 200 + ")" * 200, "nested deeper"),
        ("((a{1000}){1000}){1000}", "more than 20000 places"),
        (r"\x{110000}", "no such character"),
    ],
)
def test_refusals_say_why(pattern: str, why: str) -> None:
    with pytest.raises(RunError, match="no regular expression") as caught:
        Pattern(pattern)
    assert why in str(caught.value)
