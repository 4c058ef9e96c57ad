"""A stored declaration of which this version refuses something, read without it.

An older version may have stored an option that an optimizer takes no more. Its search is not
decided on until that is taken out, but it is shown, stopped, changed and gone on with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from romul_actors.core.settings import Settings
from romul_actors.errors import ExperimentError, OptimizerError, PluginError, RomulError
from romul_actors.protocol.declared_tables import OptimizerSpec, Timeouts
from romul_actors.protocol.experiment import Experiment
from romul_actors.protocol.messages import MOST_STEPS
from romul_actors.protocol.optimizer_options import make
from romul_actors.protocol.plan import settings

_STAND_IN = OptimizerSpec(name="random")
"""In place of an optimizer that cannot be made; it decides nothing."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A stored declaration as this version reads it.

    Attributes:
        experiment: the declaration without what is refused.
        settings: of that.
        refusal: why the search cannot be decided on as it is stored; "": it can.
        options: the optimizer's options that are refused, with their values.
        mendable: whether it can be decided on without these options.
    """

    experiment: Experiment
    settings: Settings
    refusal: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    mendable: bool = True

    def check(self, unset: Sequence[str] = ()) -> None:
        """Make sure that it can be decided on when the options `unset` have been taken out.

        Raises:
            ExperimentError: it cannot.
        """
        if self.refusal and not (self.mendable and set(self.options) <= set(unset)):
            raise ExperimentError(self.refusal)

    def defaults(self, unset: Sequence[str]) -> Mapping[str, Any]:
        """Defaults of those of the options `unset` that the optimizer takes.

        Raises:
            OptimizerError: it takes one of them not, and the search does not set it either.
        """
        made: Any = self.settings.optimizer
        known = {field.name: field.default for field in fields(made)}
        for option in unset:
            if option not in known and option not in self.options:
                raise OptimizerError(
                    f"optimizer {made.name!r} has no option {option!r}, and the search does not "
                    "set it"
                )
        return {option: known[option] for option in unset if option in known}


def readable(experiment: Experiment) -> Readable:
    """Read a stored declaration, without what this version refuses of it.

    Raises:
        ExperimentError, SpaceError: it cannot be read without that either.
    """
    try:
        return Readable(experiment, settings(experiment))
    except (ExperimentError, OptimizerError, PluginError) as error:
        refusal = str(error)
    kept, refused = _kept(experiment.optimizer)
    sound = experiment.model_copy(update={"optimizer": kept})
    mendable = bool(refused)
    try:
        core = settings(sound)
    except RomulError:
        sound, mendable = _without_the_rest(sound), False
        core = settings(sound)
    name = experiment.name
    what = f"`romul stop {name}` ends the search"
    if mendable:
        refusal = "; ".join(dict.fromkeys(refused.values()))
        unset = " ".join(f"--unset {option}" for option in refused)
        what = (
            f"`romul change {name} {unset}` takes it out, as `romul run FILE --resume {name}` does "
            f"where the file does not set it; {what}"
        )
    options = {option: experiment.optimizer.options[option] for option in refused}
    return Readable(sound, core, f"{refusal}: {what}", options, mendable)


def _kept(spec: OptimizerSpec) -> tuple[OptimizerSpec, Mapping[str, str]]:
    """An optimizer that can be made, and why each option that it goes without is refused."""
    if _refusal(spec.name, {}):
        # Its name, or what it needs of this machine: its options are not what is wrong.
        return _STAND_IN, {}
    said = {option: _refusal(spec.name, {option: value}) for option, value in spec.options.items()}
    options = {option: value for option, value in spec.options.items() if not said[option]}
    if together := _refusal(spec.name, options):
        said |= dict.fromkeys(options, together)
        options = {}
    return OptimizerSpec(name=spec.name, options=options), {
        option: why for option, why in said.items() if why
    }


def _refusal(name: str, options: Mapping[str, Any]) -> str:
    """Why an optimizer cannot be made with some options; "": it can."""
    try:
        make(name, options)
    except (OptimizerError, PluginError) as error:
        return str(error)
    return ""


def _without_the_rest(experiment: Experiment) -> Experiment:
    """The declaration without all else that a search may be refused for; it decides nothing."""
    changes: dict[str, Any] = {"max_hours": None, "initial": (), "from_run": None}
    changes |= {"timeouts": Timeouts(), "steps": min(experiment.steps, MOST_STEPS)}
    return experiment.model_copy(update=changes)
