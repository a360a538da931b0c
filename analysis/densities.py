"""Densities of clean and of noisy pairs: over weights, clean probabilities and losses epoch by epoch, and over final similarities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from .stored import (
    Setting,
    StoredRun,
    by_method,
    by_rate,
    by_setting,
    labels_of,
    page_words,
    pages,
    rate_words,
    seeds_in_words,
)
from .style import CLEAN, GREY, NOISY, drawing, finish, new_figure, save, wrap

WORDS: dict[str, str] = {"weight": "weight", "clean_probability": "clean probability", "loss": "loss"}
COLUMNS = ("first", "middle", "selected", "last")
BINS = 64  # a quarter of what the records keep
MOST_ROWS = 8
COLOURS = {"clean": CLEAN, "noisy": NOISY}

Floats = NDArray[np.float64]
Rows = dict[str, list[StoredRun]]


@dataclass(frozen=True)
class Density:
    """Pairs of several seeds, pooled: ``shares`` [bins] per side sum, with ``excluded``, to 1; zeros where a side has no pair.

    Attributes:
        edges: ``[bins + 1]``.
        shares: ``clean`` and ``noisy``, share of the side's pairs per bin.
        excluded: share of the side's pairs that a partition left out.
        epochs: of the pooled seeds.
        auc: mean over seeds, NaN where there is none.
    """

    edges: Floats
    shares: dict[str, Floats]
    excluded: dict[str, float]
    epochs: tuple[int, ...] = ()
    auc: float = float("nan")

    def heights(self, side: str) -> Floats:
        """Probability density: its area, with ``excluded``, is 1."""
        return self.shares[side] / np.diff(self.edges)

    def sides(self) -> list[str]:
        """Those with any pair."""
        return [side for side in COLOURS if self.shares[side].any() or self.excluded[side] > 0]

    def highest(self) -> float:
        """Of both sides."""
        return max(float(self.heights(side).max()) for side in COLOURS)


def draw_signal_densities(runs: Sequence[StoredRun], out_dir: Path, signal: str) -> list[Path]:
    """Per data set and rate: methods down, four epochs across. ``signal`` is ``weight``, ``clean_probability`` or ``loss``.

    Methods that do not log the signal, and data whose noise nobody knows, have no row; a figure without rows is not drawn.
    """
    paths = []
    for setting, group in by_setting(runs, with_rate=True):
        rows = {name: part for name, mine in by_method(group).items() if (part := _with_signal(mine, signal))}
        parts = pages(list(rows), MOST_ROWS) if rows else []
        for number, names in enumerate(parts, 1):
            ending, more = page_words(number, len(parts))
            with drawing():
                figure = _signal_figure(setting, {name: rows[name] for name in names}, signal, more)
                paths += save(figure, out_dir, f"{signal.replace('_', '-')}-density_{setting.slug()}{ending}")
    return paths


def draw_similarity_densities(runs: Sequence[StoredRun], out_dir: Path) -> list[Path]:
    """Per data set: methods down, rates across."""
    paths = []
    for setting, group in by_setting([run for run in runs if "similarity/clean" in run.arrays], with_rate=False):
        rows = by_method(group)
        parts = pages(list(rows), MOST_ROWS)
        for number, names in enumerate(parts, 1):
            ending, more = page_words(number, len(parts))
            with drawing():
                figure = _similarity_figure(setting, {name: rows[name] for name in names}, list(by_rate(group)), more)
                paths += save(figure, out_dir, f"similarity-density_{setting.slug()}{ending}")
    return paths


def rebin(counts: NDArray, edges: NDArray, new_edges: NDArray) -> Floats:
    """Counts ``[n]`` in other bins, mass spread evenly inside a bin; what lies outside the new edges goes to the outermost bins."""
    total = np.concatenate([[0.0], np.cumsum(counts, dtype=float)])
    below = np.interp(new_edges, edges, total)
    below[0], below[-1] = 0.0, total[-1]
    return np.diff(below)


def networks_of(run: StoredRun, signal: str) -> list[str]:
    """Those that logged the signal of any pair, in order of name."""
    keys = (key.split("/") for key in run.arrays if key.startswith(f"histogram/{signal}/"))
    return sorted({network for _, _, network, side in keys if run.arrays[f"histogram/{signal}/{network}/{side}"].any()})


def chosen_epochs(run: StoredRun, signal: str) -> dict[str, int]:
    """``first, middle, selected, last`` -> an epoch in which the signal was logged; the nearest one for the selected epoch."""
    key = f"histogram/{signal}/{_network(run, signal)}"
    logged = run.arrays[f"{key}/clean"].any(axis=1) | run.arrays[f"{key}/noisy"].any(axis=1)
    epochs = run.arrays["signal_epochs"][logged].astype(int)
    nearest = epochs[np.argmin(np.abs(epochs - run.outcome.selected.epoch))]
    return dict(zip(COLUMNS, map(int, (epochs[0], epochs[(len(epochs) - 1) // 2], nearest, epochs[-1])), strict=True))


def signal_density(runs: Sequence[StoredRun], signal: str, column: str) -> Density:
    """The pairs of all seeds at that epoch (each seed's own selected one), pooled."""
    low = min(float(_edges(run, signal)[0]) for run in runs)
    high = max(float(_edges(run, signal)[-1]) for run in runs)
    edges = np.linspace(low, high, BINS + 1)
    counts = {side: np.zeros(BINS) for side in COLOURS}
    excluded = dict.fromkeys(COLOURS, 0.0)
    epochs: list[int] = []
    aucs: list[float] = []
    for run in runs:
        network, epoch = _network(run, signal), chosen_epochs(run, signal)[column]
        row = int(np.flatnonzero(run.arrays["signal_epochs"] == epoch)[0])
        for side in COLOURS:
            counts[side] += rebin(run.arrays[f"histogram/{signal}/{network}/{side}"][row], _edges(run, signal), edges)
            excluded[side] += float(run.arrays[f"excluded/{signal}/{network}/{side}"][row])
        epochs.append(epoch)
        aucs += [s.auc for s in run.outcome.signals if (s.signal, s.network, s.epoch) == (signal, network, epoch)]
    if signal != "weight":  # a pair outside the partition has weight 0, but neither a probability nor a loss
        excluded = dict.fromkeys(COLOURS, 0.0)
    return _density(edges, counts, excluded, tuple(epochs), float(np.mean(aucs)) if aucs else float("nan"))


def similarity_density(runs: Sequence[StoredRun]) -> Density:
    """Final similarities of all seeds, pooled."""
    old = runs[0].arrays["edges/similarity"].astype(float)
    edges = np.linspace(old[0], old[-1], 2 * BINS + 1)
    counts = {
        side: np.sum([rebin(run.arrays[f"similarity/{side}"], old, edges) for run in runs], axis=0) for side in COLOURS
    }
    return _density(edges, counts, dict.fromkeys(COLOURS, 0.0))


def _density(
    edges: Floats, counts: dict[str, Floats], excluded: dict[str, float], epochs: tuple[int, ...] = (), auc: float = float("nan")
) -> Density:  # fmt: skip
    whole = {side: counts[side].sum() + excluded[side] or 1.0 for side in COLOURS}
    shares = {side: counts[side] / whole[side] for side in COLOURS}
    return Density(edges, shares, {side: excluded[side] / whole[side] for side in COLOURS}, epochs, auc)


def _network(run: StoredRun, signal: str) -> str:
    """One network is shown, because averaging several would hide how each of them sorts."""
    return networks_of(run, signal)[0]


def _edges(run: StoredRun, signal: str) -> Floats:
    return run.arrays[f"edges/{signal}/{_network(run, signal)}"].astype(float)


def _with_signal(runs: Sequence[StoredRun], signal: str) -> list[StoredRun]:
    return [run for run in runs if networks_of(run, signal)]


def _signal_figure(setting: Setting, rows: Rows, signal: str, more: str) -> Figure:
    labels = labels_of(run for runs in rows.values() for run in runs)
    figure, axes = _grid(len(rows), len(COLUMNS))
    left_out = False
    for row, (line, (name, runs)) in enumerate(zip(axes, rows.items(), strict=True)):
        densities = [signal_density(runs, signal, column) for column in COLUMNS]
        top = max(density.highest() for density in densities)
        for panel, column, density in zip(line, COLUMNS, densities, strict=True):
            _panel(panel, density, top)
            panel.set_title(
                f"{column}: {_epoch_words(density.epochs)}\n{_note(density)}".strip(), fontsize=7.5, linespacing=1.1
            )
            left_out |= any(density.excluded.values())
            panel.tick_params(labelbottom=signal == "loss" or row == len(rows) - 1)
        several = len({network for run in runs for network in networks_of(run, signal)}) > 1
        _row_label(line[0], labels[name] + (f" (network {_network(runs[0], signal)})" if several else ""))
    for panel in axes[-1]:
        panel.set_xlabel("loss (own units)" if signal == "loss" else WORDS[signal])
    title = f"{WORDS[signal].capitalize()} of clean and noisy {setting.things}: {setting.words()}{more}"
    seeds = seeds_in_words(map(len, rows.values()))
    _finish(figure, setting.things, title, _signal_caption(setting, signal, seeds, left_out))
    return figure


def _signal_caption(setting: Setting, signal: str, seeds: str, left_out: bool) -> str:
    excluded = (
        f"Left out: share of clean | noisy {setting.things} that the method's partition excluded (weight 0); the areas are less than 1 "
        "by that. "
    )
    return (
        f"{setting.caption()} Probability density of the {WORDS[signal]} among clean and among noisy training {setting.things}, "
        f"{setting.things} of {seeds} pooled, {BINS} bins, a height per row. First, middle and last of the epochs that log it; selected: "
        f"each seed's own ({setting.selection}), or the nearest one that logs it. {excluded if left_out else ''}AUC: recognising noisy "
        f"{setting.things} by {'high' if signal == 'loss' else 'low'} {WORDS[signal]}, mean over seeds (0.5 is chance)."
    )


def _similarity_figure(setting: Setting, rows: Rows, rates: list[float | None], more: str) -> Figure:
    labels = labels_of(run for runs in rows.values() for run in runs)
    figure, axes = _grid(len(rows), len(rates))
    low, high = 1.0, -1.0
    for row, (line, (name, runs)) in enumerate(zip(axes, rows.items(), strict=True)):
        groups = by_rate(runs)
        densities = {rate: similarity_density(groups[rate]) for rate in rates if rate in groups}
        top = max(density.highest() for density in densities.values())
        for panel, rate in zip(line, rates, strict=True):
            if rate in densities:
                _panel(panel, densities[rate], top)
                low, high = min(low, _support(densities[rate])[0]), max(high, _support(densities[rate])[1])
            else:
                panel.text(0.5, 0.5, "no run", transform=panel.transAxes, ha="center", va="center", color=GREY)
            if row == 0:
                panel.set_title(rate_words(rate))
            panel.tick_params(labelbottom=row == len(rows) - 1)
        _row_label(line[0], labels[name])
    for panel in (panel for line in axes for panel in line):
        panel.set_xlim(low, high)
    for panel in axes[-1]:
        panel.set_xlabel("cosine similarity")
    counts = [len(part) for runs in rows.values() for part in by_rate(runs).values()]
    caption = (
        f"{setting.caption()} Probability density of the similarity of image and text among clean and among noisy training pairs under the "
        f"last epoch's model, pairs of {seeds_in_words(counts)} pooled, a height per row."
    )
    _finish(figure, setting.things, f"Similarity of clean and noisy pairs: {setting.words()}{more}", caption)
    return figure


def _support(density: Density) -> tuple[float, float]:
    """From the first to the last bin with a pair in it."""
    filled = np.flatnonzero(density.shares["clean"] + density.shares["noisy"])
    return float(density.edges[filled[0]]), float(density.edges[filled[-1] + 1])


def _grid(n_rows: int, n_columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = new_figure(max(1.8 * n_columns + 1.8, 7.2), 1.3 * n_rows + 1.6)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex="row", sharey="row")
    return figure, [list(line) for line in axes]


def _row_label(axes: Axes, text: str) -> None:
    """Beside the row, upright text: method labels are long."""
    axes.set_ylabel("density")
    place = {
        "xytext": (-48, 0),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "ha": "right",
        "va": "center",
    }
    axes.annotate(wrap(text, 20), (0, 0.5), fontsize=8.5, **place)  # type: ignore[arg-type]


def _panel(axes: Axes, density: Density, top: float) -> None:
    width = density.edges[-1] - density.edges[0]
    for side, colour in COLOURS.items():
        if density.shares[side].any():
            heights = density.heights(side)
            hatch = "//////" if side == "noisy" else None
            axes.stairs(heights, density.edges, fill=True, color=colour, alpha=0.3, linewidth=0)
            axes.stairs(
                heights, density.edges, color=colour, linewidth=1.0, linestyle="-" if hatch is None else (0, (4, 1))
            )
    axes.set_xlim(density.edges[0] - 0.03 * width, density.edges[-1] + 0.03 * width)
    axes.set_ylim(0, max(top, 1e-9) * 1.05)


def _note(density: Density) -> str:
    words = [] if np.isnan(density.auc) else [f"AUC {density.auc:.2f}"]
    if any(density.excluded.values()):
        shares = (f"{100 * density.excluded[side]:.0f} %" if side in density.sides() else "none" for side in COLOURS)
        words.append(f"left out {' | '.join(shares)}")
    return ", ".join(words)


def _epoch_words(epochs: Sequence[int]) -> str:
    low, high = min(epochs), max(epochs)
    return f"epoch {low}" if low == high else f"epochs {low} to {high}"


def _finish(figure: Figure, things: str, title: str, caption: str) -> None:
    handles = [
        Patch(
            facecolor=(colour, 0.3),
            edgecolor=colour,
            linestyle="-" if side == "clean" else (0, (4, 1)),
            label=f"{side} {things}",
        )
        for side, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    finish(figure, title, caption)
