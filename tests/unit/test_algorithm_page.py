"""A second implementation of ROMUL, from docs/algorithm.md alone, makes the same moves."""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from romul_actors.core.optimizers import make, romul
from romul_actors.core.optimizers.base import View
from romul_actors.core.slot import Outcome, Slot, failed
from romul_actors.core.space import (
    BooleanParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Space,
)

N = 60
D, F, E, G, Q = 0.25, 1.0, 4.0, 0.7, 21


PAGE = Path(__file__).parents[2] / "docs" / "algorithm.md"


def constants():
    """The values in the page's table, by option or name in the code."""
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    found: dict[str, float] = {}
    for values, names in rows:
        if quoted := re.findall(r"`(\w+)`", names):
            numbers = [float(Fraction(value.strip())) for value in values.split(",")]
            found |= dict(zip(quoted, numbers, strict=True))
    return found


def test_the_page_names_every_constant_with_its_value():
    options = {
        name: value for name, value in vars(make("romul", {})).items() if name in constants()
    }
    choices = {name: getattr(romul, name) for name in constants() if name.isupper()}
    assert constants() == options | choices
    assert len(choices) == 3
    # These are in the text alone: when slots are replaced, not how, and a switch.
    timing = {"quorum_share", "grace", "generations", "rising"}
    assert set(vars(make("romul", {}))) - set(options) == timing


def called_a_rate(p):
    if not isinstance(p, FloatParameter):
        return False
    spaced = re.sub("(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", p.name.split(".")[-1])
    words = spaced.lower().split()
    together = "".join(words)
    if any(x in together for x in ("decay", "drop", "factor", "gamma", "sched", "warm")):
        return False
    if {"lr", "lrs", "eta"} & {*words} or "learningrate" in together or "stepsize" in together:
        return True
    ends = {*words[:1], *words[-1:]}
    weaker = ends & {"rate", "rates"} or "clip" in together or "gradnorm" in together
    return bool(p.scale == "log" and weaker)


def guarded(space):
    """Indices of the axes that the page calls guarded."""
    numbers = {c: p for c, p in enumerate(space) if hasattr(p, "scale")}
    said = {c: p.guarded for c, p in numbers.items() if p.guarded is not None}
    if not said and not any(called_a_rate(p) for p in space):
        return {c for c, p in numbers.items() if p.scale == "log"}
    return {c for c, p in numbers.items() if said.get(c, called_a_rate(p))}


def selected(results, due, step, steps):
    """The order, the donors, and the slots that copy; `results` as below."""
    m, t = len(results), (step + 1) / steps
    order = sorted(results, key=lambda i: (math.inf if results[i] is None else results[i], i))
    best = [i for i in order[: math.ceil(D * m)] if results[i] is not None] if m >= 4 else []
    ends = math.floor((step + 1) * N / steps) > math.floor(step * N / steps)
    n = round((D + (1 - 2 * D) * t) * m) if best and ends else 0
    worst = {*order[m - n :]} | {i for i in due if results[i] is None}
    return order, best, worst - {*best}


def mutated(y, here, i, first, space, tried, draw):
    """Current-to-best/1, in place."""
    others = [k for k in sorted(tried) if k != i]
    a = others[draw.integers(len(others))]
    rest = [k for k in others if k != a]
    b = rest[draw.integers(len(rest))]
    f1, f2 = F * draw.random(2)
    for c, p in enumerate(space):
        if p.n_choices:
            x = draw.random()
            y[c] = first[c] if x < 0.3 else tried[a][c] if x < 0.5 else here[c]
        else:
            y[c] = here[c] + f1 * (tried[a][c] - tried[b][c]) + f2 * (first[c] - here[c])


def next_vector(i, here, first, space, tried, draw, *, early):
    """The next vector of slot `i`, starting from `here`."""
    y = list(here)
    if len(tried) >= 4:
        mutated(y, here, i, first, space, tried, draw)
    w, u = draw.random(len(space)) ** E, draw.random(len(space))
    held = guarded(space) if early else ()
    for c, p in enumerate(space):
        part = float(w[c] > 0.5) if p.n_choices else w[c]
        y[c] += part * (u[c] - y[c])
        if c in held:
            y[c] = max(y[c], here[c])
    return tuple(min(1.0, max(0.0, float(place))) for place in y)


def moves_by_the_page(space, vectors, results, due, step, steps, rng_of):
    """By slot due: the slot whose checkpoint it takes (None: its own last one), and its vector.

    `results`: by slot known, its loss or None where it failed.
    """
    order, best, worst = selected(results, due, step, steps)
    taken, rng = {}, {i: rng_of(i) for i in due if i in worst}
    for i in rng:
        if best:
            taken[i] = best[rng[i].integers(len(best))]
    first, t = vectors[order[0]], (step + 1) / steps
    early = t < G and min(N, steps) * (step + 1) // steps < Q
    return {
        i: (
            taken.get(i),
            next_vector(i, vectors[taken.get(i, i)], first, space, vectors, rng[i], early=early),
        )
        if i in rng
        else (i, tuple(vectors[i]))
        for i in due
    }


def some_space(rng):
    said = (None, None, None, True, False)

    def guarded():
        return said[rng.integers(len(said))]

    kinds = [
        lambda name, **more: FloatParameter(name, 0.0, 2.0, guarded=guarded(), **more),
        lambda name, **more: FloatParameter(
            name, 1e-4, 10.0, scale="log", guarded=guarded(), **more
        ),
        lambda name, **more: FloatParameter(name, 1e-4, 10.0, scale="log", **more),
        lambda name, **more: IntParameter(name, 1, 64, scale="log", guarded=guarded(), **more),
        lambda name, **more: IntParameter(name, 0, 5, **more),
        lambda name, **more: CategoricalParameter(name, ("a", "b", "c"), **more),
        BooleanParameter,
    ]
    chosen = rng.integers(len(kinds), size=rng.integers(1, 9))
    names = (
        "h{}",
        "lr_{}",
        "b{}.learning_rate",
        "lr_{}_decay",
        "weight_decay_{}",
        "Rate{}",
        "k{}.x_rate",
    )
    return Space(
        [
            kinds[k](names[rng.integers(len(names))].format(c), mutable=bool(rng.random() < 0.8))
            for c, k in enumerate(chosen)
        ]
    )


@pytest.mark.parametrize("number", range(100))
def test_the_page_says_all(number):
    rng = np.random.default_rng(number)
    space, n, steps = some_space(rng), int(rng.integers(1, 30)), int(rng.integers(2, 180))
    step = int(rng.integers(steps))
    vectors = {i: tuple(rng.random(len(space)).tolist()) for i in range(n)}
    known = (
        sorted(rng.permutation(n)[: rng.integers(1, n + 1)].tolist()) if number % 2 else [*range(n)]
    )
    results = {i: None if rng.random() < 0.15 else float(rng.integers(20)) for i in known}
    due = [i for i in known if number % 3 or rng.random() < 0.7]

    def rng_of(i):
        return np.random.default_rng([number, i])

    outcomes = {
        i: failed(vectors[i]) if loss is None else Outcome(loss, vectors[i], f"{i}")
        for i, loss in results.items()
    }
    slots = tuple(Slot(index=i, vector=vectors[i], outcomes={}) for i in range(n))
    view = View(
        space=space, slots=slots, pool=range(n), step=step, steps=steps, known=outcomes, rng=rng_of
    )
    moves = make("romul", {}).decide(view, due)
    wanted = moves_by_the_page(space, vectors, results, due, step, steps, rng_of)
    assert {move.slot: (move.source, tuple(move.vector)) for move in moves} == wanted
    assert [move.slot for move in moves] == due
    assert all(not move.memory and move.tier == "all" for move in moves)
