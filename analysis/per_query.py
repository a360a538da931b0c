"""Paired tests over the queries of one block, from the sidecars: much more power than seeds, and another question.

A test over queries asks whether *these trained models* differ on further queries of this kind; a test over blocks asks whether the
*methods* differ on further data sets and rates. The first can be certain where the second is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from ..results.sidecar import SidecarError, read_sidecar, sidecar_path
from .resampling import generator, sign_flip_test
from .significance import BLOCK, Scores

Direction = Literal["i2t", "t2i"]
DIRECTIONS: tuple[Direction, ...] = ("i2t", "t2i")
# The names of the sidecar's arrays, and those under which the metrics hand them over.
_NAMES = {
    "better": ("{way}_better", "first_hit_rank_{way}"),
    "tied": ("{way}_tied", "tied_{way}"),
    "own_tied": ("{way}_own_tied", "own_tied_{way}"),
}

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FirstHits:
    """Per query ``[n]``: wrong items above the best own item, wrong items tied with it, own items tied at the best (>= 1)."""

    better: Counts
    tied: Counts
    own_tied: Counts

    def expected_hit(self, k: int) -> Floats:
        """Chance that an own item is among the first ``k`` when ties are broken at random.

        With g better, t tied and o own tied items it is ``1 - C(t, k-g) / C(t+o, k-g)`` for k > g, else 0.
        """
        left = np.maximum(k - self.better, 0)
        # Products of ratios instead of two binomials: those overflow for many ties.
        drawn = np.minimum(left, self.tied + self.own_tied)
        log_miss = _log_choose(self.tied, drawn) - _log_choose(self.tied + self.own_tied, drawn)
        miss = np.where(drawn > self.tied, 0.0, np.exp(log_miss))
        return np.where(left > 0, np.clip(1.0 - miss, 0.0, 1.0), 0.0)

    def certain_hit(self) -> NDArray[np.bool_]:
        """First without any tie: what counts as a hit at 1 where a test needs yes or no."""
        return (self.better == 0) & (self.tied == 0)

    def reciprocal_rank(self) -> Floats:
        """1 / expected 1-based rank of the first own item."""
        return np.asarray(1.0 / (1.0 + self.better + self.tied / (self.own_tied + 1.0)), dtype=np.float64)


def first_hits(arrays: Mapping[str, ArrayLike], way: Direction) -> FirstHits | None:
    """From a sidecar; None where it holds no ranks.

    Raises:
        ValueError: arrays of different lengths.
    """
    found = {}
    for field, names in _NAMES.items():
        present = [name.format(way=way) for name in names if name.format(way=way) in arrays]
        if not present:
            return None
        found[field] = np.asarray(arrays[present[0]]).astype(np.int64)
    if len({array.shape for array in found.values()}) > 1:
        raise ValueError(f"per-query arrays of {way} differ in length; run the cell again")
    return FirstHits(**found)


@dataclass(frozen=True)
class McNemar:
    """``only_a`` queries that only the first model hits, ``only_b`` only the second; exact two-sided p."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a_hits: ArrayLike, b_hits: ArrayLike) -> McNemar:
    """Exact McNemar test: queries on which two models disagree are a fair coin under equality.

    Raises:
        ValueError: different numbers of queries.
    """
    a, b = np.asarray(a_hits, dtype=bool), np.asarray(b_hits, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} queries cannot be paired; compare records of the same test split only")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_a, only_b, float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue))


@dataclass(frozen=True)
class QueryTests:
    """Two methods on the queries of one block and direction; ``difference`` of the mean ``measure``, first minus second.

    ``mcnemar`` is empty where a query has no single hit to look at (average precision).
    """

    block: tuple[str, ...]
    way: Direction
    queries: int
    difference: float
    p: float
    mcnemar: tuple[McNemar, ...]
    measure: str = "reciprocal first-hit rank"


def query_tests(
    table: Scores, first: str, second: str, block: tuple[str, ...], way: Direction, unreadable: list[str]
) -> QueryTests | None:
    """Tests over the queries of one block and direction; None without per-query arrays of both methods under a common seed.

    Why a sidecar could not be used is added to ``unreadable``.
    """
    paths = pd.DataFrame(table.paths.xs(block, level=BLOCK)[[first, second]])
    both = paths[(paths[first] != "") & (paths[second] != "")]
    hits = [[_read(path, way, unreadable) for path in row] for row in both.itertuples(index=False)]
    pairs = [(a, b) for a, b in hits if a is not None and b is not None]
    if not pairs:
        return _precision_tests(both, block, way, (first, second), unreadable)
    tests = tuple(mcnemar(a.certain_hit(), b.certain_hit()) for a, b in pairs)
    difference = np.mean([a.reciprocal_rank() - b.reciprocal_rank() for a, b in pairs], axis=0)
    p = sign_flip_test(difference, generator(f"queries of {block} {way}, {first} against {second}"))
    return QueryTests(block, way, len(difference), float(difference.mean()), p, tests)


def _precision_tests(
    paths: pd.DataFrame, block: tuple[str, ...], way: Direction, names: tuple[str, str], unreadable: list[str]
) -> QueryTests | None:
    """The same on average precision (label-based retrieval), over the queries that have a relevant item."""
    found = [[_precisions(path, way, unreadable) for path in row] for row in paths.itertuples(index=False)]
    pairs = [(a, b) for a, b in found if a is not None and b is not None and a.shape == b.shape]
    if not pairs:
        return None
    difference = np.mean([a - b for a, b in pairs], axis=0)
    difference = difference[np.isfinite(difference)]
    p = sign_flip_test(difference, generator(f"queries of {block} {way}, {names[0]} against {names[1]}"))
    return QueryTests(block, way, len(difference), float(difference.mean()), p, (), "average precision")


def _precisions(path: str, way: Direction, unreadable: list[str]) -> Floats | None:
    try:
        found = read_sidecar(sidecar_path(Path(path))).get(f"{way}_average_precision")
    except SidecarError as error:
        unreadable.append(str(error))
        return None
    return None if found is None else found.astype(np.float64)


def _read(path: str, way: Direction, unreadable: list[str]) -> FirstHits | None:
    try:
        return first_hits(read_sidecar(sidecar_path(Path(path))), way)
    except (SidecarError, ValueError) as error:
        unreadable.append(str(error))
        return None


def _log_choose(n: Counts, k: Counts) -> Floats:
    with np.errstate(invalid="ignore"):
        value = special.gammaln(n + 1.0) - special.gammaln(k + 1.0) - special.gammaln(np.maximum(n - k, 0) + 1.0)
    return np.asarray(value, dtype=np.float64)
