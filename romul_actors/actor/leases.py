"""How a lease ends whose worker is no longer alive: its trial is reported as expired."""

import logging

from romul_actors.core.events import Expired
from romul_actors.errors import MessageError
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.store import ActorStore

log = logging.getLogger("romul.actor")


async def sweep(
    store: ActorStore,
    name: str,
    actor: str,
    idle_ms: int,
    count: int,
    worker: str | None = None,
    version: str = "",
) -> int:
    """End leases that got no heartbeat for `idle_ms`.

    Args:
        store: where the leases are.
        name: the experiment.
        actor: the actor's own name.
        idle_ms: how long a lease lasts without a heartbeat.
        count: how many leases to end, at most.
        worker: whose leases; None: any worker's.
        version: of the experiment; leases of a later one of that name go on. "": of any.

    Returns:
        How many there were.
    """
    swept = await store.sweep(name, actor, idle_ms, count, worker, version)
    for lease, last in swept:
        try:
            trial = decode_trial(lease.body)
        except MessageError as error:
            await store.dead_letter(name, lease.stream, [(lease.id, str(error), lease.body)])
            continue
        log.warning("%s: trial %s: %s sends no heartbeats any more", name, trial.id, last)
        expired = Expired(trial=trial.id, slot=trial.slot, attempt=trial.attempt, worker=last)
        token = f"{trial.id}#{trial.attempt} expired"
        await store.settle(lease, trial.slot, token, encode(expired))
    return len(swept)
