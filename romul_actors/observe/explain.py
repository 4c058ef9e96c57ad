"""Why a trial was decided as it was: its rule, its hyperparameters' origins, and its attempts.

Pure functions over lines of history. The reasons are those that the optimizer recorded when it
decided the trial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from romul_actors.core.history import (
    Line,
    ReportStale,
    SecondCopyStarted,
    TrialFailed,
    TrialReleased,
    TrialReported,
    to_json,
)
from romul_actors.core.parameter import identity
from romul_actors.core.space import Space
from romul_actors.errors import UnknownTrialError
from romul_actors.observe.trial_records import TrialRecord, trials
from romul_actors.protocol.experiment import Experiment

AttemptLine = TrialReported | TrialFailed | TrialReleased | SecondCopyStarted | ReportStale
"""Lines about one attempt of a trial."""

_ATTEMPT_KEYS = (
    "event",
    "attempt",
    "worker",
    "reason",
    "message",
    "value",
    "seconds",
    "at_ms",
)
"""Fields of an attempt in the JSON output."""

_RULES = {
    "inherited": "begins from a copy of another search's checkpoint",
    "drawn": "drawn at the start, from a Latin hypercube or at random",
    "drawn anew": "a new draw, trained from scratch",
    "kept": "it continues with its own hyperparameters",
    "held": "it continues with its own hyperparameters, not being among the worst",
    "redrawn": "small steps from its base; some hyperparameters drawn anew, or nearly so",
    "mutated": "current-to-best/1: base + F1 (a - b) + F2 (best - base), and mostly small steps",
    "perturbed": "copied numbers were multiplied or drawn anew; choices mostly stay",
    "migrated": "weights of a sub-population that is compared more or less often",
    "bandit": "copied weights; hyperparameters with the largest decrease of the loss by a model",
    "pinned": "an operator pinned the slot: it continues unchanged",
    "joined": "it joined the running search",
    # In searches that an older version decided.
    "explored": "a small step in all directions from its base, for diversity",
    "probed": "one hyperparameter drawn anew, the others as in its base, for diversity",
}


@dataclass(frozen=True, slots=True)
class HyperparameterChange:
    """How one hyperparameter came to its value.

    Attributes:
        after: its value.
        before: its value in the parent; valid only if `compared`.
        compared: whether the parent is known.
        origin: "base" or "donor", "moved" or "drawn anew"; "" if history does not say.
        outside: whether it was out of bounds and brought back.
        guarded: whether the guard changed it, because its move would have lowered it.
        begins: whether it was inactive in the parent.
        off: whether it is inactive in this trial.
    """

    after: Any
    before: Any = None
    compared: bool = False
    origin: str = ""
    outside: bool = False
    guarded: bool = False
    begins: bool = False
    off: bool = False

    @property
    def changed(self) -> bool:
        """Whether it differs from the parent's value, in type or value."""
        return self.compared and (self.begins or identity(self.before) != identity(self.after))

    def as_json(self) -> dict[str, Any]:
        """JSON values; unknown ones have no key."""
        if self.off:
            return {"off": True}
        values: dict[str, Any] = {"after": self.after}
        if self.compared:
            values |= {"before": self.before, "changed": self.changed}
        if self.origin:
            values |= {"from": self.origin, "outside": self.outside}
        return values | ({"guarded": True} if self.guarded else {})


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one trial was decided as it was.

    Attributes:
        record: the trial, with all numbers of its decision in `record.why`.
        optimizer: name of the optimizer.
        seed: the search's seed.
        changes: by hyperparameter, or by element of a list.
        attempts: lines of history about its attempts, oldest first.
    """

    record: TrialRecord
    optimizer: str
    seed: int
    changes: Mapping[str, HyperparameterChange]
    attempts: Sequence[AttemptLine]

    @property
    def counter(self) -> dict[str, int]:
        """The seed and counters of its random numbers."""
        return {"seed": self.seed, "slot": self.record.slot, "step": self.record.step - 1}

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        record = self.record
        return {
            "trial": record.id,
            "slot": record.slot,
            "step": record.step,
            "at_ms": record.created_ms,
            "rule": record.rule,
            "optimizer": self.optimizer,
            "parent": record.parent,
            "copied_from": record.copied_from,
            "why": dict(record.why),
            "changes": {name: change.as_json() for name, change in self.changes.items()},
            "random": self.counter,
            "attempts": [_attempt(attempt) for attempt in self.attempts],
        }


def record_of(found: Mapping[str, TrialRecord], trial: str) -> TrialRecord:
    """The record of a trial.

    Raises:
        UnknownTrialError: there is none of that name.
    """
    if trial not in found:
        raise UnknownTrialError(
            f"history holds no trial {trial!r} (ids are SLOT-STEP, such as 3-12)"
        )
    return found[trial]


def explain(experiment: Experiment, lines: Sequence[Line], trial: str) -> Explanation:
    """Find out why a trial was decided as it was, and how its attempts ended.

    Raises:
        UnknownTrialError: history does not hold the trial.
    """
    found = trials(lines)
    record = record_of(found, trial)
    return Explanation(
        record=record,
        optimizer=experiment.optimizer.name,
        seed=experiment.seed,
        changes=_changes(experiment.search_space(), record, found.get(record.parent or "")),
        attempts=[x for x in lines if isinstance(x, AttemptLine) and x.trial == trial],
    )


def _changes(
    space: Space, record: TrialRecord, parent: TrialRecord | None
) -> dict[str, HyperparameterChange]:
    """Changes by coordinate; the optimizer's reasons give coordinates by index."""
    why, now = record.why, space.by_axis(record.hyperparameters)
    before = {} if parent is None else space.by_axis(parent.hyperparameters)
    taken, origins = why.get("crossover"), ("base", "donor")
    if "drawn" in why:
        taken, origins = why["drawn"], ("moved", "drawn anew")
    # A hyperparameter that belongs to the checkpoint never moves, whatever the optimizer recorded.
    moved = [taken is not None and axis.mutable for axis in space]
    return {
        axis.name: HyperparameterChange(
            after=now[axis.name],
            before=before.get(axis.name),
            compared=parent is not None,
            begins=parent is not None and axis.name not in before,
            origin=origins[bool(taken[i])] if taken is not None and moved[i] else "",
            outside=moved[i] and i in why.get("outside", ()),
            guarded=moved[i] and i in why.get("guarded", ()),
        )
        if axis.name in now
        else HyperparameterChange(after=None, off=True)
        for i, axis in enumerate(space)
    }


def _attempt(line: AttemptLine) -> dict[str, Any]:
    values = to_json(line)
    return {key: values[key] for key in _ATTEMPT_KEYS if key in values}


# -- in words -------------------------------------------------------------------------------------


def in_words(found: Explanation) -> list[str]:
    """An explanation as sentences."""
    record, counter = found.record, found.counter
    return [
        f"trial {record.id}: step {record.step} of slot {record.slot}",
        *reasons_in_words(record),
        *(f"  {change_in_words(name, change)}" for name, change in found.changes.items()),
        f"random numbers: seed {counter['seed']}, slot {counter['slot']}, step {counter['step']}",
        *map(attempt_in_words, found.attempts),
    ]


def reasons_in_words(record: TrialRecord) -> list[str]:
    """What a trial continues from, how its slot was compared, and the rule that followed."""
    if record.parent is None:
        begins = "it starts from scratch"
    elif record.copied_from is not None:
        begins = (
            f"slot {record.slot} took {_taken(record)}, and continues from trial {record.parent}"
        )
    else:
        begins = f"it continues from its own trial {record.parent}"
    return [begins, *_reasons(record)]


def _taken(record: TrialRecord) -> str:
    """What a slot took, and from which slots."""
    weights, vector = record.copied_from, record.why.get("hyperparameters_of")
    if vector is None or vector == weights:
        return f"the weights and hyperparameters of slot {weights}"
    if vector == record.slot:
        return f"the weights of slot {weights}, but not its hyperparameters"
    return f"the weights of slot {weights} and the hyperparameters of slot {vector}"


def _reasons(record: TrialRecord) -> list[str]:
    """How the slot was compared, and the rule that followed."""
    why, rule, words = record.why, record.rule, []
    if "rank" in why and why["pool"] == 1:
        return [f"rule: {rule}: no generation ended with that step, so there was no comparison"]
    if "rank" in why:
        words.append(
            f"{100 * why['rank']:.0f} % of the {why['known']} known results were better than "
            f"slot {record.slot}'s (a pool of {why['pool']} slots)"
        )
    words.append(f"rule: {rule}: {_RULES.get(rule, '')}".rstrip(": "))
    if "bar" in why:
        others = f"slot {why['leader']}" if "leader" in why else "the slots that search"
        words.append(
            f"its loss was no worse than {why['bar']:.4g}, the limit for giving up: it keeps pace "
            f"with {others}"
        )
    if rule == "mutated":
        # The history does not record the optimizer's constants with each decision.
        parts = [f"{name} = slot {why[name]}" for name in ("a", "b", "best") if name in why]
        parts += [f"{name} = {why[name]:.4g}" for name in ("F1", "F2") if name in why]
        words.append(", ".join(parts))
    return words


def change_in_words(name: str, change: HyperparameterChange) -> str:
    """How a hyperparameter came to its value."""
    if change.off:
        return f"{name} is inactive here"
    text = f"{name} = {_plain(change.after)}"
    if change.begins:
        text += ", which was inactive before"
    elif change.changed:
        text += f", was {_plain(change.before)}"
    elif change.compared:
        text += ", as before"
    if change.origin == "drawn anew" and not change.guarded:
        text += "; drawn anew, or more than halfway there"
    if change.outside:
        text += "; brought back from out of bounds"
    if change.guarded:
        text += "; guarded: it stays or rises while the guard holds"
    return text


def attempt_in_words(line: AttemptLine) -> str:
    """How an attempt ended, or that it started."""
    where = "" if isinstance(line, SecondCopyStarted) else f" on {line.worker}"
    how = line.reason if isinstance(line, TrialFailed | TrialReleased) else ""
    if isinstance(line, TrialFailed) and (said := last_line(line.message)):
        how += f": {said}"
    value = f" = {line.value:.6g}" if isinstance(line, TrialReported) else ""
    return f"attempt {line.attempt}{where}: {how or line.event}{value}"


def last_line(message: str) -> str:
    """The last line of a failure's message, which names the error: at most 300 characters."""
    return message.strip().rpartition("\n")[2].strip()[:300]


def _plain(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
