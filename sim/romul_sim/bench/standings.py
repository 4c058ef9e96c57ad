"""Tables of the bench's results: rows for each problem, and rows over all problems."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np

from romul_sim.baselines import PEERS
from romul_sim.bench.comparison import ENOUGH, Scores, Share, compare, median, quartiles
from romul_sim.bench.runs import RunLine


def scores(lines: Sequence[RunLine], problems: Sequence[str], optimizers: Sequence[str]) -> Scores:
    """Test losses by problem, optimizer and seed; infinity for a run without a loss.

    Raises:
        ValueError: there are two runs of an optimizer with the same seed on a problem.
    """
    found: dict[str, dict[str, dict[int, float]]] = {
        problem: {optimizer: {} for optimizer in optimizers} for problem in problems
    }
    for line in lines:
        problem, optimizer, seed = line["problem"], line["optimizer"], int(line["seed"])
        its = found[problem][optimizer]
        if seed in its:
            raise ValueError(f"problem {problem!r} has two runs of {optimizer!r} with seed {seed}")
        its[seed] = _loss(line["test"])
    return found


def standings(
    lines: Sequence[RunLine], problems: Sequence[str], optimizers: Sequence[str]
) -> dict[str, Any]:
    """The tables of a comparison, as JSON values.

    Args:
        lines: the runs, all with the same population and conditions.
        problems: names of the problems, in order.
        optimizers: names with options, in order; the first is compared with the others.

    Returns:
        `first`: the first optimizer; `problems`: a row for each problem and optimizer; `all`: a row
        for each optimizer. A row's share of pairs won is that of the first optimizer against the
        row's, and is missing in the first optimizer's own rows. With too few runs (`enough_runs` is
        false) no difference is sure.
    """
    compared = compare(scores(lines, problems, optimizers), optimizers[0])
    by_row: dict[tuple[str, str], list[RunLine]] = {}
    for line in lines:
        by_row.setdefault((line["problem"], line["optimizer"]), []).append(line)
    enough = {
        optimizer: all(
            len(by_row[problem, side]) >= ENOUGH
            for problem in problems
            for side in (optimizer, optimizers[0])
        )
        for optimizer in optimizers
    }
    rows = [
        {
            "problem": problem,
            **_row(optimizer, by_row[problem, optimizer]),
            "first_wins": _share(
                compared.pairs.get((problem, optimizer)), enough=enough[optimizer]
            ),
            "p_holm": compared.p.get((problem, optimizer)),
        }
        for problem in problems
        for optimizer in optimizers
    ]
    over_all = [
        {
            "optimizer": optimizer,
            "peer": optimizer in PEERS,
            "enough_runs": enough[optimizer],
            "mean_rank": compared.ranks[optimizer],
            "first_wins": _share(compared.over_all.get(optimizer), enough=enough[optimizer]),
            "other_problems": _share(
                compared.other_problems.get(optimizer), enough=enough[optimizer]
            ),
            "first_ranks_lower": compared.ranks_lower.get(optimizer),
        }
        for optimizer in optimizers
    ]
    return {"first": optimizers[0], "problems": rows, "all": over_all}


def _row(optimizer: str, lines: Sequence[RunLine]) -> dict[str, Any]:
    tests = [_loss(line["test"]) for line in lines]
    lasts = [_loss(line["test_last"]) for line in lines]
    return {
        "optimizer": optimizer,
        "peer": optimizer in PEERS,
        "runs": len(lines),
        "without_loss": sum(not isfinite(test) for test in tests),
        "median": _json(median(tests)),
        "quartiles": [_json(loss) for loss in quartiles(tests)],
        "median_last": _json(median(lasts)),
        "makespan": round(float(np.mean([line["makespan"] for line in lines])), 2),
    }


def label(row: Mapping[str, Any]) -> str:
    """The optimizer of a row, in words."""
    return f"{row['optimizer']} (peer, synchronous)" if row["peer"] else str(row["optimizer"])


def curve(lines: Sequence[RunLine]) -> list[float]:
    """Median over runs of the lowest validation loss up to each step; infinity if there is none."""
    so_far = [np.minimum.accumulate([_loss(loss) for loss in line["curve"]]) for line in lines]
    return [float(loss) for loss in np.median(so_far, axis=0)]


def _loss(value: float | None) -> float:
    return inf if value is None else value


def _json(value: float) -> float | None:
    return value if isfinite(value) else None


def _share(share: Share | None, *, enough: bool) -> Mapping[str, Any] | None:
    if share is None:
        return None
    return {
        "share": share.share,
        "low": share.low,
        "high": share.high,
        "chance": share.chance,
        "surely": enough and share.surely,
    }
