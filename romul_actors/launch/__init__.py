"""Workers where an engine finds them a machine: this one, hosts by ssh, Slurm, a Ray cluster.

A launcher starts `romul worker` processes and knows nothing of experiments. When a
machine is lost, so is its worker, and the search goes on with the others. Passwords travel in
environments; they never stand in a command line or a script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from romul_actors.errors import RomulError


class LaunchError(RomulError):
    """Workers cannot be started in this way; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Workers to start.

    Attributes:
        workers: how many.
        arguments: of `romul worker`, no secrets among them.
        environment: variables that the workers get, the server's URL with its password too.
        cpus, gpus: of each worker.
        grace_s: how long a worker may take to end, in seconds.
    """

    workers: int
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: int = 1
    gpus: int = 0
    grace_s: float = 10.0

    def gpus_of(self, number: int) -> range:
        """Places of the GPUs of the worker `number`, from 0, on a machine with all of them."""
        return range(number * self.gpus, (number + 1) * self.gpus)
