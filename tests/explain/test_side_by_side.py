"""Program, IR and assembly side by side: the lines belong together because the code generator says so."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import explain_programs as programs
import pytest

from warpbeam import contrib, target, te
from warpbeam.codegen.llvm.compile import assembly_text
from warpbeam.codegen.llvm.kernel import print_kernel
from warpbeam.contrib.code_page import assembly_rows, kernel_of, panes
from warpbeam.driver.te_build import BuildError
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text.printer import numbered
from warpbeam.tir.transform import lower

ZEN = target.get("znver4")


class Reader(HTMLParser):
    """What a page shows: (pane, line of the program, text); and anything that comes from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[tuple[int, int, str]] = []
        self.outside: list[str] = []
        self.pane, self.line, self.inside = -1, 0, False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.outside += [v for k, v in attrs if k in ("src", "href")]
        self.pane += tag == "pre"
        if tag == "i":
            self.inside, self.line = True, int(given.get("data-l", 0))
            self.rows.append((self.pane, self.line, ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "i"

    def handle_data(self, data: str) -> None:
        if self.inside:
            pane, line, text = self.rows[-1]
            self.rows[-1] = (pane, line, text + data)


def matmul() -> S.PrimFunc:
    s, args = programs.tiled_matmul(16)
    return kernel_of(s, args, ZEN)


def test_instructions_belong_to_the_statements_they_were_made_for() -> None:
    program, ir, assembly = panes(matmul(), ZEN)
    fma = [n for n, text in program if "= fma(" in text]
    zero = [n for n, text in program if "broadcast(0.0" in text]
    assert len(fma) == 4 and len(zero) == 1
    assert [n for n, text in ir if "@llvm.fma" in text and "call" in text] == fma
    assert [n for n, text in assembly if "vfmadd" in text] == fma
    assert {n for n, text in ir if "splat (float" in text} == set(zero)
    loops = {n: re.search(r"for (\w+) in", text)[1] for n, text in program if " for " in text}  # type: ignore[index]
    for name in ("k_outer", "i_c", "i_inner"):
        assert [loops[n] for n, text in ir if re.match(rf"  %{name}\.\d+ = phi", text)] == [name]
    assert not any("!dbg" in text or text.startswith("!") for _, text in ir)


def test_asking_changes_no_code() -> None:
    """Without lines the text is as ever; with them the same instructions come out."""
    func = matmul()
    plain, marked = print_kernel(func, ZEN), print_kernel(func, ZEN, lines=True)
    assert "!dbg" not in plain and "DILocation" not in plain
    stripped = [re.sub(r",? !dbg !\d+", "", line) for line in marked.splitlines() if not line.startswith("!")]
    assert stripped == plain.splitlines()
    texts = [[t for _, t in assembly_rows(assembly_text(text, ZEN))] for text in (plain, marked)]
    keep = [[t for t in text if re.match(r"\s+[a-z]", t)] for text in texts]
    assert keep[0] == keep[1]


def test_equal_statements_at_two_places_are_told_apart() -> None:
    """They are one object; their lines are not."""
    a, b = E.Buffer("a", (4,), "float32"), E.Buffer("b", (4,), "float32")
    i, j, n = E.Var("i"), E.Var("j"), E.Var("n", nonneg=True)
    add = S.BufferStore(a, a[0] + 1.0, (0,))
    inner = S.For(i, 0, n, "serial", add)
    body = S.seq(add, inner, S.BufferStore(b, a[0], (1,)), S.IfThenElse(n > 2, add, S.seq(inner, add)), add)
    func = lower(S.PrimFunc("f", (a, b, n), S.For(j, 0, 3, "serial", body)), ZEN)
    text, places = numbered(func)
    assert len({id(stmt) for _, _, stmt in places if stmt is add}) <= 1
    lines = [k for k, line in enumerate(text.splitlines(), 1) if "a[0] = a[0] + 1.0" in line]
    assert len(lines) == 6
    _, ir, _ = panes(func, ZEN)
    assert [n for n, line in ir if "store float" in line and "%b0" in line] == lines


@pytest.mark.parametrize("kind", ["te schedule", "loop schedule", "program", "lowered"])
def test_what_can_be_shown(kind: str) -> None:
    s, args = programs.tiled_matmul(16)
    func = te.schedule.lower(s, args)
    given = {"te schedule": s, "loop schedule": Schedule(func), "program": func, "lowered": lower(func, ZEN)}[kind]
    page = contrib.side_by_side(given, args if kind == "te schedule" else None, ZEN)
    assert page == contrib.side_by_side(s, None, ZEN)


def test_the_page(tmp_path: Path) -> None:
    s, args = programs.tiled_matmul(16)
    page = contrib.side_by_side(s, args, ZEN, path=str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_text() == page and len(page) < 200_000
    reader = Reader(page)
    assert reader.outside == [] and "http" not in page and "import " not in page
    func = matmul()
    for k, rows in enumerate(panes(func, ZEN)):
        shown = [(n, text) for pane, n, text in reader.rows if pane == k]
        assert [n for n, _ in shown] == [n for n, _ in rows]
        assert all(text.strip() in given for (_, text), (_, given) in zip(rows, shown, strict=True))


def test_symbolic_and_parallel_programs() -> None:
    s, args = programs.symbolic_chain()
    s[args[-1]].parallel(s[args[-1]].leaf_iter_vars[0])
    program, ir, assembly = panes(kernel_of(s, args, ZEN), ZEN)
    used = {n for n, _ in assembly if n}
    texts = dict(program)
    assert any("parallel" in texts[n] for n in used) and any("E[" in texts[n] for n in used)
    bodies = [n for n, text in ir if n and "getelementptr" not in text]
    assert set(bodies) <= set(texts)


def test_other_machines() -> None:
    s, args = programs.tiled_matmul(16)
    _, _, assembly = panes(kernel_of(s, args, target.get("cortex-a76")), target.get("cortex-a76"))
    assert any("fmla" in text and n for n, text in assembly)


def test_refusals() -> None:
    s, args = programs.tiled_matmul(16)
    with pytest.raises(BuildError, match="shows LLVM's code, not that of"):
        contrib.side_by_side(s, args, "cuda")
    with pytest.raises(BuildError, match="a list has no code"):
        contrib.side_by_side([])
