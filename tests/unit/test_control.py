"""What an operator does to a running search."""

from dataclasses import replace

import pytest

from romul_actors.core.events import Control
from tests.unit.harness import Run, bowl, population


def test_a_pinned_slot_goes_on_as_it_is():
    run_ = Run(population(n_slots=4, steps=6))
    run_.start()
    run_.tell(Control(action="pin", by="somebody", slot=2))
    run_.tell(Control(action="pin", by="somebody", slot=9))
    run_.to_the_end(bowl)
    lines = [x for x in run_.history if x["event"] == "trial" and x["slot"] == 2]
    assert len({tuple(line["vector"]) for line in lines}) == 1
    assert [line["parent"] for line in lines[1:]] == [f"2-{step}" for step in range(5)]
    assert [x["event"] for x in run_.history if x.get("by")] == ["pin", "ignored"]


@pytest.mark.parametrize("optimizer", ["romul", "truncation", "de", "mf_pbt", "tpe"])
def test_bounds_are_changed_in_the_middle_of_a_search(optimizer):
    run_ = Run(population(optimizer, n_slots=8, steps=12))
    run_.start()
    for _ in range(4):
        for slot in run_.queued():
            run_.tell(run_.result(slot, bowl(run_.trials[slot])))
    best = run_.population.best
    wrong = Control(action="bounds", by="me", parameter="z", low=0.0, high=1.0)
    run_.tell(wrong)
    run_.tell(replace(wrong, parameter="x", low=0.5, high=0.5))
    run_.tell(replace(wrong, parameter="x", low=0.25, high=0.5))
    first = len(run_.history)
    run_.to_the_end(bowl)
    lines = [x for x in run_.history[first:] if x["event"] == "trial"]
    assert all(0.25 <= x["hyperparameters"]["x"] <= 0.5 for x in lines)
    told = [(x["event"], x.get("why", "")) for x in run_.history if x.get("by")]
    assert [event for event, _ in told] == ["ignored", "ignored", "bounds"]
    assert "z: not in the space" in told[0][1]
    assert "not below" in told[1][1]
    assert run_.population.best.loss <= best.loss
