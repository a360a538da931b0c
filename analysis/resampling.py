"""Intervals by resampling, with generators of our own: the same numbers give the same interval on every machine.

Statements on differences rest on Student's intervals (:mod:`.intervals`). Resampling serves what has no closed form (interquartile mean,
share of a gap, performance profile) through :func:`resampled_interval`, and gives the percentile interval over data sets, rates and seeds
that many papers print (:func:`hierarchical_bootstrap`).

A *block* is one (data set, noise model, rate). The seeds of a data set are shared by its rates, so a resample draws seeds once per drawn
data set, for all its rates; drawing them anew for each rate would take one unlucky seed for several independent ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .intervals import Interval, over_seeds, pooled

RESAMPLES = 10_000

Floats = NDArray[np.float64]


def generator(purpose: str) -> np.random.Generator:
    """A counter-based generator that depends on ``purpose`` and on nothing else; the global one is never touched."""
    key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def hierarchical_bootstrap(
    differences: pd.Series, rng: np.random.Generator, resamples: int = RESAMPLES, level: float = 0.95
) -> Interval:
    """Percentile interval of the mean over blocks, resampling data sets, then their rates, then their seeds.

    To be shown beside Student's interval, not to be decided by. Its quantiles are widened for few independent values (Hesterberg 2015,
    "What teachers should know about the bootstrap", section 5.3), which are the data sets, or with one data set its seeds; with
    two or three data sets the widest interval is still the range of the resamples, and leaves the truth out in 20 to 30 % and 10 to 15 %
    of cases where data sets differ more than seeds.

    Args:
        differences: paired differences of two methods, one per run; levels of its index ``dataset, noise, rate, seed``.
        rng: see :func:`generator`.
        resamples: number of resamples.
        level: nominal coverage.

    Returns:
        Blocks weigh the same, whatever their number of seeds. With one seed of one data set there is a mean and no interval (NaN).

    Raises:
        ValueError: no difference, or one that is not finite.
    """
    if differences.empty or not np.isfinite(differences.to_numpy(dtype=float)).all():
        raise ValueError(f"{len(differences)} differences, not all finite; an interval needs finite numbers")
    return _interval(_by_data_set(differences), rng, resamples, level)


def _interval(
    data_sets: Sequence[Sequence[Floats]], rng: np.random.Generator, resamples: int, level: float
) -> Interval:
    """``data_sets``: per data set, per block the differences by seed."""
    mean = float(np.mean([seeds.mean() for blocks in data_sets for seeds in blocks]))
    runs = sum(max(map(len, blocks)) for blocks in data_sets)
    if runs < 2:
        return Interval(mean, np.nan, np.nan, level, runs)
    means = _resampled_means(data_sets, rng, resamples)
    tail = expanded_tail(len(data_sets) if len(data_sets) > 1 else runs, (1 - level) / 2)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), level, runs)


def expanded_tail(n: int, tail: float) -> float:
    """The tail of the bootstrap distribution to cut so that an interval from ``n`` independent values is as wide as Student's."""
    return float(stats.norm.sf(np.sqrt(n / (n - 1)) * stats.t.isf(tail, n - 1)))


def _by_data_set(differences: pd.Series) -> list[list[Floats]]:
    """Per data set, per block: the differences in order of seed."""
    ordered = differences.sort_index()
    return [
        [block.to_numpy(dtype=float) for _, block in part.groupby(level=["noise", "rate"], sort=True)]
        for _, part in ordered.groupby(level="dataset", sort=True)
    ]


def _resampled_means(data_sets: Sequence[Sequence[Floats]], rng: np.random.Generator, resamples: int) -> Floats:
    """``[resamples]``: mean over the drawn blocks of each resample."""
    total, count = np.zeros(resamples), np.zeros(resamples)
    for _ in data_sets:
        choice = rng.integers(0, len(data_sets), resamples)
        for position, blocks in enumerate(data_sets):
            drawn = np.flatnonzero(choice == position)
            total[drawn] += _block_sums(blocks, rng, len(drawn))
            count[drawn] += len(blocks)
    return total / count


def _block_sums(blocks: Sequence[Floats], rng: np.random.Generator, n: int) -> Floats:
    """``[n]``: sum over resampled blocks of the mean over resampled seeds, the seeds being the same for all blocks.

    Blocks with fewer seeds use the first of the drawn positions, scaled to their number.
    """
    rates = rng.integers(0, len(blocks), (n, len(blocks)))
    seeds = rng.random((n, max(map(len, blocks))))
    means = np.stack(
        [block[(seeds[:, : len(block)] * len(block)).astype(np.int64)].mean(axis=1) for block in blocks], axis=1
    )
    return np.take_along_axis(means, rates, axis=1).sum(axis=1)


def resampled_interval(
    data_sets: Sequence[Sequence[Floats]],
    statistic: Callable[[Sequence[Floats]], Floats],
    rng: np.random.Generator,
    resamples: int = 2_000,
    level: float = 0.95,
) -> tuple[Floats, Floats, Floats]:
    """Interval of any statistic over the seeds, with data sets and rates as they are: Student's quantile times a bootstrap error.

    The seeds of one data set after the other are resampled, the others staying as they are; the variances are widened by n / (n - 1) and
    added, as in :func:`.intervals.over_seeds`, which this equals for a mean. Percentiles would be far too narrow with three seeds, whose
    resamples have ten different means.

    Args:
        data_sets: per data set, per block, values by seed ``[seeds, columns]``, at the same seeds for all columns of a block.
        statistic: takes one array ``[n, seeds, columns]`` per block, in the same order, and gives ``[n, ...]``.
        rng: see :func:`generator`.

    Returns:
        Statistic of the values as they are, low and high end, each ``[...]``; NaN ends where a data set has a single seed.
    """
    flat = [block[None] for blocks in data_sets for block in blocks]
    value, start, variances = statistic(flat)[0], 0, []
    for blocks in data_sets:
        most = max(map(len, blocks))
        position = rng.random((resamples, most))
        drawn = [block[(position[:, : len(block)] * len(block)).astype(np.int64)] for block in blocks]
        fixed = [np.broadcast_to(one, (resamples, *one.shape[1:])) for one in flat]
        found = statistic([*fixed[:start], *drawn, *fixed[start + len(blocks) :]])
        variances.append(found.var(axis=0) * (most / (most - 1) if most > 1 else np.nan))
        start += len(blocks)
    df = np.array([max(map(len, blocks)) - 1.0 for blocks in data_sets])
    error, freedom = pooled(np.stack(variances), np.maximum(df, 1.0))
    half = stats.t.isf((1 - level) / 2, freedom) * error
    return np.asarray(value), np.asarray(value - half), np.asarray(value + half)


def separation(a_scores: ArrayLike | pd.Series, b_scores: ArrayLike | pd.Series, level: float = 0.95) -> Interval:
    """Student's interval of the mean difference of two methods in one block, paired by seed.

    Args:
        a_scores, b_scores: one score per seed; two Series are matched by their index (the seed), others by position.
        level: nominal coverage.

    Raises:
        ValueError: scores without an index that differ in number.
    """
    difference = _paired_differences(a_scores, b_scores)
    if len(difference) == 0:
        return Interval(np.nan, np.nan, np.nan, level)
    return over_seeds([difference[None]]).interval(len(difference), "seeds", level)


def separable(a_scores: ArrayLike | pd.Series, b_scores: ArrayLike | pd.Series) -> bool:
    """Whether the seeds of one block tell two methods apart; the dagger in tables means that they do not.

    True when there are at least three common seeds and :func:`separation` excludes zero. Equal methods with normally distributed
    differences are called different in 5 % of cases, with three seeds as with five. A true difference of one standard deviation of the
    paired differences is found in 40 % of cases with five seeds, in 18 % with three. A sign or Wilcoxon test over five seeds can never
    reach p < 0.05 (smallest p 0.0625).
    """
    return separation(a_scores, b_scores).separates()


def _paired_differences(a: ArrayLike | pd.Series, b: ArrayLike | pd.Series) -> Floats:
    if isinstance(a, pd.Series) and isinstance(b, pd.Series):
        if not (a.index.is_unique and b.index.is_unique):
            raise ValueError("scores have several values for one seed; give one per seed")
        return (a - b).dropna().sort_index().to_numpy(dtype=float)
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(
            f"scores of shapes {left.shape} and {right.shape} cannot be paired by seed; give one score per seed for both"
        )
    difference = left - right
    return difference[np.isfinite(difference)]


def sign_flip_test(differences: ArrayLike, rng: np.random.Generator, resamples: int = 9_999) -> float:
    """Two-sided p of a paired randomisation test: under equality each difference could as well have the other sign.

    The statistic is the absolute mean; the observed one counts as a resample, so p is never below ``1 / (resamples + 1)``
    (Smucker, Allan and Carterette 2007 recommend this test for retrieval). Differences of zero change nothing and are left out.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if len(values) == 0:
        return 1.0
    observed = abs(values.sum())
    # A hair of slack: sums of the same numbers in another order differ in their last bits.
    threshold = observed - 1e-9 * np.abs(values).sum()
    reached = 0
    for start in range(0, resamples, 500):
        signs = rng.integers(0, 2, (min(500, resamples - start), len(values))) * 2.0 - 1.0
        reached += int((np.abs(signs @ values) >= threshold).sum())
    return (reached + 1) / (resamples + 1)


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half (a quarter trimmed at each end, rounded down): one collapsed run does not move it."""
    return float(stats.trim_mean(np.asarray(values, dtype=float), 0.25))


def gap_share(scores: ArrayLike, noise_blind: ArrayLike, oracle: ArrayLike) -> float:
    """Share of the gap between training on everything and training on the clean pairs only that a method closes.

    All three hold one mean score per block. Sums are divided, not averaged ratios, so that a block without a gap does not blow up; 0 is
    the noise-blind method, 1 the oracle, negative is worse than doing nothing. NaN where the oracle does not beat the noise-blind.
    """
    score, low, high = (np.asarray(x, dtype=float) for x in (scores, noise_blind, oracle))
    gap = float((high - low).sum())
    return float((score - low).sum()) / gap if gap > 0 else np.nan
