"""A local run's own file: what `romul run --resume` and `romul.extend` must know again."""

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
"""Most runs that an error lists: the newest."""


def runs_folder() -> Path:
    """The folder of all local runs: the one that ROMUL_RUNS names, else `runs`."""
    return Path(os.environ.get("ROMUL_RUNS", "runs"))


def run_folder(name: str, runs: str | Path | None = None) -> Path:
    """Folder of the local run of that name, whether there is one or not.

    Args:
        name: the run's.
        runs: the folder of all runs; None: `runs_folder()`.
    """
    return (runs_folder() if runs is None else Path(runs)) / name


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a local run."""
    return (folder / NAME).exists()


def local_runs(runs: Path) -> list[Path]:
    """The folders of all local runs in a folder; the run that began or went on last comes first."""
    found = [folder for folder in runs.glob("[!.]*") if holds_run(folder)]
    return sorted(found, key=lambda folder: (folder / NAME).stat().st_mtime, reverse=True)


def other_runs(folder: Path) -> str:
    """Which runs may be meant in place of one that is not there; "": there are none."""
    names = [other.name for other in local_runs(folder.parent)]
    return did_you_mean(folder.name, names, MOST_NAMES) if names else ""


def extension(folder: Path, server: str | None = None) -> str:
    """The command that goes on with a local run to more steps; the arguments are `resumption`'s."""
    again = resumption(folder, server)
    if has_data(folder):
        again = again.replace("romul run --resume", "romul extend", 1)
    return f"{again} --steps N"


def resumption(folder: Path, server: str | None = None) -> str:
    """The command that goes on with a local run, as a shell takes it.

    Args:
        folder: the run's.
        server: the one that was given in place of an embedded one, where it is known; its password
            is hidden.
    """
    runs = [] if folder.parent == runs_folder() else ["--runs", str(folder.parent)]
    given = "URL" if server is None else hide_password(server)
    redis = [] if has_data(folder) else ["--redis", given]
    return shlex.join(["romul", "run", "--resume", folder.name, *runs, *redis])


def request(action: str, name: str, folder: Path, server: str | None = None) -> str:
    """The command that asks for something of a search of a local run, as a shell takes it.

    Args:
        action: the command, such as "resume".
        name: the search's.
        folder: the run's.
        server: the one that was given in place of an embedded one; its password is hidden.
    """
    if server is not None:
        redis = ["--redis", hide_password(server)]
    else:
        redis = [] if folder == run_folder(name) else ["--redis", str(folder)]
    return shlex.join(["romul", action, name, *redis])


def check_run(folder: Path, *, begin: str = "", end: str = "") -> None:
    """Make sure that a folder holds a local run.

    Args:
        folder: the folder.
        begin: how the error begins.
        end: what the run is wanted for, as in " to go on with".

    Raises:
        UnknownExperimentError: it does not; the message names one that may be meant.
    """
    if not holds_run(folder):
        hint = f": {others}" if (others := other_runs(folder)) else ""
        raise UnknownExperimentError(f"{begin}{folder}: no run there{end}{hint}")


def make_folder(folder: Path) -> None:
    """Make the folder of a run, if it is not there.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{folder}: the run's folder cannot be made ({error.strerror}): choose another folder "
            "of runs"
        ) from None


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write JSON values in place of what the file holds: a kill in between leaves that as it is."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(json.dumps(values, indent=1) + "\n")
    beside.replace(file)


@dataclass(frozen=True)
class RunFile:
    """What a local run is begun with.

    Attributes:
        experiments: names, the one to look at first.
        workers: how many.
        allow: task modules that the workers may import.
        paths: folders that they find them in.
        file: the experiment's own file, if the run has one.
        declared: what stood in it when the run began, or last went on, as JSON values.
        unsubmitted: experiments, as JSON values, until all are submitted: a run may be killed
            before that.
    """

    experiments: Sequence[str]
    workers: int
    allow: Sequence[str]
    paths: Sequence[str]
    file: str | None = None
    declared: Mapping[str, Any] | None = None
    unsubmitted: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @staticmethod
    def check_new(folder: Path) -> None:
        """Make sure that a folder is free.

        Raises:
            ExperimentExistsError: `folder` holds a run already.
        """
        if holds_run(folder):
            raise ExperimentExistsError(
                f"{folder} holds a run already: go on with `{resumption(folder)}`, choose another "
                "name or folder, or remove that folder to begin anew"
            )

    @staticmethod
    def read(folder: Path) -> "RunFile":
        """Read a run's file.

        Raises:
            UnknownExperimentError: there is no run in `folder`.
            ExperimentError: the file is not one of a run.
        """
        check_run(folder, end=" to go on with")
        file = folder / NAME
        try:
            return RunFile(**json.loads(file.read_text()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ExperimentError(
                f"{file}: not a run's file ({error}): restore it, or begin a run of another name"
            ) from None

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove it from `folder`, which then holds no run."""
        (folder / NAME).unlink(missing_ok=True)

    def write(self, folder: Path) -> None:
        """Keep it in `folder`, which is made if it is not there.

        Raises:
            StoreError: it cannot be made.
        """
        make_folder(folder)
        write_json(folder / NAME, asdict(self))

    def changes(self, given: Path | None) -> tuple["RunFile", Changes]:
        """What the experiment's file says now that it did not say before.

        Args:
            given: the file; None: the one that the run began with, as long as it is there and
                declares the same experiment.

        Returns:
            The run with what the file says now, and the changes.

        Raises:
            ExperimentError: it cannot be read, declares another experiment, or one that this run
                cannot become.
        """
        file = given or (Path(self.file) if self.file else None)
        if file is None or not (given or file.exists()):
            return self, Changes()
        now, name = load(file), self.experiments[0]
        if now.name != name and given is None:
            return self, Changes()
        if now.name != name:
            raise ExperimentError(
                f"{file} declares {now.name!r}, and the run is {name!r}: give the run's own "
                "file, or none"
            )
        declared = now.model_dump(mode="json")
        plan = replace(self, file=str(file.resolve()), declared=declared)
        if self.declared is None:
            # Of an older commit, which did not write down what each run began with.
            return plan, Changes()
        before = from_values(self.declared, "the declaration of the run")
        return plan, differences(before, now)
