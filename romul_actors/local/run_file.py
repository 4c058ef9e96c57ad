"""A local run's own file: what `romul run --resume` and `romul.extend` need to continue it."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from romul_actors.errors import (
    ExperimentError,
    ExperimentExistsError,
    StoreError,
    UnknownExperimentError,
)
from romul_actors.local.redis_server import has_data
from romul_actors.protocol.differences import Changes, differences
from romul_actors.protocol.experiment import from_values
from romul_actors.protocol.mistakes import did_you_mean
from romul_actors.protocol.plan import load
from romul_actors.store.redis.urls import hide_password

NAME = "run.json"
MOST_NAMES = 5
"""Maximum number of runs that an error lists: the newest ones."""


def runs_folder() -> Path:
    """The folder of all local runs: ROMUL_RUNS, or else `runs`."""
    return Path(os.environ.get("ROMUL_RUNS", "runs"))


def run_folder(name: str, runs: str | Path | None = None) -> Path:
    """Folder of the local run of that name, whether it exists or not.

    Args:
        name: the run's name.
        runs: the folder of all runs; None for `runs_folder()`.
    """
    return (runs_folder() if runs is None else Path(runs)) / name


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a local run."""
    return (folder / NAME).exists()


def local_runs(runs: Path) -> list[Path]:
    """The folders of all local runs in a folder, the most recently started or continued first."""
    found = [folder for folder in runs.glob("[!.]*") if holds_run(folder)]
    return sorted(found, key=lambda folder: (folder / NAME).stat().st_mtime, reverse=True)


def other_runs(folder: Path) -> str:
    """A text about existing runs, in place of one that does not exist; "" if there are none."""
    names = [other.name for other in local_runs(folder.parent)]
    return did_you_mean(folder.name, names, MOST_NAMES) if names else ""


def extension(folder: Path, server: str | None = None) -> str:
    """The command that extends a local run by more steps; arguments as for `resumption`."""
    again = resumption(folder, server)
    if has_data(folder):
        again = again.replace("romul run --resume", "romul extend", 1)
    return f"{again} --steps N"


def resumption(folder: Path, server: str | None = None) -> str:
    """The shell command that continues a local run.

    Args:
        folder: the run's folder.
        server: the server that was given instead of an embedded one, if it is known; its password
            is hidden.
    """
    runs = [] if folder.parent == runs_folder() else ["--runs", str(folder.parent)]
    given = "URL" if server is None else hide_password(server)
    redis = [] if has_data(folder) else ["--redis", given]
    return shlex.join(["romul", "run", "--resume", folder.name, *runs, *redis])


def request(action: str, name: str, folder: Path, server: str | None = None) -> str:
    """The shell command for a search of a local run.

    Args:
        action: the command, such as "resume".
        name: the search's name.
        folder: the run's folder.
        server: the server that was given instead of an embedded one; its password is hidden.
    """
    if server is not None:
        redis = ["--redis", hide_password(server)]
    else:
        redis = [] if folder == run_folder(name) else ["--redis", str(folder)]
    return shlex.join(["romul", action, name, *redis])


def check_run(folder: Path, *, begin: str = "", end: str = "") -> None:
    """Check that a folder holds a local run.

    Args:
        folder: the folder.
        begin: beginning of the error message.
        end: purpose of the run in the message, such as " to continue".

    Raises:
        UnknownExperimentError: it does not; the message suggests an existing run.
    """
    if not holds_run(folder):
        hint = f": {others}" if (others := other_runs(folder)) else ""
        raise UnknownExperimentError(f"{begin}{folder}: no run there{end}{hint}")


def make_folder(folder: Path) -> None:
    """Create the folder of a run, if it does not exist.

    Raises:
        StoreError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{folder}: the run's folder cannot be created ({error.strerror}): choose another "
            "folder of runs"
        ) from None


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Replace a file's contents by JSON values, atomically."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(json.dumps(values, indent=1) + "\n")
    beside.replace(file)


@dataclass(frozen=True)
class RunFile:
    """What a local run was started with.

    Attributes:
        experiments: names of the experiments; the first one is the one to look at.
        workers: number of workers.
        allow: task modules that the workers may import.
        paths: folders of these modules.
        file: the experiment's own file, if the run has one.
        declared: its declaration when the run was started or last continued, as JSON values.
        gpus: number of GPUs that each worker has for itself; 0: all share those that they see.
        unsubmitted: experiments as JSON values, until all are submitted, since a run may be killed
            before that.
    """

    experiments: Sequence[str]
    workers: int
    allow: Sequence[str]
    paths: Sequence[str]
    file: str | None = None
    declared: Mapping[str, Any] | None = None
    gpus: int = 0
    unsubmitted: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @staticmethod
    def check_new(folder: Path) -> None:
        """Check that a folder holds no run.

        Raises:
            ExperimentExistsError: it already holds one.
        """
        if holds_run(folder):
            raise ExperimentExistsError(
                f"{folder} already holds a run: continue it with `{resumption(folder)}`, choose "
                "another name or folder, or delete that folder to start again"
            )

    @staticmethod
    def read(folder: Path) -> "RunFile":
        """Read a run's file.

        Raises:
            UnknownExperimentError: there is no run in `folder`.
            ExperimentError: the file is not a run's file.
        """
        check_run(folder, end=" to continue")
        file = folder / NAME
        try:
            return RunFile(**json.loads(file.read_text()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ExperimentError(
                f"{file}: not a run's file ({error}): restore it, or start a run with another name"
            ) from None

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the run's file from `folder`, which then holds no run."""
        (folder / NAME).unlink(missing_ok=True)

    def write(self, folder: Path) -> None:
        """Write the run's file to `folder`, which is created if it does not exist.

        Raises:
            StoreError: it cannot be created.
        """
        make_folder(folder)
        write_json(folder / NAME, asdict(self))

    def changes(self, given: Path | None) -> tuple["RunFile", Changes]:
        """The changes in the experiment's file since the run was started or last continued.

        Args:
            given: the file; None for the file that the run was started with, if it still exists
                and declares the same experiment.

        Returns:
            The run with the file's present declaration, and the changes.

        Raises:
            ExperimentError: the file cannot be read, declares another experiment, or has changes
                that the run cannot take over.
        """
        file = given or (Path(self.file) if self.file else None)
        if file is None or not (given or file.exists()):
            return self, Changes()
        now, name = load(file), self.experiments[0]
        if now.name != name and given is None:
            return self, Changes()
        if now.name != name:
            raise ExperimentError(
                f"{file} declares {now.name!r}, but the run is {name!r}: give the run's own "
                "file, or none"
            )
        declared = now.model_dump(mode="json")
        plan = replace(self, file=str(file.resolve()), declared=declared)
        if self.declared is None:
            # A run of an older version, which did not store the declaration.
            return plan, Changes()
        before = from_values(self.declared, "the declaration of the run")
        return plan, differences(before, now)
