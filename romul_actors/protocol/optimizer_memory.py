"""Checks the contents of `Slot.memory` before an optimizer uses them.

An optimizer relies on what it wrote. If the stored value is damaged or comes from another
optimizer, the error is raised when the experiment is read, and names the field. A plugin may have a
method `check_memory(memory, n_dims)`, which raises any exception for an invalid memory.
"""

from collections.abc import Callable, Mapping
from typing import Any

from romul_actors.core.optimizers import Optimizer
from romul_actors.core.optimizers.asha import Asha
from romul_actors.core.optimizers.de import PlainDE
from romul_actors.core.optimizers.pb2 import Pb2
from romul_actors.core.optimizers.tpe import Tpe
from romul_actors.protocol.stored_fields import finite, listed, table, vector, whole

Memory = Mapping[str, Any]


def check_memory(memory: Memory, optimizer: Optimizer, n_dims: int) -> Memory:
    """Check a slot's memory, and return it.

    Args:
        memory: the stored memory.
        optimizer: the optimizer of the search.
        n_dims: number of coordinates of a vector.

    Raises:
        ValueError, TypeError, LookupError: the memory is invalid.
    """
    check = _CHECKS.get(type(optimizer))
    if check is not None:
        check(memory, n_dims)
    elif (its_own := getattr(optimizer, "check_memory", None)) is not None:
        try:
            its_own(memory, n_dims)
        except (Exception, SystemExit) as error:
            raise ValueError(str(error)) from error
    return memory


def _check_de(memory: Memory, n_dims: int) -> None:
    if memory.get("loss") is not None:
        finite(memory["loss"])
        vector(memory["base"], n_dims)


def _check_asha(memory: Memory, n_dims: int) -> None:
    del n_dims
    whole(memory.get("born", 0))
    for rung, losses in table(memory.get("rungs", {})).items():
        whole(int(rung))
        for loss in listed(losses):
            finite(loss)


def _check_tpe(memory: Memory, n_dims: int) -> None:
    _check_asha(memory, n_dims)
    for rung, rows in table(memory.get("tried", {})).items():
        whole(int(rung))
        for row in listed(rows):
            loss, *place = listed(row)
            finite(loss)
            vector(place, n_dims)


def _check_pb2(memory: Memory, n_dims: int) -> None:
    finite(memory.get("before", 0.0))
    for row in listed(memory.get("falls", [])):
        step, before, fall, *place = listed(row)
        for number in (step, before, fall):
            finite(number)
        vector(place, n_dims)


_CHECKS: Mapping[type[Optimizer], Callable[[Memory, int], None]] = {
    PlainDE: _check_de,
    Asha: _check_asha,
    Tpe: _check_tpe,
    Pb2: _check_pb2,
}
