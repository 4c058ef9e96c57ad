"""Decides a batch of events of one experiment, and turns the result into one commit."""

from collections.abc import Sequence
from dataclasses import dataclass

from romul_actors.actor.garbage import NeededCheckpoints
from romul_actors.core.decide import decide_all
from romul_actors.core.events import Stamped
from romul_actors.core.history import to_json
from romul_actors.core.population import Decision, Population, changed
from romul_actors.core.slot import Slot
from romul_actors.core.stored_line import shorten
from romul_actors.errors import OptimizerError, RomulError, SpaceError, UndecidableError
from romul_actors.protocol.experiment import Experiment, from_json
from romul_actors.protocol.messages import VERSION, encode, is_spoken
from romul_actors.protocol.plan import left_out, settings
from romul_actors.protocol.redeclare import redeclare
from romul_actors.protocol.slot_codec import Fields, read, text, write_meta, write_slot
from romul_actors.store import ActorStore, Commit, LineText


@dataclass(slots=True)
class CachedExperiment:
    """An actor's copy of an experiment. It is valid only while the stored version is the same."""

    experiment: Experiment
    version: str
    population: Population
    needed: NeededCheckpoints
    faulty: bool = False
    """Whether the store holds a reason why an actor could not serve it."""
    left_out: Sequence[str] = ()
    """Sentences about the options of the declaration that this actor ignores."""
    said: str = ""
    """The same sentences as they are stored, perhaps by an actor of another version."""
    is_spoken: bool = True
    """Whether the stored protocol version of its trials is this actor's."""


async def load(store: ActorStore, name: str) -> CachedExperiment:
    """Read an experiment from the store.

    Raises:
        UnknownExperimentError: there is no experiment of that name.
        RomulError: its declaration or its data cannot be read or used.
    """
    stored = await store.load(name)
    spec = await store.spec(name)
    try:
        experiment = from_json(spec)
        core = settings(experiment, stored=True)
        population = read(core, experiment.metric, stored.meta, stored.slots, name)
        needed = NeededCheckpoints(population)
    except (RomulError, KeyboardInterrupt):
        raise
    except BaseException as error:
        # The optimizer may be a plugin, and the data may be damaged. Whatever it raises, even
        # SystemExit, must affect only this experiment.
        raise UndecidableError(
            f"its stored data cannot be read ({type(error).__name__}: {error})"
        ) from error
    return CachedExperiment(
        experiment,
        stored.version,
        population,
        needed,
        faulty=bool(stored.meta.get("fault")),
        left_out=left_out(experiment, population.status),
        said=stored.meta.get("left_out", ""),
        is_spoken=is_spoken(stored.meta.get("protocol", "")),
    )


def decide_and_write(
    cached: CachedExperiment, events: Sequence[Stamped], entries: Sequence[str], nonce: str
) -> tuple[Decision, Commit]:
    """Decide events and make a commit of the decision; see `decide_all` and `commit_of`.

    Raises:
        UndecidableError: the optimizer raised an exception or made an invalid move, or the stored
            data is inconsistent.
        RomulError: the message of a trial is too long.
    """
    try:
        decision = decide_all(cached.population, events)
        return decision, commit_of(cached, events, decision, entries, nonce)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # An invalid move is an error of the optimizer too. Changing a constant may correct both.
        if isinstance(error, RomulError) and not isinstance(error, OptimizerError | SpaceError):
            raise
        name = cached.population.settings.optimizer.name
        raise UndecidableError(
            f"the decision failed ({type(error).__name__}: {error}) with optimizer {name!r}"
        ) from error


def commit_of(
    cached: CachedExperiment,
    events: Sequence[Stamped],
    decision: Decision,
    entries: Sequence[str],
    nonce: str,
) -> Commit:
    """The commit that writes a decision to the store.

    This updates the checkpoint counts of `cached`. If the commit fails, discard `cached`.

    Args:
        cached: the experiment before the decision.
        events: the events that were decided, in order of arrival.
        decision: the decision.
        entries: ids of the inbox entries to acknowledge.
        nonce: makes the next version unique.
    """
    before, after, metric = cached.population, decision.population, cached.experiment.metric
    slots = [] if after is before else changed(before.slots, after.slots)
    garbage = cached.needed.follow(before, after, slots, [stamped.event for stamped in events])
    meta = dict(write_meta(after, metric, before)) if after is not before else {}
    if (says := "\n".join(cached.left_out)) != cached.said:
        meta["left_out"] = says
    if not cached.is_spoken:
        meta["protocol"] = str(VERSION)
    if (other := redeclared(cached, after)) is not None:
        meta["spec"] = other.model_dump_json()
    return Commit(
        version=cached.version,
        nonce=nonce,
        entries=entries,
        meta=meta,
        slots=_written(before, decision, slots, metric),
        trials=[encode(trial) for trial in decision.trials],
        parents=[trial.parent or "" for trial in decision.trials],
        history=[LineText.of(line, text(shorten(to_json(line)))) for line in decision.history],
        history_keep=cached.experiment.history_keep,
        garbage=garbage if cached.experiment.keep_checkpoints != "all" else [],
    )


def _written(
    before: Population, decision: Decision, slots: Sequence[Slot], metric: str
) -> dict[int, Fields]:
    """The changed fields of each changed slot, by slot index."""
    settings = decision.population.settings
    # If the space has changed, the same vector means other values: write all fields.
    known = before.slots if settings.space is before.settings.space else ()
    decoded = {trial.id: trial.hyperparameters for trial in decision.trials}
    fields: dict[int, Fields] = {}
    for slot in slots:
        stored = known[slot.index] if slot.index < len(known) else None
        if written := write_slot(slot, settings, metric, stored, decoded.get(slot.trial)):
            fields[slot.index] = written
    return fields


def adopt(cached: CachedExperiment, population: Population, version: str) -> None:
    """Update `cached` after a successful commit."""
    other = redeclared(cached, population)
    cached.said, cached.is_spoken = "\n".join(cached.left_out), True
    if other is not None:
        cached.experiment, cached.left_out = other, left_out(other, population.status)
    cached.version, cached.population = version, population


def redeclared(cached: CachedExperiment, population: Population) -> Experiment | None:
    """The declaration with the changes of an operator; None if there are none."""
    before = cached.population.settings
    if population.settings is before:
        return None
    return redeclare(cached.experiment, before, population.settings)
