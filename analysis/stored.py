"""Finished runs as the figures need them: record, sidecar on demand, grouped by what one figure may show together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from ..results.files import folder_name
from ..results.measures import HEADLINES, LABEL_NOISE, NOISE_LEVELS
from ..results.record import Outcome, RunRecord
from ..results.sidecar import SidecarError, read_sidecar, sidecar_path
from ..results.store import protocol_folder
from .frame import AnalysisError

PLAIN_VARIANT = "paper"
SCORES = {
    "pair-retrieval": "rSum (sum of six recalls in %)",
    "label-hashing": "MAP (%, mean of both directions)",
}
Name = TypeVar("Name")


@dataclass(frozen=True)
class Setting:
    """What all runs of one figure share; ``rate`` is None for real noise and in figures that have several rates.

    ``protocol`` is ``digits-pairs v1``, ``changes`` what the command line changed of it in words; ``folder`` tells all of that apart.
    """

    folder: str
    protocol: str
    changes: str
    track: str
    backbone: str
    dataset: str
    noise: str
    selection: str
    gallery: str
    rate: float | None = None
    task: str = "pair-retrieval"
    bits: int | None = None

    @property
    def things(self) -> str:
        """What is clean or noisy: ``pairs``, or ``items`` where their labels are."""
        return "pairs" if self.task == "pair-retrieval" else "items"

    @property
    def score(self) -> str:
        """The headline of the task in words."""
        return SCORES[self.task]

    @property
    def _codes(self) -> str:
        if self.task == "pair-retrieval":
            return ""
        return "real-valued" if self.bits is None else f"{self.bits} bits"

    def slug(self) -> str:
        """For file names: ``digits-pairs-v1_digits_nested-mismatch-0.4``."""
        track = "" if self.track == "fixed-budget" else f"_{self.track}"
        rate = "" if self.rate is None else f"-{self.rate:g}"
        codes = f"_{self._codes.replace(' ', '-')}" if self._codes else ""
        return f"{self.folder}{track}_{folder_name(self.dataset)}_{folder_name(self.noise)}{rate}{codes}"

    def words(self) -> str:
        """For titles: ``digits, 40 % noise (nested-mismatch)``."""
        if self.noise == "none":
            return f"{self.dataset}, real noise"
        codes = f", {self._codes}" if self._codes else ""
        return f"{self.dataset}{codes}, " + (
            f"{self.noise} noise" if self.rate is None else f"{percent(self.rate)} noise ({self.noise})"
        )

    def caption(self) -> str:
        """Protocol, track, backbone and what noise means here."""
        known = NOISE_LEVELS if self.task == "pair-retrieval" else LABEL_NOISE
        level = known.get(self.noise, "level as the noise model defines it")
        changes = f", overridden: {self.changes}" if self.changes else ""
        return f"Protocol {self.protocol}{changes}; track {self.track}; backbone {self.backbone}. Noise: {self.noise} ({level})."


@dataclass(frozen=True)
class StoredRun:
    """A finished run, ``name`` = ``method@variant``; ``score`` and ``last_score`` are the headline of its task on ``gallery``."""

    record: RunRecord
    path: Path
    gallery: str = "full"
    selection: str = ""
    score: float = float("nan")
    last_score: float = float("nan")

    @property
    def name(self) -> str:
        return f"{self.record.cell.method}@{self.record.cell.variant}"

    @property
    def outcome(self) -> Outcome:
        assert self.record.outcome is not None  # load_runs keeps finished runs only
        return self.record.outcome

    @property
    def rate(self) -> float | None:
        return self.record.cell.rate

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The sidecar.

        Raises:
            AnalysisError: missing or damaged.
        """
        try:
            return read_sidecar(sidecar_path(self.path))
        except SidecarError as error:
            raise AnalysisError(str(error)) from error

    def setting(self, with_rate: bool) -> Setting:
        """Of the figure that this run belongs to."""
        cell = self.record.cell
        return Setting(
            folder=protocol_folder(cell.protocol, cell.version, cell.overrides),
            protocol=f"{cell.protocol} v{cell.version}",
            changes=", ".join(f"{name} = {json.dumps(value)}" for name, value in sorted(cell.overrides.items())),
            track=cell.track,
            backbone=cell.backbone,
            dataset=cell.dataset,
            noise=cell.noise,
            selection=self.selection,
            gallery=self.gallery,
            rate=cell.rate if with_rate else None,
            task=cell.task,
            bits=cell.bits,
        )


def load_runs(frame: pd.DataFrame) -> list[StoredRun]:
    """The finished runs among the rows of :func:`.frame.load_frame`, in order of path."""
    done = frame[frame["status"] == "done"].sort_values("path", kind="stable")
    if done.empty:
        return []
    headline = done["task"].map(HEADLINES)
    score, last = (
        pd.concat([done.loc[headline == name, f"{prefix}{name}"] for name in headline.unique()]).reindex(done.index)
        for prefix in ("", "last_")
    )
    columns = (done["path"], done["gallery"], done["selection"], score, last)
    return [
        StoredRun(RunRecord.model_validate_json(Path(path).read_bytes()), Path(path), *rest)
        for path, *rest in zip(*columns, strict=True)
    ]


def by_setting(runs: Iterable[StoredRun], with_rate: bool) -> list[tuple[Setting, list[StoredRun]]]:
    """One group per figure, in order of file name.

    Raises:
        AnalysisError: two groups would go into the same file.
    """
    groups: dict[Setting, list[StoredRun]] = defaultdict(list)
    for run in runs:
        groups[run.setting(with_rate)].append(run)
    slugs = [setting.slug() for setting in groups]
    for setting in groups:
        if slugs.count(setting.slug()) > 1:
            raise AnalysisError(
                f"records of {setting.slug()} differ in backbone, selection rule or gallery; draw their folders one by one"
            )
    return sorted(groups.items(), key=lambda item: item[0].slug())


def by_method(runs: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    """Seeds of each method in order, methods in order of name."""
    groups: dict[str, list[StoredRun]] = defaultdict(list)
    for run in runs:
        groups[run.name].append(run)
    return {name: sorted(groups[name], key=lambda run: run.record.cell.seed) for name in sorted(groups)}


def by_rate(runs: Iterable[StoredRun]) -> dict[float | None, list[StoredRun]]:
    """In order of rate, real noise first."""
    groups: dict[float | None, list[StoredRun]] = defaultdict(list)
    for run in runs:
        groups[run.rate].append(run)
    return {rate: groups[rate] for rate in sorted(groups, key=lambda rate: -1.0 if rate is None else rate)}


def pages(names: Sequence[Name], most: int) -> list[list[Name]]:
    """The names in order, in as few groups of at most ``most`` as possible, of sizes that differ by one at most."""
    count = max(1, -(-len(names) // most))
    return [list(names[len(names) * i // count : len(names) * (i + 1) // count]) for i in range(count)]


def page_words(number: int, count: int) -> tuple[str, str]:
    """Ending of the file name, and what the title adds; both empty for a single page."""
    return ("", "") if count == 1 else (f"_part{number}", f" (part {number} of {count})")


def unique_labels(methods: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """``(method, variant, label)`` -> how each ``method@variant`` is printed.

    The label of the record, with the variant where it is not ``paper``; where two would look alike, the name is added.
    """
    shown: dict[str, str] = {}
    for method, variant, label in sorted(set(methods)):
        shown.setdefault(f"{method}@{variant}", label if variant == PLAIN_VARIANT else f"{label} @{variant}")
    texts = list(shown.values())
    return {name: text if texts.count(text) == 1 else f"{text} [{name}]" for name, text in shown.items()}


def labels_of(runs: Iterable[StoredRun]) -> dict[str, str]:
    """Label of each method among the runs."""
    return unique_labels((run.record.cell.method, run.record.cell.variant, run.record.method_label) for run in runs)


def seeds_in_words(counts: Iterable[int]) -> str:
    """``5 seeds``, ``1 seed``, ``3 to 5 seeds``."""
    low, high = min(found := sorted(set(counts))), max(found)
    return f"{low} to {high} seeds" if low != high else f"{low} seed" + ("" if low == 1 else "s")


def percent(rate: float | None) -> str:
    """``40 %``; ``real noise`` for None."""
    return "real noise" if rate is None else f"{100 * rate:g} %"


def rate_words(rate: float | None) -> str:
    """``40 % noise``; ``real noise`` for None."""
    return "real noise" if rate is None else f"{percent(rate)} noise"
