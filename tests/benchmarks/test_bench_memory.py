"""The table of memory-bound kernels: what is checked, and what the copy moves."""

from __future__ import annotations

import pytest

from benchmarks import memory


@pytest.mark.parametrize("case", memory.CASES, ids=lambda c: c.name)
def test_values_of_a_case_are_checked(case: memory.Case) -> None:
    values = memory.operands(case, 1)
    assert all(v.ctypes.data % 64 == 0 for v in values)
    module = memory.compiled(case, values)
    (got,) = module.run({f"x{k}": v for k, v in enumerate(values)}).values()
    assert memory.close(case, got, values)
    wrong = got.copy()
    wrong.flat[7] += 0.1
    assert not memory.close(case, wrong, values)


def test_the_copy_moves_half_of_the_bytes_each_way() -> None:
    copy = memory.PlainCopy(1000, 2)
    for ((source, target),) in copy.parts:
        source[:], target[:] = 7, 0
    copy.seconds(1)
    assert [int(target.sum()) for ((_, target),) in copy.parts] == [3500, 3500]


def test_copies_and_calls_take_their_places_in_turn() -> None:
    copy = memory.PlainCopy(1000, 2, 3)
    for part in copy.parts:
        for source, target in part:
            source[:], target[:] = 7, 0
    copy.seconds(2)
    assert [[int(target.sum()) for _, target in part] for part in copy.parts] == [[3500, 3500, 0]] * 2
    whole = memory.bound(memory.CASES[0], 1 / 64, 1, 2)
    results = []
    for _ in range(3):
        (out,) = whole.out.values()
        out.fill(-1)
        whole.call()
        results.append(float(out.min()))
    assert results == [0.0, -1.0, 0.0]  # the second call writes elsewhere


@pytest.mark.parametrize(("share", "right", "ok"), [(0.81, True, True), (0.79, True, False), (0.81, False, False)])
def test_a_case_that_is_slower_or_wrong_is_not_ok(
    share: float, right: bool, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what a clock of our own says."""
    monkeypatch.setattr(memory.PlainCopy, "seconds", lambda self, times: 2.0)
    monkeypatch.setattr(memory, "timed_slice", lambda call, seconds, batch: [2.0 / share])
    if not right:
        monkeypatch.setattr(memory, "close", lambda *a: False)
    outcome = memory.measure(memory.CASES[0], "near", 1, 3, 0.001)
    assert outcome.alone == pytest.approx(share / 8)  # an eighth of the bytes in the same time
    assert outcome.ok is ok and outcome.share == pytest.approx(share) and outcome.copy == pytest.approx(2e6)
