"""Options that several subcommands share, and what their values mean."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

_SHAPE = re.compile(r"[\s,;]*([^\s\[\],;]+):\s*\[([^\]]*)\]")

Shapes = dict[str, tuple[int | str, ...]]


def add_model(parser: argparse.ArgumentParser, artefact: bool = True) -> None:
    """The model argument."""
    what = "an ONNX file, a Relay text (.relay)" + (" or a compiled model" if artefact else "")
    parser.add_argument("model", metavar="MODEL", help=what)
    if artefact:
        add_trusted(parser)


def add_trusted(parser: argparse.ArgumentParser) -> None:
    """--trusted."""
    parser.add_argument(
        "--trusted", action="append", metavar="KEY.pem", help="refuse compiled files that no such public key signed"
    )


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """--input-shapes."""
    parser.add_argument(
        "--input-shapes",
        type=shapes,
        action="extend",
        default=[],
        metavar='"X:[1,3,224,224] Y:[1,8]"',
        help="extents of dynamic inputs; may be given several times",
    )


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Options of every subcommand that compiles."""
    add_shapes(parser)
    group = parser.add_argument_group("compiling")
    group.add_argument(
        "--target",
        type=targets,
        default="native",
        metavar="NAME[,NAME…]",
        help='"native" or a target\'s name; several make one file that serves all (default: native)',
    )
    group.add_argument(
        "-O", "--opt-level", type=int, choices=range(5), default=3,
        help="0 to 3 (default: 3); 4 is 3 with --guard",
    )  # fmt: skip
    group.add_argument(
        "--guard", nargs="?", type=seconds, const=True, metavar="SECONDS",
        help="measure variants of the heaviest kernels for so long in all (2 if not given) and keep the fastest",
    )  # fmt: skip
    group.add_argument(
        "--accuracy",
        choices=("exact", "default", "fast"),
        help="exact: plain sums; fast: also algorithms that lose a digit or two (default: default)",
    )
    group.add_argument(
        "--precision", metavar="fp32|bf16|fp16[,OPERATOR=CATEGORY…]",
        help="bf16: products in bfloat16, sums in float32; fp16: kept in float16, computed in float32 (default: fp32)",
    )  # fmt: skip
    group.add_argument(
        "--max-memory", type=size, metavar="BYTES",
        help="refuse a model that needs more for one tensor, or for constants and working memory (also 500M, 2G)",
    )  # fmt: skip
    group.add_argument(
        "--max-compile-seconds", type=seconds, metavar="SECONDS", help="give up soon after so long (default: never)"
    )
    group.add_argument("--no-cache", action="store_true", help="neither read nor write the cache on disk")
    group.add_argument("--workers", type=positive, metavar="N", help="compiling processes (default: one per core)")
    add_threads(group)


def add_threads(parser: Any) -> None:
    """--threads."""
    parser.add_argument("--threads", type=positive, metavar="N", help="threads that run the model (default: all cores)")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Where input arrays come from."""
    group = parser.add_argument_group("inputs")
    group.add_argument("-i", "--inputs", metavar="FILE.npz", help="arrays by input name; what is missing is generated")
    group.add_argument("--fill", choices=("random", "zeros", "ones"), default="random", help="how to generate inputs")
    group.add_argument("--seed", type=count, default=0, help="seed of random inputs (default: 0)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """--sizes."""
    parser.add_argument(
        "--sizes",
        type=sizes,
        default={},
        metavar="batch=3,length=17",
        help="values of symbolic extents that stay symbolic in the compiled model (default: 1, or more if that"
        " does not fit)",
    )


def targets(text: str) -> str | list[str]:
    """One target's name or several."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return names if len(names) > 1 else text


def sizes(text: str) -> dict[str, int]:
    """Extents by name from `batch=3,length=17`."""
    pairs = [word.partition("=") for word in re.split(r"[\s,]+", text.strip())]
    for name, _, value in pairs:
        if not name or not value.isdecimal():
            raise argparse.ArgumentTypeError(f'cannot read {text!r}; write it as "batch=3,length=17"')
    return {name: int(value) for name, _, value in pairs}


def positive(text: str) -> int:
    """A number of at least one."""
    return _at_least(1, text)


def size(text: str) -> int:
    """A number of bytes above zero; K, M, G, T are powers of 1,024."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in tuple("KMGT") else (text, "")
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes above zero; write 500M or 2G, for example")
    return int(number) << (10 * " KMGT".index(unit) if unit else 0)


def seconds(text: str) -> float:
    """A number of seconds above zero."""
    try:
        value = float(text)
    except ValueError:
        hint = "write --guard=2, or the model before --guard"
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; {hint}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above zero")
    return value


def count(text: str) -> int:
    """A number of at least zero."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is less than {least}")
    return value


def shapes(text: str) -> list[tuple[str, tuple[int | str, ...]]]:
    """Pairs of name and extents from `"x:[1,3,224,224] y:[batch,8]"`; words are symbolic extents."""
    found: list[tuple[str, tuple[int | str, ...]]] = []
    end = 0
    while match := _SHAPE.match(text, end):
        words = [w.strip() for w in match[2].split(",") if w.strip()]
        if any(re.fullmatch(r"-\d+", w) for w in words):
            raise argparse.ArgumentTypeError(f"{match[0].strip()!r} has a negative extent; a word is a symbolic one")
        found.append((match[1], tuple(int(w) if w.isdecimal() else w for w in words)))
        end = match.end()
    if text[end:].strip(" ,;") or not found:
        raise argparse.ArgumentTypeError(f'cannot read {text[end:]!r}; write it as "x:[1,3,224,224] y:[1,8]"')
    return found


def shape_map(pairs: Sequence[tuple[str, tuple[int | str, ...]]]) -> Shapes:
    """Shapes by input name; the last one given counts."""
    return dict(pairs)
