"""Student's intervals over seeds and beyond them: against scipy, statsmodels, plain loops and cases by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.analysis.intervals import Estimate, Interval, beyond, over_seeds, pooled
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm


def table(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.7, 1.0, shape)


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_one_block_is_the_t_test_of_scipy(seeds: int) -> None:
    values = table(seeds, 1, seeds)
    found, expected = over_seeds([values]), stats.ttest_1samp(values[0], 0.0)
    ends = expected.confidence_interval(0.95)
    interval = found.interval(seeds, "seeds")
    assert float(found.p()) == pytest.approx(expected.pvalue)
    assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high))
    assert interval.p() == pytest.approx(expected.pvalue)
    assert interval.df == seeds - 1


def test_rates_of_a_data_set_count_once_per_seed() -> None:
    """Four rates with the same numbers say no more than one of them."""
    values = table(0, 1, 5)
    assert float(over_seeds([np.repeat(values, 4, axis=0)]).p()) == pytest.approx(float(over_seeds([values]).p()))
    values = table(1, 4, 5)
    assert float(over_seeds([values]).p()) == pytest.approx(stats.ttest_1samp(values.mean(axis=0), 0.0).pvalue)


def test_error_over_two_data_sets_is_that_of_welch() -> None:
    """The mean of two sets is half of a difference, whose error and Satterthwaite's degrees of freedom scipy gives."""
    first, second = table(2, 1, 4), 3 * table(3, 1, 7)
    found = over_seeds([first, second])
    welch = stats.ttest_ind(first[0], -second[0], equal_var=False)
    assert found.mean / found.error == pytest.approx(welch.statistic)
    upper = (4 + 2) * (7 + 2)  # of Welch's second formula, by hand below
    v = np.array([first.var(ddof=1) / 4, second.var(ddof=1) / 7])
    upper = v.sum() ** 2 / (v[0] ** 2 / (3 + 2) + v[1] ** 2 / (6 + 2)) - 2
    assert found.df == pytest.approx(np.sqrt(welch.df * upper))


def test_degrees_of_freedom_by_hand() -> None:
    """Two equal parts of 2: Satterthwaite 4, Welch 4 * (2 + 2) / 2 - 2 = 6. One part alone, or one that is all: its own."""
    assert pooled(np.array([1.0, 1.0]), np.array([2.0, 2.0])) == (pytest.approx(np.sqrt(2)), pytest.approx(np.sqrt(24)))
    assert pooled(np.array([9.0]), np.array([2.0])) == (3.0, pytest.approx(2.0))
    assert pooled(np.array([9.0, 0.0]), np.array([2.0, 4.0])) == (3.0, pytest.approx(2.0))
    assert pooled(np.zeros(2), np.array([2.0, 4.0])) == (0.0, 6.0)


def test_over_data_sets_is_the_t_test_of_their_means() -> None:
    data_sets = [table(k, 5, 3 + k) for k in range(4)]
    found = beyond(data_sets)
    assert found is not None
    assert float(found.p()) == pytest.approx(stats.ttest_1samp([one.mean() for one in data_sets], 0.0).pvalue)
    assert found.df == 3


def test_data_sets_with_more_blocks_weigh_more() -> None:
    """Means 1 and 4 of two blocks and one: (2 * 1 + 4) / 3 = 2; error sqrt(2 * ((2/3)^2 * 1 + (1/3)^2 * 4)) = sqrt(16/9)."""
    found = beyond([np.ones((2, 3)), np.full((1, 3), 4.0)])
    assert found is not None
    assert (float(found.mean), float(found.error), float(found.df)) == pytest.approx((2.0, 4 / 3, 1.0))


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_rates_and_seeds_crossed_against_the_analysis_of_variance(seed: int) -> None:
    """Mean squares by statsmodels. With few differences between rates their share is zero (seed 4 to 6 have both cases)."""
    values = table(seed, 4, 5) + (seed - 4) * np.array([[0.0], [1.0], [2.0], [-1.0]])
    rows = pd.DataFrame([(r, s, values[r, s]) for r in range(4) for s in range(5)], columns=["rate", "seed", "y"])
    squares = anova_lm(ols("y ~ C(rate) + C(seed)", rows).fit())["mean_sq"]
    share = max(squares["C(rate)"] - squares["Residual"], 0.0)
    found = beyond([values])
    assert found is not None
    assert float(found.error) == pytest.approx(np.sqrt((squares["C(seed)"] + share) / 20))
    total, of_seeds, rest = (
        (squares["C(seed)"] + share) ** 2,
        squares["C(seed)"] ** 2 / 4,
        squares["Residual"] ** 2 / 12,
    )
    many = total / (of_seeds + share**2 / 3)
    few = total / (of_seeds + (squares["C(rate)"] ** 2 / 3 + rest if share else 0.0))
    assert float(found.df) == pytest.approx((few * many**3) ** 0.25)


def test_what_lies_beyond() -> None:
    assert beyond([table(0, 1, 5)]) is None  # a single block
    alone = beyond([table(0, 4, 1)])
    assert alone is not None
    assert np.isnan(alone.error)
    assert alone.interval(1, "rates").p() == 1.0


def test_missing_runs_by_a_plain_loop() -> None:
    """Each seed pulls the mean over blocks by the deviations of its runs, each divided by the number of runs in its block."""
    values = table(7, 3, 6)
    values[0, 5] = values[1, 2] = np.nan
    pulls = []
    for seed in range(6):
        pull = 0.0
        for row in values:
            if np.isfinite(row[seed]):
                pull += (row[seed] - np.nanmean(row)) / np.isfinite(row).sum() / 3
        pulls.append(pull)
    found = over_seeds([values])
    assert float(found.mean) == pytest.approx(np.mean([np.nanmean(row) for row in values]))
    assert float(found.error) == pytest.approx(np.sqrt(sum(p**2 for p in pulls) * 6 / 5))
    assert float(found.df) == 5
    values[2, 1:] = np.nan  # a block with one seed has no spread
    assert np.isnan(over_seeds([values]).error)
    assert np.isnan(over_seeds([values]).interval(6, "seeds").low)


def test_many_tables_at_once_are_the_same_as_one_after_the_other() -> None:
    data_sets = [table(8, 20, 4, 5), table(9, 20, 3, 3)]
    for estimate in (over_seeds, beyond):
        for chosen in (data_sets, data_sets[:1]):
            together = estimate(chosen)
            assert together is not None
            for k in range(20):
                alone = estimate([values[k] for values in chosen])
                assert alone is not None
                assert (together.mean[k], together.error[k], together.df[k]) == pytest.approx(
                    (float(alone.mean), float(alone.error), float(alone.df))
                )


@settings(max_examples=60, deadline=None)
@given(st.floats(-5, 5), st.floats(0, 5), st.floats(1, 30))
def test_p_and_interval_say_the_same(mean: float, error: float, df: float) -> None:
    interval = Estimate(np.array(mean), np.array(error), np.array(df)).interval(5, "seeds")
    assert interval.excludes_zero() == (interval.p() < 0.05)
    assert interval.low <= mean <= interval.high


def test_deterministic_methods_and_few_values() -> None:
    certain = over_seeds([np.full((2, 5), 3.0)]).interval(5, "seeds")
    assert (certain.low, certain.high, certain.p()) == (3.0, 3.0, 0.0)
    assert certain.separates()
    equal = over_seeds([np.zeros((2, 5))]).interval(5, "seeds")
    assert (equal.low, equal.high, equal.p(), equal.separates()) == (0.0, 0.0, 1.0, False)
    for runs, enough in ((2, False), (3, True)):
        interval = over_seeds([np.array([[99.0, 101.0, 100.0][:runs]])]).interval(runs, "seeds")
        assert interval.excludes_zero()
        assert interval.separates() is interval.enough() is enough
    assert not Interval(1.0, np.nan, np.nan, runs=9).separates()
