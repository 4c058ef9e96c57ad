"""Traces and generators of machines that come and go."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from romul_sim.churn import (
    DAY_S,
    GENERATORS,
    Change,
    Life,
    Pool,
    TraceError,
    from_counts,
    generate,
    line_of,
    machine_seconds,
    most_machines,
    read_trace,
    with_notice,
    without,
    write_trace,
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "counts"),
        ("[]", "counts"),
        ('{"metadata": {"gap_seconds": 0}, "data": [1]}', "gap_seconds"),
        ('{"data": [1]}', "counts"),
        ('{"metadata": {"gap_seconds": 1}, "data": [-1]}', "below 0"),
        ('{"at": 0, "machine": "a", "event": "arrives"}\n{"at": 1}\n{"at": "x"}', ":3:"),
        ('{"at": 0, "machine": "a", "event": "explodes"}', ":1:.*explodes"),
        ('{"at": 0, "machine": "a", "event": "arrives"}\n{"at": -1, "machine": "a"', ":2:"),
        ('{"at": -1, "machine": "a", "event": "leaves"}', "below 0"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, text, message):
    file = tmp_path / "trace.json"
    file.write_text(text)
    with pytest.raises(TraceError, match=rf"trace\.json.*{message}"):
        read_trace(file)


def test_a_trace_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "none.json")


def test_the_own_format_keeps_everything(tmp_path):
    changes = [
        Change(0.0, "a", "arrives", zone="z1", speed=0.5, price=2.0),
        Change(1.0, "a", "slows", speed=0.1),
        Change(2.0, "a", "freezes", seconds=5.0),
        Change(3.0, "a", "notice", seconds=30.0),
        Change(33.0, "a", "leaves"),
    ]
    write_trace(tmp_path / "t.jsonl", changes)
    read = read_trace(tmp_path / "t.jsonl")
    assert (list(read.changes), read.span_s) == (changes, 33.0)
    assert json.loads(line_of(changes[4])) == {"at": 33.0, "machine": "a", "event": "leaves"}


def test_lines_that_speak_of_no_machine_are_passed_over(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"at": 0, "event": "record"}\n\n{"at": 1, "machine": "a", "event": "arrives"}\n{"at": 9}\n'
    )
    read = read_trace(tmp_path / "t.jsonl")
    assert (len(read.changes), read.span_s) == (1, 9.0)


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
    # Each stay of a machine by itself.
    stays = [
        Change(0.0, "a", "arrives"),
        Change(100.0, "a", "leaves"),
        Change(200.0, "a", "arrives"),
        Change(250.0, "a", "notice", seconds=50.0),
        Change(300.0, "a", "leaves"),
    ]
    notices = [c for c in with_notice(stays, 30.0) if c.what == "notice"]
    assert notices == [Change(70.0, "a", "notice", seconds=30.0), stays[3]]
