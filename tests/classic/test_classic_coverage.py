"""Every name and keyword that classic tutorials use is used by some program of this folder, as its syntax shows."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def table() -> list[tuple[str, tuple[str, ...]]]:
    lines = (HERE / "script_names.txt").read_text().splitlines()
    rows = [line.partition(":") for line in lines if not line.startswith("#")]
    return [(name, tuple(words.split())) for name, _, words in rows]


def short(path: str) -> str:
    """A function's path as all spellings of it end: te.sum, contrib.utils.tempdir -> utils.tempdir."""
    return path.removeprefix("tvm.").removeprefix("contrib.")


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """The path that an expression names, through the program's imports and its own short names."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return None
    return ".".join([names[node.id], *reversed(parts)])


def imported(tree: ast.AST) -> dict[str, str]:
    """What each local name of the package stands for, with "tvm" for the package itself."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name: a.name.replace("warpbeam", "tvm", 1) for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("warpbeam"):
            base = (node.module or "").replace("warpbeam", "tvm", 1)
            found |= {a.asname or a.name: f"{base}.{a.name}" for a in node.names}
    return {name: path for name, path in found.items() if path.startswith("tvm")}


def renamed(tree: ast.AST, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Local names given to functions: call, n = tvm.tir.call_intrin, 16"""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            left, right = node.targets[0], node.value
            pairs = zip(left.elts, right.elts, strict=False) if (
                isinstance(left, ast.Tuple) and isinstance(right, ast.Tuple)
            ) else [(left, right)]  # fmt: skip
            for target, value in pairs:
                path = dotted(value, names)
                if isinstance(target, ast.Name) and path is not None:
                    yield target.id, path


@functools.cache
def used() -> dict[str, set[str]]:
    """Keywords by what is called: paths of functions, and ".name" for methods."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted(HERE.glob("test_classic_*.py")):
        tree = ast.parse(file.read_text())
        names = imported(tree)
        names |= dict(renamed(tree, names))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                keywords = {k.arg for k in node.keywords if k.arg}
                path = dotted(node.func, names)
                if path is not None:
                    found[short(path)] |= keywords
                elif isinstance(node.func, ast.Attribute):
                    found[f".{node.func.attr}"] |= keywords
            elif isinstance(node, ast.FunctionDef):
                for path in filter(
                    None, (dotted(d, names) for d in node.decorator_list if isinstance(d, ast.Attribute))
                ):
                    found[short(path)] |= set()
    return found


def key(name: str) -> str:
    kind, _, method = name.partition(".")
    return f".{method}" if kind in ("*", "Stage", "Schedule") else short(name)


@pytest.mark.parametrize(("name", "words"), table(), ids=lambda x: x if isinstance(x, str) else "")
def test_name_is_used(name: str, words: tuple[str, ...]) -> None:
    assert key(name) in used(), f"no program calls {name}"
    missing = set(words) - used()[key(name)]
    assert not missing, f"no program passes {sorted(missing)} to {name}"


def test_the_table_is_read() -> None:
    rows = table()
    assert len(rows) > 100 and len({n for n, _ in rows}) == len(rows)
    assert short("tvm.contrib.utils.tempdir") == key("tvm.contrib.utils.tempdir") == "utils.tempdir"
    assert key("Stage.split") == ".split" and "no_such_function" not in used()
    names = imported(ast.parse("import warpbeam as tvm\nfrom warpbeam.contrib import tedd as t"))
    assert names == {"tvm": "tvm", "t": "tvm.contrib.tedd"}
    call = ast.parse("t.viz(s, a=1)").body[0]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    assert dotted(call.value.func, names) == "tvm.contrib.tedd.viz"
