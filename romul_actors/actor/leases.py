"""Ends the leases of dead workers: their trials are reported as expired."""

import logging
from collections.abc import Sequence

from romul_actors.core.events import Expired
from romul_actors.errors import MessageError
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.store import ActorStore, Lease

log = logging.getLogger("romul.actor")


async def expire(store: ActorStore, name: str, swept: Sequence[tuple[Lease, str]]) -> int:
    """Report trials as expired whose leases got no heartbeats.

    Args:
        store: store that holds the leases.
        name: name of the experiment.
        swept: the leases, now claimed by the actor, each with the worker that held it.

    Returns:
        The number of leases.
    """
    for lease, last in swept:
        try:
            trial = decode_trial(lease.body)
        except MessageError as error:
            await store.dead_letter(name, lease.stream, [(lease.id, str(error), lease.body)])
            continue
        log.warning("%s: trial %s: worker %s no longer sends heartbeats", name, trial.id, last)
        expired = Expired(trial=trial.id, slot=trial.slot, attempt=trial.attempt, worker=last)
        token = f"{trial.id}#{trial.attempt} expired"
        await store.settle(lease, trial.slot, token, encode(expired))
    return len(swept)
