"""Options that change a declaration: --deadline, --from-run and --with-checkpoints."""

from datetime import datetime, timedelta
from datetime import time as clock
from typing import Annotated

import typer

from romul_actors.protocol.declared_tables import FromRun
from romul_actors.protocol.experiment import Experiment

Deadline = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="End at this time, with the best result so far: 18:00, +90m, +2h, or a date and time.",
    ),
]

From = Annotated[
    str | None,
    typer.Option(
        "--from-run",
        metavar="NAME",
        help="Start from the best hyperparameters of the search NAME.",
    ),
]

WithCheckpoints = Annotated[
    bool,
    typer.Option(
        "--with-checkpoints",
        help="With --from-run: also start from copies of its checkpoints; trial.start begins at 0.",
    ),
]


def with_deadline(experiment: Experiment, when: str | None) -> Experiment:
    """The experiment, with a deadline if one is given.

    Raises:
        typer.BadParameter: it cannot be read, or has passed.
    """
    if when is None:
        return experiment
    now = datetime.now().astimezone()
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        if when.startswith("+"):
            moment = now + timedelta(seconds=float(when[1:-1]) * units[when[-1]])
        elif len(when) <= len("18:00:00"):
            moment = datetime.combine(now.date(), clock.fromisoformat(when), now.tzinfo)
            moment += timedelta(days=moment <= now)
        else:
            moment = datetime.fromisoformat(when).astimezone()
    except (ValueError, KeyError, OverflowError):
        raise typer.BadParameter(
            f"{when!r} is not a time such as 18:00, +90m, +2h, or a date and time"
        ) from None
    if moment <= now:
        raise typer.BadParameter(f"{when!r} has passed")
    return experiment.model_copy(update={"deadline": moment})


def with_origin(
    experiment: Experiment,
    name: str | None,
    with_checkpoints: bool,
) -> Experiment:
    """The experiment, with the search that it starts from, if one is given.

    Raises:
        typer.BadParameter: checkpoints are requested, but no search is given.
    """
    if name is None and with_checkpoints:
        raise typer.BadParameter("--with-checkpoints needs --from-run")
    if name is None:
        return experiment
    what = "checkpoints" if with_checkpoints else "hyperparameters"
    return experiment.model_copy(
        update={"from_run": FromRun.model_validate({"name": name, "what": what})}
    )
