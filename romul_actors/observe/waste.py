"""Useful and lost machine time, by cause and by worker."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.core.history import (
    Line,
    ReportStale,
    SecondCopyStarted,
    TrialCreated,
    TrialFailed,
    TrialReleased,
    TrialReported,
)

CLOCKS_OFF = 0.02
"""A worker's clock may be faster than the server's by this share; shorter overlaps are ignored."""


@dataclass(slots=True)
class Waste:
    """Machine time, in seconds.

    Attributes:
        useful_s: time of attempts whose result or partial checkpoint counts.
        by_cause: time of all other attempts, by the reason in the history.
        by_worker: the same, by worker.
        attempts: number of lost attempts, by cause.
    """

    useful_s: float = 0.0
    by_cause: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    by_worker: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    attempts: Counter[str] = field(default_factory=Counter)

    def lose(self, cause: str, worker: str, seconds: float) -> None:
        """Count an attempt of `seconds` as lost; `worker` is "" if it is unknown."""
        self.by_cause[cause] += seconds
        self.attempts[cause] += 1
        if worker:
            self.by_worker[worker] += seconds

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        lost_s = sum(self.by_cause.values())
        whole_s = self.useful_s + lost_s
        return {
            "useful_s": round(self.useful_s, 3),
            "lost_s": round(lost_s, 3),
            "share_lost": round(lost_s / whole_s, 4) if whole_s else 0.0,
            "by_cause": {k: round(v, 3) for k, v in sorted(self.by_cause.items())},
            "by_worker": {k: round(v, 3) for k, v in sorted(self.by_worker.items())},
            "attempts": dict(sorted(self.attempts.items())),
        }


def waste(lines: Sequence[Line]) -> Waste:
    """Add up useful and lost machine time; no second of a worker counts twice.

    A worker with two leases stores one checkpoint while it trains the next trial. That time belongs
    to the earlier report, and the later one counts from there.

    History does not say how long a lost worker had its trial. The function counts the time until
    the loss was noticed, from when the trial was queued or from the worker's previous line of
    history, whichever came later. This is an upper bound.
    """
    found = Waste()
    queued_ms: dict[str, int] = {}
    last_ms: dict[str, int] = {}
    for line in lines:
        if isinstance(line, TrialCreated | SecondCopyStarted):
            queued_ms[line.trial] = line.at_ms
        if not isinstance(line, TrialReported | TrialFailed | TrialReleased | ReportStale):
            continue
        seconds = _seconds(line, queued_ms.get(line.trial, line.at_ms), last_ms.get(line.worker, 0))
        match line:
            case TrialReported() | TrialReleased(checkpoint=str()):
                found.useful_s += seconds
            case ReportStale():
                found.lose(line.event, line.worker, seconds)
            case TrialFailed() | TrialReleased():
                found.lose(line.reason, line.worker, seconds)
        if isinstance(line, TrialFailed | TrialReleased):
            queued_ms[line.trial] = line.at_ms
        if line.worker:
            last_ms[line.worker] = line.at_ms
    return found


def _seconds(
    line: TrialReported | TrialFailed | TrialReleased | ReportStale, queued_ms: int, last_ms: int
) -> float:
    """How long the worker of a line worked on that attempt only.

    Args:
        line: the attempt's end.
        queued_ms: when the trial was queued.
        last_ms: time of the worker's previous line of history.
    """
    said_ms = 0.0 if isinstance(line, ReportStale) else 1000 * (line.seconds or 0.0)
    if not said_ms:
        return max(0.0, (line.at_ms - max(queued_ms, last_ms)) / 1000)
    began_ms, off_ms = line.at_ms - said_ms, CLOCKS_OFF * said_ms
    # If by the worker's clock it began before it was queued, that clock is not used.
    if began_ms + off_ms < last_ms and began_ms + off_ms >= queued_ms:
        return (line.at_ms - last_ms) / 1000
    return said_ms / 1000
