"""Figures for a paper: PDF at the width of one column or of the page, fonts embedded, captions left to LaTeX; always the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from seaborn import despine

from .curves import Curve, band_words, curve
from .densities import COLOURS, COLUMNS, Density, networks_of, signal_density
from .diagrams import Diagram, caption_of, clique_bars, diagram_of, groups
from .figures import Material
from .stored import Setting, StoredRun, by_method, by_rate, by_setting, labels_of, pages, seeds_in_words
from .style import GREY, drawing, looks, marked, new_figure, wrap

# Inches: one column of a two-column article, and both.
ONE_COLUMN, TWO_COLUMNS = 3.3, 7.0
MOST_LINES, MOST_ROWS = 8, 5
_PAPER: Any = {
    "pdf.fonttype": 42,  # TrueType: what publishers ask for, and text stays text
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True)
class PaperFigure:
    """``name`` is good for files and labels; ``caption`` is plain text; ``wide`` figures span both columns."""

    name: str
    pdf: bytes
    caption: str
    wide: bool


def paper_figures(material: Material) -> Iterator[PaperFigure]:
    """All figures that the records give: scores against noise, densities of weights, critical differences."""
    for setting, runs in by_setting(material.runs, with_rate=False):
        yield from _scores(setting, runs)
    for setting, runs in _one_rate_each(material.with_arrays):
        yield from _densities(setting, runs)
    frame = material.frame
    yield from _diagrams(frame[frame["status"] == "done"])


def plain_name(text: str) -> str:
    """Letters, digits and hyphens only, which LaTeX takes in file names and labels."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def to_pdf(figure: Figure) -> bytes:
    """Without dates and program versions."""
    content = io.BytesIO()
    figure.savefig(content, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return content.getvalue()


def _scores(setting: Setting, runs: Sequence[StoredRun]) -> Iterator[PaperFigure]:
    methods, labels = by_method(runs), labels_of(runs)
    rates = sorted({rate for rate in by_rate(runs) if rate is not None})
    if len(rates) < 2:
        return  # a single rate is a column of the table
    lines = {name: _over_rates(mine) for name, mine in methods.items()}
    parts = pages(list(lines), MOST_LINES)
    for number, names in enumerate(parts, 1):
        with drawing(), mpl.rc_context(_PAPER):
            pdf = to_pdf(_scores_figure(setting, {name: lines[name] for name in names}, labels, rates))
        caption = (
            f"Test {setting.score} against the noise rate: {setting.words()}{_part(number, parts)}. {setting.caption()} Epoch: "
            f"{setting.selection}. {band_words([lines[name] for name in names])}"
        )
        yield PaperFigure(_named("scores", setting, number, parts), pdf, caption, wide=False)


def _over_rates(runs: Sequence[StoredRun]) -> Curve:
    seeds: dict[int, dict[float, float]] = {}
    for run in runs:
        seeds.setdefault(run.record.cell.seed, {})[100 * (run.rate or 0.0)] = run.score
    return curve(list(seeds.values()))


def _scores_figure(setting: Setting, lines: dict[str, Curve], labels: dict[str, str], rates: Sequence[float]) -> Figure:
    styles, texts = looks(lines), {name: wrap(labels[name], 24) for name in lines}
    rows = sum(text.count("\n") + 1 for text in texts.values()) / 2
    figure = new_figure(ONE_COLUMN, 2.2 + 0.14 * rows)
    axes = figure.subplots()
    for name, one in lines.items():
        look = styles[name]
        axes.plot(one.x, one.mean, color=look.color, linestyle=look.dash, linewidth=1.0, **marked(look, 3))
        low, high = one.mean - one.std, one.mean + one.std
        axes.fill_between(one.x, low, high, where=np.isfinite(one.std), color=look.color, alpha=0.13, linewidth=0)
    axes.set_xlabel(f"noise rate (% of {setting.things})")
    axes.set_ylabel(f"test {setting.score}".replace(" (", "\n("))
    axes.set_xticks([100 * rate for rate in rates])
    handles = [
        Line2D([], [], color=look.color, linestyle=look.dash, label=texts[name], linewidth=1.0, **marked(look, 3))
        for name, look in styles.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, frameon=False, handlelength=2.4, columnspacing=1.0
    )
    despine(ax=axes)
    return figure


def _one_rate_each(runs: Sequence[StoredRun]) -> Iterator[tuple[Setting, list[StoredRun]]]:
    """Of every setting the noise rate nearest to 40 %, where noise is neither rare nor the rule."""
    for _, group in by_setting(runs, with_rate=False):
        rates = [rate for rate in by_rate(group) if rate]
        if rates:
            rate = min(rates, key=lambda one: (abs(one - 0.4), one))
            yield from by_setting([run for run in group if run.rate == rate], with_rate=True)


def _densities(setting: Setting, runs: Sequence[StoredRun]) -> Iterator[PaperFigure]:
    rows = {
        name: part for name, mine in by_method(runs).items() if (part := [r for r in mine if networks_of(r, "weight")])
    }
    parts = pages(list(rows), MOST_ROWS) if rows else []
    for number, names in enumerate(parts, 1):
        shown = {name: rows[name] for name in names}
        with drawing(), mpl.rc_context(_PAPER):
            pdf = to_pdf(_densities_figure(setting, shown))
        caption = (
            f"Density of the weights of clean and of noisy training {setting.things}: {setting.words()}{_part(number, parts)}. "
            f"{setting.caption()} {setting.things.capitalize()} of {seeds_in_words(map(len, shown.values()))} pooled, a height per row; "
            f"first, middle and last of the epochs that log it, and each seed's selected one ({setting.selection}). AUC: recognising noisy "
            f"{setting.things} by low weight, mean over seeds; out: share of clean | noisy {setting.things} that the method excluded."
        )
        yield PaperFigure(_named("weights", setting, number, parts), pdf, caption, wide=True)


def _densities_figure(setting: Setting, rows: dict[str, list[StoredRun]]) -> Figure:
    labels = labels_of(run for runs in rows.values() for run in runs)
    figure = new_figure(TWO_COLUMNS, 1.0 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), len(COLUMNS), squeeze=False, sharex="row", sharey="row")
    for line, (name, runs) in zip(axes, rows.items(), strict=True):
        densities = [signal_density(runs, "weight", column) for column in COLUMNS]
        top = max(density.highest() for density in densities)
        for panel, column, density in zip(line, COLUMNS, densities, strict=True):
            _density(panel, density, top)
            panel.set_title(f"{column}{_remark(density)}", fontsize=6.5)
        line[0].set_ylabel(wrap(labels[name], 22), fontsize=6.5)
    for panel in axes[-1]:
        panel.set_xlabel("weight")
    handles = [
        Patch(facecolor=(colour, 0.3), edgecolor=colour, linestyle=_dash(side), label=f"{side} {setting.things}")
        for side, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _density(panel: Axes, density: Density, top: float) -> None:
    for side, colour in COLOURS.items():
        if density.shares[side].any():
            heights = density.heights(side)
            panel.stairs(heights, density.edges, fill=True, color=colour, alpha=0.3, linewidth=0)
            panel.stairs(heights, density.edges, color=colour, linewidth=0.8, linestyle=_dash(side))
    panel.set_ylim(0, max(top, 1e-9) * 1.05)
    panel.set_yticks([])
    despine(ax=panel)


def _dash(side: str) -> Any:
    return "-" if side == "clean" else (0, (4, 1))


def _remark(density: Density) -> str:
    words = [] if np.isnan(density.auc) else [f"AUC {density.auc:.2f}"]
    if any(density.excluded.values()):
        words.append(f"out {' | '.join(f'{100 * density.excluded[side]:.0f} %' for side in COLOURS)}")
    return f": {', '.join(words)}" if words else ""


def _diagrams(done: pd.DataFrame) -> Iterator[PaperFigure]:
    for title, slug, part in groups(done):
        found = diagram_of(part)
        if found is not None:
            with drawing(), mpl.rc_context(_PAPER):
                pdf = to_pdf(_diagram_figure(found))
            caption = f"Average ranks: {title}. {caption_of(found)}"
            yield PaperFigure(plain_name(f"ranks-{slug}"), pdf, caption, wide=True)


def _diagram_figure(found: Diagram) -> Figure:
    """A line of ranks, names on both sides, bars over what Nemenyi's test cannot separate; y is in inches."""
    names, labels = [str(name) for name in found.ranking.ranks.index], found.table.labels
    half, bars, styles = (len(names) + 1) // 2, clique_bars(found.ranking), looks(names)
    bottom = 0.25 + 0.09 * len(bars) + 0.24 * half
    figure = new_figure(TWO_COLUMNS, bottom + 0.6)
    axes = figure.subplots()
    axes.set_axis_off()
    span = (len(names) - 1) / 2.6  # ranks per inch
    axes.set_xlim(1 - 2.1 * span, len(names) + 2.1 * span)
    axes.set_ylim(-bottom, 0.55)
    axes.plot([1, len(names)], [0, 0], color="black", linewidth=0.8)
    for value in range(1, len(names) + 1):
        axes.plot([value, value], [0, 0.05], color="black", linewidth=0.8)
        if len(names) <= 14 or value % 5 == 0:
            axes.text(value, 0.08, str(value), ha="center", va="bottom", fontsize=6.5)
    difference = found.ranking.critical_difference
    axes.plot([1, 1 + difference], [0.35, 0.35], color="black", linewidth=1.2, marker="|", markersize=5)
    axes.text(1 - 0.1 * span, 0.35, f"critical difference {difference:.2f}", ha="right", va="center")
    for number, (low, high) in enumerate(bars):
        y = -0.08 - 0.09 * number
        axes.plot([low, high], [y, y], color="black", linewidth=2, solid_capstyle="round")
    for place, name in enumerate(names):
        left = place < half
        depth = 0.2 + 0.09 * len(bars) + 0.24 * (place if left else len(names) - 1 - place)
        end = 1 - 0.3 * span if left else len(names) + 0.3 * span
        rank, look = found.ranking.ranks[name], styles[name]
        axes.plot([rank, rank, end], [0, -depth, -depth], color=look.color, linewidth=0.8)
        axes.plot(rank, 0, color=look.color, zorder=4, clip_on=False, **marked(look, 4))
        axes.text(
            end + (-0.05 if left else 0.05) * span, -depth, f"{wrap(labels[name], 38)}", ha="right" if left else "left", va="center",
            fontsize=6.5, linespacing=1.0,
        )  # fmt: skip
        axes.text(
            end, -depth + 0.01, f"{rank:.2f}", ha="left" if left else "right", va="bottom", fontsize=5.5, color=GREY
        )
    return figure


def _named(kind: str, setting: Setting, number: int, parts: Sequence[object]) -> str:
    return plain_name(f"{kind}-{setting.slug()}" + (f"-{number}" if len(parts) > 1 else ""))


def _part(number: int, parts: Sequence[object]) -> str:
    return f", part {number} of {len(parts)}" if len(parts) > 1 else ""
