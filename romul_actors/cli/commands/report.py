"""`romul report`: a search as one HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from romul_actors.cli.options.shared import Name, SearchUrl
from romul_actors.cli.output.printing import echo
from romul_actors.cli.servers.connection import snapshot_of
from romul_actors.core.history import TrialFailed
from romul_actors.observe import html as page
from romul_actors.observe.explain import last_line
from romul_actors.observe.plots import plot, plot_lineage, plot_workers
from romul_actors.observe.snapshot import Snapshot
from romul_actors.observe.trial_records import TrialRecord, origins, trials
from romul_actors.observe.waste import waste

FAILURES = 50
"""Maximum number of failed attempts on the page: the latest ones."""


def report(
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="HTML file. Default: NAME.html.", dir_okay=False),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Also write the plots to this folder, as PNG files.", file_okay=False),
    ] = None,
    redis: SearchUrl = None,
) -> None:
    """Write a self-contained HTML report of a finished or running search."""
    seen = snapshot_of(name, redis)
    found = trials(seen.history)
    images = _pictures(seen, found)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for title, image in images.items():
            (pictures / f"{title.lower().replace(' ', '-')}.png").write_bytes(image)
    shown = {key: value for key, value in seen.best.items() if key != "vector"}
    parts = [
        page.figures({"status": seen.status, "reason": seen.reason, "best": shown}),
        *(page.image(title, image) for title, image in images.items()),
        "<h2>Trials</h2>",
        page.figures(
            {"trials": dict(seen.counts), "machine seconds": waste(seen.history).as_json()}
        ),
        "<h2>Where results come from</h2>",
        page.table(origins(found)),
        f"<h2>Latest {FAILURES} failures</h2>",
        page.table(_failures(seen)[-FAILURES:]),
        "<h2>The experiment</h2>",
        page.code(seen.experiment.model_dump_json(exclude_defaults=True, indent=2)),
    ]
    file = to or Path(f"{name}.html")
    page.write(file, f"{name}: {seen.status}", parts)
    echo(f"written: {file}")


def _pictures(seen: Snapshot, found: Mapping[str, TrialRecord]) -> dict[str, bytes]:
    """PNG images by their titles."""
    best = seen.best.get("trial")
    try:
        drawn = {
            "Metric and hyperparameters by step": plot(seen.experiment, found, best, {}),
            "Copies between slots": plot_lineage(found, best),
            "Workers by time": plot_workers(seen.history),
        }
    except ImportError:
        raise typer.BadParameter(
            "pictures need matplotlib: pip install 'romul[dashboard]'"
        ) from None
    return {title: page.png(figure) for title, figure in drawn.items()}


def _failures(seen: Snapshot) -> list[dict[str, Any]]:
    """Rows of all failed attempts whose worker was not lost, oldest first."""
    return [
        {
            "trial": line.trial,
            "worker": line.worker,
            "reason": line.reason,
            "message": last_line(line.message),
        }
        for line in seen.history
        if isinstance(line, TrialFailed) and line.reason != "lost"
    ]
