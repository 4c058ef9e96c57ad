"""Decodes the entries of an inbox into events."""

import logging
from collections.abc import Sequence

from romul_actors.core.events import Event
from romul_actors.errors import MessageError
from romul_actors.protocol.messages import decode_event
from romul_actors.store import ActorStore, Entry

log = logging.getLogger("romul.actor")


async def decode(
    store: ActorStore, name: str, entries: Sequence[Entry]
) -> list[tuple[Entry, Event]]:
    """Decode entries. Entries that cannot be decoded become dead letters."""
    usable: list[tuple[Entry, Event]] = []
    unusable: list[tuple[str, str, bytes]] = []
    for entry in entries:
        try:
            usable.append((entry, decode_event(entry.body)))
        except MessageError as error:
            unusable.append((entry.id, str(error), entry.body))
    if unusable:
        log.warning("%s: %d unusable messages, the first: %s", name, len(unusable), unusable[0][1])
        await store.dead_letter(name, "inbox", unusable)
    return usable
