"""`romul record` and `romul replay`: record a real run, and replay its decisions."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED
from romul_actors.cli.options.shared import AsJson, Name, SearchUrl
from romul_actors.cli.output.printing import Console, echo, echo_json
from romul_actors.cli.servers.followed import Followed, following
from romul_actors.core.history import TrialCreated, from_json
from romul_actors.protocol.statuses import ENDED
from romul_actors.store import Store
from romul_sim.records.record import Record, read_record
from romul_sim.records.record import record as write_record
from romul_sim.records.replay import (
    Fork,
    Step,
    fork,
    problem_of,
    simulated_loss,
    verify,
    with_settings,
)
from romul_workers.tasks.toys import TOYS

T = TypeVar("T")


def record(
    name: Name,
    to: Annotated[Path, typer.Option("--to", dir_okay=False, help="File to write the record to.")],
    every_s: Annotated[
        float, typer.Option(min=0.05, help="Interval at which the workers are read, in seconds.")
    ] = 1.0,
    redis: SearchUrl = None,
) -> None:
    """Record a run and its machines until it ends, for `romul replay` and `romul sim --trace`.

    A run that has already ended is recorded from its history. While the server does not answer,
    the command waits for it.
    """
    console = Console(stderr=True)

    async def run() -> int:
        async with following(name, redis) as followed:
            with console.status("recording") as shown:
                asked = _Asked(followed, name, console)
                return await write_record(
                    asked.answer, name, to, every_s, lambda n: shown.update(f"recording: {n} lines")
                )

    lines = asyncio.run(run())
    echo(f"{to}: {lines} lines of history")


class _Asked:
    """Requests of a search's server, which may be away for a while, or end with its local run.

    Args:
        followed: the search.
        name: the search's name.
        console: shows that there is no answer.
    """

    def __init__(self, followed: Followed, name: str, console: Console) -> None:
        self._followed = followed
        self._name = name
        self._console = console
        self._silent = False

    async def answer(self, request: Callable[[Store], Awaitable[T]], /) -> T:
        """The server's answer, however long it takes.

        Raises:
            StoreUnavailableError: the local run of the search has ended before the search.
        """
        followed = self._followed
        found = await followed.look_to_the_end(request, self._say)
        if followed.ended is not None:
            statuses = await followed.store.experiments()
            if statuses.get(self._name) not in ENDED:
                raise followed.ended
        self._silent = False
        return found

    def _say(self, why: str) -> None:
        if not self._silent:
            self._console.print(f"{why}; trying again", soft_wrap=True)
        self._silent = True


def replay(
    file: Annotated[Path, typer.Argument(help="Record written by `romul record`.")],
    check: Annotated[
        bool,
        typer.Option(
            "--verify", help="Only verify that the same events lead to the same decisions."
        ),
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="Setting to change: a key of the declaration, or a constant of the optimizer "
            "(repeatable).",
        ),
    ] = None,
    problem: Annotated[
        str | None,
        typer.Option(
            help="With --set: simulate this toy problem on the recorded machines, instead of the "
            f"run's own. One of {', '.join(TOYS)}."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="With --set: number of simulations per variant.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Replay a recorded run's decisions: verify them, or compare them under other settings."""
    found = read_record(file)
    verified = verify(found)
    facts: dict[str, Any] = verified.as_json()
    if verified.parting is None and changes and not check:
        if problem is not None and problem not in TOYS:
            raise typer.BadParameter(f"{problem!r} is not one of {', '.join(TOYS)}")
        facts |= _forked(found, changes, problem, seeds, as_json=as_json)
    elif not as_json:
        _say_verified(facts, verified.parting)
    if as_json:
        echo_json(facts)
    if verified.parting is not None:
        raise typer.Exit(EXPERIMENT_FAILED)


def _say_verified(facts: dict[str, Any], parting: Step | None) -> None:
    if parting is None:
        echo(f"{facts['events']} events, {facts['trials']} trials: all decisions are identical")
        return
    echo(f"the decisions differ after {facts['events']} events:")
    for title in ("recorded", "replayed"):
        for line in facts[title]:
            echo(f"  {title}: {json.dumps(line)}")


def _forked(
    found: Record, changes: list[str], problem: str | None, seeds: int, *, as_json: bool
) -> dict[str, Any]:
    forked = fork(found, changes)
    toy = problem or problem_of(found.experiment)
    if toy is not None:
        logging.getLogger("romul").setLevel(logging.ERROR)
        other = with_settings(found.experiment, changes)
        for title, experiment in (("recorded", found.experiment), ("forked", other)):
            forked.outcomes[title] = [
                simulated_loss(found, experiment, toy, seed) for seed in range(seeds)
            ]
    facts = forked.as_json()
    if not as_json:
        _say_forked(forked, facts, toy, seeds)
    return facts


def _say_forked(forked: Fork, facts: dict[str, Any], toy: str | None, seeds: int) -> None:
    echo(
        f"{forked.changed} of {forked.decisions} decisions would differ, each made from the "
        "recorded population"
    )
    if forked.parting is not None:
        echo(f"the first of them, at {forked.parting.event.at_ms} ms:")
        for title in ("recorded", "forked"):
            for line in map(from_json, facts["parting"][title]):
                if isinstance(line, TrialCreated):
                    echo(
                        f"  {title}: trial {line.trial} from {line.parent}, "
                        f"{json.dumps(line.hyperparameters)}, {line.why.get('rule')}"
                    )
    if toy is None:
        echo("the results of trials that were never trained are unknown (see --problem)")
    else:
        echo(
            f"{toy} on the recorded machines, median of {seeds}: best {facts['best_recorded']:.6g} "
            f"with the recorded settings, {facts['best_forked']:.6g} with the changed ones"
        )
