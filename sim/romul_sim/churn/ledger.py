"""Accounts of what machines cost and what their time was used for, in machine seconds.

Each second of a machine is counted once: the machine was frozen, used by one attempt, or idle.
Whether an attempt's seconds were useful is known when its report was accepted or not.
"""

from dataclasses import dataclass, field

from romul_actors.core.history import (
    Line,
    ReportStale,
    TrialFailed,
    TrialReleased,
    TrialReported,
)
from romul_sim.cluster.training import Span

CAUSES = {
    "preemption": "training that ended with its machine",
    "time-out": "training whose lease had ended: its machine was frozen, or cut off",
    "stale": "results that came too late",
    "copies": "second copies that were not needed, and what they were made for",
    "given up": "trials that failed",
    "unfinished": "under way when the search ended",
    "frozen": "the machine stood still: frozen, or of speed 0",
    "idle": "no trial to do",
}
"""Why time was wasted."""


Judgement = TrialReported | TrialReleased | TrialFailed | ReportStale
"""A line of history that says how an attempt ended."""


@dataclass(slots=True)
class MachineTime:
    """One machine's time, from its arrival to its end.

    While a checkpoint is stored beside the next trial, the time belongs to the next trial.

    Attributes:
        ledger: gets the time that no attempt used.
        now_s: the time up to which the accounts are complete.
    """

    ledger: "Ledger"
    now_s: float
    _attempts: list[Span] = field(default_factory=list)
    _frozen_until_s: float = 0.0
    _stands: bool = False
    _left: bool = False

    def to(self, now_s: float) -> None:
        """Bring the accounts to a moment."""
        passed_s = now_s - self.now_s
        if self._left or not passed_s:
            return
        thaw_s = now_s if self._stands else self._frozen_until_s
        frozen_s = min(passed_s, max(0.0, thaw_s - self.now_s))
        self.now_s = now_s
        if frozen_s:
            self.ledger.waste("frozen", frozen_s)
        training = [span for span in self._attempts if not span.stores]
        for span in (training or self._attempts)[:1]:
            span.used_s += passed_s - frozen_s
        if not self._attempts:
            self.ledger.waste("idle", passed_s - frozen_s)

    def freeze(self, now_s: float, until_s: float) -> None:
        """Freeze the machine until `until_s`; a longer freeze is not shortened."""
        self.to(now_s)
        self._frozen_until_s = max(until_s, self._frozen_until_s)

    def change(self, now_s: float, speed: float) -> None:
        """Change the machine's speed; at 0 it stands still."""
        self.to(now_s)
        self._stands = speed == 0.0

    def span(self, span: Span, now_s: float) -> None:
        """Account an attempt that begins, goes on, or has ended."""
        if self.ledger.ended:
            return
        self.to(now_s)
        if span.end_s is not None:
            self._attempts.remove(span)
        elif span not in self._attempts:
            self._attempts.append(span)
        self.ledger.span(span)

    def leave(self, now_s: float) -> None:
        """The machine is gone; its attempts end at the same time."""
        self.to(now_s)
        self._left = True


@dataclass(slots=True)
class Ledger:
    """The accounts of one simulation.

    Attributes:
        keep: whether to keep spans and machines' lives for a picture.
        useful_s: time of training whose result or partial checkpoint counts, in seconds.
        waste_s: wasted time by cause, in seconds; see `CAUSES`.
        paid_s, dollars: machine time and cost of all machines so far; `to` updates them.
        spans: attempts, each with what its time counts as.
        lives: zone, arrival and end of each machine, by name.
        curve: (seconds, dollars, loss) at each improvement of the best loss of all searches.
        sizes: (seconds, machines, active slots) at each change.
        arrived, left: number of machines.
        ended: whether the accounts are closed.
    """

    keep: bool = False
    useful_s: float = 0.0
    waste_s: dict[str, float] = field(default_factory=lambda: {"idle": 0.0})
    paid_s: float = 0.0
    dollars: float = 0.0
    spans: list[tuple[Span, str]] = field(default_factory=list)
    lives: dict[str, tuple[str, float, float | None]] = field(default_factory=dict)
    curve: list[tuple[float, float, float]] = field(default_factory=list)
    sizes: list[tuple[float, int, int]] = field(default_factory=list)
    arrived: int = 0
    left: int = 0
    ended: bool = False
    _open: dict[tuple[str, str, int], Span] = field(default_factory=dict)
    _judged: dict[tuple[str, str, int], Judgement] = field(default_factory=dict)
    _there: dict[str, tuple[MachineTime, float]] = field(default_factory=dict)
    """The machines that are there, each with its price per hour, by name."""
    _now_s: float = 0.0

    def to(self, now_s: float) -> None:
        """Update time and cost up to `now_s`."""
        gone_s, self._now_s = now_s - self._now_s, now_s
        if not gone_s:
            # Skip the sum over all machines if many of them arrive at the same time.
            return
        self.paid_s += gone_s * len(self._there)
        self.dollars += gone_s * sum(price for _, price in self._there.values()) / 3600

    def arrive(self, machine: str, zone: str, price: float, now_s: float) -> MachineTime:
        """A machine arrives, and is paid for from now on."""
        self.to(now_s)
        self.arrived += 1
        time = MachineTime(self, now_s)
        self._there[machine] = time, price
        if self.keep:
            self.lives[machine] = (zone, now_s, None)
        return time

    def leave(self, machine: str, now_s: float) -> None:
        """A machine leaves, and is no longer paid for."""
        self.to(now_s)
        self.left += 1
        self._there.pop(machine)[0].leave(now_s)
        if self.keep:
            zone, came_s, _ = self.lives[machine]
            self.lives[machine] = (zone, came_s, now_s)

    @property
    def machines(self) -> int:
        """Current number of machines."""
        return len(self._there)

    def waste(self, cause: str, seconds: float) -> None:
        """Count wasted seconds."""
        self.waste_s[cause] = self.waste_s.get(cause, 0.0) + seconds

    def span(self, span: Span) -> None:
        """Account an attempt that began or has ended."""
        key = (span.experiment, span.trial, span.attempt)
        self._open[key] = span
        if span.end_s is not None and key in self._judged:
            self._close(key)

    def judge(self, name: str, line: Line) -> None:
        """Take from a line of history how an attempt ended."""
        match line:
            case TrialReported() | TrialReleased() | TrialFailed() | ReportStale():
                key = (name, line.trial, line.attempt)
            case _:
                return
        if key not in self._open:
            return
        span = self._open[key]
        self._judged[key] = line
        if span.end_s is not None:
            self._close(key)

    def _close(self, key: tuple[str, str, int]) -> None:
        span = self._open.pop(key)
        fate = _fate(self._judged.pop(key, None), span)
        if fate == "useful":
            self.useful_s += span.used_s
        else:
            self.waste(fate, span.used_s)
        if self.keep:
            self.spans.append((span, fate))

    def end(self, now_s: float) -> None:
        """Close the accounts: attempts that are still open count as wasted."""
        self.to(now_s)
        for time, _ in self._there.values():
            time.to(now_s)
        for key, span in sorted(self._open.items()):
            span.end_s = now_s if span.end_s is None else span.end_s
            self._close(key)
        self.ended = True


def _fate(line: Judgement | None, span: Span) -> str:
    """What an attempt's time counts as: "useful", or a cause of waste in `CAUSES`."""
    match line:
        case TrialReported():
            return "useful"
        case TrialReleased(checkpoint=str()):
            return "useful"
    if span.how == "cut":
        return "preemption"
    if line is None:
        return "unfinished"
    if isinstance(line, ReportStale):
        # If it has no result, it was stopped because the other attempt was faster.
        return "stale" if span.how in ("done", "paused") else "copies"
    causes = {"lost": "time-out", "preempted": "preemption", "outdated": "copies"}
    return causes.get(line.reason, "given up")
