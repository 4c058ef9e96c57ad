"""Read a whole population from a store, without deciding anything."""

from romul_actors.core.population import Population
from romul_actors.protocol.experiment import Experiment, from_json
from romul_actors.protocol.messages import decode_event
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import read
from romul_actors.protocol.stored_fields import StoredFields
from romul_actors.store import ReaderStore


async def read_population(store: ReaderStore, name: str) -> tuple[Experiment, Population]:
    """An experiment and its population at one moment.

    Raises:
        UnknownExperimentError: there is no experiment of that name.
        ExperimentError: this version cannot read its declaration.
        StoredDataError: a field of its hash, or of a slot's, holds what ROMUL never writes.
    """
    stored = await store.load(name)
    experiment = from_json(StoredFields.of_experiment(name, stored.meta).text("spec"))
    core = settings(experiment, stored=True)
    return experiment, read(core, experiment.metric, stored.meta, stored.slots, name)


async def needed_checkpoints(store: ReaderStore, name: str) -> set[str]:
    """Names of all checkpoints that a decision, or a report that is not yet decided, may need."""
    on_the_way = await store.outstanding(name)
    _, population = await read_population(store, name)
    kept = population.needed_checkpoints()
    for body in on_the_way.inbox:
        try:
            kept.add(getattr(decode_event(body), "checkpoint", None) or "")
        except ValueError:
            continue
    return kept
