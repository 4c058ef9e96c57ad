"""Advice on experiments that are valid but small."""

import pytest

from romul_actors.protocol.advice import advice
from romul_actors.protocol.experiment import Experiment

SPACE = {"x": {"type": "float", "min": 0, "max": 1}}


@pytest.mark.parametrize(
    ("optimizer", "steps", "said"),
    [
        ("romul", 10, []),
        ("romul", 9, ["steps = 9: a slot's hyperparameters change only between steps"]),
        ("romul", 1, ["steps = 1: no hyperparameter changes during training"]),
        ("truncation", 9, []),
        ("truncation", 1, ["steps = 1: no hyperparameter changes during training"]),
    ],
)
def test_few_steps_are_warned_of(optimizer, steps, said):
    fields = {"name": "e", "task": "t", "space": SPACE, "optimizer": optimizer, "steps": steps}
    found = advice(Experiment.model_validate(fields))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


CHANGE = "a slot's hyperparameters change only between steps, so at most"
FEWER = "fewer slots (population) or more trials"


@pytest.mark.parametrize(
    ("optimizer", "max_trials", "steps", "said"),
    [
        ("romul", 8, 30, "max_trials = 8 for 8 slots allows 1 step each: no hyperpara"),
        ("truncation", 8, 30, "max_trials = 8 for 8 slots allows 1 step each: no hyperpara"),
        (
            "romul",
            12,
            30,
            f"max_trials = 12 for 8 slots allows 1.5 steps each on average: {CHANGE} on",
        ),
        (
            "romul",
            16,
            30,
            f"max_trials = 16 for 8 slots allows 2 steps each on average: {CHANGE} once",
        ),
        (
            "romul",
            72,
            30,
            f"max_trials = 72 for 8 slots allows 9 steps each on average: {CHANGE} 8 ti",
        ),
        ("romul", 73, 30, None),
        ("truncation", 12, 30, None),
        # Here `steps` is the limit.
        ("romul", 24, 3, f"steps = 3: {CHANGE} 2 times"),
        ("romul", 99, 3, f"steps = 3: {CHANGE} 2 times"),
    ],
)
def test_few_trials_for_each_slot_are_warned_of(optimizer, max_trials, steps, said):
    fields = {"name": "e", "task": "t", "space": SPACE, "optimizer": optimizer, "steps": steps}
    more = {"population": 8, "max_trials": max_trials}
    found = advice(Experiment.model_validate({**fields, **more}))
    assert [text[: len(said or "")] for text in found] == ([] if said is None else [said])
    tuned = [text for text in found if CHANGE in text]
    assert all((FEWER in text) == (steps == 30) for text in tuned)
