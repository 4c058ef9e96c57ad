"""Saves torch models and optimizers, restores them, and applies hyperparameters.

A checkpoint holds only data, never code: it is a file of tensors (`tensors/file.py`). Checkpoints
of older versions, written by torch.save, are read with weights_only=True.
"""

import logging
import pickle
import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from romul_actors.errors import CheckpointError
from romul_workers.checkpoints import manifest
from romul_workers.checkpoints.hashing import Written
from romul_workers.tensors.file import read, write
from romul_workers.tensors.kept import Kept
from romul_workers.tensors.optimizer_fields import Fields

if TYPE_CHECKING:
    from romul_workers.schedule import Schedule

log = logging.getLogger("romul.task")

FILE = "state.safetensors"
OLD_FILE = "torch.pt"
_MISFITS = (KeyError, ValueError, TypeError, RuntimeError)
"""What torch raises if a state does not fit."""


class Attached:
    """A model and an optimizer that are saved and restored together.

    Args:
        model: a module, or None.
        optimizer: an optimizer, or None.
    """

    def __init__(
        self, model: torch.nn.Module | None, optimizer: torch.optim.Optimizer | None
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self._fields = Fields(optimizer)
        self.kept: Kept | None = None
        """The state that the last `save` left in memory."""

    def take(self, kept: Kept) -> bool:
        """Restore from the state that an earlier trial's `save` left in memory.

        Returns:
            Whether that was possible. If not, nothing was changed.

        Raises:
            CheckpointError: the state does not fit.
        """
        saved_by = kept.optimizer_class
        try:
            taken = kept.restore(self.model, self._restored_optimizer(saved_by))
        except _MISFITS as error:
            raise CheckpointError(f"the parent cannot be restored: {error}") from error
        if taken:
            self._warn_of_empty_state(saved_by)
        return taken

    def restore(
        self,
        parent: Path | None,
        hyperparameters: Mapping[str, Any],
        names: Mapping[str, str | None],
        absent: Collection[str] = (),
    ) -> dict[str, Any]:
        """Restore from a checkpoint's folder, apply hyperparameters, and read them back.

        Args:
            parent: the folder; None: only apply hyperparameters.
            hyperparameters: values by name.
            names: optimizer fields by hyperparameter, for names that differ; None as a field: it
                sets no field.
            absent: names of hyperparameters whose condition does not hold. Their fields get the
                values that the optimizer was made with, unless another hyperparameter sets them.

        Returns:
            The hyperparameters that were applied, as they were read back.

        Raises:
            TaskError: two hyperparameters would set the same field, the optimizer lacks a field
                that `names` gives, or a value does not take effect.
            CheckpointError: the checkpoint cannot be read, or does not fit.
        """
        if parent is not None:
            self._load(parent)
        return self._fields.apply(hyperparameters, names, absent)

    def save(
        self,
        folder: Path,
        extra: Mapping[str, Any],
        parent: Path | None = None,
        *,
        checked: bool = True,
    ) -> dict[str, Written]:
        """Write model, optimizer, random state and `extra` into a checkpoint's folder.

        Args:
            folder: folder of the checkpoint.
            extra: further state: plain values and tensors.
            parent: folder of the parent; unchanged tensors may be linked from there.
            checked: whether the parent's files were hashed already.

        Returns:
            The files that were written or linked, by name.

        Raises:
            TaskError: a value is neither a tensor nor a plain value; the message says which.
        """
        self._fields.warn_of_parents()
        content = {
            "model": None if self.model is None else self.model.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "optimizer_class": None if self.optimizer is None else type(self.optimizer).__name__,
            "rng": _random_state(),
            "extra": dict(extra),
        }
        file = folder / FILE
        file.unlink(missing_ok=True)
        self._keep(content)
        return write(file, content, parent, checked=checked)

    def _keep(self, content: Mapping[str, Any]) -> None:
        """Keep the tensors before they are written, so that any later write is noticed."""
        if self.kept is not None:
            self.kept.drop()
        try:
            self.kept = Kept(content["model"], content["optimizer"], self.optimizer)
        except (RuntimeError, TypeError):
            self.kept = None

    def restore_random_state(self, folder: Path) -> None:
        """Restore the state of all random generators from a checkpoint.

        Raises:
            CheckpointError: the checkpoint has no such state.
        """
        saved = load(folder)
        try:
            saved = saved["rng"]
            # Cloned, because tensors from a file are read-only and generators keep the tensor.
            torch.set_rng_state(saved["torch"].clone())
            for device, state in enumerate(saved["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(state.clone(), device)
            version, numbers, gauss = saved["python"]
            random.setstate((version, tuple(numbers), gauss))
            name, keys, *rest = saved["numpy"]
            np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        except _MISFITS as error:
            raise CheckpointError(f"{folder}: has no valid random state: {error}") from error

    def _load(self, folder: Path) -> None:
        content = load(folder)
        # Older versions did not save it.
        saved_by = content.get("optimizer_class")
        optimizer = self._restored_optimizer(saved_by)
        try:
            if self.model is not None:
                self.model.load_state_dict(_named_as_in(self.model, content["model"]))
            if optimizer is not None:
                optimizer.load_state_dict(content["optimizer"])
        except _MISFITS as error:
            raise CheckpointError(f"{folder}: cannot be restored: {error}") from error
        self._warn_of_empty_state(saved_by)

    def _restored_optimizer(self, saved_by: str | None) -> torch.optim.Optimizer | None:
        """The optimizer if the saved state fits its class, otherwise None.

        Args:
            saved_by: class of the parent's optimizer; None: not known.
        """
        same = saved_by is None or saved_by == type(self.optimizer).__name__
        return self.optimizer if same else None

    def _warn_of_empty_state(self, saved_by: str | None) -> None:
        if self._restored_optimizer(saved_by) is not self.optimizer:
            log.warning(
                "the parent's optimizer was %s and this trial's is %s, which begins with an empty "
                "state. To keep the class along a line of descent, declare the hyperparameter that "
                "chooses it with mutable = false",
                saved_by,
                type(self.optimizer).__name__,
            )


def _named_as_in(model: torch.nn.Module, saved: Any) -> Any:
    """A saved state under the model's names, if one of the two models was wrapped.

    Names of a model have a prefix after `torch.compile`, and inside of DistributedDataParallel.
    """

    def bare(name: str) -> str:
        return name.replace("_orig_mod.", "").removeprefix("module.")

    names = list(model.state_dict())
    if not isinstance(saved, Mapping) or saved.keys() == set(names):
        return saved
    own = {bare(name): name for name in names}
    return {own.get(bare(name), name): value for name, value in saved.items()}


def load(folder: Path) -> dict[str, Any]:
    """Read everything that `Trial.save` wrote.

    Tensors are mapped from the file: copy them before you change them or remove the file.

    Args:
        folder: folder of the checkpoint.

    Returns:
        "model", "optimizer" (state dicts or None), "optimizer_class", "rng" and "extra".

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    content: Any
    if (folder / FILE).exists():
        content = read(folder / FILE)
    else:
        file = folder / OLD_FILE
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise CheckpointError(
                f"{folder}: cannot be restored: trial.save() did not write it; a task that writes "
                "checkpoints in another format must also read them itself"
            ) from None
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{file}: cannot be restored: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder}: cannot be restored: it holds no table")
    return content


def load_model(folder: Path, model: torch.nn.Module) -> None:
    """Restore only the model of a checkpoint, to use it.

    Args:
        folder: folder of the checkpoint.
        model: a model of the same architecture.

    Raises:
        CheckpointError: the folder is gone, or its files are damaged or do not fit.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} does not exist: checkpoints that no trial needs are removed"
        )
    manifest.check(folder)
    Attached(model, None).restore(folder, {}, {})


def _random_state() -> dict[str, Any]:
    """State of the random generators of torch, Python and numpy, as numbers and tensors."""
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if on_gpu else [],
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
    }


def apply_schedule(
    schedule: "Schedule",
    optimizer: torch.optim.Optimizer,
    position: float,
    names: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Apply a schedule's hyperparameters for a position in training to an optimizer.

    For your own training loop: call it at the beginning of each epoch. Hyperparameters that are no
    field of the optimizer, such as a dropout rate, are only returned. A field whose
    hyperparameter's condition does not hold at that position stays as it is.

    Args:
        schedule: a schedule, as `romul_workers.schedule.read_schedule` returns it.
        optimizer: the optimizer.
        position: the position in training, in the budget's unit.
        names: as in `romul_workers.trial.Trial.attach`.

    Returns:
        All hyperparameters at that position, by name.

    Raises:
        TaskError: two hyperparameters would set the same field, or a value does not take effect.
    """
    values = schedule.at(position)
    Attached(None, optimizer).restore(None, values, names or {})
    return values
