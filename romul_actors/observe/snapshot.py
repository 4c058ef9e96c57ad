"""A population, from a program: a snapshot as plain values, and as pandas frames.

import romul_actors.observe.snapshot as inspect

seen = inspect.open("redis://127.0.0.1:6379/0", "mymodel")
seen.status, seen.best, seen.slots[3].hyperparameters
seen.trials_frame().groupby("slot")["value"].min()
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import from_json

from romul_actors.observe.lineage import read_history
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.experiment import from_json as experiment_from_json
from romul_actors.store import Glance, Store
from romul_actors.store.opening import open_store

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

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
"""What of a slot is looked at."""


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """A slot.

    Attributes:
        index, tier, status, step, trial, attempt, parent, checkpoint: see `romul_actors.core.slot`.
        copies: how many attempts of its trial are out.
        hyperparameters: of its current trial.
        value: metric of its latest trial that ended; None: none has, or it failed.
        value_step: that trial's step.
        pinned: whether an operator holds it.
        since_s: for how long it has had its status.
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
    """A worker.

    Attributes:
        name, host, pid: which.
        state: idle, training, draining, no room or failing.
        trial: what it trains; "" if nothing.
        at: where training stands, in the budget's unit, if the task says so.
        age_s: since it was last heard.
    """

    name: str
    host: str
    pid: int
    state: str
    trial: str
    at: float | None
    age_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An experiment at one moment.

    Attributes:
        experiment: its declaration.
        now_ms: the server's time, in milliseconds since the epoch.
        status, reason: see `romul_actors.core.population`.
        counts: trials `created`, `reported`, `failed`, `discarded`, `retried`.
        causes: how often attempts ended otherwise than well.
        best: metric, trial, checkpoint and hyperparameters of the best trial; empty: there is none.
        n_slots: how many there are.
        slots: by index, if they were looked at.
        workers: by name.
        depths: entries in the queues.
        history: its lines, oldest first, as far as they were asked for.
        last_id: of the last line; "" if there is none.
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
    history: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    last_id: str = ""

    @property
    def alive(self) -> list[WorkerSnapshot]:
        """Workers that were heard of within the lease."""
        return [w for w in self.workers if w.age_s < self.experiment.timeouts.lease_s]

    def slots_frame(self) -> "pd.DataFrame":
        """Slots, a row each; hyperparameters are columns of their own.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame([_row(asdict(slot), "hyperparameters") for slot in self.slots])

    def workers_frame(self) -> "pd.DataFrame":
        """Workers, a row each."""
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame([asdict(worker) for worker in self.workers])

    def history_frame(self) -> "pd.DataFrame":
        """Lines of history, a row each."""
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame(list(self.history))

    def trials_frame(self) -> "pd.DataFrame":
        """Trials, a row each, with hyperparameters and metrics as columns."""
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame(trial_rows(self.history))


def trial_rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Trials as flat rows: hyperparameters as "h.NAME", metrics as "m.NAME", never rescaled."""
    rows: dict[str, dict[str, Any]] = {}
    for line in lines:
        trial = line.get("trial", "")
        if line["event"] == "trial":
            rows[trial] = {
                "trial": trial,
                "slot": line["slot"],
                "step": line["step"],
                "parent": line["parent"],
                "rule": line["why"].get("rule", ""),
                "copied": line["why"].get("copied"),
                "decided_ms": line["at_ms"],
                "ended_ms": None,
                "value": None,
                "seconds": None,
                "attempt": None,
                "worker": None,
                "failed": "",
                **{f"h.{name}": value for name, value in line["hyperparameters"].items()},
            }
        elif line["event"] == "result" and trial in rows:
            rows[trial] |= {
                "ended_ms": line["at_ms"],
                **{key: line[key] for key in ("value", "seconds", "attempt", "worker")},
                **{f"m.{name}": value for name, value in line.get("metrics", {}).items()},
            }
        elif line["event"] == "failed" and not line["again"] and trial in rows:
            rows[trial] |= {"ended_ms": line["at_ms"], "failed": line["reason"]}
    return list(rows.values())


def _row(values: dict[str, Any], nested: str) -> dict[str, Any]:
    inner = values.pop(nested)
    return {**values, **{f"h.{name}": value for name, value in inner.items()}}


def read_glance(glance: Glance, experiment: Experiment | None = None) -> Snapshot:
    """Make a snapshot of what a store showed; `experiment` spares reading its declaration again."""
    meta = glance.meta
    experiment = experiment or experiment_from_json(meta["spec"])
    history = [from_json(line) for _, line in glance.history]
    counts = ("created", "reported", "failed", "discarded", "retried")
    return Snapshot(
        experiment=experiment,
        now_ms=glance.now_ms,
        status=meta["status"],
        reason=meta.get("reason", ""),
        counts={name: int(meta.get(name, 0)) for name in counts},
        causes=from_json(meta.get("causes") or "{}"),
        best=from_json(meta["best"]) if meta.get("best") else {},
        n_slots=int(meta.get("slots", 0)),
        slots=[
            _slot(i, row, experiment.metric, glance.now_ms) for i, row in enumerate(glance.slots)
        ],
        workers=[_worker(name, told) for name, told in sorted(glance.workers.items())],
        depths=glance.depths,
        history=history,
        last_id=glance.history[-1][0] if glance.history else "",
    )


def _slot(index: int, row: Mapping[str, str], metric: str, now_ms: int) -> SlotSnapshot:
    latest = from_json(row["latest"]) if row.get("latest") else {}
    return SlotSnapshot(
        index=index,
        tier=row["tier"],
        status=row["status"],
        step=int(row["step"]),
        trial=row["trial"],
        attempt=int(row["attempt"]),
        copies=len(from_json(row["live"])),
        hyperparameters=from_json(row["hyperparameters"]),
        value=latest.get(metric),
        value_step=latest.get("step"),
        parent=row["parent"] or None,
        checkpoint=row["checkpoint"] or None,
        pinned=row["pinned"] == "1",
        since_s=max(0.0, (now_ms - int(row["since_ms"])) / 1000),
    )


def _worker(name: str, told: Mapping[str, Any]) -> WorkerSnapshot:
    at = told.get("at")
    return WorkerSnapshot(
        name=name,
        host=str(told.get("host", "")),
        pid=int(told.get("pid", 0)),
        state=str(told.get("state", "")),
        trial=str(told.get("trial", "")),
        at=None if at is None else float(at),
        age_s=told["age_ms"] / 1000,
    )


async def snapshot(store: Store, name: str, lines: int = 0) -> Snapshot:
    """An experiment at one moment, in one round trip, with its latest lines of history.

    Raises:
        UnknownExperimentError: there is none of that name.
    """
    return read_glance(await store.glance(name, SLOT_FIELDS, count=lines))


async def full_snapshot(store: Store, name: str) -> Snapshot:
    """The same with its whole history."""
    seen = await snapshot(store, name)
    return replace(seen, history=await read_history(store, name))


def open(url: str, name: str) -> Snapshot:  # noqa: A001  (as a file is opened)
    """Look at an experiment with its whole history; also from inside a notebook.

    Args:
        url: of the server, see `romul_actors.store.connect`.
        name: the experiment's.

    Raises:
        UnknownExperimentError: there is none of that name.
        StoreUnavailableError: the server does not answer.
    """

    async def run() -> Snapshot:
        store = open_store(url)
        try:
            return await full_snapshot(store, name)
        finally:
            await store.close()

    return _in_a_thread(run())


def _in_a_thread(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine where a loop may be running already, as in a notebook."""
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(main))
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
