"""The user's declaration of an experiment: what to train, the search space, and limits.

The declaration is read from a TOML or Python file and validated once. The store keeps it as JSON
for actors and workers. This module knows the search space, but no optimizer.
"""

import importlib.util
import sys
import tomllib
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from romul_actors.core.space import Space, Value
from romul_actors.errors import ExperimentError, SpaceError
from romul_actors.protocol.declared_space import (
    BooleanSpec,
    CategoricalSpec,
    DeclaredTable,
    FloatSpec,
    IntSpec,
    ParameterSpec,
    by_name,
    check_json,
    core_space,
    plain,
    read_space,
)
from romul_actors.protocol.declared_tables import (
    NAME,
    ElasticitySpec,
    FromRun,
    OptimizerSpec,
    Resources,
    Timeouts,
)
from romul_actors.protocol.mistakes import (
    Mistake,
    Mistakes,
    in_lines,
    mistakes_of,
    not_toml,
    unreadable,
)
from romul_actors.protocol.toml_lines import lines_of

__all__ = [
    "BooleanSpec",
    "CategoricalSpec",
    "ElasticitySpec",
    "Experiment",
    "FloatSpec",
    "IntSpec",
    "OptimizerSpec",
    "ParameterSpec",
    "Resources",
    "Timeouts",
    "from_json",
    "load",
    "parse",
]

RESERVED_METRICS = ("step", "trial", "checkpoint", "hyperparameters", "metrics", "vector")
"""Names that the store uses beside the metric."""

_TASK = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$"


class Experiment(DeclaredTable):
    """The declaration of an experiment. docs/reference/experiment.md lists all defaults.

    Attributes:
        name: name of the experiment in the store.
        task: the task, "module" or "module:function"; the default function is `train`.
        space: hyperparameters by name.
        metric: name of the metric to optimize, which `train` returns.
        direction: whether to minimize or to maximize the metric.
        population: number of slots, at least 4.
        steps: number of PBT steps of each slot.
        budget: length of one step, in `budget_unit`.
        budget_unit: unit of `budget`, for people.
        seed: seed for all random decisions of the search.
        optimizer: the optimizer, with its constants.
        constants: values that are passed to the task unchanged.
        initial: initial hyperparameters of the first slots; those that are missing are drawn.
        from_run: search whose results this one begins from.
        max_attempts: number of failures after which a trial is given up, and its slot copies
            another.
        max_losses: number of attempts lost with their workers after which a trial is given up,
            since the trial itself may kill the workers.
        elasticity: how the population follows the workers.
        deadline: when the search must have ended, with a time zone.
        max_hours: maximal duration of the search in hours, including pauses.
        max_trials: maximal number of trials.
        target: value of the metric at which the search ends, if it is reached or surpassed.
        resources: what a trial needs of a machine.
        timeouts: time limits.
        checkpoints: absolute path or fsspec URL of the folder for checkpoints.
        keep_checkpoints: "needed" removes checkpoints that no decision can need any more; "all"
            keeps all.
        history_keep: number of history lines that the store keeps.
    """

    name: str = Field(pattern=NAME)
    task: str = Field(pattern=_TASK)
    space: Annotated[dict[str, ParameterSpec], BeforeValidator(read_space)]
    metric: str = Field("loss", min_length=1, max_length=100)
    direction: Literal["minimize", "maximize"] = "minimize"
    population: int = Field(8, ge=4, le=100_000)
    steps: PositiveInt
    budget: float = Field(1.0, gt=0, allow_inf_nan=False)
    budget_unit: str = "epoch"
    seed: int = Field(0, ge=0, lt=2**64)
    optimizer: OptimizerSpec = OptimizerSpec()
    constants: Annotated[dict[str, Value], BeforeValidator(plain)] = Field(default_factory=dict)
    initial: tuple[dict[str, Value], ...] = ()
    from_run: FromRun | None = None
    max_attempts: PositiveInt = 3
    max_losses: PositiveInt = 10
    elasticity: ElasticitySpec = ElasticitySpec()
    deadline: AwareDatetime | None = None
    max_hours: float | None = Field(None, gt=0, allow_inf_nan=False)
    max_trials: PositiveInt | None = None
    target: float | None = Field(None, allow_inf_nan=False)
    resources: Resources = Resources()
    timeouts: Timeouts = Timeouts()
    checkpoints: str | None = None
    keep_checkpoints: Literal["needed", "all"] = "needed"
    history_keep: PositiveInt = 200_000

    @field_validator("metric")
    @classmethod
    def _not_reserved(cls, given: str) -> str:
        if given in RESERVED_METRICS:
            raise ValueError(f"{given!r} is reserved for the store: choose another name")
        return given

    @field_validator("constants")
    @classmethod
    def _json(cls, given: dict[str, Value]) -> dict[str, Value]:
        if mistakes := check_json(given, ("constants",)):
            raise Mistakes(mistakes)
        return given

    @field_validator("initial", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any, info: ValidationInfo) -> Any:
        many = [given] if isinstance(given, dict) else given
        names = info.data.get("space")
        if names is None or not isinstance(many, list | tuple):
            return many
        return [plain(by_name(x, names)) if isinstance(x, dict) else x for x in many]

    @field_validator("initial")
    @classmethod
    def _in_the_space(
        cls, given: tuple[dict[str, Value], ...], info: ValidationInfo
    ) -> tuple[dict[str, Value], ...]:
        mistakes = []
        # Not for a stored experiment: bounds may have been changed since its first trials.
        if "space" in info.data and info.context is not STORED:
            space = core_space(info.data["space"])
            for number, values in enumerate(given):
                try:
                    space.encode_some(values)
                except SpaceError as error:
                    name = str(error).partition(":")[0]
                    mistakes.append(
                        Mistake(("initial", number, name), f"initial: {error}", named=True)
                    )
        population = info.data.get("population")
        if population is not None and len(given) > population:
            mistakes.append(
                Mistake(
                    ("initial",),
                    f"initial: {len(given)} entries are too many for {population} slots",
                    named=True,
                )
            )
        if mistakes:
            raise Mistakes(mistakes)
        return given

    @field_validator("elasticity")
    @classmethod
    def _around_the_population(cls, given: ElasticitySpec, info: ValidationInfo) -> ElasticitySpec:
        population, least, most = info.data.get("population"), given.min, given.max
        if population is not None and most is not None and most < population:
            raise Mistakes(
                [Mistake(("elasticity", "max"), f"{most} is below the population of {population}")]
            )
        if population is not None and least > population:
            raise Mistakes(
                [Mistake(("elasticity", "min"), f"{least} is above the population of {population}")]
            )
        return given

    @field_validator("max_trials")
    @classmethod
    def _one_each(cls, given: int | None, info: ValidationInfo) -> int | None:
        population = info.data.get("population")
        if given is not None and population is not None and given < population:
            raise ValueError(f"{given} trials are fewer than the population of {population}")
        return given

    @property
    def n_trials(self) -> int:
        """Number of trials of the search, unless a limit of time or the target ends it."""
        all_steps = self.population * self.steps
        return all_steps if self.max_trials is None else min(all_steps, self.max_trials)

    def search_space(self) -> Space:
        """The search space as the core uses it.

        Raises:
            SpaceError: the bounds or choices of a hyperparameter are invalid.
        """
        return core_space(self.space)

    @property
    def module(self) -> str:
        """Name of the module that contains the task."""
        return self.task.partition(":")[0]

    @property
    def function(self) -> str:
        """Name of the task's function in the module."""
        return self.task.partition(":")[2] or "train"


Also = Callable[[Mapping[str, Any]], list[Mistake]]
"""An additional check of the raw values of a file; it returns the mistakes that it finds."""


def parse(text: str, source: str = "experiment", also: Also = lambda _: []) -> Experiment:
    """Read an experiment from TOML text.

    Args:
        text: the declaration.
        source: name of the declaration for errors.
        also: additional check.

    Raises:
        ExperimentError: the declaration is invalid; the message lists all mistakes, one per line,
            with the number of the line and the key.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(not_toml(error, text, source)) from None
    except RecursionError:
        raise ExperimentError(f"{source}: lists or tables are nested too deeply") from None
    except ValueError as error:
        # An integer has more digits than Python reads.
        raise ExperimentError(f"{source}: cannot be read as TOML: {error}") from None
    return from_values(content, source, lines_of(text), also)


def from_values(
    values: Mapping[str, Any],
    source: str,
    lines: Mapping[str, int] | None = None,
    also: Also = lambda _: [],
) -> Experiment:
    """Create an experiment from the values of its keys.

    Args:
        values: values by key, as in a TOML file.
        source: name of the declaration for errors.
        lines: line numbers in the file, by key.
        also: additional check.

    Raises:
        ExperimentError: the declaration is invalid; the message lists all mistakes, with line
            numbers if they are known.
    """
    mistakes: list[Mistake] = []
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        mistakes = mistakes_of(error, Experiment)
    except RecursionError:
        raise ExperimentError(f"{source}: lists or tables are nested too deeply") from None
    mistakes += [*_odd_task(values.get("task")), *also(values)]
    if mistakes:
        raise ExperimentError(in_lines(mistakes, source, lines or {}))
    return experiment


def _odd_task(task: object) -> list[Mistake]:
    """Mistakes for a task that is a file name, or that has the name of a standard module."""
    module = str(task).partition(":")[0]
    if module.endswith(".py"):
        right = str(task).replace(".py", "", 1)
        return [Mistake(("task",), f"{task!r} is a file name: give its module, {right!r}")]
    if module.partition(".")[0] not in sys.stdlib_module_names:
        return []
    message = (
        f"{module!r} is a module of the Python standard library: rename the task's file, for "
        f"example to {module}_task.py"
    )
    return [Mistake(("task",), message)]


STORED = {"stored": True}
"""Validation context of a stored declaration, which was valid when it was stored."""


@lru_cache(maxsize=1024)
def from_json(text: str) -> Experiment:
    """Read a stored experiment. The result is immutable and cached.

    Raises:
        ExperimentError: the text is not an experiment, or belongs to an incompatible version.
    """
    try:
        return Experiment.model_validate_json(text, context=STORED)
    except ValidationError as error:
        raise ExperimentError(
            in_lines(mistakes_of(error, Experiment), "stored experiment", {})
        ) from None


def load(path: Path, also: Also = lambda _: []) -> Experiment:
    """Read an experiment from a TOML file, or from the variable `experiment` of a Python file.

    A Python file is executed, so load only files that you trust.

    Args:
        path: the file.
        also: additional check, for TOML files only.

    Raises:
        ExperimentError: the file cannot be read or the declaration is invalid; the message lists
            all mistakes, one per line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = _neighbour(path) if isinstance(error, FileNotFoundError) else ""
        raise ExperimentError(f"{path}: cannot be read: {unreadable(error)}{hint}") from None
    if path.suffix == ".toml":
        return parse(text, str(path), also)
    if path.suffix != ".py":
        raise ExperimentError(f"{path}: an experiment must be a .toml or a .py file")
    return _run_python(path)


def _neighbour(path: Path) -> str:
    """A suggestion for the name of a file that does not exist; empty if there is none."""
    there = [p.name for p in (*path.parent.glob("*.toml"), *path.parent.glob("*.py"))]
    near = get_close_matches(path.name, sorted(there), n=1)
    return f": did you mean {near[0]}?" if near else ""


def _run_python(path: Path) -> Experiment:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ExperimentError(f"{path}: cannot be run as Python")
    module = importlib.util.module_from_spec(spec)
    # The file may import modules from its folder, like a script.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
        experiment = getattr(module, "experiment", None)
    except Exception as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == spec.origin
        ]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        if isinstance(error, ValidationError):
            raise ExperimentError(in_lines(mistakes_of(error, Experiment), where, {})) from None
        if isinstance(error, SyntaxError) and error.filename == str(path):
            where = f"{path}:{error.lineno}"
        raise ExperimentError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not isinstance(experiment, Experiment):
        raise ExperimentError(f"{path}: defines no variable `experiment` of type Experiment")
    return experiment
