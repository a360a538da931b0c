"""Are two methods equal for practical purposes? Bayesian comparison with a region of practical equivalence, in points of the measure.

"Cannot be told apart" says that a difference was not shown, not that there is none. With a region of +-``points`` that nobody would care
about (Benavoli, Corani, Demsar and Zaffalon 2017, JMLR 18), three answers are possible: equal within the region, better or worse by more
than that, or open. Two posteriors:

- of the mean difference, on these blocks and over data sets: Student's, from the same error and degrees of freedom as the intervals. This
  is the correlated t-test with the correlation between rates taken care of by averaging over them: the seed is what is independent.
- over six data sets and more: the Bayesian signed-rank test (Benavoli, Mangili, Corani, Zaffalon and Ruggeri 2014, ICML), a Dirichlet
  process with half an observation of no difference before the data. With fewer, equal signs alone make it certain far too often: in 25 %
  of cases of equal methods on three data sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .intervals import Floats, Interval
from .resampling import generator
from .significance import Comparison, Scores

UNSURE = 0.05  # what a verdict leaves open; a direction can be wrong on either side, half of this each
PRIOR = 0.5  # observations of no difference that the Dirichlet process starts from
FEWEST_DATA_SETS = 6
Verdict = Literal["equal", "first", "second", "open"]


@dataclass(frozen=True)
class Posterior:
    """Probabilities, summing to one: the first lower by more than the region, within it, higher by more than it."""

    lower: float
    equal: float
    higher: float

    def verdict(self, higher_is_better: bool = True, family: int = 1) -> Verdict:
        """``equal`` where that has a probability of 95 %; which of the two is better by more than the region where that has 97.5 % (one of
        two sides); else ``open``.

        With ``family`` pairs in question, what is left to 100 % is divided by their number, so that "better" is never said of a pair
        that cannot be told apart.
        """
        if 1 - self.equal <= UNSURE / family:
            return "equal"
        if 1 - max(self.lower, self.higher) > UNSURE / 2 / family:
            return "open"
        return "first" if (self.higher > self.lower) == higher_is_better else "second"


@dataclass(frozen=True)
class Equivalence:
    """One pair: ``here`` on these blocks for other seeds; ``beyond`` over data sets (three and more), ``signed_rank`` over six and
    more."""

    first: str
    second: str
    points: float
    here: Posterior | None
    beyond: Posterior | None
    signed_rank: Posterior | None
    family: int = 1


def equivalence(table: Scores, pair: Comparison, points: float, draws: int = 20_000) -> Equivalence:
    """Compare two methods with a region of practical equivalence of +-``points``, in the unit of the measure (percent points for recalls
    and MAP, sums of them for rSum).

    Raises:
        ValueError: a region that is not positive and finite.
    """
    if not 0 < points < np.inf:
        raise ValueError(f"a region of practical equivalence of +-{points:g} points is none; give a positive number")
    means = [float(np.nanmean(values, axis=1).mean()) for values in table.differences(pair.first, pair.second)]
    ranked = None
    if len(means) >= FEWEST_DATA_SETS:
        purpose = f"signed-rank posterior of {pair.first} and {pair.second} in {table.measure}"
        ranked = signed_rank_posterior(means, points, generator(purpose), draws)
    further = student_posterior(pair.interval, points) if pair.interval.over == "data sets" else None
    return Equivalence(
        pair.first, pair.second, points, student_posterior(pair.here, points), further, ranked, pair.family
    )


def student_posterior(interval: Interval, points: float) -> Posterior | None:
    """Of the true mean under a flat prior; None without a standard error or with fewer than three independent values."""
    if not np.isfinite(interval.error) or not interval.enough():
        return None
    if interval.error == 0:
        lower, upper = float(interval.mean < -points), float(interval.mean <= points)
    else:
        lower, upper = (
            float(stats.t.cdf((end - interval.mean) / interval.error, interval.df)) for end in (-points, points)
        )
    return Posterior(lower, upper - lower, 1.0 - upper)


def signed_rank_posterior(
    differences: ArrayLike, points: float, rng: np.random.Generator, draws: int = 20_000
) -> Posterior:
    """Chance that most of the averages of two data sets (Walsh averages) lie below, within or above the region.

    Args:
        differences: one per data set.
        points: half width of the region.
        rng: see :func:`.resampling.generator`.
        draws: from the Dirichlet posterior of the data sets' weights.
    """
    values = np.concatenate([[0.0], np.asarray(differences, dtype=float)])
    averages = (values[:, None] + values[None, :]) / 2
    weights = rng.dirichlet(np.r_[PRIOR, np.ones(len(values) - 1)], draws)

    def mass(inside: Floats) -> Floats:
        return np.asarray(np.einsum("ni,ij,nj->n", weights, inside, weights, optimize=True))

    lower, higher = mass(_above(-averages, points)), mass(_above(averages, points))
    largest = np.argmax(np.stack([1.0 - lower - higher, lower, higher]), axis=0)
    equal, below, above = (float(np.mean(largest == k)) for k in range(3))
    return Posterior(below, equal, above)


def _above(values: Floats, threshold: float) -> Floats:
    """1 above, 0 below, a half on the line."""
    return (values > threshold) + 0.5 * (values == threshold)
