"""Settings of the CIFAR task: checks an experiment's constants and hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from romul_actors.errors import TaskError
from romul_workers.tasks.cifar_data import LAYOUTS
from romul_workers.tasks.rand_augment import TOP


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that are the same for all trials.

    Attributes:
        data_set: "cifar10" or "cifar100".
        data: folder or archive; empty: what ROMUL_CIFAR names, or else the folder for downloads.
        download: whether to download the archive if it is not there.
        depth, width: the network is WRN-`depth`-`width`.
        batch_size: images per minibatch. An incomplete minibatch at the end of an epoch is dropped.
        train_images, validation_images, test_images: use only this number of images, the first
            ones; 0: all.
        precision: "bf16" (autocast, only on CUDA) or "fp32".
        compile: whether to apply torch.compile to the network.
    """

    data_set: str = "cifar10"
    data: str = ""
    download: bool = False
    depth: int = 16
    width: int = 4
    batch_size: int = 128
    train_images: int = 0
    validation_images: int = 0
    test_images: int = 0
    precision: str = "bf16"
    compile: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings that may be hyperparameters.

    Attributes:
        learning_rate, momentum, nesterov, weight_decay: of stochastic gradient descent.
        dropout: dropout probability within the network's blocks.
        label_smoothing: share of the target that is spread evenly over all classes.
        mixup: alpha of the Beta distribution for mixing two images (Zhang et al. 2018).
        crop: largest shift of an image in each direction, in pixels.
        flip: whether half of the images are mirrored.
        operations, magnitude: number and strength of RandAugment's operations.
        cutout: side of the hidden square, in pixels (DeVries & Taylor 2017).
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    dropout: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    crop: int = 4
    flip: bool = True
    operations: int = 0
    magnitude: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        shares = (self.dropout, self.label_smoothing)
        sizes = (self.mixup, self.crop, self.operations, self.cutout)
        if (
            not all(0.0 <= share < 1.0 for share in shares)
            or not all(size >= 0 for size in sizes)
            or not 0.0 <= self.magnitude <= TOP
        ):
            raise TaskError(f"{self}: a value is out of its range")


_Fields = TypeVar("_Fields", Settings, Recipe)


def settings_of(constants: Mapping[str, Any]) -> Settings:
    """The settings among an experiment's constants.

    Raises:
        TaskError: a value is invalid, or a constant is a field of neither `Settings` nor `Recipe`.
    """
    _refuse_unknown("constants", constants, _names(Settings) | _names(Recipe))
    settings = _chosen(Settings, constants)
    if settings.data_set not in LAYOUTS:
        raise TaskError(f"data_set {settings.data_set!r}: must be one of {sorted(LAYOUTS)}")
    if settings.precision not in ("bf16", "fp32"):
        raise TaskError(f"precision {settings.precision!r}: must be 'bf16' or 'fp32'")
    for name in ("train_images", "validation_images", "test_images"):
        if (n := getattr(settings, name)) < 0:
            raise TaskError(f"{name} {n}: must be 0, for all, or more")
    return settings


def recipe_of(constants: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> Recipe:
    """The recipe; a hyperparameter takes precedence over a constant of the same name.

    Raises:
        TaskError: a value is out of range, or a hyperparameter is not a field of `Recipe`.
    """
    _refuse_unknown("hyperparameters", hyperparameters, _names(Recipe))
    return _chosen(Recipe, {**constants, **hyperparameters})


def _names(kind: type[Settings | Recipe]) -> set[str]:
    return {field.name for field in fields(kind)}


def _refuse_unknown(what: str, given: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise TaskError(f"{what} that this task does not have: {unknown}; it has {sorted(known)}")


def _chosen(kind: type[_Fields], values: Mapping[str, Any]) -> _Fields:
    """Make `kind` from those `values` that are its fields, converted to their types."""
    types: dict[str, Any] = {field.name: field.type for field in fields(kind)}
    return kind(**{name: types[name](value) for name, value in values.items() if name in types})
