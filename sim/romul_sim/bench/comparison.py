"""How sure it is that one optimizer's losses are lower than others', over seeds and problems.

Losses are compared only within a problem: by pairs of runs and by ranks, never by their size.

The bootstrap (percentile, Efron 1979) resamples the seeds within each problem, so the intervals
describe other seeds on these problems. `other_problems` also resamples the problems; with few
problems its intervals are rather too narrow. Optimizers with the same seeds on a problem are
resampled together, because runs from the same seed often begin alike and have correlated losses; if
they do not, this is also correct. Optimizers with different seeds are resampled separately.

All functions are pure. The random numbers depend only on the problem and the seeds, so a result
does not depend on what else is compared.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

RESAMPLES = 2_000
"""Number of bootstrap samples for each interval."""

ENOUGH = 8
"""Smallest number of runs of each side on each problem for calling a difference sure and for a p
value. The bootstrap of fewer runs is too narrow, and their ranks are far from a normal
distribution."""

INTERVAL = (0.025, 0.975)
SURELY = 0.975
"""Smallest probability at which a difference is called sure."""

Losses = NDArray[np.float64]
Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Losses of runs by problem, optimizer and seed; infinity for a run without a loss."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of pairs of runs that the first optimizer wins against a rival.

    Attributes:
        share: the share; a tie counts half.
        low, high: its 95 % interval.
        chance: share of the bootstrap's samples in which it is above 0.5; 0.5 counts half.
    """

    share: float
    low: float
    high: float
    chance: float

    @property
    def surely(self) -> bool:
        """Whether the first optimizer is surely better."""
        return self.chance >= SURELY

    @classmethod
    def of(cls, share: float, samples: Losses) -> "Share":
        """Make a share with the statistics of its samples, shape (RESAMPLES,)."""
        low, high = np.quantile(samples, INTERVAL)
        chance = (samples > 0.5).mean() + 0.5 * (samples == 0.5).mean()  # noqa: PLR2004
        return cls(share, float(low), float(high), float(chance))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first optimizer against the others (rivals).

    Attributes:
        first: the first optimizer.
        pairs: share of pairs that the first optimizer wins, by problem and rival.
        p: p value of equal losses, by problem and rival, Holm-corrected over all of them; only if
            both sides have enough runs (`ENOUGH`).
        over_all: mean share over problems, by rival.
        other_problems: the same with an interval for other problems of this kind; empty if there is
            only one problem.
        ranks: mean rank of the median over problems, from 1, by optimizer.
        ranks_lower: share of the bootstrap's samples in which the first optimizer's mean rank is
            lower than the rival's, by rival; an equal rank counts half.
    """

    first: str
    pairs: Mapping[tuple[str, str], Share]
    p: Mapping[tuple[str, str], float]
    over_all: Mapping[str, Share]
    other_problems: Mapping[str, Share]
    ranks: Mapping[str, float]
    ranks_lower: Mapping[str, float]


def compare(scores: Scores, first: str) -> Comparison:
    """Compare the first optimizer with all others.

    Args:
        scores: all optimizers on all problems; their seeds may differ.
        first: one of the optimizers.

    Raises:
        ValueError: a problem has no run of an optimizer that ran on another problem.
    """
    names = list(dict.fromkeys(name for rows in scores.values() for name in rows))
    for problem, rows in scores.items():
        missing = [name for name in names if not len(rows.get(name, ()))]
        if missing:
            raise ValueError(f"problem {problem!r} has no run of {missing[0]!r}")
    rivals = [name for name in names if name != first]
    pairs, p = {}, {}
    sampled_shares: dict[str, list[Losses]] = {rival: [] for rival in rivals}
    ranks, sampled_ranks = [], []
    for problem, rows in scores.items():
        seeds = {name: sorted(rows[name]) for name in names}
        losses = {name: np.array([rows[name][seed] for seed in seeds[name]]) for name in names}
        drawn = {name: draws(f"{problem}/{seeds[name]}", len(seeds[name])) for name in names}
        for rival in rivals:
            at = (problem, rival)
            samples = sampled_pairs_won(losses[first], losses[rival], drawn[first], drawn[rival])
            share = pairs_won(losses[first], losses[rival])
            pairs[at] = Share.of(share, samples)
            if min(len(losses[first]), len(losses[rival])) >= ENOUGH:
                p[at] = mann_whitney(losses[first], losses[rival])
            sampled_shares[rival].append(samples)
        ranks.append(mean_ranks(np.array([[median(losses[name]) for name in names]]))[0])
        medians = [np.median(losses[name][drawn[name]], axis=1) for name in names]
        sampled_ranks.append(mean_ranks(np.stack(medians, axis=1)))
    mean_rank, samples_of_ranks = np.mean(ranks, axis=0), np.mean(sampled_ranks, axis=0)
    lower = {
        rival: _lower(samples_of_ranks[:, names.index(first)], samples_of_ranks[:, place])
        for place, rival in enumerate(names)
        if rival != first
    }
    shares = {rival: float(np.mean([pairs[p, rival].share for p in scores])) for rival in rivals}
    over_all = {
        rival: Share.of(shares[rival], np.mean(sampled_shares[rival], axis=0)) for rival in rivals
    }
    chosen = draws("problems", len(scores))
    other_problems = {
        rival: Share.of(
            shares[rival],
            np.take_along_axis(np.transpose(sampled_shares[rival]), chosen, axis=1).mean(axis=1),
        )
        for rival in rivals
        if len(scores) > 1
    }
    ranked = dict(zip(names, mean_rank.tolist(), strict=True))
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return Comparison(first, pairs, adjusted, over_all, other_problems, ranked, lower)


def _lower(ours: Losses, theirs: Losses) -> float:
    return float((ours < theirs).mean() + 0.5 * (ours == theirs).mean())


def draws(name: str, n: int) -> NDArray[np.int64]:
    """Indices of bootstrap samples of `n` runs, shape (RESAMPLES, n); `name` gives the seed."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return default_rng(seed).integers(n, size=(RESAMPLES, n))


def pairs_won(ours: Losses, theirs: Losses) -> float:
    """Share of all pairs of runs, one from each side, in which ours is lower; a tie counts half."""
    whole = np.arange(len(ours))[None], np.arange(len(theirs))[None]
    return float(sampled_pairs_won(ours, theirs, *whole)[0])


def sampled_pairs_won(
    ours: Losses, theirs: Losses, drawn_ours: NDArray[Any], drawn_theirs: NDArray[Any]
) -> Losses:
    """`pairs_won` for resampled runs; by ranks, so the time grows with runs and not with pairs.

    Args:
        ours: losses, shape (n,).
        theirs: losses, shape (m,).
        drawn_ours: indices of ours, shape (samples, n).
        drawn_theirs: indices of theirs, shape (samples, m).

    Returns:
        Shape (samples,).
    """
    values = np.unique(np.concatenate([ours, theirs]))
    place_ours, place_theirs = np.searchsorted(values, ours), np.searchsorted(values, theirs)
    n_samples, n_values = len(drawn_ours), len(values)
    offsets = n_values * np.arange(n_samples)[:, None]
    counts = np.bincount(
        (place_theirs[drawn_theirs] + offsets).ravel(), minlength=n_samples * n_values
    ).reshape(n_samples, n_values)
    # How many of theirs each loss beats: all that are higher, and half of those that are equal.
    beaten = drawn_theirs.shape[1] - np.cumsum(counts, axis=1) + 0.5 * counts
    won = np.take_along_axis(beaten, place_ours[drawn_ours], axis=1)
    return np.asarray(won.mean(axis=1) / drawn_theirs.shape[1])


def median(losses: Losses | Sequence[float]) -> float:
    """The median by which optimizers are ranked; infinite if half or more runs have no loss.

    Args:
        losses: shape (n,); infinity for a run without a loss.
    """
    return float(np.median(losses))


def quartiles(losses: Losses | Sequence[float]) -> tuple[float, float]:
    """The quartiles, interpolated between two runs; infinite if one of these has no loss."""
    ordered = np.sort(losses)
    places = 0.25 * (len(ordered) - 1), 0.75 * (len(ordered) - 1)
    low, high = (
        below if below == above else below + (place - math.floor(place)) * (above - below)
        for place in places
        for below, above in [(ordered[math.floor(place)], ordered[math.ceil(place)])]
    )
    return float(low), float(high)


def mean_ranks(medians: Losses) -> Losses:
    """Ranks from 1 along the last axis, lowest first; equal values share their mean rank."""
    lower = medians[..., None, :] < medians[..., :, None]
    equal = medians[..., None, :] == medians[..., :, None]
    return np.asarray(lower.sum(-1) + 0.5 * (equal.sum(-1) + 1.0))


def mann_whitney(ours: Losses, theirs: Losses) -> float:
    """Two-sided p value of equal distributions (Mann & Whitney 1947), by the normal distribution.

    It assumes that the runs of both sides are independent; if losses from equal seeds are
    correlated, it is rather too high. It has corrections for ties and continuity, and is meant for
    8 or more runs on each side.
    """
    n, m = len(ours), len(theirs)
    total = n + m
    _, ties = np.unique(np.concatenate([ours, theirs]), return_counts=True)
    tied = float((ties.astype(float) ** 3 - ties).sum())
    variance = n * m / 12 * (total + 1 - tied / (total * (total - 1)))
    if variance <= 0.0:
        return 1.0
    away = abs(pairs_won(ours, theirs) * n * m - n * m / 2) - 0.5
    return min(1.0, math.erfc(max(away, 0.0) / math.sqrt(2 * variance)))


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for multiple tests (Holm 1979), in the given order."""
    adjusted, highest = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = highest
    return adjusted
