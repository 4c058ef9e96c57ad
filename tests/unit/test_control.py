"""An operator's changes to a running search."""

from dataclasses import replace

import pytest

from romul_actors.core.events import Control
from romul_actors.core.history import BoundsChanged, ControlIgnored, SlotPinned, TrialCreated
from romul_actors.core.space import FloatParameter, IntParameter, Space
from tests.unit.harness import Run, bowl, population, reread


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


@pytest.mark.parametrize("seed", range(3))
def test_a_trial_keeps_what_it_began_with_when_bounds_move_its_place(seed):
    run_ = Run(population(n_slots=4, steps=3, seed=seed)).start()
    begun = {slot: run_.trials[slot].hyperparameters for slot in range(4)}
    run_.tell(run_.result(0, 1.0))
    run_.tell(Control(action="bounds", by="me", parameter="x", low=0.8, high=0.9))
    assert run_.population.best.hyperparameters == begun[0]
    # As if it had been stored meanwhile, and read by another actor.
    assert reread(run_.population) == run_.population
    run_.tell(run_.released(1))
    assert (run_.trials[1].attempt, run_.trials[1].hyperparameters) == (2, begun[1])
    run_.tell(run_.result(1, 0.5))
    best = run_.population.best
    assert (best.trial, best.hyperparameters) == ("1-0", begun[1])
    run_.to_the_end(bowl)
    later = [line for line in run_.of(TrialCreated) if line.step]
    assert len(later) == 8
    assert all(0.8 <= line.hyperparameters["x"] <= 0.9 for line in later)


def test_what_goes_with_checkpoints_keeps_its_values_under_other_bounds():
    space = Space(
        [
            IntParameter("width", 16, 64, mutable=False, step=4),
            FloatParameter("ratio", 0.5, 1.0, mutable=False),
            FloatParameter("x", 0, 1),
        ]
    )
    run_ = Run(population(n_slots=4, steps=3, space=space)).start()
    widths = {slot: run_.trials[slot].hyperparameters["width"] for slot in range(4)}
    bounds = Control(action="bounds", by="me", parameter="width", low=16.0, high=32.0)
    run_.tell(bounds)
    run_.tell(replace(bounds, low=14.0, high=66.0))
    run_.tell(replace(bounds, low=8.0, high=128.0))
    run_.tell(replace(bounds, parameter="ratio", low=0.0, high=2.0))
    narrower, other_steps, no_steps = run_.of(ControlIgnored)
    assert "without a step, they cannot change" in no_steps.why
    assert "only be widened from 16 and 64" in narrower.why
    assert "only be widened from 16 and 64" in other_steps.why
    assert [line.parameter for line in run_.of(BoundsChanged)] == ["width"]
    run_.to_the_end(lambda trial: trial.hyperparameters["x"])
    of_trial: dict[str, int] = {}
    for line in run_.of(TrialCreated):
        width = line.hyperparameters["width"]
        assert width == (of_trial[line.parent] if line.parent else widths[line.slot])
        of_trial[line.trial] = width
