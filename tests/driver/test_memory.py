"""The arena planner: values alive together never overlap, and the total stays near the lower bound."""

import random

from hypothesis import given
from hypothesis import strategies as st

from warpbeam.driver import memory
from warpbeam.driver.memory import Item, plan, round_up
from warpbeam.runtime.shape_expr import evaluate

ITEMS = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 40), st.integers(0, 9)), max_size=40)


@given(ITEMS)
def test_live_values_do_not_overlap(rows):
    items = [Item(size, first, first + length) for size, first, length in rows]
    placed = plan(items)
    offsets, total = placed.offsets, placed.total
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
    total = plan(items).total
    steps = range(60)
    peak = max((sum(round_up(x.size) for x in items if x.first <= s <= x.last) for s in steps), default=0)
    assert total <= 2 * peak


def _bytes(placed, env):
    for name, expr in placed.symbols:
        env[name] = evaluate(expr, env)
    return [evaluate(o, env) for o in placed.offsets], evaluate(placed.total, env)


@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 20), st.integers(0, 9), st.sampled_from([1, "n", "m"]))))
def test_symbolic_values_do_not_overlap_whatever_the_sizes(rows):
    items = [Item(size, first, first + length, unit) for size, first, length, unit in rows]
    placed = plan(items)
    for env in ({"n": 1, "m": 1}, {"n": 3, "m": 70}, {"n": 100, "m": 7}):
        offsets, total = _bytes(placed, dict(env))
        sizes = [x.size * env.get(x.unit, 1) for x in items]
        for i, a in enumerate(items):
            assert offsets[i] % 64 == 0 and offsets[i] + sizes[i] <= total
            for j, b in enumerate(items[:i]):
                if a.first <= b.last and b.first <= a.last:
                    assert offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]


def test_symbolic_values_share_memory_when_they_never_meet():
    placed = plan([Item(4, 0, 1, "n"), Item(8, 2, 3, "n"), Item(64, 0, 3)])
    assert placed.offsets == [64, 64, 0]
    assert evaluate(placed.total, {"n": 100}) == 64 + 2 * 448


@given(
    st.lists(
        st.tuples(st.integers(1, 9000), st.integers(0, 20), st.integers(0, 9), st.sampled_from([1, "n", "m"])),
        min_size=1,
    )
)
def test_units_that_share_memory_do_not_overlap_whatever_the_sizes(rows):
    """Also where `plan` would rather keep the units apart."""
    items = [Item(size, first, first + length, unit) for size, first, length, unit in rows]
    placed = memory._together(items, memory._regions(items), "arena")
    for env in ({"n": 1, "m": 1}, {"n": 3, "m": 70}, {"n": 100, "m": 7}):
        offsets, total = _bytes(placed, dict(env))
        sizes = [x.size * env.get(x.unit, 1) for x in items]
        names = {**env, **{name: 0 for name, _ in placed.symbols}}
        for name, expr in placed.symbols:
            names[name] = evaluate(expr, names)
        assert evaluate(placed.bound, names) <= total <= evaluate(placed.apart, names)
        for i, a in enumerate(items):
            assert offsets[i] % 64 == 0 and offsets[i] + sizes[i] <= total
            for j, b in enumerate(items[:i]):
                if a.first <= b.last and b.first <= a.last:
                    assert offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]


def test_maps_of_falling_resolution_share_memory():
    """As in a convolutional network: each layer's result lives until the next is done, and each size has its unit."""
    units = [("mul", n, n) for n in ("n", ("ceildiv", "n", 2), ("ceildiv", "n", 4), ("ceildiv", "n", 8))]
    items = [Item(4 * 64 << k // 2, k, k + 1, units[k // 2]) for k in range(8)]
    placed = plan(items)
    for n in (1, 7, 64, 200):
        env = {"n": n}
        _, total = _bytes(placed, env)
        first_two = 2 * -(-n * n * 256 // 64) * 64
        assert total <= first_two + 8 * 64 * 64
        if n > 50:
            assert total < evaluate(placed.apart, env) * 0.6


@given(ITEMS)
def test_the_best_order_is_kept_and_the_bound_is_the_busiest_step(rows):
    items = [Item(size, first, first + length) for size, first, length in rows]
    sizes = [round_up(x.size) for x in items]
    placed = plan(items)
    peak = max((sum(s for x, s in zip(items, sizes) if x.first <= t <= x.last) for t in range(60)), default=0)
    assert placed.bound == peak <= placed.total <= placed.apart == sum(sizes)
    for key in memory.ORDERS.values():
        order = sorted(range(len(items)), key=lambda k: (*key(items[k], sizes[k]), k))
        assert placed.total <= memory._place(items, sizes, order)[1]


def test_an_order_other_than_by_size_can_be_the_best():
    found = set()
    rng = random.Random(3)
    for _ in range(300):
        items = []
        for _ in range(rng.randint(3, 12)):
            first = rng.randint(0, 12)
            items.append(Item(64 * rng.randint(1, 20), first, first + rng.randint(0, 6)))
        found.update(plan(items).orders)
    assert len(found) >= 3, found
