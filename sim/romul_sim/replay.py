"""A recorded run decided again: the same events through the same core, or with other settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, cast

from pydantic import ValidationError

from romul_actors.core.decide import decide
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
from romul_actors.core.population import Population
from romul_actors.errors import ExperimentError
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.mistakes import faults_of
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import text
from romul_sim.cluster import Policy, Scenario, simulate
from romul_sim.fakes import Durations
from romul_sim.record import Record, RecordError
from romul_workers.tasks.toys import TOYS

_TOYS = "romul_workers.tasks.toys"


def event_of(line: Mapping[str, Any]) -> Event | None:
    """The event that a line of history tells of; None: the line tells of a decision."""
    by = line.get("by", "")
    match line["event"]:
        case "started":
            return Submitted()
        case "tick":
            return Tick(workers=line["workers"])
        case "pause" | "resume" | "stop" | "pin" | "unpin" | "drain" | "bounds" | "ignored":
            action = cast("Any", line.get("action", line["event"]))
            keys = ("slot", "worker", "parameter", "low", "high")
            return Control(action=action, by=by, **{k: line[k] for k in keys if k in line})
        case "result" | "failed" | "released" | "stale":
            return _report_of(line)
    return None


def _report_of(line: Mapping[str, Any]) -> Event:
    """What a worker reported."""
    token: dict[str, Any] = {
        "trial": line["trial"],
        "slot": int(line["trial"].partition("-")[0]),
        "attempt": line["attempt"],
        "worker": line["worker"],
    }
    reason, message = line.get("reason", "preempted"), line.get("message", "")
    if line["event"] == "result":
        return Result(
            **token,
            value=line["value"],
            checkpoint=line["checkpoint"],
            seconds=line["seconds"],
            metrics=line.get("metrics", {}),
            in_effect=line.get("in_effect", {}),
            left_out=line.get("left_out", {}),
        )
    if line["event"] == "failed":
        if reason == "lost":
            return Expired(**token)
        return Failed(**token, reason=reason, message=message, seconds=line.get("seconds", 0.0))
    return Released(
        **token,
        reason=reason,
        message=message,
        checkpoint=line.get("checkpoint"),
        at=line.get("at"),
        seconds=line.get("seconds", 0.0),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a record, folded again.

    Attributes:
        event: the event, with its time.
        before, after: the population.
        decided: lines of history that it led to now.
        recorded: those that it led to when it was recorded.
    """

    event: Stamped
    before: Population
    after: Population
    decided: Sequence[Mapping[str, Any]]
    recorded: Sequence[Mapping[str, Any]]

    @property
    def same(self) -> bool:
        """Whether both are the same, to the last bit."""
        return [text(line) for line in self.decided] == [text(line) for line in self.recorded]


def steps(record: Record) -> Iterator[Step]:
    """Fold a record's events again, as they were recorded.

    Raises:
        RecordError: its first line tells of no event.
    """
    population = Population(settings=settings(record.experiment))
    groups: list[list[Mapping[str, Any]]] = []
    for line in record.lines:
        if event_of(line) is not None:
            groups.append([line])
        elif not groups:
            raise RecordError(f"the record begins with {line['event']!r}, which is no event")
        else:
            groups[-1].append(line)
    for group in groups:
        event = event_of(group[0])
        if event is None:  # pragma: no cover (it began the group)
            continue
        stamped = Stamped(event, group[0]["at_ms"])
        decision = decide(population, stamped)
        yield Step(stamped, population, decision.population, decision.history, group)
        population = decision.population


@dataclass(slots=True)
class Verified:
    """What a replay found.

    Attributes:
        events, trials: how many.
        parting: the first event whose decisions are others; None: there is none.
    """

    events: int = 0
    trials: int = 0
    parting: Step | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        told: dict[str, Any] = {
            "events": self.events,
            "trials": self.trials,
            "same": self.parting is None,
        }
        if self.parting is not None:
            told["recorded"] = list(self.parting.recorded)
            told["replayed"] = list(self.parting.decided)
        return told


def verify(record: Record) -> Verified:
    """Decide a record again, up to the first decision that is another one."""
    found = Verified()
    for step in steps(record):
        found.events += 1
        found.trials += sum(line["event"] == "trial" for line in step.recorded)
        if not step.same:
            found.parting = step
            break
    return found


def with_settings(experiment: Experiment, changes: Sequence[str]) -> Experiment:
    """The experiment with "path=value" changed: "steps=10", "optimizer.truncation=0.3".

    Raises:
        ExperimentError: there is no such setting, or it must not have that value.
    """
    told = experiment.model_dump(mode="json")
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise ExperimentError(f"--set {change!r}: not of the form setting=value")
        *outer, last = path.split(".")
        place: Any = told
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
        changed = Experiment.model_validate(told)
        settings(changed)
    except ValidationError as error:
        raise ExperimentError(f"--set: {faults_of(error, Experiment)[0]}") from None
    return changed


@dataclass(slots=True)
class Fork:
    """What other settings would have decided.

    Attributes:
        decisions: trials that were decided, each from the recorded population.
        changed: how many of them would have been others.
        sooner: how many more would have been decided at the same events.
        parting: the first of those.
        forked: the lines that stand there instead.
        outcomes: best losses by seed, under the recorded and the other settings, where the problem
            can be simulated.
    """

    decisions: int = 0
    changed: int = 0
    sooner: int = 0
    parting: Step | None = None
    forked: Sequence[Mapping[str, Any]] = ()
    outcomes: dict[str, list[float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        told: dict[str, Any] = {
            "decisions": self.decisions,
            "changed": self.changed,
            "sooner": self.sooner,
        }
        if self.parting is not None:
            told["parting"] = {
                "at_ms": self.parting.event.at_ms,
                "recorded": list(self.parting.decided),
                "forked": list(self.forked),
            }
        for name, finals in self.outcomes.items():
            told[f"best_{name}"] = median(finals)
        return told


def fork(record: Record, other: Experiment) -> Fork:
    """Decide each event twice from the recorded population: as recorded, and with other settings.

    From the recorded one each time: what would have come after a different decision nobody knows,
    since its trials were never trained.
    """
    found, core = Fork(), settings(other)
    for step in steps(record):
        here = [line for line in step.decided if line["event"] == "trial"]
        decision = decide(replace(step.before, settings=core), step.event)
        there = [line for line in decision.history if line["event"] == "trial"]
        found.decisions += len(here)
        same = len({text(line) for line in here} & {text(line) for line in there})
        found.changed += len(here) - same
        found.sooner += max(0, len(there) - len(here))
        if found.parting is None and same < max(len(here), len(there)):
            found.parting, found.forked = step, decision.history
    return found


def problem_of(experiment: Experiment) -> str | None:
    """The toy problem that an experiment trains on, if it does."""
    name = experiment.constants.get("problem")
    return str(name) if experiment.module == _TOYS and name in TOYS else None


def outcome(record: Record, experiment: Experiment, problem: str, seed: int) -> float:
    """Best loss of a simulated search on the recorded machines, with an experiment's settings."""
    seconds = [line["seconds"] for line in record.lines if line["event"] == "result"]
    elastic = experiment.elasticity
    played = simulate(
        Scenario(
            record.changes,
            problem=problem,
            optimizer=experiment.optimizer.model_dump(),
            population=experiment.population,
            steps=experiment.steps,
            durations=Durations(max(1e-3, median(seconds)) if seconds else 60.0),
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
    best = played.told["best"]
    return float("inf") if best is None else float(best)
