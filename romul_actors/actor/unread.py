"""The end of a search that this version cannot read: written by another one, or damaged."""

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
"""What is raised where a search's declaration or its slots cannot be read."""
MOST = 4_096
"""Most entries that are looked through for a request."""


async def stop_unread(store: ActorStore, actor: str, name: str, nonce: str) -> SearchStopped | None:
    """Stop a search without reading it, if an operator asks for that.

    All else that waits, and all slots, stay as they are: an actor that can read them may come.

    Args:
        store: where it is.
        actor: this actor's name.
        name: the search's.
        nonce: makes the next version unique.

    Returns:
        The line of history; None: no stop was requested, or another actor was faster.
    """
    outstanding = await store.outstanding(name)
    if not any(map(_stop_of, outstanding.inbox)):
        return None
    # An actor may have died with it.
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
