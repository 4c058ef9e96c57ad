"""What is said of an experiment that is right, and small."""

import pytest

from romul_actors.protocol.advice import advice
from romul_actors.protocol.experiment import Experiment

SPACE = {"x": {"type": "float", "min": 0, "max": 1}}


@pytest.mark.parametrize(
    ("optimizer", "steps", "said"),
    [
        ("romul", 10, []),
        ("romul", 9, ["steps = 9: a slot's hyperparameters change between steps"]),
        ("romul", 1, ["steps = 1: nothing is tuned while models train"]),
        ("truncation", 9, []),
        ("truncation", 1, ["steps = 1: nothing is tuned while models train"]),
    ],
)
def test_few_steps_are_warned_of(optimizer, steps, said):
    fields = {"name": "e", "task": "t", "space": SPACE, "optimizer": optimizer, "steps": steps}
    found = advice(Experiment.model_validate(fields))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))
