"""All kinds of lines in the history of a run, and their codec.

A decision appends lines; the store keeps them as JSON texts, oldest first. All code that shows,
counts or replays a run reads them through `from_json` and matches on their types. Stored names and
their order never change. A new field has a default, which is not written unless the field is marked
`_WRITTEN`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields
from typing import Any, ClassVar, Final

from romul_actors.core.space import Value
from romul_actors.core.stored_line import expand
from romul_actors.core.value import value

_WRITTEN: Final = {"written": True}
"""Metadata of a field that is written even at its default; only older lines lack it."""


@value(kw_only=True)
class Line:
    """One line of history.

    Attributes:
        event: stored name of the kind of line.
        at_ms: arrival time of the event that led to it, in milliseconds since the epoch.
    """

    event: ClassVar[str]
    at_ms: int


# -- the search -------------------------------------------------------------------------------


@value(kw_only=True)
class SearchStarted(Line):
    """The search has started: its first trials are queued."""

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
    """An operator stopped the search."""

    event: ClassVar[str] = "stop"
    by: str


@value(kw_only=True)
class SearchFailed(Line):
    """Every trial of one step failed."""

    event: ClassVar[str] = "gave up"
    reason: str


@value(kw_only=True)
class SearchFinished(Line):
    """Every slot has ended its last step, or a limit was reached."""

    event: ClassVar[str] = "finished"
    reason: str = ""


@value(kw_only=True)
class BoundsChanged(Line):
    """An operator changed the bounds of a hyperparameter. Older lines lack `before`."""

    event: ClassVar[str] = "bounds"
    parameter: str
    low: float
    high: float
    by: str
    before: Sequence[float] = ()


@value(kw_only=True)
class SearchExtended(Line):
    """An operator extended the search to more steps.

    Attributes:
        steps: new number of steps.
        before: old number of steps.
        lifted: limits in the settings that had been reached and were removed.
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
        population, constants: the new values of what has changed.
        before: the old values, by the same names.
    """

    event: ClassVar[str] = "change"
    by: str
    population: int = 0
    constants: Mapping[str, Value] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)


@value(kw_only=True)
class ControlIgnored(Line):
    """An operator's request that was not possible, with its arguments."""

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
    """Number of living workers."""


# -- slots and workers ------------------------------------------------------------------------


@value(kw_only=True)
class SlotPinned(Line):
    """An operator pinned a slot: it keeps its hyperparameters and its line of descent."""

    event: ClassVar[str] = "pin"
    slot: int
    by: str


@value(kw_only=True)
class SlotUnpinned(Line):
    """An operator unpinned a slot."""

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
    """An operator asked a worker to end."""

    event: ClassVar[str] = "drain"
    worker: str
    by: str


# -- trials -----------------------------------------------------------------------------------


@value(kw_only=True)
class TrialCreated(Line):
    """A slot was decided: its next trial is queued.

    Attributes:
        trial: its id, "SLOT-STEP".
        parent: id of the trial whose checkpoint it continues from; None means from scratch.
        vector: its hyperparameters as a point of the unit cube, shape (n_dims,).
        seed: seed for the training.
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
        value: the metric as the task returned it.
        seconds: duration of the training, in seconds.
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
        reason: one of `events.FailureReason`, or "lost" if the worker was lost.
        again: whether the trial is retried, or another attempt at it is still running.
        seconds: duration of the attempt, in seconds; 0 if it is not known.
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
        checkpoint: name of a partial checkpoint from which the next attempt continues.
        seconds: how long the worker had the trial, in seconds; 0 if it is not known.
        at: position of the training in the partial checkpoint, in the unit of the budget.
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
    """A second copy of a trial that takes too long was started; the first report counts."""

    event: ClassVar[str] = "second copy"
    trial: str
    attempt: int
    slot: int


@value(kw_only=True)
class ReportStale(Line):
    """A report of an attempt that no longer counts. It changed nothing."""

    event: ClassVar[str] = "stale"
    trial: str
    attempt: int
    worker: str


@value(kw_only=True)
class Unknown(Line):
    """A line that this version cannot interpret; it is kept unchanged.

    Attributes:
        name: the value of its field `event`.
        values: the whole line as it is stored.
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
"""All kinds of lines, by their stored names."""


def _unwritten(kind: type[Line]) -> Iterator[tuple[str, Any]]:
    """Names of the fields that are not written at their defaults, with the defaults."""
    for f in fields(kind):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if default is not MISSING and not f.metadata.get("written"):
            yield f.name, default


_NAMES = {kind: ("event", *(f.name for f in fields(kind))) for kind in KINDS.values()}
_UNWRITTEN = {kind: tuple(_unwritten(kind)) for kind in KINDS.values()}
_FIELDS = {kind: frozenset(names) for kind, names in _NAMES.items()}


def to_json(line: Line) -> dict[str, Any]:
    """A line as JSON values, in the stored order. Fields with default values are omitted."""
    if isinstance(line, Unknown):
        return dict(line.values)
    kind = type(line)
    values = {name: getattr(line, name) for name in _NAMES[kind]}
    for name, unwritten in _UNWRITTEN[kind]:
        if values[name] == unwritten:
            del values[name]
    return values


def from_json(values: Mapping[str, Any]) -> Line:
    """A line from its JSON values, shortened or not; `Unknown` if they cannot be interpreted."""
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
            pass  # A field is missing or invalid.
    return Unknown(at_ms=at_ms, name=name, values=dict(values))
