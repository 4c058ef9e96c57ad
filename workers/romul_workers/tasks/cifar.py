"""CIFAR-10 and CIFAR-100: wide residual networks on real images (docs/tasks.md).

The data does not come with ROMUL: see `cifar_data`. The split is fixed: the last 5,000 of the
50,000 training images are for validation, which the search sees, and the others for training. The
published order is random. The 10,000 test images are only reported.

Hyperparameters are the fields of `Recipe`; each may be a constant instead. Other constants are the
fields of `Settings` (`cifar_recipe`). Training can pause after any minibatch. It then continues
with the same random numbers as without the pause.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from romul_actors.errors import TaskError
from romul_workers.tasks.cifar_data import LAYOUTS, SIDE, Images, load
from romul_workers.tasks.cifar_recipe import Recipe, Settings, recipe_of, settings_of
from romul_workers.tasks.rand_augment import rand_augment
from romul_workers.tasks.wide_resnet import WideResNet
from romul_workers.trial import Context, Paused, Trial

HELD_OUT = 10
"""One in this number of training images is for validation."""
EVALUATED = 1000
"""Number of images that are evaluated at a time."""
SHARE_OF_MEMORY = 0.25
"""If the images need more than this share of a GPU's free memory, they stay in main memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the data.

    Attributes:
        images: uint8, shape (n, 3, 32, 32).
        labels: int64, shape (n,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Data:
    """The fixed split, and the statistics for normalising images.

    Attributes:
        train, validation, test: the parts.
        mean, deviation: mean and standard deviation of the training images by channel, shape
            (3, 1, 1).
        classes: number of classes.
        settings: the settings that the data was made with.
        device: where training takes place; the parts may be elsewhere.
    """

    train: Part
    validation: Part
    test: Part
    mean: Tensor
    deviation: Tensor
    classes: int
    settings: Settings
    device: torch.device

    @property
    def batches(self) -> int:
        """Number of minibatches in an epoch."""
        return len(self.train) // self.settings.batch_size


def setup(context: Context) -> Data:
    """Read and split the data, once per process.

    Raises:
        DataError: the data is missing, or differs from what was published.
        TaskError: a constant is invalid.
    """
    return prepare(settings_of(context.constants), torch.device(context.device))


def prepare(settings: Settings, device: torch.device) -> Data:
    """Read and split the data, and move it to the device if it fits there.

    Raises:
        DataError: the data is missing, or differs from what was published.
        TaskError: the minibatch is empty, or larger than the training part.
    """
    layout = LAYOUTS[settings.data_set]
    place = Path(settings.data).expanduser() if settings.data else None
    known, test = load(layout, place, download=settings.download)
    first = len(known.labels) - len(known.labels) // HELD_OUT
    train = _first(Images(known.pixels[:first], known.labels[:first]), settings.train_images)
    validation = _first(
        Images(known.pixels[first:], known.labels[first:]), settings.validation_images
    )
    test = _first(test, settings.test_images)
    if not 1 <= settings.batch_size <= len(train.labels):
        raise TaskError(
            f"batch_size {settings.batch_size}: must be from 1 to the {len(train.labels)} images "
            "to train with"
        )
    mean, deviation = (torch.tensor(value, device=device) for value in _statistics(train.pixels))
    if device.type == "cuda":
        # All minibatches have the same size, so the search for the fastest kernels pays.
        torch.backends.cudnn.benchmark = True
    where = _place(device, sum(part.pixels.nbytes for part in (train, validation, test)))

    def part(images: Images) -> Part:
        return Part(
            torch.from_numpy(images.pixels).to(where), torch.from_numpy(images.labels).to(where)
        )

    return Data(
        part(train),
        part(validation),
        part(test),
        mean,
        deviation,
        layout.classes,
        settings,
        device,
    )


def _first(images: Images, n: int) -> Images:
    return Images(images.pixels[:n], images.labels[:n]) if n else images


def _statistics(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation by channel, each of shape (3, 1, 1)."""
    levels = np.arange(256.0)
    counts = np.stack([np.bincount(pixels[:, i].reshape(-1), minlength=256) for i in range(3)])
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ levels
    deviation = np.sqrt(shares @ levels**2 - mean**2)
    # Do not divide by zero if a channel has only one value.
    deviation[deviation == 0.0] = 1.0
    shape = (3, 1, 1)
    return mean.astype(np.float32).reshape(shape), deviation.astype(np.float32).reshape(shape)


def _place(device: torch.device, size: int) -> torch.device:
    """Where to keep the images: on the device if they leave enough room there."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if size > SHARE_OF_MEMORY * free:
            return torch.device("cpu")
    return device


def network(data: Data, recipe: Recipe) -> WideResNet:
    """Make a new network on the device.

    Raises:
        TaskError: there is no network of this depth or width.
    """
    settings = data.settings
    try:
        model = WideResNet(settings.depth, settings.width, data.classes, recipe.dropout)
    except ValueError as error:
        raise TaskError(str(error)) from None
    model.to(data.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        model.compile()
    return model


def descent(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Make the optimizer."""
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        # torch refuses Nesterov's method without momentum, where it would change nothing.
        nesterov=recipe.nesterov and recipe.momentum > 0.0,
    )


def set_fields(optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
    """Set the fields of a restored optimizer from the recipe, including constants and defaults."""
    for group in optimizer.param_groups:
        group.update(
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )


def minibatches(data: Data, first: int, stop: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Minibatches from `first` up to but not including `stop`, counted from the start of training.

    The order of an epoch depends only on the seed and the epoch's number, so it is the same if
    training resumes inside the epoch.

    Yields:
        The minibatch's number, and the indices of its images in the training part.
    """
    size = data.settings.batch_size
    batches: tuple[Tensor, ...] = ()
    for number in range(first, stop):
        epoch, place = divmod(number, data.batches)
        if not batches or place == 0:
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
            order = torch.randperm(len(data.train), generator=generator)
            batches = torch.split(order.to(data.train.images.device), size)
        yield number, batches[place]


def learn(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, chosen: Tensor, recipe: Recipe
) -> None:
    """Train on one minibatch, without waiting for the GPU.

    Args:
        model: the model, in training mode.
        optimizer: the model's optimizer.
        data: the data.
        chosen: indices of the images in the training part, shape (n,).
        recipe: the augmentation and the loss; the optimizer's fields are not read.
    """
    images = data.train.images[chosen].to(data.device, non_blocking=True)
    labels = data.train.labels[chosen].to(data.device, non_blocking=True)
    images = augment(images, data, recipe)
    kept, others = 1.0, labels
    if recipe.mixup > 0.0:
        kept = share_of_the_first(recipe.mixup)
        partner = torch.randperm(len(images), device=data.device)
        images = kept * images + (1.0 - kept) * images[partner]
        others = labels[partner]
    with _autocast(data):
        logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = kept * functional.cross_entropy(
            logits, labels, label_smoothing=recipe.label_smoothing
        )
        if kept < 1.0:
            loss = loss + (1.0 - kept) * functional.cross_entropy(
                logits, others, label_smoothing=recipe.label_smoothing
            )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def share_of_the_first(alpha: float) -> float:
    """Draw from Beta(alpha, alpha), in double precision, for all images of a minibatch.

    numpy is used because torch draws two Gamma variates, which are both 0 if alpha is small, and
    then returns 0.5; numpy uses their logarithms. The state of numpy's generator is part of the
    checkpoint.
    """
    return float(np.random.beta(alpha, alpha))  # noqa: NPY002


def augment(images: Tensor, data: Data, recipe: Recipe) -> Tensor:
    """Mirror and shift images, apply RandAugment, normalise, and hide a square.

    Args:
        images: uint8, shape (n, 3, 32, 32).
        data: has the mean and the deviation.
        recipe: the strength of each operation.

    Returns:
        Floats of the same shape.
    """
    pixels = _move(images, recipe.crop, flip=recipe.flip).float()
    pixels = rand_augment(pixels, recipe.operations, recipe.magnitude)
    normal = (pixels - data.mean) / data.deviation
    if recipe.cutout > 0:
        n, device = len(images), images.device
        # In half pixels, so that the centre of a square with an odd side is on a pixel.
        middle = 2 * torch.randint(0, SIDE, (2, n, 1), device=device) + (recipe.cutout + 1) % 2
        near = (2 * torch.arange(SIDE, device=device) - middle).abs() < recipe.cutout
        normal = normal * ~(near[0][:, None, :, None] & near[1][:, None, None, :])
    return normal


def _move(images: Tensor, crop: int, *, flip: bool) -> Tensor:
    """Mirror half of the images, and shift each by up to `crop` pixels each way; fill with 0."""
    n, device = len(images), images.device
    along = torch.arange(SIDE, device=device).expand(n, SIDE)
    rows = columns = along
    if flip:
        columns = torch.where(torch.rand((n, 1), device=device) < 0.5, SIDE - 1 - along, along)  # noqa: PLR2004
    if crop:
        dy, dx = torch.randint(0, 2 * crop + 1, (2, n, 1), device=device)
        rows, columns = rows + dy, columns + dx
        images = functional.pad(images, (crop,) * 4)
    each = torch.arange(n, device=device)[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _autocast(data: Data) -> contextlib.AbstractContextManager[Any]:
    """A context for computing in bfloat16, if the settings say so and the device is a GPU."""
    wanted = data.settings.precision == "bf16" and data.device.type == "cuda"
    return torch.autocast("cuda", torch.bfloat16) if wanted else contextlib.nullcontext()


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, part: Part) -> tuple[float, float]:
    """Cross-entropy and accuracy; the model is left in evaluation mode.

    The accuracy is NaN if the cross-entropy is not finite.
    """
    model.eval()
    loss, right = torch.zeros((2,), dtype=torch.float64, device=data.device)
    for images, labels in zip(
        torch.split(part.images, EVALUATED), torch.split(part.labels, EVALUATED), strict=True
    ):
        here = labels.to(data.device)
        normal = (images.to(data.device).float() - data.mean) / data.deviation
        with _autocast(data):
            logits = model(normal.contiguous(memory_format=torch.channels_last)).float()
        loss += functional.cross_entropy(logits, here, reduction="sum")
        right += (logits.argmax(1) == here).sum()
    share = float(right) / len(part) if loss.isfinite() else math.nan
    return float(loss) / len(part), share


def train(trial: Trial) -> Mapping[str, float] | Paused:
    """Train from `trial.start` to `trial.stop` epochs; the task can pause after each minibatch.

    Returns:
        val_loss (cross-entropy), val_accuracy, and test_accuracy, which a search must not use.

    Raises:
        TaskError: a hyperparameter is out of range, or the budget is less than a minibatch.
    """
    data: Data = trial.state
    recipe = recipe_of(trial.constants, trial.hyperparameters)
    first, stop = (round(place * data.batches) for place in (trial.start, trial.stop))
    if first >= stop:
        raise TaskError(
            f"budget {trial.budget:g}: less than a minibatch, of which an epoch has {data.batches}"
        )
    model = network(data, recipe)
    optimizer = descent(model, recipe)
    trial.attach(model=model, optimizer=optimizer)
    # Fields that are constants: the parent may come from a search with other constants.
    set_fields(optimizer, recipe)
    model.train()
    for number, chosen in minibatches(data, first, stop, trial.seed):
        learn(model, optimizer, data, chosen, recipe)
        trial.progress((number + 1) / data.batches)
        if number + 1 < stop and trial.should_stop:
            trial.save()
            return trial.pause((number + 1) / data.batches)
    trial.save()
    val_loss, val_accuracy = evaluate(model, data, data.validation)
    _, test_accuracy = evaluate(model, data, data.test)
    return {"val_loss": val_loss, "val_accuracy": val_accuracy, "test_accuracy": test_accuracy}
