"""The axis of a metric."""

import pytest

from romul_actors.observe.plots import Axis, metric_axis


@pytest.mark.parametrize(
    ("values", "medians", "maximize", "axis"),
    [
        ([], [], False, Axis(logarithmic=False, edge=None)),
        ([1.0, 2.0, 3.0], [3.0, 2.0], False, Axis(logarithmic=False, edge=None)),
        # One that diverged sets neither scale nor end.
        ([1.0, 2.0, 1e32], [3.0, 2.0], False, Axis(logarithmic=False, edge=5.0)),
        ([0.1, 2.0, 1e32], [2.0, 1.0], False, Axis(logarithmic=True, edge=40.0)),
        ([0.1, 0.6, 0.9], [0.6, 0.7], True, Axis(logarithmic=False, edge=pytest.approx(0.3))),
        ([-1e9, -2.0, -1.0], [-2.0], True, Axis(logarithmic=False, edge=-3.0)),
        ([1e-9, 1.0, 100.0], [1.0, 50.0], True, Axis(logarithmic=True, edge=pytest.approx(0.01))),
        # What is not positive has no place on a log axis.
        ([-1.0, 50.0, 1e9], [50.0], False, Axis(logarithmic=False, edge=101.0)),
        ([0.0, 0.0], [0.0], False, Axis(logarithmic=False, edge=None)),
    ],
)
def test_the_axis_fits_most_and_ends_before_the_worst(values, medians, maximize, axis):
    assert metric_axis(values, medians, maximize=maximize) == axis
