"""The critical-difference diagram (Demsar 2006): average ranks on a line, bars over methods that Nemenyi's test cannot separate."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..results.measures import HEADLINES
from ..results.measures import measure as measure_named
from ..results.store import protocol_folder
from .significance import ALPHA, Ranking, Scores, rank, scores
from .style import GREY, drawing, finish, looks, marked, new_figure, save, wrap

# What a diagram must not mix; data sets, noise models and rates are its blocks.
KEYS = ["task", "protocol", "version", "overrides", "backbone", "track", "gallery", "selection"]
# Inches: the axis, room on either side of it, from the axis' end to the labels, a line of text.
AXIS, SIDE, GAP, LINE = 3.8, 2.75, 0.42, 0.16
MOST_TICK_LABELS = 14


@dataclass(frozen=True)
class Diagram:
    """``left_out`` are methods with runs in fewer blocks; ``table`` holds what ``ranking`` was made from."""

    table: Scores
    ranking: Ranking
    left_out: tuple[str, ...]
    dropped_blocks: int


def draw_critical_difference(frame: pd.DataFrame, out_dir: Path) -> list[Path]:
    """A diagram per protocol (with its overrides) and track, over its data sets, noise models and rates, and one over all protocols of
    a track, unless a data set was run under several of them."""
    paths = []
    done = frame[frame["status"] == "done"]
    for title, slug, part in groups(done):
        found = diagram_of(part)
        if found is not None:
            with drawing():
                paths += save(_figure(found, title), out_dir, f"critical-difference_{slug}")
    return paths


Group = tuple[str, str, pd.DataFrame]
"""Title, file name and records of a diagram."""


def groups(done: pd.DataFrame) -> list[Group]:
    """What may be ranked together: the records of each protocol (with its overrides) and track, then of each track over its protocols."""
    return [*_by_protocol(done), *_across_protocols(done)]


def _by_protocol(done: pd.DataFrame) -> Iterator[Group]:
    for keys, part in done.groupby(KEYS, sort=True):
        named: dict[str, Any] = dict(zip(KEYS, keys, strict=True))
        changes = json.loads(named["overrides"]) if named["overrides"] else {}
        folder = protocol_folder(named["protocol"], named["version"], changes)
        yield f"{named['protocol']} v{named['version']}", folder + _track(named["track"]), part


def _across_protocols(done: pd.DataFrame) -> Iterator[Group]:
    for (_, track), part in done.groupby(["task", "track"], sort=True):
        settings = part[["dataset", *KEYS]].drop_duplicates()
        if settings["dataset"].is_unique and settings["protocol"].nunique() > 1:
            yield f"{len(settings)} data sets", f"all-data-sets{_track(str(track))}", part


def _track(track: str) -> str:
    return "" if track == "fixed-budget" else f"_{track}"


def diagram_of(part: pd.DataFrame) -> Diagram | None:
    """The ranking of the largest table without holes: methods that lack blocks are left out where that keeps more of the others.

    None where it has fewer than three methods or two blocks.
    """
    names = sorted(set(part["method"] + "@" + part["variant"]))
    if len(names) < 3:
        return None
    measure = HEADLINES[str(part["task"].iloc[0])]
    whole = scores(part, names, measure)
    names = [name for name in names if name in whole.methods]  # real-valued ones are not ranked with codes
    covered = whole.blocks().notna().sum()
    best: Diagram | None = None
    for least in sorted(set(covered)):
        kept = [name for name in names if covered[name] >= least]
        ranking = rank(table) if len(kept) > 2 and (table := scores(part, kept, measure)) else None
        if ranking is None:
            continue
        size = ranking.test.blocks * ranking.test.methods
        if best is None or size > best.ranking.test.blocks * best.ranking.test.methods:
            left_out = tuple(name for name in names if name not in kept)
            best = Diagram(table, ranking, left_out, len(whole.blocks()) - ranking.test.blocks)
    return None if best is None else Diagram(best.table, best.ranking, best.left_out, best.dropped_blocks)


def clique_bars(ranking: Ranking) -> list[tuple[float, float]]:
    """From the best to the worst average rank of each maximal clique, best first."""
    return [(float(ranking.ranks[list(c)].min()), float(ranking.ranks[list(c)].max())) for c in ranking.cliques]


def _figure(found: Diagram, title: str) -> Figure:
    ranking, labels = found.ranking, found.table.labels
    names = [str(name) for name in ranking.ranks.index]
    half = (len(names) + 1) // 2
    texts = {name: wrap(labels[name], 36) for name in names}
    sides = (names[:half], names[half:][::-1])
    bars = clique_bars(ranking)
    start = 0.25 + 0.13 * len(bars)
    depths = [_depths([texts[name] for name in side], start) for side in sides]
    bottom = max(depth[-1] for depth in depths) + 0.25
    top = 0.75
    caption = caption_of(found)
    figure = new_figure(AXIS + 2 * SIDE, top + bottom + 1.55)
    axes = figure.subplots()
    axes.set_axis_off()
    span, count = (len(names) - 1) / AXIS, len(names)  # ranks per inch
    axes.set_xlim(1 - SIDE * span, count + SIDE * span)
    axes.set_ylim(-bottom, top)
    _axis(axes, count, span)
    _critical_bar(axes, ranking.critical_difference, span)
    for number, (low, high) in enumerate(bars):
        y = -0.16 - 0.13 * number
        axes.plot([low - 0.04 * span, high + 0.04 * span], [y, y], color="black", linewidth=3, solid_capstyle="round")
    for side, depth, end, align in zip(
        sides, depths, (1 - GAP * span, count + GAP * span), ("right", "left"), strict=True
    ):
        _elbows(axes, ranking.ranks, [(name, texts[name]) for name in side], depth, end, align, span)
    measure = measure_named(found.table.measure)
    finish(figure, f"Average ranks by {measure.label}: {title}", caption)
    return figure


def _depths(texts: Sequence[str], start: float) -> list[float]:
    """How far below the axis each label's middle lies, in inches; two neighbours never overlap."""
    heights = [LINE * (text.count("\n") + 1) + 0.07 for text in texts]
    ends = start + np.cumsum(heights)
    return [float(end - height / 2) for end, height in zip(ends, heights, strict=True)]


def _axis(axes: Axes, count: int, span: float) -> None:
    axes.plot([1, count], [0, 0], color="black", linewidth=1)
    for value in range(1, count + 1):
        axes.plot([value, value], [0, 0.07], color="black", linewidth=1)
        if (value - 1) % -(-count // MOST_TICK_LABELS) == 0:
            axes.text(value, 0.1, str(value), ha="center", va="bottom")
    axes.text(1 - GAP * span, 0.1, "best", ha="right", va="bottom", color=GREY)
    axes.text(count + GAP * span, 0.1, "worst", ha="left", va="bottom", color=GREY)


def _critical_bar(axes: Axes, difference: float, span: float) -> None:
    y = 0.5
    axes.plot([1, 1 + difference], [y, y], color="black", linewidth=1.2)
    for x in (1, 1 + difference):
        axes.plot([x, x], [y - 0.05, y + 0.05], color="black", linewidth=1.2)
    axes.text(1 - GAP * span, y, f"critical difference {difference:.2f}", ha="right", va="center")


def _elbows(
    axes: Axes, ranks: pd.Series, texts: Sequence[tuple[str, str]], depths: Sequence[float], end: float, align: str, span: float
) -> None:  # fmt: skip
    styles = looks([name for name, _ in texts])
    for (name, text), depth in zip(texts, depths, strict=True):
        color = styles[name].color
        axes.plot(
            [ranks[name], ranks[name], end], [0, -depth, -depth], color=color, linewidth=1, solid_joinstyle="miter"
        )
        axes.plot(ranks[name], 0, color=color, zorder=4, clip_on=False, **marked(styles[name], 5))
        gap = -0.06 * span if align == "right" else 0.06 * span
        axes.text(end + gap, -depth, text, ha=align, va="center", fontsize=8, linespacing=1.05)
        inner = "left" if align == "right" else "right"
        axes.text(end, -depth + 0.02, f"{ranks[name]:.2f}", ha=inner, va="bottom", fontsize=7, color=GREY)


def caption_of(found: Diagram) -> str:
    """What the ranks are made of, the test of Friedman, and what was left out."""
    test, blocks = found.ranking.test, found.table.complete_blocks().index
    sets = sorted({str(name) for name in blocks.get_level_values("dataset")})
    seeds = found.table.runs.dropna().groupby(level=["dataset", "noise", "rate"]).size()
    n = str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    sentences = [
        f"Protocol{'s' if len(found.table.conditions) > 1 else ''} {'; '.join(found.table.conditions)}",
        f"Ranks of the mean over n = {n} seeds, averaged over {test.blocks} blocks (a noise rate of a data set) of {', '.join(sets)}; "
        "rates of one data set are not independent",
        f"Friedman: chi-square({test.methods - 1}) = {test.statistic:.2f}, {_p_words(test.p)}"
        + ("" if test.p < ALPHA else f": no difference between methods is shown at {ALPHA:g}"),
        f"Thick bars join methods whose ranks differ by less than the critical difference of Nemenyi's test at {ALPHA:g}",
    ]
    if found.dropped_blocks:
        sentences.append(f"{found.dropped_blocks} blocks in which one of these has no run are left out")
    if found.left_out:
        sentences.append(f"Not ranked, for lack of runs: {', '.join(found.left_out)}")
    return " ".join(f"{sentence}." for sentence in sentences)


def _p_words(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"
