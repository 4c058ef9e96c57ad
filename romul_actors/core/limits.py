"""Limits that end a search before its last step: deadline, hours, number of trials, target.

Time comes from events, never from a clock.
"""

from collections.abc import Mapping
from typing import Any

from romul_actors.core.transition import Transition


def reached_limits(transition: Transition) -> Mapping[str, Any]:
    """The limits that have been reached, by their names in `Settings`."""
    settings, best = transition.settings, transition.best
    reached: dict[str, Any] = {}
    if settings.target_loss is not None and best and best.loss <= settings.target_loss:
        reached["target_loss"] = settings.target_loss
    if settings.max_trials is not None and transition.n_created >= settings.max_trials:
        reached["max_trials"] = settings.max_trials
    if _has_passed(settings.deadline_ms, 0, transition.at_ms):
        reached["deadline_ms"] = settings.deadline_ms
    if _has_passed(settings.max_ms, transition.started_ms, transition.at_ms):
        reached["max_ms"] = settings.max_ms
    return reached


def _has_passed(limit_ms: int | None, since_ms: int | None, at_ms: int) -> bool:
    return limit_ms is not None and since_ms is not None and at_ms - since_ms >= limit_ms


def reason_of(transition: Transition, reached: Mapping[str, Any]) -> str:
    """Why a search ends before its last step, in words; empty if no limit is the cause.

    Args:
        transition: the population.
        reached: the result of `reached_limits`.
    """
    settings = transition.settings
    if "target_loss" in reached:
        sign = -1.0 if settings.maximize else 1.0
        return f"the target of {sign * reached['target_loss']:g} was reached"
    if "max_trials" in reached:
        return f"after {settings.max_trials} trials (max_trials)"
    # No trial begins that would end after the deadline, so the search may end a little earlier.
    deadline_ms = transition.deadline_ms
    if deadline_ms is None:
        return ""
    if deadline_ms == settings.deadline_ms:
        return "at its deadline"
    return f"after {(settings.max_ms or 0) / 3_600_000:g} hours (max_hours)"
