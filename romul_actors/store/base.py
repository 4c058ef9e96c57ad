"""What a store does, whatever it is made of.

A store moves bytes and texts and decides nothing. Its promises, held by one contract test suite
for all of them: a commit happens whole or not at all, and only against the version that it was
decided on; an entry is settled once; a lease belongs to one worker at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_DEAD = 250_000
"""Dead messages kept; the oldest go first."""
MAX_LOGS = 2_000
"""Attempts whose output is kept; the oldest go first."""
MAX_LOG = 8_000
"""Longest output of an attempt that is kept, in characters: its end."""
MAX_DEAD_BODY = 1_024
"""Longest part of a dead message that is kept, in bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An inbox entry, pending with the actor that read it."""

    experiment: str
    id: str
    at_ms: int
    """When it arrived, by the store's own clock."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Lease:
    """A trial in one worker's hands."""

    experiment: str
    id: str
    worker: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """An experiment's population as it was at one version."""

    version: str
    meta: Mapping[str, str]
    slots: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one batch of decisions changes, applied in one piece.

    Attributes:
        version: what it was decided on.
        nonce: makes the next version one that never was: a server that comes back from older data
            counts on from there, and a number alone would be used twice.
        entries: ids of the inbox entries that it answers.
        meta: fields of the experiment's own hash.
        slots: by index, fields of the slots' hashes.
        trials: messages for workers.
        history: JSON texts, oldest first.
        history_keep: how many history entries to keep, at the least.
        garbage: names of checkpoints that nobody can ask for any more.
    """

    version: str
    entries: Sequence[str]
    meta: Mapping[str, str] = field(default_factory=dict)
    slots: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    trials: Sequence[bytes] = ()
    history: Sequence[str] = ()
    history_keep: int = 200_000
    garbage: Sequence[str] = ()
    nonce: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody could use."""

    id: str
    origin: str
    """The queue that it came from: inbox or trials."""
    reason: str
    body: bytes
    """Its first MAX_DEAD_BODY bytes."""
    size: int
    """Its whole length; what was cut off cannot be tried again."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """All messages on the way, at one version."""

    version: str
    trials: Sequence[bytes]
    inbox: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Glance:
    """An experiment as a screen shows it, at one moment.

    Attributes:
        now_ms: the store's own time, in milliseconds since the epoch.
        meta: fields of the experiment's own hash, its declaration `spec` among them.
        slots: by index, those of a slot's fields that were asked for.
        workers: presence of each worker, with `age_ms` since it was last heard; `now_ms` where its
            entry does not say.
        depths: number of entries in `inbox`, `trials`, `history` and `dead`.
        history: (id, JSON text), oldest first.
    """

    now_ms: int
    meta: Mapping[str, str]
    slots: Sequence[Mapping[str, str]]
    workers: Mapping[str, Mapping[str, Any]]
    depths: Mapping[str, int]
    history: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Output:
    """What a task printed during an attempt."""

    trial: str
    attempt: int
    worker: str
    text: str


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker learns from its heartbeat."""

    kept: bool
    """Whether the trial is still its own."""
    status: str
    """The experiment's status; empty when there is no such experiment."""
    outdated: bool = False
    """Whether another copy of the trial has brought its result already."""


class Store(ABC):
    """State of all experiments; every method is one atomic step."""

    # -- experiments ----------------------------------------------------------------------------

    @abstractmethod
    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        """Create an experiment: its declaration, its queues and its first inbox entry.

        Raises:
            ExperimentExistsError: there is one of that name.
        """

    @abstractmethod
    async def remove(self, name: str) -> bool:
        """Remove an experiment with all it has; False when there is none."""

    @abstractmethod
    async def experiments(self) -> dict[str, str]:
        """Status of every experiment, by name, in order of names."""

    @abstractmethod
    async def spec(self, name: str) -> str:
        """Declaration of an experiment.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    @abstractmethod
    async def reported(self, name: str) -> int:
        """How many results of an experiment count so far; 0 when there is none of that name."""

    @abstractmethod
    async def load(self, name: str) -> Stored:
        """Snapshot of the whole population.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    @abstractmethod
    async def history(
        self, name: str, after: str = "0", count: int = 1000
    ) -> list[tuple[str, str]]:
        """Up to `count` entries after the id `after`, oldest first: (id, JSON text)."""

    @abstractmethod
    async def glance(
        self, name: str, fields: Sequence[str] = (), after: str = "", count: int = 0
    ) -> Glance:
        """What a screen shows, in one round trip.

        Args:
            name: the experiment.
            fields: of each slot; none: no slots are looked at.
            after: history after this id; "": the latest.
            count: how many lines of it, at most.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    @abstractmethod
    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[DeadLetter]:
        """Up to `count` messages that nobody could use after the id `after`, oldest first."""

    @abstractmethod
    async def resubmit(self, name: str, dead: DeadLetter) -> bool:
        """Put a dead message back into the queue that it came from; False if it is gone."""

    @abstractmethod
    async def drop(self, name: str, ids: Sequence[str]) -> int:
        """Remove dead messages for good; how many there were."""

    # -- decision actor -------------------------------------------------------------------------

    @abstractmethod
    async def send(self, name: str, body: bytes) -> None:
        """Put a message into the inbox."""

    @abstractmethod
    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        """Take up to `count` new entries of each inbox; wait for one at most `block_ms`."""

    @abstractmethod
    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        """Inbox entries that this actor has read and not settled."""

    @abstractmethod
    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        """Make inbox entries one's own that any actor has left pending for `idle_ms`."""

    @abstractmethod
    async def commit(self, name: str, actor: str, commit: Commit) -> str | None:
        """Apply a commit and settle its entries; the new version, or None with nothing applied.

        None: the version has moved on, or an entry is no longer pending with this actor.
        """

    @abstractmethod
    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        """Move entries of `inbox` or `trials`, (id, reason, body) each, to the dead ones.

        Returns:
            How many there still were.
        """

    @abstractmethod
    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        """Put a tick into the inbox, at most once in `every_ms`."""

    @abstractmethod
    async def sweep(
        self, name: str, actor: str, idle_ms: int, count: int, worker: str | None = None
    ) -> list[tuple[Lease, str]]:
        """Take leases not heard of for `idle_ms` from their workers: (lease, its last worker).

        The leases are then the actor's own, to be settled. With `worker`, those of that one only.
        """

    @abstractmethod
    async def outstanding(self, name: str) -> Outstanding:
        """All trials and inbox entries there are, read or not, at one version.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    # -- workers --------------------------------------------------------------------------------

    @abstractmethod
    async def lease(self, names: Sequence[str], worker: str, block_ms: int) -> Lease | None:
        """Take one trial, from the first of `names` that has one; wait at most `block_ms`."""

    @abstractmethod
    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        """Say that worker and trial are alive; a lease that was lost is not taken back."""

    @abstractmethod
    async def settle(self, lease: Lease, slot: int, token: str, body: bytes) -> bool:
        """End a lease with a message to the inbox, once.

        Args:
            lease: the lease.
            slot: the slot it is for.
            token: "TRIAL#ATTEMPT KIND ...", KIND being "result" for a result: what tells this
                end from any other; the same call again is True again.
            body: the message.

        Returns:
            False when the lease was lost before.
        """

    @abstractmethod
    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        """Say that a worker is there without a trial; an empty presence: that it left."""

    @abstractmethod
    async def write_output(self, name: str, output: Output) -> None:
        """Keep what a task printed; nothing happens if there is no such experiment."""

    @abstractmethod
    async def outputs(self, name: str, trial: str) -> list[Output]:
        """What the attempts of a trial printed, oldest first, as far as it is still kept."""

    @abstractmethod
    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        """Up to `count` checkpoints that have been garbage for `older_ms`, oldest first.

        They stay listed until `forget`: whoever dies in between leaves them to the next one.
        """

    @abstractmethod
    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        """Say that garbage was removed."""

    @abstractmethod
    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        """Presence of each worker, with `age_ms` since it was last heard."""

    async def ages(self, name: str) -> dict[str, int]:
        """How long ago each worker was last heard, in milliseconds."""
        return {worker: seen["age_ms"] for worker, seen in (await self.workers(name)).items()}

    @abstractmethod
    async def leases(self, name: str) -> dict[str, str]:
        """Worker of each trial entry in someone's hands, by entry id."""

    @abstractmethod
    async def depths(self, name: str) -> dict[str, int]:
        """Number of entries in `inbox`, `trials`, `history` and `dead`."""

    # -- the store itself -----------------------------------------------------------------------

    @abstractmethod
    async def check(self) -> list[str]:
        """Warnings about the store's settings.

        Raises:
            StoreError: it is unreachable, or set up so that it would lose data.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections."""
