"""Where the state of experiments lives: a Redis or Valkey server, or memory for the simulator."""

from romul_actors.store.roles import (
    ActorStore,
    CatalogStore,
    OperatorStore,
    QueueStore,
    ReaderStore,
    Store,
    WorkerStore,
)
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
    LineText,
    Output,
    Outstanding,
    Stored,
)

__all__ = [
    "ActorStore",
    "AffinityCounts",
    "Beat",
    "CatalogStore",
    "Commit",
    "Committed",
    "DeadLetter",
    "Entry",
    "Glance",
    "Hold",
    "Lease",
    "LineText",
    "OperatorStore",
    "Output",
    "Outstanding",
    "QueueStore",
    "ReaderStore",
    "Store",
    "Stored",
    "WorkerStore",
]
