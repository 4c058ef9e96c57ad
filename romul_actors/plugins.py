"""What installed packages add: optimizers, stores, launchers and tasks, by entry points.

    [project.entry-points."romul.optimizers"]
    mine = "mypackage.mine:Mine"

A package is run because it was installed on this machine; nothing that comes over a network can
name a module. docs/plugins.md says what each group holds.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from romul_actors.errors import PluginError

Group = Literal["optimizers", "stores", "launchers", "tasks"]


def names(group: Group) -> list[str]:
    """Names that installed packages add to a group."""
    return sorted({point.name for point in _points(group)})


def find(group: Group, name: str) -> Any:
    """What an installed package adds by that name; None: none does.

    Raises:
        PluginError: it cannot be imported, or two packages add that name.
    """
    found = [point for point in _points(group) if point.name == name]
    if not found:
        return None
    packages = sorted({"" if p.dist is None else p.dist.name for p in found})
    if len(packages) > 1:
        raise PluginError(f"{group}: {name!r} is added by {' and '.join(packages)}: remove one")
    try:
        return found[0].load()
    # A package that ends the program would end an actor that serves other searches.
    except (Exception, SystemExit) as error:
        what = f"cannot be loaded from {found[0].value!r}: {type(error).__name__}: {error}"
        raise PluginError(f"{group}: {name!r} of the package {packages[0]} {what}") from error


def unusable(group: Group, name: str, why: str) -> PluginError:
    """The error that what `find` gave is not what its group holds.

    Args:
        group: where it is.
        name: of the entry point.
        why: what is wrong with it, as the rest of a sentence about it.
    """
    return PluginError(f"{group}: {name!r} of the package {origins(group, name)[0]} {why}")


def origins(group: Group, name: str) -> list[str]:
    """Packages that add a name to a group, each with its entry point; nothing is loaded."""
    found = {
        f"{'' if point.dist is None else point.dist.name} ({point.value})": None
        for point in _points(group)
        if point.name == name
    }
    return list(found)


def _points(group: Group) -> list[EntryPoint]:
    return list(entry_points(group=f"romul.{group}"))
