"""What a store takes and returns: plain frozen records, and the bounds of what it keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Self

from romul_actors.core.history import Line
from romul_actors.core.value import value

MAX_DEAD = 250_000
"""Most dead letters that are kept; the oldest go first."""
MAX_LOGS = 2_000
"""Most attempts whose output is kept; the oldest go first."""
MAX_LOG = 8_000
"""Longest output of an attempt that is kept, in characters: its end."""
MAX_DEAD_BODY = 1_024
"""Longest part of a dead letter that is kept, in bytes: its beginning."""
MOST_UNDECIDED = 10
"""Most inbox entries of either end that a glance at a search that has ended shows (`glance.lua` has
it, too)."""
MAX_UNDECIDED = 10_000
"""Longest part of such an entry that is shown, in bytes: its beginning (`glance.lua` has it, too).
An operator's request is shorter, but for one that sets constants of that length."""


REFUSES = "refuses"
"""State of a worker that does not serve an experiment; `why` in its presence says why not."""


def serves(presence: Mapping[str, Any]) -> bool:
    """Whether a worker that is present serves the experiment."""
    return presence.get("state") != REFUSES


@value()
class Entry:
    """An inbox entry, pending with the actor that read it."""

    experiment: str
    id: str
    at_ms: int
    """Time of its arrival by the store's clock, in milliseconds since the epoch."""
    body: bytes


@value()
class Lease:
    """A trial that one worker holds."""

    experiment: str
    id: str
    worker: str
    body: bytes
    stream: str = "trials"
    """Out of `keys.LEASES`: where its entry is."""


@value()
class Hold:
    """What a worker says of its process's memory when it reports.

    Attributes:
        checkpoint: what lies there; "": nothing any more.
        for_ms: how long a trial that continues from it may wait for this worker.
        warm: whether the reported trial found its parent there; None: it has no parent.
    """

    checkpoint: str = ""
    for_ms: int = 0
    warm: bool | None = None


@value()
class AffinityCounts:
    """What targeted claims came to in one experiment.

    Attributes:
        restores: how many trials restored a parent, as far as workers say.
        warm: how many of them from memory.
        offers: trials that were held for one worker.
        released: those of them that it did not take in time.
        waited_ms: how long all of them waited for it: the most that it made other workers idle.
    """

    restores: int = 0
    warm: int = 0
    offers: int = 0
    released: int = 0
    waited_ms: int = 0


@value()
class Committed:
    """An applied commit.

    Attributes:
        version: the new version.
        release_ms: after so long, what it offered to single workers is to be released; None: it
            offered nothing.
    """

    version: str
    release_ms: int | None = None


@value()
class Stored:
    """An experiment's population as it was at one version."""

    version: str
    meta: Mapping[str, str]
    slots: Sequence[Mapping[str, str]]


class LineText(str):
    """A line of history as JSON text, with the line that it was made of.

    What reads it in the same process need not read the text.
    """

    __slots__ = ("line",)
    line: Line

    @classmethod
    def of(cls, line: Line, text: str) -> Self:
        """A line's text."""
        made = cls(text)
        made.line = line
        return made


@value()
class Commit:
    """All that one batch of decisions changes, applied in one piece.

    Attributes:
        version: the version that the batch was decided on.
        nonce: makes the next version unique: a server that restarts from older data counts on
            from there, and would use a plain number twice.
        entries: ids of the inbox entries that the batch answers.
        meta: fields of the experiment's own hash.
        slots: by index, fields of the slots' hashes; others stay as they are.
        trials: messages for workers.
        parents: by trial, the checkpoint that it continues from, or ""; empty: of none is known.
        history: JSON texts, oldest first.
        history_keep: how many history entries to keep at least.
        garbage: names of checkpoints that no trial can need any more.
    """

    version: str
    entries: Sequence[str]
    meta: Mapping[str, str] = field(default_factory=dict)
    slots: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    trials: Sequence[bytes] = ()
    parents: Sequence[str] = ()
    history: Sequence[str] = ()
    history_keep: int = 200_000
    garbage: Sequence[str] = ()
    nonce: str = ""


@value()
class DeadLetter:
    """A message that no actor or worker could use."""

    id: str
    origin: str
    """The queue that it came from: inbox or trials."""
    reason: str
    body: bytes
    """Its first MAX_DEAD_BODY bytes."""
    size: int
    """Its whole length in bytes; a message that was cut cannot be resubmitted."""


@value()
class Outstanding:
    """All messages in the two queues, read or not, at one version."""

    version: str
    trials: Sequence[bytes]
    inbox: Sequence[bytes]


@value()
class Glance:
    """An experiment as a screen shows it, at one moment.

    Attributes:
        now_ms: the store's own time, in milliseconds since the epoch.
        meta: fields of the experiment's own hash, its declaration `spec` among them.
        slots: by index, the requested fields of each slot.
        workers: presence of each worker, with `age_ms` since its latest heartbeat.
        depths: number of entries in `inbox`, `trials`, `history` and `dead`.
        history: (id, JSON text), oldest first.
        undecided: (arrival by the same clock, b"") of the oldest entry of the inbox. Where the
            search has ended, (arrival, beginning of the body) of the `MOST_UNDECIDED` oldest
            entries and of as many newest ones, the oldest first: late reports may be around an
            operator's request there.
    """

    now_ms: int
    meta: Mapping[str, str]
    slots: Sequence[Mapping[str, str]]
    workers: Mapping[str, Mapping[str, Any]]
    depths: Mapping[str, int]
    history: Sequence[tuple[str, str]]
    undecided: Sequence[tuple[int, bytes]] = ()


@value()
class Output:
    """What a task printed during one attempt."""

    trial: str
    attempt: int
    worker: str
    text: str


@value()
class Beat:
    """The store's answer to a worker's heartbeat."""

    kept: bool
    """Whether the worker still holds the lease."""
    status: str
    """The experiment's status; empty when there is no such experiment."""
    outdated: bool = False
    """Whether another attempt of the same trial has already brought a result."""
