"""The user's declaration of an experiment: what to train, where to search, how long.

One validated model, read once at the edge from a TOML or Python file, and kept as JSON in the
store for actors and workers. It knows the search space but no optimizer.
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
"""Words that stand beside the metric in the store."""

_TASK = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$"


class Experiment(DeclaredTable):
    """An experiment, as a user declares it; docs/reference/experiment.md has all defaults.

    Attributes:
        name: its name in the store.
        task: the module, or "module:function", that trains; the function is `train` by default.
        space: hyperparameters by name.
        metric: name of the figure that `train` returns and the search goes by.
        direction: whether less or more of it is better.
        population: number of slots, 4 at least.
        steps: PBT steps of each slot.
        budget: length of one step, in `budget_unit`.
        budget_unit: what `budget` counts, for people.
        seed: all randomness of the search derives from it.
        optimizer: name and constants.
        constants: values that are passed to the task unchanged.
        initial: hyperparameters of the first slots, in place of drawn ones; what one leaves out is
            drawn.
        from_run: the search that this one begins from.
        max_attempts: failures after which a trial is given up and its slot refilled.
        max_losses: attempts lost with their workers after which a trial is given up: the trial may
            be what ends the workers.
        elasticity: how the population follows the workers.
        deadline: when the search must have ended, with a time zone; it then ends with whatever
            it has found.
        max_hours: how long it may go on after its beginning, in hours, pauses counted.
        max_trials: how many trials it may begin in all.
        target: value of the metric at which it ends: it, or a better one.
        resources: what a trial needs of a machine.
        timeouts: time limits.
        checkpoints: URL of the folder for checkpoints, in any file system that fsspec knows.
        keep_checkpoints: "needed" removes those that no decision can ask for any more; "all" none.
        history_keep: how many lines of history the store keeps.
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
            raise ValueError(f"{given!r} is one of the words that the store uses itself")
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
        # Since the first trials began, bounds may have been changed.
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
                    ("initial",), f"{len(given)} initial values for {population} slots", named=True
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
        """How many trials there are if neither time nor a target ends the search."""
        all_steps = self.population * self.steps
        return all_steps if self.max_trials is None else min(all_steps, self.max_trials)

    def search_space(self) -> Space:
        """Make the core's space.

        Raises:
            SpaceError: a parameter's bounds or choices are wrong.
        """
        return core_space(self.space)

    @property
    def module(self) -> str:
        """The module that holds the task."""
        return self.task.partition(":")[0]

    @property
    def function(self) -> str:
        """The task's function in it."""
        return self.task.partition(":")[2] or "train"


Also = Callable[[Mapping[str, Any]], list[Mistake]]
"""A further look at what a file declares, as it stands there: the mistakes that it finds."""


def parse(text: str, source: str = "experiment", also: Also = lambda _: []) -> Experiment:
    """Read an experiment from TOML text.

    Args:
        text: the declaration.
        source: names it in errors.
        also: looks for mistakes that this module knows nothing of.

    Raises:
        ExperimentError: all mistakes, a line each, with the number of the line and the key.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(not_toml(error, text, source)) from None
    except RecursionError:
        raise ExperimentError(f"{source}: lists or tables are nested too deeply") from None
    except ValueError as error:
        # A whole number of more digits than Python reads.
        raise ExperimentError(f"{source}: not TOML that can be read: {error}") from None
    return from_values(content, source, lines_of(text), also)


def from_values(
    values: Mapping[str, Any],
    source: str,
    lines: Mapping[str, int] | None = None,
    also: Also = lambda _: [],
) -> Experiment:
    """Make an experiment of its keys' values, as a TOML file has them.

    Args:
        values: by key.
        source: names them in errors.
        lines: numbers of the lines of a file that they come from, by key.
        also: looks for mistakes that this module knows nothing of.

    Raises:
        ExperimentError: what is wrong: all mistakes, with the lines if there are any.
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
    """What is wrong with a task that is a file, or whose file would hide a module of Python."""
    module = str(task).partition(":")[0]
    if module.endswith(".py"):
        right = str(task).replace(".py", "", 1)
        return [Mistake(("task",), f"{task!r} names a file: write its module, as {right!r}")]
    if module.partition(".")[0] not in sys.stdlib_module_names:
        return []
    message = (
        f"{module!r} is a module of Python itself: give the task's file another name, such as "
        f"{module}_task.py"
    )
    return [Mistake(("task",), message)]


STORED = {"stored": True}
"""Says to the model that a declaration was in order when it was stored."""


@lru_cache(maxsize=1024)
def from_json(text: str) -> Experiment:
    """Read an experiment as the store keeps it; it is immutable, and the same for the same text.

    Raises:
        ExperimentError: it is not one, or one of another version.
    """
    try:
        return Experiment.model_validate_json(text, context=STORED)
    except ValidationError as error:
        raise ExperimentError(
            in_lines(mistakes_of(error, Experiment), "stored experiment", {})
        ) from None


def load(path: Path, also: Also = lambda _: []) -> Experiment:
    """Read an experiment from a TOML file, or from a Python file's variable `experiment`.

    A Python file is run: load only what you would run yourself. `also` looks at a TOML file alone.

    Raises:
        ExperimentError: the file cannot be read, or what it declares is wrong: all mistakes, a line
            each, with the number of the line or the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = _neighbour(path) if isinstance(error, FileNotFoundError) else ""
        raise ExperimentError(f"{path}: cannot be read: {unreadable(error)}{hint}") from None
    if path.suffix == ".toml":
        return parse(text, str(path), also)
    if path.suffix != ".py":
        raise ExperimentError(f"{path}: an experiment is a .toml or a .py file")
    return _run_python(path)


def _neighbour(path: Path) -> str:
    """The file that a name that is none may have meant."""
    there = [p.name for p in (*path.parent.glob("*.toml"), *path.parent.glob("*.py"))]
    near = get_close_matches(path.name, sorted(there), n=1)
    return f": did you mean {near[0]}?" if near else ""


def _run_python(path: Path) -> Experiment:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ExperimentError(f"{path}: cannot be run as Python")
    module = importlib.util.module_from_spec(spec)
    # The file may import its neighbours, as a script does.
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
        raise ExperimentError(f"{path}: declares no variable `experiment` of type Experiment")
    return experiment
