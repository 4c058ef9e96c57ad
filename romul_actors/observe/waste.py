"""Where the machines' time went: what counts, and what was lost, by cause and by worker."""

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


@dataclass(slots=True)
class Waste:
    """Machine seconds by what became of them.

    Attributes:
        useful_s: of attempts whose result, or partial checkpoint, counts.
        by_cause: of all others, by the reason that history gives.
        by_worker: the same, by worker.
        attempts: how many were lost, by cause.
    """

    useful_s: float = 0.0
    by_cause: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    by_worker: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    attempts: Counter[str] = field(default_factory=Counter)

    def lose(self, cause: str, worker: str, seconds: float) -> None:
        """Count an attempt of `seconds` that came to nothing; `worker` "": not known."""
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
    """Add up where the machines' time went.

    History does not say for how long a lost worker had its trial. Counted is the time from when the
    trial was queued, or from the worker's previous line of history, whichever came later, to when
    the loss was noticed: the most that it can be.
    """
    found = Waste()
    queued_ms: dict[str, int] = {}
    last_ms: dict[str, int] = {}
    for line in lines:
        if isinstance(line, TrialCreated | SecondCopyStarted):
            queued_ms[line.trial] = line.at_ms
        if not isinstance(line, TrialReported | TrialFailed | TrialReleased | ReportStale):
            continue
        began_ms = max(queued_ms.get(line.trial, line.at_ms), last_ms.get(line.worker, 0))
        longest_s = max(0.0, (line.at_ms - began_ms) / 1000)
        match line:
            case TrialReported():
                found.useful_s += line.seconds
            case TrialReleased(checkpoint=str()):
                found.useful_s += line.seconds or longest_s
            case ReportStale():
                found.lose(line.event, line.worker, longest_s)
            case TrialFailed() | TrialReleased():
                found.lose(line.reason, line.worker, line.seconds or longest_s)
        if isinstance(line, TrialFailed | TrialReleased):
            queued_ms[line.trial] = line.at_ms
        if line.worker:
            last_ms[line.worker] = line.at_ms
    return found
