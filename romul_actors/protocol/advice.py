"""What to say of an experiment that is right, and small: where its optimizer may not pay."""

from romul_actors.protocol.experiment import Experiment

MEASURED_STEPS = 10
"""Fewest steps that the default was measured with (docs/results.md, "Small and large")."""


def advice(experiment: Experiment) -> list[str]:
    """Sentences on what may work worse than expected; none: nothing is known."""
    steps = experiment.steps
    if steps == 1:
        return ["steps = 1: nothing is tuned while models train; this is a random search"]
    if experiment.optimizer.name == "romul" and steps < MEASURED_STEPS:
        moves = "once" if steps - 1 == 1 else f"{steps - 1} times"
        text = (
            f"steps = {steps}: a slot's hyperparameters change between steps, so at most {moves}, "
            f"and 'romul' was never measured with fewer than {MEASURED_STEPS} steps: shorter steps "
            "(budget) and more of them give it more to decide"
        )
        return [text]
    return []
