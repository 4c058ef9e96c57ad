"""Trains a language model on a text, update by update.

Segments have a random length, and the learning rate is proportional to it: Merity, Keskar & Socher
(2018), section 4.1.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from romul_workers.tasks.ptb_model import LanguageModel, Settings, State, streams

FULL_LENGTH = 0.95
"""Probability that a segment has a mean length of `bptt`, and not of half of it."""
LENGTH_DEVIATION = 5.0
SHORTEST = 5


class Training:
    """Trains a model; training can be stopped and resumed at any update.

    The position in training is counted in rows: one row is the next word of each of the `batch`
    streams, and an epoch has `rows` rows.

    Args:
        model: the model.
        optimizer: an optimizer for the model's parameters.
        text: the training text as word numbers, shape (n,), on the model's device.
        place: the position in training, in rows.

    Attributes:
        rows: length of an epoch, in rows.
        place: the position in training, in rows.
        state: the model's state at that position.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: torch.optim.SGD,
        text: Tensor,
        place: int = 0,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self._words, self._targets = streams(text, model.settings.batch)
        self.rows = len(self._words)
        self.place = place
        self.state: State = model.start(model.settings.batch)
        self._mean: list[Tensor] | None = None
        self._averaged = 0

    @property
    def settings(self) -> Settings:
        """The model's settings, which a schedule may replace between updates."""
        return self.model.settings

    @classmethod
    def new_optimizer(cls, model: LanguageModel) -> torch.optim.SGD:
        """Plain SGD with the fields of the model's settings."""
        settings = model.settings
        return torch.optim.SGD(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def update(self, stop: int) -> None:
        """Do one update on the next segment, without waiting for the GPU.

        The segment ends at row `stop` or at the end of the epoch at the latest.
        """
        begin = self.place % self.rows
        if begin == 0:
            self.state = self.model.start(self.settings.batch)
        length = min(self._length(), self.rows - begin, stop - self.place)
        chosen = slice(begin, begin + length)
        self.model.train()
        loss, after = self.model.loss(self._words[chosen], self._targets[chosen], self.state)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self._step(self.settings.learning_rate * length / self.settings.bptt)
        self.state = [(hidden.detach(), cell.detach()) for hidden, cell in after]
        self.place += length
        if self._mean is not None:
            self._add_to_mean(self._mean)

    def start_average(self) -> None:
        """From now on, keep the mean of the weights after each update."""
        self._mean = [weight.detach().clone() for weight in self.model.parameters()]
        self._averaged = 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the `with` block, give the model the mean of its weights, if there is one."""
        if self._mean is None or not self._averaged:
            yield
            return
        own = [weight.detach().clone() for weight in self.model.parameters()]
        self._replace(self._mean)
        try:
            yield
        finally:
            self._replace(own)

    def saved(self) -> dict[str, Any]:
        """The state to save in a checkpoint in addition to the model and the optimizer."""
        return {
            "state": [[hidden, cell] for hidden, cell in self.state],
            "mean": self._mean,
            "averaged": self._averaged,
        }

    def restore(self, saved: Mapping[str, Any], *, mean: bool) -> None:
        """Restore what `saved` returned.

        Args:
            saved: the saved values. The model's state is restored if it has the right shapes.
            mean: whether to restore the mean of the weights too.
        """
        device = self.model.bias.device
        state = [(hidden.to(device), cell.to(device)) for hidden, cell in saved["state"]]
        if _shapes(state) == _shapes(self.state):
            self.state = state
        if mean and saved["mean"] is not None:
            self._mean = [weight.to(device) for weight in saved["mean"]]
            self._averaged = int(saved["averaged"])

    def _length(self) -> int:
        """A random length for the next segment, drawn on the CPU."""
        bptt = float(self.settings.bptt)
        if float(torch.rand(())) >= FULL_LENGTH:
            bptt /= 2.0
        drawn = round(bptt + LENGTH_DEVIATION * float(torch.randn(())))
        return max(min(SHORTEST, self.settings.bptt), drawn)

    def _step(self, rate: float) -> None:
        """Do one optimizer step with another learning rate; restore the rate afterwards."""
        [group] = self.optimizer.param_groups
        kept, group["lr"] = group["lr"], rate
        self.optimizer.step()
        group["lr"] = kept

    @torch.no_grad()
    def _add_to_mean(self, mean: Sequence[Tensor]) -> None:
        self._averaged += 1
        for weight, of_mean in zip(self.model.parameters(), mean, strict=True):
            of_mean.lerp_(weight, 1.0 / self._averaged)

    @torch.no_grad()
    def _replace(self, weights: Sequence[Tensor]) -> None:
        for weight, new in zip(self.model.parameters(), weights, strict=True):
            weight.copy_(new)


def _shapes(state: State) -> list[tuple[torch.Size, torch.Size]]:
    return [(hidden.shape, cell.shape) for hidden, cell in state]
