"""Stops a search that this version cannot read: written by another version, or damaged."""

from romul_actors.actor.timing import TAKE_OVER_MS
from romul_actors.core.events import Control
from romul_actors.core.history import SearchStopped, to_json
from romul_actors.errors import (
    ExperimentError,
    OptimizerError,
    PluginError,
    SpaceError,
    StoredDataError,
    UndecidableError,
)
from romul_actors.protocol.messages import request_of
from romul_actors.protocol.slot_codec import text
from romul_actors.store import ActorStore, Commit, LineText

UNREAD = (
    ExperimentError,
    OptimizerError,
    PluginError,
    SpaceError,
    StoredDataError,
    UndecidableError,
)
"""Exceptions that mean that the declaration or the slots of a search cannot be read."""
MOST = 4_096
"""Maximal number of entries that are searched for a request."""


async def stop_unread(store: ActorStore, actor: str, name: str, nonce: str) -> SearchStopped | None:
    """Stop a search without reading it, if an operator has requested it.

    Its slots and all other entries are left unchanged, for an actor that can read them.

    Args:
        store: store that holds the search.
        actor: name of this actor.
        name: name of the search.
        nonce: makes the next version unique.

    Returns:
        The new line of history; None if no stop was requested or another actor was faster.
    """
    outstanding = await store.outstanding(name)
    if not any(map(_stop_of, outstanding.inbox)):
        return None
    # The request may be pending with an actor that has died.
    await store.take_over(name, actor, TAKE_OVER_MS, MOST)
    waiting = [*await store.pending(name, actor, MOST), *await store.read([name], actor, MOST, 0)]
    asked = [(entry, request) for entry in waiting if (request := _stop_of(entry.body))]
    if not asked:
        return None
    entry, request = asked[0]
    line = SearchStopped(at_ms=entry.at_ms, by=request.by)
    commit = Commit(
        version=outstanding.version,
        nonce=nonce,
        entries=[entry.id],
        meta={
            "status": "stopped",
            "reason": f"stopped by {request.by}" if request.by else "stopped",
        },
        history=[LineText.of(line, text(to_json(line)))],
    )
    return line if await store.commit(name, actor, commit) is not None else None


def _stop_of(body: bytes) -> Control | None:
    request = request_of(body)
    return request if request is not None and request.action == "stop" else None
