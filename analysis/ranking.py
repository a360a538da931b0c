"""Which rank a method may have, and which methods stand together, from what was told apart.

A rank interval counts: a method cannot rank better than those shown to be better than it, nor worse than those shown to be worse
(Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for ranks"). With p adjusted by Holm over all pairs, the intervals of *all* methods
hold together in 95 % of cases. Ranks of bootstrap resamples do not: they take the order of equal methods for real, because
resamples scatter about it (docs/statistics.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .resampling import Floats, generator
from .significance import Comparison, Scores

Apart = Callable[[Comparison], bool]


@dataclass(frozen=True)
class RankInterval:
    """Best and worst rank that the comparisons allow, 1 is best."""

    low: int
    high: int

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def rank_intervals(
    methods: Sequence[str], pairs: Sequence[Comparison], apart: Apart, higher_is_better: bool = True
) -> dict[str, RankInterval]:
    """Of every method among all.

    Args:
        methods: ``method@variant``.
        pairs: from :func:`.significance.compare_all`; a pair that is missing, for want of common runs, counts as not told apart.
        apart: ``Comparison.told_apart`` or ``Comparison.told_apart_here``.
        higher_is_better: direction of the measure.
    """
    better, worse = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0)
    for winner, loser in told_apart(pairs, apart, higher_is_better):
        better[loser] += 1
        worse[winner] += 1
    return {name: RankInterval(1 + better[name], len(methods) - worse[name]) for name in methods}


def told_apart(pairs: Sequence[Comparison], apart: Apart, higher_is_better: bool = True) -> list[tuple[str, str]]:
    """(better, worse) of each pair that is told apart, in the order of ``pairs``."""
    return [
        (pair.first, pair.second) if (pair.interval.mean > 0) == higher_is_better else (pair.second, pair.first)
        for pair in pairs
        if apart(pair)
    ]


def tie_groups(methods: Sequence[str], pairs: Sequence[Comparison], apart: Apart) -> list[tuple[str, ...]]:
    """All largest groups in which no two methods are told apart, a method that is told apart from all others being its own group.

    Two methods are told apart exactly if no group holds both. A method may be in several groups: not being told apart does not carry
    over from A and B, B and C to A and C.

    Args:
        methods: in the order of the tables, best first; groups and their members come in this order.
        pairs, apart: as for :func:`rank_intervals`.
    """
    place = {name: k for k, name in enumerate(methods)}
    together = {name: set(methods) - {name} for name in methods}
    for a, b in told_apart(pairs, apart):
        together[a].discard(b)
        together[b].discard(a)
    found = [tuple(sorted(group, key=place.__getitem__)) for group in _cliques(set(), set(methods), set(), together)]
    return sorted(found, key=lambda group: [place[name] for name in group])


def _cliques(
    chosen: set[str], open_: set[str], closed: set[str], together: dict[str, set[str]]
) -> Iterator[frozenset[str]]:
    """Bron and Kerbosch's algorithm with a pivot."""
    if not open_ and not closed:
        yield frozenset(chosen)
        return
    pivot = max(sorted(open_ | closed), key=lambda name: len(open_ & together[name]))
    for name in sorted(open_ - together[pivot]):
        yield from _cliques(chosen | {name}, open_ & together[name], closed & together[name], together)
        open_, closed = open_ - {name}, closed | {name}


def bootstrap_ranks(table: Scores, resamples: int = 2_000) -> pd.DataFrame:
    """Ranks of the means in resamples of data sets, then rates, then seeds: what moves when the data are drawn again.

    To look at, not to decide by; statements rest on :func:`rank_intervals`. Every method is resampled with the same draws, over the runs
    that all methods have.

    Returns:
        One row per method: ``low`` and ``high`` (2.5 and 97.5 % of its ranks) and ``first``, the share of resamples in which it is best;
        empty where there is no run that all methods have.
    """
    data_sets = [_filled(values) for values in table.part(table.methods)]
    if not data_sets:
        return pd.DataFrame(columns=["low", "high", "first"])
    means = joint_means(data_sets, generator(f"ranks in {table.measure}"), resamples)
    ranks = pd.DataFrame(means).round(9).rank(axis=1, ascending=not table.higher_is_better).to_numpy()
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0)
    best = (ranks == ranks.min(axis=1, keepdims=True)) / (ranks == ranks.min(axis=1, keepdims=True)).sum(axis=1, keepdims=True)  # fmt: skip
    return pd.DataFrame({"low": low, "high": high, "first": best.mean(axis=0)}, index=table.methods)


def joint_means(data_sets: Sequence[Floats], rng: np.random.Generator, resamples: int) -> Floats:
    """``[resamples, methods]``: mean over drawn blocks of ``[blocks, seeds, methods]``, the draws being the same for all methods."""
    total, count = np.zeros((resamples, data_sets[0].shape[2])), np.zeros(resamples)
    for _ in data_sets:
        choice = rng.integers(0, len(data_sets), resamples)
        for position, values in enumerate(data_sets):
            drawn = np.flatnonzero(choice == position)
            rates = rng.integers(0, values.shape[0], (len(drawn), values.shape[0]))
            seeds = rng.integers(0, values.shape[1], (len(drawn), values.shape[1]))
            picked = values[rates[:, :, None], seeds[:, None, :]]  # [drawn, blocks, seeds, methods]
            total[drawn] += picked.mean(axis=2).sum(axis=1)
            count[drawn] += values.shape[0]
    return total / count[:, None]


def _filled(values: Floats) -> Floats:
    """``[blocks, seeds, methods]``: the mean of its block where a seed is missing."""
    return np.where(np.isnan(values), np.nanmean(values, axis=1, keepdims=True), values)
