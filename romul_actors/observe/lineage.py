"""A run told afterwards: its history as lines of descent, a picture, and a summary for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from romul_actors.observe.plots import metric_axis
from romul_actors.observe.visible import visible
from romul_actors.protocol.experiment import Experiment, FloatSpec, IntSpec
from romul_actors.store import ReaderStore

PAGE = 5_000
"""History entries read at a time."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial as the history tells it."""

    slot: int
    step: int
    parent: str | None
    hyperparameters: Mapping[str, Any]
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    why: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


async def read_history(store: ReaderStore, name: str) -> list[dict[str, Any]]:
    """All history entries that the store still has, oldest first."""
    events: list[dict[str, Any]] = []
    after = "0"
    while page := await store.history(name, after, PAGE):
        events += [json.loads(line) for _, line in page]
        after = page[-1][0]
    return events


def trials(events: Sequence[Mapping[str, Any]]) -> dict[str, TrialRecord]:
    """Every trial by its id, with its result where it has one."""
    found: dict[str, TrialRecord] = {}
    results: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event["event"] == "trial":
            found[event["trial"]] = TrialRecord(
                slot=event["slot"],
                step=event["step"],
                parent=event["parent"],
                hyperparameters=event["hyperparameters"],
                why=event["why"],
                seed=event["seed"],
            )
        elif event["event"] == "result":
            results[event["trial"]] = event
    return {
        trial: TrialRecord(
            slot=told.slot,
            step=told.step,
            parent=told.parent,
            hyperparameters=told.hyperparameters,
            why=told.why,
            seed=told.seed,
            value=results[trial]["value"] if trial in results else None,
            metrics=results[trial].get("metrics", {}) if trial in results else {},
        )
        for trial, told in found.items()
    }


def lineage(found: Mapping[str, TrialRecord], trial: str | None) -> list[str]:
    """Ids of a trial's ancestors and its own, oldest first; across slots, where one copied."""
    line: list[str] = []
    while trial is not None and trial in found:
        line.append(trial)
        trial = found[trial].parent
    return line[::-1]


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
        others: trials of experiments to compare with, by name; their best so far is drawn.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = list(experiment.space)
    columns = 3
    rows = -(-(len(names) + 1) // columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    line = lineage(found, best_trial)
    _draw_metric(axes[0], experiment, found, line, others)
    for ax, name in zip(axes[1:], names, strict=False):
        _draw_schedule(ax, experiment, name, found, line)
    for ax in axes[len(names) + 1 :]:
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
    from matplotlib.figure import Figure  # noqa: PLC0415

    slots = sorted({told.slot for told in found.values()})
    figure = Figure(figsize=(11, max(2.5, min(14.0, 0.25 * len(slots) + 1))), layout="constrained")
    ax = figure.subplots()
    for told in found.values():
        source = found.get(told.parent or "")
        if source is not None and source.slot != told.slot:
            ax.annotate(
                "",
                (told.step, told.slot),
                (source.step, source.slot),
                arrowprops={"arrowstyle": "->", "color": "#c8553d", "alpha": 0.5, "lw": 0.8},
            )
    for slot, stretch in _by_slot(found).items():
        ax.plot([stretch[0].step, stretch[-1].step], [slot, slot], color="0.85", zorder=0)
    line = [found[trial] for trial in lineage(found, best_trial)]
    ax.plot([t.step for t in line], [t.slot for t in line], "k-", lw=2)
    ax.set_xlabel("step")
    ax.set_ylabel("slot")
    ax.invert_yaxis()
    return figure


def plot_workers(lines: Sequence[Mapping[str, Any]]) -> Any:
    """Draw workers by time, with a bar for each attempt.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    began_ms = lines[0].get("at_ms", 0) if lines else 0
    bars: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for told in lines:
        if told["event"] in ("result", "failed", "released"):
            seconds = told.get("seconds", 0.0)
            end_s = (told["at_ms"] - began_ms) / 1000
            how = told.get("reason", "result")
            bars.setdefault(told["worker"], {}).setdefault(how, []).append(
                (max(0.0, end_s - seconds), max(seconds, 0.02))
            )
    figure = Figure(figsize=(11, max(2.0, min(14.0, 0.25 * len(bars) + 1))), layout="constrained")
    ax = figure.subplots()
    colours = {"result": "#2a7f62", "lost": "#c8553d", "preempted": "#e0a458"}
    for place, by_end in enumerate(bars.values()):
        for how, spans in by_end.items():
            colour = colours.get(how, "#8d6a9f")
            ax.broken_barh(spans, (place - 0.4, 0.8), color=colour, edgecolor="white", lw=0.2)
    for how in sorted({how for by_end in bars.values() for how in by_end}):
        ax.plot([], [], color=colours.get(how, "#8d6a9f"), lw=6, label=how)
    ax.set_yticks(range(len(bars)), map(visible, bars), fontsize=7, parse_math=False)
    ax.set_xlabel("seconds")
    if bars:
        ax.legend(fontsize=8)
    return figure


def _by_slot(found: Mapping[str, TrialRecord]) -> dict[int, list[TrialRecord]]:
    slots: dict[int, list[TrialRecord]] = {}
    for told in sorted(found.values(), key=lambda t: (t.slot, t.step)):
        slots.setdefault(told.slot, []).append(told)
    return slots


def _by_step(found: Mapping[str, TrialRecord]) -> dict[int, list[float]]:
    steps: dict[int, list[float]] = {}
    for told in found.values():
        if told.value is not None:
            steps.setdefault(told.step, []).append(told.value)
    return steps


def _draw_metric(
    ax: Any,
    experiment: Experiment,
    found: Mapping[str, TrialRecord],
    line: Sequence[str],
    others: Mapping[str, Mapping[str, TrialRecord]],
) -> None:
    maximize = experiment.direction == "maximize"
    for slot, told in _by_slot(found).items():
        known = [t for t in told if t.value is not None]
        ax.plot(
            [t.step for t in known],
            [t.value for t in known],
            color=f"C{slot % 10}",
            lw=0.9,
            alpha=0.6,
        )
    winner = [found[trial] for trial in line if found[trial].value is not None]
    ax.plot(
        [t.step for t in winner], [t.value for t in winner], "k-", lw=1.8, label="winner's line"
    )
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
    ax.legend(fontsize=8)


def _draw_schedule(
    ax: Any,
    experiment: Experiment,
    name: str,
    found: Mapping[str, TrialRecord],
    line: Sequence[str],
) -> None:
    spec = experiment.space[name]
    numeric = isinstance(spec, FloatSpec | IntSpec)
    choices: list[Any] = [] if numeric else list(getattr(spec, "choices", (False, True)))

    def height(value: Any) -> float:
        return float(value) if numeric else float(choices.index(value))

    for slot, told in _by_slot(found).items():
        heights = [height(t.hyperparameters[name]) for t in told]
        ax.plot(
            [t.step for t in told],
            heights,
            color=f"C{slot % 10}",
            lw=0.9,
            alpha=0.6,
            marker=".",
            ms=3,
        )
    winner = [found[trial] for trial in line]
    ax.plot(
        [t.step for t in winner],
        [height(t.hyperparameters[name]) for t in winner],
        "k-",
        lw=1.8,
    )
    if isinstance(spec, FloatSpec | IntSpec):
        ax.set_yscale("log" if spec.scale == "log" else "linear")
    else:
        names = [visible(str(choice)) for choice in choices]
        ax.set_yticks(range(len(choices)), names, parse_math=False)
    ax.set_title(visible(name), parse_math=False)
    ax.set_xlabel("step")


def summary(
    experiment: Experiment, meta: Mapping[str, str], found: Mapping[str, TrialRecord]
) -> dict[str, Any]:
    """The run in figures, as JSON values."""
    best = json.loads(meta["best"]) if meta.get("best") else {}
    return {
        "name": experiment.name,
        "status": meta["status"],
        "reason": meta.get("reason", ""),
        "metric": experiment.metric,
        "best": best.get(experiment.metric),
        "best_trial": best.get("trial"),
        "best_checkpoint": best.get("checkpoint"),
        "best_hyperparameters": best.get("hyperparameters"),
        "best_metrics": best.get("metrics"),
        "population": experiment.population,
        "steps": experiment.steps,
        "decisions": len(found),
        "trials": int(meta.get("reported", 0)) + int(meta.get("failed", 0)),
        "failed": int(meta.get("failed", 0)),
        "retried": int(meta.get("retried", 0)),
    }
