"""Tables in the declaration of an experiment, except the search space."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from romul_actors.protocol.declared_space import DeclaredTable
from romul_actors.protocol.mistakes import shown

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Names of experiments and workers; they become parts of keys, topics and paths."""

# JSON has no infinity: it would be stored as null, and could not be read back.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class OptimizerSpec(DeclaredTable):
    """The name of an optimizer; every other key is one of its constants."""

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
            raise ValueError(f"{shown(given)} is neither a name nor a table with a name")  # noqa: TRY004
        return given


class Resources(DeclaredTable):
    """What a trial needs of a machine."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")


class Timeouts(DeclaredTable):
    """Time limits, in seconds."""

    trial_s: Positive | None = None
    """Maximal duration of an attempt; None means no limit."""
    lease_s: float = Field(30.0, ge=1.0, allow_inf_nan=False)
    """A worker loses its trial if it sends no heartbeat for this long."""
    stall_s: Positive | None = None
    """Maximal time without a sign of progress (`trial.progress`, `trial.should_stop`), or None."""
    setup_s: Positive = 300.0
    """Maximal duration of importing the task and running its `setup`."""
    quorum_s: Positive = 60.0
    """A slot waits at least this long for a quorum before it is decided without one."""


class ElasticitySpec(DeclaredTable):
    """How the population follows the workers; see `romul_actors.core.elasticity`."""

    min: int = Field(4, ge=4)
    """Smallest number of active slots that parking leaves."""
    max: PositiveInt | None = None
    """Largest number of slots to which idle workers make the population grow; None: no growth."""
    per_worker: Positive | None = None
    """Active slots allowed for each living worker; excess slots are parked. None: no limit."""
    second_copy: float = Field(3.0, ge=0.0, allow_inf_nan=False)
    """Number of median trials after which an idle worker gets a second copy; 0 means never."""


class FirstCheckpoint(DeclaredTable):
    """A copy of another search's checkpoint, from which a slot begins.

    Attributes:
        name: name of the copy in this search's folder for checkpoints.
        trial: id of the other search's trial.
        hyperparameters: hyperparameters of that trial, in this search's space.
    """

    name: str
    trial: str
    hyperparameters: dict[str, Any]


class FromRun(DeclaredTable):
    """The search that a new one begins from. A name may be given instead of the table."""

    name: str = Field(pattern=NAME)
    what: Literal["hyperparameters", "checkpoints"] = "hyperparameters"
    """Whether to begin with its best hyperparameters only, or with copies of checkpoints too."""
    checkpoints: tuple[FirstCheckpoint, ...] = ()
    """The copies, by slot; set when the search is submitted."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given
