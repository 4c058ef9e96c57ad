"""The interface of stores, by the roles of SECURITY.md: reader, worker, actor and operator.

A store moves bytes and texts and decides nothing. It guarantees the following, which one suite of
contract tests checks for every kind of store: a commit is applied completely or not at all, and
only if the stored version is the one it was decided on; an entry is settled once; a lease belongs
to one worker at a time.

Code that needs only one role should use the class of that role. Its methods are those that a user
of the server with that role may call (`romul_actors.store.acl`).
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
    """The methods of all roles: find experiments and read their declarations."""

    @abstractmethod
    async def experiments(self) -> dict[str, str]:
        """The status of every experiment that this user may read, by name, sorted by name."""

    @abstractmethod
    async def spec(self, name: str) -> str:
        """The declaration of an experiment, as JSON text.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
        """

    @abstractmethod
    async def protocol(self, name: str) -> str:
        """The protocol version of an experiment's actor; empty if none is stored."""

    @abstractmethod
    async def reported(self, name: str) -> int:
        """The number of results counted so far; 0 if there is no such experiment."""

    @abstractmethod
    async def check(self) -> list[str]:
        """Check the store's configuration.

        Returns:
            Warnings, each with the remedy after "; ".

        Raises:
            StoreError: the store is unreachable, or its configuration would lose data.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class ReaderStore(CatalogStore):
    """The methods of a reader: read everything, change nothing."""

    @abstractmethod
    async def load(self, name: str) -> Stored:
        """A snapshot of the whole population.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
        """

    @abstractmethod
    async def history(
        self, name: str, after: str = "0", count: int = 1000
    ) -> list[tuple[str, str]]:
        """Up to `count` lines after the id `after`, oldest first, as pairs of id and JSON text."""

    @abstractmethod
    async def history_before(
        self, name: str, before: str = "", count: int = 1000
    ) -> list[tuple[str, str]]:
        """Up to `count` lines before the id `before`, or the latest ones, newest first."""

    @abstractmethod
    async def glance(
        self, name: str, fields: Sequence[str] = (), after: str = "", count: int = 0
    ) -> Glance:
        """The state of an experiment for display, in one round trip.

        Args:
            name: name of the experiment.
            fields: fields of each slot to read. Default: none.
            after: id after which to read the history. Default: read the latest lines.
            count: maximal number of history lines.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
        """

    @abstractmethod
    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[DeadLetter]:
        """Up to `count` dead letters after the id `after`, oldest first."""

    @abstractmethod
    async def outstanding(self, name: str) -> Outstanding:
        """All trials and inbox entries at one version, whether they have been read or not.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
        """

    @abstractmethod
    async def outputs(self, name: str, trial: str) -> list[Output]:
        """The output of the attempts of a trial that is still stored, oldest first."""

    @abstractmethod
    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        """The presence of each worker, with `age_ms` since its latest heartbeat."""

    async def ages(self, name: str) -> dict[str, int]:
        """Milliseconds since the latest heartbeat, for each worker that serves the experiment."""
        present = (await self.workers(name)).items()
        return {worker: seen["age_ms"] for worker, seen in present if serves(seen)}

    @abstractmethod
    async def leases(self, name: str) -> dict[str, str]:
        """The worker of each leased trial, by entry id."""

    @abstractmethod
    async def depths(self, name: str) -> dict[str, int]:
        """Number of entries in `inbox`, `trials` (including offers), `history` and `dead`."""

    @abstractmethod
    async def affinity(self, name: str) -> AffinityCounts:
        """Statistics of offers and warm restores."""

    @abstractmethod
    async def holds(self, name: str, worker: str) -> str:
        """The checkpoint that a worker has in memory, by its last report; empty if none."""


class QueueStore(CatalogStore):
    """The methods of workers, actors and operators: send messages, and end leases."""

    @abstractmethod
    async def send(self, name: str, body: bytes) -> None:
        """Put a message into the inbox.

        Raises:
            UnknownExperimentError: there is no experiment of that name.
        """

    @abstractmethod
    async def settle(
        self, lease: Lease, slot: int, token: str, body: bytes, hold: Hold | None = None
    ) -> bool | None:
        """End a lease and put a message into the inbox, once.

        Args:
            lease: the lease.
            slot: index of the slot that the trial belongs to.
            token: identifies this end of the lease, so that a repeated call returns True again. Its
                form is "TRIAL#ATTEMPT KIND ...", where KIND is "result" for a result.
            body: the message.
            hold: what the worker now has in memory; None if it does not report this.

        Returns:
            True if the message was accepted, now or by an earlier call. False if the lease was
            lost. None if this is unknown, because the slot has advanced since: an earlier call,
            whose answer was lost, may have ended the lease.
        """

    @abstractmethod
    async def dead_letter(
        self, name: str, queue: str, unusable: Sequence[tuple[str, str, bytes]]
    ) -> int:
        """Move entries of the inbox or of a stream of leases to the dead letters.

        Args:
            name: name of the experiment.
            queue: "inbox", or the stream of a lease.
            unusable: (id, reason, body) of each entry.

        Returns:
            The number of entries that were still pending and have been moved.
        """

    @abstractmethod
    async def present(self, names: Sequence[str], worker: str, presence: Mapping[str, Any]) -> None:
        """Record the presence of a worker without a trial; an empty presence removes the worker.

        An experiment whose data does not allow this is skipped with a warning.
        """


class WorkerStore(QueueStore):
    """The methods of a worker: lease trials, send heartbeats, report, collect garbage."""

    @abstractmethod
    async def lease(
        self, names: Sequence[str], worker: str, block_ms: int, holding: Sequence[str] = ()
    ) -> Lease | None:
        """Lease one trial, from the first of `names` that has one.

        An experiment whose queue cannot be read is skipped with a warning if there are others.

        Args:
            names: names of the experiments.
            worker: name of the worker.
            block_ms: longest wait, in milliseconds.
            holding: those of `names` in which the worker has a checkpoint in memory; trials
                offered to it there come first.
        """

    @abstractmethod
    async def put_back(self, lease: Lease) -> bool:
        """Queue a leased trial again, as if it had not been leased; False if the lease was lost."""

    @abstractmethod
    async def beat(self, lease: Lease, slot: int, trial: str, presence: Mapping[str, Any]) -> Beat:
        """Record a heartbeat of a worker with a trial. A lost lease is not restored."""

    @abstractmethod
    async def write_output(self, name: str, output: Output) -> None:
        """Store the output of a task; do nothing if there is no such experiment."""

    @abstractmethod
    async def garbage(self, name: str, older_ms: int, count: int) -> list[str]:
        """Up to `count` checkpoints that have been garbage for `older_ms`, oldest first.

        They stay listed until `forget`, so that another worker removes them if this one dies.
        """

    @abstractmethod
    async def forget(self, name: str, checkpoints: Sequence[str]) -> None:
        """Take checkpoints that were removed off the list of garbage."""


class ActorStore(ReaderStore, QueueStore):
    """The methods of an actor: read the inbox, commit decisions, end lost leases."""

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
        """Apply a commit and settle its entries.

        A trial whose parent is in the memory of an idle worker is offered to that worker alone,
        until `release_offers`.

        Returns:
            None if nothing was applied, because the stored version is another one, or an entry is
            no longer pending with this actor.
        """

    @abstractmethod
    async def release_offers(self, name: str) -> int | None:
        """Put trials into the queue that were offered to a worker and not taken in time.

        Returns:
            Milliseconds until the next release is due; None if there are no offers.
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
        """Claim leases without a heartbeat for `idle_ms`; the actor must settle them.

        Offers to `worker`, and offers that are due, are put into the queue as well.

        Args:
            name: name of the experiment.
            actor: name of the actor.
            idle_ms: time without a heartbeat, in milliseconds.
            count: maximal number of leases.
            worker: claim leases of this worker only. Default: of all workers.
            version: claim nothing if the name now belongs to a later experiment than this version.

        Returns:
            Pairs of a lease and the worker that lost it.
        """

    @abstractmethod
    async def forget_readers(self, name: str, idle_ms: int, reader: str = "") -> None:
        """Remove actors and workers from the store's list of a queue's readers, if it has one.

        Only readers without pending entries that have not read for `idle_ms` are removed; with
        `reader`, only that one.
        """

    @abstractmethod
    async def set_fault(self, name: str, fault: str) -> None:
        """Store why an experiment cannot be served; an empty `fault` means that it can be.

        The version is unchanged. If there is no such experiment, nothing happens.
        """


class OperatorStore(ReaderStore, QueueStore):
    """The methods of an operator: create and remove experiments, handle dead letters."""

    @abstractmethod
    async def create(self, name: str, spec: str, submitted: bytes) -> None:
        """Create an experiment: its declaration, its queues and its first inbox entry.

        Raises:
            ExperimentExistsError: there is already an experiment of that name.
            StoreError: only some of the keys of such an experiment exist.
        """

    @abstractmethod
    async def remove(self, name: str) -> bool:
        """Remove an experiment and all its data; False if there is none."""

    @abstractmethod
    async def resubmit(self, name: str, dead: DeadLetter) -> bool:
        """Put a dead letter back into its queue; False if it is gone, or has no valid queue."""

    @abstractmethod
    async def drop(self, name: str, ids: Sequence[str]) -> int:
        """Delete dead letters; return the number deleted."""


class Store(OperatorStore, ActorStore, WorkerStore):
    """All roles together: the state of all experiments. Every method is atomic."""
