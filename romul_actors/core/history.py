"""What happened, line by line: every kind of line that a run's history has, and one codec.

A decision appends lines; the store keeps them as JSON texts, oldest first. All that shows, counts
or replays a run reads them through `from_json` and matches on their types. Stored names and their
order never change; a field that is added has a default, not written unless the field is marked so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields
from typing import Any, ClassVar, Final

from romul_actors.core.space import Value
from romul_actors.core.stored_line import expand
from romul_actors.core.value import value

_WRITTEN: Final = {"written": True}
"""Metadata of a field that is written at its default, too: only older lines are without it."""


@value(kw_only=True)
class Line:
    """One line of history.

    Attributes:
        event: the stored name of its kind.
        at_ms: when the event arrived that led to it, in milliseconds since the epoch.
    """

    event: ClassVar[str]
    at_ms: int


# -- the search -------------------------------------------------------------------------------


@value(kw_only=True)
class SearchStarted(Line):
    """The first trials are handed out."""

    event: ClassVar[str] = "started"


@value(kw_only=True)
class SearchPaused(Line):
    """An operator paused the search."""

    event: ClassVar[str] = "pause"
    by: str


@value(kw_only=True)
class SearchResumed(Line):
    """An operator resumed a paused or failed search."""

    event: ClassVar[str] = "resume"
    by: str


@value(kw_only=True)
class SearchStopped(Line):
    """An operator stopped the search for good."""

    event: ClassVar[str] = "stop"
    by: str


@value(kw_only=True)
class SearchFailed(Line):
    """Every trial of one step failed."""

    event: ClassVar[str] = "gave up"
    reason: str


@value(kw_only=True)
class SearchFinished(Line):
    """Every slot ended its last step, or the deadline came."""

    event: ClassVar[str] = "finished"
    reason: str = ""


@value(kw_only=True)
class BoundsChanged(Line):
    """An operator gave a hyperparameter other bounds; older lines lack those before."""

    event: ClassVar[str] = "bounds"
    parameter: str
    low: float
    high: float
    by: str
    before: Sequence[float] = ()


@value(kw_only=True)
class SearchExtended(Line):
    """An operator gave the search more steps.

    Attributes:
        steps: how many it has from now on.
        before: how many it had.
        lifted: limits among the settings that had been reached, and count no more.
    """

    event: ClassVar[str] = "extend"
    steps: int
    before: int
    by: str
    lifted: Mapping[str, Any] = field(default_factory=dict)


@value(kw_only=True)
class SearchChanged(Line):
    """An operator changed the number of slots, or constants of the optimizer.

    Attributes:
        population, constants: those that are others from then on.
        before: by the same names, what they were.
    """

    event: ClassVar[str] = "change"
    by: str
    population: int = 0
    constants: Mapping[str, Value] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)


@value(kw_only=True)
class ControlIgnored(Line):
    """An operator's action that does not fit the search, or is not possible, with what it gave."""

    event: ClassVar[str] = "ignored"
    action: str
    status: str
    why: str = ""
    parameter: str | None = None
    low: float | None = None
    high: float | None = None
    by: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)


@value(kw_only=True)
class TimePassed(Line):
    """A tick that changed the population."""

    event: ClassVar[str] = "tick"
    workers: int
    """Workers that were alive."""


# -- slots and workers ------------------------------------------------------------------------


@value(kw_only=True)
class SlotPinned(Line):
    """An operator holds a slot's hyperparameters and its line of descent."""

    event: ClassVar[str] = "pin"
    slot: int
    by: str


@value(kw_only=True)
class SlotUnpinned(Line):
    """An operator let a slot go that was pinned."""

    event: ClassVar[str] = "unpin"
    slot: int
    by: str


@value(kw_only=True)
class SlotParked(Line):
    """A slot was set aside, because there are too few workers for all slots."""

    event: ClassVar[str] = "parked"
    slot: int
    step: int


@value(kw_only=True)
class SlotResumed(Line):
    """A parked slot takes part again."""

    event: ClassVar[str] = "resumed"
    slot: int
    step: int


@value(kw_only=True)
class WorkerDrained(Line):
    """An operator requested a worker to end."""

    event: ClassVar[str] = "drain"
    worker: str
    by: str


# -- trials -----------------------------------------------------------------------------------


@value(kw_only=True)
class TrialCreated(Line):
    """A slot was decided: its next trial is queued.

    Attributes:
        trial: its id, "SLOT-STEP".
        parent: id of the trial whose checkpoint it continues from; None: from scratch.
        vector: its place in the unit cube, shape (n_dims,).
        seed: seed of its own randomness.
        why: the optimizer's reasons, for people.
    """

    event: ClassVar[str] = "trial"
    trial: str
    slot: int
    step: int
    parent: str | None
    hyperparameters: Mapping[str, Value]
    vector: Sequence[float]
    seed: int = field(default=0, metadata=_WRITTEN)
    why: Mapping[str, Any] = field(default_factory=dict, metadata=_WRITTEN)


@value(kw_only=True)
class TrialReported(Line):
    """An attempt ended with a result, which was accepted.

    Attributes:
        value: the user's metric, with the user's sign.
        seconds: how long training took.
        metrics, in_effect, left_out, provenance: as in `events.Result`.
    """

    event: ClassVar[str] = "result"
    trial: str
    attempt: int
    worker: str
    slot: int
    step: int
    value: float
    checkpoint: str
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    in_effect: Mapping[str, Value] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


@value(kw_only=True)
class TrialFailed(Line):
    """An attempt ended without a result.

    Attributes:
        reason: one of `events.FailureReason`, or "lost" with its worker.
        again: whether the trial is tried once more, or another attempt of it still runs.
        seconds: how long the attempt took; 0: not known.
    """

    event: ClassVar[str] = "failed"
    trial: str
    attempt: int
    worker: str
    slot: int
    step: int
    reason: str
    message: str
    again: bool
    seconds: float = 0.0


@value(kw_only=True)
class TrialReleased(Line):
    """An attempt was given back, through no fault of the trial.

    Attributes:
        reason: one of `events.ReleaseReason`.
        checkpoint: name of a partial checkpoint, from which the next attempt goes on.
        seconds: how long the worker had it; 0: not known.
        at: where training stands in the partial checkpoint, in the budget's unit.
    """

    event: ClassVar[str] = "released"
    trial: str
    attempt: int
    worker: str
    reason: str
    message: str = ""
    checkpoint: str | None = None
    seconds: float = 0.0
    at: float | None = None


@value(kw_only=True)
class SecondCopyStarted(Line):
    """A second attempt runs beside one that takes too long; the first report counts."""

    event: ClassVar[str] = "second copy"
    trial: str
    attempt: int
    slot: int


@value(kw_only=True)
class ReportStale(Line):
    """A report of an attempt that no longer counts; it changed nothing."""

    event: ClassVar[str] = "stale"
    trial: str
    attempt: int
    worker: str


@value(kw_only=True)
class Unknown(Line):
    """A line of a kind, or with fields, that this version does not know; kept as it is.

    Attributes:
        name: what it calls its event.
        values: the whole line, as it is stored.
    """

    event: ClassVar[str] = ""
    name: str
    values: Mapping[str, Any]


KINDS: Mapping[str, type[Line]] = {
    kind.event: kind
    for kind in (
        SearchStarted,
        SearchPaused,
        SearchResumed,
        SearchStopped,
        SearchFailed,
        SearchFinished,
        BoundsChanged,
        SearchExtended,
        SearchChanged,
        ControlIgnored,
        TimePassed,
        SlotPinned,
        SlotUnpinned,
        SlotParked,
        SlotResumed,
        WorkerDrained,
        TrialCreated,
        TrialReported,
        TrialFailed,
        TrialReleased,
        SecondCopyStarted,
        ReportStale,
    )
}
"""All kinds of lines by their stored names."""


def _unwritten(kind: type[Line]) -> Iterator[tuple[str, Any]]:
    """Names of fields that may be left out, with the values at which they are."""
    for f in fields(kind):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if default is not MISSING and not f.metadata.get("written"):
            yield f.name, default


_NAMES = {kind: ("event", *(f.name for f in fields(kind))) for kind in KINDS.values()}
_UNWRITTEN = {kind: tuple(_unwritten(kind)) for kind in KINDS.values()}
_FIELDS = {kind: frozenset(names) for kind, names in _NAMES.items()}


def to_json(line: Line) -> dict[str, Any]:
    """A line as JSON values, in the stored order; fields at their defaults are left out."""
    if isinstance(line, Unknown):
        return dict(line.values)
    kind = type(line)
    values = {name: getattr(line, name) for name in _NAMES[kind]}
    for name, unwritten in _UNWRITTEN[kind]:
        if values[name] == unwritten:
            del values[name]
    return values


def from_json(values: Mapping[str, Any]) -> Line:
    """A line from its JSON values, whole or shortened; `Unknown` where they cannot be read."""
    name, at_ms = str(values.get("event", "")), values.get("at_ms", 0)
    at_ms = at_ms if isinstance(at_ms, int) else 0
    if (kind := KINDS.get(name)) is not None:
        names, known = _FIELDS[kind], {**values, "at_ms": at_ms}
        if not known.keys() <= names:
            known = {key: known[key] for key in known if key in names}
        del known["event"]
        try:
            expand(known, names)
            return kind(**known)
        except (TypeError, ValueError):
            pass  # A field is missing, or not what it should be.
    return Unknown(at_ms=at_ms, name=name, values=dict(values))
