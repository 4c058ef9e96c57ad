"""Where the state of experiments lives: a Redis or Valkey server, or memory for the simulator."""

from romul_actors.store.base import (
    Commit,
    DeadLetter,
    Entry,
    Glance,
    Lease,
    Output,
    Outstanding,
    Store,
    Stored,
)

__all__ = [
    "Commit",
    "DeadLetter",
    "Entry",
    "Glance",
    "Lease",
    "Output",
    "Outstanding",
    "Store",
    "Stored",
]
