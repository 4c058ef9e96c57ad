"""Plots of a run, and the metric's axis."""

import io
from typing import Any

import pytest
from matplotlib.lines import Line2D

from romul_actors.core.history import SearchStarted, TrialFailed
from romul_actors.observe import html
from romul_actors.observe.plots import (
    Axis,
    arrow_opacity,
    metric_axis,
    plot,
    plot_lineage,
    plot_workers,
)
from romul_actors.observe.trial_records import TrialRecord
from tests.trials import declare, reported


@pytest.mark.parametrize(
    ("values", "medians", "maximize", "axis"),
    [
        ([], [], False, Axis(logarithmic=False, edge=None)),
        ([1.0, 2.0, 3.0], [3.0, 2.0], False, Axis(logarithmic=False, edge=None)),
        # A diverged trial determines neither the scale nor the limits.
        ([1.0, 2.0, 1e32], [3.0, 2.0], False, Axis(logarithmic=False, edge=5.0)),
        ([0.1, 2.0, 1e32], [2.0, 1.0], False, Axis(logarithmic=True, edge=40.0)),
        ([0.1, 0.6, 0.9], [0.6, 0.7], True, Axis(logarithmic=False, edge=0.3)),
        ([-1e9, -2.0, -1.0], [-2.0], True, Axis(logarithmic=False, edge=-3.0)),
        ([1e-9, 1.0, 100.0], [1.0, 50.0], True, Axis(logarithmic=True, edge=0.01)),
        # What is not positive has no place on a log axis.
        ([-1.0, 50.0, 1e9], [50.0], False, Axis(logarithmic=False, edge=101.0)),
        ([0.0, 0.0], [0.0], False, Axis(logarithmic=False, edge=None)),
    ],
)
def test_the_axis_fits_most_and_ends_before_the_worst(values, medians, maximize, axis):
    found = metric_axis(values, medians, maximize=maximize)
    assert found.logarithmic == axis.logarithmic
    assert found.edge == pytest.approx(axis.edge)


def drawn(values, direction="minimize"):
    """Limits of the metric's axis; `values` by step, then by slot."""
    experiment = declare(steps=len(values), direction=direction)
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


def test_workers_are_drawn_by_how_their_attempts_ended():
    token: dict[str, Any] = {"trial": "0-0", "slot": 0, "step": 0}
    lines = [
        SearchStarted(at_ms=1_000),
        TrialFailed(
            **token, at_ms=6_000, attempt=1, worker="a", reason="lost", message="", again=True
        ),
        reported(at_ms=9_000, attempt=2, worker="b", seconds=3.0),
    ]
    [ax] = plot_workers(lines).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["lost", "result"]
    ends = [bars.get_paths()[0].get_extents().x1 for bars in ax.collections]
    assert ends == [pytest.approx(5.02), pytest.approx(8.0)]
    assert plot_workers([]).axes[0].get_legend() is None


def test_the_winners_line_is_seen_however_many_copies_there_are():
    found = {
        f"{slot}-{step}": TrialRecord(slot, step, f"{(slot + 1) % 8}-{step - 1}", {}, 1.0)
        for slot in range(8)
        for step in range(200)
    }
    [ax] = plot_lineage(found, "0-199").axes
    [line] = [line for line in ax.lines if line.get_color() == "k"]
    assert all(arrow.get_zorder() < line.get_zorder() for arrow in ax.texts)
    assert len(ax.texts) == 8 * 199
    assert {arrow.arrow_patch.get_alpha() for arrow in ax.texts} == {arrow_opacity(8 * 199)}
    assert arrow_opacity(8 * 199) < arrow_opacity(10) == 0.5


def test_no_legend_covers_bars_or_looks_for_the_emptiest_place():
    figure = plot_workers([SearchStarted(at_ms=1_000), reported(at_ms=9_000, seconds=3.0)])
    figure.draw_without_rendering()
    [ax] = figure.axes
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1


def test_a_picture_is_laid_out_and_then_drawn_once():
    def shown():
        return plot_workers([SearchStarted(at_ms=1_000), reported(at_ms=9_000, seconds=3.0)])

    drawn: list[Any] = []

    class Counted(Line2D):
        def draw(self, renderer):
            drawn.append(renderer)

    figure = shown()
    figure.axes[0].add_artist(Counted([0, 1], [0, 0], visible=True))
    dpi, engine = figure.get_dpi(), figure.get_layout_engine()
    assert html.png(figure).startswith(b"\x89PNG")
    assert len(drawn) == 1
    assert (figure.get_dpi(), figure.get_layout_engine()) == (dpi, engine)
    buffer = io.BytesIO()
    shown().savefig(buffer, format="png", dpi=html.DPI)
    assert buffer.getvalue() == html.png(shown())


def test_in_a_report_numbers_stand_to_the_right_and_texts_to_the_left():
    page = html.table([{"trial": "0-0", "value": 0.5, "steps": 3, "reason": "a <long> text"}])
    assert page.count('<td class="n">') == 2
    assert '<td class="n">0.5</td><td class="n">3</td><td>a &lt;long&gt; text</td>' in page
    assert "<td>finished</td>" in html.figures({"status": "finished"})
