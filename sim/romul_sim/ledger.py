"""What machines were paid for, and what their time was used for, in machine seconds."""

from dataclasses import dataclass, field

from romul_actors.core.history import (
    Line,
    ReportStale,
    TrialFailed,
    TrialReleased,
    TrialReported,
)
from romul_sim.fakes import Span

CAUSES = {
    "preemption": "training that ended with its machine",
    "time-out": "training whose lease had ended: its machine was frozen, or cut off",
    "stale": "results that came too late",
    "copies": "second copies that were not needed, and what they were made for",
    "given up": "trials that failed",
    "unfinished": "under way when the search ended",
    "idle": "no trial to do",
}
"""Why time was wasted."""


@dataclass(slots=True)
class Ledger:
    """The accounts of one simulation.

    Attributes:
        useful_s: training whose result, or whose partial checkpoint, counts.
        waste_s: by cause; see `CAUSES`.
        paid_s, dollars: of all machines so far; `to` brings them up to date.
        keep: whether spans and machines' lives are kept for a picture.
        spans: attempts with their fate.
        lives: by machine, its zone, arrival and end.
        curve: (seconds, dollars, loss) whenever the best loss of any search got better.
        sizes: (seconds, machines, active slots) whenever one of them changed.
    """

    keep: bool = False
    useful_s: float = 0.0
    waste_s: dict[str, float] = field(default_factory=dict)
    paid_s: float = 0.0
    dollars: float = 0.0
    spans: list[tuple[Span, str]] = field(default_factory=list)
    lives: dict[str, tuple[str, float, float | None]] = field(default_factory=dict)
    curve: list[tuple[float, float, float]] = field(default_factory=list)
    sizes: list[tuple[float, int, int]] = field(default_factory=list)
    arrived: int = 0
    left: int = 0
    _open: dict[tuple[str, str, int], Span] = field(default_factory=dict)
    _fate: dict[tuple[str, str, int], str] = field(default_factory=dict)
    _prices: dict[str, float] = field(default_factory=dict)
    _now_s: float = 0.0

    def to(self, now_s: float) -> None:
        """Bring the accounts to a moment."""
        gone_s, self._now_s = now_s - self._now_s, now_s
        if not gone_s:
            # Many machines come in one instant, and the sum is over all of them.
            return
        self.paid_s += gone_s * len(self._prices)
        self.dollars += gone_s * sum(self._prices.values()) / 3600

    def arrive(self, machine: str, zone: str, price: float, now_s: float) -> None:
        """A machine is paid for from now on."""
        self.to(now_s)
        self.arrived += 1
        self._prices[machine] = price
        if self.keep:
            self.lives[machine] = (zone, now_s, None)

    def leave(self, machine: str, now_s: float) -> None:
        """A machine is no longer paid for."""
        self.to(now_s)
        self.left += 1
        del self._prices[machine]
        if self.keep:
            zone, came_s, _ = self.lives[machine]
            self.lives[machine] = (zone, came_s, now_s)

    @property
    def machines(self) -> int:
        """How many are there now."""
        return len(self._prices)

    def span(self, span: Span) -> None:
        """An attempt began, or has ended."""
        key = (span.experiment, span.trial, span.attempt)
        self._open[key] = span
        if span.end_s is not None and key in self._fate:
            self._close(key)

    def judge(self, name: str, line: Line) -> None:
        """Take from a line of history what became of an attempt."""
        match line:
            case TrialReported() | TrialReleased() | TrialFailed() | ReportStale():
                key = (name, line.trial, line.attempt)
            case _:
                return
        if key not in self._open:
            return
        span = self._open[key]
        self._fate[key] = _fate(line, span)
        if span.end_s is not None:
            self._close(key)

    def _close(self, key: tuple[str, str, int]) -> None:
        span, fate = self._open.pop(key), self._fate.pop(key)
        if fate == "time-out" and span.how == "cut":
            fate = "preemption"
        seconds = (span.end_s or 0.0) - span.begin_s
        if fate == "useful":
            self.useful_s += seconds
        else:
            self.waste_s[fate] = self.waste_s.get(fate, 0.0) + seconds
        if self.keep:
            self.spans.append((span, fate))

    def end(self, now_s: float) -> None:
        """The simulation is over: what is still open was for nothing; the rest was idleness."""
        self.to(now_s)
        for key, span in sorted(self._open.items()):
            span.end_s = now_s if span.end_s is None else span.end_s
            cut = span.how == "cut"
            self._fate[key] = "preemption" if cut else self._fate.get(key, "unfinished")
            self._close(key)
        used_s = self.useful_s + sum(self.waste_s.values())
        self.waste_s["idle"] = max(0.0, self.paid_s - used_s)


def _fate(line: TrialReported | TrialReleased | TrialFailed | ReportStale, span: Span) -> str:
    """Whether an attempt was useful, or why it was not."""
    match line:
        case TrialReported():
            return "useful"
        case TrialReleased(checkpoint=str()):
            return "useful"
    if span.how == "cut":
        return "preemption"
    if isinstance(line, ReportStale):
        # Its worker was cancelled when the other attempt had been faster.
        return "copies" if span.how == "cancelled" else "stale"
    causes = {"lost": "time-out", "preempted": "preemption", "outdated": "copies"}
    return causes.get(line.reason, "given up")
