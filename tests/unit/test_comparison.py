"""How sure a difference between optimizers is: shares of pairs, ranks, and the bootstrap."""

from math import inf

import numpy as np
import pytest
from numpy.random import default_rng

from romul_sim.bench.comparison import (
    RESAMPLES,
    Share,
    compare,
    draws,
    holm,
    mann_whitney,
    mean_ranks,
    median,
    pairs_won,
    quartiles,
    sampled_pairs_won,
)


def losses(*values):
    return np.array(values, dtype=float)


def test_a_share_counts_all_pairs_and_half_of_the_ties():
    # 1 beats 2 and 4; 3 beats 4 only; 4 beats neither and ties once: 3.5 of 6.
    assert pairs_won(losses(1, 3, 4), losses(2, 4)) == pytest.approx(3.5 / 6)
    assert pairs_won(losses(2, 4), losses(1, 3, 4)) == pytest.approx(2.5 / 6)
    assert pairs_won(losses(1.0), losses(1.0)) == 0.5
    # A run without a loss loses to all that have one.
    assert pairs_won(losses(1, inf), losses(2, inf)) == pytest.approx((2 + 0.5) / 4)


def test_resampled_shares_are_those_of_the_resampled_runs():
    rng = default_rng(0)
    ours, theirs = rng.integers(6, size=9).astype(float), rng.integers(6, size=5).astype(float)
    one, other = draws("one", 9), draws("other", 5)
    shares = sampled_pairs_won(ours, theirs, one, other)
    assert shares.shape == (RESAMPLES,)
    for sample in range(0, RESAMPLES, 97):
        a, b = ours[one[sample]][:, None], theirs[other[sample]][None]
        assert shares[sample] == pytest.approx(((a < b) + 0.5 * (a == b)).mean())


def test_an_interval_is_that_of_the_samples():
    share = Share.of(0.6, np.linspace(0.0, 1.0, 1001))
    assert (share.low, share.high) == pytest.approx((0.025, 0.975))
    assert share.chance == pytest.approx(0.5)
    assert not share.surely
    assert Share.of(0.9, np.array([0.5] * 5 + [0.9] * 95)).chance == pytest.approx(0.975)
    assert Share.of(0.9, np.array([0.5] * 5 + [0.9] * 95)).surely


def test_the_intervals_width_is_that_of_theory():
    rng = default_rng(1)
    n = 200
    ours, theirs = rng.random(n), rng.random(n)
    samples = sampled_pairs_won(ours, theirs, draws("a", n), draws("b", n))
    # The Mann-Whitney statistic's standard deviation where both sides are alike.
    assert samples.std() == pytest.approx(np.sqrt((2 * n + 1) / (12 * n * n)), rel=0.1)


def test_ranks_begin_at_one_and_equal_ones_share():
    ranks = mean_ranks(np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 5.0], [2.0, 2.0, 2.0], [inf, 0, inf]]))
    assert ranks.tolist() == [[3, 1, 2], [1.5, 1.5, 3], [2, 2, 2], [2.5, 1, 2.5]]


def test_a_p_is_that_of_the_books():
    # U = 0 of 8 x 8: mean 32, variance 8 * 8 * 17 / 12; z = 31.5 / 9.5219 = 3.3082.
    assert mann_whitney(losses(*range(8)), losses(*range(8, 16))) == pytest.approx(
        9.39e-4, rel=1e-2
    )
    assert mann_whitney(losses(1, 1), losses(1, 1)) == 1.0
    assert mann_whitney(losses(1, 2, 3), losses(1, 2, 3)) == 1.0
    stats = pytest.importorskip("scipy.stats")
    rng = default_rng(2)
    for n, m in ((8, 8), (40, 10), (15, 30)):
        ours, theirs = (
            rng.integers(low, high, size).astype(np.float64)
            for low, high, size in ((0, 20, n), (3, 25, m))
        )
        known = stats.mannwhitneyu(ours, theirs, method="asymptotic").pvalue
        assert mann_whitney(ours, theirs) == pytest.approx(known)


def test_holm_multiplies_by_the_tests_that_are_left():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def by_seed(values, first=0):
    return dict(enumerate(np.asarray(values, dtype=float).tolist(), first))


def test_medians_and_quartiles_are_none_beside_a_run_without_a_loss():
    assert (median(losses(1, 2, inf)), median(losses(1, 2, 3, inf))) == (2.0, 2.5)
    # Half of the runs or more: also in the ranks.
    assert median(losses(1, 2, inf, inf)) == inf
    assert quartiles(losses(1, 2, inf)) == (1.5, inf)
    assert quartiles(losses(1, 2, 3, 4, inf)) == (2.0, 4.0)
    assert quartiles(losses(inf, inf)) == (inf, inf)
    some = default_rng(5).random(40)
    assert quartiles(some) == pytest.approx(tuple(np.quantile(some, [0.25, 0.75])))


def test_of_a_few_runs_no_p_is_given_and_none_is_corrected_for():
    rows = {
        "ours": by_seed(range(8)),
        "worse": by_seed(range(8, 16)),
        "few": by_seed(range(8, 15)),
    }
    found = compare({"p": rows}, "ours")
    assert found.p == {("p", "worse"): mann_whitney(losses(*range(8)), losses(*range(8, 16)))}
    assert set(found.pairs) == {("p", "worse"), ("p", "few")}


def scores(shift=0.0):
    rng = default_rng(3)
    return {
        problem: {
            "ours": by_seed(rng.random(20)),
            "worse": by_seed(2.0 + rng.random(20)),
            "like": by_seed(shift + rng.random(12)),
        }
        for problem in ("one", "two")
    }


def test_one_that_always_wins_surely_is_better():
    found = compare(scores(), "ours")
    assert found.pairs["one", "worse"] == Share(1.0, 1.0, 1.0, 1.0)
    assert found.over_all["worse"].surely
    assert found.ranks_lower["worse"] == 1.0
    assert found.ranks["worse"] == 3.0
    assert sum(found.ranks.values()) == pytest.approx(6.0)
    # 20 against 20 without a tie, corrected for four tests.
    assert found.p["one", "worse"] < 1e-5
    assert (
        set(found.pairs)
        == set(found.p)
        == {(p, r) for p in ("one", "two") for r in ("worse", "like")}
    )


def test_equal_ones_are_shown_as_equal():
    found = compare(scores(), "ours")
    share = found.over_all["like"]
    assert share.low < 0.5 < share.high
    assert 0.025 < share.chance < 0.975
    assert not share.surely
    assert 0.0 < found.ranks_lower["like"] < 1.0
    mean = (found.pairs["one", "like"].share + found.pairs["two", "like"].share) / 2
    assert share.share == pytest.approx(mean)


def test_the_mean_over_problems_is_surer_than_one_problem():
    found = compare(scores(shift=0.2), "ours")
    single, mean = found.pairs["one", "like"], found.over_all["like"]
    assert mean.high - mean.low < single.high - single.low


def test_other_problems_are_less_sure_than_other_seeds():
    full = scores()
    # One problem is always won, the other never; another pair of problems can be either.
    full["two"]["worse"] = by_seed([-1.0] * 20)
    found = compare(full, "ours")
    assert found.over_all["worse"] == Share(0.5, 0.5, 0.5, 0.5)
    assert (found.other_problems["worse"].low, found.other_problems["worse"].high) == (0.0, 1.0)
    assert not compare({"one": full["one"]}, "ours").other_problems


def test_what_else_is_compared_changes_no_share():
    full = scores()
    few = {name: {k: v for k, v in rows.items() if k != "worse"} for name, rows in full.items()}
    assert compare(few, "ours").over_all["like"] == compare(full, "ours").over_all["like"]


def test_an_optimizer_that_lacks_a_problem_is_named():
    given = scores()
    given["two"]["like"] = {}
    with pytest.raises(ValueError, match="problem 'two' has no run of 'like'"):
        compare(given, "ours")


def test_many_seeds_are_no_matter():
    rng = default_rng(4)
    found = compare({"p": {name: by_seed(rng.random(2000)) for name in "ab"}}, "a")
    assert found.over_all["b"].share == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("rival", ["romul:power=9.0", "truncation"])
def test_optimizers_are_resampled_together_where_their_seeds_are_the_same(rival):
    rng = default_rng(3)
    runs = rng.random(60)
    # A little better with each seed: surely so, though the seeds themselves differ much more.
    paired, other = (
        compare({"p": {"romul": by_seed(runs), rival: by_seed(runs + 0.02, first)}}, "romul").pairs[
            "p", rival
        ]
        for first in (0, 100)
    )
    assert paired.share == other.share
    assert paired.high - paired.low < 0.3 * (other.high - other.low)
    assert (paired.surely, other.surely) == (True, False)
