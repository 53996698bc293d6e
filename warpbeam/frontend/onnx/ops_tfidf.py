"""TfIdfVectorizer: counts of known n-grams of integers or strings, found by binary search in compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import Result, cast_to, rank_of, reshape, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_string import pool
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr


def _grams(node: NodeView) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(n, n-grams in order, their columns) for each length that counts."""
    texts = node.attr("pool_strings", None)
    numbers = node.attr("pool_int64s", None)
    if (texts is None) == (numbers is None):
        raise node.error("has both pools, or none")
    entry = node.entry(0)
    if entry is not None and entry.string != (texts is not None):
        raise node.error(f"counts {'numbers' if texts is None else 'strings'}, its input holds the other")
    items = np.array(numbers, np.int64) if texts is None else pool(texts)
    starts, columns = node.attr("ngram_counts"), np.array(node.attr("ngram_indexes"), np.int64)
    ends = [*starts[1:], items.size]
    if any(not 0 <= a <= b <= items.size for a, b in zip(starts, ends, strict=True)) or columns.min(initial=0) < 0:
        raise node.error(f"ngram_counts {starts[:8]} do not fit a pool of {items.size}")
    out, done = [], 0
    for n, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        if (end - start) % n:
            raise node.error(f"{end - start} elements are no {n}-grams")
        grams = items[start:end].reshape(-1, n)
        own = columns[done : done + len(grams)]
        done += len(grams)
        if len(own) < len(grams):
            raise node.error(f"{columns.size} ngram_indexes for more n-grams")
        order = np.lexsort(grams.T[::-1])
        if len(grams) and node.attr("min_gram_length") <= n <= node.attr("max_gram_length"):
            out.append((n, np.ascontiguousarray(grams[order]), own[order]))
    return out


def _tfidf(node: NodeView, x: Expr) -> Result:
    """Counts in columns; weight number i is that of the column of n-gram number i."""
    mode, most = node.attr("mode"), node.attr("max_skip_count")
    if mode not in ("TF", "IDF", "TFIDF") or rank_of(x) not in (1, 2) or most < 0:
        raise node.error(f"mode {mode[:20]!r}, {rank_of(x)} dimensions, max_skip_count {most}")
    columns = node.attr("ngram_indexes")
    size = max(columns, default=-1) + 1
    rows = cast_to(x if rank_of(x) == 2 else reshape(x, (1, *shape_of(x))), "int64")
    total: Expr | None = None
    for n, grams, places in _grams(node):
        far = tuple(range(1, most + 2)) if n > 1 else (1,)
        part = get("count_ngrams")(rows, Constant(grams), Constant(places), size=size, distances=far)
        total = part if total is None else get("add")(total, part)
    if total is None:
        total = get("zeros")(shape=(shape_of(rows)[0], size), dtype="int64")
    if mode == "IDF":
        total = get("minimum")(total, Constant(np.array(1, np.int64)))
    out = cast_to(total, "float32")
    weights = node.attr("weights", None)
    if mode != "TF" and weights is not None:
        if len(weights) != len(columns):
            raise node.error(f"{len(weights)} weights for {len(columns)} n-grams")
        factors = np.ones(size, np.float32)
        factors[columns] = weights
        out = get("multiply")(out, Constant(factors))
    return out if rank_of(x) == 2 else reshape(out, (size,))


TABLE: dict[str, dict[int, Any]] = {"TfIdfVectorizer": {9: _tfidf}}
