"""Named groups of the statuses of a search."""

ENDED = ("finished", "failed", "stopped")
"""Statuses in which a search does not continue by itself."""
OVER = ("finished", "stopped")
"""Statuses from which only `extend` continues a search. A failed search is not among them: it may
be resumed, so its workers stay."""
