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
    Beat,
    Commit,
    DeadLetter,
    Entry,
    Glance,
    Lease,
    Output,
    Outstanding,
    Stored,
)

__all__ = [
    "ActorStore",
    "Beat",
    "CatalogStore",
    "Commit",
    "DeadLetter",
    "Entry",
    "Glance",
    "Lease",
    "OperatorStore",
    "Output",
    "Outstanding",
    "QueueStore",
    "ReaderStore",
    "Store",
    "Stored",
    "WorkerStore",
]
