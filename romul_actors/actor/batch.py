"""A batch of events: decided on what the actor holds of an experiment, and made into one commit."""

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
class HeldExperiment:
    """An experiment as an actor knows it; of use only while the stored version is the same."""

    experiment: Experiment
    version: str
    population: Population
    needed: NeededCheckpoints
    faulty: bool = False
    """Whether it is stored that an actor could not serve it."""
    left_out: Sequence[str] = ()
    """What this actor leaves out of the declaration, in sentences."""
    said: str = ""
    """What is stored of that: readers of another version may know those options."""
    is_spoken: bool = True
    """Whether it is stored that its trials are of this version."""


async def load(store: ActorStore, name: str) -> HeldExperiment:
    """Read an experiment as it is stored.

    Raises:
        UnknownExperimentError: there is none of that name.
        RomulError: its declaration or its data cannot be read, or not be served.
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
        # An optimizer may be of an installed package, and what it finds may be damaged: any error
        # of it, SystemExit too, concerns this experiment, and no other.
        raise UndecidableError(f"reading it fails ({type(error).__name__}: {error})") from error
    return HeldExperiment(
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
    held: HeldExperiment, events: Sequence[Stamped], entries: Sequence[str], nonce: str
) -> tuple[Decision, Commit]:
    """Decide events, and make a commit of them; see `decide_all` and `commit_of`.

    Raises:
        UndecidableError: an optimizer raised an exception or made a move that cannot be carried
            out, or what is stored makes no sense.
        RomulError: a trial is too long to be sent.
    """
    try:
        decision = decide_all(held.population, events)
        return decision, commit_of(held, events, decision, entries, nonce)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A move that is none is the optimizer's fault as well: another constant may mend both.
        if isinstance(error, RomulError) and not isinstance(error, OptimizerError | SpaceError):
            raise
        name = held.population.settings.optimizer.name
        raise UndecidableError(
            f"deciding fails ({type(error).__name__}: {error}) with optimizer {name!r}"
        ) from error


def commit_of(
    held: HeldExperiment,
    events: Sequence[Stamped],
    decision: Decision,
    entries: Sequence[str],
    nonce: str,
) -> Commit:
    """All that a decision changes in the store.

    The checkpoints that `held` counts are those after the decision from here on: one that is not
    committed leaves `held` of no use.

    Args:
        held: what was decided on.
        events: what was decided, in their order of arrival.
        decision: what they lead to.
        entries: ids of the inbox entries that it answers.
        nonce: makes the next version one that never was.
    """
    before, after, metric = held.population, decision.population, held.experiment.metric
    slots = [] if after is before else changed(before.slots, after.slots)
    garbage = held.needed.follow(before, after, slots, [stamped.event for stamped in events])
    meta = dict(write_meta(after, metric, before)) if after is not before else {}
    if (says := "\n".join(held.left_out)) != held.said:
        meta["left_out"] = says
    if not held.is_spoken:
        meta["protocol"] = str(VERSION)
    if (other := redeclared(held, after)) is not None:
        meta["spec"] = other.model_dump_json()
    return Commit(
        version=held.version,
        nonce=nonce,
        entries=entries,
        meta=meta,
        slots=_written(before, decision, slots, metric),
        trials=[encode(trial) for trial in decision.trials],
        parents=[trial.parent or "" for trial in decision.trials],
        history=[LineText.of(line, text(shorten(to_json(line)))) for line in decision.history],
        history_keep=held.experiment.history_keep,
        garbage=garbage if held.experiment.keep_checkpoints != "all" else [],
    )


def _written(
    before: Population, decision: Decision, slots: Sequence[Slot], metric: str
) -> dict[int, Fields]:
    """By index, the fields of slots that have changed since a population was stored."""
    settings = decision.population.settings
    # In another space a vector has other values.
    known = before.slots if settings.space is before.settings.space else ()
    decoded = {trial.id: trial.hyperparameters for trial in decision.trials}
    fields: dict[int, Fields] = {}
    for slot in slots:
        stored = known[slot.index] if slot.index < len(known) else None
        if written := write_slot(slot, settings, metric, stored, decoded.get(slot.trial)):
            fields[slot.index] = written
    return fields


def adopt(held: HeldExperiment, population: Population, version: str) -> None:
    """Hold the population that a commit led to."""
    other = redeclared(held, population)
    held.said, held.is_spoken = "\n".join(held.left_out), True
    if other is not None:
        held.experiment, held.left_out = other, left_out(other, population.status)
    held.version, held.population = version, population


def redeclared(held: HeldExperiment, population: Population) -> Experiment | None:
    """The experiment with what an operator has changed of it; None: nothing was."""
    before = held.population.settings
    if population.settings is before:
        return None
    return redeclare(held.experiment, before, population.settings)
