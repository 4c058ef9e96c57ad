"""What a store does, by the roles of SECURITY.md: reader, worker, actor and operator.

A store moves bytes and texts and decides nothing. Its promises, held by one contract test suite
for every kind of store: a commit is applied whole or not at all, and only against the version that
it was decided on; an entry is settled once; a lease belongs to one worker at a time.

Code that needs only one role names that role: what it may call is then what its user of the server
may do (`romul_actors.store.acl`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from romul_actors.store.values import (
    AffinityCounts,
    Beat,
    Commit,
    Committed,
    DeadLetter,
    Entry,
    Glance,
    Hold,
    Lease,
    Output,
    Outstanding,
    Stored,
    serves,
)


class CatalogStore(ABC):
    """What every role may do: find experiments and read their declarations."""

    @abstractmethod
    async def experiments(self) -> dict[str, str]:
        """Status of every experiment that this user may read, by name, sorted by name."""

    @abstractmethod
    async def spec(self, name: str) -> str:
        """Declaration of an experiment.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    @abstractmethod
    async def protocol(self, name: str) -> str:
        """Version of the messages of an experiment's actor; "": none is stored."""

    @abstractmethod
    async def reported(self, name: str) -> int:
        """How many results of an experiment count so far; 0 when there is none of that name."""

    @abstractmethod
    async def check(self) -> list[str]:
        """Warnings about the store's settings, each with what to do after "; ".

        Raises:
            StoreError: it is unreachable, or set up so that it would lose data.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class ReaderStore(CatalogStore):
    """What a reader may do: look at everything and change nothing."""

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
    async def history_before(
        self, name: str, before: str = "", count: int = 1000
    ) -> list[tuple[str, str]]:
        """Up to `count` entries before the id `before` ("": the latest), newest first."""

    @abstractmethod
    async def glance(
        self, name: str, fields: Sequence[str] = (), after: str = "", count: int = 0
    ) -> Glance:
        """What a screen shows, in one round trip.

        Args:
            name: the experiment.
            fields: which fields of each slot to read; none: the slots are not read.
            after: history after this id; "": the latest.
            count: how many lines of history at most.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    @abstractmethod
    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[DeadLetter]:
        """Up to `count` dead letters after the id `after`, oldest first."""

    @abstractmethod
    async def outstanding(self, name: str) -> Outstanding:
        """All trials and inbox entries, read or not, at one version.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    @abstractmethod
    async def outputs(self, name: str, trial: str) -> list[Output]:
        """What the attempts of a trial printed, oldest first, as far as it is still kept."""

    @abstractmethod
    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        """Presence of each worker, with `age_ms` since its latest heartbeat."""

    async def ages(self, name: str) -> dict[str, int]:
        """Time since the latest heartbeat of each worker that serves it, in milliseconds."""
        present = (await self.workers(name)).items()
        return {worker: seen["age_ms"] for worker, seen in present if serves(seen)}

    @abstractmethod
    async def leases(self, name: str) -> dict[str, str]:
        """Worker of each leased trial, by entry id."""

    @abstractmethod
    async def depths(self, name: str) -> dict[str, int]:
        """Number of entries in `inbox`, `trials` (offered ones too), `history` and `dead`."""

    @abstractmethod
    async def affinity(self, name: str) -> AffinityCounts:
        """How many restores were warm, and what targeted claims cost."""

    @abstractmethod
    async def holds(self, name: str, worker: str) -> str:
        """The checkpoint that a worker said it holds; "": none."""


class QueueStore(CatalogStore):
    """What workers, actors and operators may all do: put messages in, and end leases."""

    @abstractmethod
    async def send(self, name: str, body: bytes) -> None:
        """Put a message into the inbox.

        Raises:
            UnknownExperimentError: there is none of that name.
        """

    @abstractmethod
    async def settle(
        self, lease: Lease, slot: int, token: str, body: bytes, hold: Hold | None = None
    ) -> bool | None:
        """End a lease with a message to the inbox, once.

        Args:
            lease: the lease.
            slot: the slot that the trial belongs to.
            token: "TRIAL#ATTEMPT KIND ...", KIND being "result" for a result. It identifies this
                end of the lease: the same call repeated returns True again.
            body: the message.
            hold: what the worker has in its memory from here on; None: it never said.

        Returns:
            False when the lease was lost before. None: not known, as the slot has gone on since; an
            earlier call, whose answer was lost, may have ended the lease.
        """

    @abstractmethod
    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        """Move entries of `inbox` or of a stream of leases to the dead letters.

        Args:
            name: the experiment.
            queue: "inbox", or a lease's stream.
            unusable: (id, reason, body) each.

        Returns:
            How many of them were still pending.
        """

    @abstractmethod
    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        """Record that a worker is there without a trial; an empty presence: that it left.

        An experiment whose data do not admit it is left out, with a warning.
        """


class WorkerStore(QueueStore):
    """What a worker may do: lease trials, keep them by heartbeats, report, collect garbage."""

    @abstractmethod
    async def lease(
        self, names: Sequence[str], worker: str, block_ms: int, holding: Sequence[str] = ()
    ) -> Lease | None:
        """Take one trial, from the first of `names` that has one; wait at most `block_ms`.

        An experiment whose queue cannot be read is left out, with a warning, if there are others.

        Args:
            names: the experiments.
            worker: its name.
            block_ms: longest wait.
            holding: those of `names` in which the worker holds a checkpoint; what is offered to it
                there comes first.
        """

    @abstractmethod
    async def put_back(self, lease: Lease) -> bool:
        """Queue a leased trial again, as if it had never been leased; False: the lease was lost."""

    @abstractmethod
    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        """Record a heartbeat of the worker and its trial; a lost lease is not taken back."""

    @abstractmethod
    async def write_output(self, name: str, output: Output) -> None:
        """Keep what a task printed; nothing happens if there is no such experiment."""

    @abstractmethod
    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        """Up to `count` checkpoints that have been garbage for `older_ms`, oldest first.

        They stay listed until `forget`, so that another worker removes them if this one dies.
        """

    @abstractmethod
    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        """Take checkpoints off the list of garbage: they were removed."""


class ActorStore(ReaderStore, QueueStore):
    """What a decision actor may do: read the inbox, commit decisions, end lost leases."""

    @abstractmethod
    async def read(
        self, names: Sequence[str], actor: str, count: int, block_ms: int
    ) -> list[Entry]:
        """Take up to `count` new entries of each inbox; wait at most `block_ms` for the first."""

    @abstractmethod
    async def pending(self, name: str, actor: str, count: int) -> list[Entry]:
        """Inbox entries that this actor has read and not settled."""

    @abstractmethod
    async def take_over(self, name: str, actor: str, idle_ms: int, count: int) -> list[Entry]:
        """Claim inbox entries that another actor has left pending for `idle_ms`."""

    @abstractmethod
    async def commit(self, name: str, actor: str, commit: Commit) -> Committed | None:
        """Apply a commit and settle its entries; None: nothing was applied.

        None: the version has moved on, or an entry is no longer pending with this actor. A trial
        whose parent an idle worker holds is offered to that worker alone, until `release`.
        """

    @abstractmethod
    async def release(self, name: str) -> int | None:
        """Put trials into the queue whose worker did not take them in its time.

        Returns:
            Milliseconds until the next one is to be released; None: nothing is offered.
        """

    @abstractmethod
    async def tick(self, name: str, body: bytes, every_ms: int) -> bool:
        """Put a tick into the inbox, at most once in `every_ms`."""

    @abstractmethod
    async def sweep(
        self,
        name: str,
        actor: str,
        idle_ms: int,
        count: int,
        worker: str | None = None,
        version: str = "",
    ) -> list[tuple[Lease, str]]:
        """Claim leases without a heartbeat for `idle_ms`: (lease, the worker that lost it).

        The actor then holds the leases, and settles them. With `worker`, that worker's only; with
        `version`, none of a later experiment of that name. What is offered to that worker, or is
        to be released, goes into the queue.
        """

    @abstractmethod
    async def forget_readers(self, name: str, idle_ms: int, reader: str = "") -> None:
        """Forget actors and workers that read a queue, if the store lists them.

        Those alone that have nothing of it and have not read it for `idle_ms`; with `reader`, that
        one alone.
        """

    @abstractmethod
    async def set_fault(self, name: str, fault: str) -> None:
        """Store, as the field `fault`, why an experiment cannot be served; "": it can.

        Nothing happens if there is no such experiment. Its version stays as it is.
        """


class OperatorStore(ReaderStore, QueueStore):
    """What an operator may do: create and remove experiments, send requests, sort dead letters."""

    @abstractmethod
    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        """Create an experiment: its declaration, its queues and its first inbox entry.

        Raises:
            ExperimentExistsError: there is one of that name.
            StoreError: some of its keys are there, without the others.
        """

    @abstractmethod
    async def remove(self, name: str) -> bool:
        """Remove an experiment and all its data; False when there is none."""

    @abstractmethod
    async def resubmit(self, name: str, dead: DeadLetter) -> bool:
        """Put a dead letter back into its queue; False if it is gone, or came from no queue."""

    @abstractmethod
    async def drop(self, name: str, ids: Sequence[str]) -> int:
        """Remove dead letters for good; how many there were."""


class Store(OperatorStore, ActorStore, WorkerStore):
    """All roles in one: the state of all experiments; every method is one atomic step."""
