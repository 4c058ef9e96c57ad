"""Which hyperparameter sets which field of an optimizer's parameter groups; no torch state.

The fields are those of `torch.optim`: lr, momentum, weight_decay, betas and the like.
"""

import logging
import math
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from inspect import signature
from typing import Any

import torch

from romul_actors.errors import TaskError

log = logging.getLogger("romul.task")

OPTIMIZER_FIELDS = {"learning_rate": "lr"}
"""Fields of an optimizer's parameter groups that go by another name in most experiments."""
OPTIMIZER_TABLES = ("optimizer", "optim", "opt")
"""A nested hyperparameter is the optimizer's if its outermost table has one of these names."""
SCHEDULED = {"params", "lr", "initial_lr"}
"""What schedulers move, and what is no number: nothing is said of these."""
_said: set[tuple[str, str]] = set()
"""Classes of optimizers and their fields that a warning has named in this process."""


class Fields:
    """The fields of an optimizer's parameter groups; to be made before a restore.

    Args:
        optimizer: the optimizer, or None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | None) -> None:
        self._optimizer = optimizer
        self._made = [dict(group) for group in self._groups]
        """The groups before a restore."""
        self._differing = {
            field
            for field in {field for made in self._made for field in made} - {"params"}
            if len({repr(made[field]) for made in self._made if field in made}) > 1
        }
        """Fields that the groups were made with different values of."""
        self._parents: list[dict[str, Any]] = []
        """By group, fields that are the parent's, and not what the optimizer was made with."""

    @property
    def _groups(self) -> list[dict[str, Any]]:
        # A restore makes another list.
        return [] if self._optimizer is None else self._optimizer.param_groups

    def apply(
        self,
        hyperparameters: Mapping[str, Any],
        names: Mapping[str, str | None],
        absent: Collection[str] = (),
    ) -> dict[str, Any]:
        """Write hyperparameters to the groups, and read them back: see `Attached.restore`.

        Raises:
            TaskError: two hyperparameters would set one field, there is no such field as `names`
                says, or a value does not take effect.
        """
        if self._optimizer is None:
            return {}
        fields = self._set_by(hyperparameters, names)
        self._put_back({_field(name, names) for name in absent} - set(fields.values()))
        in_effect = self._write(hyperparameters, fields)
        # What an optimizer keeps there beside its arguments is a state, and the parent's by right.
        arguments = signature(type(self._optimizer).__init__).parameters
        own = arguments.keys() - SCHEDULED.union(fields.values())
        self._parents = [
            {
                field: group[field]
                for field in group.keys() & made.keys() & own
                if _listed(group[field]) != _listed(made[field])
            }
            for group, made in zip(self._groups, self._made, strict=True)
        ]
        return in_effect

    def warn_of_parents(self) -> None:
        """Say, once a process, which fields were trained with the parent's values to the end."""
        for group, made, parents in zip(self._groups, self._made, self._parents, strict=False):
            for field, value in parents.items():
                key = type(self._optimizer).__name__, field
                if key not in _said and _listed(group.get(field)) == _listed(value):
                    _said.add(key)
                    log.warning(
                        "the optimizer's %r was the parent's %s, and not %s, which it was made "
                        "with: a field that no hyperparameter sets goes on with the parent's "
                        "value; set it in optimizer.param_groups after attach, if it is to change",
                        *(field, value, made[field]),
                    )

    def _set_by(
        self, hyperparameters: Mapping[str, Any], names: Mapping[str, str | None]
    ) -> dict[str, str]:
        """The optimizer's fields by the hyperparameters that set one."""
        known = {field for group in self._groups for field in group}
        set_by: dict[str, str] = {}
        for name in hyperparameters:
            field = _field(name, names)
            if field is None or field not in known:
                if field is not None and field in names.values():
                    raise TaskError(f"{name}: the optimizer has no field {field!r}")
                self._warn_of_other_table(name, names, known)
            elif (other := set_by.setdefault(field, name)) != name:
                raise TaskError(
                    f"{other} and {name} would both set the optimizer's {field!r}: give attach "
                    f"names={{{name!r}: None}} for one that sets no field, or another field's name"
                )
        return {name: field for field, name in set_by.items()}

    def _warn_of_other_table(
        self, name: str, names: Mapping[str, str | None], known: AbstractSet[str]
    ) -> None:
        """Say that a nested hyperparameter is taken for the task's own, though it may not be."""
        last = name.rpartition(".")[2]
        if last != name and last in known and not {name, last} & names.keys():
            log.warning(
                "%s is not written to the optimizer's %r: attach writes what is nested in a table "
                "named %s, or what names={%r: %r} says; None in place of the field says the same "
                "without this warning",
                *(name, last, " or ".join(OPTIMIZER_TABLES), name, last),
            )

    def _warn_of_one_value(self, name: str, field: str) -> None:
        """Say, once, that groups that were made different are given the same value."""
        if field in self._differing:
            self._differing.remove(field)
            made = [made[field] for made in self._made if field in made]
            log.warning(
                "%s is written to all %d parameter groups, which were made with different values "
                "of %r (%s): to keep them apart, give attach names={%r: None}, and set each group "
                "after it",
                *(name, len(made), field, ", ".join(map(str, made)), name),
            )

    def _put_back(self, fields: AbstractSet[str | None]) -> None:
        """Give fields the values again that the optimizer was made with."""
        for group, made in zip(self._groups, self._made, strict=True):
            for field in made.keys() & fields:
                _set(group, field, made[field])
            # A scheduler that was made before the restore has changed the rate already.
            if "lr" in fields and "initial_lr" in made:
                _write(group, "initial_lr", made["initial_lr"])

    def _write(
        self, hyperparameters: Mapping[str, Any], fields: Mapping[str, str]
    ) -> dict[str, Any]:
        in_effect: dict[str, Any] = {}
        for name, field in fields.items():
            value = hyperparameters[name]
            self._warn_of_one_value(name, field)
            for group in self._groups:
                if field in group:
                    _set(group, field, value)
                    in_effect[name] = _plain(group[field])
            if not _same(in_effect[name], value):
                raise TaskError(
                    f"{name}: {value!r} was asked for, but {in_effect[name]!r} is in effect in "
                    f"the optimizer's {field!r}"
                )
        return in_effect


def _field(name: str, names: Mapping[str, str | None]) -> str | None:
    """The field of an optimizer that goes by a hyperparameter's name; None: none does."""
    table, _, last = name.rpartition(".")
    for known in (name, last):
        if known in names:
            return names[known]
    if table and table.partition(".")[0] not in OPTIMIZER_TABLES:
        return None
    return OPTIMIZER_FIELDS.get(last, last)


def _set(group: dict[str, Any], field: str, value: Any) -> None:
    _write(group, field, value)
    # Left by a scheduler of the parent, and where the next one begins.
    if field == "lr" and "initial_lr" in group:
        _write(group, "initial_lr", value)


def _write(group: dict[str, Any], field: str, value: Any) -> None:
    # A capturable optimizer keeps its learning rate in a tensor.
    if isinstance(group.get(field), torch.Tensor):
        group[field].fill_(value)
    else:
        group[field] = value


def _listed(value: Any) -> Any:
    """A value to compare: a checkpoint may hold a list for a tuple, and a number for a tensor."""
    match value:
        case torch.Tensor():
            return value.tolist()
        case tuple() | list():
            return [_listed(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
