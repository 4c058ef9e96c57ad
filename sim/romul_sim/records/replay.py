"""Replays a recorded run: the same events through the core, with the same or other settings."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import median
from typing import Any

from pydantic import ValidationError

from romul_actors.actor.standalone import decided
from romul_actors.core import history
from romul_actors.core.events import (
    Control,
    Event,
    Expired,
    Failed,
    Released,
    Result,
    Stamped,
    Submitted,
    Tick,
)
from romul_actors.core.history import (
    Line,
    ReportStale,
    TrialCreated,
    TrialFailed,
    TrialReleased,
    TrialReported,
    to_json,
)
from romul_actors.core.optimizers import make
from romul_actors.core.population import Population
from romul_actors.errors import ExperimentError, RomulError
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.mistakes import mistakes_of
from romul_actors.protocol.plan import settings
from romul_sim.churn.scenario import Policy, Scenario
from romul_sim.churn.simulation import simulate
from romul_sim.cluster.training import Durations
from romul_sim.records.beginning import at_the_beginning, in_space, settings_at
from romul_sim.records.record import Record, RecordError
from romul_workers.tasks.toys import TOYS

_TOYS = "romul_workers.tasks.toys"


def event_of(line: Line) -> Event | None:
    """The event that caused a line of history; None: the line is part of a decision."""
    match line:
        case history.SearchStarted():
            return Submitted()
        case history.TimePassed():
            return Tick(workers=line.workers)
    return _control_of(line) or _report_of(line)


_ACTIONS: Mapping[type[Line], str] = {
    history.SearchPaused: "pause",
    history.SearchResumed: "resume",
    history.SearchStopped: "stop",
    history.SlotPinned: "pin",
    history.SlotUnpinned: "unpin",
    history.WorkerDrained: "drain",
    history.BoundsChanged: "bounds",
    history.SearchExtended: "extend",
    history.SearchChanged: "change",
}
"""Actions of an operator, by the line of history that a successful action causes."""


def _control_of(line: Line) -> Control | None:
    """The operator's action that caused a line; None: it was another event."""
    action: Any = _ACTIONS.get(type(line))
    by, given = getattr(line, "by", None) or "", dict[str, Any]()
    match line:
        case history.SlotPinned() | history.SlotUnpinned():
            given = {"slot": line.slot}
        case history.WorkerDrained():
            given = {"worker": line.worker}
        case history.BoundsChanged() | history.ControlIgnored():
            given = {"parameter": line.parameter, "low": line.low or 0.0, "high": line.high or 0.0}
        case history.SearchExtended():
            given = {"steps": line.steps}
        case history.SearchChanged():
            given = {"population": line.population, "constants": line.constants}
    if isinstance(line, history.ControlIgnored):
        action, given = line.action, {**given, **line.given}
    return None if action is None else Control(action=action, by=by, **given)


def _report_of(line: Line) -> Event | None:
    """The worker's report that caused a line; None: it was another event."""
    match line:
        case TrialReported():
            return Result(
                **_token(line),
                value=line.value,
                checkpoint=line.checkpoint,
                seconds=line.seconds,
                metrics=line.metrics,
                in_effect=line.in_effect,
                left_out=line.left_out,
                provenance=line.provenance,
            )
        case TrialFailed(reason="lost"):
            return Expired(**_token(line))
        case TrialFailed():
            ended: dict[str, Any] = {"reason": line.reason, "message": line.message}
            return Failed(**_token(line), **ended, seconds=line.seconds)
        case TrialReleased():
            ended = {"reason": line.reason, "message": line.message, "at": line.at}
            return Released(
                **_token(line), **ended, checkpoint=line.checkpoint, seconds=line.seconds
            )
        case ReportStale():
            # The content of the report does not matter, because its attempt did not count.
            return Released(**_token(line), reason="preempted")
    return None


def _token(line: TrialReported | TrialFailed | TrialReleased | ReportStale) -> dict[str, Any]:
    """The fields of a report that identify the attempt of a line."""
    return {
        "trial": line.trial,
        "slot": int(line.trial.partition("-")[0]),
        "attempt": line.attempt,
        "worker": line.worker,
    }


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a record, decided again.

    Attributes:
        event: the event, with its time.
        before, after: the population before and after the event.
        decided: the lines of history that the event causes now.
        recorded: the lines of history that it caused when it was recorded.
    """

    event: Stamped
    before: Population
    after: Population
    decided: Sequence[Line]
    recorded: Sequence[Line]

    @property
    def same(self) -> bool:
        """Whether the decided lines are exactly the recorded ones."""
        return _texts(self.decided) == _texts(self.recorded)


def steps(record: Record) -> Iterator[Step]:
    """Decide a record's events again, in their order.

    Raises:
        RecordError: the first line of history does not belong to an event.
    """
    population = Population(settings=settings(at_the_beginning(record), stored=True))
    groups: list[list[Line]] = []
    for line in record.lines:
        if event_of(line) is not None:
            groups.append([line])
        elif not groups:
            raise RecordError(f"the record begins with {line.event!r}, which is not an event")
        else:
            groups[-1].append(line)
    for group in groups:
        event = event_of(group[0])
        if event is None:  # pragma: no cover (it began the group)
            continue
        stamped = Stamped(event, group[0].at_ms)
        decision = decided(population, stamped)
        yield Step(stamped, population, decision.population, list(decision.history), group)
        population = decision.population


@dataclass(slots=True)
class Verified:
    """The result of a replay.

    Attributes:
        events, trials: number of events and trials that were compared.
        parting: the first event with other decisions; None: there is none.
    """

    events: int = 0
    trials: int = 0
    parting: Step | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = {
            "events": self.events,
            "trials": self.trials,
            "same": self.parting is None,
        }
        if self.parting is not None:
            values["recorded"] = [to_json(line) for line in self.parting.recorded]
            values["replayed"] = [to_json(line) for line in self.parting.decided]
        return values


def verify(record: Record) -> Verified:
    """Decide a record again, up to the first decision that differs."""
    found = Verified()
    for step in steps(record):
        found.events += 1
        found.trials += sum(isinstance(line, TrialCreated) for line in step.recorded)
        if not step.same:
            found.parting = step
            break
    return found


def with_settings(experiment: Experiment, changes: Sequence[str]) -> Experiment:
    """The experiment with changes such as "steps=10", "optimizer.factor=0.5" or "factor=0.5".

    Raises:
        ExperimentError: there is no such setting, or its value is invalid.
    """
    declared = experiment.model_dump(mode="json")
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise ExperimentError(f"--set {change!r}: not of the form setting=value")
        *outer, last = keys_of(path, experiment)
        place: Any = declared
        for key in outer:
            place = place.get(key) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ExperimentError(f"--set {change!r}: no setting {path!r}")
        if outer == ["optimizer"] and last != "name":
            place = place["options"]
        try:
            place[last] = json.loads(value)
        except ValueError:
            place[last] = value
    try:
        changed = Experiment.model_validate(declared)
        settings(changed)
    except ValidationError as error:
        raise ExperimentError(f"--set: {mistakes_of(error, Experiment)[0]}") from None
    return changed


def keys_of(path: str, experiment: Experiment) -> list[str]:
    """Keys that lead to a setting; "optimizer." may be left out before a constant of it."""
    keys = path.split(".")
    # `romul change --set` also allows this.
    is_constant = path not in Experiment.model_fields and path in _constants(
        experiment.optimizer.name
    )
    if keys[:2] == ["optimizer", "options"] and len(keys) > 2:  # noqa: PLR2004
        # The stored form; in a declaration, options are beside the name.
        del keys[1]
    return ["optimizer", *keys] if is_constant else keys


def _constants(optimizer: str) -> set[str]:
    """Names of an optimizer's constants; empty for an unknown optimizer."""
    try:
        made: Any = make(optimizer, {})
    except RomulError:
        return set()
    return {constant.name for constant in fields(made)}


@dataclass(slots=True)
class Fork:
    """What other settings would have decided.

    Attributes:
        decisions: number of trials that were decided, each from the recorded population.
        changed: number of these that would have been different.
        sooner: number of additional trials that would have been decided at the same events.
        parting: the first event with other decisions; None: there is none.
        forked: the lines of history at that event with the other settings.
        outcomes: best losses by seed, with the recorded and with the other settings, if the problem
            can be simulated.
    """

    decisions: int = 0
    changed: int = 0
    sooner: int = 0
    parting: Step | None = None
    forked: Sequence[Line] = ()
    outcomes: dict[str, list[float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = {
            "decisions": self.decisions,
            "changed": self.changed,
            "sooner": self.sooner,
        }
        if self.parting is not None:
            values["parting"] = {
                "at_ms": self.parting.event.at_ms,
                "recorded": [to_json(line) for line in self.parting.decided],
                "forked": [to_json(line) for line in self.forked],
            }
        for name, finals in self.outcomes.items():
            values[f"best_{name}"] = median(finals)
        return values


def fork(record: Record, changes: Sequence[str]) -> Fork:
    """Decide each event twice from the recorded population: as recorded, and with other settings.

    The recorded population is used each time, because the results after a different decision are
    unknown: those trials were never trained.

    Args:
        record: the run.
        changes: the changed settings, see `with_settings`; all others are as they were at each
            event.

    Raises:
        ExperimentError: there is no such setting, or its value is invalid.
    """
    found = Fork()
    # Validated with the original declaration; only the named settings are taken from it below.
    other = settings(with_settings(at_the_beginning(record), changes))
    named = [keys_of(change.partition("=")[0], record.experiment) for change in changes]
    for step in steps(record):
        core = settings_at(step.before.settings, other, named)
        before = in_space(step.before, core.space, step.event.at_ms)
        decision = decided(replace(before, settings=core), step.event)
        forked = list(decision.history)
        here, there = _texts(_created(step.decided)), _texts(_created(forked))
        found.decisions += len(here)
        same = len({*here} & {*there})
        found.changed += len(here) - same
        found.sooner += max(0, len(there) - len(here))
        if found.parting is None and same < max(len(here), len(there)):
            found.parting, found.forked = step, forked
    return found


def _created(lines: Iterable[Line]) -> list[Line]:
    return [line for line in lines if isinstance(line, TrialCreated)]


def _texts(lines: Iterable[Line]) -> list[str]:
    """Lines as JSON with sorted keys, so that tuples and lists are the same."""
    return [json.dumps(to_json(line), sort_keys=True) for line in lines]


def problem_of(experiment: Experiment) -> str | None:
    """Name of the toy problem of an experiment; None: it has another task."""
    name = experiment.constants.get("problem")
    return str(name) if experiment.module == _TOYS and name in TOYS else None


def simulated_loss(record: Record, experiment: Experiment, problem: str, seed: int) -> float:
    """Best loss of a simulated search with an experiment's settings on the recorded machines."""
    elastic = experiment.elasticity
    simulated = simulate(
        Scenario(
            record.changes,
            problem=problem,
            optimizer=experiment.optimizer.model_dump(),
            population=experiment.population,
            steps=experiment.steps,
            durations=Durations(record.trial_s or 60.0),
            policy=Policy(
                min=elastic.min,
                max=elastic.max,
                per_worker=elastic.per_worker,
                second_copy=elastic.second_copy,
                lease_s=experiment.timeouts.lease_s,
            ),
            seed=seed,
        )
    )
    best = simulated.figures["best"]
    return float("inf") if best is None else float(best)
