"""Lines: rSum or MAP against the noise rate, validation (memorisation shows as a fall) and recognition of noisy pairs over epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..results.record import EpochEntry, LabelEpochEntry
from .stored import Setting, StoredRun, by_method, by_rate, by_setting, labels_of, page_words, pages, rate_words
from .style import GREY, Look, drawing, finish, legend, looks, marked, new_figure, save, wrap

MOST_LINES = 12
SIGNALS = {"weight": "low weight", "clean_probability": "low clean probability", "loss": "high loss"}
GALLERIES = {"full": "whole test split as one gallery", "folds": "mean over folds of the test split"}

Floats = NDArray[np.float64]
Lines = dict[str, "Curve"]


@dataclass(frozen=True)
class Curve:
    """Over seeds, at each ``x`` where any seed has a value: mean, sample standard deviation (NaN for one seed), number of seeds."""

    x: Floats
    mean: Floats
    std: Floats
    n: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.x)


def curve(series: Sequence[Mapping[float, float]]) -> Curve:
    """One mapping ``x -> value`` per seed; NaN is the same as no value."""
    table = pd.DataFrame([dict(one) for one in series], dtype=float).dropna(axis=1, how="all").sort_index(axis=1)
    return Curve(
        table.columns.to_numpy(dtype=float),
        table.mean().to_numpy(dtype=float),
        table.std(ddof=1).to_numpy(dtype=float),
        table.count().to_numpy(dtype=int),
    )


def draw_scores(runs: Sequence[StoredRun], out_dir: Path) -> list[Path]:
    """Test score per method: lines over the noise rates, or points where there is one rate only (real noise among them)."""
    paths = []
    for setting, group in by_setting(runs, with_rate=False):
        rates = list(by_rate(group))
        chosen = {name: _over_rates(mine, lambda run: run.score) for name, mine in by_method(group).items()}
        last = {name: _over_rates(mine, lambda run: run.last_score) for name, mine in by_method(group).items()}
        if len(rates) > 1:
            paths += _in_pages(
                setting, group, chosen, out_dir, f"{_short(setting).lower()}-vs-noise", _ScoresOverRates(chosen, last)
            )
        elif any(map(len, chosen.values())):
            with drawing():
                figure = _points(setting, rates[0], chosen, last, labels_of(group))
                paths += save(figure, out_dir, f"{_short(setting).lower()}-vs-noise_{setting.slug()}")
    return paths


def draw_validation(runs: Sequence[StoredRun], out_dir: Path) -> list[Path]:
    """Validation score after each epoch: a panel per noise rate, the selected epoch marked."""
    paths = []
    for setting, group in by_setting(runs, with_rate=False):
        panels = {rate: by_method(part) for rate, part in by_rate(group).items()}
        lines = {
            rate: {name: curve([{e.epoch: val_score(e) for e in run.outcome.history} for run in mine]) for name, mine in methods.items()}
            for rate, methods in panels.items()
        }  # fmt: skip
        chosen = {
            rate: {
                name: float(np.median([run.outcome.selected.epoch for run in mine])) for name, mine in methods.items()
            }
            for rate, methods in panels.items()
        }
        names = {name: one for methods in lines.values() for name, one in methods.items()}
        paths += _in_pages(setting, group, names, out_dir, "validation-curves", _Validation(lines, chosen))
    return paths


def draw_auc(runs: Sequence[StoredRun], out_dir: Path) -> list[Path]:
    """How well each signal recognises noisy pairs, over epochs: a row of panels per signal, a column per noise rate."""
    paths = []
    for setting, group in by_setting(runs, with_rate=False):
        panels: dict[tuple[str, float | None], Lines] = {}
        for rate, part in by_rate(group).items():
            for name, mine in by_method(part).items():
                for signal in SIGNALS:
                    found = curve([_auc_by_epoch(run, signal) for run in mine])
                    if len(found):
                        panels.setdefault((signal, rate), {})[name] = found
        names = {name: one for lines in panels.values() for name, one in lines.items()}
        if names:
            paths += _in_pages(setting, group, names, out_dir, "auc-curves", _Auc(panels))
    return paths


def val_score(entry: EpochEntry | LabelEpochEntry) -> float:
    """The headline of the task on the validation split after one epoch."""
    return entry.val_map if isinstance(entry, LabelEpochEntry) else entry.val_rsum


def _short(setting: Setting) -> str:
    return "rSum" if setting.task == "pair-retrieval" else "MAP"


def _where(setting: Setting) -> str:
    if setting.task == "pair-retrieval":
        return f"Scores on the {GALLERIES[setting.gallery]}"
    return "MAP over the whole database, expected over ties"


def _auc_by_epoch(run: StoredRun, signal: str) -> dict[float, float]:
    """Mean over the networks that log the signal."""
    found: dict[float, list[float]] = {}
    for summary in run.outcome.signals:
        if summary.signal == signal and np.isfinite(summary.auc):
            found.setdefault(summary.epoch, []).append(summary.auc)
    return {epoch: float(np.mean(values)) for epoch, values in found.items()}


def _over_rates(runs: Sequence[StoredRun], value: Callable[[StoredRun], float]) -> Curve:
    """Real noise stands at 0."""
    seeds: dict[int, dict[float, float]] = {}
    for run in runs:
        seeds.setdefault(run.record.cell.seed, {})[100 * (run.rate or 0.0)] = value(run)
    return curve(list(seeds.values()))


def _in_pages(
    setting: Setting, runs: Sequence[StoredRun], lines: Lines, out_dir: Path, kind: str, draw: Callable[..., Figure]
) -> list[Path]:
    """A figure for every dozen methods, oracles on each of them; axes are the same on all."""
    labels, paths = labels_of(runs), []
    oracles = sorted({run.name for run in runs if "oracle" in run.record.method_flags} & lines.keys())
    others = sorted(name for name, one in lines.items() if len(one) and name not in oracles)
    parts = pages(others, MOST_LINES)
    for number, part in enumerate(parts, 1):
        ending, more = page_words(number, len(parts))
        with drawing():
            figure = draw(setting, sorted([*part, *oracles]), labels, more)
            paths += save(figure, out_dir, f"{kind}_{setting.slug()}{ending}")
    return paths


def _line(axes: Axes, one: Curve, look: Look, **more: object) -> None:
    """The mean, and a band where two seeds or more have a value; a lone point gets its marker."""
    if len(one) == 1:
        more |= marked(look, 5)
    style = {"color": look.color, "linestyle": look.dash, "linewidth": 1.3} | more
    axes.plot(one.x, one.mean, **style)  # type: ignore[arg-type]
    low, high = one.mean - one.std, one.mean + one.std
    axes.fill_between(one.x, low, high, where=np.isfinite(one.std), color=look.color, alpha=0.13, linewidth=0)


def band_words(lines: Sequence[Curve]) -> str:
    """What line and band are, and over how many seeds."""
    counts = sorted({int(n) for one in lines for n in one.n})
    if counts == [1]:
        return "Lines: n = 1 seed, so that there is no band."
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    alone = ", no band where there is one seed" if counts[0] == 1 else ""
    return f"Lines: mean; bands: mean ± sample standard deviation over n = {n} seeds{alone}."


def _limits(lines: Sequence[Curve], least: float = -np.inf, most: float = np.inf) -> tuple[float, float]:
    """Of all pages alike: from the lowest to the highest band, with some air."""
    low = min(float(np.min(one.mean - np.nan_to_num(one.std))) for one in lines if len(one))
    high = max(float(np.max(one.mean + np.nan_to_num(one.std))) for one in lines if len(one))
    air = 0.04 * (high - low) or 1.0
    return max(low - air, least), min(high + air, most)


def _panels(
    n_rows: int, n_columns: int, width: float, height: float, sharey: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    figure = new_figure(max(width * n_columns + 2.7, 6.8), height * n_rows + 1.3)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=sharey)
    return figure, [list(line) for line in axes]


@dataclass(frozen=True)
class _ScoresOverRates:
    chosen: Lines
    last: Lines

    def __call__(self, setting: Setting, names: Sequence[str], labels: dict[str, str], more: str) -> Figure:
        styles = looks(names)
        figure, axes = _panels(1, 2, width=3.1, height=3.1)
        for panel, lines, title in zip(
            axes[0], (self.chosen, self.last), ("selected epoch", "last epoch"), strict=True
        ):
            for name in names:
                _line(panel, lines[name], styles[name], **marked(styles[name], 4))
            panel.set_title(title)
            panel.set_xlabel(f"noise rate (% of {setting.things})")
            panel.set_xticks(sorted({x for one in lines.values() for x in one.x}))
        axes[0][0].set_ylabel(f"test {setting.score}".replace(" (", "\n("))
        axes[0][0].set_ylim(*_limits([*self.chosen.values(), *self.last.values()], least=0.0))
        legend(figure, names, labels)
        caption = (
            f"{setting.caption()} {_where(setting)}; left after the selected epoch ({setting.selection}), right "
            f"after the last. {band_words([self.chosen[name] for name in names])}"
        )
        finish(figure, f"{_short(setting)} against noise rate: {setting.words()}{more}", caption)
        return figure


@dataclass(frozen=True)
class _Validation:
    lines: dict[float | None, Lines]
    chosen: dict[float | None, dict[str, float]]

    def __call__(self, setting: Setting, names: Sequence[str], labels: dict[str, str], more: str) -> Figure:
        styles, count = looks(names), len(self.lines)
        columns = min(count, 3)
        figure, axes = _panels(-(-count // columns), columns, width=2.8, height=2.4, sharey=False)
        panels = [panel for line in axes for panel in line]
        for panel in panels[count:]:
            panel.remove()
        for number, (panel, (rate, lines)) in enumerate(zip(panels, self.lines.items(), strict=False)):
            for name in (name for name in names if name in lines):
                _line(panel, lines[name], styles[name])
                _mark(panel, lines[name], self.chosen[rate][name], styles[name])
            panel.set_title(rate_words(rate))
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            panel.set_ylim(*_limits(list(lines.values()), least=0.0))
            panel.tick_params(labelbottom=True)
            if number + columns >= count:
                panel.set_xlabel("epoch")
        for line in axes:
            line[0].set_ylabel(f"validation {setting.score}".replace(" (", "\n("))
        legend(figure, names, labels)
        shown = [lines[name] for lines in self.lines.values() for name in names if name in lines]
        caption = (
            f"{setting.caption()} Epoch 0 is before training; methods in closed form have one point. Markers: selected epoch "
            f"({setting.selection}), median over seeds; a fall after it, under noise, is a sign of memorised noisy {setting.things}. "
            f"Scales differ between panels. {band_words(shown)}"
        )
        finish(figure, f"Validation over epochs: {setting.words()}{more}", caption)
        return figure


def _mark(axes: Axes, one: Curve, epoch: float, look: Look) -> None:
    nearest = int(np.argmin(np.abs(one.x - epoch)))
    axes.plot(
        one.x[nearest], one.mean[nearest], color=look.color, linestyle="none", **marked(look, 6),
        markeredgecolor="white", markeredgewidth=0.7, zorder=4,
    )  # fmt: skip


@dataclass(frozen=True)
class _Auc:
    panels: dict[tuple[str, float | None], Lines]

    def __call__(self, setting: Setting, names: Sequence[str], labels: dict[str, str], more: str) -> Figure:
        styles = looks(names)
        signals = [signal for signal in SIGNALS if any(signal == key for key, _ in self.panels)]
        rates = sorted({rate for _, rate in self.panels}, key=lambda rate: -1.0 if rate is None else rate)
        figure, axes = _panels(len(signals), len(rates), width=2.2, height=1.9)
        for row, (line, signal) in enumerate(zip(axes, signals, strict=True)):
            for panel, rate in zip(line, rates, strict=True):
                lines = self.panels.get((signal, rate), {})
                panel.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
                for name in (name for name in names if name in lines):
                    _line(panel, lines[name], styles[name], markevery=_sparse(lines[name]), **marked(styles[name], 4))
                if row == 0:
                    panel.set_title(rate_words(rate))
                panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            line[0].set_ylabel(f"AUC of\n{SIGNALS[signal]}")
        for panel in axes[-1]:
            panel.set_xlabel("epoch")
        everything = [one for lines in self.panels.values() for one in lines.values()]
        low, high = _limits(everything, least=0.0, most=1.02)
        axes[0][0].set_ylim(min(low, 0.45), max(high, 0.55))
        legend(
            figure,
            names,
            labels,
            [Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), label="chance (0.5)")],
        )
        shown = [lines[name] for lines in self.panels.values() for name in names if name in lines]
        caption = (
            f"{setting.caption()} Area under the ROC curve for recognising noisy training {setting.things} by what each method logs, "
            f"over visited {setting.things} (those that a partition left out have weight 0), mean over its networks; 1 is perfect. "
            f"{band_words(shown)}"
        )
        finish(figure, f"Recognition of noisy {setting.things}: {setting.words()}{more}", caption)
        return figure


def _sparse(one: Curve) -> int:
    """Six markers or so along a line."""
    return -(-len(one) // 6)


def _points(setting: Setting, rate: float | None, chosen: Lines, last: Lines, labels: dict[str, str]) -> Figure:
    """One rate: methods down, best on top."""
    names = sorted((name for name, one in chosen.items() if len(one)), key=lambda name: float(chosen[name].mean[0]))
    styles = looks(names)
    figure = new_figure(6.8, 0.34 * len(names) + 1.9)
    axes = figure.subplots()
    for height, name in enumerate(names):
        look, one = styles[name], chosen[name]
        axes.errorbar(
            one.mean, [height], xerr=None if np.isnan(one.std[0]) else one.std, color=look.color, capsize=2, **marked(look, 5)
        )  # fmt: skip
        axes.plot(last[name].mean, [height - 0.22], color=look.color, markerfacecolor="white", **marked(look, 4))
    axes.set_yticks(range(len(names)), [wrap(labels[name], 40) for name in names])
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel(f"test {setting.score}")
    spread = band_words(list(chosen.values()))
    caption = (
        f"{setting.caption()} {_where(setting)}. Filled: after the selected epoch ({setting.selection}); hollow: "
        f"after the last. {spread.replace('Lines', 'Points').replace('band', 'bar')}"
    )
    where = setting.words() if rate is None else f"{setting.dataset}, {rate_words(rate)} ({setting.noise})"
    finish(figure, f"{_short(setting)}: {where}", caption)
    return figure
