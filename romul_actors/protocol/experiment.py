"""The user's declaration of an experiment: what to train, where to search, how long.

One validated model, read once at the edge from a TOML or Python file, and kept as JSON in the
store for actors and workers. It knows the search space but no optimizer.
"""

import importlib.util
import re
import sys
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from romul_actors.core.space import (
    BooleanParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scale,
    Space,
    Value,
)
from romul_actors.errors import ExperimentError, SpaceError

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What an experiment or a worker may be called: it becomes part of keys, topics and paths."""

RESERVED_METRICS = ("step", "trial", "checkpoint", "hyperparameters", "metrics", "vector")
"""Words that stand beside the metric in the store."""

_TASK = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FloatSpec(_Model):
    """A real number between two bounds."""

    type: Literal["float"]
    min: FiniteFloat
    max: FiniteFloat
    scale: Scale = "linear"
    mutable: bool = True

    def parameter(self, name: str) -> Parameter:
        """Make the core's parameter."""
        return FloatParameter(name, self.min, self.max, self.scale, self.mutable)


class IntSpec(_Model):
    """A whole number between two bounds, both included."""

    type: Literal["int"]
    min: int
    max: int
    scale: Scale = "linear"
    mutable: bool = True

    def parameter(self, name: str) -> Parameter:
        """Make the core's parameter."""
        return IntParameter(name, self.min, self.max, self.scale, self.mutable)


class CategoricalSpec(_Model):
    """One of a few choices without an order."""

    type: Literal["categorical"]
    choices: tuple[Value, ...]
    mutable: bool = True

    def parameter(self, name: str) -> Parameter:
        """Make the core's parameter."""
        return CategoricalParameter(name, self.choices, self.mutable)


class BooleanSpec(_Model):
    """False or true."""

    type: Literal["boolean"]
    mutable: bool = True

    def parameter(self, name: str) -> Parameter:
        """Make the core's parameter."""
        return BooleanParameter(name, self.mutable)


ParameterSpec = Annotated[
    FloatSpec | IntSpec | CategoricalSpec | BooleanSpec, Field(discriminator="type")
]


class OptimizerSpec(_Model):
    """An optimizer by name; every other key is one of its constants."""

    name: str = "romul"
    options: dict[str, float | int | bool | str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, dict) and "options" not in given:
            options = {key: value for key, value in given.items() if key != "name"}
            return {"name": given.get("name", "romul"), "options": options}
        return given


class Resources(_Model):
    """What a trial needs of a machine."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")


class Timeouts(_Model):
    """Time limits, in seconds."""

    trial_s: PositiveFloat | None = None
    """Longest trial, by the clock; None: no limit, as long as its worker is alive."""
    lease_s: float = Field(30.0, ge=1.0)
    """A worker that was not heard for so long has lost its trial."""
    stall_s: PositiveFloat | None = None
    """Longest time without a sign of progress (`trial.progress`, `trial.should_stop`)."""
    setup_s: PositiveFloat = 300.0
    """Longest import of the task and run of its `setup`."""
    quorum_s: PositiveFloat = 60.0
    """A slot waits at least so long for its quorum before it goes on with what is known."""


class ElasticitySpec(_Model):
    """How the population follows the workers; see `romul_actors.core.elasticity`."""

    min: int = Field(4, ge=4)
    """Parking never leaves fewer slots."""
    max: PositiveInt | None = None
    """Growing, when workers are idle, never makes more; None: the population does not grow."""
    per_worker: PositiveFloat | None = None
    """With more slots than this for each living worker the worst are parked; None: none is."""
    second_copy: float = Field(3.0, ge=0.0)
    """After so many median trials an idle worker gets a second copy of a late one; 0: never."""


class Experiment(_Model):
    """An experiment, as a user declares it.

    Attributes:
        name: its name in the store.
        task: the module, or "module:function", that trains; the function is `train` by default.
        space: hyperparameters by name.
        metric: name of the figure that `train` returns and the search goes by.
        direction: whether less or more of it is better.
        population: number of slots, 4 at least.
        steps: PBT steps of each slot.
        budget: length of one step.
        budget_unit: what it counts.
        seed: all randomness of the search derives from it.
        optimizer: name and constants.
        constants: values that are passed to the task unchanged.
        initial: hyperparameters of the first slots, in place of drawn ones.
        max_attempts: failures after which a trial is given up and its slot refilled.
        max_losses: vanished workers after which it is: it may be what ends them.
        elasticity: how the population follows the workers.
        deadline: when the search must have ended, with a time zone; it then ends with whatever
            it has found.
        resources: what a trial needs of a machine.
        timeouts: time limits.
        checkpoints: URL of the folder for checkpoints, in any file system that fsspec knows.
        keep_checkpoints: "needed" removes those that no decision can ask for any more; "all" none.
        history_keep: how many history entries the store keeps, about 1 kB each.
    """

    name: str = Field(pattern=NAME)
    task: str = Field(pattern=_TASK)
    space: dict[str, ParameterSpec]
    metric: str = Field("loss", min_length=1, max_length=100)
    direction: Literal["minimize", "maximize"] = "minimize"
    population: int = Field(8, ge=4, le=100_000)
    steps: PositiveInt
    budget: Annotated[PositiveFloat, FiniteFloat] = 1.0
    budget_unit: str = "epoch"
    seed: int = Field(0, ge=0, lt=2**64)
    optimizer: OptimizerSpec = OptimizerSpec()
    constants: dict[str, Value] = Field(default_factory=dict)
    initial: tuple[dict[str, Value], ...] = ()
    max_attempts: PositiveInt = 3
    max_losses: PositiveInt = 10
    elasticity: ElasticitySpec = ElasticitySpec()
    deadline: AwareDatetime | None = None
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

    @field_validator("initial", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return [given] if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _check_space(self) -> "Experiment":
        space = self.search_space()
        for values in self.initial:
            space.encode(values)
        if len(self.initial) > self.population:
            raise SpaceError(f"{len(self.initial)} initial values for {self.population} slots")
        return self

    @model_validator(mode="after")
    def _check_bounds(self) -> "Experiment":
        least, most = self.elasticity.min, self.elasticity.max
        if most is not None and most < self.population:
            raise ValueError(
                f"elasticity.max = {most} is below the population of {self.population}"
            )
        if least > self.population:
            raise ValueError(
                f"elasticity.min = {least} is above the population of {self.population}"
            )
        return self

    def search_space(self) -> Space:
        """Make the core's space.

        Raises:
            SpaceError: a parameter's bounds or choices are wrong.
        """
        return Space([spec.parameter(name) for name, spec in self.space.items()])

    @property
    def module(self) -> str:
        """The module that holds the task."""
        return self.task.partition(":")[0]

    @property
    def function(self) -> str:
        """The task's function in it."""
        return self.task.partition(":")[2] or "train"


def parse(text: str, source: str = "experiment") -> Experiment:
    """Read an experiment from TOML text; `source` names it in errors.

    Raises:
        ExperimentError: the message gives the line and the field.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(f"{source}: {error}") from None
    return from_values(content, source, text.splitlines())


def from_values(values: Mapping[str, Any], source: str, lines: Sequence[str] = ()) -> Experiment:
    """Make an experiment of its keys' values, as a TOML file has them.

    Args:
        values: by key.
        source: names them in errors.
        lines: the file that they come from, for the lines' numbers in errors.

    Raises:
        ExperimentError: the message gives the field, and the line if there is one.
    """
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ExperimentError(_explain(error, source, lines)) from None


def from_json(text: str) -> Experiment:
    """Read an experiment as the store keeps it.

    Raises:
        ExperimentError: it is not one, or one of another version.
    """
    try:
        return Experiment.model_validate_json(text)
    except ValidationError as error:
        raise ExperimentError(_explain(error, "stored experiment", [])) from None


def load(path: Path) -> Experiment:
    """Read an experiment from a TOML file, or from a Python file's variable `experiment`.

    A Python file is run: load only what you would run yourself.

    Raises:
        ExperimentError: the file cannot be read, or what it declares is wrong; the message gives
            the line or the field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: cannot be read: {error}") from None
    if path.suffix == ".toml":
        return parse(text, str(path))
    if path.suffix != ".py":
        raise ExperimentError(f"{path}: an experiment is a .toml or a .py file")
    return _run_python(path)


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
            raise ExperimentError(_explain(error, where, [])) from None
        raise ExperimentError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not isinstance(experiment, Experiment):
        raise ExperimentError(f"{path}: declares no variable `experiment` of type Experiment")
    return experiment


def _explain(error: ValidationError, source: str, lines: Sequence[str]) -> str:
    """One line a mistake: where, which field, what is wrong with which value."""
    told = []
    for mistake in error.errors(include_url=False):
        # A union's branch is no part of the field's name.
        kinds = {"float", "int", "categorical", "boolean", "str", "bool"}
        loc = [
            part
            for i, part in enumerate(mistake["loc"])
            if not (part in kinds and i >= 2)  # noqa: PLR2004
        ]
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] not in ("value_error", "missing", "extra_forbidden"):
            message += f", not {mistake['input']!r}"
        if not loc:
            # The space's own errors name the parameter themselves.
            loc = ["space", message.partition(":")[0]] if ": " in message else []
            number = _line_of(loc, lines)
        else:
            number = _line_of(loc, lines)
            message = f"{'.'.join(str(part) for part in loc)}: {message}"
        told.append(f"{source}:{number}: {message}" if number else f"{source}: {message}")
    return "\n".join(told)


def _line_of(loc: Sequence[object], lines: Sequence[str]) -> int:
    """Number of the TOML line that sets `loc`, or the nearest around it; 0 where there is none."""
    best, best_length = 0, 0
    table: list[str] = []
    for number, line in enumerate(lines, 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            path = table
        elif key := re.match(r"""\s*([\w.\-"']+)\s*=""", line):
            path = table + [part.strip("\"'") for part in key[1].split(".")]
        else:
            continue
        if len(path) > best_length and path == [str(part) for part in loc[: len(path)]]:
            best, best_length = number, len(path)
    return best
