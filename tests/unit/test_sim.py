"""The real actor and workers in virtual time, on machines that come and go."""

import asyncio
import json
import time
from dataclasses import replace

import pytest
from numpy.random import default_rng

from romul_sim.churn import Change, TraceError, from_counts, poisson, read_trace
from romul_sim.loop import DeadlockError, run
from romul_sim.world import Scenario, simulate


def test_virtual_time_jumps_from_timer_to_timer():
    told = []

    async def sleeper(name, seconds):
        await asyncio.sleep(seconds)
        told.append((name, asyncio.get_running_loop().time()))

    async def main():
        await asyncio.gather(sleeper("late", 10**6), sleeper("soon", 1.5), sleeper("also", 1.5))

    began = time.monotonic()
    run(main())
    assert told == [("soon", 1.5), ("also", 1.5), ("late", 10.0**6)]
    assert time.monotonic() - began < 10


def test_waiting_for_what_never_comes_is_an_error_not_a_hang():
    async def main():
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run(main())


def test_counts_of_machines_become_arrivals_and_departures():
    assert from_counts(300.0, [1, 3, 2, 2, 0]) == [
        Change(0.0, 0, "arrives"),
        Change(300.0, 1, "arrives"),
        Change(300.0, 2, "arrives"),
        Change(600.0, 2, "leaves"),
        Change(1200.0, 1, "leaves"),
        Change(1200.0, 0, "leaves"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"metadata": {"gap_seconds": 0}, "data": [1]}',
        '{"data": [1]}',
        '{"metadata": {"gap_seconds": 1}, "data": [-1]}',
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, text):
    file = tmp_path / "trace.json"
    file.write_text(text)
    with pytest.raises(TraceError, match=r"trace\.json"):
        read_trace(file)


CALM = Scenario(changes=[Change(0.0, i, "arrives") for i in range(4)], steps=10)


def test_without_churn_nothing_is_lost():
    told = simulate(CALM)
    assert (told["status"], told["reported"], told["retried"]) == ("finished", 80, 0)
    assert told["cut_short"] == 0.0
    # 80 trials of about a minute on 4 machines.
    assert 15 / 60 < told["hours"] < 60 / 60


@pytest.mark.parametrize("notice_s", [0.0, 20.0, 600.0])
def test_churn_costs_time_and_nothing_else(notice_s):
    changes = poisson(6, 400.0, 10**6, default_rng(1))
    told = simulate(replace(CALM, changes=changes, notice_s=notice_s, steps=20))
    assert (told["status"], told["created"], told["reported"]) == ("finished", 160, 160)
    lost = told["attempts_lost"]
    # An attempt that was lost while a second copy ran is not done again.
    copies = sum('"second copy"' in line for line in told["history"])
    assert sum(lost.values()) - copies <= told["retried"] <= sum(lost.values()) + copies
    results = [json.loads(line)["trial"] for line in told["history"] if '"result"' in line]
    assert len(results) == len(set(results)) == 160
    # Without a warning leases end; with one, trials are given back, or are ended in time.
    assert (lost.get("lost", 0) > 3) == (notice_s == 0.0)
    assert (lost.get("preempted", 0) > 3) == (notice_s == 20.0)


def test_the_same_seed_is_the_same_history_byte_for_byte():
    churny = replace(CALM, changes=poisson(5, 300.0, 10**6, default_rng(2)))
    first, second = simulate(churny)["history"], simulate(churny)["history"]
    assert first == second
    assert first != simulate(replace(churny, seed=1))["history"]


def test_no_machines_any_more_is_the_end():
    told = simulate(replace(CALM, changes=from_counts(60.0, [2, 2, 0])))
    assert told["status"] == "running"
    assert told["machines"] == {"arrived": 2, "left": 2}


def test_machines_that_come_back_after_a_drought_go_on():
    told = simulate(replace(CALM, changes=from_counts(600.0, [4, 0, 0, 0, 0, 0, 4])))
    assert told["status"] == "finished"
    assert told["hours"] > 1
