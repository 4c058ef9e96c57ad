"""The trial that tests of workers train."""

from romul_actors.core.events import TrialMessage

TRIAL = TrialMessage(
    id="0-0",
    slot=0,
    step=0,
    attempt=1,
    hyperparameters={"x": 0.5},
    parent=None,
    start=0.0,
    stop=1.0,
    seed=1,
)
