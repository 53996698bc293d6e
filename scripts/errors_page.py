#!/usr/bin/env python3
"""Writes docs/reference/errors.md from the docstrings of the error classes: what each means, an example, its fix.

A class's docstring has the sections `Wrong:` and `Right:`, Python code that needs only what the page's first example
defines. Both are executed here, and again by the tests of the documentation.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import linecache
import os
import pkgutil
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "errors.md"
INTERNAL = {  # never seen by callers: caught inside, or for tests
    "BackendIsNotSupposedToImplementIt", "NeedsContentError", "Undecided",
}  # fmt: skip

HEAD = """# Errors

Written by `scripts/errors_page.py` from the docstrings of the classes; do not edit it here.

Every error that is raised on purpose is a `WarpbeamError` (`warpbeam.TVMError` is the same class): it says what was
found and, where that helps, where, why it cannot work, and what to do. The attributes `what`, `where`, `why` and `hint`
hold the parts. Where classic scripts catch a `ValueError`, the class is one too. Each class is shown with an example
that fails, and its fix; the examples use this:

```python
{prelude}```
"""

PRELUDE = """from pathlib import Path

import numpy as np
import warpbeam as tvm
from warpbeam import relay, te, tir, topi
from warpbeam.tir import interp, interp_gpu, text

A = te.placeholder((4, 4), name="A")
B = te.compute((4, 4), lambda i, j: A[i, j] + 1.0, name="B")
s = te.create_schedule(B.op)
func = te.create_prim_func([A, B])
f = tvm.build(s, [A, B], name="f")
x = np.ones((4, 4), "float32")
Path("relu.relay").write_text("def @main(%x: Tensor[(1, 4), float32]) { nn.relu(%x) }")
"""


def classes() -> list[type]:
    """Every public error class, parents before children, siblings by name."""
    from warpbeam import WarpbeamError

    package = importlib.import_module("warpbeam")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.walk_packages(package.__path__, "warpbeam."):
            with contextlib.suppress(ImportError):  # what needs an extra that is not installed
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)
    found: dict[type, None] = {}
    todo: list[type] = [WarpbeamError]
    while todo:
        cls = todo.pop()
        if cls.__module__.startswith("warpbeam.") and cls.__name__ not in INTERNAL:
            found.setdefault(cls)
        todo += sorted(cls.__subclasses__(), key=lambda c: c.__name__, reverse=True)
    return list(found)


def parts(cls: type) -> tuple[str, str, str]:
    """(what the docstring says, the failing example, its fix)."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    about, wrong, rest = text.partition("\nWrong:\n")
    wrong_code, right, right_code = rest.partition("\nRight:\n")
    if not wrong or not right:
        raise SystemExit(f"{cls.__module__}.{cls.__name__}: the docstring has no sections Wrong: and Right:")
    right_code, args, more = right_code.partition("\n\nArgs:\n")
    rows = [" ".join(row.split()) for row in textwrap.dedent(more).split("\n") if row.strip()]
    listed = "".join(f"\n- {row}" for row in rows) if args else ""
    return about.strip() + ("\n" + listed if listed else ""), _code(wrong_code), _code(right_code)


def _code(text: str) -> str:
    return textwrap.dedent(text).strip("\n").replace("'''", '"""') + "\n"


def execute(code: str, name: str, variables: dict[str, Any]) -> None:
    """Runs an example; its source can be found, as te.hybrid.script needs it."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), variables)


def section(cls: type, variables: dict[str, Any]) -> str:
    """One class; runs both examples."""
    about, wrong, right = parts(cls)
    bases = [b.__name__ for b in cls.__bases__ if b is not Exception]
    line = f" ({', '.join(f'`{b}`' for b in bases)})" if bases else ""
    module = cls.__module__
    shown = "error"
    try:
        execute(wrong, f"<wrong {cls.__name__}>", variables)
    except cls as error:
        text = str(error)
        if "<wrong" in text:  # the place is one of the page
            shown, text = "error.what", error.what
        printed = f"{type(error).__name__}\n{text}"
    else:
        raise SystemExit(f"{cls.__name__}: the wrong example does not fail")
    catch = f"except Exception as error:\n    print(type(error).__name__)\n    print({shown})\n"
    guarded = f"try:\n{textwrap.indent(wrong, '    ')}{catch}"
    execute(right, f"<right {cls.__name__}>", variables)
    return (
        f"\n## {cls.__name__}\n\n`{module}`{line}. {about}\n\n"
        f"```python\n{guarded}```\n\n```text output\n{printed}\n```\n\n"
        f"Right:\n\n```python\n{right}```\n"
    )


def render() -> str:
    """The page."""
    variables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        execute(PRELUDE, "<prelude>", variables)
        sections = [section(cls, variables) for cls in classes()]
    return HEAD.format(prelude=PRELUDE) + "".join(sections)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("COLUMNS", "120")
    PAGE.write_text(render(), encoding="utf-8")
