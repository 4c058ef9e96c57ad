"""`romul check`: whether a task does what a task must do."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options.shared import AsJson, TaskPath
from romul_actors.cli.output.printing import MARKS, echo, echo_json
from romul_actors.protocol.advice import advice, guarded
from romul_actors.protocol.plan import load
from romul_workers.checkpoints.scratch import scratch_folder
from romul_workers.child.trainer import ChildTrainer
from romul_workers.conformance import Check, Examination


def check(
    file: Annotated[Path, typer.Argument(help="Experiment file (.toml or .py).")],
    budget: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Length of a test step, in the budget's unit. Default: the experiment's budget.",
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0.1, help="Seconds within which the task must stop when requested.")
    ] = 10.0,
    path: TaskPath = None,
    as_json: AsJson = False,
) -> None:
    """Check that a task restores, seeds, applies hyperparameters and stops as it should.

    The command trains a few single steps, and four for each hyperparameter. Like `romul run`, it
    imports the file's task without --allow.
    """
    experiment = load(file)

    def on_check(check: Check) -> None:
        if not as_json:
            echo(f"{MARKS[check.level]} {check.name}: {check.found}")

    async def run(scratch: Path) -> list[Check]:
        changes: dict[str, Any] = {"checkpoints": str(scratch / "checkpoints")}
        if budget is not None:
            changes["budget"] = budget
        trainer = ChildTrainer(scratch, [file.resolve().parent, *(path or [])])
        longer = experiment.budget / (budget or experiment.budget)
        tried = experiment.model_copy(update=changes)
        examination = Examination(tried, trainer, grace, on_check, longer)
        said = [Check("optimizer", "warning", text) for text in advice(experiment)]
        if text := guarded(experiment):
            said.append(Check("guard", "ok", text))
        for one in said:
            on_check(one)
        try:
            return [*said, *await examination.run()]
        finally:
            await trainer.close()

    with scratch_folder() as scratch:
        checks = asyncio.run(run(scratch))
    if as_json:
        echo_json([asdict(check) for check in checks])
    if any(check.level == "fault" for check in checks):
        raise typer.Exit(EXPERIMENT_FAILED)
