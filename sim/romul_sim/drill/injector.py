"""Injects the faults of a drill into real processes, files and queues."""

import asyncio
import contextlib
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgpack
from numpy.random import default_rng

from romul_actors.errors import StoreError
from romul_actors.observe.stored_population import read_population
from romul_actors.store.redis import RedisStore
from romul_sim.drill.processes import RESTART_S, Processes, Services, send, thaw, tree
from romul_sim.faults import Fault

WATCH_S = 1.0
"""How long a fault looks for a worker in a short-lived state, in seconds."""
DISK_BYTES = 64_000_000
PATIENCE_S = 60.0
"""How long a fault waits for a victim, in seconds; later faults are delayed by the same time."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder`; yields whether that was allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)  # noqa: S603
    except OSError:
        yield False
        return
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)  # noqa: S603, S607


class FaultInjector:
    """Injects the faults of a schedule.

    Args:
        checkpoints: the folder of all checkpoints.
        services: server and broker.
        processes: actors and workers.
        can_fill: whether the checkpoints' file system may be filled.

    Attributes:
        played, skipped: number of faults that struck and that did not, by kind.
    """

    def __init__(
        self, checkpoints: Path, services: Services, processes: Processes, *, can_fill: bool
    ) -> None:
        self._checkpoints = checkpoints
        self._services = services
        self._processes = processes
        self._can_fill = can_fill
        self._undoing: set[asyncio.Task[None]] = set()
        self.played: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    async def play(
        self, faults: Sequence[Fault], progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Inject all faults of a schedule, and wait until temporary ones are undone.

        Args:
            faults: the schedule.
            progress: called after each fault with the number of faults so far.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, fault in enumerate(faults, 1):
            await asyncio.sleep(max(0.0, began + fault.at_s - loop.time()))
            possible = self.possible(fault)
            done = possible and await self.inflict(fault)
            limit = loop.time() + PATIENCE_S
            # Try again if there is no victim yet or the server is not back. On a slow machine the
            # first checkpoint may take long.
            while possible and not done and loop.time() < limit:
                await asyncio.sleep(RESTART_S)
                began += RESTART_S
                done = await self.inflict(fault)
            (self.played if done else self.skipped)[fault.kind] += 1
            progress(number)
        await self.undo()

    async def undo(self) -> None:
        """Wait until all frozen processes have thawed and the disk is free again."""
        await asyncio.gather(*self._undoing, return_exceptions=True)

    def possible(self, fault: Fault) -> bool:
        """Whether this machine allows such a fault."""
        if fault.kind == "fill disk":
            return self._can_fill
        return fault.kind != "kill broker" or "broker" in self._services.urls

    async def inflict(self, fault: Fault) -> bool:
        """Inject a fault; returns False if there is no victim now."""
        what, _, victim = fault.kind.partition(" ")
        if victim in ("worker", "actor"):
            pid = self._processes.pick(victim, fault.pick)
            return pid is not None and self._strike(what, pid, fault.for_s)
        if victim in ("server", "broker"):
            await self._services.restart(victim, min(fault.for_s, 1.5))
            return True
        if fault.kind == "fill disk":
            await self._fill(fault.for_s)
            return True
        if victim in ("holder", "storer"):
            pid = await self._caught(victim)
            return pid is not None and self._strike(what, pid, fault.for_s)
        if fault.kind == "damage checkpoint":
            return await self._damage(fault.pick)
        return await self._send_garbage(fault.pick)

    def _strike(self, what: str, pid: int, for_s: float) -> bool:
        if what == "kill":
            send(pid, signal.SIGKILL)
        elif what == "terminate":
            send(pid, signal.SIGTERM)
        else:
            # Like a machine that freezes: all processes below it are frozen too.
            frozen = list(tree(pid))
            for each in frozen:
                send(each, signal.SIGSTOP)
            self._later(for_s, lambda: thaw(frozen))
        return True

    async def _caught(self, victim: str) -> int | None:
        """Process id of a worker in a short-lived state; None: there was none for `WATCH_S`.

        Args:
            victim: "holder": a worker to which trials may be offered; "storer": a worker with a
                second lease.
        """
        store = RedisStore(self._services.urls["server"])
        try:
            name = await _newest(store)
            limit = asyncio.get_running_loop().time() + WATCH_S
            while asyncio.get_running_loop().time() < limit:
                leases = Counter((await store.leases(name)).values())
                for worker, seen in (await store.workers(name)).items():
                    if victim == "storer":
                        found = leases[worker] == 2  # noqa: PLR2004
                    else:
                        found = not leases[worker] and bool(await store.holds(name, worker))
                    if found:
                        return int(seen["pid"])
        except (StoreError, ValueError, KeyError):
            pass
        finally:
            await store.close()
        return None

    def _later(self, seconds: float, do: Callable[[], object]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            do()

        task = asyncio.create_task(wait())
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)

    async def _fill(self, for_s: float) -> None:
        """Fill the file system of the checkpoints completely."""
        filler = self._checkpoints / ".filler"

        def fill() -> None:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 65_536)

        await asyncio.to_thread(fill)
        self._later(min(for_s, 2.0), lambda: filler.unlink(missing_ok=True))

    async def _damage(self, pick: float) -> bool:
        """Change one byte of a checkpoint that a trial is about to continue from."""
        store = RedisStore(self._services.urls["server"])
        try:
            experiment, population = await read_population(store, await _newest(store))
        except (StoreError, ValueError):
            return False
        finally:
            await store.close()
        best = population.best.checkpoint if population.best is not None else None
        parents = sorted(
            {s.checkpoint for s in population.slots if s.status == "queued" and s.checkpoint}
            - {best}
        )
        if not parents:
            return False
        file = Path(str(experiment.checkpoints)) / parents[int(pick * len(parents))] / "state.json"
        with contextlib.suppress(OSError):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
            return True
        return False

    async def _send_garbage(self, pick: float) -> bool:
        """Put invalid messages into the inbox."""
        rng = default_rng(int(pick * 2**32))
        store = RedisStore(self._services.urls["server"])
        try:
            name = await _newest(store)
            for _ in range(20):
                await store.send(name, rng.bytes(int(rng.integers(0, 200))))
            await store.send(name, msgpack.packb({"v": 1, "type": "tick", "workers": "many"}))
        except (StoreError, ValueError):
            return False
        finally:
            await store.close()
        return True


async def _newest(store: RedisStore) -> str:
    """The name of the latest search.

    Raises:
        ValueError: there is no search.
    """
    return max(await store.experiments(), key=lambda name: int(name.rpartition("-")[2]))
