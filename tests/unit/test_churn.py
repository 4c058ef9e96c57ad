"""Traces and generators of machines that come and go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from romul_sim.churn.trace import (
    DAY_S,
    GENERATORS,
    Change,
    Life,
    Pool,
    TraceError,
    from_counts,
    generate,
    machine_seconds,
    most_machines,
    with_notice,
    without,
)

POOL = Pool(machines=12, lifetime_s=3 * 3600.0, span_s=3 * DAY_S, zones=3)


def test_counts_of_machines_become_arrivals_and_departures():
    assert from_counts(300.0, [1, 3, 2, 2, 0]) == [
        Change(0.0, "m0", "arrives"),
        Change(300.0, "m1", "arrives"),
        Change(300.0, "m2", "arrives"),
        Change(600.0, "m2", "leaves"),
        Change(1200.0, "m1", "leaves"),
        Change(1200.0, "m0", "leaves"),
    ]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_counts_come_back_from_the_changes(counts):
    changes = from_counts(10.0, counts)
    alive = [0] * len(counts)
    for change in changes:
        step = 1 if change.what == "arrives" else -1
        for tick in range(int(change.at_s // 10), len(counts)):
            alive[tick] += step
    assert alive == counts
    assert most_machines(changes) == max(counts)
    assert machine_seconds(changes, 10.0 * len(counts)) == 10.0 * sum(counts)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_make_whole_lives_in_order(name):
    made = generate(name, POOL, default_rng(3))
    assert made == generate(name, POOL, default_rng(3)) != generate(name, POOL, default_rng(4))
    assert [c.at_s for c in made.changes] == sorted(c.at_s for c in made.changes)
    came: set[str] = set()
    for change in made.changes:
        if change.what == "arrives":
            assert change.machine not in came
            came.add(change.machine)
        else:
            assert change.what == "leaves"
            came.remove(change.machine)
    used = machine_seconds(made.changes, made.span_s) / (POOL.machines * POOL.span_s)
    assert 0.3 < used < 1.3


def test_a_generator_that_is_not_there_is_refused():
    with pytest.raises(TraceError, match=r"locusts.*replaced"):
        generate("locusts", POOL, default_rng(0))


@pytest.mark.parametrize(
    "pool",
    [
        Pool(machines=200_001),
        Pool(machines=1000, lifetime_s=60.0),
        Pool(machines=100_000, lifetime_s=1e9, span_s=50 * DAY_S),
        Pool(span_s=1e10, lifetime_s=1e10),
        Pool(span_s=float("inf")),
        Pool(span_s=float("nan")),
    ],
)
@pytest.mark.parametrize("name", GENERATORS)
def test_more_machines_than_a_simulation_carries_are_not_generated(name, pool):
    with pytest.raises(TraceError, match="too much for a simulation"):
        generate(name, pool, default_rng(0))


def test_more_machines_than_a_simulation_carries_are_not_counted():
    assert len(from_counts(1.0, [200_000])) == 200_000
    with pytest.raises(TraceError, match="1000000000 machines at a time: at most 200000"):
        from_counts(1.0, [0, 10**9])
    with pytest.raises(TraceError, match="10400000 arrivals and departures: at most 10000000"):
        from_counts(1.0, [200_000, 0] * 26)


def test_lifetimes_have_their_mean_whatever_their_shape():
    for shape in (0.6, 1.0, 2.0):
        pool = Pool(machines=400, lifetime_s=1000.0, span_s=5000.0, shape=shape)
        lives = GENERATORS["replaced"](pool, default_rng(1))
        mean = sum(life.end_s - life.begin_s for life in lives) / len(lives)
        assert 900 < mean < 1100


def test_an_outage_takes_its_zone_and_gives_it_back():
    lives = [Life(0, 0.0, 100.0), Life(1, 0.0, 100.0), Life(0, 45.0, 70.0), Life(0, 42.0, 48.0)]
    assert without(lives, 40.0, 60.0, 0) == [
        Life(0, 0.0, 40.0),
        Life(0, 60.0, 100.0),
        Life(1, 0.0, 100.0),
        Life(0, 60.0, 70.0),
    ]
    assert most_machines(generate("drought", POOL, default_rng(0)).changes) <= POOL.machines


def test_a_warning_comes_before_the_departure_and_after_the_arrival():
    changes = [
        Change(0.0, "a", "arrives"),
        Change(95.0, "b", "arrives"),
        Change(100.0, "a", "leaves"),
        Change(100.0, "b", "leaves"),
    ]
    notices = [c for c in with_notice(changes, 30.0) if c.what == "notice"]
    assert notices == [
        Change(70.0, "a", "notice", seconds=30.0),
        Change(95.0, "b", "notice", seconds=5.0),
    ]
    again = with_notice(with_notice(changes, 30.0), 30.0)
    assert sum(c.what == "notice" for c in again) == 2
    # Each stay of a machine separately.
    stays = [
        Change(0.0, "a", "arrives"),
        Change(100.0, "a", "leaves"),
        Change(200.0, "a", "arrives"),
        Change(250.0, "a", "notice", seconds=50.0),
        Change(300.0, "a", "leaves"),
    ]
    notices = [c for c in with_notice(stays, 30.0) if c.what == "notice"]
    assert notices == [Change(70.0, "a", "notice", seconds=30.0), stays[3]]
