"""What the page holds per epoch and per query, for a bounded number of its rows: training curves, densities, queries compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .curves import SIGNALS, val_score
from .densities import BINS, COLOURS, networks_of, rebin
from .frame import AnalysisError
from .report_queries import queries_payload
from .report_rows import PageRow, number
from .report_statistics import MAIN
from .stored import StoredRun, load_runs

DETAILS = 200  # rows with details, unless asked for another number
MOST_EPOCHS = 25  # of a density's slider
SHOWN_SIGNALS = ("weight", "clean_probability", "loss")
DIGITS64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
SCALE = len(DIGITS64) ** 2 - 1

Floats = NDArray[np.float64]


@dataclass
class Details:
    """What is carried, for how many of the rows that could have it, and why some have none."""

    training: list[dict[str, Any]] = field(default_factory=list)
    densities: list[dict[str, Any]] = field(default_factory=list)
    queries: list[dict[str, Any]] = field(default_factory=list)
    shown: int = 0
    of: int = 0
    problems: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """What was left out, and how to include it; empty where nothing was."""
        text = ""
        if self.shown < self.of:
            text = (
                f"Curves over epochs, densities and queries are in this page for {self.shown:,} of {self.of:,} rows, the variants "
                "paper and released first, all data sets and rates alike; the option --details N puts in more of them, --methods chooses "
                "others."
            )
        if self.problems:
            words = "1 run is" if len(self.problems) == 1 else f"{len(self.problems)} runs are"
            text += f" {words} without densities and queries, the first because: {self.problems[0]}."
        return text.strip()


def details(rows: Sequence[PageRow], frame: pd.DataFrame, most: int = DETAILS) -> Details:
    """Per-epoch and per-query data of at most ``most`` rows.

    Args:
        rows: of :func:`.report_rows.page_rows`.
        frame: that they were made from.
        most: how many rows; 0 for none.
    """
    able = [place for place, one in enumerate(rows) if one.entry.n]
    chosen = choose(rows, able, most)
    found = Details(shown=len(chosen), of=len(able))
    here: dict[tuple[Any, ...], list[tuple[int, list[StoredRun]]]] = {}
    for place in chosen:
        runs = load_runs(frame.iloc[list(rows[place].records)])
        found.training.append({"row": place} | training_of(runs))
        readable = _readable(runs, found.problems)
        for signal in SHOWN_SIGNALS:
            found.densities += [{"row": place} | one for one in [density_of(readable, signal)] if one is not None]
        here.setdefault(rows[place].place, []).append((place, readable))
    for together in here.values():
        found.queries += queries_payload([(place, runs) for place, runs in together if runs])
    return found


def choose(rows: Sequence[PageRow], able: Sequence[int], most: int) -> list[int]:
    """Numbers of the rows that get details: in turn one of every place, main variants first, methods with more records before others."""
    records: dict[str, int] = {}
    for place in able:
        records[rows[place].name] = records.get(rows[place].name, 0) + rows[place].entry.n
    places: dict[tuple[Any, ...], list[int]] = {}
    for place in able:
        places.setdefault(rows[place].place, []).append(place)

    def order(place: int) -> tuple[bool, int, str]:
        name = rows[place].name
        return name.partition("@")[2] not in MAIN, -records[name], name

    ordered = [sorted(one, key=order) for one in places.values()]
    turns = max(map(len, ordered), default=0)
    queue = [one[turn] for turn in range(turns) for one in ordered if turn < len(one)]
    return sorted(queue[: max(most, 0)])


def _readable(runs: Sequence[StoredRun], problems: list[str]) -> list[StoredRun]:
    good = []
    for run in runs:
        try:
            _ = run.arrays
            good.append(run)
        except AnalysisError as error:
            problems.append(str(error))
    return good


def training_of(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Over epochs, means over seeds: validation and test score with standard deviations, losses, recognition of what is noisy."""
    epochs = sorted({entry.epoch for run in runs for entry in run.outcome.history})
    values: dict[str, Callable[[StoredRun], Mapping[int, float]]] = {
        "validation": lambda run: {entry.epoch: val_score(entry) for entry in run.outcome.history},
        "test": lambda run: {entry.epoch: _test_score(entry) for entry in run.outcome.history},
    }
    for signal in SIGNALS:
        values[f"AUC of {SIGNALS[signal]}"] = lambda run, signal=signal: _auc(run, signal)  # type: ignore[misc]
    for name in sorted({name for run in runs for entry in run.outcome.history for name in entry.losses}):
        values[f"loss: {name}"] = lambda run, name=name: _loss(run, name)  # type: ignore[misc]
    curves = {}
    for name, of in values.items():
        table = np.array([[one.get(epoch, math.nan) for epoch in epochs] for one in map(of, runs)], dtype=float)
        if np.isfinite(table).any():
            curves[name] = {"mean": _means(table), "sd": _spreads(table)}
    return {
        "epochs": epochs,
        "seeds": len(runs),
        "selected": [run.outcome.selected.epoch for run in runs],
        "curves": curves,
    }


def _test_score(entry: Any) -> float:
    return float(entry.test_map if hasattr(entry, "test_map") else entry.test_rsum)


def _loss(run: StoredRun, name: str) -> dict[int, float]:
    return {entry.epoch: entry.losses[name] for entry in run.outcome.history if name in entry.losses}


def _auc(run: StoredRun, signal: str) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for summary in run.outcome.signals:
        if summary.signal == signal and math.isfinite(summary.auc):
            found.setdefault(summary.epoch, []).append(summary.auc)
    return {epoch: sum(values) / len(values) for epoch, values in found.items()}


def _means(table: Floats) -> list[float | None]:
    frame = pd.DataFrame(table)
    return [number(value) for value in frame.mean()]


def _spreads(table: Floats) -> list[float | None]:
    frame = pd.DataFrame(table)
    return [number(value) for value in frame.std(ddof=1)]


def density_of(runs: Sequence[StoredRun], signal: str) -> dict[str, Any] | None:
    """Histograms of clean and of noisy pairs epoch by epoch, the pairs of all seeds pooled; None where no seed logged the signal.

    ``clean`` and ``noisy`` hold a string per epoch, two digits to base 64 per bin: the share of the side's pairs, times 4095 / ``top``.
    """
    networks = sorted({one for run in runs for one in networks_of(run, signal) if _complete(run, signal, one)})
    if not networks:
        return None
    network = networks[0]  # one is shown, because averaging several would hide how each of them sorts
    mine = [run for run in runs if _complete(run, signal, network)]
    old = [run.arrays[f"edges/{signal}/{network}"].astype(float) for run in mine]
    edges = np.linspace(min(one[0] for one in old), max(one[-1] for one in old), BINS + 1)
    epochs = _spread_out(sorted({int(epoch) for run in mine for epoch in _logged(run, signal, network)}))
    shares: dict[str, list[Floats]] = {side: [] for side in COLOURS}
    excluded: dict[str, list[float | None]] = {side: [] for side in COLOURS}
    for epoch in epochs:
        for side in COLOURS:
            counts, outside = _pooled(mine, old, edges, (signal, network, side), epoch)
            whole = counts.sum() + outside or 1.0
            shares[side].append(counts / whole)
            excluded[side].append(number(round(outside / whole, 4)))
    top = max(float(one.max()) for side in COLOURS for one in shares[side]) or 1.0
    return {
        "signal": signal,
        "network": network if len(networks) > 1 else "",
        "low": number(edges[0]),
        "high": number(edges[-1]),
        "epochs": epochs,
        "top": number(top),
        "auc": [_mean_auc(mine, signal, network, epoch) for epoch in epochs],
        "seeds": len(mine),
        "selected": sorted({run.outcome.selected.epoch for run in mine}),
        "excluded": excluded,
        **{side: [packed(one / top) for one in shares[side]] for side in COLOURS},
    }


def _complete(run: StoredRun, signal: str, network: str) -> bool:
    """Whether the sidecar has all arrays of a signal."""
    names = [f"{kind}/{signal}/{network}/{side}" for kind in ("histogram", "excluded") for side in COLOURS]
    return {*names, f"edges/{signal}/{network}", "signal_epochs"} <= set(run.arrays)


def _logged(run: StoredRun, signal: str, network: str) -> NDArray:
    key = f"histogram/{signal}/{network}"
    filled = run.arrays[f"{key}/clean"].any(axis=1) | run.arrays[f"{key}/noisy"].any(axis=1)
    return np.asarray(run.arrays["signal_epochs"][filled])


def _spread_out(epochs: Sequence[int]) -> list[int]:
    """At most :data:`MOST_EPOCHS` of them, the first and the last always."""
    if len(epochs) <= MOST_EPOCHS:
        return list(epochs)
    places = np.unique(np.linspace(0, len(epochs) - 1, MOST_EPOCHS).round().astype(int))
    return [epochs[place] for place in places]


def _pooled(
    runs: Sequence[StoredRun], old: Sequence[Floats], edges: Floats, what: tuple[str, str, str], epoch: int
) -> tuple[Floats, float]:
    """Counts per bin, and how many pairs a partition left out (these have weight 0, but neither a probability nor a loss)."""
    counts, outside, (signal, network, side) = np.zeros(len(edges) - 1), 0.0, what
    for run, mine in zip(runs, old, strict=True):
        for line in np.flatnonzero(run.arrays["signal_epochs"] == epoch):
            counts += rebin(run.arrays[f"histogram/{signal}/{network}/{side}"][line], mine, edges)
            outside += float(run.arrays[f"excluded/{signal}/{network}/{side}"][line]) if signal == "weight" else 0.0
    return counts, outside


def _mean_auc(runs: Sequence[StoredRun], signal: str, network: str, epoch: int) -> float | None:
    found = [
        one.auc
        for run in runs
        for one in run.outcome.signals
        if (one.signal, one.network, one.epoch) == (signal, network, epoch) and math.isfinite(one.auc)
    ]
    return number(round(sum(found) / len(found), 4)) if found else None


def packed(values: Floats) -> str:
    """Numbers between 0 and 1 as two digits to base 64 each."""
    whole = np.clip(np.rint(values * SCALE), 0, SCALE).astype(int)
    return "".join(DIGITS64[one // 64] + DIGITS64[one % 64] for one in whole)
