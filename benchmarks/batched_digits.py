"""Many networks of the digits task trained side by side, as one batched network.

What `romul_workers.tasks.digits` does to one network, done to B of them, each with weights, data
order, noise and hyperparameters of its own: one launch of a kernel where there were B. A GPU trains
thousands at once; the arithmetic is the same, the random numbers are others.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from romul_actors.events import Result, Stamped, Submitted
from romul_actors.events import Trial as AskedTrial
from romul_actors.experiment import Experiment
from romul_actors.plan import settings
from romul_actors.population import decide
from romul_actors.state import Decision, Population
from romul_workers.tasks import digits
from romul_workers.tasks.digits import BATCH, Data, Part
from romul_workers.trial import Context

SHIFT = 2
"""Largest shift that the task's ranges allow, in pixels."""
ROUNDS_KEPT = 3
"""Rounds of trials whose networks may still be continued; more would fill the GPU."""
SHAPES = {
    "conv1": (9, 16),
    "conv2": (9 * 16, 32),
    "dense1": (512, 64),
    "dense2": (64, 10),
}
"""Inputs and outputs of each layer; a convolution multiplies unfolded 3 x 3 patches."""


@dataclass(frozen=True)
class Networks:
    """Weights and momenta of B networks, each tensor of shape (B, ...)."""

    weights: Mapping[str, Tensor]
    momenta: Mapping[str, Tensor]

    @classmethod
    def new(cls, n: int, device: torch.device) -> "Networks":
        """Fresh ones, drawn as torch.nn draws them: U(-1, 1) / sqrt(inputs)."""
        weights = {}
        for name, (inputs, outputs) in SHAPES.items():
            bound = 1.0 / math.sqrt(inputs)
            for part, shape in (("w", (inputs, outputs)), ("b", (1, outputs))):
                drawn = torch.rand((n, *shape), device=device)
                weights[f"{name}.{part}"] = bound * (2.0 * drawn - 1.0)
        return cls(weights, {name: torch.zeros_like(weight) for name, weight in weights.items()})

    def at(self, places: Tensor) -> "Networks":
        """Copies of those at `places`, shape (n,)."""
        return Networks(
            {name: weight[places] for name, weight in self.weights.items()},
            {name: momentum[places] for name, momentum in self.momenta.items()},
        )

    def put(self, places: Tensor, others: "Networks") -> None:
        """Replace those at `places`, shape (n,), by n others."""
        for name in self.weights:
            self.weights[name][places] = others.weights[name]
            self.momenta[name][places] = others.momenta[name]


def forward(weights: Mapping[str, Tensor], images: Tensor, kept: Tensor | None = None) -> Tensor:
    """Logits.

    Args:
        weights: of B networks.
        images: shape (B, n, 8, 8).
        kept: what dropout multiplies the 64 hidden values with, shape (B, n, 64).

    Returns:
        Shape (B, n, 10).
    """
    b, n = images.shape[:2]
    x = _patches(images[..., None])
    x = torch.relu(torch.baddbmm(weights["conv1.b"], x, weights["conv1.w"]))
    x = _patches(x.view(b, n, 8, 8, 16))
    x = torch.relu(torch.baddbmm(weights["conv2.b"], x, weights["conv2.w"]))
    x = x.view(b, n, 4, 2, 4, 2, 32).amax((3, 5)).view(b, n, 512)
    x = torch.relu(torch.baddbmm(weights["dense1.b"], x, weights["dense1.w"]))
    if kept is not None:
        x = x * kept
    return torch.baddbmm(weights["dense2.b"], x, weights["dense2.w"])


def _patches(x: Tensor) -> Tensor:
    """Each pixel's 3 x 3 neighbours: (B, n, 8, 8, c) to (B, n * 64, 9 * c)."""
    b, n, _, _, c = x.shape
    x = functional.pad(x, (0, 0, 1, 1, 1, 1))
    neighbours = [x[:, :, dy : dy + 8, dx : dx + 8] for dy in range(3) for dx in range(3)]
    return torch.cat(neighbours, -1).view(b, n * 64, 9 * c)


def losses(
    weights: Mapping[str, Tensor], images: Tensor, labels: Tensor, kept: Tensor, smoothing: Tensor
) -> Tensor:
    """Training loss of each network, shape (B,)."""
    logs = functional.log_softmax(forward(weights, images, kept), -1)
    right = logs.gather(-1, labels[..., None])[..., 0]
    return -((1.0 - smoothing) * right + smoothing * logs.mean(-1)).mean(1)


class Trainer:
    """Trains networks on the task's data."""

    def __init__(self, data: Data, *, compiled: bool = False) -> None:
        self.data = data
        self.device = data.train.images.device
        self._losses = torch.compile(losses, dynamic=False) if compiled else losses
        self._forward = torch.compile(forward, dynamic=False) if compiled else forward

    def train(self, networks: Networks, values: Sequence[Mapping[str, Any]], epochs: int) -> None:
        """Train in place, network b with hyperparameters `values[b]`."""

        def column(name: str) -> Tensor:
            return torch.tensor([float(v[name]) for v in values], device=self.device)[:, None]

        rate, momentum = column("learning_rate")[..., None], column("momentum")[..., None]
        decay, dropout = column("weight_decay")[..., None], column("dropout")[..., None]
        smoothing = column("label_smoothing")
        gaussian = [v["noise_kind"] == "gaussian" for v in values]
        noises = (
            torch.tensor([v["shift"] for v in values], device=self.device),
            column("input_noise")[..., None, None],
            torch.tensor(gaussian, device=self.device)[:, None, None, None],
        )
        weights = {
            name: weight.clone().requires_grad_() for name, weight in networks.weights.items()
        }
        train = self.data.train
        for _ in range(epochs):
            order = torch.rand((len(values), len(train.labels)), device=self.device).argsort(1)
            for chosen in torch.split(order, BATCH, 1):
                images = augment(train.images[:, 0][chosen], *noises)
                kept = torch.rand((*chosen.shape, 64), device=self.device) >= dropout
                loss = self._losses(
                    weights, images, train.labels[chosen], kept / (1.0 - dropout), smoothing
                )
                gradients = torch.autograd.grad(loss.sum(), list(weights.values()))
                with torch.no_grad():
                    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                        velocity = networks.momenta[name]
                        velocity.mul_(momentum).add_(gradient).addcmul_(decay, weight)
                        weight.sub_(rate * velocity)
        for name, weight in weights.items():
            networks.weights[name].copy_(weight.detach())

    @torch.no_grad()
    def evaluate(self, networks: Networks, part: Part) -> tuple[Tensor, Tensor]:
        """Cross-entropy and share of right answers, each of shape (B,)."""
        n = len(networks.weights["dense2.b"])
        loss, right = torch.zeros((2, n), device=self.device)
        for images, labels in zip(
            torch.split(part.images[:, 0], BATCH), torch.split(part.labels, BATCH), strict=True
        ):
            logits = self._forward(networks.weights, images.expand(n, *images.shape))
            logs = functional.log_softmax(logits, -1)
            loss -= logs.gather(-1, labels.expand(n, -1)[..., None])[..., 0].sum(1)
            right += (logits.argmax(-1) == labels).sum(1)
        return loss / len(part.labels), right / len(part.labels)


def augment(images: Tensor, shift: Tensor, scale: Tensor, gaussian: Tensor) -> Tensor:
    """The task's shifts and noise.

    Args:
        images: shape (B, n, 8, 8).
        shift: pixels, shape (B,).
        scale: of the noise, shape (B, 1, 1, 1).
        gaussian: whether the noise is, or uniform; of the same shape.
    """
    b, n = images.shape[:2]
    device = images.device
    padded = functional.pad(images, (SHIFT,) * 4).view(b, n, -1)
    side = 8 + 2 * SHIFT
    drawn = torch.rand((2, b, n), device=device) * (2 * shift + 1)[:, None]
    y, x = SHIFT - shift[:, None] + drawn.long()
    inside = torch.arange(8, device=device)
    rows = (y[..., None] + inside)[..., :, None]
    columns = (x[..., None] + inside)[..., None, :]
    moved = padded.gather(2, (rows * side + columns).view(b, n, 64)).view(b, n, 8, 8)
    uniform = 2.0 * torch.rand_like(moved) - 1.0
    return moved + scale * torch.where(gaussian, torch.randn_like(moved), uniform)


def begin(experiment: Experiment) -> Decision:
    """What is asked for first."""
    return decide(Population(settings=settings(experiment)), Stamped(Submitted(), 0))


def checkpoint(trial: AskedTrial) -> str:
    """Name of the checkpoint that a trial writes."""
    return f"{trial.id}-{trial.attempt}"


def result(trial: AskedTrial, metrics: Mapping[str, float]) -> Result:
    """What a worker would report."""
    return Result(
        trial=trial.id,
        slot=trial.slot,
        attempt=trial.attempt,
        worker="benchmark",
        value=metrics["val_loss"],
        checkpoint=checkpoint(trial),
        seconds=1.0,
        metrics=metrics,
    )


def best(population: Population) -> tuple[float, float]:
    """Validation loss and test accuracy of the best trial.

    Raises:
        RuntimeError: no trial ended well.
    """
    if population.best is None:
        known = population.settings
        raise RuntimeError(f"{known.optimizer}, seed {known.seed}: no trial ended well")
    return population.best.loss, population.best.metrics["test_accuracy"]


def run(
    experiments: Sequence[Experiment], device: str, at_once: int = 4800
) -> list[tuple[float, float]]:
    """Run experiments on the digits task to their ends, many at once.

    The production core decides, in processes; all trials that wait are trained as one batch.

    Args:
        experiments: all with the same population and budget, and with optimizers that continue
            checkpoints of the last three rounds only.
        device: where the networks are trained, as torch names it.
        at_once: how many networks are trained side by side; 2,400 took 6 GiB.

    Returns:
        Validation loss and test accuracy of each one's best trial.
    """
    trainer = Trainer(digits.setup(Context("digits", device, {})), compiled=device != "cpu")
    size = max(1, at_once // experiments[0].population)
    ended: list[tuple[float, float]] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for first in range(0, len(experiments), size):
            torch.manual_seed(first)
            ended += _run(experiments[first : first + size], trainer, pool)
            print(f"{len(ended)} of {len(experiments)} runs", file=sys.stderr)
    return ended


def _run(
    experiments: Sequence[Experiment], trainer: Trainer, pool: Executor
) -> list[tuple[float, float]]:
    decisions = list(pool.map(begin, experiments, chunksize=20))
    # Networks of a whole round, and where in them each checkpoint of a run is.
    rounds: dict[int, Networks] = {}
    places: dict[tuple[int, str], tuple[int, int]] = {}
    for now in count():
        asked = [(run, trial) for run, known in enumerate(decisions) for trial in known.trials]
        if not asked:
            break
        networks = Networks.new(len(asked), trainer.device)
        sources: dict[int, list[tuple[int, int]]] = {}
        for row, (run, trial) in enumerate(asked):
            if trial.parent is not None:
                then, source = places[run, trial.parent]
                if then not in rounds:
                    raise RuntimeError(f"{trial.parent} is older than {ROUNDS_KEPT} rounds")
                sources.setdefault(then, []).append((row, source))
        for then, pairs in sources.items():
            to, source_rows = torch.tensor(pairs, device=trainer.device).T
            networks.put(to, rounds[then].at(source_rows))
        epochs = int(asked[0][1].stop - asked[0][1].start)
        trainer.train(networks, [trial.hyperparameters for _, trial in asked], epochs)
        losses, _ = trainer.evaluate(networks, trainer.data.validation)
        _, accuracies = trainer.evaluate(networks, trainer.data.test)
        rounds[now] = networks
        rounds.pop(now - ROUNDS_KEPT, None)
        results: list[list[Result]] = [[] for _ in decisions]
        for row, ((run, trial), loss, accuracy) in enumerate(
            zip(asked, losses.tolist(), accuracies.tolist(), strict=True)
        ):
            places[run, checkpoint(trial)] = (now, row)
            results[run].append(result(trial, {"val_loss": loss, "test_accuracy": accuracy}))
        populations = [known.population for known in decisions]
        decisions = list(pool.map(_go_on, populations, results, chunksize=20))
    return [best(known.population) for known in decisions]


def _go_on(population: Population, results: Sequence[Result]) -> Decision:
    """What follows from all results of a round."""
    asked: list[AskedTrial] = []
    for result in results:
        decision = decide(population, Stamped(result, 0))
        population = decision.population
        asked += decision.trials
    return Decision(population, tuple(asked))
