"""Problems of an experiment that need an operator's attention, for all views of it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from romul_actors.observe.snapshot import Snapshot, age, refusal_in_words
from romul_actors.protocol.statuses import ENDED, OVER
from romul_actors.store import REFUSES

UNDECIDED_S = 15.0
"""If an event has waited longer, no actor decides it, whatever the size of the population. An actor
takes some milliseconds, and the entries of a dead actor are taken over after five seconds."""
BACKLOG = 10
"""With more inbox entries per slot, the actors are too slow."""
FEW_SLOTS = 10
"""BACKLOG and NOWHERE treat a smaller population as one of this size."""
NOWHERE = 2
"""Missing trials per slot that one restart of the server with older data can explain: with a second
copy, a slot has two trials in the queues. They cost no attempts, so no other limit ends this."""
FEW_LOST = 5
"""Fewer parents that could not be read are damaged or removed checkpoints, not another folder."""
LOST_SHARE = 0.1
"""With more lost parents per reported trial, workers do not see each other's checkpoints."""
STUCK_LEASES = 2.0
"""If a worker sent no heartbeat for this many leases, no actor ends its leases."""
MOST_NAMED = 3
"""Maximum number of workers that a finding names."""

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        level: "ok", "warning", or "fault".
        what: what was found, as text.
        remedy: what to do; "" for nothing.
        server: whether it concerns the server itself, without which nothing works.
    """

    level: Level
    what: str
    remedy: str = ""
    server: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.remedy})" if self.remedy else self.what


def alarms(seen: Snapshot, holders: Collection[str] = ()) -> list[Finding]:
    """The problems of an experiment, the most serious one first.

    Args:
        seen: the experiment; its slots need not have been read.
        holders: workers known to have leases on its trials.
    """
    return [*_own(seen), *_of_workers(seen, holders), *_left_behind(seen)]


def _own(seen: Snapshot) -> Iterator[Finding]:
    """Faults, and signs that no actor decides."""
    name, waiting = seen.experiment.name, seen.depths["inbox"]
    if seen.status == "failed":
        yield Finding("fault", seen.reason, f"`romul failures {name}`, then `romul resume {name}`")
    elif seen.fault:
        yield Finding(
            "fault", seen.fault, "it continues once this is repaired; no restart is needed"
        )
    if seen.status == "submitted":
        yield Finding("warning", "no actor has started it", "`romul actor` starts one")
    elif seen.undecided_s > UNDECIDED_S and not seen.fault:
        # If an event waits because of a fault, an actor does read it.
        since = age(seen.undecided_s)
        what = f"no actor has decided the oldest event for {since}; {waiting} events wait"
        yield Finding(
            "warning", what, "is an actor running that serves it? `romul actor` starts one"
        )
    elif waiting > BACKLOG * max(FEW_SLOTS, seen.n_slots):
        yield Finding("warning", f"{waiting} events wait for a decision", "is an actor running?")
    nowhere = seen.causes.get("missing", 0)
    if nowhere > NOWHERE * max(FEW_SLOTS, seen.n_slots) and seen.status not in ENDED:
        yield Finding(
            "warning",
            f"trials were missing from the queues {nowhere} times, and were queued again",
            "the server loses data, or workers cannot read the trials: see `romul dead list "
            f"{name}` and `romul doctor`",
        )
    lost = seen.causes.get("lost_parent", 0)
    most = LOST_SHARE * seen.counts["reported"]
    if lost >= FEW_LOST and lost > most and seen.status not in OVER:
        yield Finding(
            "warning",
            f"{lost} attempts could not read the checkpoint of their parent",
            f"do all workers see the same folder at {seen.experiment.checkpoints}? If the server's "
            "data were restored, its checkpoints must be restored from the same time",
        )


def _of_workers(seen: Snapshot, holders: Collection[str]) -> Iterator[Finding]:
    lease_s, allow = seen.experiment.timeouts.lease_s, f"--allow {seen.experiment.module}"
    # Tasks of ROMUL are installed with it; others need a folder.
    if not seen.experiment.module.startswith("romul_workers."):
        allow += " --path FOLDER"
    if seen.status in ("running", "paused") and not seen.alive:
        yield Finding("warning", "no worker is alive", f"`romul worker {allow}` starts one")
    if seen.refusing and seen.status not in ENDED:
        # If other workers serve it, this may be intended.
        yield Finding(
            "ok" if seen.alive else "warning",
            f"workers that do not serve it: {few([refusal_in_words(w) for w in seen.refusing])}",
            f"to serve it, a worker needs the actors' version, and {allow}",
        )
    ages_s = {w.name: w.age_s for w in seen.workers if w.age_s is not None}
    # A worker that refuses shows itself only every ten seconds, however short the lease is.
    refusing = {w.name for w in seen.workers if w.state == REFUSES}
    late = [name for name, age_s in ages_s.items() if lease_s / 2 < age_s < lease_s]
    if silent := [name for name in late if name not in refusing]:
        yield Finding("warning", f"no heartbeat for half a lease: {few(silent)}")
    # The last state of a lost worker stays for a while after its lease has ended.
    stuck = [n for n, age_s in ages_s.items() if age_s > STUCK_LEASES * lease_s and n in holders]
    if stuck and seen.status == "running":
        what = f"leases that are overdue, but that no actor has ended: {few(stuck)}"
        yield Finding("warning", what, "is an actor running?")
    if full := [w.name for w in seen.alive if w.state == "no room"]:
        yield Finding("warning", f"no room for checkpoints on workers: {few(full)}")
    if away := [w.name for w in seen.alive if w.state == "no storage"]:
        what = f"the storage for checkpoints refuses or does not answer: {few(away)}"
        yield Finding("warning", what, "see the logs of these workers")
    if failing := [w.name for w in seen.alive if w.state == "failing"]:
        yield Finding("warning", f"trials fail on these workers only: {few(failing)}")


def _left_behind(seen: Snapshot) -> Iterator[Finding]:
    """Messages and options that no longer count."""
    if dead := seen.depths["dead"]:
        list_them = f"`romul dead list {seen.experiment.name}` shows them"
        yield Finding("warning", f"dead letters: {dead}", list_them)
    for text in seen.left_out:
        yield Finding(
            "warning", text, "nothing to do: it continues by the current rule, without that option"
        )


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    first, more = names[:MOST_NAMED], len(names) - MOST_NAMED
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
