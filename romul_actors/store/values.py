"""The records that a store takes and returns, and limits on what it keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Self

from romul_actors.core.history import Line
from romul_actors.core.value import value

MAX_DEAD = 250_000
"""Maximal number of dead letters that are kept; the oldest are removed first."""
MAX_LOGS = 2_000
"""Maximal number of attempts whose output is kept; the oldest are removed first."""
MAX_LOG = 8_000
"""Maximal length of an attempt's output, in characters; only its end is kept."""
MAX_DEAD_BODY = 1_024
"""Maximal length of a dead letter, in bytes; only its beginning is kept."""
MOST_UNDECIDED = 10
"""For a search that has ended, a glance returns this many of the oldest inbox entries, and as many
of the newest (the same number is in `glance.lua`)."""
MAX_UNDECIDED = 10_000
"""Number of bytes returned of such an entry, from its beginning (the same number is in
`glance.lua`). An operator's request is shorter, unless it sets very long constants."""


REFUSES = "refuses"
"""State of a worker that does not serve an experiment; the field `why` of its presence says why."""


def serves(presence: Mapping[str, Any]) -> bool:
    """Whether a worker with this presence serves the experiment."""
    return presence.get("state") != REFUSES


@value()
class Entry:
    """An inbox entry, pending with the actor that read it."""

    experiment: str
    id: str
    at_ms: int
    """Time of arrival by the store's clock, in milliseconds since the epoch."""
    body: bytes


@value()
class Lease:
    """A trial that one worker holds."""

    experiment: str
    id: str
    worker: str
    body: bytes
    stream: str = "trials"
    """The stream that has its entry; one of `keys.LEASES`."""


@value()
class Hold:
    """What a worker reports about the checkpoint in the memory of its process.

    Attributes:
        checkpoint: name of the checkpoint; empty if there is none any more.
        for_ms: how long a trial that continues from it may be reserved for this worker.
        warm: whether the reported trial found its parent in memory; None if it had no parent.
    """

    checkpoint: str = ""
    for_ms: int = 0
    warm: bool | None = None


@value()
class AffinityCounts:
    """Statistics of offers and warm restores in one experiment.

    Attributes:
        restores: number of trials that restored a parent, as reported by workers.
        warm: number of these that restored it from memory.
        offers: number of trials that were offered to a single worker.
        released: number of offers that were not taken in time.
        waited_ms: total time that offers waited, which bounds the idle time they caused.
    """

    restores: int = 0
    warm: int = 0
    offers: int = 0
    released: int = 0
    waited_ms: int = 0


@value()
class Committed:
    """The result of a commit that was applied.

    Attributes:
        version: the new version.
        release_ms: time after which its offers to single workers are to be released; None if it
            made no offers.
    """

    version: str
    release_ms: int | None = None


@value()
class Stored:
    """An experiment's population at one version."""

    version: str
    meta: Mapping[str, str]
    slots: Sequence[Mapping[str, str]]


class LineText(str):
    """A line of history as JSON text, together with the line itself.

    Readers in the same process need not parse the text.
    """

    __slots__ = ("line",)
    line: Line

    @classmethod
    def of(cls, line: Line, text: str) -> Self:
        """Combine a line and its text."""
        made = cls(text)
        made.line = line
        return made


@value()
class Commit:
    """All changes of one batch of decisions, which are applied atomically.

    Attributes:
        version: the version that the batch was decided on.
        nonce: makes the next version unique. A server that restarts from older data would use a
            plain version number twice.
        entries: ids of the inbox entries to acknowledge.
        meta: changed fields of the experiment's own hash.
        slots: changed fields of the slots' hashes, by slot index.
        trials: messages for workers.
        parents: for each trial, the checkpoint that it continues from, or ""; empty if none is
            known.
        history: new lines of history as JSON texts, oldest first.
        history_keep: minimal number of history lines to keep.
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
    """Its full length in bytes; a message that was truncated cannot be resubmitted."""


@value()
class Outstanding:
    """All messages in the two queues at one version, whether they have been read or not."""

    version: str
    trials: Sequence[bytes]
    inbox: Sequence[bytes]


@value()
class Glance:
    """The state of an experiment at one moment, for display.

    Attributes:
        now_ms: time by the store's clock, in milliseconds since the epoch.
        meta: fields of the experiment's own hash, including its declaration `spec`.
        slots: the requested fields of each slot, by index.
        workers: presence of each worker, with `age_ms` since its latest heartbeat.
        depths: number of entries in `inbox`, `trials`, `history` and `dead`.
        history: pairs of id and JSON text, oldest first.
        undecided: for a search that has not ended, (arrival, b"") of the oldest inbox entry, by the
            same clock. For one that has ended, (arrival, beginning of the body) of the
            `MOST_UNDECIDED` oldest and as many newest entries, oldest first, because there may be
            late reports before and after an operator's request.
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
    """The experiment's status; empty if there is no such experiment."""
    outdated: bool = False
    """Whether another attempt at the same trial has already reported a result."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """The presence under the worker's name before this heartbeat; empty if there was none."""
