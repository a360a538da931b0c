"""Tests on ranks: exact Wilcoxon, its effect size, Holm, Friedman, Nemenyi, critical difference (Demsar 2006, JMLR 7).

Score tables have one row per block, one column per method, and no holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
# Means of the same recalls, added in another order, differ in their last bits; ranks must see them as ties.
DECIMALS = 9


@dataclass(frozen=True)
class Friedman:
    """``statistic`` is chi-square with ``methods - 1`` degrees of freedom, corrected for ties."""

    statistic: float
    p: float
    methods: int
    blocks: int


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided Wilcoxon signed-rank p; zeros are dropped (Wilcoxon's rule).

    Exact up to 50 differences, and with tied sizes up to 13; beyond that scipy's normal approximation. 1 when all are zero.
    """
    values = _nonzero(differences)
    return 1.0 if len(values) == 0 else float(stats.wilcoxon(values, method="auto").pvalue)


def smallest_wilcoxon_p(n: int) -> float:
    """What ``n`` differences of the same sign give: no two-sided exact Wilcoxon (or sign) test over ``n`` values gets below."""
    return min(1.0, 2.0 ** (1 - n))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation in [-1, 1] (Kerby 2014): share of rank sums in favour minus share against; 0 without any."""
    values = _nonzero(differences)
    if len(values) == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjustment: the family's chance of any false alarm stays below the level. Same order as given."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def average_ranks(scores: pd.DataFrame, higher_is_better: bool = True) -> pd.Series:
    """Mean rank of each method over blocks, best (smallest) first; 1 is best, ties share the mean of their ranks."""
    ranks = scores.round(DECIMALS).rank(axis=1, ascending=not higher_is_better, method="average")
    return ranks.mean().sort_values(kind="stable")


def friedman(scores: pd.DataFrame) -> Friedman:
    """Whether all methods rank alike; needs at least three methods and two blocks.

    Raises:
        ValueError: too few of either.
    """
    blocks, methods = scores.shape
    scores = scores.round(DECIMALS)
    if methods < 3 or blocks < 2:
        raise ValueError(
            f"Friedman's test got {methods} methods and {blocks} complete blocks; it needs at least 3 and 2"
        )
    if (scores.nunique(axis=1) == 1).all():  # scipy divides 0 by 0
        return Friedman(0.0, 1.0, methods, blocks)
    statistic, p = stats.friedmanchisquare(*(scores[name].to_numpy() for name in scores))
    return Friedman(float(statistic), float(p), methods, blocks)


def critical_difference(methods: int, blocks: int, alpha: float = 0.05) -> float:
    """Nemenyi: average ranks that differ by more than this differ at ``alpha``, all pairs considered.

    The quantile is the studentised range divided by sqrt(2); forgetting the division makes the difference 41 % too large.
    """
    quantile = stats.studentized_range.isf(alpha, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def nemenyi_p(ranks: pd.Series, blocks: int) -> pd.DataFrame:
    """p of every pair from their average ranks, all pairs considered; symmetric, 1 on the diagonal."""
    methods = len(ranks)
    upper = np.triu_indices(methods, 1)
    gaps = np.abs(ranks.to_numpy()[upper[0]] - ranks.to_numpy()[upper[1]])
    standard = gaps / np.sqrt(methods * (methods + 1) / (6 * blocks))
    p = np.eye(methods)
    p[upper] = np.clip(stats.studentized_range.sf(standard * np.sqrt(2), methods, np.inf), 0.0, 1.0)
    return pd.DataFrame(np.maximum(p, p.T), index=ranks.index, columns=ranks.index)


def maximal_cliques(ranks: pd.Series, difference: float) -> list[tuple[str, ...]]:
    """Groups of at least two methods whose average ranks all lie within ``difference``, none inside another, best first.

    Ranks lie on a line, so a clique is a run of neighbours.
    """
    ordered = ranks.sort_values(kind="stable")
    values, names = ordered.to_numpy(), [str(name) for name in ordered.index]
    cliques: list[tuple[str, ...]] = []
    last_end = 0
    for start in range(len(values)):
        end = int(np.searchsorted(values, values[start] + difference, side="right"))
        if end - start > 1 and end > last_end:
            cliques.append(tuple(names[start:end]))
            last_end = end
    return cliques


def share_a_clique(cliques: Sequence[Sequence[str]], a: str, b: str) -> bool:
    """Whether the critical difference leaves these two together."""
    return any(a in clique and b in clique for clique in cliques)


def _nonzero(differences: ArrayLike) -> Floats:
    values = np.round(np.asarray(differences, dtype=float), DECIMALS)
    return values[values != 0]
