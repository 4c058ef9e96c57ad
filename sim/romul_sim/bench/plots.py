"""A picture of the bench's results: pairs of runs won, and curves of each problem."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from romul_sim.bench.runs import RunLine
from romul_sim.bench.standings import curve, label

PANELS_A_ROW = 4


def draw(result: Mapping[str, Any], lines: Sequence[RunLine], file: Path) -> None:
    """Draw the picture.

    Args:
        result: the tables, as `standings` returns them.
        lines: the runs.
        file: where to write the PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    problems = list(dict.fromkeys(row["problem"] for row in result["problems"]))
    colours = {row["optimizer"]: f"C{n}" for n, row in enumerate(result["all"])}
    n_rows = 1 + -(-len(problems) // PANELS_A_ROW)
    figure = Figure(figsize=(12, 2 + 0.1 * len(problems) * len(colours) + 2.2 * n_rows))
    figure.set_layout_engine("constrained")
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, n_rows - 0.5]).ravel()
    _draw_pairs(top.subplots(), result, problems, colours)
    panels = below.subplots(n_rows - 1, PANELS_A_ROW, squeeze=False).ravel()
    for axes, problem in zip(panels, problems, strict=False):
        for name, colour in colours.items():
            its = [
                line for line in lines if (line["problem"], line["optimizer"]) == (problem, name)
            ]
            steps = range(1, 1 + len(its[0]["curve"]))
            axes.plot(steps, curve(its), label=name, color=colour, lw=1)
        axes.set_title(problem, fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
    below.suptitle("lowest validation loss so far by step, median", fontsize=9)
    panels[0].legend(fontsize=7)
    for axes in panels[len(problems) :]:
        axes.set_axis_off()
    figure.savefig(file, dpi=90)


def _draw_pairs(
    axes: Any, result: Mapping[str, Any], problems: Sequence[str], colours: Mapping[str, str]
) -> None:
    """Pairs won by problem, with intervals, and over all problems."""
    rivals = [row for row in result["all"] if row["first_wins"] is not None]
    for place, rival in enumerate(rivals):
        rows = [r for r in result["problems"] if r["optimizer"] == rival["optimizer"]]
        shares = [*(row["first_wins"] for row in rows), rival["first_wins"]]
        y = [i + 0.18 * (place - (len(rivals) - 1) / 2) for i in range(len(shares))]
        x = [share["share"] for share in shares]
        below = [max(0.0, share["share"] - share["low"]) for share in shares]
        above = [max(0.0, share["high"] - share["share"]) for share in shares]
        colour, against = colours[rival["optimizer"]], f"against {label(rival)}"
        axes.errorbar(x, y, xerr=[below, above], fmt="o", ms=4, color=colour, label=against)
    axes.axvline(0.5, color="k", lw=0.7)
    axes.set_yticks(range(len(problems) + 1), [*problems, "all"])
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_title(f"pairs of runs that {result['first']} wins, 95 % intervals", fontsize=9)
    if rivals:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
