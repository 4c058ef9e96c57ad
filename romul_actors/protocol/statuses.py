"""Statuses of a search that have a name together."""

ENDED = ("finished", "failed", "stopped")
"""Statuses of a search that does not go on by itself."""
OVER = ("finished", "stopped")
"""Those of them that only more steps continue. The workers of a search that has failed stay: it may
be resumed."""
