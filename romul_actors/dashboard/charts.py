"""Charts as ECharts options, and rows of the population table, made from a feed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.core.space import FloatParameter, IntParameter, Parameter
from romul_actors.dashboard.feed import SHOWN, Feed, SlotState
from romul_actors.observe.plots import MOST_AXES, arrow_opacity, metric_axis
from romul_actors.observe.visible import visible
from romul_actors.protocol.experiment import Experiment

Options = dict[str, Any]

COLOURS = {
    "result": "#2a7f62",
    "lost": "#c8553d",
    "preempted": "#e0a458",
    "drained": "#e0a458",
    "outdated": "#6b9ac4",
}
WINNER = "#111111"
_BAR = """(params, api) => {
  const [x, y] = api.coord([api.value(0), api.value(2)]), end = api.coord([api.value(1), 0])[0];
  const shape = {x, y: y - 4, width: Math.max(1, end - x), height: 8};
  return {type: "rect", shape, style: api.style()};
}"""
"""Draws a bar of the timeline in the browser; even a very short attempt is visible."""
GRID = {"left": 60, "right": 20, "top": 40, "bottom": 40}


def _base(title: str, **more: Any) -> Options:
    return {
        "title": {"text": title, "textStyle": {"fontSize": 13}},
        "grid": dict(GRID),
        "animation": False,
        "tooltip": {"trigger": "item"},
        "xAxis": {"type": "value", "name": "step"},
        "dataZoom": [{"type": "inside", "xAxisIndex": 0}],
        **more,
    }


def _axis(
    feed: Feed, values: Sequence[float], quartiles: Sequence[tuple[int, float, float, float]]
) -> Options:
    """The metric's axis for some of its values; `quartiles` are those of the feed."""
    medians = [median for _, _, median, _ in quartiles]
    axis = metric_axis(values, medians, maximize=feed.maximize)
    options: Options = {"type": "log" if axis.logarithmic else "value", "scale": True}
    if axis.edge is not None:
        # Rounded, since the axis shows this number.
        options["min" if feed.maximize else "max"] = float(f"{axis.edge:.2g}")
    return options


def _line(name: str, data: Sequence[Any], **style: Any) -> Options:
    return {"name": name, "type": "line", "data": list(data), "showSymbol": False, **style}


def _slot_line(slot: SlotState, data: Sequence[Any]) -> Options:
    return _line(f"slot {slot.index}", data, lineStyle={"width": 1, "opacity": 0.5})


def _black_line(name: str, data: Sequence[Any]) -> Options:
    style = {"width": 3, "color": WINNER}
    return _line(name, data, lineStyle=style, z=5, itemStyle={"color": WINNER})


def _shown(value: Any) -> Any:
    """A value for the table: a number, so that it sorts as one, or a text."""
    if isinstance(value, list):
        return f"[{', '.join(str(_shown(one)) for one in value)}]"
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value if type(value) is int else str(value)


def columns(experiment: Experiment) -> list[Options]:
    """Columns of the population table, with one for each hyperparameter."""
    labels = {name: name for name in ("slot", "status", "step")}
    labels |= {"metric": experiment.metric, "copied": "copied from", "rule": "rule"}
    labels |= {f"h.{name}": name for name in experiment.space}
    return [
        {"name": name, "label": visible(label), "field": name, "sortable": True, "align": "left"}
        for name, label in labels.items()
    ]


def rows(feed: Feed) -> list[Options]:
    """Rows of the population table, the best slot first."""
    in_hand = feed.snapshot.in_hand if feed.snapshot is not None else {}
    return [
        {
            "slot": slot.index,
            "status": in_hand.get(slot.trial, slot.status) + (" (pinned)" if slot.pinned else ""),
            "step": slot.step,
            "metric": None if slot.value is None else float(f"{slot.value:.6g}"),
            "copied": "" if slot.copied_from is None else f"slot {slot.copied_from}",
            "rule": slot.rule,
            **{f"h.{name}": _shown(value) for name, value in slot.hyperparameters.items()},
        }
        for slot in feed.ranked()
    ]


def metric(feed: Feed, experiment: Experiment) -> Options:
    """The metric by step: the best slots, quartiles of all slots, and the winner's line."""
    shown = feed.ranked()[:SHOWN]
    series = [
        _slot_line(slot, [list(pair) for pair in zip(slot.steps, slot.values, strict=True)])
        for slot in shown
    ]
    quartiles = feed.quartiles()
    for i, name in ((1, "lower quartile"), (2, "median"), (3, "upper quartile")):
        points = [[row[0], row[i]] for row in quartiles]
        style = {"width": 2 if i == 2 else 1, "type": "dashed", "color": "#888"}  # noqa: PLR2004
        series.append(_line(name, points, lineStyle=style, itemStyle={"color": "#888"}))
    winner = feed.line_of(_best(feed))
    points = [[int(t.partition("-")[2]), feed.results[t]] for t in winner if t in feed.results]
    series.append(_black_line("winner's line", points))
    values = [value for slot in shown for value in slot.values]
    return _base(
        f"{experiment.metric} by step",
        yAxis=_axis(feed, values, quartiles),
        series=series,
        legend={"bottom": 0, "data": [one["name"] for one in series[len(shown) :]]},
        grid={**GRID, "bottom": 70},
    )


def _best(feed: Feed) -> str | None:
    return feed.snapshot.best.get("trial") if feed.snapshot is not None else None


def hyperparameter(feed: Feed, experiment: Experiment, name: str) -> Options:
    """A coordinate by step, for the best slots and along the winner's line.

    Args:
        feed: the search.
        experiment: its declaration.
        name: name of a hyperparameter, or of an element of one that is a list.
    """
    axis = next(axis for axis in experiment.search_space() if axis.name == name)

    series = [
        _slot_line(slot, [[step, _place(axis, values)] for step, values in slot.schedule])
        for slot in feed.ranked()[:SHOWN]
    ]
    winner = []
    schedules = {slot.index: dict(slot.schedule) for slot in feed.slots.values()}
    for trial in feed.line_of(_best(feed)):
        slot, step = map(int, trial.split("-"))
        if step in schedules.get(slot, {}):
            winner.append([step, _place(axis, schedules[slot][step])])
    series.append(_black_line("winner's line", winner))
    return _base(
        name,
        yAxis={**_values_of(axis), "scale": True},
        series=series,
    )


def _values_of(axis: Parameter) -> Options:
    """The chart's axis for a coordinate."""
    if isinstance(axis, FloatParameter | IntParameter):
        return {"type": "log" if axis.scale == "log" else "value"}
    return {"type": "category", "data": list(axis.labels)}


def _place(axis: Parameter, values: Mapping[str, Any]) -> Any:
    """A trial's place on an axis: a number or a choice; None if it is inactive."""
    if axis.name not in values:
        return None
    value = values[axis.name]
    return axis.labels[int(axis.figure(value))] if axis.labels else value


def lineage(feed: Feed, slot: int | None) -> Options:
    """Slots by step, with an arrow for each copy; the slot's line of descent is black."""
    ranked = [state.index for state in feed.ranked()]
    shown = sorted({*ranked[:SHOWN], *([] if slot is None else [slot])} & set(ranked))
    place = {index: i for i, index in enumerate(shown)}
    arrows = [
        [{"coord": [step - 1, place[source]]}, {"coord": [step, place[target]]}]
        for step, source, target in feed.copies(shown)
        if source in place and target in place
    ]
    lines = [
        _line(
            f"slot {index}",
            [[0, place[index]], [feed.slots[index].step, place[index]]],
            lineStyle={"width": 1, "color": "#ccc"},
        )
        for index in shown
    ]
    end = _best(feed) if slot is None else feed.slots[slot].trial if slot in feed.slots else None
    own = []
    for trial in feed.line_of(end):
        index, step = map(int, trial.split("-"))
        if index in place:
            own.append([step, place[index]])
    title = "the winner" if slot is None else f"slot {slot}"
    main = _black_line(f"line of {title}", own)
    main["markLine"] = {
        "symbol": ["none", "arrow"],
        "symbolSize": 6,
        "silent": True,
        "lineStyle": {"color": "#c8553d", "opacity": arrow_opacity(len(arrows)), "type": "solid"},
        "label": {"show": False},
        "data": arrows[-2_000:],
    }
    return _base(
        f"copies between slots; line of descent of {title}",
        yAxis={"type": "category", "data": [f"slot {index}" for index in shown], "inverse": True},
        series=[*lines, main],
    )


def parallel(feed: Feed, experiment: Experiment) -> Options:
    """Parallel coordinates of the latest trials, coloured by the metric."""
    axes: list[Options] = []
    shown = experiment.search_space().axes[:MOST_AXES]
    for i, axis in enumerate(shown):
        axes.append({"dim": i, "name": axis.name, **_values_of(axis)})
        if isinstance(axis, FloatParameter | IntParameter):
            axes[-1] |= {"min": axis.low, "max": axis.high}
    latest = list(feed.trials)[-500:]
    order = sorted((value for _, value, _ in latest), reverse=feed.maximize)
    n = len(axes)
    last = {"dim": n, "name": experiment.metric, **_axis(feed, order, feed.quartiles())}
    axes.append(last)
    # A parallel axis does not clip values beyond its ends.
    lowest, highest = last.get("min", -math.inf), last.get("max", math.inf)
    data = [
        [
            *(_place(axis, values) for axis in shown),
            min(max(value, lowest), highest),
        ]
        for values, value, _ in latest
    ]
    low, high = sorted((order[0], order[int(0.9 * (len(order) - 1))])) if order else (0.0, 1.0)
    return {
        "title": {"text": "the latest 500 trials", "textStyle": {"fontSize": 13}},
        "animation": False,
        "parallelAxis": axes,
        "parallel": {"left": 60, "right": 90, "top": 60, "bottom": 30},
        "visualMap": {
            "show": False,
            "min": low,
            "max": high if high > low else low + 1.0,
            "dimension": n,
            "inRange": {"color": ["#2a7f62", "#e0e0e0"][:: -1 if feed.maximize else 1]},
        },
        "series": [{"type": "parallel", "lineStyle": {"width": 1, "opacity": 0.4}, "data": data}],
    }


def timeline(feed: Feed) -> Options:
    """Workers by time, with a bar for each attempt, coloured by how it ended."""
    attempts = list(feed.attempts)
    workers = list(dict.fromkeys(attempt.worker for attempt in attempts))[-60:]
    place = {worker: i for i, worker in enumerate(workers)}
    bars: dict[str, list[list[float]]] = {}
    for attempt in attempts:
        if attempt.worker in place:
            bar = [attempt.begin_s, attempt.end_s, place[attempt.worker]]
            bars.setdefault(attempt.how, []).append(bar)
    series = [
        {
            "name": how,
            "type": "custom",
            ":renderItem": _BAR,
            "encode": {"x": [0, 1], "y": 2},
            "clip": True,
            "data": spans,
            "itemStyle": {"color": COLOURS.get(how, "#8d6a9f")},
        }
        for how, spans in bars.items()
    ]
    return _base(
        "workers by time",
        xAxis={"type": "value", "name": "s", "scale": True},
        yAxis={"type": "category", "data": workers, "inverse": True},
        legend={"bottom": 0},
        # Leave room for the longest name.
        grid={**GRID, "left": 10, "containLabel": True},
        series=series,
    )
