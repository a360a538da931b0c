"""Intervals by resampling: against plain loops, closed forms, scipy, and by simulation of what they promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.analysis import resampling
from nocobench.analysis.resampling import (
    expanded_tail,
    gap_share,
    generator,
    hierarchical_bootstrap,
    interquartile_mean,
    separable,
    separation,
    sign_flip_test,
)
from scipy import stats
from statsmodels.stats.power import TTestPower

LEVELS = ["dataset", "noise", "rate", "seed"]


def series(data_sets: list[list[list[float]]]) -> pd.Series:
    """``data_sets[d][r][s]``: differences of data set d at rate r with seed s."""
    rows = {
        (f"d{d}", "n", f"{r / 10}", s): value
        for d, blocks in enumerate(data_sets)
        for r, block in enumerate(blocks)
        for s, value in enumerate(block)
    }
    return pd.Series(rows).rename_axis(LEVELS)


def resampled(data_sets: list[list[list[float]]], n: int = 20_000) -> np.ndarray:
    return resampling._resampled_means([[np.asarray(b) for b in blocks] for blocks in data_sets], generator("test"), n)


def slow_means(data_sets: list[list[list[float]]], n: int) -> list[float]:
    """The definition, one draw after the other: data sets, within each its rates, and one draw of seeds for all its rates."""
    rng, means = np.random.default_rng(5), []
    for _ in range(n):
        sums: list[float] = []
        for d in rng.integers(len(data_sets), size=len(data_sets)):
            blocks = data_sets[d]
            seeds = rng.integers(len(blocks[0]), size=len(blocks[0]))
            for r in rng.integers(len(blocks), size=len(blocks)):
                sums.append(float(np.mean([blocks[r][s] for s in seeds])))
        means.append(float(np.mean(sums)))
    return means


UNEVEN = [
    [[1.0, 2.0, 0.5, -1.0, 3.0], [0.0, 1.5, 2.5, -2.0, 1.0], [4.0, 5.0, 3.0, 2.0, 6.0]],
    [[-1.0, 0.0, 1.0]],
    [[2.0, 2.5, 7.0, -3.0], [0.5, 0.25, 0.125, 1.0]],
]


# --- the hierarchical bootstrap


def test_same_distribution_as_the_plain_loop() -> None:
    """Kolmogorov-Smirnov of 20,000 against 4,000 resamples: at a level of 0.001 it sees differences of the two of about 0.034."""
    assert stats.ks_2samp(resampled(UNEVEN), slow_means(UNEVEN, 4000)).pvalue > 0.001


def test_plain_loop_would_show_seeds_drawn_anew_for_each_rate() -> None:
    """The check above can fail: with the same rows but seeds shuffled within each rate, the distribution is another one."""
    shared = [[[0.0, 1.0, 2.0, 3.0, 4.0]] * 4]
    anew = [[[0.0, 1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0, 0.0]] * 2]
    assert stats.ks_2samp(resampled(shared), slow_means(anew, 4000)).pvalue < 1e-6


def test_two_seeds_by_hand() -> None:
    """Seeds with 0 and 10: both first 1/4, one each 1/2, both second 1/4. 20,000 draws have a standard error of 0.0035; four of them."""
    means = resampled([[[0.0, 10.0]]])
    for value, share in ((0.0, 0.25), (5.0, 0.5), (10.0, 0.25)):
        assert np.mean(means == value) == pytest.approx(share, abs=0.014)
    assert set(means) == {0.0, 5.0, 10.0}


def test_variances_in_closed_form() -> None:
    """Rates 0, 3, 6, 9 (population variance 11.25) plus seeds 0, 1, 5, 6 and 8 (9.2), nothing else: the mean of 4 drawn rates plus the mean
    of 5 drawn seeds has variance 11.25/4 + 9.2/5 = 4.6525. With seeds drawn anew for each rate it would be 11.25/4 + 9.2/20.
    Relative standard error of a variance from 20,000 draws: sqrt(2/20000) = 1 %; four of them."""
    rates, seeds = [0.0, 3.0, 6.0, 9.0], [0.0, 1.0, 5.0, 6.0, 8.0]
    assert np.var(rates) == 11.25
    assert np.var(seeds) == pytest.approx(9.2)
    means = resampled([[[r + s for s in seeds] for r in rates]])
    assert means.var() == pytest.approx(4.6525, rel=0.04)
    assert means.mean() == pytest.approx(4.5 + 4.0, abs=4 * np.sqrt(4.6525 / 20_000))
    # Data sets with one block each: the variance of a mean of three.
    assert resampled([[[1.0]], [[4.0]], [[10.0]]]).var() == pytest.approx(np.var([1, 4, 10]) / 3, rel=0.04)


def test_mean_weighs_blocks_alike() -> None:
    """Blocks of means 1.1, 0.6, 4.0, 0, 2.125, 0.46875, whatever their number of seeds."""
    found = hierarchical_bootstrap(series(UNEVEN), generator("x"))
    assert found.mean == pytest.approx((1.1 + 0.6 + 4.0 + 0.0 + 2.125 + 0.46875) / 6)
    assert found.low < found.mean < found.high
    assert found.runs == 5 + 3 + 4


def test_ends_are_quantiles_at_the_expanded_tail() -> None:
    """One data set counts its seeds, several count themselves."""
    for data_sets, n in (([UNEVEN[0]], 5), (UNEVEN, 3), (UNEVEN * 2, 6)):
        found = hierarchical_bootstrap(series(data_sets), generator("test"), 20_000)
        tail = expanded_tail(n, 0.025)
        expected = np.quantile(resampled(data_sets), [tail, 1 - tail])
        assert [found.low, found.high] == pytest.approx(
            list(expected), abs=1e-12
        )  # sums of other strides round otherwise


def test_expanded_tail_by_hand() -> None:
    """n = 5: t(0.025; 4) = 2.776445, times sqrt(5/4) = 3.104160, and the normal tail beyond that is 0.000954. Many runs: no widening."""
    assert stats.norm.sf(3.104160) == pytest.approx(0.000954, abs=5e-7)
    assert expanded_tail(5, 0.025) == pytest.approx(0.000954, abs=5e-7)
    assert expanded_tail(10_000, 0.025) == pytest.approx(0.025, abs=1e-4)
    assert expanded_tail(2, 0.025) < 1e-70  # the whole range of the resamples


def test_too_little_for_an_interval() -> None:
    one_seed = hierarchical_bootstrap(series([[[3.0], [5.0]]]), generator("x"))
    assert (one_seed.mean, one_seed.runs) == (4.0, 1)
    assert np.isnan([one_seed.low, one_seed.high]).all()
    assert not one_seed.excludes_zero()
    for bad in (series([[[1.0]]]).iloc[:0], series([[[1.0, np.nan]]]), series([[[1.0, np.inf]]])):
        with pytest.raises(ValueError, match="finite"):
            hierarchical_bootstrap(bad, generator("x"))


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(len(series(UNEVEN)))))
def test_rows_may_come_in_any_order(order: list[int]) -> None:
    values = series(UNEVEN)
    assert hierarchical_bootstrap(values.iloc[order], generator("x"), 500) == hierarchical_bootstrap(
        values, generator("x"), 500
    )


# --- what the intervals promise


def coverage(draw: object, n: int, plain: bool = False) -> float:
    """Share of simulations whose interval holds the true mean 0."""
    rng, hits = np.random.default_rng(11), 0
    for _ in range(n):
        data_sets = draw(rng)  # type: ignore[operator]
        means = resampling._resampled_means(data_sets, rng, 1000)
        tail = 0.025 if plain else expanded_tail(len(data_sets) if len(data_sets) > 1 else 5, 0.025)
        low, high = np.quantile(means, [tail, 1 - tail])
        hits += bool(low <= 0 <= high)
    return hits / n


def test_coverage_with_five_seeds() -> None:
    """The documented 92 % (plain: 85 %) of one block; standard errors of 1500 simulations are 0.7 % and 0.9 %, three of them allowed."""

    def one_block(rng: np.random.Generator) -> list[list[np.ndarray]]:
        return [[rng.normal(size=5)]]

    assert coverage(one_block, 1500) == pytest.approx(0.92, abs=0.021)
    assert coverage(one_block, 1500, plain=True) == pytest.approx(0.85, abs=0.028)


@pytest.mark.parametrize(("count", "documented"), [(2, 0.70), (3, 0.85), (4, 0.93)])
def test_coverage_over_data_sets(count: int, documented: float) -> None:
    """Data sets differ (1.0) more than seeds (0.3), four rates. Rounded in the text; 400 simulations: standard error at most 2.3 %."""

    def data_sets(rng: np.random.Generator) -> list[list[np.ndarray]]:
        made = []
        for _ in range(count):
            effect, seeds = rng.normal(), rng.normal(0, 0.3, 5)
            made.append([effect + seeds + rng.normal(0, 0.3, 5) for _ in range(4)])
        return made

    assert coverage(data_sets, 400) == pytest.approx(documented, abs=0.06)


@pytest.mark.parametrize(("seeds", "power"), [(3, 0.179), (5, 0.401)])
def test_false_alarms_and_power_of_separable(seeds: int, power: float) -> None:
    """Documented: equal methods called different in 5 %, a difference of one standard deviation found in 18 % and 40 % (statsmodels).
    Standard errors of 1,500 simulations: 0.6 % and 1.3 %, three of them."""
    assert TTestPower().power(1.0, seeds, 0.05) == pytest.approx(power, abs=5e-4)
    rng = np.random.default_rng(3)
    pairs = [(rng.normal(size=seeds), rng.normal(size=seeds)) for _ in range(1500)]
    assert np.mean([separable(a, b) for a, b in pairs]) == pytest.approx(0.05, abs=0.018)
    assert np.mean([separable(a - b + np.sqrt(2), 0 * a) for a, b in pairs]) == pytest.approx(power, abs=0.039)


# --- one block


def test_separable_needs_three_common_seeds() -> None:
    assert not separable([100.0, 101], [1.0, 2])
    assert separable([100.0, 101, 99], [1.0, 2, 3])
    assert not separable([1.0, 2, 3, 4, 5], [5.0, 4, 3, 2, 1])
    assert not separable([1.0] * 5, [1.0] * 5)
    assert separable([2.0] * 5, [1.0] * 5)  # a spread of zero is a deterministic method
    assert not separable([], [])
    assert np.isnan(separation([], []).mean)


def test_seeds_are_paired_by_index() -> None:
    """Paired differences are 1 throughout; paired by position they are -7, 1, 1, 1, 9."""
    a = pd.Series([2.0, 4, 6, 8, 10], index=[0, 1, 2, 3, 4])
    b = pd.Series([9.0, 3, 5, 7, 1], index=[4, 1, 2, 3, 0])
    assert separable(a, b)
    assert not separable(a.to_numpy(), b.to_numpy())
    assert separation(a, b).mean == 1.0
    assert separation(a, b.drop(2)).runs == 4
    assert separation(a, b.where(b != 5.0)).runs == 4


def test_scores_that_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="one score per seed"):
        separation([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="several values for one seed"):
        separation(pd.Series([1.0, 2.0], index=[0, 0]), pd.Series([1.0], index=[0]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=5, max_size=8), st.randoms(use_true_random=False))
def test_separation_is_antisymmetric_and_blind_to_order(values: list[float], dice: object) -> None:
    a, b = pd.Series(values), pd.Series(np.arange(len(values), dtype=float))
    there, back = separation(a, b), separation(b, a)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    order = list(range(len(values)))
    dice.shuffle(order)  # type: ignore[attr-defined]
    assert separation(a.iloc[order], b) == there


# --- randomness


def test_generators_depend_on_their_purpose_only() -> None:
    assert generator("a").random(4).tobytes() == generator("a").random(4).tobytes()
    assert generator("a").random(4).tobytes() != generator("b").random(4).tobytes()
    # No oracle, but a pin: another version of numpy must not change published intervals.
    assert generator("a").random() == 0.16441050396696144


def test_the_global_generator_is_left_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    separable(np.arange(6.0), np.zeros(6))
    hierarchical_bootstrap(series(UNEVEN), generator("x"))
    sign_flip_test([1.0, 2.0, -0.5], generator("x"))
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


# --- sign flips


def exact_sign_flip(values: list[float]) -> float:
    """All sign patterns, by enumeration."""
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=len(values))
    ]
    return float(np.mean([total >= sums[0] - 1e-9 for total in sums]))


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 1.0, 1.0],
        [3.0, -1.0, 2.0, 5.0],
        [0.5, 0.5, -0.5, 0.5, 0.5, 0.5],
        [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -1.0],
    ],
)
def test_sign_flips_against_enumeration_and_scipy(values: list[float]) -> None:
    """9,999 resamples: four standard errors of a share, and one resample more for the observed one. (1, 1, 1) by hand: 2 of 8."""
    exact = exact_sign_flip(values)
    by_scipy = stats.permutation_test(
        (np.array(values),), lambda x, axis: np.abs(np.sum(x, axis=axis)), permutation_type="samples",
        alternative="greater", n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert exact == pytest.approx(by_scipy.pvalue)
    tolerance = 4 * np.sqrt(exact * (1 - exact) / 9999) + 1e-4
    assert sign_flip_test(values, generator("flip")) == pytest.approx(exact, abs=tolerance)
    assert sign_flip_test([*values, 0.0, 0.0], generator("flip")) == sign_flip_test(values, generator("flip"))


def test_sign_flips_at_the_ends() -> None:
    assert exact_sign_flip([1.0, 1.0, 1.0]) == 0.25
    assert sign_flip_test([0.0, 0.0], generator("x")) == 1.0
    assert sign_flip_test([], generator("x")) == 1.0
    assert sign_flip_test(np.ones(100), generator("x")) == 1 / 10_000  # never 0
    assert sign_flip_test(np.tile([1.0, -1.0], 50), generator("x")) == 1.0  # a sum of 0 is reached by every pattern


# --- summaries


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 11])
def test_interquartile_mean_by_hand(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    k = n // 4
    assert interquartile_mean(values) == pytest.approx(np.mean(sorted(values)[k : n - k]))


def test_interquartile_mean_ignores_a_collapse() -> None:
    assert interquartile_mean([3, 2, 100, 0, 5, 4, 6, 1]) == 3.5  # of 2, 3, 4, 5
    assert interquartile_mean([3, 2, -9999, 4, 5]) == 3.0  # of 2, 3, 4


def test_gap_share_by_hand() -> None:
    """Blind 10 and 20, oracle 20 and 40, method 15 and 20: (5 + 0) of (10 + 20)."""
    assert gap_share([15, 20], [10, 20], [20, 40]) == pytest.approx(5 / 30)
    assert gap_share([10, 20], [10, 20], [20, 40]) == 0
    assert gap_share([20, 40], [10, 20], [20, 40]) == 1
    assert gap_share([0, 20], [10, 20], [20, 40]) < 0
    assert np.isnan(gap_share([15], [20], [20]))
    assert np.isnan(gap_share([15], [20], [10]))
