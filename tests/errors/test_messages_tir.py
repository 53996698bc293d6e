"""Every message of the loop schedule's primitives, with a program that is refused with it."""

from __future__ import annotations

from typing import Any

from message_cases import Case, add_one, refused, store, text, total

from warpbeam.te.schedule.inverse import LoopOverMap
from warpbeam.tir.expr import Var
from warpbeam.tir.schedule.layout import apply_layout

V = Var("v")
PAIR = 'for i in range(16):\n    block "b" (v: spatial[16] = i):\n        B[v] = A[v]\n        C[v] = A[v]'
SUM = """def f(A: float32[16, 16], C: float32[16]):
    for i in range(16):
        for k in range(16):
            block "c" (v: spatial[16] = i, r: reduce[16] = k):
                init:
                    C[v] = 0.0
                C[v] = C[v] + A[v, r]
"""
OTHER = '    for x in range(16):\n        block "z" (u: spatial[16] = x):\n            C[u] = 1.0\n'
THREE = """alloc T: float32[16]
for i in range(16):
    block "t" (v: spatial[16] = i):
        T[v] = A[v]
    block "u" (w: spatial[16] = i):
        T[w] = C[w]
    block "m" (z: spatial[16] = i):
        B[z] = T[z]"""
PIPE = (
    "alloc T: float32[16]\nalloc U: float32[16]\n"
    + store("U[$]", "A[$]", "u", "x")
    + """
for i in range(16):
    block "t" (v: spatial[16] = i):
        T[v] = U[v]
    block "m" (w: spatial[16] = i):
        B[w] = T[w]"""
)
COPY = store("B[$]", "A[$]")
CHAIN = "alloc T: float32[16]\n" + store("T[$]", "A[$]", "t", "x") + "\n" + store("B[$]", "T[$]")
HEAD = 'for i in range(16):\n    block "p" (v: spatial[16] = i):\n        B[v] = A[v]\n'
TAIL = '    block "q" (w: spatial[16] = i):\n        C[w] = '
SHARED = HEAD + TAIL + "A[w]"
FED = HEAD + TAIL + "B[w]"
VECTORS = """for i in range(1):
    block "m" (v: spatial[1] = i):
        B[ramp(v * 4, 1, 4)] = T[ramp(v * 4, 1, 4)]"""
CALL = 'eval call_extern[int32]("g", access_ptr[int64](B, 0, 16, 3))'
FOREIGN = f'for i in range(16):\n    block "b" (v: spatial[16] = i):\n        {CALL}'
WHERE = store("T[$]", "A[$]", "t", "x", where=" where v_t < 8")


def local(first: str, second: str = "") -> str:
    """Statements that may use a buffer T of their own."""
    return "\n".join(["alloc T: float32[16]", first, second]).rstrip()


def do(program: str, act: Any) -> Any:
    return lambda: act(text(program))


def steps(program: str, *acts: Any) -> Any:
    def run() -> None:
        s = text(program)
        for act in acts:
            act(s)

    return run


TRIANGLE = """for i in range(16):
    for j in range(i + 1):
        block "b" (v: spatial[16] = i, w: spatial[16] = j):
            D[v, w] = A[v]"""
TWO = "alloc D: float32[16, 16]\n"
SQUARE = """for i in range(16):
    for j in range(16):
        block "b" (v: spatial[16] = i, w: spatial[16] = j):
            D[v, w] = A[v]"""

CASES: list[Case] = [
    # split, fuse, reorder, kinds of loops
    ("split of i: 2 factors, 1 names", do(COPY, lambda s: s.split("i", [None, 4], ["x"]))),
    ("loop i does not start at 0", do(
        COPY.replace("range(16)", "range(2, extent=14)"), lambda s: s.split("i", [None, 4]))),
    ("split of i needs factors, at most one of them None", do(COPY, lambda s: s.split("i", [None, None]))),
    ("factors must be positive", do(COPY, lambda s: s.split("i", [None, 0]))),
    ("loop i is vectorized", steps(COPY, lambda s: s.vectorize("i"), lambda s: s.split("i", [None, 4]))),
    ("covers 12 iterations, which may be too few", do(COPY, lambda s: s.split("i", [3, 4]))),
    ("fuse needs at least one loop", do(COPY, lambda s: s.fuse())),
    ("loop i is not directly inside j", do(TWO + SQUARE, lambda s: s.fuse("j", "i"))),
    ("loop i is parallel from 0", steps(TWO + SQUARE, lambda s: s.parallel("i"), lambda s: s.fuse("i", "j"))),
    ("the extent of loop j depends on a loop fused with it", do(TWO + TRIANGLE, lambda s: s.fuse("i", "j"))),
    ("reorder names a loop twice", do(TWO + SQUARE, lambda s: s.reorder("i", "i"))),
    ("are not one chain of directly nested loops", do(CHAIN, lambda s: s.reorder("i", "x"))),
    ("depends on ['i'], which would come to stand inside it", do(TWO + TRIANGLE, lambda s: s.reorder("j", "i"))),
    ("loop i is bound to blockIdx.x; it cannot be parallel", steps(
        COPY, lambda s: s.bind("i", "blockIdx.x"), lambda s: s.parallel("i"))),
    ("loop j is nested with a vectorized loop", steps(
        TWO + SQUARE, lambda s: s.vectorize("i"), lambda s: s.vectorize("j"))),
    ("loop j is nested with another parallel loop", steps(
        TWO + SQUARE, lambda s: s.parallel("i"), lambda s: s.parallel("j"))),
    ("unknown hardware axis 'gridIdx.x'", do(COPY, lambda s: s.bind("i", "gridIdx.x"))),
    ("loop i is parallel; it cannot be bound to blockIdx.x", steps(
        COPY, lambda s: s.parallel("i"), lambda s: s.bind("i", "blockIdx.x"))),
    ("around block b is no axis", steps(TWO + SQUARE, lambda s: s.split(s.fuse("i", "j"), [None, 10]),
        lambda s: s.loop_axes("b"))),
    ("has axes that are no loops over its result", do(SUM, lambda s: s.loop_axes("c"))),
    ("merge needs different loops", do(COPY, lambda s: s.merge("i", "i"))),
    ("are not in one sequence", do(TWO + SQUARE, lambda s: s.merge("i", "j"))),
    ("there are statements between loops", do(
        "\n".join([COPY, store("C[$]", "A[$]", "m", "x"), store("B[$]", "A[$]", "o", "y")]),
        lambda s: s.merge("i", "y"))),
    ("are not serial loops from 0 with the same extent", do(
        "\n".join([COPY, store("C[$]", "A[$]", "m", "x", "8")]), lambda s: s.merge("i", "x"))),
    ("not proven to lie in [0, extent]", do(COPY, lambda s: s.partition("i", 17))),
    ("loop k carries the reduction of c, which starts in it", do(SUM, lambda s: s.partition("k", 8))),
    # reductions
    ("block c has no init", steps(SUM, lambda s: s.decompose_reduction("c", "k"),
                                  lambda s: s.decompose_reduction("c_update", "k") if "c_update" in s.blocks()
                                  else s.decompose_reduction("c", "k"))),
    ("loop x is not around block c", do(SUM + OTHER, lambda s: s.decompose_reduction("c", "x"))),
    ("loop i holds 2 blocks; rfactor needs one", do(SHARED, lambda s: s.rfactor("i"))),
    ("loop i does not carry the reduction of block c", do(SUM, lambda s: s.rfactor("i"))),
    ("rfactor of c at dimension 5 of C", do(SUM, lambda s: s.rfactor("k", 5))),
    ("the extent of loop k has no constant bound", do(
        SUM.replace("C: float32[16])", "C: float32[16], n: size)").replace("A: float32[16, 16]", "A: float32[16, n]")
        .replace("range(16):\n            block", "range(n):\n            block").replace("reduce[16]", "reduce[n]"),
        lambda s: s.rfactor("k"))),
    ("the update of block c is not of the form C = op(C, x)", do(
        SUM.replace("C[v] + A[v, r]", "C[v] / A[v, r]"), lambda s: s.rfactor("k"))),
    ("the extent of loop j depends on the reduction of c", do(
        SUM
        .replace("        for k in range(16):\n", "        for k in range(16):\n            for j in range(k + 1):\n")
        .replace("            block", "                block")
        .replace("                init", "                    init")
        .replace("                    C[v] = 0", "                        C[v] = 0")
        .replace("                C[v] = C", "                    C[v, w] = C")
        .replace("r: reduce", "w: spatial[16] = j, r: reduce")
        .replace("C[v] = 0.0", "C[v, w] = 0.0").replace("= C[v] +", "= C[v, w] +")
        .replace("C: float32[16]", "C: float32[16, 16]"),
        lambda s: s.decompose_reduction("c", "k"))),
    # blocks
    ("blockize: loop i holds 2 blocks", do(SHARED, lambda s: s.blockize("i"))),
    ("blockize: loop i and those inside are not directly nested", do(
        "for i in range(16):\n    if n > 3:\n        block \"b\" (v: spatial[16] = i):\n            B[v] = A[v]",
        lambda s: s.blockize("i"))),
    ("blockize: some iterations inside i are left out", do(
        store("B[$]", "A[$]", where=" where i < n"), lambda s: s.blockize("i"))),
    ("blockize: what b computes inside i is no box", do(
        'for i in range(4):\n    block "b" (v: spatial[16] = i * 4):\n        B[v] = A[v]', lambda s: s.blockize("i"))),
    ("blockize: tiles of 5 do not divide axis v of b", do(
        'for i in range(5):\n    block "b" (v: spatial[16] = i):\n        B[v] = A[v]', lambda s: s.blockize("i"))),
    ("block b writes 2 buffers; this primitive needs one", do(PAIR, lambda s: s.cache_write("b", "local"))),
    ("B is also used inside the loops of p", do(FED, lambda s: s.cache_write("p", "local"))),
    ("B is computed in the same loops as q", do(FED, lambda s: s.cache_read("q", "B", "local"))),
    ("B is written by b between its readers", do(
        "\n".join([store("C[$]", "B[$]", "m", "x"), COPY, store("C[$]", "B[$]", "o", "y")]),
        lambda s: s.cache_read("m", "B", "local", ["o"]))),
    ("block b does not read C", do(COPY, lambda s: s.cache_read("b", "C", "local"))),
    ("b does not read b", do(COPY, lambda s: s.clone("b", "b"))),
    ("m runs before b", do("\n".join([store("C[$]", "B[$]", "m", "x"), COPY]), lambda s: s.clone("b", "m"))),
    # inlining
    ("block b stores more than one value and cannot be inlined", do(PAIR, lambda s: s.compute_inline("b"))),
    ("the store of block t is not indexed by its plain axes", do(
        local(store("T[15 - $]", "A[$]", "t", "x"), store("B[$]", "T[$]")), lambda s: s.compute_inline("t"))),
    ("the store of block b is not indexed by its plain axes", do(
        local(store("T[$]", "A[$]", "t", "x"), store("B[$ + 1]", "T[$]", extent="15")),
        lambda s: s.reverse_compute_inline("b"))),
    ("block t reads what it writes and cannot be inlined", do(
        local(store("T[$]", "T[$] + A[$]", "t", "x"), store("B[$]", "T[$]")), lambda s: s.compute_inline("t"))),
    ("block t runs under a condition and cannot be inlined", do(
        local(WHERE, store("B[$]", "T[$]")), lambda s: s.compute_inline("t"))),
    ("several blocks write T", do(
        local(store("T[$]", "A[$]", "t", "x") + "\n" + store("T[$]", "C[$]", "u", "y"), store("B[$]", "T[$]")),
        lambda s: s.compute_inline("t"))),
    ("block m reads T before t writes it", do(
        local(store("C[$]", "T[$]", "m", "y"), store("T[$]", "A[$]", "t", "x")), lambda s: s.compute_inline("t"))),
    ("block m hands T to a foreign function", do(
        local(store("T[$]", "A[$]", "t", "x"), FOREIGN.replace("B,", "T,").replace('"b"', '"m"').replace("3)", "1)")),
        lambda s: s.compute_inline("t"))),
    ("block m reads vectors of T", do(
        local(store("T[$]", "A[$]", "t", "x"), VECTORS), lambda s: s.compute_inline("t"))),
    ("b also needs u, which comes after t", do(
        "alloc U: float32[16]\n" + local(
            store("T[$]", "A[$]", "t", "x") + "\n" + store("U[$]", "A[$]", "u", "y"),
            store("B[$]", "T[$] + U[15 - $]")),
        lambda s: s.reverse_compute_inline("b"))),
    ("b reads only a part of T", do(
        local(store("T[$]", "A[$]", "t", "x"), store("B[$]", "T[$]", extent="8")),
        lambda s: s.reverse_compute_inline("b"))),
    ("block b has no pointwise producer", do(COPY, lambda s: s.reverse_compute_inline("b"))),
    # layouts
    ("there is no buffer 'Z'", do(COPY, lambda s: s.transform_layout("Z", [0]))),
    ("there is no buffer 'Z'", do(COPY, lambda s: s.transform_layout("Z", lambda i: i))),
    ("parameter A has a layout already", steps(
        COPY, lambda s: s.transform_layout("A", lambda i: [i // 4, i % 4]),
        lambda s: s.transform_layout("A", lambda i, j: [j, i]))),
    ("dimension ('-', 'i0', 3) does not start at 0", do(COPY, lambda s: s.transform_layout("A", lambda i: i - 3))),
    ("the index map takes 2 indices, not 1", do(COPY, lambda s: s.transform_layout("A", lambda i, j: [i, j]))),
    ("cannot be part of a layout", do(COPY, lambda s: s.transform_layout("A", lambda i: [(i < 3).astype("int64"), i]))),
    ("the layout is for shape (16,), the array has (4,)", do(
        COPY, lambda s: apply_layout(__import__("numpy").zeros(4), s.transform_layout("A", lambda i: [i // 4, i % 4]))))
        ,
    # what blocks may be moved
    ("block b calls a foreign function, whose accesses are not known", do(
        FOREIGN, lambda s: s.cache_write("b", "local"))),
    ("block t runs under a condition", do(local(WHERE, store("B[$]", "T[$]")), lambda s: s.compute_at("t", "i"))),
    ("the instances of block t run in an order of their own", do(
        local(store("T[$]", "A[$]", "t", "x").replace("spatial", "ordered"), store("B[$]", "T[$]")),
        lambda s: s.compute_at("t", "i"))),
    ("A, which block t reads, is written again by u after it", do(
        local(store("T[$]", "A[$]", "t", "x") + "\n" + store("A[$]", "C[$]", "u", "y"), store("B[$]", "T[$]")),
        lambda s: s.compute_at("t", "i"))),
    ("block m reads what C holds before q writes it", do(
        "\n".join([COPY.replace("B[v_b]", "T[v_b]"), store("B[$]", "C[$]", "m", "x"), store("C[$]", "T[$]", "q", "y")])
        .join(["alloc T: float32[16]\n", ""]), lambda s: s.reverse_compute_at("q", "i"))),
    ("block b computes the output B; it has no consumer to go to", do(
        COPY + "\n" + store("C[$]", "B[$]", "m", "x"), lambda s: s.compute_at("b", "x"))),
    ("several blocks write T", do(
        local(store("T[$]", "A[$]", "t", "x") + "\n" + store("T[$]", "C[$]", "u", "y"), store("B[$]", "T[$]")),
        lambda s: s.compute_at("t", "i"))),
    ("the store of t is not indexed by its plain axes", do(
        local(store("T[15 - $]", "A[$]", "t", "x"), store("B[$]", "T[$]")), lambda s: s.compute_at("t", "i"))),
    ("block p is already inside i", do(FED, lambda s: s.reverse_compute_at("p", "i"))),
    ("no block under i feeds m element by element", do(
        "\n".join([COPY, store("C[$]", "A[$]", "m", "x")]), lambda s: s.reverse_compute_at("m", "i"))),
    ("T is not completed inside i", do(
        local(store("T[$]", "A[$]", "t", "x", "8") + "\n" + store("T[$]", "C[$]", "u", "i"),
        store("B[$]", "T[$]", "m", "y")),
        lambda s: s.reverse_compute_at("m", "i"))),
    ("which it reads, is computed in the same loops", do(FED, lambda s: s.compute_root("q"))),
    # memory
    ("storage_align: block b writes 2 buffers", do(PAIR, lambda s: s.storage_align("b", 0, 4))),
    ("storage_align of T on axis 3 by 4", do(CHAIN, lambda s: s.storage_align("t", 3, 4))),
    ("rolling_buffer: several blocks write T", do(THREE.replace(
        '= i):\n        T[v] = A[v]', '= i):\n        init:\n            T[v] = 0.0\n        T[v] = A[v]', 1),
        lambda s: s.rolling_buffer("t"))),
    ("prefetch: loop i is vectorized", steps(COPY, lambda s: s.vectorize("i"), lambda s: s.prefetch("i", "A"))),
    ("prefetch: nothing under i reads or writes C", do(COPY, lambda s: s.prefetch("i", "C"))),
    ("prefetch: spread from loop i over loop i", do(COPY, lambda s: s.prefetch("i", "A", 1, "i"))),
    (
        "prefetch: from the end of loop i on to the next iteration of i",
        do(COPY, lambda s: s.prefetch("i", "A", onto="i")),
    ),
    ("the second is not directly inside the first", do(COPY, lambda s: s.diagonal("i", "i"))),
    ("one is not serial from 0", steps(
        TWO + SQUARE, lambda s: s.parallel("i"), lambda s: s.diagonal("i", "j"))),
    ("the second's extent depends on the first", do(TWO + TRIANGLE, lambda s: s.diagonal("i", "j"))),
    ("alternate: loop i by loop i", do(COPY, lambda s: s.alternate("i", "i"))),
    ("pipeline: loop i is parallel", steps(COPY, lambda s: s.parallel("i"), lambda s: s.pipeline("i", [0]))),
    ("statements share a parameter across stages", do(FED, lambda s: s.pipeline("i", [0, 1]))),
    # padding
    ("pad_einsum: c shares its loops or its result", do(SUM + OTHER, lambda s: s.pad_einsum("c", [4, 4]))),
    ("pad_einsum: loops of c run at once already", steps(
        SUM, lambda s: s.parallel("i"), lambda s: s.pad_einsum("c", [4, 4]))),
    ("is not indexed by plain axes of c over its whole shape", do(
        SUM.replace("A[v, r]", "A[v, r] * A[r, v]").replace("A[r, v]", "A[v + 0, 15 - r]"),
        lambda s: s.pad_einsum("c", [4, 4]))),
    ("no operand moves with axis r", do(
        SUM.replace("A[v, r]", "A[v, v]").replace("A: float32[16, 16]", "A: float32[16]")
        .replace("A[v, v]", "A[v]"), lambda s: s.pad_einsum("c", [4, 4]))),
    # further blocks of the same loops
    ("p shares its loops with other blocks", do(
        SHARED + "\n" + store("C[$]", "B[$]", "m", "x"), lambda s: s.clone("p", "m"))),
    ("an instruction reaches it in vectors", do(
        'for i in range(4):\n    block "b" (v: spatial[4] = i):\n        B[ramp(v * 4, 1, 4)] = A[ramp(v * 4, 1, 4)]',
        lambda s: s.transform_layout("A", lambda i: [i // 4, i % 4]))),
    ("reads elements of U that are not proven to be computed by then", do(
        "alloc T: float32[16]\nalloc U: float32[16]\n" + SHARED.replace("B[v]", "T[v]").replace("C[w]", "U[w]") + "\n"
        + store("B[$]", "T[$] + U[15 - $]", "m", "x"), lambda s: s.reverse_compute_at("m", "i"))),
    ("are not one chain of directly nested loops", do(
        "alloc D: float32[16, 16]\nfor i in range(16):\n"
        + "\n".join("    " + row for row in store("B[$]", "A[$]", "p", "j").splitlines()) + "\n"
        + "\n".join("    " + row for row in store("C[$]", "A[$]", "q", "x").splitlines()),
        lambda s: s.reorder("i", "j", "x"))),
    ("the store of m is not indexed by its plain axes", do(
        local(store("T[$]", "A[$]", "t", "i"), store("B[15 - $]", "T[$]", "m", "x")),
        lambda s: s.reverse_compute_at("m", "i"))),
    ("m also needs u, which is not ready in i", do(
        "alloc T: float32[16]\nalloc U: float32[16]\n" + "\n".join(
            [store("T[$]", "A[$]", "t", "i"), store("U[$]", "C[$]", "u", "y"),
        store("B[$]", "T[$] + U[15 - $]", "m", "x")]),
        lambda s: s.reverse_compute_at("m", "i"))),
    ("loop j is parallel, and then its iterations would depend on each other", do(
        """alloc T: float32[16, 16]
for j in parallel(16):
    for i in range(16):
        block "t" (v: spatial[16] = i, w: spatial[16] = j):
            T[v, w] = A[w]
for x in range(16):
    for y in range(16):
        block "m" (v2: spatial[16] = x, r: spatial[16] = y):
            B[v2] = T[v2, r]""", lambda s: s.reverse_compute_at("m", "j"))),
    ("loop j is walked to and fro, and then its iterations would depend on each other", do(
        """alloc T: float32[16, 16]
for j in range(16) {"alternate": "o"}:
    for i in range(16):
        block "t" (v: spatial[16] = i, w: spatial[16] = j):
            T[v, w] = A[w]
for x in range(16):
    for y in range(16):
        block "m" (v2: spatial[16] = x, r: spatial[16] = y):
            B[v2] = T[v2, r]""", lambda s: s.reverse_compute_at("m", "j"))),
    ("loop i is a pipeline of 2 statements, its body would become 3", steps(
        PIPE, lambda s: s.pipeline("i", [0, 1]), lambda s: s.compute_at("u", "i"))),
    ("which stages share, is needed beyond one iteration", do(
        PIPE + "\n" + store("C[$]", "T[$]", "z", "y"), lambda s: s.pipeline("i", [0, 1]))),
    # intrinsics
    ("adds to what its result holds; the intrinsic", steps(
        SUM, lambda s: s.decompose_reduction("c", "k"), lambda s: s.tensorize("k", total()))),
    ("loop i holds 3 blocks (t, u, m); an intrinsic replaces one", do(THREE, lambda s: s.tensorize("i", add_one(16)))),
    ("block b does not store one element", do(PAIR, lambda s: s.tensorize("i", add_one(16)))),
    ("loop j inside loop i is parallel", steps(
        TWO + SQUARE, lambda s: s.parallel("j"), lambda s: s.tensorize("i", add_one(16)))),
    ("loop i holds a Allocate", do(
        'for i in range(16):\n    alloc U: float32[4]\n    block "b" (v: spatial[16] = i):\n        B[v] = A[v] + 1.0',
        lambda s: s.tensorize("i", add_one(16)))),
    ("loop i holds a condition that does not always hold", do(
        'for i in range(16):\n    if i > 3:\n        block "b" (v: spatial[16] = i):\n            B[v] = A[v] + 1.0',
        lambda s: s.tensorize("i", add_one(16)))),
    ("which cuts through the tiles of loop i", do(
        store("B[$]", "A[$] + 1.0", where=" where i < 10"), lambda s: s.tensorize("i", add_one(16)))),
    ("do not run over a box of the axes of block b exactly once", do(
        'for i in range(4):\n    block "b" (v: spatial[16] = i * 4):\n        B[v] = A[v] + 1.0',
        lambda s: s.tensorize("i", add_one(4)))),
    # index maps of te as steps
    ("are not directly nested", do(CHAIN, lambda s: s.step(LoopOverMap(("i", "x"), ("y",), (V,), (V,))))),
    ("do not start at 0 or cannot be bounded", do(COPY, lambda s: s.step(LoopOverMap(("i",), ("y",), (V,), (V - 3,))))),
]  # fmt: skip


test_the_message_comes = refused(CASES)
