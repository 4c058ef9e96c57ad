"""Says when a search's task is at fault: its trials fail in the same way, whatever they try."""

import re

from romul_actors.core.history import Line, TrialFailed, TrialReported

SAME = 3
"""Half of the slots, and so many at least, fail in the same way before anything succeeds: then it
is the task's fault."""
OF_THE_TASK = ("exception", "task", "bad_result", "no_checkpoint")
LOOKED_AT = 300
"""Characters of a message's last line that are compared."""
_OWN = re.compile(r"\S*/\S*|0x[0-9a-fA-F]+|\d+")
"""What one fault may say in other words in each trial: paths, addresses, numbers.

"loss is 3.2" and "loss is 4.5" are one fault, too: no trial has succeeded beside them.
"""


class Judge:
    """Follows the history of one search.

    Args:
        population: how many slots it has.
        succeeded: whether a trial has succeeded before.
    """

    def __init__(self, population: int, *, succeeded: bool = False) -> None:
        self._enough = max(SAME, -(-population // 2))
        self._succeeded = succeeded
        self._faults: dict[str, set[int]] = {}

    def take(self, line: Line) -> str:
        """Look at the next line.

        Returns:
            Why the search need not go on: its task would fail in every slot, attempt for attempt;
            "": that is not known.
        """
        if isinstance(line, TrialReported):
            self._succeeded = True
        if self._succeeded or not isinstance(line, TrialFailed) or line.reason not in OF_THE_TASK:
            return ""
        last = line.message.rstrip().rpartition("\n")[2][:LOOKED_AT]
        slots = self._faults.setdefault(_OWN.sub("...", last), set())
        slots.add(line.slot)
        if len(slots) < self._enough:
            return ""
        return (
            f"{len(slots)} trials of different hyperparameters failed in the same way, and none "
            f"has succeeded:\n{line.message}"
        )
