"""The folder of a local run: which search it holds, and whether a call may go on with it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romul.fingerprint import FORMAT
from romul_actors.errors import ExperimentError, ExperimentExistsError
from romul_actors.local.redis_server import check_idle, has_data
from romul_actors.local.run_file import RunFile, check_run, holds_run, make_folder, write_json
from romul_actors.protocol.differences import Changes, differences
from romul_actors.protocol.experiment import Experiment, from_values

CALL = "call.json"


@dataclass(frozen=True, slots=True)
class Task:
    """What trains, and where workers find it.

    Attributes:
        name: "module" or "module:function".
        paths: folders of modules.
        fingerprint: differs where the code does.
    """

    name: str
    paths: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A local run's folder.

    Attributes:
        folder: the folder.
        experiment: the declaration, with its place for checkpoints.
        task: what trains.
        workers: how many.
    """

    folder: Path
    experiment: Experiment
    task: Task
    workers: int

    def begin(self, *, resume: bool, fresh: bool) -> Changes:
        """Make the folder ready for this call.

        A run in whose place a `fresh` one begins is set aside: `put_back` or `write` ends that.

        Returns:
            What is to be changed in the search; `write` is to be called when that is done.

        Raises:
            ExperimentError: `fresh`, and the new run begins from the one in the folder.
            ExperimentExistsError: it holds another search; the message says what to do.
            UnknownExperimentError: `resume`, and there is nothing to go on with.
            StoreError: a run is under way there, or the folder cannot be made.
        """
        name = self.experiment.name
        if resume and fresh:
            raise ExperimentExistsError("resume=True goes on and fresh=True begins anew: give one")
        origin = self.experiment.from_run
        if fresh and origin is not None and origin.name == name:
            raise ExperimentError(
                f"from_run={name!r}: the new run begins from what fresh=True would remove: give it "
                "another name"
            )
        check_idle(self.folder)
        # A call that was killed before its run had begun did not put the former one back.
        self.put_back()
        exists, changes = holds_run(self.folder), Changes()
        if resume:
            check_run(self.folder, end=" to go on with")
        if exists and fresh:
            self._set_aside()
        elif exists:
            changes = self._compared(name, resume=resume)
        make_folder(self.folder)
        if not changes:
            self._note()
        return changes

    @property
    def _former(self) -> Path:
        """Where the run is set aside that this one takes the place of; no run has such a name."""
        return self.folder.with_name(f".{self.folder.name}.former")

    def _set_aside(self) -> None:
        """Make room for a new run; the former one is whole until that has begun."""
        if not has_data(self.folder) and not (self.folder / CALL).exists():
            name = self.experiment.name
            raise ExperimentExistsError(
                f"{self.folder} holds a run of `romul run` on a server that was named, where its "
                "search may be under way: choose another name, or end it there with `romul stop "
                f"{name} --redis URL` and remove that folder"
            )
        shutil.rmtree(self._former, ignore_errors=True)
        self.folder.rename(self._former)

    def put_back(self) -> None:
        """Undo what `begin` did to a run that was to be replaced, unless the new one has begun."""
        if not holds_run(self._former):
            return
        # Moved, and removed afterwards: what cannot be removed does not block the name.
        unbegun = self.folder.with_name(f".{self.folder.name}.unbegun")
        shutil.rmtree(unbegun, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(unbegun)
        self._former.rename(self.folder)
        shutil.rmtree(unbegun, ignore_errors=True)

    def _compared(self, name: str, *, resume: bool) -> Changes:
        """Make sure that the folder holds this very search, or with `resume` one that can be it."""
        beginning = "another name, or fresh=True to remove that run and begin anew"
        try:
            before = json.loads((self.folder / CALL).read_text())
        except FileNotFoundError:
            raise ExperimentExistsError(
                f"{self.folder} holds a run of `romul run`, which --resume goes on with; here "
                f"choose {beginning}"
            ) from None
        steps = _steps(before)
        # What `extend` added is no other declaration: the call that began the search goes on.
        now = self.experiment.steps if self.experiment.steps in steps else steps[-1]
        declared = {**before["experiment"], "steps": now}
        ours = _comparable(self.experiment.model_dump(mode="json"))
        theirs = _comparable(declared)
        other = [
            f"{key} was {theirs.get(key)!r}, and is {ours.get(key)!r}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        changes = Changes()
        if other:
            changes = self._changes(declared, other, beginning, resume=resume)
        # Whether it is the function of a run that an older version began is not known.
        known = before.get("fingerprint_format") == FORMAT
        if known and before["fingerprint"] != self.task.fingerprint and not resume:
            raise ExperimentExistsError(
                f"{self.folder} holds the same search with another function: resume=True goes on "
                f"with {name!r} and the new function; or choose {beginning}"
            )
        return changes

    def _changes(
        self,
        before: Mapping[str, Any],
        other: Sequence[str],
        beginning: str,
        *,
        resume: bool,
    ) -> Changes:
        """What is to be changed in the search that the folder holds.

        Args:
            before: what was declared.
            other: in which keys it differs, in words.
            beginning: how to begin another search, in words.
            resume: whether the changes are wanted.

        Raises:
            ExperimentExistsError: they are not, or it would be another search.
        """
        declared = from_values(before, "the declaration of the run")
        try:
            changes = differences(declared, self.experiment)
        except ExperimentError as error:
            why = str(error) if "space:" in str(error) else ""
            # Of the space `why` says what differs; both spaces in full would hide it.
            rest = [text for text in other if not (why and text.startswith("space was "))]
            message = f"{self.folder} holds another search of that name"
            message += f" ({'; '.join(rest)})" if rest else ""
            raise ExperimentExistsError(f"{message}: choose {beginning}\n{why}".rstrip()) from None
        message = f"{self.folder} holds that search with another declaration ({'; '.join(other)})"
        if changes.kept:
            raise ExperimentExistsError(
                f"{message}: {', '.join(changes.kept)} cannot be changed: leave it as it was, or "
                f"choose {beginning}"
            )
        if not resume:
            raise ExperimentExistsError(
                f"{message}: resume=True goes on with the new one; or choose {beginning}"
            )
        return changes

    def write(self) -> None:
        """Write down what the search is, for the next call; the run that it replaced goes."""
        self._note()
        # First what makes it a run: whatever interrupts the rest, it is not put back by half.
        RunFile.remove(self._former)
        shutil.rmtree(self._former, ignore_errors=True)

    def _note(self) -> None:
        file, steps = self.folder / CALL, [self.experiment.steps]
        if file.exists() and steps[0] in (before := _steps(json.loads(file.read_text()))):
            steps = before
        declared = self.experiment.model_dump(mode="json")
        call = {
            "experiment": declared,
            "fingerprint": self.task.fingerprint,
            "fingerprint_format": FORMAT,
            "steps": steps,
        }
        write_json(file, call)
        # So that `romul run --resume` goes on with it too.
        RunFile(
            [self.experiment.name],
            self.workers,
            [self.experiment.module],
            list(self.task.paths),
            declared=declared,
        ).write(self.folder)


def note_steps(folder: Path, steps: int) -> None:
    """Write down that a run was extended: a call with so many steps goes on with it, too."""
    file = folder / CALL
    if file.exists():
        call = json.loads(file.read_text())
        call["steps"] = [*_steps(call), steps]
        write_json(file, call)


def _steps(call: Mapping[str, Any]) -> list[int]:
    """How many steps a call may have to be that search's: as it was declared, then extended."""
    return list(call.get("steps", [call["experiment"]["steps"]]))


def _comparable(declaration: Mapping[str, Any]) -> Mapping[str, Any]:
    """A declaration without what follows from where the folder lies."""
    return {key: value for key, value in declaration.items() if key != "checkpoints"}
