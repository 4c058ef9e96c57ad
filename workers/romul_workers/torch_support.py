"""Torch models and optimizers in checkpoints: saved, restored, and given what to train with.

A checkpoint holds numbers, never code: it is a file of tensors (`tensor_file.py`). Those of older
versions, written by torch.save, are read with weights_only=True.
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
from romul_workers import manifest
from romul_workers.hashing import Written
from romul_workers.kept import Kept
from romul_workers.optimizer_fields import Fields
from romul_workers.tensor_file import read, write

if TYPE_CHECKING:
    from romul_workers.schedule import Schedule

log = logging.getLogger("romul.task")

FILE = "state.safetensors"
OLD_FILE = "torch.pt"
_MISFITS = (KeyError, ValueError, TypeError, RuntimeError)
"""What torch raises where a state does not fit."""


class Attached:
    """A model and an optimizer, as one thing to save and to restore.

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
        """What the last `save` left in memory."""

    def take(self, kept: Kept) -> bool:
        """Restore from what a former trial's `save` left in memory, if that is possible.

        Raises:
            CheckpointError: it does not fit.
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
            parent: the folder; None: nothing is restored here.
            hyperparameters: by name.
            names: further optimizer fields by hyperparameter; None: it sets no field.
            absent: names of hyperparameters that do not count: fields that one of them alone would
                set have the values that the optimizer was made with.

        Returns:
            The hyperparameters that were applied, as they are in effect.

        Raises:
            TaskError: two hyperparameters would set one field, there is no such field as `names`
                says, or a value does not take effect.
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
            folder: the checkpoint's.
            extra: plain values or tensors.
            parent: folder of the checkpoint before; what did not change since is not written again.
            checked: whether the parent's files were hashed already.

        Returns:
            The files that were written or linked, by name.

        Raises:
            TaskError: something is neither a tensor nor a plain value; the message says where.
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
        """Hold on to the tensors that are about to be written: a write after this is seen."""
        if self.kept is not None:
            self.kept.drop()
        try:
            self.kept = Kept(content["model"], content["optimizer"], self.optimizer)
        except (RuntimeError, TypeError):
            self.kept = None

    def restore_random_state(self, folder: Path) -> None:
        """Set all generators as they were when the checkpoint was saved.

        Raises:
            CheckpointError: the folder's file holds no such state.
        """
        saved = load(folder)
        try:
            saved = saved["rng"]
            # A state that lies in a file is read-only, and generators keep what they are given.
            torch.set_rng_state(saved["torch"].clone())
            for device, state in enumerate(saved["cuda"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(state.clone(), device)
            version, numbers, gauss = saved["python"]
            random.setstate((version, tuple(numbers), gauss))
            name, keys, *rest = saved["numpy"]
            np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        except _MISFITS as error:
            raise CheckpointError(f"{folder}: no random state in it: {error}") from error

    def _load(self, folder: Path) -> None:
        content = load(folder)
        # Older versions did not save it.
        saved_by = content.get("optimizer_class")
        optimizer = self._restored_optimizer(saved_by)
        try:
            if self.model is not None:
                self.model.load_state_dict(content["model"])
            if optimizer is not None:
                optimizer.load_state_dict(content["optimizer"])
        except _MISFITS as error:
            raise CheckpointError(f"{folder}: cannot be restored: {error}") from error
        self._warn_of_empty_state(saved_by)

    def _restored_optimizer(self, saved_by: str | None) -> torch.optim.Optimizer | None:
        """The optimizer, unless the state is of another class: then it begins with an empty one.

        Args:
            saved_by: class of the parent's optimizer; None: not known.
        """
        same = saved_by is None or saved_by == type(self.optimizer).__name__
        return self.optimizer if same else None

    def _warn_of_empty_state(self, saved_by: str | None) -> None:
        if self._restored_optimizer(saved_by) is not self.optimizer:
            log.warning(
                "the parent's optimizer was %s and this trial's is %s, which begins with an empty "
                "state; with mutable = false on the hyperparameter that chooses it, a trial's "
                "optimizer is of its parent's class",
                saved_by,
                type(self.optimizer).__name__,
            )


def load(folder: Path) -> dict[str, Any]:
    """Everything that `Attached.save` wrote: model, optimizer, rng, extra.

    Tensors lie in the file: copy them before they are changed or the file goes.

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
                f"{folder}: cannot be restored: it holds nothing that trial.save() wrote; what a "
                "task writes in another way it also reads itself"
            ) from None
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{file}: cannot be restored: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder}: cannot be restored: it holds no table")
    return content


def load_model(folder: Path, model: torch.nn.Module) -> None:
    """Restore a model alone, to use it.

    Raises:
        CheckpointError: the folder is gone, or its files are damaged or do not fit.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: there is none: checkpoints that no trial needs are removed"
        )
    manifest.check(folder)
    Attached(model, None).restore(folder, {}, {})


def _random_state() -> dict[str, Any]:
    """State of the generators that a task draws from: numbers and tensors only."""
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
    """Write a schedule's hyperparameters of a place of the training into an optimizer.

    For a training loop of one's own: call it at the beginning of each epoch. What is no field of
    the optimizer (dropout, say) is left to the caller, who finds it in what is returned. So is a
    field whose hyperparameter does not count at that place: it stays as it is.

    Args:
        schedule: see `romul_workers.schedule.read_schedule`.
        optimizer: the optimizer.
        position: where training stands, in the budget's unit.
        names: as in `romul_workers.trial.Trial.attach`.

    Returns:
        All hyperparameters of that place.

    Raises:
        TaskError: two hyperparameters would set one field, or a value read back is not the
            requested one.
    """
    values = schedule.at(position)
    Attached(None, optimizer).restore(None, values, names or {})
    return values
