"""What an operator does to a running search."""

from dataclasses import replace

import pytest

from romul_actors.core.events import Control
from romul_actors.core.history import BoundsChanged, ControlIgnored, SlotPinned, TrialCreated
from tests.unit.harness import Run, bowl, population


def test_a_pinned_slot_goes_on_as_it_is():
    run_ = Run(population(n_slots=4, steps=6))
    run_.start()
    run_.tell(Control(action="pin", by="somebody", slot=2))
    run_.tell(Control(action="pin", by="somebody", slot=9))
    run_.tell(Control(action="pin", by="somebody"))
    run_.to_the_end(bowl)
    lines = [line for line in run_.of(TrialCreated) if line.slot == 2]
    assert len({tuple(line.vector) for line in lines}) == 1
    assert [line.parent for line in lines[1:]] == [f"2-{step}" for step in range(5)]
    assert [type(x) for x in run_.history if getattr(x, "by", "")] == [
        SlotPinned,
        ControlIgnored,
        ControlIgnored,
    ]
    assert [line.given for line in run_.of(ControlIgnored)] == [{"slot": 9}, {}]


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
    first = len(run_.of(TrialCreated))
    run_.to_the_end(bowl)
    lines = run_.of(TrialCreated)[first:]
    assert all(0.25 <= line.hyperparameters["x"] <= 0.5 for line in lines)
    unknown, inverted, changed = (x for x in run_.history if getattr(x, "by", ""))
    assert isinstance(unknown, ControlIgnored)
    assert isinstance(inverted, ControlIgnored)
    assert isinstance(changed, BoundsChanged)
    assert (unknown.action, unknown.parameter, unknown.low, unknown.high) == (
        "bounds",
        "z",
        0.0,
        1.0,
    )
    assert (inverted.parameter, inverted.low, inverted.high) == ("x", 0.5, 0.5)
    assert (changed.parameter, changed.low, changed.high) == ("x", 0.25, 0.5)
    assert run_.population.best.loss <= best.loss
