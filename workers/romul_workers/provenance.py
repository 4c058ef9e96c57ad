"""Where a result comes from: the code, the packages and the machine that trained it.

Gathered in the child process, where the task's modules are. Plain texts, which travel with a
worker's first result and again when they change; nothing depends on them.
"""

import contextlib
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

GIT_S = 5.0
"""So long git may take; a repository where it takes longer is left out."""
LONGEST = 2_000
"""Longest text, in characters."""


def provenance(code: Mapping[str, str]) -> dict[str, str]:
    """Where a result of this process comes from.

    Args:
        code: of the task, as `code_of` found it when it was imported.

    Returns:
        `python`, `host`, `packages` (those that are imported, with their versions), `gpu` if the
        task uses one by torch, and what `code` holds.
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
    """The git commit that a folder's code is of, and whether it was changed since.

    Returns:
        `commit`, and `uncommitted` ("yes" or "no"); nothing where there is no repository, or no
        git.
    """
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "status"]
    command += ["--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            timeout=GIT_S,
            check=True,
            # Nothing is written. No prompt.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
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
    """Installed packages that imported modules belong to, with their versions.

    Args:
        imported: names of the modules; mostly the same as for the trial before.
    """
    modules = {name.partition(".")[0] for name in imported}
    packages = {name for module in modules for name in _distributions().get(module, ())}
    versions = []
    for name in sorted(packages, key=str.lower):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return ", ".join(versions)


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _gpu() -> str:
    """The GPU that torch has begun to use, by its name."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return ""
    return str(torch.cuda.get_device_name())
