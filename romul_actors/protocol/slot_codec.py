"""The population as text: what `redis-cli HGETALL` shows, and all that a decision needs again.

One function each way. Figures bear the user's metric name and sign here; the core's minimised loss
exists only between `read` and `write`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, cast

from pydantic_core import from_json, to_json

from romul_actors.core.population import Best, Counts, Population
from romul_actors.core.settings import Settings
from romul_actors.core.slot import Outcome, Slot
from romul_actors.core.space import Value

Fields = dict[str, str]

_COUNTS = tuple(field.name for field in fields(Counts))


def text(value: Any) -> str:
    """JSON of a value, floats to the last bit."""
    return to_json(value, inf_nan_mode="constants").decode()


def write_meta(population: Population, metric: str, before: Population | None = None) -> Fields:
    """Fields of the experiment's own hash.

    Args:
        population: what is written.
        metric: the user's name of it.
        before: the population as it is stored: only fields that differ are written.
    """
    if before is not None and before.status == "submitted":
        # Nothing has been written yet.
        before = None
    written = _differing(_META, population, before)
    if before is None or len(population.slots) != len(before.slots):
        written["slots"] = str(len(population.slots))
    if before is None or population.best is not before.best:
        written["best"] = _best(population, metric)
    # Once; a search that an older version began has none.
    if population.started_ms is not None and (before is None or before.started_ms is None):
        written["started_ms"] = str(population.started_ms)
    return written


def _best(population: Population, metric: str) -> str:
    """The best trial as people and `read` find it; empty before there is one."""
    best, settings = population.best, population.settings
    if best is None:
        return ""
    return text(
        {
            metric: _signed(best.loss, settings),
            "trial": best.trial,
            "checkpoint": best.checkpoint,
            "hyperparameters": settings.space.decode(best.vector),
            "metrics": best.metrics,
            "vector": best.vector,
        }
    )


def _optional(number: int | None) -> str:
    return "" if number is None else str(number)


@dataclass(frozen=True, slots=True)
class _Table:
    """Attributes that are a field each, of a slot or a population.

    Attributes:
        fields: name of the field, and how it is written.
        read: all the attributes, in that order.
        unlike: as many values that differ from all others.
    """

    fields: Sequence[tuple[str, Callable[[Any], str]]]
    read: Callable[[Any], Sequence[Any]]
    unlike: Sequence[Any]


def _table(*rows: tuple[str, str, Callable[[Any], str]]) -> _Table:
    """Rows are: the attribute, the field, and how it is written."""
    fields = tuple((field, write) for _, field, write in rows)
    return _Table(fields, attrgetter(*(row[0] for row in rows)), (object(),) * len(rows))


def _differing(table: _Table, value: object, before: object | None) -> Fields:
    """Fields whose attributes are others than before."""
    stored = table.unlike if before is None else table.read(before)
    return {
        name: write(new)
        for (name, write), new, old in zip(table.fields, table.read(value), stored, strict=True)
        if new is not old and new != old
    }


_META = _table(
    ("status", "status", str),
    ("reason", "reason", str),
    ("causes", "causes", text),
    ("idle_since_ms", "idle_since_ms", _optional),
    ("crowded_since_ms", "crowded_since_ms", _optional),
    ("horizon", "horizon", str),
    *((f"counts.{name}", name, str) for name in _COUNTS),
)
_SLOT = _table(
    ("status", "status", str),
    ("step", "step", str),
    ("attempt", "attempt", str),
    ("live_attempts", "live", text),
    ("failures", "failures", str),
    ("lost_attempts", "losses", str),
    ("tier", "tier", str),
    ("parent", "parent", lambda parent: parent or ""),
    ("checkpoint", "checkpoint", lambda checkpoint: checkpoint or ""),
    ("partial", "partial", lambda partial: partial or ""),
    ("position", "position", repr),
    ("joined", "joined", str),
    ("parking", "parking", lambda parking: str(int(parking))),
    ("pinned", "pinned", lambda pinned: str(int(pinned))),
    ("seconds", "seconds", repr),
    ("since_ms", "since_ms", str),
    ("seed", "seed", str),
    ("vector", "vector", text),
    ("memory", "memory", text),
)


def write_slot(
    slot: Slot,
    settings: Settings,
    metric: str,
    before: Slot | None = None,
    hyperparameters: Mapping[str, Value] | None = None,
) -> Fields:
    """Fields of one slot's hash.

    Args:
        slot: the slot.
        settings: its population's.
        metric: the user's name of it.
        before: the slot as it is stored, in the same space: only fields that differ are written.
        hyperparameters: those of its vector, where they are decoded already.
    """
    written = _differing(_SLOT, slot, before)
    if "step" in written:
        written["trial"] = slot.trial
    if "vector" in written:
        if hyperparameters is None:
            hyperparameters = settings.space.decode(slot.vector)
        written["hyperparameters"] = text(hyperparameters)
    if before is None or slot.outcomes != before.outcomes:
        written |= _outcomes(slot, settings, metric)
    return written


def _outcomes(slot: Slot, settings: Settings, metric: str) -> Fields:
    """All outcomes of a slot, and for people the latest alone."""
    values = {step: _outcome(outcome, settings) for step, outcome in slot.outcomes.items()}
    latest = max(values, default=None)
    return {
        "latest": "" if latest is None else text({"step": latest, metric: values[latest]}),
        "outcomes": text(
            {
                step: {
                    metric: values[step],
                    "vector": outcome.vector,
                    "checkpoint": outcome.checkpoint,
                }
                for step, outcome in slot.outcomes.items()
            }
        ),
    }


def read(
    settings: Settings, metric: str, meta: Mapping[str, str], slots: Sequence[Mapping[str, str]]
) -> Population:
    """Rebuild the population from its fields."""
    best = None
    if meta.get("best"):
        stored = from_json(meta["best"])
        best = Best(
            stored["trial"],
            _signed(stored[metric], settings),
            tuple(stored["vector"]),
            stored["checkpoint"],
            stored["metrics"],
        )
    return Population(
        settings=settings,
        status=cast("Any", meta["status"]),
        reason=meta.get("reason", ""),
        slots=tuple(_read_slot(i, row, settings, metric) for i, row in enumerate(slots)),
        best=best,
        counts=Counts(**{name: int(meta.get(name, "0")) for name in _COUNTS}),
        causes=from_json(meta.get("causes") or "{}"),
        idle_since_ms=_read_optional(meta.get("idle_since_ms")),
        crowded_since_ms=_read_optional(meta.get("crowded_since_ms")),
        horizon=int(meta.get("horizon", "0")),
        started_ms=_read_optional(meta.get("started_ms")),
    )


def _read_slot(index: int, row: Mapping[str, str], settings: Settings, metric: str) -> Slot:
    outcomes = {}
    for step, stored in from_json(row["outcomes"]).items():
        value = stored[metric]
        outcomes[int(step)] = Outcome(
            float("inf") if value is None else _signed(value, settings),
            tuple(stored["vector"]),
            stored["checkpoint"],
        )
    return Slot(
        index=index,
        tier=row["tier"],
        status=cast("Any", row["status"]),
        step=int(row["step"]),
        attempt=int(row["attempt"]),
        live_attempts=tuple(from_json(row["live"])),
        failures=int(row["failures"]),
        lost_attempts=int(row["losses"]),
        vector=tuple(from_json(row["vector"])),
        seed=int(row["seed"]),
        parent=row["parent"] or None,
        checkpoint=row["checkpoint"] or None,
        partial=row["partial"] or None,
        position=float(row["position"]),
        joined=int(row["joined"]),
        parking=row["parking"] == "1",
        pinned=row.get("pinned") == "1",
        memory=from_json(row["memory"]),
        outcomes=outcomes,
        since_ms=int(row["since_ms"]),
        seconds=float(row["seconds"]),
    )


def _signed(loss: float, settings: Settings) -> float:
    """Turn a loss into the user's metric, or back: the sign is its own inverse."""
    return -loss if settings.maximize else loss


def _read_optional(given: str | None) -> int | None:
    return int(given) if given else None


def _outcome(outcome: Outcome, settings: Settings) -> float | None:
    return None if outcome.failed else _signed(outcome.loss, settings)
