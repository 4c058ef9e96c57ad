"""Warm restores: the tensors of the last save are kept in memory and given to the next trial.

They stand for the checkpoint as long as nothing shows a write since the save. A write shows in
torch's write counters, in a step of the optimizer, in another address or size of a tensor's memory,
or in a sample of its values. The counters miss writes of fused optimizers, of batch norm
statistics, through `.data` or numpy, and by custom kernels; the sample notices those that change
a whole tensor. If there is any doubt, the files are read.

This module knows modules and optimizers, but not workers.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from romul_workers.checkpoints import manifest as manifests
from romul_workers.checkpoints.manifest import FileRecord, Manifest

if TYPE_CHECKING:
    from romul_workers.checkpoints.hashing import Written

WHOLE = 1024
"""Tensors with up to this number of values are compared completely."""
SAMPLE = 64
"""Number of evenly spaced values that are compared in larger tensors, at least."""

_Tensors = dict[tuple[object, ...], Tensor]
"""The kept tensors, each once, by address, type, shape, strides and device."""


class Kept:
    """The state of a model and an optimizer, without a copy; make it before the files are written.

    Args:
        model, optimizer: their state dicts.
        steps: the optimizer; its later steps are noticed.

    Attributes:
        optimizer_class: name of the optimizer's class; None: there is no optimizer.
        files: the checkpoint's files, by name; set after they are written.

    Raises:
        TypeError, RuntimeError: something in a state cannot be kept, such as a tensor without a
            write counter.
    """

    def __init__(
        self,
        model: Mapping[str, Any] | None,
        optimizer: Mapping[str, Any] | None,
        steps: torch.optim.Optimizer | None,
    ) -> None:
        tensors: _Tensors = {}
        self._model = None if model is None else _frozen(model, tensors)
        self._optimizer = None if optimizer is None else _frozen(optimizer, tensors)
        self._marks = [(tensor, _mark(tensor)) for tensor in tensors.values()]
        self._sample = _sample(list(tensors.values()))
        self._stepped = False
        self.optimizer_class = None if steps is None else type(steps).__name__
        self._watch = None if steps is None else steps.register_step_post_hook(self._note_step)
        self.files: Mapping[str, Written] = {}

    def _note_step(self, *_: object) -> None:
        # A fused optimizer writes without a change of the counters.
        self._stepped = True

    def drop(self) -> None:
        """Release the tensors."""
        if self._watch is not None:
            self._watch.remove()
        self._model = self._optimizer = self._watch = None
        self._marks, self._sample = [], []

    def is_unwritten(self) -> bool:
        """Whether no write to a tensor has been noticed since the save."""
        if self._stepped or any(_mark(tensor) != mark for tensor, mark in self._marks):
            return False
        now = _sample([tensor for tensor, _ in self._marks])
        return all(torch.equal(x, y) for x, y in zip(self._sample, now, strict=True))

    def is_of(self, folder: Path) -> bool:
        """Whether a checkpoint's manifest lists the files that hold this state."""
        try:
            listed = Manifest.from_json((folder / manifests.NAME).read_bytes()).files
        except (OSError, ValueError):
            return False
        return bool(self.files) and all(
            listed.get(name) == FileRecord(file.bytes, file.blake3)
            for name, file in self.files.items()
        )

    def is_alone(self) -> bool:
        """Whether no other object uses the tensors' memory, so that they need no copy."""
        return all(_is_ours(tensor) for tensor, _ in self._marks)

    def restore(
        self, model: torch.nn.Module | None, optimizer: torch.optim.Optimizer | None
    ) -> bool:
        """Move the state into a model and an optimizer. Works once: this object is empty then.

        Returns:
            Whether that was done. If not, nothing was changed, and the files must be read.

        Raises:
            ValueError, KeyError, RuntimeError: from the optimizer's `load_state_dict`.
        """
        kept, state = self._model, self._optimizer
        lacks = (model is not None and kept is None) or (optimizer is not None and state is None)
        safe = not lacks and self.is_unwritten()
        self.drop()
        if not safe or (model is not None and kept is not None and not _give(model, kept)):
            return False
        if optimizer is not None and state is not None:
            taken = set(_places(optimizer.state))
            optimizer.load_state_dict(_owned(state, taken))
        return True


def _mark(tensor: Tensor) -> tuple[int, int, int]:
    """Values that change with a write that torch counts, or with new memory."""
    version = tensor._version  # noqa: SLF001  (the counter has no other name)
    return version, tensor.data_ptr(), tensor.untyped_storage().nbytes()


def _frozen(value: Any, tensors: _Tensors) -> Any:
    """Copy a state as a checkpoint's file would return it, but with the tensors' own memory.

    Raises:
        TypeError: something cannot be kept.
    """
    match value:
        case Tensor():
            if value.layout != torch.strided or value.is_quantized or value.is_inference():
                raise TypeError("not a plain tensor, or one whose writes are not counted")
            where = value.data_ptr(), value.dtype, value.shape, value.stride()
            # A detached tensor shares memory and counter, but not shape and strides.
            return tensors.setdefault((*where, value.device), value.detach())
        case Mapping():
            return {key: _frozen(item, tensors) for key, item in value.items()}
        case tuple() | list():
            items = [_frozen(item, tensors) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        case None | bool():
            return value
        case int() | float() | str():
            # A file would return a numpy scalar as a Python number.
            return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))
    raise TypeError(f"a {type(value).__name__} is not kept")


def _sample(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The bytes of some values of all tensors: one tensor for each type and device."""
    parts: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        # A tensor without gaps in memory is read in memory order, which needs no copy.
        flat = tensor.as_strided((tensor.numel(),), (1,)) if _is_dense(tensor) else tensor.flatten()
        step = 1 if len(flat) <= WHOLE else len(flat) // SAMPLE
        parts.setdefault((tensor.dtype, tensor.device), []).append(flat[::step])
    return [torch.cat(part).view(torch.uint8) for part in parts.values()]


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor has no gaps in memory between its values."""
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() > 0 and last + 1 == tensor.numel()


def _give(model: torch.nn.Module, state: Mapping[str, Any]) -> bool:
    """Give tensors to a model whose state is loaded by plain copies; False: nothing is done."""
    if not str(type(model).load_state_dict.__module__).startswith("torch."):
        return False
    own = model.state_dict(keep_vars=True)
    if own.keys() != state.keys() or not all(_loads_plainly(module) for module in model.modules()):
        return False
    pairs = [(own[name], tensor) for name, tensor in state.items()]
    if not all(_fits(mine, theirs) for mine, theirs in pairs):
        return False
    # If two names share a tensor, they must share it on both sides.
    places = {(mine.data_ptr(), theirs.data_ptr()) for mine, theirs in pairs if theirs.numel()}
    alike = len({a for a, _ in places}) == len({b for _, b in places}) == len(places)
    replaced: list[Tensor] = []
    with torch.no_grad():
        for mine, theirs in pairs:
            if mine.data_ptr() == theirs.data_ptr():
                continue
            if alike and mine.stride() == theirs.stride() and _is_ours(theirs):
                replaced.append(mine.data)
                mine.data = theirs
            else:
                mine.copy_(theirs)
    # In a thread, because freeing a gigabyte takes tenths of a second.
    threading.Thread(target=replaced.clear, name="free").start()
    return True


def _fits(mine: Any, theirs: Any) -> bool:
    return (
        isinstance(mine, Tensor)
        and isinstance(theirs, Tensor)
        and (mine.shape, mine.dtype, mine.device) == (theirs.shape, theirs.dtype, theirs.device)
    )


def _loads_plainly(module: torch.nn.Module) -> bool:
    """Whether a module loads its state by copying tensors, and does nothing else."""
    load = type(module)._load_from_state_dict  # noqa: SLF001
    return str(load.__module__).startswith("torch.nn.modules.") and not (
        module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks  # noqa: SLF001
    )


def _owned(value: Any, taken: AbstractSet[int]) -> Any:
    """A state in which tensors that other objects also use are replaced by copies.

    Args:
        value: the state.
        taken: addresses of tensors that belong to the optimizer already and need no copy.
    """
    match value:
        case Tensor():
            return value if value.data_ptr() in taken or _is_ours(value) else value.clone()
        case dict():
            return {key: _owned(item, taken) for key, item in value.items()}
        case tuple():
            return tuple(_owned(item, taken) for item in value)
        case list():
            return [_owned(item, taken) for item in value]
    return value


def _places(value: Any) -> Iterator[int]:
    """Addresses of the tensors in an optimizer's state."""
    match value:
        case Tensor():
            yield value.data_ptr()
        case Mapping():
            for item in value.values():
                yield from _places(item)
        case tuple() | list():
            for item in value:
                yield from _places(item)


def _is_ours(tensor: Tensor) -> bool:
    """Whether nothing else uses a tensor's memory: no view, no old model, no numpy array."""
    return _users(tensor) == _users(torch.empty(1))


def _users(tensor: Tensor) -> int:
    storage = tensor.untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata))  # noqa: SLF001
