"""The picture of a run."""

import pytest

from romul_actors.observe.lineage import TrialRecord, plot
from romul_actors.protocol.experiment import Experiment


def drawn(values, direction="minimize"):
    """Limits of the metric's axis; `values` by step, then by slot."""
    experiment = Experiment.model_validate(
        {
            "name": "t",
            "task": "t",
            "steps": len(values),
            "population": 8,
            "direction": direction,
            "space": {"x": {"type": "float", "min": 0.0, "max": 1.0}},
        }
    )
    found = {
        f"{slot}-{step}": TrialRecord(slot, step, None, {"x": 0.5}, value)
        for step, row in enumerate(values)
        for slot, value in enumerate(row)
    }
    return plot(experiment, found, "0-1", {}).axes[0].get_ylim()


def test_one_that_diverges_does_not_flatten_the_others():
    usual = [[2.3 + 0.01 * slot for slot in range(8)], [0.1 + 0.1 * slot for slot in range(8)]]
    low, high = drawn([usual[0], [*usual[1][:7], 1e32]])
    # As far again in the logarithm: from 0.1 to 2.335, and on to 54.5.
    assert low < 0.1
    assert high == pytest.approx(2.335**2 / 0.1, rel=1e-3)
    assert drawn(usual)[1] < 3.0


def test_of_a_metric_to_maximize_the_lower_side_is_cut():
    usual = [[-1.0] * 8, [-0.5] * 8]
    low, high = drawn([usual[0], [*usual[1][:7], -1e9]], "maximize")
    assert (low, high > -0.5) == (-1.5, True)
    assert -1.1 < drawn(usual, "maximize")[0] < -1.0
