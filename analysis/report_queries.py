"""Pairs of methods over the queries of one place: the tests of :mod:`.per_query` for all pairs at once, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .per_query import DIRECTIONS, Direction, first_hits
from .ranks import holm
from .report_rows import number
from .resampling import generator
from .stored import StoredRun

MOST_METHODS = 10  # at one place: pairs grow with the square
RESAMPLES = 9_999
CHUNK = 500
MOST_DIFFERENT = 12  # queries named per pair and direction

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """One method on the queries of a direction: ``quality`` [seeds, n], and ``hit`` [seeds, n] where a query has a single first place."""

    quality: Floats
    hit: Flags | None
    measure: str


def queries_payload(together: Sequence[tuple[int, Sequence[StoredRun]]]) -> list[dict[str, Any]]:
    """One entry per direction of a place, with every pair of its rows; empty where fewer than two have per-query arrays.

    Args:
        together: numbers of rows that share a place, with their finished runs.
    """
    seeds = {place: {run.record.cell.seed: run for run in runs} for place, runs in together[:MOST_METHODS]}
    found = []
    for way in DIRECTIONS:
        answers = _common(seeds, way)
        if len(answers) > 1:
            found.append(_payload(answers, way))
    return found


def _common(seeds: Mapping[int, Mapping[int, StoredRun]], way: Direction) -> dict[int, dict[int, Answers]]:
    """Per row and seed, what there is; rows whose queries are others than those of most rows are left out."""
    found = {
        place: {seed: one for seed, run in runs.items() if (one := _answers(run, way)) is not None}
        for place, runs in seeds.items()
    }
    sizes = [one.quality.size for runs in found.values() for one in runs.values()]
    if not sizes:
        return {}
    usual = max(sorted(set(sizes)), key=sizes.count)
    kept = {
        place: {seed: one for seed, one in runs.items() if one.quality.size == usual} for place, runs in found.items()
    }
    return {place: runs for place, runs in kept.items() if runs}


def _answers(run: StoredRun, way: Direction) -> Answers | None:
    try:
        hits = first_hits(run.arrays, way)
    except ValueError:
        return None
    if hits is not None:
        return Answers(hits.reciprocal_rank(), hits.certain_hit(), "reciprocal rank of the first hit")
    precision = run.arrays.get(f"{way}_average_precision")
    return None if precision is None else Answers(precision.astype(float), None, "average precision")


def _payload(answers: Mapping[int, Mapping[int, Answers]], way: Direction) -> dict[str, Any]:
    pairs: list[dict[str, Any]] = []
    differences: list[Floats] = []
    for first, second in combinations(answers, 2):
        common = sorted(set(answers[first]) & set(answers[second]))
        if not common:
            continue
        a, b = (np.mean([answers[place][seed].quality for seed in common], axis=0) for place in (first, second))
        difference = np.where(np.isfinite(a - b), a - b, 0.0)
        differences.append(difference)
        tests = [mcnemar_counts(answers[first][seed].hit, answers[second][seed].hit) for seed in common]
        pairs.append(
            {
                "first": first,
                "second": second,
                "seeds": common,
                "difference": number(float(np.nanmean(a - b))),
                "better": int((difference > 0).sum()),
                "worse": int((difference < 0).sum()),
                "mcnemar": [one for one in tests if one is not None],
                "queries": [
                    [int(place), number(round(float(a[place]), 4)), number(round(float(b[place]), 4))]
                    for place in _most_different(difference)
                ],
            }
        )
    if pairs:
        purpose = f"report: queries of {way} over rows of {len(answers)} methods"
        p = sign_flip_tests(np.array(differences).T, generator(purpose))
        for pair, alone, adjusted in zip(pairs, p, holm(p), strict=True):
            pair |= {"p": number(float(alone)), "holm": number(float(adjusted))}
    some = next(iter(next(iter(answers.values())).values()))
    return {"way": way, "rows": list(answers), "queries": some.quality.size, "measure": some.measure, "pairs": pairs}


def _most_different(difference: Floats) -> list[int]:
    order = np.argsort(-np.abs(difference), kind="stable")[:MOST_DIFFERENT]
    return [int(place) for place in order if difference[place]]


def mcnemar_counts(a: Flags | None, b: Flags | None) -> list[float] | None:
    """Queries that only the first hits, that only the second hits, and the exact two-sided p; None without hits."""
    if a is None or b is None:
        return None
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    p = 1.0 if only_a + only_b == 0 else min(1.0, 2 * float(stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))
    return [only_a, only_b, number(p) or 0.0]


def sign_flip_tests(differences: Floats, rng: np.random.Generator) -> Floats:
    """:func:`.resampling.sign_flip_test` for many pairs on the same queries, with the same flips for all.

    Args:
        differences: ``[queries, pairs]``; zeros change nothing.
        rng: gives the flips.

    Returns:
        ``[pairs]`` two-sided p, never below ``1 / (resamples + 1)``; 1 where all differences are zero.
    """
    queries, pairs = differences.shape
    size = np.abs(differences).sum(axis=0)
    threshold = np.abs(differences.sum(axis=0)) - 1e-9 * size
    reached = np.zeros(pairs)
    for start in range(0, RESAMPLES, CHUNK):
        signs = rng.integers(0, 2, (min(CHUNK, RESAMPLES - start), queries)) * 2.0 - 1.0
        reached += (np.abs(signs @ differences) >= threshold).sum(axis=0)
    return np.where(size == 0, 1.0, (reached + 1) / (RESAMPLES + 1))
