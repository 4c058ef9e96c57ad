"""Where the state of experiments lives: a Redis or Valkey server, or memory for the simulator."""

from romul_actors.store.base import Commit, Dead, Entry, Glance, Lease, Output, Store, Stored

__all__ = ["Commit", "Dead", "Entry", "Glance", "Lease", "Output", "Store", "Stored"]
