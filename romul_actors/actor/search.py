"""What an actor knows of one search from one round to the next; none of it must last."""

import asyncio
from dataclasses import dataclass
from math import inf

from romul_actors.actor.batch import HeldExperiment
from romul_actors.actor.timing import GIVE_WAY_S


@dataclass(slots=True)
class Search:
    """A search, as an actor knows it. Times are in seconds of the event loop's clock.

    Attributes:
        held: as it was last read or committed; None: it is to be read.
        fault: why it could not be served; None: it is served.
        warned: whether it was said what the actor leaves out of its declaration.
        release_s: when what is offered to single workers is to be released.
        ticked_s: when the actor last let time pass for its population.
        reconciled_s: when it was last looked for attempts that are nowhere.
        left_until_s: until then its inbox is left to another actor (`precedence.py`), and longer
            if that one goes on with it; None: it is not left to any.
        left_at: how many results had been counted when that was last looked at.
    """

    held: HeldExperiment | None = None
    fault: str | None = None
    warned: bool = False
    release_s: float = inf
    ticked_s: float = -inf
    reconciled_s: float = -inf
    left_until_s: float | None = None
    left_at: int = 0

    def release_after(self, ms: int | None) -> None:
        """Have what is offered released after so many milliseconds; None: nothing is offered."""
        if ms is not None:
            due_s = asyncio.get_running_loop().time() + ms / 1000
            self.release_s = min(due_s, self.release_s)

    def leave(self, reported: int, now_s: float) -> None:
        """Leave its inbox to another actor for a moment; so many results have been counted."""
        self.left_at, self.left_until_s = reported, now_s + GIVE_WAY_S

    def look_again(self, reported: int, now_s: float) -> None:
        """Take care of its inbox, unless results have been counted meanwhile."""
        if reported == self.left_at:
            self.left_until_s = None
        else:
            self.leave(reported, now_s)
