"""The options --from-run and --with-checkpoints: a search begins with what another has found."""

from typing import Annotated

import typer

from romul_actors.protocol.declared_tables import FromRun
from romul_actors.protocol.experiment import Experiment

From = Annotated[
    str | None,
    typer.Option(
        "--from-run",
        metavar="NAME",
        help="Begin with the best hyperparameters of another search.",
    ),
]

WithCheckpoints = Annotated[
    bool,
    typer.Option(
        "--with-checkpoints",
        help="With --from-run: and from copies of its checkpoints; trial.start counts from 0.",
    ),
]


def with_origin(
    experiment: Experiment,
    name: str | None,
    with_checkpoints: bool,
) -> Experiment:
    """The experiment, with the search that it begins from if one is named.

    Raises:
        typer.BadParameter: checkpoints, and no search to take them from.
    """
    if name is None and with_checkpoints:
        raise typer.BadParameter("--with-checkpoints goes with --from-run")
    if name is None:
        return experiment
    what = "checkpoints" if with_checkpoints else "hyperparameters"
    return experiment.model_copy(
        update={"from_run": FromRun.model_validate({"name": name, "what": what})}
    )
