"""Reports the end of an attempt exactly once, with the task's output and warnings.

A report ends the lease. A checkpoint must be stored before it is reported, because the population
relies on it from then on. If the report came too late, the checkpoint is removed.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from romul_actors.core.events import MAX_TEXT, Failed, Released, ReleaseReason, Result, TrialMessage
from romul_actors.errors import (
    AccessError,
    CheckpointError,
    MessageError,
    StoreError,
    StoreUnavailableError,
)
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.messages import encode
from romul_actors.store import Hold, Lease, Output, WorkerStore
from romul_actors.waiting import RetryLog
from romul_workers.child.figures import LeftOut, in_words
from romul_workers.trainer import Ending, Failure, NoRoom, Outage, Stopped, Success, Trainer
from romul_workers.worker.attempt import Attempt
from romul_workers.worker.shutdown import Shutdown

log = logging.getLogger("romul.worker")

BACKOFF_S = 1.0
"""Pause before another call of a store that failed, in seconds."""

Report = Result | Failed | Released


@dataclass(frozen=True, slots=True)
class Message:
    """The message that reports how an attempt ended.

    Attributes:
        ending: how the attempt ended, or why it was stopped.
        report: the report, without what earlier reports of the experiment have said already.
        body: the encoded report.
        warning: a warning to add to the task's output; "": none.
        provenance: the result's complete provenance.
    """

    ending: Ending | ReleaseReason
    report: Report
    body: bytes
    warning: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)


class Reporter:
    """Reports how one worker's attempts end.

    Args:
        store: where reports go.
        trainer: removes checkpoints whose report came too late.
        worker: the worker's name.
        shutdown: the worker's shutdown.
    """

    def __init__(
        self, store: WorkerStore, trainer: Trainer, worker: str, shutdown: Shutdown
    ) -> None:
        self._store = store
        self._trainer = trainer
        self._worker = worker
        self._shutdown = shutdown
        self._left_out = LeftOut()
        self._provenance: dict[str, dict[str, str]] = {}

    def forget(self, experiment: str) -> None:
        """Forget an experiment: it was removed, or another one has its name."""
        self._left_out.forget(experiment)
        self._provenance.pop(experiment, None)

    async def deliver(self, attempt: Attempt, message: Message, hold: Hold | None = None) -> bool:
        """Report how an attempt ended, which ends its lease, and store what its task printed.

        Args:
            attempt: the attempt.
            message: its report.
            hold: what the worker has in memory from now on; None: not said.

        Returns:
            Whether the report is known to have been accepted.
        """
        experiment, trial, ending = attempt.experiment, attempt.trial, message.ending
        if isinstance(ending, Failure):
            log.warning("trial %s failed: %s: %s", trial.id, ending.reason, ending.message)
        accepted = await self._settle(attempt.lease, message, hold)
        if accepted and message.provenance:
            self._provenance[experiment.name] = dict(message.provenance)
        if accepted is False:
            log.warning("%s: trial %s: the report came too late", experiment.name, trial.id)
            await self._discard(experiment, ending)
        if accepted is None:
            log.warning("%s: trial %s: the report may have arrived", experiment.name, trial.id)
        await self._keep_output(attempt, message.warning)
        return accepted is True

    async def message(
        self, attempt: Attempt, ending: Ending | ReleaseReason, seconds: float
    ) -> Message:
        """Make the report of an ending; of a failure, if the ending cannot be encoded.

        Args:
            attempt: the attempt.
            ending: how it ended, or why it was stopped.
            seconds: how long the worker had the trial.
        """
        name = attempt.experiment.name
        said, warning = self._warn_once(name, ending)
        provenance = said.provenance if isinstance(said, Success) else {}
        if isinstance(said, Success) and provenance == self._provenance.get(name):
            said = replace(said, provenance={})
        try:
            report = self._report(attempt.trial, said, seconds)
            return Message(ending, report, encode(report), warning, provenance)
        except MessageError as error:
            # The values that were left out are not reported, so warn of them again.
            self._left_out.forget(name)
            await self._discard(attempt.experiment, ending)
            return self._failure(attempt.trial, Failure("bad_result", str(error)), seconds)

    async def refuse(self, lease: Lease, trial: TrialMessage, why: str) -> None:
        """Report that a leased trial is not trained here; another worker may get it next."""
        log.warning("trial %s is not trained here: %s", trial.id, why)
        await self._settle(lease, self._failure(trial, Failure("task", why), 0.0))

    def _failure(self, trial: TrialMessage, failure: Failure, seconds: float) -> Message:
        report = self._report(trial, failure, seconds)
        return Message(failure, report, encode(report))

    def _warn_once(
        self, experiment: str, ending: Ending | ReleaseReason
    ) -> tuple[Ending | ReleaseReason, str]:
        """Keep in `left_out` only names that are new; returns the ending and a warning or ""."""
        if not isinstance(ending, Success) or not ending.left_out:
            return ending, ""
        new = self._left_out.new(experiment, ending.left_out)
        if new:
            log.warning("%s: %s", experiment, in_words(new))
        warning = f"romul: warning: {in_words(new)}\n" if new else ""
        return replace(ending, left_out=new), warning

    def _report(
        self, trial: TrialMessage, ending: Ending | ReleaseReason, seconds: float
    ) -> Report:
        token: dict[str, Any] = {
            "trial": trial.id,
            "slot": trial.slot,
            "attempt": trial.attempt,
            "worker": self._worker,
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
                    provenance=ending.provenance,
                )
            case Failure(reason=reason, message=message):
                return Failed(**token, reason=reason, message=message[-MAX_TEXT:], seconds=seconds)
            case Stopped(checkpoint=checkpoint, at=at, message=message):
                why = self._shutdown.reason
                token |= {"reason": why, "message": message[-MAX_TEXT:]}
                return Released(**token, checkpoint=checkpoint, at=at, seconds=seconds)
            case NoRoom(message=message) | Outage(message=message):
                text = message[-MAX_TEXT:]
                return Released(**token, reason="no_room", message=text, seconds=seconds)
        return Released(**token, reason=ending, seconds=seconds)

    async def _settle(
        self, lease: Lease, message: Message, hold: Hold | None = None
    ) -> bool | None:
        """Send a report until the store answers.

        Returns:
            True if the report was accepted. False if the lease was lost before. None if it is not
            known: the store's answer was lost, or the store refuses because the experiment's data
            are damaged. The report may then have arrived, so its checkpoint must stay.
        """
        report, body = message.report, message.body
        token = f"{report.trial}#{report.attempt} {report.type} by {self._worker}"
        give_up: float | None = None
        retries = RetryLog(log)
        unsure = False
        while True:
            try:
                accepted = await self._store.settle(lease, report.slot, token, body, hold)
            except (StoreUnavailableError, AccessError) as error:
                unsure = True
                now = asyncio.get_running_loop().time()
                if self._shutdown.begun:
                    give_up = give_up or now + self._shutdown.grace_s
                    if now >= give_up:
                        log.warning("trial %s could not be reported: %s", report.trial, error)
                        return None
                retries.failed(f"no report: {error}; trying again")
                await asyncio.sleep(BACKOFF_S)
                continue
            except StoreError as error:
                # Only this experiment is affected, so the worker goes on with the others.
                log.error("trial %s could not be reported: %s", report.trial, error)  # noqa: TRY400
                return None
            retries.worked()
            # The store remembers only the last end of a slot's lease. After a lost answer, "no" may
            # mean that the report arrived then, and that the slot has gone on since.
            return None if unsure and not accepted else accepted

    async def _discard(self, experiment: Experiment, ending: Ending | ReleaseReason) -> None:
        """Remove the checkpoint of an attempt, if there is one, because no report names it."""
        if not isinstance(ending, Success | Stopped) or ending.checkpoint is None:
            return
        try:
            await self._trainer.discard(experiment, ending.checkpoint)
        except CheckpointError as error:
            log.warning("%s: %s", experiment.name, error)

    async def _keep_output(self, attempt: Attempt, warning: str) -> None:
        """Store what the task printed, and the warning, for people; errors are only logged."""
        trial, text = attempt.trial, attempt.output
        if warning:
            text += ("\n" if text and not text.endswith("\n") else "") + warning
        if text:
            output = Output(trial.id, trial.attempt, self._worker, text)
            try:
                await self._store.write_output(attempt.experiment.name, output)
            except StoreError as error:
                log.debug("output of trial %s not kept: %s", trial.id, error)
