"""A drill: a real run on this machine, with everything that can break broken on purpose.

Real server, broker, actors, workers and tasks, as processes; faults at times that a seed fixes;
afterwards an audit of what the store and the checkpoints say. The task counts its own updates
inside its checkpoints, so work that was lost or done twice shows even if nobody noticed it.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgpack
from numpy.random import default_rng

from romul_actors.client import Client
from romul_actors.core.population import Population
from romul_actors.errors import CheckpointError, RomulError, StoreError
from romul_actors.local.mqtt_broker import embedded_broker, has_broker
from romul_actors.local.processes import spawn
from romul_actors.local.redis_server import embedded_server, free_port
from romul_actors.observe.lineage import read_history
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import read
from romul_actors.store.redis import RedisStore
from romul_actors.waiting import cancel
from romul_workers.checkpoints import Checkpoints

LEASE_S = 2.0
GRACE_S = 2.0
DISK_BYTES = 64_000_000
RESTART_S = 0.3
"""Who ends is started again after so long."""
PATIENCE_S = 60.0
"""How long a fault waits that finds no victim yet; those after it come as much later."""
SETTLE_S = 60.0
"""Longest time for a run to end after the last fault."""

FAULTS: Mapping[str, float] = {
    "kill worker": 6,
    "terminate worker": 4,
    "freeze worker": 4,
    "kill actor": 4,
    "terminate actor": 2,
    "freeze actor": 2,
    "kill server": 2,
    "kill broker": 2,
    "fill disk": 1,
    "damage checkpoint": 1,
    "garbage on queues": 1,
}
"""Kinds of faults, with their weights."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule.

    Attributes:
        at_s: when, from the start.
        kind: what, out of `FAULTS`.
        pick: whom, in [0, 1).
        for_s: for how long something stays frozen, down or full.
    """

    at_s: float
    kind: str
    pick: float
    for_s: float


def draw(n: int, mean_s: float, seed: int, *, without: Sequence[str] = ()) -> list[Fault]:
    """Draw a schedule; each kind comes at least once if there are enough faults.

    Args:
        n: how many.
        mean_s: mean time between two.
        seed: the same seed, the same schedule.
        without: kinds to leave out.
    """
    rng = default_rng(seed)
    kinds = [kind for kind in FAULTS if kind not in without]
    weights = [FAULTS[kind] for kind in kinds]
    chosen = list(kinds[:n])
    total = sum(weights)
    chosen += rng.choice(kinds, n - len(chosen), p=[w / total for w in weights]).tolist()
    rng.shuffle(chosen)
    at_s, faults = 0.0, []
    for kind in chosen:
        at_s += float(rng.exponential(mean_s))
        # Half of what freezes thaws before its lease ends, half after it.
        for_s = float(rng.uniform(0.2, 2 * LEASE_S))
        faults.append(Fault(round(at_s, 3), kind, float(rng.random()), round(for_s, 3)))
    return faults


def read_schedule(file: Path) -> list[Fault]:
    """Read a schedule, JSON lines as `write_schedule` makes them.

    Raises:
        RomulError: a line is not a fault.
    """
    faults = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            fault = Fault(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise RomulError(f"{file}:{number}: not a fault: {error}") from None
        if fault.kind not in FAULTS:
            raise RomulError(f"{file}:{number}: {fault.kind!r} is not one of {', '.join(FAULTS)}")
        faults.append(fault)
    return sorted(faults, key=lambda fault: fault.at_s)


def write_schedule(file: Path, faults: Sequence[Fault]) -> None:
    """Write a schedule, to be played again."""
    file.write_text("".join(json.dumps(asdict(fault)) + "\n" for fault in faults))


@dataclass(slots=True)
class Verdict:
    """What the audit found.

    Attributes:
        lost: trials that were created and never ended.
        doubled: trials that were decided or accepted more than once.
        broken: invariants that do not hold, in words.
    """

    trials: int = 0
    lost: int = 0
    doubled: int = 0
    broken: list[str] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    completed: bool = True


def audit(
    experiment: Experiment,
    population: Population,
    history: Sequence[Mapping[str, Any]],
    depths: Mapping[str, int],
    checkpoints: Checkpoints,
) -> Verdict:
    """Compare an ended experiment's population, history and checkpoints with what must hold."""
    decided = Counter(line["trial"] for line in history if line["event"] == "trial")
    accepted = Counter(line["trial"] for line in history if line["event"] == "result")
    given_up = Counter(
        line["trial"] for line in history if line["event"] == "failed" and not line["again"]
    )
    ended = accepted + given_up
    verdict = Verdict(trials=len(decided), completed=population.status == "finished")
    verdict.lost = sum(trial not in ended for trial in decided)
    verdict.doubled = sum(n > 1 for n in decided.values()) + sum(n > 1 for n in ended.values())
    verdict.causes = Counter(population.causes)

    def must(holds: bool, what: str) -> None:  # noqa: FBT001
        if not holds:
            verdict.broken.append(f"{experiment.name}: {what}")

    counts = population.counts
    must(verdict.completed, f"it is {population.status}: {population.reason}")
    must(counts.created == len(decided), "the count of created trials differs from history")
    must(counts.reported == len(accepted), "the count of results differs from history")
    must(
        counts.created == counts.reported + counts.failed + counts.discarded,
        "created is not reported + failed + discarded",
    )
    bounds = settings(experiment).elasticity
    n_slots = len(population.slots)
    must(
        bounds.min_slots <= n_slots <= max(bounds.max_slots, experiment.population),
        f"{n_slots} slots are out of bounds",
    )
    must(depths["trials"] == 0 and depths["inbox"] == 0, f"queues are not empty: {dict(depths)}")
    for line in history:
        if line["event"] == "trial" and line["parent"] is not None:
            must(line["parent"] in accepted, f"{line['trial']}: its parent never ended well")
    # The task says so when a checkpoint's own count of updates does not fit its place.
    must(not verdict.causes["bad_result"], "a checkpoint did not fit its trial")
    _audit_best(experiment, population, history, checkpoints, must)
    return verdict


def _audit_best(
    experiment: Experiment,
    population: Population,
    history: Sequence[Mapping[str, Any]],
    checkpoints: Checkpoints,
    must: Callable[[bool, str], None],
) -> None:
    values = [line["value"] for line in history if line["event"] == "result"]
    if population.best is None or not values:
        must(holds=False, what="there is no best trial")  # type: ignore[call-arg]
        return
    must(population.best.loss == min(values), "the best loss is not the lowest of all results")
    try:
        folder = checkpoints.fetch(population.best.checkpoint)
    except CheckpointError as error:
        must(False, f"the best checkpoint is gone: {error}")  # noqa: FBT003
        return
    updates = json.loads((folder / "state.json").read_text())[2]
    step = int(population.best.trial.partition("-")[2])
    must(
        updates == int((step + 1) * experiment.budget),
        f"the best checkpoint holds {updates} updates after step {step}",
    )


class Fleet:
    """The processes of a drill, started again whenever they end.

    Args:
        folder: for logs.
        environment: where server and broker are.
        commands: by name, the arguments of each.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], commands: Mapping[str, Sequence[str]]
    ) -> None:
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._environment = {**os.environ, **environment}
        self._commands = commands
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.starts: Counter[str] = Counter()

    async def keep(self) -> None:
        """Start whoever is not there, until cancelled."""
        while True:
            for name in self._commands:
                process = self._processes.get(name)
                if process is None or process.returncode is not None:
                    await self._start(name)
            await asyncio.sleep(RESTART_S)

    async def _start(self, name: str) -> None:
        self.starts[name] += 1
        self._processes[name] = await spawn(
            self._commands[name], self._logs / f"{name}.log", self._environment
        )

    def pick(self, kind: str, pick: float) -> int | None:
        """Process number of one of a kind that is alive."""
        alive = [
            process.pid
            for name, process in self._processes.items()
            if name.startswith(kind) and process.returncode is None
        ]
        return alive[int(pick * len(alive))] if alive else None

    async def end(self) -> None:
        """End all, in order if they can."""
        for process in self._processes.values():
            _thaw(list(tree(process.pid)))
            _signal(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            try:
                async with asyncio.timeout(2 * GRACE_S + 5):
                    await process.wait()
            except TimeoutError:
                _signal(process.pid, signal.SIGKILL)
                await process.wait()


def tree(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from tree(int(child))


def _thaw(pids: Sequence[int]) -> None:
    for pid in pids:
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make `folder` a small file system of its own; False where that is not allowed."""
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


class Drill:
    """One drill.

    Args:
        folder: an empty or new folder for all of it.
        faults: the schedule.
        workers, actors: how many of each.
        seed: of the searches.
        progress: is called after each fault with how many there were.
        steps: of each search; a new one begins as long as there are faults to come.
    """

    def __init__(
        self,
        folder: Path,
        faults: Sequence[Fault],
        workers: int,
        actors: int,
        seed: int,
        progress: Callable[[int], None] = lambda _: None,
        steps: int = 40,
    ) -> None:
        self._folder = folder
        self._faults = faults
        self._seed = seed
        self._progress = progress
        self._steps = steps
        self._workers = workers
        self._actors = actors
        self._ports = {"server": free_port(), "broker": free_port()}
        self._services: dict[str, contextlib.AsyncExitStack] = {}
        self._small = False
        self._urls: dict[str, str] = {}
        self._thaws: set[asyncio.Task[None]] = set()
        self.played: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    async def run(self) -> dict[str, Any]:
        """Play the schedule to its end, and audit.

        Returns:
            JSON values: `faults`, `lost`, `doubled`, `invariants_broken`, `completed` and more.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        with small_disk(self._folder / "checkpoints") as small:
            self._small = small
            async with self._stack() as stack:
                fleet = self._fleet = Fleet(self._folder, self._environment(), self._commands())
                stack.push_async_callback(fleet.end)
                keeping = asyncio.create_task(fleet.keep())
                stack.push_async_callback(cancel, keeping)
                verdicts = await self._searches()
        broken = [text for verdict in verdicts for text in verdict.broken]
        causes: Counter[str] = sum((verdict.causes for verdict in verdicts), Counter())
        return {
            "faults": sum(self.played.values()),
            "lost": sum(verdict.lost for verdict in verdicts),
            "doubled": sum(verdict.doubled for verdict in verdicts),
            "invariants_broken": len(broken),
            "completed": all(verdict.completed for verdict in verdicts),
            "broken": broken,
            "trials": sum(verdict.trials for verdict in verdicts),
            "searches": len(verdicts),
            "by_kind": dict(sorted(self.played.items())),
            "skipped": dict(sorted(self.skipped.items())),
            "causes": dict(sorted(causes.items())),
            "starts": sum(fleet.starts.values()),
            "wall_s": round(loop.time() - began, 1),
        }

    @contextlib.asynccontextmanager
    async def _stack(self) -> AsyncIterator[contextlib.AsyncExitStack]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._end_services)
            await self._start_service("server")
            if has_broker():
                await self._start_service("broker")
            yield stack

    async def _start_service(self, which: str) -> None:
        stack = contextlib.AsyncExitStack()
        port = self._ports[which]
        context = (
            embedded_server(self._folder, port=port, password="drill")  # noqa: S106
            if which == "server"
            else embedded_broker(self._folder, port, "drill")
        )
        self._urls[which] = await stack.enter_async_context(context)
        self._services[which] = stack

    async def _end_services(self) -> None:
        await asyncio.gather(*self._thaws, return_exceptions=True)
        for stack in reversed(list(self._services.values())):
            await stack.aclose()

    def _environment(self) -> dict[str, str]:
        mqtt = {"ROMUL_MQTT_URL": self._urls["broker"]} if "broker" in self._urls else {}
        return {
            "ROMUL_REDIS_URL": self._urls["server"],
            "ROMUL_MQTT_KEEPALIVE_S": "1",
            "OMP_NUM_THREADS": "1",
            **mqtt,
        }

    def _commands(self) -> dict[str, Sequence[str]]:
        commands: dict[str, Sequence[str]] = {f"actor-{n}": ["actor"] for n in range(self._actors)}
        worker = ["worker", f"--grace={GRACE_S}", "--garbage-s=5"]
        return commands | {f"worker-{n}": worker for n in range(self._workers)}

    # -- the searches ---------------------------------------------------------------------------

    async def _searches(self) -> list[Verdict]:
        """Searches one after the other, until all faults are played; then their verdicts."""
        chaos = asyncio.create_task(self._play())
        names: list[str] = []
        store = RedisStore(self._urls["server"])
        client = Client(store)
        try:
            while not chaos.done():
                experiment = self._experiment(len(names))
                names.append(experiment.name)
                await _patiently(lambda e=experiment: client.submit(e))  # type: ignore[misc]
                await self._ended(store, experiment.name, chaos)
            await chaos
            return [await self._judge(store, self._experiment(n)) for n in range(len(names))]
        finally:
            await cancel(chaos)
            await store.close()

    def _experiment(self, number: int) -> Experiment:
        return Experiment.model_validate(
            {
                "name": f"drill-{number}",
                "task": "romul_workers.tasks.toys:quadratic",
                "space": {
                    "rate": {"type": "float", "min": 1e-4, "max": 0.1, "scale": "log"},
                    "momentum": {"type": "float", "min": 0.0, "max": 0.9},
                },
                "population": 8,
                "steps": self._steps,
                "budget": 20,
                "seed": self._seed + number,
                "constants": {"seconds": 0.3},
                "elasticity": {"max": 12},
                "timeouts": {"lease_s": LEASE_S, "trial_s": 30, "quorum_s": 5},
                "max_losses": 100,
                "checkpoints": str((self._folder / "checkpoints").resolve()) + f"/{number}",
            }
        )

    async def _ended(self, store: RedisStore, name: str, chaos: asyncio.Task[None]) -> None:
        """Wait until a search has ended, or its time after the last fault is over."""
        loop = asyncio.get_running_loop()
        limit = None
        while limit is None or loop.time() < limit:
            with contextlib.suppress(StoreError):
                if (await store.experiments()).get(name) in ("finished", "failed"):
                    return
            if chaos.done() and limit is None:
                limit = loop.time() + SETTLE_S
            await asyncio.sleep(0.2)

    async def _judge(self, store: RedisStore, experiment: Experiment) -> Verdict:
        stored = await store.load(experiment.name)
        population = read(settings(experiment), experiment.metric, stored.meta, stored.slots)
        # A frozen worker may still hold what was decided without it.
        for _ in range(int(10 * LEASE_S)):
            depths = await store.depths(experiment.name)
            if depths["trials"] == depths["inbox"] == 0:
                break
            await asyncio.sleep(0.5)
        history = await read_history(store, experiment.name)
        place = Checkpoints(str(experiment.checkpoints), self._folder / "scratch")
        return audit(experiment, population, history, depths, place)

    # -- the faults -----------------------------------------------------------------------------

    async def _play(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, fault in enumerate(self._faults, 1):
            await asyncio.sleep(max(0.0, began + fault.at_s - loop.time()))
            possible = self._possible(fault)
            done = possible and await self._inflict(fault)
            limit = loop.time() + PATIENCE_S
            # Nobody to strike just now, or the server is not back yet: on a slow machine the
            # first checkpoint may be long in coming.
            while possible and not done and loop.time() < limit:
                await asyncio.sleep(RESTART_S)
                began += RESTART_S
                done = await self._inflict(fault)
            (self.played if done else self.skipped)[fault.kind] += 1
            self._progress(number)
        await asyncio.gather(*self._thaws, return_exceptions=True)

    def _possible(self, fault: Fault) -> bool:
        """Whether such a fault is possible on this machine at all."""
        if fault.kind == "fill disk":
            return self._small
        return fault.kind != "kill broker" or "broker" in self._services

    async def _inflict(self, fault: Fault) -> bool:
        what, _, whom = fault.kind.partition(" ")
        if whom in ("worker", "actor"):
            pid = self._fleet.pick(whom, fault.pick)
            return pid is not None and self._strike(what, pid, fault.for_s)
        if whom in ("server", "broker"):
            await self._restart(whom, fault.for_s)
            return True
        if fault.kind == "fill disk":
            await self._fill(fault.for_s)
            return True
        if fault.kind == "damage checkpoint":
            return await self._damage(fault.pick)
        return await self._litter(fault.pick)

    def _strike(self, what: str, pid: int, for_s: float) -> bool:
        if what == "kill":
            _signal(pid, signal.SIGKILL)
        elif what == "terminate":
            _signal(pid, signal.SIGTERM)
        else:
            # As a machine freezes: with all that runs on it.
            frozen = list(tree(pid))
            for each in frozen:
                _signal(each, signal.SIGSTOP)
            self._later(for_s, lambda: _thaw(frozen))
        return True

    def _later(self, seconds: float, do: Callable[[], object]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            do()

        task = asyncio.create_task(wait())
        self._thaws.add(task)
        task.add_done_callback(self._thaws.discard)

    async def _restart(self, which: str, for_s: float) -> None:
        """Kill a server without a word, and start it again on what it had written."""
        home = self._folder / ("redis/server.pid" if which == "server" else "broker/broker.pid")
        _signal(int(home.read_text()), signal.SIGKILL)
        await self._services.pop(which).aclose()
        await asyncio.sleep(min(for_s, 1.5))
        await self._start_service(which)

    async def _fill(self, for_s: float) -> None:
        """Leave no byte free where the checkpoints are."""
        filler = self._folder / "checkpoints" / ".filler"

        def fill() -> None:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 65_536)

        await asyncio.to_thread(fill)
        self._later(min(for_s, 2.0), lambda: filler.unlink(missing_ok=True))

    async def _damage(self, pick: float) -> bool:
        """Change one byte of a checkpoint that a trial is about to continue from."""
        store = RedisStore(self._urls["server"])
        try:
            name = max(await store.experiments(), key=lambda n: int(n.rpartition("-")[2]))
            experiment = Experiment.model_validate_json(await store.spec(name))
            stored = await store.load(name)
            population = read(settings(experiment), experiment.metric, stored.meta, stored.slots)
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

    async def _litter(self, pick: float) -> bool:
        """Put on the queues what no program of ours would."""
        rng = default_rng(int(pick * 2**32))
        store = RedisStore(self._urls["server"])
        try:
            name = max(await store.experiments(), key=lambda n: int(n.rpartition("-")[2]))
            for _ in range(20):
                await store.send(name, rng.bytes(int(rng.integers(0, 200))))
            await store.send(name, msgpack.packb({"v": 1, "type": "tick", "workers": "many"}))
        except (StoreError, ValueError):
            return False
        finally:
            await store.close()
        return True


async def _patiently(call: Callable[[], Any]) -> None:
    """Do it once the server is back."""
    while True:
        try:
            await call()
        except StoreError as error:
            if "exists already" in str(error):
                return
            await asyncio.sleep(0.5)
        else:
            return
