"""A population at one moment: a snapshot as plain values.

Users' programs get one from `romul.open`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from romul_actors.core.history import Line
from romul_actors.observe.stored_history import read_history, read_line
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.experiment import from_json as experiment_from_json
from romul_actors.protocol.messages import request_of
from romul_actors.protocol.plan import left_out
from romul_actors.protocol.statuses import ENDED
from romul_actors.protocol.stored_fields import StoredFields, finite, table, whole
from romul_actors.store import REFUSES, Glance, ReaderStore

SLOT_FIELDS = (
    "status",
    "tier",
    "step",
    "trial",
    "attempt",
    "live",
    "hyperparameters",
    "latest",
    "parent",
    "checkpoint",
    "pinned",
    "since_ms",
)
"""Fields of a slot that a snapshot reads."""
COUNTS = ("created", "reported", "failed", "discarded", "retried")
REFUSAL_S = 30.0
"""How long a refusal counts; a worker repeats it about every ten seconds."""
LOST = "lost"
"""State of a worker that has been silent for too long, whatever its last state was."""
LARGEST = 1e300
"""Larger numbers in a worker's entry are not shown."""


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """A slot at one moment.

    Attributes:
        index, tier, status, step, trial, attempt, parent, checkpoint: see `romul_actors.core.slot`.
        copies: number of live attempts of its trial.
        hyperparameters: those of its current trial.
        value: metric of its latest trial that ended; None if none has, or if that one failed.
        value_step: that trial's step.
        pinned: whether an operator pinned it.
        since_s: for how long it has had its status, in seconds.
    """

    index: int
    tier: str
    status: str
    step: int
    trial: str
    attempt: int
    copies: int
    hyperparameters: Mapping[str, Any]
    value: float | None
    value_step: int | None
    parent: str | None
    checkpoint: str | None
    pinned: bool
    since_s: float


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """A worker at one moment, as its own heartbeats describe it.

    Attributes:
        name, host, pid: name, host and process id.
        state: idle, training, storing, draining, no room, no storage, failing, or "refuses" if it
            does not serve the experiment.
        why: why it refuses; "" if it does not.
        trial: the trial that it trains; "" if none.
        storing: the trial, or two trials separated by a space, whose checkpoints it stores
            meanwhile; "" if none.
        at: progress of training in the unit of the budget, if the task reports it.
        age_s: seconds since its last heartbeat; None if its entry does not say.
    """

    name: str
    host: str
    pid: int
    state: str
    trial: str
    at: float | None
    age_s: float | None
    storing: str = ""
    why: str = ""

    @property
    def in_hand(self) -> str:
        """Its trials, as text."""
        return ", ".join(filter(None, (self.trial, self.storing and f"storing {self.storing}")))

    def alive_within(self, seconds: float) -> bool:
        """Whether its last heartbeat is more recent than `seconds` ago."""
        return self.age_s is not None and self.age_s < seconds


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An experiment at one moment.

    Attributes:
        experiment: its declaration.
        now_ms: the server's time, in milliseconds since the epoch.
        status, reason: see `romul_actors.core.population`; the fault is part of the reason.
        counts: trials `created`, `reported`, `failed`, `discarded`, `retried`.
        causes: number of lost attempts by reason.
        best: metric, trial, checkpoint and hyperparameters of the best trial; empty if none.
        n_slots: number of slots.
        slots: by index; empty if they were not read.
        workers: in the order of their names.
        depths: number of entries in each queue.
        history: the lines that were read, oldest first.
        last_id: id of the last line; "" if there is none.
        fault: why an actor cannot serve it; "" if there is no such fault.
        left_out: options of its optimizer that do not count, see `romul_actors.protocol.plan`.
        undecided_s: how long the oldest event has waited for a decision, in seconds; 0 if none
            waits. In a search that has ended, only operators' requests count, since late reports
            need no decision.
    """

    experiment: Experiment
    now_ms: int
    status: str
    reason: str
    counts: Mapping[str, int]
    causes: Mapping[str, int]
    best: Mapping[str, Any]
    n_slots: int
    slots: Sequence[SlotSnapshot]
    workers: Sequence[WorkerSnapshot]
    depths: Mapping[str, int]
    history: Sequence[Line] = field(default=(), repr=False)
    last_id: str = ""
    fault: str = ""
    left_out: Sequence[str] = ()
    undecided_s: float = 0.0

    @property
    def ended(self) -> int:
        """Number of trials that have ended, with a result or given up."""
        return self.counts["reported"] + self.counts["failed"]

    @property
    def total(self) -> int:
        """Total number of trials; it changes with the number of slots."""
        if self.status == "finished":
            return self.counts["created"]
        return max(self.experiment.n_trials, self.counts["created"])

    @property
    def alive(self) -> list[WorkerSnapshot]:
        """Workers that serve it, with a heartbeat within the last lease."""
        lease_s = self.experiment.timeouts.lease_s
        return [w for w in self.workers if w.state != REFUSES and w.alive_within(lease_s)]

    def state_of(self, worker: WorkerSnapshot) -> str:
        """A worker's state, or that it is lost."""
        lease_s = self.experiment.timeouts.lease_s
        there = worker.alive_within(REFUSAL_S if worker.state == REFUSES else lease_s)
        return worker.state if there else LOST

    @property
    def refusing(self) -> list[WorkerSnapshot]:
        """Live workers that do not serve it, for example because they may not import its task."""
        return [w for w in self.workers if w.state == REFUSES and w.alive_within(REFUSAL_S)]

    @property
    def refused(self) -> str:
        """Why no worker serves it, if all that are there refuse it; otherwise ""."""
        return self.refusing[0].why if self.refusing and not self.alive else ""

    @property
    def in_hand(self) -> Mapping[str, str]:
        """For each trial of a live worker, what the worker does with it: training or storing."""
        found = {w.trial: "training" for w in self.alive if w.trial}
        return found | {trial: "storing" for w in self.alive for trial in w.storing.split()}


def read_glance(glance: Glance, name: str = "") -> Snapshot:
    """Make a snapshot from a glance.

    Args:
        glance: what the store returned.
        name: the experiment's name, for an error if its declaration is missing.

    Raises:
        ExperimentError: this version cannot read its declaration.
        StoredDataError: a field of its hash, or of a slot's, holds what ROMUL never writes.
    """
    meta = glance.meta
    experiment = experiment_from_json(StoredFields.of_experiment(name, meta).text("spec"))
    own = StoredFields.of_experiment(experiment.name, meta)
    missing = left_out(experiment, own.text("status"), own.text("left_out", ""))
    return Snapshot(
        experiment=experiment,
        now_ms=glance.now_ms,
        status=own.text("status"),
        reason=own.reason(*missing),
        counts={name: own.count(name, "0") for name in COUNTS},
        causes=own.counts("causes"),
        best=own.best(experiment.metric),
        n_slots=own.count("slots"),
        slots=[
            _slot(
                i,
                StoredFields.of_slot(experiment.name, i, row),
                experiment.metric,
                glance.now_ms,
            )
            for i, row in enumerate(glance.slots)
        ],
        workers=[
            _worker(name, presence, glance.now_ms)
            for name, presence in sorted(glance.workers.items())
        ],
        depths=glance.depths,
        history=[read_line(experiment.name, entry, text) for entry, text in glance.history],
        last_id=glance.history[-1][0] if glance.history else "",
        fault=own.text("fault", ""),
        left_out=missing,
        undecided_s=_undecided_s(glance, own.text("status")),
    )


def _undecided_s(glance: Glance, status: str) -> float:
    """How long the oldest event that needs a decision has waited; 0 if none waits."""
    for at_ms, body in glance.undecided:
        if status not in ENDED or request_of(body) is not None:
            return max(0.0, (glance.now_ms - at_ms) / 1000)
    return 0.0


def _slot(index: int, row: StoredFields, metric: str, now_ms: int) -> SlotSnapshot:
    value, value_step = row.read(
        "latest",
        lambda text: _latest(text, metric) if text else (None, None),
        f"empty or the latest outcome as JSON, with step and {metric}",
        "",
    )
    return SlotSnapshot(
        index=index,
        tier=row.text("tier"),
        status=row.text("status"),
        step=row.count("step"),
        trial=row.text("trial"),
        attempt=row.count("attempt"),
        copies=len(row.whole_numbers("live")),
        hyperparameters=row.table("hyperparameters"),
        value=value,
        value_step=value_step,
        parent=row.name("parent"),
        checkpoint=row.name("checkpoint"),
        pinned=row.flag("pinned", "0"),
        since_s=max(0.0, (now_ms - row.count("since_ms")) / 1000),
    )


def _latest(text: str, metric: str) -> tuple[float | None, int]:
    latest = table(from_json(text))
    value = latest[metric]
    return None if value is None else finite(value), whole(latest["step"])


def _worker(name: str, presence: Mapping[str, Any], now_ms: int) -> WorkerSnapshot:
    """A worker from its presence, whose values may have any type, since workers write them."""
    age_ms = presence["age_ms"]
    return WorkerSnapshot(
        name=name,
        host=str(presence.get("host", "")),
        pid=int(_number(presence.get("pid")) or 0),
        state=str(presence.get("state", "")),
        trial=str(presence.get("trial", "")),
        at=_number(presence.get("at")),
        # If an entry has no time, the store counts its age from the epoch.
        age_s=age_ms / 1000 if age_ms < now_ms else None,
        storing=str(presence.get("storing", "")),
        why=str(presence.get("why", "")),
    )


def refusal_in_words(worker: WorkerSnapshot) -> str:
    """The name of a worker that does not serve an experiment, and why not."""
    return f"{worker.name}: {worker.why}"


def _number(value: Any) -> float | None:
    """A finite number that is not absurdly large; None for anything else."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric and abs(value) < LARGEST else None


def rank(value: float | None, index: int, *, maximize: bool) -> tuple[bool, float, int]:
    """A sort key of slots, the best first; slots without a value come last."""
    return value is None, (-1 if maximize else 1) * (value or 0.0), index


def age(seconds: float) -> str:
    """A duration in one unit, as text."""
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    minutes, hour = seconds / 60, 60
    return f"{minutes:.0f} min" if minutes < 2 * hour else f"{minutes / hour:.0f} h"


def moment(at_ms: int) -> str:
    """A time in UTC, as text.

    Args:
        at_ms: the time in milliseconds since the epoch.
    """
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        # Stored data may be damaged: no year has that number.
        return f"{at_ms} ms"


async def snapshot(store: ReaderStore, name: str) -> Snapshot:
    """Read an experiment in one round trip.

    Raises:
        UnknownExperimentError: there is no experiment of that name.
    """
    return read_glance(await store.glance(name, SLOT_FIELDS), name)


async def full_snapshot(store: ReaderStore, name: str) -> Snapshot:
    """Read an experiment with its whole history."""
    latest = await snapshot(store, name)
    return replace(latest, history=await read_history(store, name))
