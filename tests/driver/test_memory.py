"""The arena planner: values alive together never overlap, and the total stays near the lower bound."""

from hypothesis import given
from hypothesis import strategies as st

from warpbeam.driver.memory import Item, plan, round_up

ITEMS = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 40), st.integers(0, 9)), max_size=40)


@given(ITEMS)
def test_live_values_do_not_overlap(rows):
    items = [Item(size, first, first + length) for size, first, length in rows]
    offsets, total = plan(items)
    for i, a in enumerate(items):
        assert offsets[i] % 64 == 0 and offsets[i] + round_up(a.size) <= total
        for j in range(i):
            b = items[j]
            if a.first <= b.last and b.first <= a.last:
                apart = offsets[i] + round_up(a.size) <= offsets[j] or offsets[j] + round_up(b.size) <= offsets[i]
                assert apart, (i, j)


@given(ITEMS)
def test_total_is_at_most_twice_the_peak(rows):
    items = [Item(size, first, first + length) for size, first, length in rows]
    _, total = plan(items)
    steps = range(60)
    peak = max((sum(round_up(x.size) for x in items if x.first <= s <= x.last) for s in steps), default=0)
    assert total <= 2 * peak


def test_symbolic_values_share_a_slot_when_they_never_meet():
    size = ("mul", "n", 4)
    offsets, total = plan([Item(size, 0, 1), Item(size, 2, 3), Item(64, 0, 3)])
    assert offsets == [64, 64, 0]
    assert total == ("add", 64, ("mul", ("ceildiv", size, 64), 64))
