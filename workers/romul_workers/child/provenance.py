"""Records where a result comes from: the code, the packages and the machine that trained it.

The child process collects it, because the task's modules are imported there. A worker sends it with
its first result, and again when it changes. It is for people only: nothing depends on it.
"""

import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

GIT_S = 5.0
"""How long git may take; after that, the commit is left out."""
LONGEST = 2_000
"""Longest value, in characters."""


def provenance(code: Mapping[str, str]) -> dict[str, str]:
    """The provenance of a result of this process.

    Args:
        code: what `code_of` returned when the task was imported.

    Returns:
        `python`, `host`, `packages` (the imported ones, with their versions), `gpu` if the task
        uses one through torch, and the entries of `code`.
    """
    found = {
        **code,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "packages": _packages(frozenset(sys.modules)),
        "gpu": _gpu(),
    }
    return {name: text[:LONGEST] for name, text in found.items() if text}


def code_of(folder: Path) -> dict[str, str]:
    """The git commit of a folder's code, and whether there are uncommitted changes.

    Returns:
        `commit`, and `uncommitted` ("yes" or "no"); empty without a repository or without git.
    """
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "status"]
    command += ["--porcelain=v2", "--branch", "--untracked-files=no"]
    # In a git hook they name the hook's repository, and win over the folder.
    hooks = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"}
    outside = {name: value for name, value in os.environ.items() if name not in hooks}
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            timeout=GIT_S,
            check=True,
            # git must neither write to the repository nor ask for a password.
            env={**outside, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return {}
    lines = done.stdout.splitlines()
    commits = [line.split()[2] for line in lines if line.startswith("# branch.oid ")]
    if not commits or not commits[0].isalnum():
        # A repository without a commit.
        return {}
    changed = any(not line.startswith("#") for line in lines)
    return {"commit": commits[0], "uncommitted": "yes" if changed else "no"}


@lru_cache(maxsize=1)
def _packages(imported: frozenset[str]) -> str:
    """The installed packages that imported modules belong to, with their versions.

    Args:
        imported: names of the imported modules. They rarely change from trial to trial, so one
            cached result is enough.
    """
    found: dict[str, str] = {}
    others: dict[Path, set[str]] = {}
    for module in {name.partition(".")[0] for name in imported} - sys.stdlib_module_names:
        # A private module belongs to a package whose public module is imported, too.
        if not module or module.startswith("_"):
            continue
        try:
            found |= _version(distribution(module))
        except PackageNotFoundError:
            if folder := _import_folder(module):
                others.setdefault(folder, set()).add(module)
    for folder, modules in others.items():
        for package in _packages_with(folder, modules):
            found |= _version(package)
    return ", ".join(f"{name} {found[name]}" for name in sorted(found, key=str.lower))


def _version(package: Distribution) -> dict[str, str]:
    """The version of a package by its name; empty if an unfinished removal left no metadata."""
    try:
        name, version = package.metadata["Name"], package.metadata["Version"]
    except (TypeError, KeyError, OSError):  # which one depends on the version of Python
        return {}
    return {name: version} if name and version else {}


def _import_folder(module: str) -> Path | None:
    """The folder on `sys.path` that a module was imported from; None: no folder."""
    imported = sys.modules.get(module)
    for path in getattr(imported, "__path__", ()):
        return Path(path).parent
    file = getattr(imported, "__file__", None)
    return Path(file).parent if file else None


def _packages_with(folder: Path, modules: Collection[str]) -> Iterator[Distribution]:
    """The packages in a folder that contain one of the modules; their names are others.

    `importlib.metadata.packages_distributions` reads and parses the lists of all files of all
    installed packages, which takes a third of a second of CPU time.
    """
    listed = re.compile(rf"^(?:{'|'.join(map(re.escape, modules))})(?:[/.]|$)", re.MULTILINE)
    for package in distributions(path=[str(folder)]):
        if listed.search(package.read_text("top_level.txt") or package.read_text("RECORD") or ""):
            yield package


def _gpu() -> str:
    """Name of the GPU that torch uses; "" if it uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return ""
    return str(torch.cuda.get_device_name())
