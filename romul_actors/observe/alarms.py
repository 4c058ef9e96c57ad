"""What an operator should look at in an experiment, for all views of it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from romul_actors.observe.snapshot import Snapshot, age, refusal_in_words
from romul_actors.protocol.statuses import ENDED

UNDECIDED_S = 15.0
"""An event that has waited so long is one that no actor decides, whatever the population's size. An
actor takes some milliseconds; the entries of a dead one are taken over after five seconds."""
BACKLOG = 10
"""Entries in the inbox for each slot from which the actors are too slow."""
FEW_SLOTS = 10
"""A smaller population counts as one of so many slots there."""
NOWHERE = 2
"""Trials for each slot that were found in no queue, up to which a server came back once without
them: with a second copy a slot has two. That costs no attempt, so that nothing else ends it."""
STUCK_LEASES = 2.0
"""A trial whose worker sent no heartbeat for so many leases is stuck: no actor takes it back."""
MOST_NAMED = 3
"""Workers that a finding names."""

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        level: "ok", "warning", or "fault".
        what: what was found, in words.
        remedy: what to do; "" if nothing.
        server: whether it is of the server itself, without which nothing goes on.
    """

    level: Level
    what: str
    remedy: str = ""
    server: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.remedy})" if self.remedy else self.what


def alarms(seen: Snapshot, holders: Collection[str] = ()) -> list[Finding]:
    """What is wrong with an experiment, the gravest first; often nothing.

    Args:
        seen: the experiment; its slots need not have been read.
        holders: workers that have leases on its trials, as far as that is known.
    """
    return [*_own(seen), *_of_workers(seen, holders), *_left_behind(seen)]


def _own(seen: Snapshot) -> Iterator[Finding]:
    """Faults, and signs that no actor decides."""
    name, waiting = seen.experiment.name, seen.depths["inbox"]
    if seen.status == "failed":
        yield Finding("fault", seen.reason, f"`romul failures {name}`, then `romul resume {name}`")
    elif seen.fault:
        yield Finding("fault", seen.fault, "it goes on once that is mended; no restart needed")
    if seen.status == "submitted":
        yield Finding("warning", "no actor has begun with it", "`romul actor` starts one")
    elif seen.undecided_s > UNDECIDED_S and not seen.fault:
        # What waits for a fault to be mended is read by an actor.
        since = age(seen.undecided_s)
        what = f"no actor has decided on the oldest event for {since}; {waiting} wait"
        yield Finding("warning", what, "is one running that serves it? `romul actor` starts one")
    elif waiting > BACKLOG * max(FEW_SLOTS, seen.n_slots):
        yield Finding("warning", f"{waiting} events wait for a decision", "is an actor running?")
    nowhere = seen.causes.get("missing", 0)
    if nowhere > NOWHERE * max(FEW_SLOTS, seen.n_slots) and seen.status not in ENDED:
        yield Finding(
            "warning",
            f"{nowhere} times a trial was in no queue, and was queued again",
            "the server loses what it held, or each time a worker cannot read the trial: "
            f"`romul dead list {name}`, `romul doctor`",
        )


def _of_workers(seen: Snapshot, holders: Collection[str]) -> Iterator[Finding]:
    lease_s, allow = seen.experiment.timeouts.lease_s, f"--allow {seen.experiment.module}"
    # Its own tasks are installed with ROMUL; others lie in some folder.
    if not seen.experiment.module.startswith("romul_workers."):
        allow += " --path FOLDER"
    if seen.status in ("running", "paused") and not seen.alive:
        yield Finding("warning", "no worker is alive", f"`romul worker {allow}` starts one")
    if seen.refusing and seen.status not in ENDED:
        # Where others serve it this may well be meant.
        yield Finding(
            "ok" if seen.alive else "warning",
            f"workers that do not serve it: {few([refusal_in_words(w) for w in seen.refusing])}",
            f"one that is to serve it is of the actors' version, and started with {allow}",
        )
    ages_s = {w.name: w.age_s for w in seen.workers if w.age_s is not None}
    if silent := [name for name, age_s in ages_s.items() if lease_s / 2 < age_s < lease_s]:
        yield Finding("warning", f"silent for half a lease: {few(silent)}")
    # What a lost worker last said of itself stays for a while after its lease was taken away.
    stuck = [n for n, age_s in ages_s.items() if age_s > STUCK_LEASES * lease_s and n in holders]
    if stuck and seen.status == "running":
        what = f"leases that have ended, and that no actor took away: {few(stuck)}"
        yield Finding("warning", what, "is an actor running?")
    if full := [w.name for w in seen.alive if w.state == "no room"]:
        yield Finding("warning", f"no room for checkpoints on workers: {few(full)}")
    if away := [w.name for w in seen.alive if w.state == "no storage"]:
        what = f"no checkpoint stored since its storage refused, or did not answer: {few(away)}"
        yield Finding("warning", what, "the logs of these workers say how")
    if failing := [w.name for w in seen.alive if w.state == "failing"]:
        yield Finding("warning", f"trials fail on these workers only: {few(failing)}")


def _left_behind(seen: Snapshot) -> Iterator[Finding]:
    """Messages and options that count no more."""
    if dead := seen.depths["dead"]:
        list_them = f"`romul dead list {seen.experiment.name}` shows them"
        yield Finding("warning", f"dead letters: {dead}", list_them)
    for text in seen.left_out:
        yield Finding("warning", text, "nothing: it goes on without that, by today's rule")


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    first, more = names[:MOST_NAMED], len(names) - MOST_NAMED
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
