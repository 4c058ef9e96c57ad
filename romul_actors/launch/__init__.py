"""Launchers of workers: on this machine, on hosts by ssh, in Slurm or on a Ray cluster.

A launcher starts `romul worker` processes and knows nothing of experiments. If a machine is lost,
so is its worker, and the search continues with the others. Passwords are passed in the
environment, never in a command line or a script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from romul_actors.errors import RomulError


class LaunchError(RomulError):
    """Workers cannot be started; the message says why."""


class FleetError(LaunchError, ValueError):
    """A host, an option or a value for the workers is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Workers to start.

    Attributes:
        workers: number of workers.
        arguments: arguments of `romul worker`, without secrets.
        environment: variables for the workers, including the server's URL with its password.
        cpus, gpus: number per worker.
        grace_s: how long a worker may take to end, in seconds.
    """

    workers: int
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: int = 1
    gpus: int = 0
    grace_s: float = 10.0

    def gpus_of(self, number: int) -> range:
        """Indices of the GPUs of worker `number` (from 0), if all workers share one machine."""
        return range(number * self.gpus, (number + 1) * self.gpus)
