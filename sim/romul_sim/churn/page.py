"""A report of a simulation as one self-contained HTML page: figures and four pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from romul_actors.observe import html as page
from romul_sim.churn.ledger import CAUSES, Ledger

COLOURS = {
    "useful": "#2a7f62",
    "preemption": "#c8553d",
    "time-out": "#e0a458",
    "stale": "#8d6a9f",
    "copies": "#6b9ac4",
    "given up": "#444444",
    "unfinished": "#bbbbbb",
    "frozen": "#7fd1d8",
}
MOST_MACHINES = 400
"""Most machines in the chart, in order of arrival; more could not be distinguished."""


def write_page(
    file: Path,
    title: str,
    command: str,
    figures: Mapping[str, Any],
    ledger: Ledger,
    rows: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page.

    Args:
        file: where to write the page.
        title: title of the page.
        command: the command that repeats the simulation.
        figures: the figures of one simulation.
        ledger: its accounts, with the data for pictures.
        rows: rows of a comparison, if there was one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    pictures = [
        ("Machines and trials", _gantt(ledger)),
        ("Machines and slots with a trial", _sizes(ledger)),
        ("Loss by time and by cost", _loss(ledger)),
        ("Where the machines' time went", _time(figures)),
    ]
    parts = [page.code(command)]
    if rows:
        shown = [{k: v for k, v in row.items() if k != "waste"} for row in rows]
        parts.append("<h2>Comparison</h2>" + page.table(shown))
    parts += [page.image(name, picture) for name, picture in pictures]
    parts.append("<h2>Figures</h2>" + page.figures(figures, CAUSES))
    page.write(file, title, parts)


def _figure(height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _gantt(ledger: Ledger) -> bytes:
    names = sorted(ledger.lives, key=lambda name: (ledger.lives[name][1], name))[:MOST_MACHINES]
    places = {name: i for i, name in enumerate(names)}
    figure, (ax,) = _figure(max(2.5, min(14.0, 0.12 * len(names))))
    now_s = max((span.end_s or 0.0 for span, _ in ledger.spans), default=0.0)
    for name in names:
        _, came_s, left_s = ledger.lives[name]
        end_s = now_s if left_s is None else left_s
        ax.broken_barh(
            [(came_s / 3600, (end_s - came_s) / 3600)], (places[name] - 0.4, 0.8), color="#e8e8e8"
        )
    for fate, colour in COLOURS.items():
        bars: dict[int, list[tuple[float, float]]] = {}
        for span, how in ledger.spans:
            if how == fate and span.machine in places:
                length_s = (span.end_s or now_s) - span.begin_s
                bars.setdefault(places[span.machine], []).append(
                    (span.begin_s / 3600, length_s / 3600)
                )
        for place, spans in bars.items():
            ax.broken_barh(
                spans, (place - 0.4, 0.8), color=colour, edgecolor="white", linewidth=0.2
            )
        if bars:
            ax.plot([], [], color=colour, lw=6, label=fate)
    ax.set_xlabel("hours")
    ax.set_ylabel("machines, by arrival")
    ax.set_ylim(len(names), -1)
    ax.legend(loc="upper right", fontsize=8)
    return page.png(figure)


def _sizes(ledger: Ledger) -> bytes:
    figure, (ax,) = _figure(2.6)
    hours = [s / 3600 for s, _, _ in ledger.sizes]
    ax.step(hours, [n for _, n, _ in ledger.sizes], where="post", label="machines")
    ax.step(
        hours, [n for _, _, n in ledger.sizes], where="post", label="slots with a trial", lw=0.8
    )
    ax.set_xlabel("hours")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8)
    return page.png(figure)


def _loss(ledger: Ledger) -> bytes:
    figure, axes = _figure(3.0, 2)
    for ax, label, column in ((axes[0], "hours", 0), (axes[1], "dollars", 1)):
        scale = 3600 if column == 0 else 1
        ax.step(
            [point[column] / scale for point in ledger.curve],
            [loss for _, _, loss in ledger.curve],
            where="post",
        )
        ax.set_xlabel(label)
        ax.set_ylabel("best loss")
        losses = [loss for _, _, loss in ledger.curve]
        if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
            ax.set_yscale("log")
    return page.png(figure)


def _time(figures: Mapping[str, Any]) -> bytes:
    figure, (ax,) = _figure(1.6)
    left = 0.0
    for name, share in {"useful": figures["goodput"] or 0.0, **figures["waste"]}.items():
        if share:
            ax.barh([0], [share], left=left, color=COLOURS.get(name, "#f0f0f0"), label=name)
            left += share
    ax.set_yticks([])
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of what was paid for")
    ax.legend(ncols=8, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return page.png(figure)
