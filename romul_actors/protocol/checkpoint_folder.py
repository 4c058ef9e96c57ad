"""The folder of an experiment's checkpoints: a path, or a URL that fsspec knows.

A relative path would be another folder for each worker, by the folder in which it was started.
"""

from pathlib import Path, PurePath

from romul_actors.errors import ExperimentError

_LOCAL = ("file://", "local://", "file:", "local:")
"""Prefixes with which fsspec names the local file system."""


def absolute(folder: str) -> str:
    """The folder that a program on this machine means: a relative path begins where it runs."""
    prefix, path = _parts(folder)
    return f"{prefix}{Path(path).absolute()}" if _is_relative(path) else folder


def check_folder(folder: str | None) -> None:
    """Check that a folder is given, and is the same one for all workers of a server.

    Raises:
        ExperimentError: no folder is given, or its path is relative.
    """
    if folder is None:
        raise ExperimentError(
            "checkpoints: not given; set a folder or a URL that all workers can reach"
        )
    if _is_relative(_parts(folder)[1]):
        raise ExperimentError(
            f"checkpoints: {folder!r} is relative, so it would be another folder for each "
            "worker: give an absolute path or a URL"
        )


def _parts(folder: str) -> tuple[str, str]:
    """The prefix of a folder in the local file system, which may be empty, and the rest."""
    prefix = next((prefix for prefix in _LOCAL if folder.startswith(prefix)), "")
    return prefix, folder.removeprefix(prefix)


def _is_relative(path: str) -> bool:
    # fsspec expands "~".
    return "://" not in path and not path.startswith("~") and not PurePath(path).is_absolute()
