"""The population as text fields of hashes, as `redis-cli HGETALL` shows them.

The fields contain all that a decision needs. Stored values have the name and the sign of the user's
metric; minimised losses exist only in the core.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, cast, get_args

from pydantic_core import from_json, to_json

from romul_actors.core.population import Best, Counts, Population, PopulationStatus
from romul_actors.core.settings import Settings
from romul_actors.core.slot import Outcome, Slot, Status
from romul_actors.core.space import Value
from romul_actors.protocol.optimizer_memory import check_memory
from romul_actors.protocol.stored_fields import (
    StoredFields,
    finite,
    string,
    table,
    vector,
    whole,
)

Fields = dict[str, str]

_COUNTS = tuple(field.name for field in fields(Counts))


def text(value: Any) -> str:
    """A value as JSON text, with floats in full precision."""
    return to_json(value, inf_nan_mode="constants").decode()


def write_meta(population: Population, metric: str, before: Population | None = None) -> Fields:
    """Fields of the experiment's own hash.

    Args:
        population: the population to write.
        metric: name of the metric.
        before: the stored population, if any: only fields that differ are returned.
    """
    if before is not None and before.status == "submitted":
        # No fields have been written yet.
        before = None
    written = _differing(_META, population, before)
    if before is None or len(population.slots) != len(before.slots):
        written["slots"] = str(len(population.slots))
    if before is None or population.best is not before.best:
        written["best"] = _best(population, metric)
    # Written once. A search that an older version began does not have it.
    if population.started_ms is not None and (before is None or before.started_ms is None):
        written["started_ms"] = str(population.started_ms)
    return written


def _best(population: Population, metric: str) -> str:
    """The field of the best trial; empty before there is one."""
    best, settings = population.best, population.settings
    if best is None:
        return ""
    return text(
        {
            metric: _signed(best.loss, settings),
            "trial": best.trial,
            "checkpoint": best.checkpoint,
            "hyperparameters": best.hyperparameters,
            "metrics": best.metrics,
            "vector": best.vector,
        }
    )


def _optional(number: int | None) -> str:
    return "" if number is None else str(number)


@dataclass(frozen=True, slots=True)
class _Table:
    """The attributes of a slot or a population that have a field each.

    Attributes:
        fields: names of the fields, each with a function that writes the value.
        read: function that returns all attributes, in that order.
        unlike: placeholder values, one per field, that differ from any value.
    """

    fields: Sequence[tuple[str, Callable[[Any], str]]]
    read: Callable[[Any], Sequence[Any]]
    unlike: Sequence[Any]


def _table(*rows: tuple[str, str, Callable[[Any], str]]) -> _Table:
    """Make a table from rows of attribute, field, and function that writes the value."""
    fields = tuple((field, write) for _, field, write in rows)
    return _Table(fields, attrgetter(*(row[0] for row in rows)), (object(),) * len(rows))


def _differing(table: _Table, value: object, before: object | None) -> Fields:
    """The fields whose attributes differ from those of `before`."""
    stored = table.unlike if before is None else table.read(before)
    rows = zip(table.fields, table.read(value), stored, strict=True)
    return {name: write(new) for (name, write), new, old in rows if new != old}


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
    """Fields of the hash of a slot.

    Args:
        slot: the slot to write.
        settings: settings of the population.
        metric: name of the metric.
        before: the stored slot, if any, in the same space: only fields that differ are returned.
        hyperparameters: the hyperparameters of its trial, if they are already decoded.
    """
    written = _differing(_SLOT, slot, before)
    if "step" in written:
        written["trial"] = slot.trial
    begun_with = None if before is None else before.hyperparameters
    if "vector" in written or slot.hyperparameters != begun_with:
        given = slot.hyperparameters if hyperparameters is None else hyperparameters
        written["hyperparameters"] = text(
            settings.space.decode(slot.vector) if given is None else given
        )
    begun = _begun(slot)
    if begun != ("" if before is None else _begun(before)):
        written["begun"] = begun
    if before is None or slot.outcomes != before.outcomes:
        written |= _outcomes(slot, settings, metric)
    return written


def _begun(slot: Slot) -> str:
    """The trial's hyperparameters, if they differ from its vector; else empty.

    The trial's id is included because an actor of an older version may begin the next trial without
    updating this field.
    """
    given = slot.hyperparameters
    return "" if given is None else text({"trial": slot.trial, "hyperparameters": given})


def _outcomes(slot: Slot, settings: Settings, metric: str) -> Fields:
    """The fields with all outcomes of a slot, and with the latest one for people."""
    rows = {
        step: {
            metric: _outcome(outcome, settings),
            "vector": outcome.vector,
            "checkpoint": outcome.checkpoint,
        }
        for step, outcome in slot.outcomes.items()
    }
    latest = max(rows, default=None)
    return {
        "latest": "" if latest is None else text({"step": latest, metric: rows[latest][metric]}),
        "outcomes": text(rows),
    }


def read(
    settings: Settings,
    metric: str,
    meta: Mapping[str, str],
    slots: Sequence[Mapping[str, str]],
    name: str = "",
) -> Population:
    """Rebuild the population from its fields.

    Args:
        settings: settings of the population.
        metric: name of the metric.
        meta: fields of the experiment's own hash.
        slots: fields of the slots' hashes, by index.
        name: name of the experiment, for errors.

    Raises:
        StoredDataError: a field is missing or invalid; the message names the experiment, the slot,
            the field and the value.
    """
    own = StoredFields.of_experiment(name, meta)
    # Only validated here: `slots` has the hashes that the store found.
    own.count("slots")
    return Population(
        settings=settings,
        status=cast("PopulationStatus", own.choice("status", get_args(PopulationStatus))),
        reason=own.text("reason", ""),
        slots=tuple(
            _read_slot(i, StoredFields.of_slot(name, i, row), settings, metric)
            for i, row in enumerate(slots)
        ),
        best=_read_best(own, settings, metric),
        counts=Counts(**{count: own.count(count, "0") for count in _COUNTS}),
        causes=own.counts("causes"),
        idle_since_ms=_read_optional(own, "idle_since_ms"),
        crowded_since_ms=_read_optional(own, "crowded_since_ms"),
        horizon=own.count("horizon", "0"),
        started_ms=_read_optional(own, "started_ms"),
    )


def _read_best(own: StoredFields, settings: Settings, metric: str) -> Best | None:
    stored = own.best(metric)
    if not stored:
        return None
    return Best(
        stored["trial"],
        _signed(stored[metric], settings),
        stored["hyperparameters"],
        stored["checkpoint"],
        stored["metrics"],
        tuple(stored.get("vector", ())),
    )


def _begun_with(row: StoredFields) -> Mapping[str, Value] | None:
    """The hyperparameters of a slot's trial if they differ from its vector, else None."""

    def reader(stored: str) -> Mapping[str, Value] | None:
        begun = table(from_json(stored)) if stored else {}
        return table(begun["hyperparameters"]) if begun.get("trial") == trial else None

    trial = row.text("trial", "")
    return row.read("begun", reader, "a trial and its hyperparameters", "")


def _read_slot(index: int, row: StoredFields, settings: Settings, metric: str) -> Slot:
    return Slot(
        index=index,
        tier=row.text("tier"),
        status=cast("Status", row.choice("status", get_args(Status))),
        step=row.count("step"),
        attempt=row.count("attempt"),
        live_attempts=row.whole_numbers("live"),
        failures=row.count("failures"),
        lost_attempts=row.count("losses"),
        vector=row.vector("vector", len(settings.space.axes)),
        seed=row.count("seed"),
        parent=row.name("parent"),
        checkpoint=row.name("checkpoint"),
        partial=row.name("partial"),
        position=row.number("position"),
        joined=row.count("joined"),
        parking=row.flag("parking"),
        pinned=row.flag("pinned", "0"),
        memory=row.read(
            "memory",
            lambda text: check_memory(
                table(from_json(text)), settings.optimizer, len(settings.space.axes)
            ),
            f"valid memory of the optimizer {settings.optimizer.name!r}",
        ),
        outcomes=row.read(
            "outcomes",
            lambda text: _read_outcomes(text, settings, metric),
            f"a JSON object of outcomes by step, each with {metric}, vector and checkpoint",
        ),
        since_ms=row.count("since_ms"),
        seconds=row.number("seconds"),
        hyperparameters=_begun_with(row),
    )


def _read_outcomes(text: str, settings: Settings, metric: str) -> Mapping[int, Outcome]:
    outcomes = {}
    for step, stored in table(from_json(text)).items():
        value, checkpoint = stored[metric], stored["checkpoint"]
        outcomes[whole(int(step))] = Outcome(
            math.inf if value is None else _signed(finite(value), settings),
            vector(stored["vector"], len(settings.space.axes)),
            None if checkpoint is None else string(checkpoint),
        )
    return outcomes


def _signed(loss: float, settings: Settings) -> float:
    """Convert a loss to the user's metric or back."""
    return -loss if settings.maximize else loss


def _read_optional(own: StoredFields, name: str) -> int | None:
    return own.read(
        name, lambda text: whole(int(text)) if text else None, "empty or a whole number", ""
    )


def _outcome(outcome: Outcome, settings: Settings) -> float | None:
    return None if outcome.failed else _signed(outcome.loss, settings)
