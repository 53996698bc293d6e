"""The notes of pipelined loops, one stage and one place in the order per statement, while lowering changes the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.tir.stmt import Allocate, For, SeqStmt, Stmt
from warpbeam.tir.transform.mutate import peel

STAGE, ORDER = "software_pipeline_stage", "software_pipeline_order"


def parts_of(s: For) -> tuple[list[Allocate], list[Stmt]]:
    """The buffers of a loop's body and its statements."""
    allocs, body = peel(s.body)
    return allocs, list(body.stmts) if isinstance(body, SeqStmt) else [body]


def count_of(s: Stmt | None) -> int:
    """Statements that one becomes as a part of a sequence."""
    return 0 if s is None else len(s.stmts) if isinstance(s, SeqStmt) else 1


def regrown(s: For, counts: Sequence[int]) -> Any:
    """The loop's annotations after its i-th statement became `counts[i]` statements, of the same stage."""
    notes: dict[str, Any] = dict(s.annotations)
    stages = notes.get(STAGE)
    if stages is None or len(stages) != len(counts) or all(c == 1 for c in counts):
        return s.annotations
    order = notes.get(ORDER, range(len(stages)))
    now = [(order[i], k, stages[i]) for i, c in enumerate(counts) for k in range(c)]
    least = min((x[2] for x in now), default=0)
    ranks = {x: r for r, x in enumerate(sorted(now))}
    notes[STAGE] = tuple(x[2] - least for x in now)
    notes[ORDER] = tuple(ranks[x] for x in now)
    return notes
