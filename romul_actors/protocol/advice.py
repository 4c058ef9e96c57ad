"""What to say of an experiment that is right, and small: where its optimizer does not pay."""

from romul_actors.protocol.experiment import Experiment

FEW_STEPS = 10
"""With so many steps or fewer the default optimizer is not ahead of truncation PBT."""


def advice(experiment: Experiment) -> list[str]:
    """Sentences on what will work worse than expected; none: nothing is known.

    Measured on the bench's half `develop` (docs/results.md, "Small and large").
    """
    found = []
    if experiment.optimizer.name == "romul" and 1 < experiment.steps <= FEW_STEPS:
        found.append(
            f"steps = {experiment.steps}: a slot's hyperparameters change between steps, so at "
            f"most {experiment.steps - 1} times; up to {FEW_STEPS} steps 'romul' was not "
            "ahead of 'truncation': take shorter steps (budget) and more of them"
        )
    if experiment.steps == 1:
        found.append("steps = 1: nothing is tuned while models train; this is a random search")
    return found
