"""Performance profiles (Dolan and More 2002; Agarwal et al. 2021): which share of a method's runs reaches which share of the best score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..results.measures import measure as measure_named
from .diagrams import diagram_of, groups
from .frame import AnalysisError
from .significance import Scores, scores
from .stored import page_words, pages
from .style import drawing, finish, legend, looks, new_figure, save
from .summaries import Profile, performance_profiles

MOST_LINES = 12


def draw_performance_profiles(frame: pd.DataFrame, out_dir: Path) -> list[Path]:
    """A figure per protocol (with its overrides) and track, and one over all protocols of a track, as for critical differences.

    Methods that lack blocks are left out where that keeps more of the others; so is a group of fewer than two methods.
    """
    paths = []
    for title, slug, part in groups(frame[frame["status"] == "done"]):
        table = _table(part)
        profiles = {} if table is None else performance_profiles(table)
        if table is None or not profiles:
            continue
        oracles = [name for name in table.methods if "oracle" in table.flags[name]]
        parts = pages([name for name in table.methods if name not in oracles], MOST_LINES)
        for number, names in enumerate(parts, 1):
            ending, more = page_words(number, len(parts))
            with drawing():
                figure = _figure(table, [*oracles, *names], profiles, title + more)
                paths += save(figure, out_dir, f"performance-profile_{slug}{ending}")
    return paths


def _table(part: pd.DataFrame) -> Scores | None:
    found = diagram_of(part)
    if found is not None:
        return found.table
    try:
        return scores(part)
    except AnalysisError:
        return None


def _figure(table: Scores, names: Sequence[str], profiles: Mapping[str, Profile], title: str) -> Figure:
    figure = new_figure(7.5, 3.6)
    axes = figure.subplots()
    for name, look in looks(names).items():
        one = profiles[name]
        axes.plot(
            one.thresholds, one.share, color=look.color, linestyle=look.dash, linewidth=1.3, drawstyle="steps-pre"
        )
        axes.fill_between(
            one.thresholds, one.low, one.high, where=np.isfinite(one.low), color=look.color, alpha=0.1, linewidth=0, step="pre"
        )  # fmt: skip
    thresholds = profiles[names[0]].thresholds  # the same for all
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_ylim(0.0, 1.03)
    axes.set_xlabel("score as a share of the best mean of its block")
    axes.set_ylabel("share of runs that reach it")
    legend(figure, names, table.labels)
    finish(figure, f"Performance profile by {measure_named(table.measure).label}: {title}", _caption(table))
    return figure


def _caption(table: Scores) -> str:
    blocks = table.blocks()
    sets = ", ".join(str(name) for name in blocks.index.unique("dataset"))
    seeds = sorted({int(n) for n in table.runs.groupby(level=["dataset", "noise", "rate"]).size()})
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    sentences = [
        f"Protocol{'s' if len(table.conditions) > 1 else ''} {'; '.join(table.conditions)}",
        f"All runs of {len(blocks)} blocks (a noise rate of a data set) of {sets}, n = {n} seeds in each; the higher a line, the better",
        "A score is divided by the best mean over seeds that a method in the records reaches in the block, oracles apart",
        "Bands: 95 % intervals over seeds at each place" if seeds[-1] > 1 else "A single seed has no band",
    ]
    return " ".join(f"{sentence}." for sentence in sentences)
