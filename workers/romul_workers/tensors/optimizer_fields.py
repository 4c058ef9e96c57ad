"""Which hyperparameter sets which field of an optimizer's parameter groups.

The fields are those of `torch.optim`: lr, momentum, weight_decay, betas and so on.
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
"""Fields that have another name in most experiments, by that name."""
OPTIMIZER_TABLES = ("optimizer", "optim", "opt")
"""A nested hyperparameter is the optimizer's if its outermost table has one of these names."""
SCHEDULED = {"params", "lr", "initial_lr"}
"""Entries of a group that no warning names: schedulers change the rates, `params` is no setting."""
_said: set[tuple[str, str]] = set()
"""Classes of optimizers and fields that a warning has named in this process."""


class Fields:
    """The fields of an optimizer's parameter groups; make it before the optimizer is restored.

    Args:
        optimizer: the optimizer, or None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | None) -> None:
        self._optimizer = optimizer
        self._made = [dict(group) for group in self._groups]
        """The groups before the restore."""
        self._differing = {
            field
            for field in {field for made in self._made for field in made} - {"params"}
            if len({repr(made[field]) for made in self._made if field in made}) > 1
        }
        """Fields that have different values in the groups as they were made."""
        self._parents: list[dict[str, Any]] = []
        """By group, fields that have the parent's value, unlike the one they were made with."""

    @property
    def _groups(self) -> list[dict[str, Any]]:
        # A restore replaces the list.
        return [] if self._optimizer is None else self._optimizer.param_groups

    def apply(
        self,
        hyperparameters: Mapping[str, Any],
        names: Mapping[str, str | None],
        absent: Collection[str] = (),
    ) -> dict[str, Any]:
        """Write hyperparameters to the groups, and read them back: see `Attached.restore`.

        Raises:
            TaskError: two hyperparameters would set the same field, the optimizer lacks a field
                that `names` gives, or a value does not take effect.
        """
        if self._optimizer is None:
            return {}
        fields = self._set_by(hyperparameters, names)
        self._put_back({_field(name, names) for name in absent} - set(fields.values()))
        in_effect = self._write(hyperparameters, fields)
        # Entries that are not arguments of the optimizer are state, which the parent should set.
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
        """Warn, once per process and field, of fields that kept the parent's value until `save`."""
        for group, made, parents in zip(self._groups, self._made, self._parents, strict=False):
            for field, value in parents.items():
                key = type(self._optimizer).__name__, field
                if key not in _said and _listed(group.get(field)) == _listed(value):
                    _said.add(key)
                    log.warning(
                        "the optimizer's %r was the parent's %s, not the %s that it was made with: "
                        "a field that no hyperparameter sets keeps the parent's value; to change "
                        "it, set it in optimizer.param_groups after attach",
                        *(field, value, made[field]),
                    )

    def _set_by(
        self, hyperparameters: Mapping[str, Any], names: Mapping[str, str | None]
    ) -> dict[str, str]:
        """The optimizer's fields, by the hyperparameter that sets them."""
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
                    f"names={{{name!r}: None}} if it sets no field, or the name of another field"
                )
        return {name: field for field, name in set_by.items()}

    def _warn_of_other_table(
        self, name: str, names: Mapping[str, str | None], known: AbstractSet[str]
    ) -> None:
        """Warn of a nested hyperparameter that is not applied but has the name of a field."""
        last = name.rpartition(".")[2]
        if last != name and last in known and not {name, last} & names.keys():
            log.warning(
                "%s is not written to the optimizer's %r: attach writes hyperparameters nested in "
                "a table named %s. To write this one, give names={%r: %r}; with None in place of "
                "the field this warning is silent",
                *(name, last, " or ".join(OPTIMIZER_TABLES), name, last),
            )

    def _warn_of_one_value(self, name: str, field: str) -> None:
        """Warn once if groups that were made with different values get the same value."""
        if field in self._differing:
            self._differing.remove(field)
            made = [made[field] for made in self._made if field in made]
            log.warning(
                "%s is written to all %d parameter groups, which were made with different values "
                "of %r (%s): to keep them apart, give attach names={%r: None} and set each group "
                "after attach",
                *(name, len(made), field, ", ".join(map(str, made)), name),
            )

    def _put_back(self, fields: AbstractSet[str | None]) -> None:
        """Set fields to the values that the optimizer was made with."""
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
                    f"{name}: {value!r} was requested, but {in_effect[name]!r} is in effect in "
                    f"the optimizer's {field!r}"
                )
        return in_effect


def _field(name: str, names: Mapping[str, str | None]) -> str | None:
    """The optimizer's field that a hyperparameter sets, by its name; None: none."""
    table, _, last = name.rpartition(".")
    for known in (name, last):
        if known in names:
            return names[known]
    if table and table.partition(".")[0] not in OPTIMIZER_TABLES:
        return None
    return OPTIMIZER_FIELDS.get(last, last)


def _set(group: dict[str, Any], field: str, value: Any) -> None:
    _write(group, field, value)
    # A scheduler of the parent has left `initial_lr`, from which the next one would start.
    if field == "lr" and "initial_lr" in group:
        _write(group, "initial_lr", value)


def _write(group: dict[str, Any], field: str, value: Any) -> None:
    # A capturable optimizer keeps its learning rate in a tensor.
    if isinstance(group.get(field), torch.Tensor):
        group[field].fill_(value)
    else:
        group[field] = value


def _listed(value: Any) -> Any:
    """A comparable value: a checkpoint may hold a list for a tuple, and a number for a tensor."""
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
