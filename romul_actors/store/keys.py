"""Names of the keys in Redis. docs/redis.md describes their contents.

All keys of an experiment share the hash tag {NAME}, so that a Cluster keeps them on one shard.
"""

from collections.abc import Mapping

from romul_actors.errors import UnknownExperimentError
from romul_actors.sendable import is_text

EXPERIMENTS = "romul:experiments"
"""The set of the names of all experiments."""
GROUPS: Mapping[str, str] = {"inbox": "actors", "trials": "workers"}
"""The two queues, each with its consumer group."""
STREAMS = (*GROUPS, "history", "dead")
"""The streams whose lengths `depths` returns."""
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
"""All keys of an experiment except its own hash and its slots' hashes."""


def key(experiment: str, part: str = "") -> str:
    """The key of one part of an experiment, or without `part` that of its own hash.

    Raises:
        UnknownExperimentError: no experiment can have that name.
    """
    # Any other name in the store's list is used unchanged.
    if not is_text(experiment):
        raise UnknownExperimentError(
            f"no experiment {experiment!r}: the name contains half of a surrogate pair"
        )
    return f"romul:{{{experiment}}}:{part}" if part else f"romul:{{{experiment}}}"


def bell_key(experiment: str, worker: str) -> str:
    """The key of the stream that wakes a worker when there is an offer for it."""
    return key(experiment, f"bell:{worker}")


def slot_key(experiment: str, index: int) -> str:
    """The key of a slot's hash."""
    return f"romul:{{{experiment}}}:slot:{index}"


def experiment_of(key: str) -> str:
    """The name of the experiment that a key belongs to."""
    return key.partition("{")[2].partition("}")[0]
