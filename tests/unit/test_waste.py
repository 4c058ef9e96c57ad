"""How the machines' time was used."""

from typing import Any

import pytest

from romul_actors.core.events import Expired, Failed, Released
from romul_actors.core.history import ReportStale, TrialFailed, TrialReleased, TrialReported
from romul_actors.observe.waste import waste
from tests.trials import created, reported
from tests.unit.harness import Run, population


def test_waste_is_counted_by_cause_and_worker(searched):
    found = waste(searched.history).as_json()
    assert found["attempts"] == {"lost": 1}
    # Lost at 90 s in its second trial; missed when its lease ended.
    assert 30 <= found["by_cause"]["lost"] <= 70
    assert [name.partition("-")[0] for name in found["by_worker"]] == ["m3"]
    seconds = sum(x.seconds for x in searched.history if isinstance(x, TrialReported))
    assert found["useful_s"] == pytest.approx(seconds, abs=0.01)


def test_waste_takes_what_workers_say_of_their_time():
    run_ = Run(population(n_slots=4, steps=3))
    run_.start()
    token: dict[str, Any] = {"slot": 0, "trial": "0-0", "worker": "w"}
    run_.tell(Failed(**token, attempt=1, reason="exception", message="x", seconds=7.0))
    run_.tell(Released(**token, attempt=2, reason="preempted", seconds=3.0))
    run_.tell(Expired(**token, attempt=3))
    found = waste(run_.history)
    assert found.by_cause["exception"] == 7.0
    assert found.by_cause["preempted"] == 3.0
    assert found.attempts["lost"] == 1


def test_an_attempt_of_unknown_length_is_counted_from_its_workers_previous_line():
    token: dict[str, Any] = {"trial": "0-0", "attempt": 1, "worker": "w"}
    released = TrialReleased(at_ms=3000, **token, reason="preempted", checkpoint="0-0-1")
    stale = ReportStale(at_ms=7000, **token)
    found = waste([created(at_ms=1000), released, stale])
    assert found.useful_s == 2.0
    assert (found.by_cause, found.by_worker) == ({"stale": 4.0}, {"w": 4.0})


def test_the_time_of_two_leases_of_one_worker_counts_once():
    # The first trial was trained for 10 s and stored for 10 s, in which the second one was trained;
    # that one was stored for 5 s. The third one follows half a second later.
    lines = [
        *(created(f"{n}-0") for n in range(4)),
        reported("0-0", at_ms=20_000, seconds=20.0),
        reported("1-0", at_ms=25_000, seconds=15.0),
        reported("2-0", at_ms=29_500, seconds=4.0),
        reported("3-0", at_ms=30_000, seconds=30.0, worker="another"),
    ]
    assert waste(lines).useful_s == 20.0 + 5.0 + 4.0 + 30.0
    # The same time is lost if the second one fails.
    token: dict[str, Any] = {"trial": "1-0", "attempt": 1, "worker": "w", "slot": 1, "step": 0}
    why: dict[str, Any] = {"reason": "exception", "message": "", "again": True}
    failed = TrialFailed(at_ms=25_000, **token, **why, seconds=15.0)
    found = waste([*lines[:5], failed])
    assert (found.useful_s, found.by_cause) == (20.0, {"exception": 5.0})
