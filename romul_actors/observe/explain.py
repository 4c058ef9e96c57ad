"""What a history tells to people: why a trial is as it is, who came from whom, what was lost.

Pure functions over lines of history, as the store keeps them; `lineage.py` holds those that draw.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romul_actors.errors import RomulError
from romul_actors.protocol.experiment import Experiment

Line = Mapping[str, Any]

_RULES = {
    "drawn": "drawn at the start, from a Latin hypercube or at random",
    "kept": "its hyperparameters were kept: it is among the best",
    "held": "its hyperparameters were held: it is not among the worst",
    "redrawn": "a step in all directions from its base, some hyperparameters drawn anew",
    "mutated": "base + F1 (base of a - base of b) + F2 (best - base), and a small step",
    # Of searches that an older version decided.
    "explored": "a small step in all directions from its base, for diversity",
    "probed": "one hyperparameter drawn anew, the others as in its base, for diversity",
    "pinned": "an operator pinned the slot: it goes on as it is",
    "joined": "it joined the running search, with a small step from a good slot",
}


class StoryError(RomulError, ValueError):
    """A trial that history does not know."""


def trial_line(lines: Sequence[Line], trial: str) -> Line:
    """The line that tells of a trial's decision.

    Raises:
        StoryError: there is none.
    """
    for line in lines:
        if line["event"] == "trial" and line["trial"] == trial:
            return line
    raise StoryError(f"history holds no trial {trial!r} (trials are called SLOT-STEP: 3-12)")


def explain(experiment: Experiment, lines: Sequence[Line], trial: str) -> dict[str, Any]:
    """Why a trial was decided as it was, as JSON values.

    Returns:
        `rule`, `why` (all numbers of the decision), `parent`, `copied_from`, `changes` (by
        hyperparameter: before, after, whence it came, whether it was out of bounds, whether the
        guard turned it upwards), `random` (the counter of its random numbers), `attempts` and how
        they ended.

    Raises:
        StoryError: history does not know the trial.
    """
    line = trial_line(lines, trial)
    why = dict(line["why"])
    slot, step = int(line["slot"]), int(line["step"])
    before: Line | None = None
    if line["parent"] is not None:
        before = next(
            (x for x in lines if x["event"] == "trial" and x["trial"] == line["parent"]), None
        )
    names = list(experiment.space)
    taken, origins = why.get("crossover"), ("base", "donor")
    if "drawn" in why:
        taken, origins = why["drawn"], ("moved", "drawn anew")
    outside, guarded = why.get("outside", []), why.get("guarded", [])
    changes = {}
    for i, name in enumerate(names):
        after = line["hyperparameters"][name]
        told: dict[str, Any] = {"after": after}
        if before is not None:
            told["before"] = before["hyperparameters"].get(name)
            told["changed"] = told["before"] != after
        if taken is not None:
            told["from"] = origins[bool(taken[i])]
            told["outside"] = i in outside
        if i in guarded:
            told["guarded"] = True
        changes[name] = told
    return {
        "trial": trial,
        "slot": slot,
        "step": step,
        "at_ms": line["at_ms"],
        "rule": why.get("rule", ""),
        "optimizer": experiment.optimizer.name,
        "parent": line["parent"],
        "copied_from": why.get("copied"),
        "why": why,
        "changes": changes,
        "random": {"seed": experiment.seed, "slot": slot, "step": step - 1},
        "attempts": [_attempt(x) for x in lines if x.get("trial") == trial and "attempt" in x],
    }


def _attempt(line: Line) -> dict[str, Any]:
    keys = ("event", "attempt", "worker", "reason", "message", "value", "seconds", "at_ms")
    return {key: line[key] for key in keys if key in line}


def in_words(told: Mapping[str, Any]) -> list[str]:
    """What `explain` found, as sentences."""
    words = [f"trial {told['trial']}: step {told['step']} of slot {told['slot']}"]
    if told["parent"] is None:
        words.append("it starts from scratch")
    elif told["copied_from"] is not None:
        words.append(
            f"slot {told['slot']} took {_taken(told)}: it goes on from trial {told['parent']}"
        )
    else:
        words.append(f"it goes on from its own trial {told['parent']}")
    words += _reasons(told)
    for name, change in told["changes"].items():
        text = f"  {name} = {_plain(change['after'])}"
        if change.get("changed"):
            text += f", was {_plain(change['before'])}"
        elif "changed" in change:
            text += ", as before"
        if change.get("from") == "drawn anew":
            text += "; drawn anew"
        if change.get("outside"):
            text += "; brought back from out of bounds"
        if change.get("guarded"):
            text += "; not lowered: it has a logarithmic scale, and the end is far"
        words.append(text)
    random = told["random"]
    words.append(
        f"random numbers: seed {random['seed']}, slot {random['slot']}, step {random['step']}"
    )
    for attempt in told["attempts"]:
        how = attempt.get("reason") or attempt["event"]
        value = f" = {attempt['value']:.6g}" if "value" in attempt else ""
        words.append(f"attempt {attempt['attempt']} on {attempt['worker']}: {how}{value}")
    return words


def _taken(told: Mapping[str, Any]) -> str:
    """What a slot took from which others."""
    weights, vector = told["copied_from"], told["why"].get("hyperparameters_of")
    if vector is None or vector == weights:
        return f"the weights and hyperparameters of slot {weights}"
    if vector == told["slot"]:
        return f"the weights of slot {weights}, to search on from its own hyperparameters"
    return f"the weights of slot {weights} and the hyperparameters of slot {vector}"


def _reasons(told: Mapping[str, Any]) -> list[str]:
    """How the slot was compared, and the rule that followed."""
    why, rule, words = told["why"], told["rule"], []
    if "rank" in why:
        words.append(
            f"{100 * why['rank']:.0f} % of the {why['known']} results known were better than "
            f"slot {told['slot']}'s (a pool of {why['pool']} slots)"
        )
    words.append(f"rule: {rule}: {_RULES.get(rule, '')}".rstrip(": "))
    if "bar" in why:
        others = f"slot {why['leader']}" if "leader" in why else "those that search"
        words.append(
            f"its loss was no worse than {why['bar']:.4g}, where it would give up: it keeps pace "
            f"with {others}"
        )
    if rule == "mutated":
        words.append(
            f"a = slot {why['a']}, b = slot {why['b']}, best = slot {why['best']}, "
            f"F1 = {why['F1']:.4g}, F2 = {why['F2']:.4g}"
        )
    return words


def _plain(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


# -- descent --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Branch:
    """A stretch of trials of one slot, with what was copied away from it.

    Attributes:
        slot: whose.
        first, last: steps of its first and last trial.
        value: of the last one that ended well.
        children: branches that began with a copy from this one, by the step they were copied at.
    """

    slot: int
    first: int
    last: int
    value: float | None = None
    children: list["Branch"] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "slot": self.slot,
            "first": self.first,
            "last": self.last,
            "value": self.value,
            "children": [child.as_json() for child in self.children],
        }


def branches(lines: Sequence[Line]) -> tuple[list[Branch], dict[str, Branch]]:
    """The whole population as trees: who was copied from whom.

    Returns:
        The roots, which began from scratch, and the branch of every trial.
    """
    of: dict[str, Branch] = {}
    roots: list[Branch] = []
    for line in lines:
        if line["event"] == "result":
            if line["trial"] in of:
                of[line["trial"]].value = line["value"]
            continue
        if line["event"] != "trial":
            continue
        slot, step, parent = line["slot"], line["step"], line["parent"]
        before = of.get(parent) if parent is not None else None
        if before is not None and before.slot == slot and before.last == step - 1:
            before.last = step
            of[line["trial"]] = before
            continue
        branch = Branch(slot, step, step)
        (roots if before is None else before.children).append(branch)
        of[line["trial"]] = branch
    return roots, of


def root_of(lines: Sequence[Line], slot: int) -> tuple[Branch, Branch]:
    """The tree that holds a slot's latest trial, and the slot's own branch in it.

    Raises:
        StoryError: the slot has no trial.
    """
    roots, of = branches(lines)
    trials = [x["trial"] for x in lines if x["event"] == "trial" and x["slot"] == slot]
    if not trials:
        raise StoryError(f"history holds no trial of slot {slot}")
    own = of[trials[-1]]
    for root in roots:
        if _holds(root, own):
            return root, own
    raise StoryError(f"slot {slot}: its first trials are no longer in history")


def _holds(branch: Branch, wanted: Branch) -> bool:
    stack = [branch]
    while stack:
        here = stack.pop()
        if here is wanted:
            return True
        stack += here.children
    return False


# -- what was lost --------------------------------------------------------------------------------


@dataclass(slots=True)
class Waste:
    """Machine seconds by what became of them.

    Attributes:
        useful_s: of attempts whose result, or partial checkpoint, counts.
        by_cause: of all others, by the reason that history gives.
        by_worker: the same, by worker.
        attempts: how many were lost, by cause.
    """

    useful_s: float = 0.0
    by_cause: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    by_worker: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    attempts: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        lost_s = sum(self.by_cause.values())
        whole_s = self.useful_s + lost_s
        return {
            "useful_s": round(self.useful_s, 3),
            "lost_s": round(lost_s, 3),
            "share_lost": round(lost_s / whole_s, 4) if whole_s else 0.0,
            "by_cause": {k: round(v, 3) for k, v in sorted(self.by_cause.items())},
            "by_worker": {k: round(v, 3) for k, v in sorted(self.by_worker.items())},
            "attempts": dict(sorted(self.attempts.items())),
        }


def waste(lines: Sequence[Line]) -> Waste:
    """Where the machines' time went.

    A lost worker says nothing of how long it had a trial: from when it was handed out, or from the
    worker's last word, whichever came later, to when it was missed. That is the most it can be.
    """
    told = Waste()
    handed_out: dict[str, int] = {}
    last_word: dict[str, int] = {}
    for line in lines:
        event, at_ms = line["event"], int(line.get("at_ms", 0))
        trial, worker = str(line.get("trial", "")), str(line.get("worker", ""))
        if event in ("trial", "second copy"):
            handed_out[trial] = at_ms
            continue
        if event not in ("result", "failed", "released", "stale"):
            continue
        seconds = line.get("seconds")
        if seconds is None:
            began = max(handed_out.get(trial, at_ms), last_word.get(worker, 0))
            seconds = max(0.0, (at_ms - began) / 1000)
        if event == "result" or "checkpoint" in line:
            told.useful_s += seconds
        else:
            cause = line.get("reason", event)
            told.by_cause[cause] += seconds
            told.attempts[cause] += 1
            if worker:
                told.by_worker[worker] += seconds
        if event in ("failed", "released"):
            handed_out[trial] = at_ms
        if worker:
            last_word[worker] = at_ms
    return told
