"""Detects that a search's task is at fault: its trials fail in the same way in every slot."""

import re

from romul_actors.core.history import Line, TrialFailed, TrialReported

SAME = 3
"""If half of the slots, and at least this many, fail in the same way before any trial succeeds, the
task is at fault."""
OF_THE_TASK = ("exception", "task", "bad_result", "no_checkpoint")
LOOKED_AT = 300
"""Number of characters of a message's last line that are compared."""
_OWN = re.compile(r"\S*/\S*|0x[0-9a-fA-F]+|\d+")
"""Parts of a message that differ between trials with the same fault: paths, addresses, numbers.

"loss is 3.2" and "loss is 4.5" also count as the same fault, since no trial has succeeded.
"""


class Judge:
    """Follows the history of one search.

    Args:
        population: number of slots.
        succeeded: whether a trial has already succeeded.
    """

    def __init__(self, population: int, *, succeeded: bool = False) -> None:
        self._enough = max(SAME, -(-population // 2))
        self._succeeded = succeeded
        self._faults: dict[str, set[int]] = {}

    def take(self, line: Line) -> str:
        """Take the next line of history into account.

        Returns:
            Why the search need not continue, because its task would fail in every slot; "" if there
            is no sign of that.
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
            f"{len(slots)} trials with different hyperparameters failed in the same way, and none "
            f"has succeeded:\n{line.message}"
        )
