"""Tables of an experiment's declaration, but for the search space."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from romul_actors.protocol.declared_space import DeclaredTable
from romul_actors.protocol.mistakes import shown

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What an experiment or a worker may be called: it becomes part of keys, topics and paths."""

# JSON has no infinity: one would be stored as nothing, and could not be read back.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class OptimizerSpec(DeclaredTable):
    """An optimizer by name; every other key is one of its constants."""

    name: str = "romul"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, dict) and "options" not in given:
            options = {key: value for key, value in given.items() if key != "name"}
            return {"name": given.get("name", "romul"), "options": options}
        if not isinstance(given, dict | OptimizerSpec):
            raise ValueError(f"{shown(given)} is not a name, or a table with one")  # noqa: TRY004
        return given


class Resources(DeclaredTable):
    """What a trial needs of a machine."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")


class Timeouts(DeclaredTable):
    """Time limits, in seconds."""

    trial_s: Positive | None = None
    """Longest trial, by the clock; None: no limit, as long as its worker is alive."""
    lease_s: float = Field(30.0, ge=1.0, allow_inf_nan=False)
    """A worker that sent no heartbeat for so long has lost its trial."""
    stall_s: Positive | None = None
    """Longest time without a sign of progress (`trial.progress`, `trial.should_stop`)."""
    setup_s: Positive = 300.0
    """Longest import of the task and run of its `setup`."""
    quorum_s: Positive = 60.0
    """A slot waits at least so long for its quorum before it goes on with what is known."""


class ElasticitySpec(DeclaredTable):
    """How the population follows the workers; see `romul_actors.core.elasticity`."""

    min: int = Field(4, ge=4)
    """Parking never leaves fewer slots."""
    max: PositiveInt | None = None
    """Growing, when workers are idle, never makes more; None: the population does not grow."""
    per_worker: Positive | None = None
    """With more slots than this for each living worker the worst are parked; None: none is."""
    second_copy: float = Field(3.0, ge=0.0, allow_inf_nan=False)
    """After so many median trials an idle worker gets a second copy of a late one; 0: never."""


class FirstCheckpoint(DeclaredTable):
    """A copy of another search's checkpoint, from which a slot begins.

    Attributes:
        name: of the copy, in this search's own place for checkpoints.
        trial: the other search's trial that wrote it.
        hyperparameters: those that it was trained with, in this search's space.
    """

    name: str
    trial: str
    hyperparameters: dict[str, Any]


class FromRun(DeclaredTable):
    """The search that a new one begins from; its name alone may stand in place of the table."""

    name: str = Field(pattern=NAME)
    what: Literal["hyperparameters", "checkpoints"] = "hyperparameters"
    """Its best hyperparameters as first ones; or copies of its checkpoints, too."""
    checkpoints: tuple[FirstCheckpoint, ...] = ()
    """By slot; written when the search is submitted."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given
