"""Everything that records say about how methods compare, in one call: :func:`summarise`; and summaries for few runs of each method."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from .equivalence import Equivalence, equivalence
from .intervals import FEWEST_SEEDS, Floats, Interval
from .power import Needed, runs_needed
from .ranking import RankInterval, bootstrap_ranks, rank_intervals, tie_groups
from .resampling import gap_share, generator, interquartile_mean, resampled_interval
from .significance import ALPHA, Comparison, Ranking, Scores, compare_all, rank, scores

NOISE_BLIND = (
    "clip@paper",
    "ce@paper",
)  # the lower end of the gap, by task; the upper one is the method flagged `oracle`
LEVELS = 101  # thresholds of a profile
RESAMPLES = 1_000


@dataclass(frozen=True)
class Standing:
    """How one method did.

    Attributes:
        name, label: ``method@variant``, and how it is printed.
        runs: finished runs.
        mean: over the blocks that all methods share, or, where there is none, over its own.
        iqm: interquartile mean over all its runs, with its interval over seeds.
        average_rank: over the blocks that all methods share; NaN where Friedman's test has too few of them.
        here, beyond: ranks that the comparisons leave possible, on these data sets and rates, and beyond them.
        gap: share of the gap between the noise-blind method and the oracle, with its interval over seeds; None where there is no such
        gap.
        oracle: whether the method is told what is clean.
    """

    name: str
    label: str
    runs: int
    mean: float
    iqm: Interval
    average_rank: float
    here: RankInterval
    beyond: RankInterval
    gap: Interval | None
    oracle: bool


@dataclass(frozen=True)
class Profile:
    """Performance profile of one method: the share of its runs that reach ``thresholds``, with an interval over seeds at each.

    A threshold is a share of the best mean of its block among the methods that are not oracles, so that blocks of different difficulty
    count alike; they go from the lowest to the highest of all runs. All arrays are ``[101]``; ``low`` and ``high`` are NaN with a single
    seed.
    """

    thresholds: Floats
    share: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Neighbours:
    """Two methods next to each other in the order of the means, and what would tell them apart where nothing did yet.

    ``seeds`` is for these blocks, ``data_sets`` beyond them; None where they are told apart already or nothing can be said. The level is
    that of one pair, divided by the number of pairs.
    """

    pair: Comparison
    seeds: Needed | None
    data_sets: Needed | None


@dataclass(frozen=True)
class Summary:
    """What :func:`summarise` found.

    Attributes:
        table: the scores it was made from, with labels, measure, conditions and gaps.
        standings: per method, in the order of the tables (best mean first).
        pairs: every two methods with common runs.
        groups_here, groups_beyond: largest groups of methods of which no two can be told apart, on these blocks and beyond them.
        neighbours: pairs of methods next to each other in the order of the means, oracles apart.
        ranking: Friedman and Nemenyi; None with fewer than three methods or two blocks that all share.
        profiles: per method; empty where the measure is not positive, or has no upper direction.
        anchors: the noise-blind method and the oracle between which gap shares are taken; None where they are not there.
        resampled_ranks: from :func:`.ranking.bootstrap_ranks`, to look at and not to decide by: ``low``, ``high`` and ``first`` per method.
        equivalences: per pair, where a region of practical equivalence was given.
    """

    table: Scores
    standings: tuple[Standing, ...]
    pairs: tuple[Comparison, ...]
    groups_here: tuple[tuple[str, ...], ...]
    groups_beyond: tuple[tuple[str, ...], ...]
    neighbours: tuple[Neighbours, ...]
    ranking: Ranking | None
    profiles: dict[str, Profile]
    anchors: tuple[str, str] | None
    resampled_ranks: pd.DataFrame
    equivalences: tuple[Equivalence, ...] = field(default=())


def summarise(
    frame: pd.DataFrame,
    methods: Sequence[str] | None = None,
    measure: str | None = None,
    points: float | None = None,
    profiles: bool = True,
) -> Summary:
    """Compare methods over the records of a frame; a pure function with the same result for the same records, in whatever order.

    Every interval is at 95 %. "Here" means: on these data sets and rates, for other seeds. "Beyond" means: for other data sets, or with one
    data set for other rates of it; with a single block it means the same as "here". Verdicts (``Comparison.told_apart``,
    ``told_apart_here``, ranks, groups) are adjusted for the number of pairs, intervals of pairs are not. With fewer than three seeds, or
    three data sets, nothing is told apart, and ``Interval.enough`` is False.

    Args:
        frame: as :func:`.frame.load_frame` gives it, of one task; narrow it with :func:`.frame.select`.
        methods: ``npc`` (all its variants) or ``npc@paper``; None compares all.
        measure: what to compare by; None = the headline of the task.
        points: half width of a region of practical equivalence, in the unit of the measure; None makes no such comparison.
        profiles: whether to make performance profiles, which take longest.

    Raises:
        AnalysisError: fewer than two methods with finished records, mixed tasks, tracks or protocols, an unknown measure or method.
        ValueError: ``points`` that are not positive.
    """
    table = scores(frame, methods, measure)
    pairs, ranking = tuple(compare_all(table)), rank(table)
    return Summary(
        table=table,
        standings=tuple(_standings(table, pairs, ranking)),
        pairs=pairs,
        groups_here=tuple(tie_groups(table.methods, pairs, Comparison.told_apart_here)),
        groups_beyond=tuple(tie_groups(table.methods, pairs, Comparison.told_apart)),
        neighbours=tuple(neighbours(table, pairs)),
        ranking=ranking,
        profiles=performance_profiles(table) if profiles else {},
        anchors=anchors(table),
        resampled_ranks=bootstrap_ranks(table),
        equivalences=() if points is None else tuple(equivalence(table, pair, points) for pair in pairs),
    )


def _standings(table: Scores, pairs: Sequence[Comparison], ranking: Ranking | None) -> list[Standing]:
    here = rank_intervals(table.methods, pairs, Comparison.told_apart_here, table.higher_is_better)
    beyond = rank_intervals(table.methods, pairs, Comparison.told_apart, table.higher_is_better)
    common, own = table.complete_blocks(), table.blocks()
    return [
        Standing(
            name=name,
            label=table.labels[name],
            runs=int(table.runs[name].notna().sum()),
            mean=float((common if len(common) else own)[name].mean()),
            iqm=iqm_interval(table, name),
            average_rank=float("nan") if ranking is None else float(ranking.ranks[name]),
            here=here[name],
            beyond=beyond[name],
            gap=gap_interval(table, name),
            oracle="oracle" in table.flags[name],
        )
        for name in table.methods
    ]


def neighbours(table: Scores, pairs: Sequence[Comparison]) -> list[Neighbours]:
    """Of the methods that are not oracles, those that follow each other in the order of their means."""
    by_names = {frozenset((pair.first, pair.second)): pair for pair in pairs}
    found, alpha = [], ALPHA / max(len(pairs), 1)
    for first, second in pairwise(table.contenders):
        pair = by_names.get(frozenset((first, second)))
        if pair is None:
            continue
        seeds = None if pair.told_apart_here() else runs_needed(pair.here, alpha)
        sets = pair.interval.over == "data sets" and not pair.told_apart()
        found.append(Neighbours(pair, seeds, runs_needed(pair.interval, alpha) if sets else None))
    return found


def iqm_interval(table: Scores, name: str) -> Interval:
    """Interquartile mean over all runs of one method, which a collapsed run does not move; uncertain through its seeds."""
    runs = _rows(table.part([name]))

    def middle(blocks: Sequence[Floats]) -> Floats:
        pooled = np.concatenate([block[:, :, 0] for block in blocks], axis=1)
        return np.asarray(stats.trim_mean(pooled, 0.25, axis=1))

    _, low, high = resampled_interval(runs, middle, generator(f"interquartile mean of {name} in {table.measure}"), RESAMPLES)  # fmt: skip
    return Interval(interquartile_mean(table.runs[name].dropna()), float(low), float(high), runs=_fewest(runs))


def anchors(table: Scores) -> tuple[str, str] | None:
    """The noise-blind method (``clip`` or ``ce``) and the oracle; None where there is not exactly one of each, or lower is better."""
    oracles = [name for name in table.methods if "oracle" in table.flags[name]]
    blind = [name for name in NOISE_BLIND if name in table.methods]
    if len(blind) != 1 or len(oracles) != 1 or not table.higher_is_better:
        return None
    return blind[0], oracles[0]


def gap_interval(table: Scores, name: str) -> Interval | None:
    """Share of the gap between the anchors that a method closes, over the runs that all three have; uncertain through their seeds.

    None without anchors, without common runs, or where the oracle does not beat the noise-blind method.
    """
    ends = anchors(table)
    if ends is None:
        return None
    columns = [name, *ends]
    part = table.part(columns)
    if not part:
        return None
    share = gap_share(*np.concatenate([np.nanmean(values, axis=1) for values in part]).T)
    if np.isnan(share):
        return None
    if name in ends:
        return Interval(share, share, share, runs=FEWEST_SEEDS, error=0.0)

    def closed(blocks: Sequence[Floats]) -> Floats:
        score, blind, oracle = sum(block.mean(axis=1) for block in blocks).T
        return np.asarray((score - blind) / (oracle - blind))

    runs = _rows(part)
    _, low, high = resampled_interval(runs, closed, generator(f"gap share of {name} in {table.measure}"), RESAMPLES)
    return Interval(share, float(low), float(high), runs=_fewest(runs))


def performance_profiles(table: Scores) -> dict[str, Profile]:
    """Of every method; empty where a score is not positive, for which no share of the best means anything."""
    if (table.runs <= 0).any(axis=None):
        return {}
    rivals = [table.methods.index(name) for name in table.contenders]
    relative = [_relative(values, rivals, table.higher_is_better) for values in table.arrays]
    lowest, highest = (
        end(float(of(values)) for values in relative) for end, of in ((min, np.nanmin), (max, np.nanmax))
    )
    thresholds = np.linspace(lowest, highest, LEVELS)
    found = {}
    for k, name in enumerate(table.methods):
        runs = _rows([values[:, :, [k]] for values in relative])
        if runs:
            found[name] = _profile(runs, thresholds, f"performance profile of {name} in {table.measure}")
    return found


def _relative(values: Floats, rivals: Sequence[int], higher_is_better: bool) -> Floats:
    """``[blocks, seeds, methods]`` as shares of the best mean of a rival in the block; NaN where no rival has a run in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        means = np.nanmean(values[:, :, rivals], axis=1)
        best = (np.nanmax if higher_is_better else np.nanmin)(means, axis=1)[:, None, None]
    return np.asarray(values / best if higher_is_better else best / values)


def _profile(runs: Sequence[Sequence[Floats]], thresholds: Floats, purpose: str) -> Profile:
    def reached(given: Sequence[Floats]) -> Floats:
        pooled = np.sort(np.concatenate([block[:, :, 0] for block in given], axis=1), axis=1)
        below = np.stack([np.searchsorted(row, thresholds - 1e-9, side="left") for row in pooled])
        return np.asarray(1.0 - below / pooled.shape[1])

    share, low, high = resampled_interval(runs, reached, generator(purpose), RESAMPLES // 2)
    return Profile(thresholds, share, np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0))


def _rows(data_sets: Sequence[Floats]) -> list[list[Floats]]:
    """Per data set, per block ``[seeds, columns]`` without holes; blocks and data sets without any run are left out."""
    found = [[block[np.isfinite(block).all(axis=1)] for block in values] for values in data_sets]
    kept = [[block for block in blocks if len(block)] for blocks in found]
    return [blocks for blocks in kept if blocks]


def _fewest(data_sets: Sequence[Sequence[Floats]]) -> int:
    return min(max(map(len, blocks)) for blocks in data_sets)
