"""Practical equivalence: against baycomp, plain loops over Dirichlet draws, and closed forms by hand."""

from __future__ import annotations

from pathlib import Path

import baycomp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.analysis.equivalence import Posterior, equivalence, signed_rank_posterior, student_posterior
from nocobench.analysis.intervals import Interval, over_seeds
from nocobench.analysis.resampling import generator
from nocobench.analysis.significance import compare_all, scores
from sample_frames import frame_of, grid
from scipy import stats

DIFFERENCES = [1.2, -0.3, 2.0, 0.8, 1.9, 0.1, -0.9, 1.4]


def shares(found: Posterior | None) -> tuple[float, float, float]:
    assert found is not None
    return found.lower, found.equal, found.higher


# --- Student's posterior


@pytest.mark.parametrize("points", [0.25, 1.0, 3.0])
def test_student_against_the_correlated_t_test_of_baycomp(points: float) -> None:
    """Its variance of the mean is s^2 (1/n + 1/(n - 1)): Nadeau and Bengio's for folds. With that error, ours are its probabilities."""
    values = np.array(DIFFERENCES)
    n = len(values)
    error = float(np.sqrt(values.var(ddof=1) * (1 / n + 1 / (n - 1))))
    found = student_posterior(Interval(values.mean(), np.nan, np.nan, runs=n, error=error, df=n - 1), points)
    expected = baycomp.CorrelatedTTest.probs(np.zeros(n), values, rope=points)
    assert shares(found) == pytest.approx(expected, abs=1e-9)


def test_student_by_hand() -> None:
    """Two degrees of freedom: F(t) = 1/2 + t / (2 sqrt(2 + t^2)). Mean 1, error 1, region 1: from -2 to 0 errors."""
    found = student_posterior(Interval(1.0, np.nan, np.nan, runs=3, error=1.0, df=2), 1.0)
    below = 0.5 - 2 / (2 * np.sqrt(6))
    assert shares(found) == pytest.approx((below, 0.5 - below, 0.5))


def test_student_of_a_seed_table_is_the_shifted_t_distribution() -> None:
    values = np.random.default_rng(0).normal(1.0, 1.0, (4, 5))
    interval = over_seeds([values]).interval(5, "seeds")
    means = values.mean(axis=0)
    posterior = stats.t(4, means.mean(), means.std(ddof=1) / np.sqrt(5))
    assert shares(student_posterior(interval, 0.5)) == pytest.approx(
        (posterior.cdf(-0.5), posterior.cdf(0.5) - posterior.cdf(-0.5), posterior.sf(0.5))
    )


def test_student_at_its_limits() -> None:
    certain = Interval(2.0, 2.0, 2.0, runs=5, error=0.0, df=4)
    assert shares(student_posterior(certain, 1.0)) == (0.0, 0.0, 1.0)
    assert shares(student_posterior(certain, 2.0)) == (0.0, 1.0, 0.0)
    assert student_posterior(Interval(2.0, np.nan, np.nan, runs=5), 1.0) is None
    assert student_posterior(Interval(2.0, 1.0, 3.0, runs=2, error=0.1, df=1), 1.0) is None


# --- signed ranks


@pytest.mark.parametrize("points", [0.5, 1.0])
@pytest.mark.parametrize("n", [3, 8])
def test_signed_ranks_against_baycomp(points: float, n: int) -> None:
    """Shares of 20,000 draws on either side: four standard errors of their difference, 0.02."""
    values = np.array(DIFFERENCES[:n])
    drawn = baycomp.SignedRankTest.sample(np.zeros(n), values, points, nsamples=20_000, random_state=1)
    expected = [float(np.mean(drawn.argmax(axis=1) == k)) for k in range(3)]
    assert shares(signed_rank_posterior(values, points, generator("x"))) == pytest.approx(expected, abs=0.02)


def test_signed_ranks_by_a_plain_loop() -> None:
    """Weights of a Dirichlet by normalised gammas; each pair of observations, the one of no difference among them, by its average."""
    rng, values, most = np.random.default_rng(3), [0.0, *DIFFERENCES[:4]], [0, 0, 0]
    for _ in range(3_000):
        gammas = [rng.gamma(0.5), *(rng.gamma(1.0) for _ in values[1:])]
        mass = [0.0, 0.0, 0.0]
        for a, weight_a in zip(values, gammas, strict=True):
            for b, weight_b in zip(values, gammas, strict=True):
                average = (a + b) / 2
                mass[0 if average < -0.65 else 2 if average > 0.65 else 1] += weight_a * weight_b
        most[mass.index(max(mass))] += 1
    expected = np.array(most) / 3_000
    assert shares(signed_rank_posterior(values[1:], 0.65, generator("x"))) == pytest.approx(expected, abs=0.04)


def test_signed_ranks_by_hand() -> None:
    """One data set at 10, region 1: all averages but that of no difference with itself lie above: above has the most if w0 < sqrt(1/2).
    w0 is Beta(1/2, 1): its distribution function is the square root. 20,000 draws: standard error 0.0026, four of them."""
    found = signed_rank_posterior([10.0], 1.0, generator("x"))
    assert shares(found) == pytest.approx((0.0, 1 - 0.5**0.25, 0.5**0.25), abs=0.011)


def test_signed_ranks_mirror() -> None:
    there = signed_rank_posterior(DIFFERENCES, 0.4, generator("x"))
    back = signed_rank_posterior([-value for value in DIFFERENCES], 0.4, generator("x"))
    assert shares(there) == pytest.approx(shares(back)[::-1])


def test_signed_ranks_over_three_data_sets_would_be_certain_far_too_often() -> None:
    """Equal signs have a chance of 1/4 under equality and are enough; hence six data sets. 300 simulations: standard error 2.5 %."""
    rng = np.random.default_rng(1)
    verdicts = [signed_rank_posterior(rng.normal(size=3), 1e-9, rng, 500).verdict() for _ in range(300)]
    assert 1 - verdicts.count("open") / 300 == pytest.approx(0.25, abs=0.075)


# --- verdicts


def test_verdicts_by_hand() -> None:
    assert Posterior(0.0, 0.96, 0.04).verdict() == "equal"
    assert Posterior(0.0, 0.94, 0.06).verdict() == "open"
    assert Posterior(0.0, 0.04, 0.96).verdict() == "open"  # 2.5 % on each side
    assert Posterior(0.0, 0.02, 0.98).verdict() == "first"
    assert Posterior(0.0, 0.02, 0.98).verdict(higher_is_better=False) == "second"
    assert Posterior(0.98, 0.02, 0.0).verdict() == "second"
    assert Posterior(0.0, 0.02, 0.98).verdict(family=10) == "open"
    assert Posterior(0.0, 0.96, 0.04).verdict(family=10) == "open"


@settings(max_examples=100, deadline=None)
@given(
    st.floats(-30, 30), st.floats(0.01, 5), st.sampled_from([2.0, 4.0, 20.0]), st.floats(0.01, 3), st.integers(1, 40)
)
def test_better_is_never_said_of_a_pair_that_cannot_be_told_apart(
    mean: float, error: float, df: float, points: float, family: int
) -> None:
    """Bonferroni's bound here is the first step of Holm's there."""
    interval = Interval(mean, np.nan, np.nan, runs=5, error=error, df=df)
    found = student_posterior(interval, points)
    assert found is not None
    if found.verdict(family=family) in ("first", "second"):
        assert interval.p() * family < 0.05
    assert sum(shares(found)) == pytest.approx(1.0)


@pytest.mark.parametrize("seeds", [3, 5])
def test_methods_at_the_edge_of_the_region_are_called_equal_in_five_percent(seeds: int) -> None:
    """The true difference is the half width of the region: equal in at most 5 %, better in at most 2.5 % of 4,000 simulations
    (standard errors 0.35 % and 0.25 %, three of them)."""
    rng = np.random.default_rng(seeds)
    verdicts = []
    for _ in range(4_000):
        interval = over_seeds([rng.normal(3.0, 1.0, (1, seeds))]).interval(seeds, "seeds")
        found = student_posterior(interval, 3.0)
        assert found is not None
        verdicts.append(found.verdict())
    assert verdicts.count("equal") / 4_000 < 0.05 + 0.0105
    assert verdicts.count("first") / 4_000 == pytest.approx(0.025, abs=0.0075)
    assert verdicts.count("second") == 0


def test_equivalence_of_records(tmp_path: Path) -> None:
    """Six data sets give all three posteriors, three give two, one gives one."""
    rng, records = np.random.default_rng(0), []
    for k, dataset in enumerate(("digits", "emoji", "cub", "coco", "flickr", "cc")):
        base = 100 + 10 * k
        records += grid(
            {("a", 0.4): base + rng.normal(0, 1, 5), ("b", 0.4): base + rng.normal(0, 1, 5)}, dataset=dataset
        )
    frame = frame_of(tmp_path, records)
    for count, there in ((6, (True, True, True)), (3, (True, True, False)), (1, (True, False, False))):
        table = scores(frame[frame["dataset"].isin(["digits", "emoji", "cub", "coco", "flickr", "cc"][:count])])
        (one,) = compare_all(table)
        found = equivalence(table, one, 4.0)
        assert (found.here is not None, found.beyond is not None, found.signed_rank is not None) == there
        assert found.here is not None
        assert found.here.verdict() == "equal"
    with pytest.raises(ValueError, match="give a positive number"):
        equivalence(table, one, 0.0)
