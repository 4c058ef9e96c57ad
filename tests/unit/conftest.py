"""A simulated search for the tests of all views."""

import pytest

from romul_actors.observe.snapshot import Snapshot, full_snapshot
from romul_sim.churn import scenario, simulation
from romul_sim.churn.scenario import Policy, Scenario
from romul_sim.churn.trace import Change
from romul_sim.cluster.training import Durations
from romul_sim.cluster.virtual_time import run


@pytest.fixture(scope="session")
def searched():
    """A snapshot of a simulated search that lost a machine, with its whole history."""

    class Watched(simulation.Simulation):
        async def figures(self, ended_s):
            found.append(await full_snapshot(self.store, "search-0"))
            return await super().figures(ended_s)

    found: list[Snapshot] = []
    scenario.KEEP_LINES = 100_000
    changes = [Change(0.0, f"m{i}", "arrives", speed=1.0) for i in range(4)]
    changes.append(Change(90.0, "m3", "leaves"))
    lossy = Scenario(
        changes, steps=12, durations=Durations(60.0, 0.0), policy=Policy(second_copy=0.0)
    )
    run(Watched(lossy).play())
    scenario.KEEP_LINES = 1_000
    return found[0]
