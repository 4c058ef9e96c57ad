"""One record for each trial, made from the lines of history about it.

Pure functions over typed lines. A record says what was decided and how the trial ended, whatever
happened to its attempts in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from romul_actors.core.history import Line, TrialCreated, TrialFailed, TrialReported
from romul_actors.core.space import Space


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial.

    Attributes:
        slot, step: the trial's slot and step.
        parent: id of the trial whose checkpoint it continues from; None if it starts from scratch.
        hyperparameters: those that it trained with.
        value: the user's metric, with the user's sign; None if there is no result yet.
        checkpoint: name of the checkpoint of its result, which may have been removed since; "" if
            there is none.
        metrics: other figures that the task returned.
        why: the optimizer's reasons, for people.
        seed: seed of its random numbers.
        created_ms: time of its decision, in milliseconds since the epoch.
        ended_ms: time of its result, or when it was given up; None if neither has happened.
        seconds, attempt, worker: of the attempt with the result; None if there is none.
        failed: why it was given up; "" if it was not.
        provenance: code, packages and machine of its result; empty if unknown.
    """

    slot: int
    step: int
    parent: str | None
    hyperparameters: Mapping[str, Any]
    value: float | None = None
    checkpoint: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    why: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    created_ms: int = 0
    ended_ms: int | None = None
    seconds: float | None = None
    attempt: int | None = None
    worker: str | None = None
    failed: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The trial's id, "SLOT-STEP"."""
        return f"{self.slot}-{self.step}"

    @property
    def rule(self) -> str:
        """Name of the optimizer's rule that decided it; "" if unknown."""
        return str(self.why.get("rule", ""))

    @property
    def copied_from(self) -> int | None:
        """The slot whose checkpoint was copied; None if the slot continues from its own."""
        slot: int | None = self.why.get("copied")
        return slot


def trials(lines: Sequence[Line]) -> dict[str, TrialRecord]:
    """Every trial by its id, in the order in which they were decided.

    A trial whose decision is no longer in history has no record.
    """
    records: dict[str, TrialRecord] = {}
    # A worker sends its provenance only when it changes.
    provenance: dict[str, Mapping[str, str]] = {}
    for line in lines:
        match line:
            case TrialCreated():
                records[line.trial] = _created(line)
            case TrialReported() if line.trial in records:
                comes_from = line.provenance or provenance.get(line.worker, {})
                provenance[line.worker] = comes_from
                records[line.trial] = _reported(records[line.trial], line, comes_from)
            case TrialFailed(again=False) if line.trial in records:
                records[line.trial] = replace(
                    records[line.trial], ended_ms=line.at_ms, failed=line.reason
                )
    return records


def _created(line: TrialCreated) -> TrialRecord:
    return TrialRecord(
        slot=line.slot,
        step=line.step,
        parent=line.parent,
        hyperparameters=line.hyperparameters,
        why=line.why,
        seed=line.seed,
        created_ms=line.at_ms,
    )


def _reported(
    record: TrialRecord, line: TrialReported, provenance: Mapping[str, str]
) -> TrialRecord:
    return replace(
        record,
        value=line.value,
        checkpoint=line.checkpoint,
        metrics=line.metrics,
        ended_ms=line.at_ms,
        seconds=line.seconds,
        attempt=line.attempt,
        worker=line.worker,
        provenance=provenance,
    )


def best_of_last_step(
    found: Iterable[TrialRecord], direction: Literal["minimize", "maximize"]
) -> TrialRecord | None:
    """The best trial of the last step that a trial has ended with a result; None: no trial has."""
    sign = -1.0 if direction == "maximize" else 1.0
    ended = [(record, sign * record.value) for record in found if record.value is not None]
    last = max((record.step for record, _ in ended), default=0)
    of_last = [(loss, record.slot, record) for record, loss in ended if record.step == last]
    return min(of_last)[2] if of_last else None


def origins(found: Mapping[str, TrialRecord]) -> list[dict[str, Any]]:
    """Each combination of code, packages and machine, with the number of its results."""
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for record in found.values():
        if record.provenance:
            key = tuple(record.provenance.items())
            counts[key] = counts.get(key, 0) + 1
    return [{"trials": count, **dict(key)} for key, count in counts.items()]


def trial_rows(lines: Sequence[Line], space: Space | None = None) -> list[dict[str, Any]]:
    """Trials as flat rows: hyperparameters as "h.NAME", metrics as "m.NAME", never rescaled.

    With `space`, each element of a list has its own column: "h.NAME[0]". A hyperparameter that is
    inactive in a trial has no column in its row. Code, packages and machine of a result are
    "p.NAME".
    """
    return [_row(record, space) for record in trials(lines).values()]


def _row(record: TrialRecord, space: Space | None) -> dict[str, Any]:
    values = record.hyperparameters
    return {
        "trial": record.id,
        "slot": record.slot,
        "step": record.step,
        "parent": record.parent,
        "rule": record.rule,
        "copied": record.copied_from,
        "decided_ms": record.created_ms,
        "ended_ms": record.ended_ms,
        "value": record.value,
        "seconds": record.seconds,
        "attempt": record.attempt,
        "worker": record.worker,
        "failed": record.failed,
        **{f"h.{name}": x for name, x in (space.by_axis(values) if space else values).items()},
        **{f"m.{name}": value for name, value in record.metrics.items()},
        **{f"p.{name}": text for name, text in record.provenance.items()},
    }


def left_out(lines: Iterable[Line]) -> dict[str, str]:
    """Types of returned values that are not figures, by name; the first line counts."""
    found: dict[str, str] = {}
    for line in lines:
        if isinstance(line, TrialReported):
            found = {**line.left_out, **found}
    return found
