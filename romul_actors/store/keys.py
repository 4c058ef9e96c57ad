"""Names of the keys in Redis; docs/redis.md says what each of them holds.

All keys of an experiment share the hash tag {NAME}, so that a Cluster keeps them on one shard.
"""

from collections.abc import Mapping

from romul_actors.errors import UnknownExperimentError
from romul_actors.sendable import is_text

EXPERIMENTS = "romul:experiments"
"""The set of all experiments' names."""
GROUPS: Mapping[str, str] = {"inbox": "actors", "trials": "workers"}
"""The two queues, each with its consumer group."""
STREAMS = (*GROUPS, "history", "dead")
"""The streams whose lengths are an experiment's depths."""
LEASES = ("trials", "targeted")
"""The two streams whose pending entries are leases, both of the group `workers`."""
PARTS = (
    *STREAMS,
    "workers",
    "settled",
    "garbage",
    "tick",
    "logs",
    "affinity",
    "offers",
    "targeted",
)
"""Every key of an experiment besides its own hash and its slots' hashes."""


def key(experiment: str, part: str = "") -> str:
    """Key of one part of an experiment; without a part, the experiment's own hash.

    Raises:
        UnknownExperimentError: no experiment can have that name.
    """
    # Whatever else stands in a store's list of names is looked up as it is.
    if not is_text(experiment):
        raise UnknownExperimentError(f"no experiment {experiment!r}: that is half of a character")
    return f"romul:{{{experiment}}}:{part}" if part else f"romul:{{{experiment}}}"


def bell_key(experiment: str, worker: str) -> str:
    """Key of the stream that wakes a worker for which there is an offer."""
    return key(experiment, f"bell:{worker}")


def slot_key(experiment: str, index: int) -> str:
    """Key of one slot's hash."""
    return f"romul:{{{experiment}}}:slot:{index}"


def experiment_of(key: str) -> str:
    """Name of the experiment that a key belongs to."""
    return key.partition("{")[2].partition("}")[0]
