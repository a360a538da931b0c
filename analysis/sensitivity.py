"""The sensitivity table: what one changed setting of a method does to its score, paired run by run with the unchanged one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tabulate import tabulate

from ..results.measures import measure
from .frame import AnalysisError
from .intervals import Interval, over_seeds
from .significance import headline_of

# What a pair of runs must share; the rest of a record's identity is variant and overrides, which are what changes.
BLOCK = ["dataset", "noise", "rate", "bits"]
COLUMNS = ("data set", "changed", "blocks", "seeds", "score", "change", "95 % interval", "in words")
TABULATE = {"terminal": "simple", "markdown": "github", "latex": "latex_booktabs"}


@dataclass(frozen=True)
class Change:
    """One changed setting on one data set.

    Attributes:
        changed: variant, overrides of the protocol, or both.
        blocks: noise rates and code lengths that both have.
        score: mean of the changed runs, unit of the measure.
        change: changed minus unchanged, over the seeds that both have.
    """

    dataset: str
    changed: str
    blocks: int
    score: float
    change: Interval

    @property
    def words(self) -> str:
        """The verdict that the interval allows."""
        if not self.change.enough():
            return "too few seeds to tell"
        if not self.change.excludes_zero():
            return "cannot be told apart"
        return "higher" if self.change.mean > 0 else "lower"


def sensitivity(frame: pd.DataFrame, method: str) -> list[Change]:
    """Every variant and every change of the protocol against the given one, by data set.

    Args:
        frame: records of :func:`~nocobench.analysis.frame.load_frame`, one task.
        method: ``rshnl@released``: what is unchanged, without overrides; of a bare name the variant with the most runs,
            the first by name of several.

    Raises:
        AnalysisError: no unchanged runs, or nothing that was changed.
    """
    name, _, variant = method.partition("@")
    runs = frame[(frame["method"] == name) & (frame["status"] == "done")]
    plain = runs[(runs["overrides"] == "") & runs["variant"].isin([variant] if variant else set(runs["variant"]))]
    if plain.empty:
        raise AnalysisError(f"no finished run of {method!r} without overrides, to which changed ones could be compared")
    variant = str(plain["variant"].value_counts().sort_index().idxmax())
    score = headline_of(runs)
    base = plain[plain["variant"] == variant].set_index([*BLOCK, "seed"])[score]
    found = list(_changes(runs, variant, base, score))
    if not found:
        raise AnalysisError(
            f"no run of {name!r} differs from {name}@{variant} in variant or overrides on the same cells"
        )
    return sorted(found, key=lambda one: (one.dataset, one.changed))


def _changes(runs: pd.DataFrame, variant: str, base: pd.Series, score: str) -> Iterator[Change]:
    for (other, overrides, dataset), part in runs.groupby(["variant", "overrides", "dataset"], sort=True):
        words = ([] if other == variant else [f"variant {other}"]) + _settings(str(overrides))
        pairs = pd.concat([part.set_index([*BLOCK, "seed"])[score], base], axis=1, join="inner", keys=["new", "old"])
        if not words or pairs.empty:
            continue
        difference = (pairs["new"] - pairs["old"]).unstack("seed").dropna(axis=1)
        n_seeds = difference.shape[1]
        if n_seeds:
            interval = over_seeds([difference.to_numpy(dtype=np.float64)]).interval(n_seeds, "seeds")
            yield Change(str(dataset), ", ".join(words), len(difference), float(pairs["new"].mean()), interval)


def _settings(overrides: str) -> list[str]:
    return [f"{key.replace('_', ' ')} {value}" for key, value in sorted(json.loads(overrides or "{}").items())]


def sensitivity_text(frame: pd.DataFrame, method: str, form: str) -> str:
    """The table as text: ``terminal``, ``markdown``, ``latex`` or ``csv``, and (but for csv) a sentence that says what it shows."""
    found = sensitivity(frame, method)
    if form == "csv":
        rows = [
            (
                c.dataset,
                c.changed,
                c.blocks,
                c.change.runs,
                c.score,
                c.change.mean,
                c.change.low,
                c.change.high,
                c.words,
            )
            for c in found
        ]
        names = [*COLUMNS[:6], "low", "high", "in words"]
        return pd.DataFrame(rows, columns=names).to_csv(index=False)
    shown = [
        (
            c.dataset,
            c.changed,
            c.blocks,
            c.change.runs,
            f"{c.score:.1f}",
            f"{c.change.mean:+.1f}",
            _ends(c.change),
            c.words,
        )
        for c in found
    ]
    caption = (
        f"Changes of {method}: {measure(headline_of(frame)).label} in points against the unchanged method, paired by noise rate, code "
        "length and seed; 95 % interval (Student's) over seeds, the data set taken as it is, not adjusted for the number of rows."
    )
    return f"{tabulate(shown, headers=COLUMNS, tablefmt=TABULATE[form], disable_numparse=True)}\n\n{caption}\n"


def _ends(interval: Interval) -> str:
    return "–" if not np.isfinite(interval.low) else f"{interval.low:+.1f} to {interval.high:+.1f}"
