"""Records as one tidy data frame: a row per cell, numbers with full precision, gaps as NaN.

Columns, in groups:

- identity: ``cell_id, task, protocol, version, overrides`` (canonical JSON, empty for none), ``dataset, noise, rate`` (NaN for real noise),
  ``method, variant, backbone, track, seed, bits`` (NaN where there are no codes);
- ``status`` (done, failed, timeout, not_applicable), ``reason``, ``label``, ``flags`` (tuple of strings), ``stale`` (None = not checked);
- scores of the selected epoch: ``i2t_r1`` ... ``t2i_r10``, ``rsum``, ``mean_r1``, ``i2t_median_rank`` ... ``t2i_mean_rank``, on the
  gallery that ``gallery`` names (full or folds); always on the whole test split: ``full_rsum``; ``auc`` of recognising noisy pairs;
- honesty: ``last_rsum, best_on_test_rsum, single_rsum, noisy_val_rsum, optimism, selected_epoch, networks_at_test, parameters,
  gradient_steps, grants``; ``nominal_rate, realised_rate, noise_digest``;
- cost and circumstances: ``seconds, joules, peak_memory_bytes, device, git_commit, git_dirty``; ``sources, data, packages, machine``
  (canonical JSON of names and digests or versions), ``threads, width, started, command``; ``outcome_digest``, ``path``;
- of label-based retrieval: ``i2t_map, t2i_map, mean_map, mean_map_lower, mean_map_upper, mean_map_at_k, mean_precision_radius_2``;
  ``last_mean_map, best_on_test_mean_map, noisy_val_mean_map, map_optimism, tie_width, still_true, wrong_affinity``;
- from the protocol's snapshot: ``selection`` (the rule in words), ``noise_level``, ``database`` and ``database_codes`` (what test queries
  search, empty for pairs).

Columns that a task does not have are NaN.

``frame.attrs["broken"]`` lists ``(path, reason)`` of the files that could not be used; they are in no row.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..results.record import RunRecord
from ..results.store import BrokenRecord, RecordStore, StoreError
from .rows import (
    ALWAYS,
    CIRCUMSTANCES,
    GALLERY,
    IDENTITY,
    NUMBERS,
    OF_GALLERY,
    OF_RUN,
    SCORES,
    TEXTS,
    Stored,
    stored_rows,
)

Gallery = Literal["headline", "full", "folds"]
# What must be the same throughout one table.
TABLE_KEYS = (
    "task", "protocol", "version", "overrides", "dataset", "noise", "backbone", "track", "gallery",
    "selection", "database", "database_codes",
)  # fmt: skip
COLUMNS = (
    "cell_id", *IDENTITY, "status", "reason", "label", "flags", "stale", "gallery", *SCORES, *OF_GALLERY, *OF_RUN, "grants", "noise_digest",
    "device", "git_commit", "git_dirty", *CIRCUMSTANCES, "outcome_digest", "path", "selection", "noise_level", "database", "database_codes",
)  # fmt: skip
UNKNOWN_RULE = "selection rule unknown (no protocol.json beside the records)"


# How `_Context.row` puts a row together, and where it finds what decides on the words of a protocol.
_PARTS = (*ALWAYS, *GALLERY, "stale", "gallery", "path", "selection", "database", "database_codes")
# pandas takes pyarrow for strings where that is installed, which makes small slices several times as slow; frames are the same everywhere.
_STRING = pd.StringDtype(storage="python", na_value=float("nan"))
_CELL_ID = ALWAYS.index("cell_id")
_OF_PROTOCOL = tuple(ALWAYS.index(name) for name in ("protocol", "version", "overrides", "task", "noise"))


class AnalysisError(ValueError):
    """Records that cannot be analysed as asked; one sentence: culprit, finding, remedy."""


def load_frame(
    roots: Sequence[Path],
    gallery: Gallery = "headline",
    stale: Callable[[RunRecord], bool] | None = None,
    cells: Collection[str] | None = None,
    again: bool = False,
) -> pd.DataFrame:
    """All records under the folders, a row each; see the module docstring for the columns.

    Rows that an earlier reading computed from the same bytes are taken from the index (``results/index.py``).

    Args:
        roots: folders of records (``results/runs``, ``results/reference/<machine kind>``).
        gallery: which test gallery the scores are on; ``headline`` follows each protocol's snapshot (the whole split without one).
        stale: whether a record was made by other source code than today's; None leaves the column empty.
        cells: ids of the only cells that are wanted; None takes all.
        again: parse and check every file, whatever the index knows.

    Raises:
        AnalysisError: a folder does not exist; a cell lies in two of the folders; ``folds`` where a protocol has none.
    """
    rows: list[tuple[Any, ...]] = []
    broken: list[tuple[str, str]] = []
    for root in map(Path, roots):
        if not root.is_dir():
            raise AnalysisError(
                f"there are no records in {root}; run the benchmark first, or name its folder with --results"
            )
        context = _Context(RecordStore(root), gallery)
        for found, content in stored_rows(context.store, again):
            if isinstance(found, BrokenRecord):
                broken.append((str(found.path), found.reason))
            elif cells is None or found.values[_CELL_ID] in cells:
                old = None if stale is None else stale(RunRecord.model_validate_json(content))
                rows.append(context.row(found, old))
    columns = list(zip(*rows, strict=True)) or [()] * len(_PARTS)
    typed = {
        name: pd.array(values, dtype=_STRING) if name in TEXTS else values
        for name, values in zip(_PARTS, columns, strict=True)
    }
    frame = pd.DataFrame(typed, columns=list(COLUMNS))
    number = list(NUMBERS)
    frame[number] = frame[number].astype(float)
    _refuse_duplicates(frame)
    frame.attrs["broken"] = broken
    return frame


def select(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Rows whose columns have the wanted values: ``select(frame, protocol="digits-pairs", method=["clip", "npc"])``.

    Raises:
        AnalysisError: no such column, or a wanted value that no row has.
    """
    for column, value in wanted.items():
        if column not in frame:
            raise AnalysisError(f"records have no column {column!r}; known are {', '.join(map(str, frame.columns))}")
        values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
        absent = [one for one in values if not (frame[column] == one).any()]
        if absent:
            present = ", ".join(sorted({str(one) for one in frame[column]})) or "none at all"
            raise AnalysisError(f"no record has {column} {absent[0]!r}; present are {present}")
        frame = frame[frame[column].isin(values)]
    return frame


def parts(frame: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """One frame per table: the values of :data:`TABLE_KEYS` and the rows that share them, in order of protocol and data set."""
    for keys, part in frame.groupby(list(TABLE_KEYS), sort=True, dropna=False):
        yield dict(zip(TABLE_KEYS, keys, strict=True)), part


def require_unmixed(frame: pd.DataFrame) -> None:
    """Refuse to compare what was not measured under the same protocol.

    Raises:
        AnalysisError: two values of one of :data:`TABLE_KEYS`.
    """
    for column in TABLE_KEYS:
        values = sorted({str(value) or "none" for value in frame[column]})
        if len(values) > 1:
            raise AnalysisError(
                f"these records mix {column} {values[0]} and {values[1]}, which one table must not; choose one of them or ask for mixing"
            )


class _Context:
    """What rows of one folder have in common; snapshots are read once per protocol."""

    def __init__(self, store: RecordStore, gallery: Gallery) -> None:
        self.store, self.gallery = store, gallery
        self._of_protocol = functools.cache(self._said)

    def row(self, stored: Stored, stale: bool | None) -> tuple[Any, ...]:
        """Values of :data:`_PARTS`.

        Raises:
            AnalysisError: no folds, where they are wanted.
        """
        gallery, *said = self._of_protocol(*(stored.values[place] for place in _OF_PROTOCOL))
        scores = stored.full if gallery == "full" else stored.folds
        if scores is None:
            raise AnalysisError(f"record {stored.path} has no scores on folds; take the gallery full")
        return (*stored.values, *scores, stale, gallery, str(stored.path), *said)

    def _said(self, protocol: str, version: int, overrides: str, task: str, noise: str) -> tuple[str, ...]:
        """The gallery that is shown, then what the protocol's snapshot says in words."""
        resolved = self._read(protocol, version, overrides)
        wanted = self.gallery
        if wanted == "headline":
            wanted = resolved.get("evaluation", {}).get("headline", "full")
        return (wanted, selection_rule(resolved, noise), *_searched(resolved, task))

    def _read(self, name: str, version: int, overrides: str) -> Mapping[str, Any]:
        """The protocol as it was when the record was made; empty where that is unknown."""
        try:
            snapshot = self.store.read_snapshot(name, version, json.loads(overrides or "{}"))
        except StoreError:
            return {}  # `results check` reports it; the numbers are still good
        return {} if snapshot is None else snapshot["resolved"]


def selection_rule(resolved: Mapping[str, Any], noise: str = "") -> str:
    """The protocol's rule in words, for captions; under real noise (model ``none``) nobody knows which validation pairs are right."""
    rule = resolved.get("selection")
    if not rule:
        return UNKNOWN_RULE
    if rule["split"] == "last":
        return "last epoch"
    metric = {"rsum": "rSum", "mean_r1": "mean R@1", "mean_map": "MAP"}.get(rule["metric"], rule["metric"])
    if resolved.get("task") == "label-hashing":
        labels = {"val": "clean validation labels", "noisy-val": "noisy validation labels"}[rule["split"]]
        return f"first best epoch by {metric} on {labels}"
    clean = "validation pairs as they come" if noise == "none" else "clean validation pairs"
    pairs = {"val": clean, "noisy-val": "noisy validation pairs"}.get(rule["split"], rule["split"])
    return f"first best epoch by {metric} on {pairs}"


def _searched(resolved: Mapping[str, Any], task: str) -> tuple[str, str]:
    """What test queries search, and with which codes."""
    if task != "label-hashing":
        return "", ""
    rules = resolved.get("evaluation", {}).get("labels") or {}
    return rules.get("database", "unknown"), rules.get("codes", "unknown")


def _refuse_duplicates(frame: pd.DataFrame) -> None:
    twice = frame[frame.duplicated("cell_id", keep=False)]
    if len(twice):
        first, second = twice[twice["cell_id"] == twice["cell_id"].iloc[0]]["path"].iloc[:2]
        raise AnalysisError(f"the same cell lies in {first} and {second}; load one of the two folders")
