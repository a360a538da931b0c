"""How many more seeds, or data sets, it would take to tell two methods apart.

The answer of a power calculation is only as good as the difference and the spread that are put in, and both come from the same few runs.
So every answer is a range: for the difference as seen, and for the smallest and largest difference (in units of its spread) that a
95 % interval leaves possible. Where that interval holds zero the upper end is open: no number of runs may be enough.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from .intervals import FEWEST_SEEDS, Interval

POWER = 0.8
MOST = 100  # runs beyond which nobody would ask: the answer is then "not within 100"

LARGEST_SHIFT = (
    1_000.0  # standard errors; beyond, the distribution function of noncentral t is not finite, and nothing changes
)


@dataclass(frozen=True)
class Needed:
    """Runs of each kind in all, not in addition; None stands for more than :data:`MOST`.

    Attributes:
        now: seeds per data set, or data sets, that there are.
        as_seen: enough for the difference as it was seen.
        low, high: enough for the largest and for the smallest difference that the 95 % interval of its size leaves possible.
        over: ``seeds`` or ``data sets``.
    """

    now: int
    as_seen: int | None
    low: int | None
    high: int | None
    over: str

    def more(self) -> int | None:
        """In addition to those there are, for the difference as it was seen."""
        return None if self.as_seen is None else max(self.as_seen - self.now, 0)


def power_of(shift: float, df: float, alpha: float = 0.05) -> float:
    """Chance that Student's two-sided test says yes.

    Args:
        shift: true mean in standard errors (the noncentrality).
        df: degrees of freedom.
        alpha: level.
    """
    critical = float(stats.t.isf(alpha / 2, df))
    # Where the shift is far beyond the critical value, scipy's distribution function underflows to NaN instead of 0.
    above, below = np.nan_to_num(special.nctdtr(df, abs(shift), [critical, -critical]), nan=0.0)
    return float(1.0 - above + below)


def runs_needed(interval: Interval, alpha: float = 0.05, power: float = POWER, most: int = MOST) -> Needed | None:
    """Seeds per data set (``interval.over == "seeds"``) or data sets that would tell two methods apart with this power.

    With n instead of ``interval.runs`` values the error shrinks by the root of their ratio, and the degrees of freedom grow with n - 1.

    Args:
        interval: ``Comparison.here``, or ``Comparison.interval`` of several data sets.
        alpha: level of a single pair; divide it by the number of pairs where they are adjusted for.

    Returns:
        None where nothing can be said: no spread, fewer than two values, or an interval over rates, whose number is no choice.
    """
    n = interval.runs
    if n < 2 or interval.over == "rates" or not np.isfinite(interval.error) or interval.error == 0:
        return None
    shift = min(abs(interval.mean) / interval.error, LARGEST_SHIFT)
    low, high = shift_interval(shift, interval.df)
    per_df = interval.df / (n - 1)

    def enough(now: float) -> int | None:
        counts = range(FEWEST_SEEDS, most + 1)  # power grows with each
        found = bisect_left(
            counts, power, key=lambda count: power_of(now * np.sqrt(count / n), per_df * (count - 1), alpha)
        )
        return counts[found] if found < len(counts) else None

    return Needed(n, enough(shift), enough(high), enough(low), interval.over)


def shift_interval(shift: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of the true mean in standard errors, from the observed one (``shift >= 0``): the noncentralities at which it lies in neither
    tail of the noncentral t distribution. The low end is 0 where zero is inside."""
    tail = (1 - level) / 2

    def excess(noncentrality: float, target: float) -> float:
        return float(special.nctdtr(df, noncentrality, shift)) - target

    top = shift + 10.0
    while excess(top, tail) > 0:
        top *= 2
    high = float(optimize.brentq(excess, 0.0, top, args=(tail,))) if excess(0.0, tail) > 0 else 0.0
    low = float(optimize.brentq(excess, 0.0, top, args=(1 - tail,))) if excess(0.0, 1 - tail) > 0 else 0.0
    return low, high
