"""The package as a whole: what importing it costs, and the rules of the house that no linter checks."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "warpbeam"
MAX_FILE, MAX_FUNCTION = 500, 60
#: files that are tables of rules
LONGER: dict[str, int] = {}
FORBIDDEN = ("setrecursionlimit", "deepcopy")


def sources() -> list[Path]:
    """Every Python file of the package and its tests and benchmarks."""
    return sorted(p for folder in ("warpbeam", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py"))


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def quoted(function: ast.AST) -> int:
    """Lines of a function that are quoted text (expected output of a test, say) beyond the first of each."""
    strings = (n for n in ast.walk(function) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return sum((s.end_lineno or s.lineno) - s.lineno for s in strings)


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a statement loads, and all of ours, in a fresh interpreter."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    names = json.loads(out.stdout.splitlines()[-1])
    return {n if n.startswith("warpbeam") else n.partition(".")[0] for n in names}


def test_import_is_lazy() -> None:
    names = loaded_by("import warpbeam")
    assert not names & {"onnx", "llvmlite", "numpy", "rich", "ml_dtypes", "argparse"}
    assert {n for n in names if n.startswith("warpbeam")} == {"warpbeam"}


def test_runtime_ships_alone() -> None:
    names = loaded_by("import warpbeam.runtime")
    assert not names & {"onnx", "llvmlite", "rich"}
    assert all(n == "warpbeam" or n.startswith("warpbeam.runtime") for n in names if n.startswith("warpbeam"))


def test_help_imports_nothing_heavy() -> None:
    names = loaded_by("from warpbeam.cli.main import build_parser; build_parser()[0].format_help()")
    assert not names & {"onnx", "llvmlite", "numpy", "rich"}


def test_public_names() -> None:
    code = """
import warpbeam as tvm
assert tvm.cpu(0) == tvm.cpu() and str(tvm.cpu()) == "cpu(0)"
assert tvm.nd.array([1.0, 2.0]).shape == (2,)
missing = [n for n in dir(tvm) if not n.startswith("_") and getattr(tvm, n, None) is None]
assert not missing, missing
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_unknown_name_is_an_attribute_error() -> None:
    import warpbeam

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        warpbeam.nothing  # noqa: B018


def test_files_are_short() -> None:
    long = {}
    for path in sources():
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONGER.get(ids(path), MAX_FILE):
            long[ids(path)] = len(lines)
    assert not long


def test_functions_are_short() -> None:
    long = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1 - quoted(node)
                if length > MAX_FUNCTION:
                    long.append(f"{ids(path)}:{node.lineno} {node.name} has {length} lines")
    assert not long


def test_no_recursion_tricks() -> None:
    """Graphs are walked iteratively, nodes are shared: neither a higher limit nor copies are ever needed."""
    found = []
    for path in sources():
        if path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8")
        found += [f"{ids(path)}: {word}" for word in FORBIDDEN if re.search(rf"\b{word}\b", text)]
    assert not found


def test_names_of_test_files_are_unique() -> None:
    """Test folders are no packages: one name is one module, whichever folder it is found in."""
    names = [p.name for p in sorted((ROOT / "tests").rglob("*.py")) if p.name != "conftest.py"]
    assert not {n for n in names if names.count(n) > 1}


def test_modules_say_what_they_are_for() -> None:
    bare = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and ast.get_docstring(tree) is None:
            bare.append(ids(path))
    assert not bare


def test_no_leftovers() -> None:
    """No notes to ourselves, no paths of somebody's machine."""
    patterns = (r"\bTODO\b", r"\bFIXME\b", r"\bXXX\b", r"/home/", r"/root/", r"/work/")
    found = []
    for path in sources():
        if path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8")
        found += [f"{ids(path)}: {p}" for p in patterns if re.search(p, text)]
    assert not found


def test_the_version_is_the_project_s() -> None:
    import tomllib

    import warpbeam

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert warpbeam.__version__ == project["version"]


def test_typed_and_data_files_are_packaged() -> None:
    import tomllib

    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["warpbeam"]
    shipped = {p for pattern in patterns for p in PACKAGE.glob(pattern)}
    data = {p for p in PACKAGE.rglob("*") if p.suffix in (".toml", ".h", ".c", ".typed") or p.name == "py.typed"}
    assert data <= shipped
