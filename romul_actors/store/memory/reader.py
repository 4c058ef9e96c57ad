"""The reader's methods of the store in memory."""

from collections.abc import Sequence
from typing import Any

from romul_actors.protocol.statuses import ENDED
from romul_actors.store.memory.catalog import MemoryCatalog
from romul_actors.store.roles import ReaderStore
from romul_actors.store.values import (
    MAX_UNDECIDED,
    MOST_UNDECIDED,
    REFUSES,
    AffinityCounts,
    DeadLetter,
    Glance,
    Output,
    Outstanding,
    Stored,
)


class MemoryReader(MemoryCatalog, ReaderStore):
    """Reads all data of experiments."""

    async def load(self, name: str) -> Stored:
        found = self.memory.find(name)
        slots = [dict(found.slots.get(i, {})) for i in range(int(found.meta["slots"]))]
        return Stored(found.token, dict(found.meta), slots)

    async def history(
        self, name: str, after: str = "0", count: int = 1000
    ) -> list[tuple[str, str]]:
        lines = self.memory.look(name).history
        later = [(str(i), line) for i, line in lines if i > int(after)]
        return later[:count]

    async def history_before(
        self, name: str, before: str = "", count: int = 1000
    ) -> list[tuple[str, str]]:
        lines = self.memory.look(name).history
        earlier = [(str(i), line) for i, line in lines if not before or i < int(before)]
        return earlier[: -count - 1 : -1]

    async def glance(
        self, name: str, fields: Sequence[str] = (), after: str = "", count: int = 0
    ) -> Glance:
        found = self.memory.find(name)
        slots = range(int(found.meta["slots"])) if fields else ()
        lines = [(str(i), line) for i, line in found.history]
        if found.meta.get("status") in ENDED:
            waiting = found.inbox.all()
            late = [*waiting[:MOST_UNDECIDED], *waiting[MOST_UNDECIDED:][-MOST_UNDECIDED:]]
            undecided = [(x.at_ms, x.body[:MAX_UNDECIDED]) for x in late]
        else:
            undecided = [(x.at_ms, b"") for x in found.inbox.all()[:1]]
        if after:
            lines = [(i, line) for i, line in lines if int(i) > int(after)][:count]
        return Glance(
            now_ms=self.memory.now_ms(),
            meta={**found.meta, "spec": found.spec},
            slots=[{f: found.slots.get(i, {}).get(f, "") for f in fields} for i in slots],
            workers=await self.workers(name),
            depths=await self.depths(name),
            history=lines if after else lines[len(lines) - min(count, len(lines)) :],
            undecided=undecided,
        )

    async def dead(self, name: str, after: str = "0", count: int = 1000) -> list[DeadLetter]:
        dead = self.memory.look(name).dead
        return [message for message in dead if int(message.id) > int(after)][:count]

    async def outstanding(self, name: str) -> Outstanding:
        found = self.memory.find(name)
        trials, inbox = ([x.body for x in queue.all()] for queue in (found.trials, found.inbox))
        trials += [offer.body for offer in found.offers.values()]
        return Outstanding(found.token, trials, inbox)

    async def outputs(self, name: str, trial: str) -> list[Output]:
        return [output for output in self.memory.look(name).outputs if output.trial == trial]

    async def workers(self, name: str) -> dict[str, dict[str, Any]]:
        found, now = self.memory.look(name), self.memory.now_ms()
        return {
            worker: {**presence, "age_ms": max(0, now - seen_ms)}
            for worker, (seen_ms, presence) in found.workers.items()
        }

    async def ages(self, name: str) -> dict[str, int]:
        found, now = self.memory.look(name), self.memory.now_ms()
        # Called at each tick for all workers: faster than `serves`.
        return {
            worker: now - ms if ms < now else 0
            for worker, (ms, presence) in found.workers.items()
            if presence.get("state") != REFUSES
        }

    async def affinity(self, name: str) -> AffinityCounts:
        return self.memory.look(name).affinity

    async def holds(self, name: str, worker: str) -> str:
        hold = self.memory.look(name).holds.get(worker)
        return "" if hold is None else hold.checkpoint

    async def leases(self, name: str) -> dict[str, str]:
        pending = self.memory.queue(name, "trials").pending
        return {str(i): item.holder or "" for i, item in sorted(pending.items())}

    async def depths(self, name: str) -> dict[str, int]:
        found = self.memory.look(name)
        return {
            "inbox": len(found.inbox),
            "trials": len(found.trials) + len(found.offers),
            "history": len(found.history),
            "dead": len(found.dead),
        }
