"""Plots of a run, and a metric's axis, on which diverged trials do not flatten the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import median
from typing import Any

from romul_actors.core.history import Line, TrialFailed, TrialReleased, TrialReported
from romul_actors.core.space import FloatParameter, IntParameter, Parameter
from romul_actors.observe.lineage import lineage
from romul_actors.observe.trial_records import TrialRecord
from romul_actors.observe.visible import visible
from romul_actors.protocol.experiment import Experiment

MOST_AXES = 60
"""Maximum number of coordinates to draw: the first ones."""
WIDE = 10.0
"""If the ratio of values is larger, the axis is logarithmic."""
SHORTEST_S = 0.02
"""Minimum length at which an attempt is drawn."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How a metric is drawn.

    Attributes:
        logarithmic: whether the axis is logarithmic.
        edge: end of the axis on its worse side; None to end with the values.
    """

    logarithmic: bool
    edge: float | None


def metric_axis(values: Sequence[float], medians: Sequence[float], *, maximize: bool) -> Axis:
    """Choose an axis (source: this project).

    Beyond the worst median, the axis continues by the distance from the best value to that median,
    on the scale that is drawn.

    Args:
        values: all values that are drawn.
        medians: median of the values of each step.
        maximize: whether higher is better.
    """
    if not values or not medians:
        return Axis(logarithmic=False, edge=None)
    low, high = min(values), max(values)
    best, worst = (high, min(medians)) if maximize else (low, max(medians))
    logarithmic = low > 0 and max(best, worst) > WIDE * min(best, worst)
    edge = worst * (worst / best) if logarithmic else worst + (worst - best)
    return Axis(logarithmic, edge if low < edge < high else None)


def arrow_opacity(n: int) -> float:
    """Opacity of each of `n` arrows; many opaque ones would hide what is under them."""
    return max(0.08, min(0.5, 100 / max(1, n)))


def best_so_far(found: Mapping[str, TrialRecord], *, maximize: bool) -> list[tuple[int, float]]:
    """Best value up to each step, over all slots."""
    better = max if maximize else min
    best: list[tuple[int, float]] = []
    for step, values in sorted(_by_step(found).items()):
        here = better(values)
        best.append((step, better(best[-1][1], here) if best else here))
    return best


def plot(
    experiment: Experiment,
    found: Mapping[str, TrialRecord],
    best_trial: str | None,
    others: Mapping[str, Mapping[str, TrialRecord]],
) -> Any:
    """Draw losses and hyperparameter schedules of all slots by step; the winner's line is black.

    Args:
        experiment: the experiment.
        found: its trials.
        best_trial: the winner.
        others: trials of other experiments by name; their best value so far is drawn.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    space = experiment.search_space()
    shown = space.axes[:MOST_AXES]
    columns = 3
    rows = -(-(len(shown) + 1) // columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    line = lineage(found, best_trial)
    _draw_metric(axes[0], experiment, found, line, others)
    winner = [found[trial] for trial in line]
    drawn = [*_by_slot(found.values()).values(), winner]
    values = [[space.by_axis(record.hyperparameters) for record in records] for records in drawn]
    for ax, axis in zip(axes[1:], shown, strict=False):
        _draw_schedule(ax, axis, drawn, values)
    for ax in axes[len(shown) + 1 :]:
        ax.set_visible(False)
    figure.suptitle(f"{experiment.name}: {experiment.population} slots, {experiment.steps} steps")
    return figure


def plot_lineage(found: Mapping[str, TrialRecord], best_trial: str | None) -> Any:
    """Draw slots by step with an arrow for each copy; the winner's line of descent is black.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, ax = _tall(len({record.slot for record in found.values()}))
    copies = [
        (source, record)
        for record in found.values()
        if (source := found.get(record.parent or "")) is not None and source.slot != record.slot
    ]
    style = {"arrowstyle": "->", "color": "#c8553d", "lw": 0.8, "alpha": arrow_opacity(len(copies))}
    for source, record in copies:
        ends = (record.step, record.slot), (source.step, source.slot)
        # All arrows are inside the axes, so the layout need not measure them.
        ax.annotate("", *ends, arrowprops=style).set_in_layout(False)
    for slot, stretch in _by_slot(found.values()).items():
        ax.plot([stretch[0].step, stretch[-1].step], [slot, slot], color="0.85", zorder=0)
    line = [found[trial] for trial in lineage(found, best_trial)]
    # Above the arrows.
    ax.plot([t.step for t in line], [t.slot for t in line], "k-", lw=2, zorder=5)
    ax.set_xlabel("step")
    ax.set_ylabel("slot")
    ax.invert_yaxis()
    return figure


def plot_workers(lines: Sequence[Line]) -> Any:
    """Draw workers by time, with a bar for each attempt.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.collections import PolyCollection  # noqa: PLC0415

    bars = _attempts(lines)
    figure, ax = _tall(len(bars))
    colours = {"result": "#2a7f62", "lost": "#c8553d", "preempted": "#e0a458"}
    for place, by_end in enumerate(bars.values()):
        for how, spans in by_end.items():
            colour = colours.get(how, "#8d6a9f")
            bars_of = PolyCollection(
                _corners(spans, place), color=colour, edgecolor="white", lw=0.2
            )
            ax.add_collection(bars_of)
    for how in sorted({how for by_end in bars.values() for how in by_end}):
        ax.plot([], [], color=colours.get(how, "#8d6a9f"), lw=6, label=how)
    ax.set_yticks(range(len(bars)), map(visible, bars), fontsize=7, parse_math=False)
    ax.set_xlabel("seconds")
    if bars:
        # Beside the bars: inside it would hide some.
        ax.legend(ncols=8, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


def _tall(n: int) -> tuple[Any, Any]:
    """A figure with room for `n` rows, and its axes."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, max(2.0, min(14.0, 0.25 * n + 1))), layout="constrained")
    return figure, figure.subplots()


def _corners(spans: Sequence[tuple[float, float]], place: int) -> Any:
    """Corners of bars, shape (n, 4, 2): matplotlib's `broken_barh` makes them one by one.

    Args:
        spans: (begin, length) of each bar.
        place: the row of the bars.
    """
    import numpy as np  # noqa: PLC0415

    begin, length = np.array(spans).T
    corners = np.empty((len(spans), 4, 2))
    corners[:, :2, 0], corners[:, 2:, 0] = begin[:, None], (begin + length)[:, None]
    corners[:, ::3, 1], corners[:, 1:3, 1] = place - 0.4, place - 0.4 + 0.8
    return corners


def _attempts(lines: Sequence[Line]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """(begin, length) in seconds of all attempts, by worker and by how they ended."""
    began_ms = lines[0].at_ms if lines else 0
    bars: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        if not isinstance(line, TrialReported | TrialFailed | TrialReleased):
            continue
        how = "result" if isinstance(line, TrialReported) else line.reason
        begin_s = max(0.0, (line.at_ms - began_ms) / 1000 - line.seconds)
        spans = bars.setdefault(line.worker, {}).setdefault(how, [])
        spans.append((begin_s, max(line.seconds, SHORTEST_S)))
    return bars


def _by_slot(records: Iterable[TrialRecord]) -> dict[int, list[TrialRecord]]:
    """Trials of each slot, in the order of their steps; slots in the order of their indices."""
    slots: dict[int, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda t: (t.slot, t.step)):
        slots.setdefault(record.slot, []).append(record)
    return slots


def _figures(axis: Parameter, values: Sequence[Mapping[str, Any]]) -> list[float]:
    """Values of one coordinate on its axis; nan where it is inactive.

    Args:
        axis: the coordinate.
        values: values of each trial, by names of coordinates.
    """
    name = axis.name
    if isinstance(axis, FloatParameter | IntParameter):
        return [axis.figure(here[name]) if name in here else nan for here in values]
    # Finding a choice is slow, and there are few different ones.
    known: dict[str, float] = {}
    found = []
    for here in values:
        choice = repr(here[name]) if name in here else ""
        if choice not in known:
            known[choice] = axis.figure(here[name]) if name in here else nan
        found.append(known[choice])
    return found


def _by_step(found: Mapping[str, TrialRecord]) -> dict[int, list[float]]:
    steps: dict[int, list[float]] = {}
    for record in found.values():
        if record.value is not None:
            steps.setdefault(record.step, []).append(record.value)
    return steps


def _draw_metric(
    ax: Any,
    experiment: Experiment,
    found: Mapping[str, TrialRecord],
    line: Sequence[str],
    others: Mapping[str, Mapping[str, TrialRecord]],
) -> None:
    maximize = experiment.direction == "maximize"
    slots = _by_slot(record for record in found.values() if record.value is not None)
    winner = [found[trial] for trial in line if found[trial].value is not None]
    drawn = [*slots.values(), winner]
    _draw_slots(ax, drawn, [[record.value for record in records] for records in drawn])
    for name, other in others.items():
        best = best_so_far(other, maximize=maximize)
        ax.plot(
            [step for step, _ in best], [value for _, value in best], "k:", label=f"best of {name}"
        )
    steps = _by_step(found)
    axis = metric_axis(
        [value for values in steps.values() for value in values],
        [median(values) for values in steps.values()],
        maximize=maximize,
    )
    if axis.logarithmic:
        ax.set_yscale("log")
    if axis.edge is not None:
        ax.set_ylim(**{"bottom" if maximize else "top": axis.edge})
    ax.set_title(visible(experiment.metric), parse_math=False)
    ax.set_xlabel("step")
    # On the worse side of the curves; finding the emptiest place is slow with many curves.
    ax.legend(fontsize=8, loc="lower right" if maximize else "upper right")


def _draw_slots(
    ax: Any,
    drawn: Sequence[Sequence[TrialRecord]],
    heights: Sequence[Sequence[float | None]],
    **style: Any,
) -> None:
    """Draw all slots by step, and the winner's line above them.

    Args:
        ax: the axes to draw on.
        drawn: trials of each slot in the order of their steps; the winner's line comes last.
        heights: values of the same trials.
        style: style of the slots' lines.
    """
    steps = [[record.step for record in records] for records in drawn]
    for records, at, high in zip(drawn[:-1], steps, heights, strict=False):
        ax.plot(at, high, color=f"C{records[0].slot % 10}", lw=0.9, alpha=0.6, **style)
    ax.plot(steps[-1], heights[-1], "k-", lw=1.8, label="winner's line")


def _draw_schedule(
    ax: Any,
    axis: Parameter,
    drawn: Sequence[Sequence[TrialRecord]],
    values: Sequence[Sequence[Mapping[str, Any]]],
) -> None:
    """Draw one coordinate by step, with gaps where it is inactive.

    Args:
        ax: the axes to draw on.
        axis: the coordinate.
        drawn: as `_draw_slots` takes it.
        values: values of the same trials, by names of coordinates.
    """
    heights = [_figures(axis, of_trials) for of_trials in values]
    _draw_slots(ax, drawn, heights, marker=".", ms=3)
    if isinstance(axis, FloatParameter | IntParameter):
        ax.set_yscale(axis.scale)
    else:
        names = [visible(label) for label in axis.labels]
        ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set_title(visible(axis.name), parse_math=False)
    ax.set_xlabel("step")
