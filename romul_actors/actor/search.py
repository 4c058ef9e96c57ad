"""What an actor knows of one search from one round to the next; none of it must last."""

from dataclasses import dataclass
from math import inf

from romul_actors.actor.batch import HeldExperiment


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
    """

    held: HeldExperiment | None = None
    fault: str | None = None
    warned: bool = False
    release_s: float = inf
    ticked_s: float = -inf
    reconciled_s: float = -inf
