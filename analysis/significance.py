"""Which methods can be told apart, in plain sentences: the words follow the numbers.

The unit of a table is the *block* (data set, noise model, rate). Statements rest on the intervals of :mod:`.intervals`, over the seeds of
these blocks and beyond them, adjusted for the number of pairs; beside them stand the tests over blocks that papers expect.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from ..results.measures import HEADLINES
from ..results.measures import measure as measure_named
from .frame import AnalysisError
from .intervals import Floats, Interval, beyond, over_seeds
from .ranks import (
    DECIMALS,
    Friedman,
    average_ranks,
    critical_difference,
    friedman,
    holm,
    maximal_cliques,
    rank_biserial,
    wilcoxon_p,
)
from .stored import unique_labels

ALPHA = 0.05
# One data set must not mix what these columns distinguish.
CONDITIONS = ("protocol", "version", "overrides", "backbone", "gallery", "selection")
LEVELS = ["dataset", "noise", "rate", "seed"]
BLOCK = ["dataset", "noise", "rate"]


@dataclass(frozen=True)
class Scores:
    """Scores of several methods.

    Attributes:
        runs: one row per (dataset, noise, rate, seed), one column per ``method@variant``, best mean first; NaN where a cell is missing.
        labels: how each method is printed; reconstructions say so.
        measure: name of the measure.
        paths: the record of each entry of ``runs``, empty where missing.
        flags: per method, from its records.
        conditions: under what the scores were made, in words.
        gaps: cells without a finished record, and why.
    """

    runs: pd.DataFrame
    labels: dict[str, str]
    measure: str
    paths: pd.DataFrame
    flags: dict[str, frozenset[str]]
    conditions: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """``method@variant``, best mean over complete blocks first."""
        return [str(name) for name in self.runs.columns]

    @property
    def higher_is_better(self) -> bool:
        """Direction of the measure."""
        return measure_named(self.measure).better == "higher"

    @property
    def contenders(self) -> list[str]:
        """Methods that are not told which pairs are clean; all of them where fewer than two are left."""
        left = [name for name in self.methods if "oracle" not in self.flags[name]]
        return left if len(left) > 1 else self.methods

    @cached_property
    def arrays(self) -> list[Floats]:
        """Per data set ``[blocks, seeds, methods]``, in the order of the index, NaN where a run is missing."""
        found = []
        for _, part in self.runs.groupby(level="dataset", sort=True):
            wide = part.unstack("seed").sort_index()
            found.append(wide.to_numpy(dtype=float).reshape(len(wide), part.shape[1], -1).swapaxes(1, 2))
        return found

    def part(self, names: Sequence[str]) -> list[Floats]:
        """Per data set ``[blocks, seeds, len(names)]``: the runs that all of these methods have, NaN for all where one lacks it.

        Data sets, blocks and seeds without any such run are left out.
        """
        columns = [self.methods.index(name) for name in names]
        found = []
        for values in self.arrays:
            chosen = values[:, :, columns]
            present = np.asarray(np.isfinite(chosen).all(axis=2))
            if present.any():
                chosen = np.where(present[:, :, None], chosen, np.nan)
                found.append(chosen[present.any(axis=1)][:, present.any(axis=0)])
        return found

    def differences(self, first: str, second: str) -> list[Floats]:
        """Per data set ``[blocks, seeds]``, first minus second, on the runs that both have; NaN where one has none."""
        return [np.round(values[:, :, 0] - values[:, :, 1], DECIMALS) for values in self.part([first, second])]

    def blocks(self) -> pd.DataFrame:
        """Means over seeds; one row per block, NaN where a method has no run in it."""
        return self.runs.groupby(level=BLOCK, sort=True).mean()

    def complete_blocks(self) -> pd.DataFrame:
        """Blocks in which every method has a run, means over the seeds that all methods have there."""
        return self.runs.dropna().groupby(level=BLOCK, sort=True).mean()


@dataclass(frozen=True)
class Comparison:
    """Two methods over their common runs; intervals and ``wins`` are of the first against the second.

    Attributes:
        here: interval over the seeds, data sets and rates being as they are.
        interval: beyond these blocks: over data sets, or with one data set over its rates; the same as ``here`` for a single block.
        p_here, p: of a mean difference of zero by these intervals, adjusted by Holm for all pairs of the report.
        effect: matched-pairs rank-biserial correlation over blocks, -1 to 1.
        wilcoxon, holm: p over blocks, alone and adjusted for all pairs of the report.
        wins: blocks in which the first is better.
        blocks, data_sets: how many the pair shares.
        seeds: fewest and most common seeds in a block.
        family: number of pairs that are adjusted for.
    """

    first: str
    second: str
    here: Interval
    interval: Interval
    p_here: float
    p: float
    wilcoxon: float
    holm: float
    effect: float
    wins: int
    blocks: int
    data_sets: int
    seeds: tuple[int, int]
    family: int = 1

    def told_apart(self) -> bool:
        """Whether the two differ beyond these blocks, with enough independent values behind it and adjusted for the number of pairs."""
        return self.interval.enough() and self.p < ALPHA

    def told_apart_here(self) -> bool:
        """Whether the two differ on these data sets and rates, for whatever seeds."""
        return self.here.enough() and self.p_here < ALPHA


@dataclass(frozen=True)
class Ranking:
    """All methods over complete blocks; ``cliques`` are those that the critical difference cannot separate."""

    ranks: pd.Series
    test: Friedman
    critical_difference: float
    cliques: list[tuple[str, ...]]


def scores(frame: pd.DataFrame, methods: Sequence[str] | None = None, measure: str | None = None) -> Scores:
    """Gather what is to be compared. In label-based retrieval the length of codes is a part of a block (of its ``rate``).

    Args:
        frame: as :func:`.frame.load_frame` gives it.
        methods: ``npc`` (all its variants) or ``npc@paper``; None takes all.
        measure: a column with a better direction; None = the headline of the task.

    Raises:
        AnalysisError: unknown measure or method, a measure without direction, fewer than two methods, mixed protocols or tracks.
    """
    measure = measure or headline_of(frame)
    try:
        better = measure_named(measure).better
    except ValueError as error:
        raise AnalysisError(str(error)) from error
    if better is None or measure not in frame:
        raise AnalysisError(
            f"measure {measure!r} {'is no column' if better else 'has no better direction'}; compare another one"
        )
    frame = frame.assign(name=frame["method"] + "@" + frame["variant"])
    done = _chosen(frame[(frame["status"] == "done") & np.isfinite(frame[measure].astype(float))].copy(), methods)
    done, left_out = _of_one_kind(done)
    _refuse_mixture(done)
    conditions, gaps = (*_conditions(done), *left_out), _gaps(frame[frame["name"].isin(done["name"])])
    done["rate"] = [_place(rate, bits) for rate, bits in zip(done["rate"].astype(float), done["bits"], strict=True)]
    runs = done.pivot(index=LEVELS, columns="name", values=measure).astype(float)
    paths = done.pivot(index=LEVELS, columns="name", values="path").fillna("")
    order = list(_overall(runs).sort_values(ascending=better == "lower", kind="stable").index)
    flags = {str(name): frozenset(f for row in part["flags"] for f in row) for name, part in done.groupby("name")}
    labels = unique_labels(zip(done["method"], done["variant"], done["label"], strict=True))
    return Scores(runs[order], labels, measure, paths[order], flags, conditions, gaps)


def headline_of(frame: pd.DataFrame) -> str:
    """The measure that tables of these records show first.

    Raises:
        AnalysisError: records of several tasks.
    """
    tasks = sorted(set(frame["task"]))
    if len(tasks) > 1:
        raise AnalysisError(
            f"records mix task {' and '.join(tasks)}; select one of them with --protocol before comparing"
        )
    return HEADLINES[tasks[0]] if tasks else "rsum"


def _place(rate: float, bits: float) -> str:
    words = "real" if np.isnan(rate) else f"{rate:.12g}"
    return words if np.isnan(bits) else f"{words}, {bits:.0f} bits"


def _of_one_kind(done: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Codes only, where some methods have codes and others real-valued embeddings: the two share no block."""
    real = done["bits"].isna() & (done["task"] == "label-hashing")
    if not real.any() or real.all():
        return done, ()
    names = ", ".join(sorted(set(done.loc[real, "name"])))
    return done[~real].copy(), (f"left out, because real-valued embeddings are not compared with codes: {names}",)


def _conditions(done: pd.DataFrame) -> tuple[str, ...]:
    """One text per protocol: what ran under it, and what the command line changed of it."""
    found = []
    for (protocol, version, overrides, track), part in done.groupby(["protocol", "version", "overrides", "track"]):
        changed = ", ".join(f"{name} = {value}" for name, value in json.loads(str(overrides) or "{}").items())
        seeds = part["seed"].nunique()
        found.append(
            f"{protocol} v{version} ({f'overridden: {changed}' if changed else 'no overrides'}; track {track}; "
            f"{seeds} seed{'' if seeds == 1 else 's'})"
        )
    return tuple(found)


def _gaps(frame: pd.DataFrame) -> tuple[str, ...]:
    """Failed cells with their reasons, then cells of the grid (blocks and seeds of their data set) without a record."""
    words = [
        f"{len(part)} {str(status).replace('_', ' ')} ({reason})" for (status, reason), part in
        frame[frame["status"] != "done"].groupby(["status", "reason"])
    ]  # fmt: skip
    methods = frame["name"].nunique()
    cells = sum(
        len(part[["noise", "rate", "bits"]].drop_duplicates()) * part["seed"].nunique() * methods
        for _, part in frame.groupby("dataset")
    )
    return (*words, *([f"{cells - len(frame)} missing"] if cells > len(frame) else []))


def _overall(runs: pd.DataFrame) -> pd.Series:
    """One mean per method over the blocks that all share, or, where there is none, over its own blocks."""
    common = runs.dropna()
    return (common if len(common) else runs).groupby(level=BLOCK).mean().mean()


def _chosen(done: pd.DataFrame, methods: Sequence[str] | None) -> pd.DataFrame:
    known = sorted(set(done["name"]))
    if methods is not None:
        unknown = [m for m in methods if m not in known and m not in set(done["method"])]
        if unknown:
            raise AnalysisError(
                f"no finished record of method {unknown[0]!r}; there are some of {', '.join(known) or 'none'}"
            )
        done = done[done["name"].isin(methods) | done["method"].isin(methods)]
    if done["name"].nunique() < 2:
        found = ", ".join(sorted(set(done["name"]))) or "none"
        raise AnalysisError(f"a comparison needs two methods with finished records, found {found}; run another method")
    return done


def _refuse_mixture(done: pd.DataFrame) -> None:
    for column in ("task", "track"):
        if done[column].nunique() > 1:
            raise AnalysisError(
                f"records mix {column} {' and '.join(sorted(set(done[column])))}; select one of them before comparing"
            )
    for dataset, part in done.groupby("dataset"):
        for column in CONDITIONS:
            if column in part and part[column].nunique(dropna=False) > 1:
                found = " and ".join(sorted({str(value) or "none" for value in part[column]}))
                raise AnalysisError(
                    f"records of data set {dataset!r} mix {column} {found}; select one of them before comparing"
                )


def compare(table: Scores, first: str, second: str) -> Comparison | None:
    """Two methods on the runs that both have; None where they have none in common. No p is adjusted yet."""
    data_sets = table.differences(first, second)
    if not data_sets:
        return None
    by_block = np.concatenate([np.nanmean(values, axis=1) for values in data_sets]).round(DECIMALS)
    seeds = np.concatenate([np.isfinite(values).sum(axis=1) for values in data_sets])
    here, interval = intervals_of(data_sets)
    better = by_block if table.higher_is_better else -by_block
    wilcoxon = wilcoxon_p(by_block)
    return Comparison(
        first=first,
        second=second,
        here=here,
        interval=interval,
        p_here=here.p(),
        p=interval.p(),
        wilcoxon=wilcoxon,
        holm=wilcoxon,
        effect=rank_biserial(better),
        wins=int((better > 0).sum()),
        blocks=len(by_block),
        data_sets=len(data_sets),
        seeds=(int(seeds.min()), int(seeds.max())),
    )


def intervals_of(data_sets: Sequence[Floats]) -> tuple[Interval, Interval]:
    """Over the seeds of these blocks, and beyond them; twice the same for a single block.

    Args:
        data_sets: per data set the paired differences ``[blocks, seeds]``, NaN where a run is missing.
    """
    fewest = min(values.shape[1] for values in data_sets)
    here = over_seeds(data_sets).interval(fewest, "seeds")
    further = beyond(data_sets)
    if further is None:
        return here, here
    many = len(data_sets) > 1
    return here, further.interval(len(data_sets) if many else fewest, "data sets" if many else "rates")


def compare_all(table: Scores) -> list[Comparison]:
    """Every pair with common runs, the better mean first, each p adjusted over all of them by Holm."""
    found = [compare(table, first, second) for first, second in combinations(table.methods, 2)]
    pairs = [pair for pair in found if pair is not None]
    adjusted = zip(
        holm([pair.p_here for pair in pairs]),
        holm([pair.p for pair in pairs]),
        holm([pair.wilcoxon for pair in pairs]),
        strict=True,
    )
    return [
        replace(pair, p_here=float(p_here), p=float(p), holm=float(p_blocks), family=len(pairs))
        for pair, (p_here, p, p_blocks) in zip(pairs, adjusted, strict=True)
    ]


def rank(table: Scores, alpha: float = ALPHA) -> Ranking | None:
    """Friedman and Nemenyi over complete blocks; None with fewer than three methods or two complete blocks."""
    blocks = table.complete_blocks()
    if blocks.shape[1] < 3 or len(blocks) < 2:
        return None
    ranks = average_ranks(blocks, table.higher_is_better)
    difference = critical_difference(len(ranks), len(blocks), alpha)
    return Ranking(ranks, friedman(blocks), difference, maximal_cliques(ranks, difference))
