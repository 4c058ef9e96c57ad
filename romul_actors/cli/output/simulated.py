"""The output of `romul sim` for people: a title, figures and comparisons."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isinf
from typing import Any

from romul_actors.cli.output.printing import Console, Table
from romul_actors.observe.snapshot import age
from romul_actors.protocol.statuses import ENDED
from romul_sim.churn.scenario import slots
from romul_sim.churn.sweep import SweepJob
from romul_sim.churn.trace import Trace, most_machines


def seconds(value: float) -> str:
    """A time in seconds."""
    return f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"  # noqa: PLR2004


def title(source: str, trace: Trace, jobs: Sequence[SweepJob], policies: str) -> str:
    """A line that says what is simulated.

    Args:
        source: the source of the machines.
        trace: the machines.
        jobs: all simulations.
        policies: a text about their policies.
    """
    scenarios = [job.scenario for job in jobs]
    first, seeds = scenarios[0], len({job.seed for job in jobs})
    searches = "" if first.searches == 1 else f"{first.searches} searches of "
    steps = _range(str, (each.steps for each in scenarios))
    trials = _range(seconds, (each.durations.trial_s for each in scenarios))
    optimizers = ",".join(dict.fromkeys(job.optimizer for job in jobs))
    return (
        f"{source}: up to {most_machines(trace.changes)} machines, {age(trace.span_s)}; "
        f"{searches}{_range(str, map(slots, scenarios))} slots, {steps} steps, trials of {trials}; "
        f"{first.problem}, optimizer {optimizers}, {policies}"
        f"{'' if seeds == 1 else f', {seeds} seeds'}"
    )


def _range(shown: Callable[[Any], str], values: Iterable[float]) -> str:
    """One value, or the range of the values."""
    found = sorted(set(values))
    ends = dict.fromkeys((found[0], found[-1]))
    return " to ".join(map(shown, ends))


def show_figures(figures: Mapping[str, Any]) -> None:
    """Print the figures of one simulation."""
    table = Table("figure", "value")
    for name, value in figures.items():
        # `reported` is shown as `trials`.
        if name != "reported" and (shown := _in_words(name, value)):
            table.add_row(name.replace("_", " "), shown)
    Console().print(table)


def _in_words(name: str, value: Any) -> str:
    """A figure as text; "" if there is nothing to show."""
    if name == "status":
        return str(value) if value in (*ENDED, "broken") else "the trace ended first"
    if isinstance(value, dict):
        return ", ".join(f"{key} {'-' if part is None else part}" for key, part in value.items())
    return "" if value is None else str(value)


def show_comparison(
    rows: Sequence[Mapping[str, Any]], recommended: Mapping[str, Any] | None
) -> None:
    """Print a comparison, and the recommendation if there is one."""
    console = Console()
    right = ("goodput", "best", "hours to target", "dollars to target", "worst waste")
    table = Table("optimizer", "policy", right=right)
    for row in rows:
        worst = max(row["waste"].items(), key=lambda item: item[1] or 0.0)
        table.add_row(
            row["optimizer"],
            row["policy"],
            *(
                "-" if row[key] is None else f"{row[key]:.4g}"
                for key in ("goodput", "best", "hours_to_target", "dollars_to_target")
            ),
            f"{worst[0]} {100 * (worst[1] or 0.0):.0f} %",
        )
    console.print(table)
    target = rows[0]["target"]
    none = "none: no trial ended in most simulations"
    console.print(f"target: {none if isinf(target) else f'{target:.6g}'}")
    for name, value in (recommended or {}).items():
        shown = "-" if value is None else f"{value:.6g}"
        console.print(f"recommended {name.replace('_', ' ')}: {shown}")
