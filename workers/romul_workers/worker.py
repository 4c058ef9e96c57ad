"""The worker: leases a trial, has it trained, reports; gives it back when its machine must go.

It decides nothing. Whatever it is told comes from a queue and is validated; whatever it tells goes
into a queue, once. It needs the store and a trainer, and runs unchanged under simulated time.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from romul_actors.core.events import MAX_TEXT, Failed, Released, ReleaseReason, Result, Trial
from romul_actors.errors import ExperimentError, MessageError, StoreError, UnknownExperimentError
from romul_actors.protocol.experiment import Experiment, from_json
from romul_actors.protocol.messages import decode_trial, encode
from romul_actors.store import Lease, Output, WorkerStore
from romul_actors.waiting import cancel, pause
from romul_workers.figures import LeftOut, in_words
from romul_workers.trainer import Ending, Failure, NoRoom, Stopped, Success, Trainer

log = logging.getLogger("romul.worker")

SHIPPED_TASKS = "romul_workers.tasks.*"
PACE_S = 0.5
"""Longest wait for a trial at a time; also how soon an idle worker notices that it should stop."""
FIRST_BEAT_S = 0.2
BACKOFF_S = 1.0
"""Pause before the store is tried again."""
PAUSE_S = (1.0, 60.0)
"""First and longest pause of a worker on whose machine trials cannot end well."""
FAILING = 3
"""So many failures one after the other, while others' trials went well, are the machine's fault."""
QUICK_BEAT_S = 0.4
"""Time between heartbeats while the broker is lost, which would otherwise stand for them."""
COLLECT_EVERY = 10
"""After so many waits' time a worker looks for checkpoints to remove."""
COLLECT_FOR_S = 1.0
COLLECT = 32
"""So many checkpoints are removed at a time, for so long."""
GARBAGE_MS = 60_000
"""How long garbage is kept: a server that lost its last second may still ask for it."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker behaves.

    Attributes:
        name: unique among all workers that are alive.
        experiments: name patterns of the experiments that it serves.
        allow: patterns of the task modules that it may import.
        grace_s: how long a trial in training may take to end when the worker should stop.
        max_trials: trials after which it ends; None: no end.
        garbage_ms: how long garbage is kept.
        pace_s: longest wait for a trial. After twice this the list of experiments is read again,
            and an idle worker says that it is there.
    """

    name: str
    experiments: Sequence[str] = ("*",)
    allow: Sequence[str] = (SHIPPED_TASKS,)
    grace_s: float = 10.0
    max_trials: int | None = None
    garbage_ms: int = GARBAGE_MS
    pace_s: float = PACE_S
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)


def _longer(pause_s: float) -> float:
    """The pause after one of `pause_s` seconds that was of no use."""
    first, longest = PAUSE_S
    return min(longest, max(first, 2 * pause_s))


class _LostError(Exception):
    """The lease is somebody else's now."""


class _Useless(Exception):  # noqa: N818  (a reason to stop, no error)
    """Nobody waits for the trial any more."""

    def __init__(self, reason: ReleaseReason) -> None:
        self.reason = reason


@dataclass(slots=True)
class _Failing:
    """An experiment whose trials fail here.

    Attributes:
        reported: its results, everybody's, when the first of them failed.
        times: how many did, one after the other.
        pause_s, until: how long it is left to others, and the loop's time when that ends.
    """

    reported: int
    times: int = 0
    pause_s: float = 0.0
    until: float = 0.0


class Worker:
    """One worker.

    Args:
        store: where trials come from and reports go to.
        trainer: what trains.
        settings: see `WorkerSettings`.
    """

    def __init__(self, store: WorkerStore, trainer: Trainer, settings: WorkerSettings) -> None:
        self._store = store
        self._trainer = trainer
        self._settings = settings
        self._specs: dict[str, Experiment] = {}
        self._admission: dict[str, bool] = {}
        self._admitted: dict[str, str] = {}
        self._open: list[str] = []
        self._statuses: dict[str, str] = {}
        self._refused: set[str] = set()
        self._left_out = LeftOut()
        self._refreshed = float("-inf")
        self._collected = float("-inf")
        self._no_room_s = 0.0
        self._failing: dict[str, _Failing] = {}
        self._typical_s: dict[str, float] = {}
        self._ends_at: float | None = None
        self._grace_s = settings.grace_s
        self._stop = asyncio.Event()
        self._news: asyncio.Future[None] | None = None
        self._why: ReleaseReason = "preempted"
        self._state = "idle"
        self.trials = 0
        self._quick = False

    @property
    def state(self) -> str:
        """What it does: idle, training, draining, no room, or failing."""
        pauses = self._state == "idle" and any(self._pauses(name) for name in self._open)
        return "failing" if pauses else self._state

    @property
    def quick(self) -> bool:
        """Whether heartbeats go out quickly: the broker, which notices a death sooner, is lost."""
        return self._quick

    @quick.setter
    def quick(self, quick: bool) -> None:
        if quick != self._quick:
            self._quick = quick
            # At once, not only after the pause under way: who is taken for dead is still heard,
            # and who was taken for dead learns of it.
            self._wake()

    def drain(self, why: ReleaseReason = "drained", grace_s: float | None = None) -> None:
        """Take no more trials, and end; the trial in training has the grace period.

        Args:
            why: what becomes of the trial if that is too short.
            grace_s: in place of the settings' own.
        """
        if grace_s is not None:
            self._grace_s = grace_s
        if not self._stop.is_set():
            self._why = why
            self._stop.set()
            self._wake()

    def announce(self, seconds: float) -> None:
        """Say that the machine goes in so many seconds.

        Trials that are expected to end before are still taken; the grace period comes off the end.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + max(0.0, seconds - self._settings.grace_s)
        if self._ends_at is None or ends_at < self._ends_at:
            log.warning("this machine goes in %.0f s", seconds)
            self._ends_at = ends_at
            loop.call_at(ends_at, self.drain, "preempted")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then the trial in training ends within the grace period."""
        listening = asyncio.create_task(self._stop_with(stop))
        try:
            while not self._stop.is_set() and self.trials != self._settings.max_trials:
                try:
                    await self._turn()
                except (StoreError, ExperimentError) as error:
                    log.warning("%s; trying again", error)
                    await pause(BACKOFF_S, self._stop)
        finally:
            listening.cancel()
            await self._leave()

    async def _stop_with(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.drain("preempted")

    async def _turn(self) -> None:
        await self._refresh()
        wanted = [name for name in self._open if not self._pauses(name)]
        names = [name for name in wanted if self._has_time_for(name)]
        if not names:
            if wanted:
                # The machine goes before another trial would end.
                self.drain("preempted")
            await pause(self._settings.pace_s, self._stop)
            return
        block_ms = int(1000 * self._settings.pace_s)
        lease = await self._store.lease(names, self._settings.name, block_ms)
        if lease is None:
            return
        # Fair turns: the experiment just served is asked last.
        self._open.remove(lease.experiment)
        self._open.append(lease.experiment)
        await self._serve(lease)

    def _has_time_for(self, name: str) -> bool:
        """Whether a trial of the experiment is expected to end before the machine goes."""
        if self._ends_at is None:
            return True
        now = asyncio.get_running_loop().time()
        return name in self._typical_s and now + self._typical_s[name] < self._ends_at

    async def _refresh(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._refreshed < 2 * self._settings.pace_s:
            return
        self._refreshed = now
        statuses = await self._store.experiments()
        if statuses != self._statuses or self._admission.keys() != statuses.keys():
            await self._admit(statuses)
            self._statuses = statuses
        await self._store.present(list(self._admitted), self._settings.name, self._presence(""))
        if now - self._collected >= COLLECT_EVERY * self._settings.pace_s:
            self._collected = now
            for experiment in [name for name in statuses if self._admission[name]]:
                await self._collect(experiment)

    async def _admit(self, statuses: Mapping[str, str]) -> None:
        """Find which experiments to serve, and leave those that are served no more."""
        before = self._admitted
        for name in statuses.keys() - self._admission.keys():
            self._admission[name] = await self._admits(name)
        for name in self._admission.keys() - statuses.keys():
            del self._admission[name]
            self._failing.pop(name, None)
            self._left_out.forget(name)
        ours = {name: status for name, status in statuses.items() if self._admission[name]}
        self._admitted = {n: s for n, s in ours.items() if s not in ("finished", "stopped")}
        running = [name for name, s in self._admitted.items() if s in ("submitted", "running")]
        kept = [name for name in self._open if name in running]
        self._open = kept + [name for name in running if name not in kept]
        gone = [name for name in before if name not in self._admitted]
        await self._store.present(gone, self._settings.name, {})

    async def _collect(self, name: str) -> None:
        """Remove checkpoints that nobody can ask for any more.

        Listed until they are gone: a worker that is killed here leaves them to another.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + COLLECT_FOR_S
        while names := await self._store.garbage(name, self._settings.garbage_ms, COLLECT):
            experiment = await self._spec(name)
            for checkpoint in names:
                await self._trainer.discard(experiment, checkpoint)
            await self._store.forget(name, names)
            if loop.time() >= ends:
                return

    async def _admits(self, name: str) -> bool:
        """Whether this worker's own settings let it serve the experiment."""
        if not any(fnmatchcase(name, pattern) for pattern in self._settings.experiments):
            return False
        try:
            module = (await self._spec(name)).module
        except (ExperimentError, UnknownExperimentError) as error:
            return self._refuse(name, str(error))
        if any(fnmatchcase(module, pattern) for pattern in self._settings.allow):
            return True
        return self._refuse(name, f"task module {module!r} is not allowed here (see --allow)")

    def _refuse(self, name: str, why: str) -> bool:
        if name not in self._refused:
            log.warning("experiment %s is not served: %s", name, why)
            self._refused.add(name)
        return False

    async def _spec(self, name: str) -> Experiment:
        # By its text: an experiment of the same name may be another one meanwhile.
        text = await self._store.spec(name)
        if text not in self._specs:
            self._specs[text] = from_json(text)
            self._admission.pop(name, None)
        return self._specs[text]

    def _presence(self, trial: str) -> dict[str, str | int | float]:
        settings = self._settings
        at = self._trainer.at if trial else None
        return {
            "state": self.state,
            "trial": trial,
            "host": settings.host,
            "pid": settings.pid,
            **({} if at is None else {"at": at}),
        }

    # -- one trial ------------------------------------------------------------------------------

    async def _serve(self, lease: Lease) -> None:
        try:
            trial = decode_trial(lease.body)
        except MessageError as error:
            log.warning("unusable trial of %s: %s", lease.experiment, error)
            unusable = [(lease.id, str(error), lease.body)]
            await self._store.dead_letter(lease.experiment, "trials", unusable)
            return
        experiment = await self._spec(lease.experiment)
        loop = asyncio.get_running_loop()
        began = loop.time()
        log.info("%s: trial %s, attempt %d", experiment.name, trial.id, trial.attempt)
        ending: Ending | ReleaseReason
        try:
            ending = await self._train(lease, experiment, trial)
        except _LostError:
            log.warning("%s: trial %s was taken away", experiment.name, trial.id)
            return
        except _Useless as useless:
            ending = useless.reason
        finally:
            self._state = "idle"
        self.trials += 1
        seconds = loop.time() - began
        if isinstance(ending, Success) and not trial.resumed:
            self._typical_s[experiment.name] = seconds
        ending, warning = self._tell_once(experiment.name, ending)
        accepted = await self._settle(lease, trial, self._report(trial, ending, seconds))
        if accepted is False:
            log.warning("%s: trial %s: the report came too late", experiment.name, trial.id)
            if isinstance(ending, Success | Stopped) and ending.checkpoint is not None:
                await self._trainer.discard(experiment, ending.checkpoint)
        await self._keep_output(experiment.name, trial, warning)
        await self._judge(experiment.name, ending)
        await self._rest(ending)

    def _tell_once(
        self, name: str, ending: Ending | ReleaseReason
    ) -> tuple[Ending | ReleaseReason, str]:
        """An ending with what was not yet told of what was left out; a warning of it, or ""."""
        if not isinstance(ending, Success) or not ending.left_out:
            return ending, ""
        new = self._left_out.new(name, ending.left_out)
        if new:
            log.warning("%s: %s", name, in_words(new))
        warning = f"romul: warning: {in_words(new)}\n" if new else ""
        return replace(ending, left_out=new), warning

    async def _keep_output(self, name: str, trial: Trial, warning: str) -> None:
        """Keep what the task printed, and our warning, for people; nothing depends on it."""
        text = self._trainer.output
        if warning:
            text += ("\n" if text and not text.endswith("\n") else "") + warning
        if text:
            told = Output(trial.id, trial.attempt, self._settings.name, text)
            try:
                await self._store.write_output(name, told)
            except StoreError as error:
                log.debug("output of trial %s not kept: %s", trial.id, error)

    async def _judge(self, name: str, ending: Ending | ReleaseReason) -> None:
        """Leave an experiment to others for a while, if all its trials fail here and not there.

        A machine with a broken GPU, say, fails faster than the others train, and would draw one
        trial after the other to itself. Where nobody succeeds the fault is not the machine's, and
        is best told soon.
        """
        if isinstance(ending, Success):
            self._failing.pop(name, None)
        if not isinstance(ending, Failure) or ending.reason == "not_finite":
            return
        reported = await self._store.reported(name)
        failing = self._failing.setdefault(name, _Failing(reported))
        failing.times += 1
        if failing.times < FAILING or reported == failing.reported:
            return
        failing.pause_s = _longer(failing.pause_s)
        failing.until = asyncio.get_running_loop().time() + failing.pause_s
        log.error(
            "%s: %d trials failed here, one after the other, while others went well elsewhere; "
            "trying again in %.0f s",
            name,
            failing.times,
            failing.pause_s,
        )

    def _pauses(self, name: str) -> bool:
        """Whether an experiment is left to others for now."""
        failing = self._failing.get(name)
        return failing is not None and asyncio.get_running_loop().time() < failing.until

    async def _rest(self, ending: Ending | ReleaseReason) -> None:
        """Without room for checkpoints, wait: longer each time."""
        if not isinstance(ending, NoRoom):
            self._no_room_s = 0.0
            return
        self._no_room_s = _longer(self._no_room_s)
        log.error("%s; trying again in %.0f s", ending.message, self._no_room_s)
        self._state = "no room"
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._no_room_s
        while not self._stop.is_set() and loop.time() < ends:
            await self._refresh()
            await pause(min(2 * self._settings.pace_s, ends - loop.time()), self._stop)
        self._state = "idle"

    async def _train(
        self, lease: Lease, experiment: Experiment, trial: Trial
    ) -> Ending | ReleaseReason:
        """Train while heartbeats go out.

        Raises:
            _LostError: the lease was lost; the training is ended.
            _Useless: nobody waits for the trial any more; the training is ended.
        """
        loop = asyncio.get_running_loop()
        training = asyncio.create_task(self._trainer.train(experiment, trial))
        training.add_done_callback(self._wake)
        deadline: float | None = None
        self._state = "training"
        # A trial of an instant needs no heartbeat; a longer one is to be seen soon.
        limit_s = FIRST_BEAT_S
        try:
            while True:
                if deadline is not None:
                    limit_s = min(limit_s, max(0.0, deadline - loop.time()))
                if not training.done() and (deadline is not None or not self._stop.is_set()):
                    await self._wait_for_news(limit_s)
                if training.done():
                    return training.result()
                if deadline is not None and loop.time() >= deadline:
                    return self._why
                if deadline is None and self._stop.is_set():
                    deadline = loop.time() + self._grace_s
                    self._state = "draining"
                    self._trainer.ask_to_stop()
                await self._beat(lease, trial)
                limit_s = experiment.timeouts.lease_s / 3
                if self._quick:
                    limit_s = min(limit_s, QUICK_BEAT_S)
        finally:
            if not training.done():
                await cancel(training)
            elif not training.cancelled():
                # Looked at, even if nobody waits for it any more: asyncio would complain.
                training.exception()

    async def _wait_for_news(self, seconds: float) -> None:
        """Wait for the end of a training, or until it should stop, or so long."""
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        limit = loop.call_later(seconds, self._wake)
        try:
            await self._news
        finally:
            limit.cancel()
            self._news = None

    def _wake(self, _: object = None) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _beat(self, lease: Lease, trial: Trial) -> None:
        try:
            beat = await self._store.beat(lease, trial.slot, trial.id, self._presence(trial.id))
        except StoreError as error:
            # The trial goes on: the store may be back before the lease has ended.
            log.warning("no heartbeat: %s", error)
            return
        if beat.status in ("", "stopped", "finished"):
            raise _Useless("stopped")
        if not beat.kept:
            raise _LostError
        if beat.outdated:
            raise _Useless("outdated")

    def _report(
        self, trial: Trial, ending: Ending | ReleaseReason, seconds: float
    ) -> Result | Failed | Released:
        token: dict[str, Any] = {
            "trial": trial.id,
            "slot": trial.slot,
            "attempt": trial.attempt,
            "worker": self._settings.name,
        }
        match ending:
            case Success():
                return Result(
                    **token,
                    value=ending.value,
                    checkpoint=ending.checkpoint,
                    seconds=seconds,
                    metrics=ending.metrics,
                    in_effect=ending.in_effect,
                    left_out=ending.left_out,
                )
            case Failure(reason=reason, message=message):
                log.warning("trial %s failed: %s: %s", trial.id, reason, message)
                return Failed(**token, reason=reason, message=message[-MAX_TEXT:], seconds=seconds)
            case Stopped(checkpoint=checkpoint, at=at):
                return Released(
                    **token, reason=self._why, checkpoint=checkpoint, at=at, seconds=seconds
                )
            case NoRoom(message=message):
                text = message[-MAX_TEXT:]
                return Released(**token, reason="no_room", message=text, seconds=seconds)
        return Released(**token, reason=ending, seconds=seconds)

    async def _settle(
        self, lease: Lease, trial: Trial, report: Result | Failed | Released
    ) -> bool | None:
        """Report, however often the store must be asked.

        Returns:
            False: the lease was lost before. None: nobody knows, an answer of the store was lost;
            what was reported may have arrived, so its checkpoint must stay.
        """
        token = f"{trial.id}#{trial.attempt} {report.type} by {self._settings.name}"
        try:
            body = encode(report)
        except MessageError as error:
            failure = Failure("bad_result", f"the task's metrics are too long: {error}")
            body = encode(self._report(trial, failure, 0.0))
        give_up = None
        unsure = False
        while True:
            try:
                accepted = await self._store.settle(lease, trial.slot, token, body)
            except StoreError as error:
                unsure = True
                now = asyncio.get_running_loop().time()
                if self._stop.is_set():
                    give_up = give_up or now + self._grace_s
                    if now >= give_up:
                        log.warning("trial %s could not be reported: %s", trial.id, error)
                        return None
                log.warning("no report: %s; trying again", error)
                await asyncio.sleep(BACKOFF_S)
                continue
            # The store remembers a slot's last end only. After a silence "no" may mean that the
            # report arrived then, and that the slot has gone on since.
            return None if unsure and not accepted else accepted

    async def _leave(self) -> None:
        await self._trainer.close()
        try:
            await self._store.present(list(self._admitted), self._settings.name, {})
        except StoreError as error:
            log.debug("no farewell: %s", error)
