"""Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Tuning").

The stopping variant: a slot trains one configuration until, at a rung, it is not among the best
1/eta of all that have reached that rung. Then it draws a new configuration and starts from scratch.
Hyperparameters never change during the training of a configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from romul_actors.core.optimizers.base import Alone, Move, View
from romul_actors.errors import OptimizerError


@dataclass(frozen=True)
class Asha(Alone):
    """Constants of ASHA.

    Attributes:
        eta: reduction factor; rungs are at 1, eta, eta^2 ... steps. The default is that of the
            paper's experiments.
    """

    name: ClassVar[str] = "asha"

    eta: int = 4

    def __post_init__(self) -> None:
        if self.eta < 2:  # noqa: PLR2004
            raise OptimizerError(f"optimizer {self.name!r}: eta = {self.eta!r} is below 2")

    def decide(self, view: View, due: Sequence[int]) -> list[Move]:
        """Continue the configuration, or stop it and start a new one."""
        moves = []
        for i in due:
            memory = view.slots[i].memory
            age = view.step - int(memory.get("born", 0)) + 1
            rungs = {rung: list(losses) for rung, losses in memory.get("rungs", {}).items()}
            loss = view.known[i].loss
            stopped = view.known[i].failed
            if self._is_rung(age) and not stopped:
                peers = [
                    other
                    for slot in view.slots
                    for other in slot.memory.get("rungs", {}).get(str(age), ())
                ]
                better = sum(other < loss for other in peers)
                # Among fewer than eta there is no best 1/eta: continue.
                n = len(peers) + 1
                stopped = n >= self.eta and better >= max(1, n // self.eta)
                rungs.setdefault(str(age), []).append(loss)
            born = view.step + 1 if stopped else int(memory.get("born", 0))
            remembered: dict[str, Any] = {"born": born, "rungs": rungs}
            if tried := self._tried(view, i, age):
                remembered["tried"] = tried
            if stopped:
                vector = self.draw(view, i, remembered)
                moves.append(Move(i, None, vector, remembered, {"rule": "drawn anew"}, fresh=True))
            else:
                moves.append(Move(i, i, view.known[i].vector, remembered, {"rule": "held"}))
        return moves

    def join(self, view: View, slot: int) -> tuple[str, Move]:
        """Draw a new configuration; a parked slot keeps its record of rungs."""
        tier, move = super().join(view, slot)
        if slot >= len(view.slots):
            return tier, move
        parked = view.slots[slot]
        return tier, replace(move, memory={**parked.memory, "born": parked.step + 1})

    def draw(self, view: View, i: int, memory: Mapping[str, Any]) -> tuple[float, ...]:
        """Draw a vector for slot `i`, here uniformly; `memory` is the slot's new memory."""
        del memory
        return tuple(view.rng(i).random(len(view.space)).tolist())

    def _tried(self, view: View, i: int, age: int) -> dict[str, Any]:
        """For each rung, the [loss, *vector] of what reached it. ASHA itself does not use this."""
        del view, i, age
        return {}

    def _is_rung(self, age: int) -> bool:
        while age > 1 and age % self.eta == 0:
            age //= self.eta
        return age == 1
