"""Measure the speed of the simulator, compared with another simulator and a ceiling.

    python benchmarks/simulator.py
    python benchmarks/simulator.py --machines 1000 --days 7 --only romul

- `romul`: machines that come and go, ten-minute trials, the real actor and workers on the memory
  store; one process on one core.
- `syne_tune`: Syne Tune's simulator backend with its own PBT on the same number of workers, which
  never leave.
- `simpy` and `loop`: SimPy processes, and tasks on ROMUL's virtual loop, that only wait. These are
  upper limits for any simulation on them.

Prints one JSON line. The rates are results, or waits, per second of wall time.
"""

import argparse
import asyncio
import contextlib
import io
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from numpy.random import default_rng

from romul_sim.churn.scenario import Policy, Scenario
from romul_sim.churn.simulation import simulate
from romul_sim.churn.sweep import laid_out
from romul_sim.churn.trace import DAY_S, Pool, generate
from romul_sim.cluster.training import Durations
from romul_sim.cluster.virtual_time import run

TRIAL_S = 600.0
BOWL_STEPS = 100
WAITS = 200_000
MIB = 1024


def romul(machines: int, days: float, searches: int) -> dict[str, Any]:
    """Simulate trials of ten minutes on machines that live for half a day on average."""
    pool = Pool(machines, DAY_S / 2, DAY_S * days, zones=8)
    made = generate("replaced", pool, default_rng(0))
    scenario = Scenario(
        made.changes,
        population=max(4, int(1.5 * machines / searches)),
        searches=searches,
        apart=True,
        durations=Durations(TRIAL_S),
        policy=Policy(lease_s=3 * TRIAL_S, broker_s=2.0),
    )
    # More steps than fit into the time, so that no machine runs out of work.
    steps = int(2 * made.span_s / TRIAL_S)
    scenario = laid_out(scenario, made.span_s, steps)
    began = time.perf_counter()
    figures = simulate(scenario).figures
    wall_s = time.perf_counter() - began
    return {
        "trials": figures["trials"],
        "wall_s": round(wall_s, 2),
        "trials_a_second": round(figures["trials"] / wall_s, 1),
        "invariants_broken": figures["invariants_broken"],
        "goodput": figures["goodput"],
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB),
    }


def syne_tune(workers: int, results: int) -> float:
    """Results per second of Syne Tune's simulator with its PBT."""
    from syne_tune import StoppingCriterion, Tuner  # noqa: PLC0415
    from syne_tune.backend.simulator_backend.simulator_callback import (  # noqa: PLC0415
        SimulatorCallback,
    )
    from syne_tune.optimizer.schedulers.pbt import PopulationBasedTraining  # noqa: PLC0415

    box, backend = _bowl()
    scheduler = PopulationBasedTraining(
        {**box.configuration_space, "epochs": BOWL_STEPS},
        metric="loss",
        time_attr="epoch",
        max_t=BOWL_STEPS,
        population_size=workers,
        perturbation_interval=1,
    )
    tuner = Tuner(
        trial_backend=backend,
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_evaluations=results),
        n_workers=workers,
        sleep_time=0,
        callbacks=[SimulatorCallback()],
        print_update_interval=1e9,
        results_update_interval=1e9,
        save_tuner=False,
        suffix_tuner_name=True,
    )
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        tuner.run()
    wall_s = time.perf_counter() - began
    return results / wall_s


def _bowl() -> tuple[Any, Any]:
    """A problem in Syne Tune's form whose steps each take `TRIAL_S`, and its simulator backend."""
    import numpy as np  # noqa: PLC0415
    from syne_tune.blackbox_repository import UserBlackboxBackend  # noqa: PLC0415
    from syne_tune.blackbox_repository.blackbox import Blackbox  # noqa: PLC0415
    from syne_tune.config_space import randint, uniform  # noqa: PLC0415

    times = TRIAL_S * np.arange(1, BOWL_STEPS + 1)

    class Bowl(Blackbox):  # type: ignore[misc]
        """A quadratic function."""

        def __init__(self) -> None:
            super().__init__(
                configuration_space={"x": uniform(0.0, 1.0)},
                fidelity_space={"epoch": randint(1, BOWL_STEPS)},
                objectives_names=["loss", "elapsed_time"],
            )

        def _objective_function(
            self, configuration: Any, fidelity: Any = None, seed: Any = None
        ) -> Any:
            del seed
            losses = np.full(BOWL_STEPS, (configuration["x"] - 0.3) ** 2)
            if fidelity is None:
                return np.stack([losses, times], axis=1)
            at = int(fidelity["epoch"]) - 1
            return {"loss": float(losses[at]), "elapsed_time": float(times[at])}

        @property
        def fidelity_values(self) -> Any:
            return np.arange(1, BOWL_STEPS + 1)

    class Backend(UserBlackboxBackend):  # type: ignore[misc]
        """Copies no checkpoints, because the simulator would copy folders that do not exist."""

        def copy_checkpoint(self, src_trial_id: int, tgt_trial_id: int) -> None:
            del src_trial_id, tgt_trial_id

    box = Bowl()
    return box, Backend(box, elapsed_time_attr="elapsed_time", max_resource_attr="epochs")


def simpy(workers: int) -> float:
    """Waits per second of SimPy processes that do nothing else."""
    import simpy as library  # noqa: PLC0415

    environment = library.Environment()

    def wait(number: int) -> Any:
        for _ in range(WAITS // workers):
            yield environment.timeout(1.0 + 0.001 * number)

    for number in range(workers):
        environment.process(wait(number))
    began = time.perf_counter()
    environment.run()
    return WAITS / (time.perf_counter() - began)


def loop(workers: int) -> float:
    """Waits per second of tasks on the virtual loop that do nothing else."""

    async def wait(number: int) -> None:
        for _ in range(WAITS // workers):
            await asyncio.sleep(1.0 + 0.001 * number)

    async def main() -> None:
        await asyncio.gather(*(wait(number) for number in range(workers)))

    began = time.perf_counter()
    run(main())
    return WAITS / (time.perf_counter() - began)


def _peer(measure: Callable[[], float]) -> float | None:
    try:
        return round(measure(), 1)
    except ImportError as error:
        print(f"left out: {error} (pip install 'romul[peers]')", file=sys.stderr)
        return None


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", type=int, default=64)
    parser.add_argument("--days", type=float, default=2.0)
    parser.add_argument(
        "--searches", type=int, default=None, help="Default: one for each 64 machines."
    )
    parser.add_argument("--results", type=int, default=10_000, help="results of Syne Tune")
    parser.add_argument("--only", choices=["romul"], help="measure no peers and ceilings")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    logging.getLogger("romul").setLevel(logging.CRITICAL)
    searches = given.searches or max(1, round(given.machines / 64))
    measured: dict[str, Any] = {
        "benchmark": "simulator",
        "machines": given.machines,
        "days": given.days,
        **romul(given.machines, given.days, searches),
    }
    if given.only is None:
        measured["syne_tune_results_a_second"] = _peer(
            lambda: syne_tune(given.machines, given.results)
        )
        measured["simpy_waits_a_second"] = _peer(lambda: simpy(given.machines))
        measured["loop_waits_a_second"] = round(loop(given.machines), 1)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
