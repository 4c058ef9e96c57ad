"""Plugins: optimizers, stores, launchers and tasks that installed packages add as entry points.

For example, in the `pyproject.toml` of a package::

    [project.entry-points."romul.optimizers"]
    mine = "mypackage.mine:Mine"

Only code that was installed on this machine is run; no message from the network can name a module.
docs/plugins.md describes what each group must contain.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from romul_actors.errors import PluginError

Group = Literal["optimizers", "stores", "launchers", "tasks"]


def names(group: Group) -> list[str]:
    """Names of the plugins in a group, sorted."""
    return sorted({point.name for point in _points(group)})


def find(group: Group, name: str) -> Any:
    """Load the plugin of that name. Return None if there is none.

    Raises:
        PluginError: the plugin cannot be imported, or two packages add the name.
    """
    found = [point for point in _points(group) if point.name == name]
    if not found:
        return None
    packages = sorted({"" if p.dist is None else p.dist.name for p in found})
    if len(packages) > 1:
        raise PluginError(
            f"{group}: {name!r} is added by {' and '.join(packages)}: uninstall one of them"
        )
    try:
        return found[0].load()
    # A package that raises SystemExit must not end an actor that serves other searches.
    except (Exception, SystemExit) as error:
        what = f"cannot be loaded from {found[0].value!r}: {type(error).__name__}: {error}"
        raise PluginError(f"{group}: {name!r} of the package {packages[0]} {what}") from error


def unusable(group: Group, name: str, why: str) -> PluginError:
    """The error for a plugin that was loaded but does not fit its group.

    Args:
        group: group of the plugin.
        name: name of the entry point.
        why: what is wrong with the plugin, as the predicate of a sentence.
    """
    return PluginError(f"{group}: {name!r} of the package {origins(group, name)[0]} {why}")


def origins(group: Group, name: str) -> list[str]:
    """Packages that add a name to a group, each with its entry point. Nothing is imported."""
    found = {
        f"{'' if point.dist is None else point.dist.name} ({point.value})": None
        for point in _points(group)
        if point.name == name
    }
    return list(found)


def _points(group: Group) -> list[EntryPoint]:
    return list(entry_points(group=f"romul.{group}"))
