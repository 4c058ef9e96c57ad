"""Which experiments a worker serves."""

from romul_actors.errors import StoreError
from romul_actors.store.memory import MemoryStore
from romul_workers.worker.admission import Admission


class Unreadable(MemoryStore):
    """A store whose declarations cannot be read."""

    async def spec(self, name):
        raise StoreError(f"{name} cannot be read")


async def test_an_experiment_that_could_not_be_read_may_be_removed():
    store = Unreadable()
    await store.create("e", "{}", b"submitted")
    admission = Admission(store, "w", ["*"], ["*"], lambda name: None)
    await admission.refresh()
    assert list(admission.refused) == ["e"]
    await store.remove("e")
    await admission.refresh()
    assert admission.refused == {}
