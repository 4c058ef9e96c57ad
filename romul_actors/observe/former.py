"""A search that another one begins from, as it is in the store."""

from romul_actors.protocol.experiment import from_json
from romul_actors.protocol.first_trials import Former
from romul_actors.protocol.plan import settings
from romul_actors.protocol.slot_codec import read
from romul_actors.store import ReaderStore


async def read_former(store: ReaderStore, name: str) -> Former:
    """Read it.

    Raises:
        UnknownExperimentError: there is none of that name.
        ExperimentError: this version cannot read its declaration.
    """
    experiment = from_json(await store.spec(name))
    stored = await store.load(name)
    core = settings(experiment)
    return Former(experiment, read(core, experiment.metric, stored.meta, stored.slots))
