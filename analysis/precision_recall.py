"""Precision against recall of label-based retrieval, from the curves in the sidecars: a panel per direction, a line per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .curves import MOST_LINES, Floats
from .stored import Setting, StoredRun, by_method, by_setting, labels_of, page_words, pages
from .style import drawing, finish, legend, looks, new_figure, save

WAYS = {"i2t": "image to text", "t2i": "text to image"}


@dataclass(frozen=True)
class PrecisionRecall:
    """Means over seeds at the same ranks; all ``[C]``."""

    cutoffs: Floats
    precision: Floats
    recall: Floats
    seeds: int


def draw_precision_recall(runs: Sequence[StoredRun], out_dir: Path) -> list[Path]:
    """Per data set, rate and length of codes; oracles are on every page."""
    paths = []
    with_curves = [run for run in runs if "i2t_precision" in run.arrays]
    for setting, group in by_setting(with_curves, with_rate=True):
        methods = by_method(group)
        oracles = sorted(name for name, mine in methods.items() if "oracle" in mine[0].record.method_flags)
        parts = pages([name for name in methods if name not in oracles], MOST_LINES)
        for number, part in enumerate(parts, 1):
            ending, more = page_words(number, len(parts))
            chosen = {name: methods[name] for name in sorted([*part, *oracles])}
            with drawing():
                paths += save(_figure(setting, chosen, more), out_dir, f"precision-recall_{setting.slug()}{ending}")
    return paths


def mean_curve(runs: Sequence[StoredRun], way: str) -> PrecisionRecall:
    """The mean over seeds, which share their cut-offs because they share the test split."""
    precision, recall = (
        np.mean([run.arrays[f"{way}_{name}"] for run in runs], axis=0) for name in ("precision", "recall")
    )
    return PrecisionRecall(runs[0].arrays[f"{way}_cutoffs"].astype(float), precision, recall, len(runs))


def _figure(setting: Setting, methods: dict[str, list[StoredRun]], more: str) -> Figure:
    styles = looks(methods)
    figure = new_figure(8.9, 4.2)
    axes = figure.subplots(1, 2, sharey=True)
    counts = set()
    for panel, (way, words) in zip(axes, WAYS.items(), strict=True):
        for name, runs in methods.items():
            one = mean_curve(runs, way)
            counts.add(one.seeds)
            look = styles[name]
            panel.plot(one.recall, one.precision, color=look.color, linestyle=look.dash, linewidth=1.3)
        panel.set_title(words)
        panel.set_xlabel("recall")
        panel.set_xlim(0, 1)
    axes[0].set_ylabel("precision")
    axes[0].set_ylim(bottom=0)
    legend(figure, methods, labels_of(run for runs in methods.values() for run in runs))
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(min(counts))
    caption = (
        f"{setting.caption()} Precision and recall among the first k items, k from 1 to the whole database in even steps of the logarithm, "
        f"expected over ties, means over test queries and over n = {seeds} seeds, after the selected epoch ({setting.selection})."
    )
    finish(figure, f"Precision and recall: {setting.words()}{more}", caption)
    return figure
