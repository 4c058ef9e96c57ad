"""The options --from-run and --with-checkpoints: a search starts from another one's results."""

from typing import Annotated

import typer

from romul_actors.protocol.declared_tables import FromRun
from romul_actors.protocol.experiment import Experiment

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
