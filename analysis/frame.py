"""Records as one tidy data frame: a row per cell, numbers with full precision, gaps as NaN.

Columns, in groups:

- identity: ``cell_id, task, protocol, version, overrides`` (canonical JSON, empty for none), ``dataset, noise, rate`` (NaN for real noise),
  ``method, variant, backbone, track, seed, bits`` (NaN where there are no codes);
- ``status`` (done, failed, timeout, not_applicable), ``reason``, ``label``, ``flags`` (tuple of strings), ``stale`` (None = not checked);
- scores of the selected epoch: ``i2t_r1`` ... ``t2i_r10``, ``rsum``, ``mean_r1``, ``i2t_median_rank`` ... ``t2i_mean_rank``, on the
  gallery that ``gallery`` names (full or folds); always on the whole test split: ``full_rsum``; ``auc`` of recognising noisy pairs;
- honesty: ``last_rsum, best_on_test_rsum, single_rsum, noisy_val_rsum, optimism, selected_epoch, networks_at_test, parameters,
  gradient_steps, grants``; ``nominal_rate, realised_rate, noise_digest``;
- cost and circumstances: ``seconds, joules, peak_memory_bytes, device, git_commit, git_dirty``; ``outcome_digest``, ``path``;
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
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..results.measures import HEADLINES, LABEL_NOISE, NOISE_LEVELS
from ..results.record import (
    CellKey,
    LabelEpochEntry,
    LabelNoiseFacts,
    LabelScores,
    Outcome,
    RunRecord,
    Scores,
    TestResult,
    canonical_json,
)
from ..results.store import BrokenRecord, RecordStore, StoreError

Gallery = Literal["headline", "full", "folds"]
IDENTITY = (
    "task", "protocol", "version", "overrides", "dataset", "noise", "rate", "method", "variant", "backbone", "track",
    "seed", "bits",
)  # fmt: skip
# What must be the same throughout one table.
TABLE_KEYS = (
    "task", "protocol", "version", "overrides", "dataset", "noise", "backbone", "track", "gallery",
    "selection", "database", "database_codes",
)  # fmt: skip
SCORES = (
    "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum", "mean_r1", "i2t_median_rank", "i2t_mean_rank", "t2i_median_rank",
    "t2i_mean_rank", "i2t_map", "t2i_map", "mean_map", "mean_map_lower", "mean_map_upper", "mean_map_at_k", "mean_precision_radius_2",
)  # fmt: skip
FACTS = (
    "full_rsum", "auc", "last_rsum", "best_on_test_rsum", "single_rsum", "noisy_val_rsum", "optimism", "selected_epoch",
    "networks_at_test", "parameters", "gradient_steps", "nominal_rate", "realised_rate", "seconds", "joules", "peak_memory_bytes",
    "last_mean_map", "best_on_test_mean_map", "noisy_val_mean_map", "map_optimism", "tie_width", "still_true", "wrong_affinity",
)  # fmt: skip
COLUMNS = (
    "cell_id", *IDENTITY, "status", "reason", "label", "flags", "stale", "gallery", *SCORES, *FACTS, "grants", "noise_digest", "device",
    "git_commit", "git_dirty", "outcome_digest", "path", "selection", "noise_level", "database", "database_codes",
)  # fmt: skip
UNKNOWN_RULE = "selection rule unknown (no protocol.json beside the records)"


class AnalysisError(ValueError):
    """Records that cannot be analysed as asked; one sentence: culprit, finding, remedy."""


def load_frame(
    roots: Sequence[Path], gallery: Gallery = "headline", stale: Callable[[RunRecord], bool] | None = None
) -> pd.DataFrame:
    """All records under the folders, a row each; see the module docstring for the columns.

    Args:
        roots: folders of records (``results/runs``, ``results/reference/<machine kind>``).
        gallery: which test gallery the scores are on; ``headline`` follows each protocol's snapshot (the whole split without one).
        stale: whether a record was made by other source code than today's; None leaves the column empty.

    Raises:
        AnalysisError: a folder does not exist; a cell lies in two of the folders; ``folds`` where a protocol has none.
    """
    rows: list[dict[str, Any]] = []
    broken: list[tuple[str, str]] = []
    for root in map(Path, roots):
        if not root.is_dir():
            raise AnalysisError(
                f"there are no records in {root}; run the benchmark first, or name its folder with --results"
            )
        context = _Context(RecordStore(root), gallery, stale)
        for path, record in context.store.scan_paths(sidecars=False):
            if isinstance(record, BrokenRecord):
                broken.append((str(path), record.reason))
            else:
                rows.append(_row(record, path, context))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    number = ["rate", "bits", *SCORES, *FACTS]
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

    def __init__(self, store: RecordStore, gallery: Gallery, stale: Callable[[RunRecord], bool] | None) -> None:
        self.store, self.gallery, self.stale = store, gallery, stale
        self._resolved = functools.cache(self._read)

    def resolved(self, cell: CellKey) -> Mapping[str, Any]:
        """The protocol as it was when the record was made; empty where that is unknown."""
        return self._resolved(cell.protocol, cell.version, canonical_json(cell.overrides))

    def _read(self, name: str, version: int, overrides: str) -> Mapping[str, Any]:
        try:
            snapshot = self.store.read_snapshot(name, version, json.loads(overrides))
        except StoreError:
            return {}  # `results check` reports it; the numbers are still good
        return {} if snapshot is None else snapshot["resolved"]


def _row(record: RunRecord, path: Path, context: _Context) -> dict[str, Any]:
    cell, resolved = record.cell, context.resolved(record.cell)
    row: dict[str, Any] = cell.model_dump()
    row["overrides"] = canonical_json(cell.overrides) if cell.overrides else ""
    wanted = context.gallery
    if wanted == "headline":
        wanted = resolved.get("evaluation", {}).get("headline", "full")
    row |= {
        "cell_id": record.cell_id,
        "rate": math.nan if cell.rate is None else cell.rate,
        "status": record.status,
        "reason": record.reason,
        "label": record.method_label,
        "flags": record.method_flags,
        "stale": None if context.stale is None else context.stale(record),
        "gallery": wanted,
        "outcome_digest": record.outcome_digest,
        "path": str(path),
        "selection": selection_rule(resolved, cell.noise),
        "noise_level": _noise_words(cell),
        **_searched(resolved, cell),
    }
    if record.outcome is not None:
        headline = HEADLINES[cell.task]
        row |= _scores(_gallery(record.outcome.selected, wanted, path)) | _facts(record.outcome, wanted, path, headline)
    return row | _costs(record)


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


def _noise_words(cell: CellKey) -> str:
    known = NOISE_LEVELS if cell.task == "pair-retrieval" else LABEL_NOISE
    return known.get(cell.noise, "level as the noise model defines it")


def _searched(resolved: Mapping[str, Any], cell: CellKey) -> dict[str, str]:
    """What test queries search, and with which codes."""
    if cell.task != "label-hashing":
        return {"database": "", "database_codes": ""}
    rules = resolved.get("evaluation", {}).get("labels") or {}
    return {"database": rules.get("database", "unknown"), "database_codes": rules.get("codes", "unknown")}


def _gallery(result: TestResult, gallery: str, path: Path) -> Scores:
    if gallery == "full":
        return result.full
    if result.folds is None:
        raise AnalysisError(f"record {path} has no scores on folds; take the gallery full")
    return result.folds


def _scores(scores: Scores) -> dict[str, float]:
    if isinstance(scores, LabelScores):
        return _map_scores(scores)
    row = {"rsum": scores.rsum, "mean_r1": scores.mean_r1}
    for way, recalls in (("i2t", scores.i2t), ("t2i", scores.t2i)):
        row |= {f"{way}_{name}": getattr(recalls, name) for name in ("r1", "r5", "r10", "median_rank", "mean_rank")}
    return row


def _map_scores(scores: LabelScores) -> dict[str, float]:
    ways = (scores.i2t, scores.t2i)

    def mean(name: str) -> float:
        values = [getattr(way, name) for way in ways]
        return math.nan if None in values else sum(values) / len(values)

    return {
        "i2t_map": scores.i2t.map,
        "t2i_map": scores.t2i.map,
        "mean_map": scores.mean_map,
        "mean_map_lower": mean("lower"),
        "mean_map_upper": mean("upper"),
        "mean_map_at_k": mean("map_at_k"),
        "mean_precision_radius_2": mean("precision_radius_2"),
        "tie_width": mean("upper") - mean("lower"),
    }


def _facts(outcome: Outcome, gallery: str, path: Path, headline: str) -> dict[str, Any]:
    def score(result: TestResult | None) -> float:
        return math.nan if result is None else _gallery(result, gallery, path).headline

    noisy = outcome.selected if outcome.selected_on_noisy_val is None else outcome.selected_on_noisy_val
    pairs = headline == "rsum"
    facts = {
        f"last_{headline}": score(outcome.last),
        f"best_on_test_{headline}": score(outcome.best_on_test),
        f"noisy_val_{headline}": score(noisy) if _looked_at_noisy(outcome) else math.nan,
        "optimism" if pairs else "map_optimism": score(outcome.best_on_test) - score(outcome.selected),
    }
    if pairs:
        facts |= {"full_rsum": outcome.selected.full.headline, "single_rsum": score(outcome.single_network)}
    if isinstance(outcome.noise, LabelNoiseFacts):
        facts |= {"still_true": outcome.noise.still_true, "wrong_affinity": outcome.noise.wrong_affinity}
    return facts | {
        "auc": _auc(outcome),
        "selected_epoch": outcome.selected.epoch,
        "networks_at_test": outcome.networks_at_test,
        "parameters": outcome.parameters,
        "gradient_steps": outcome.gradient_steps,
        "grants": outcome.grants,
        "nominal_rate": outcome.noise.nominal,
        "realised_rate": outcome.noise.realised,
        "noise_digest": outcome.noise.digest,
    }


def _looked_at_noisy(outcome: Outcome) -> bool:
    return any(
        (entry.noisy_val_map if isinstance(entry, LabelEpochEntry) else entry.noisy_val_rsum) is not None
        for entry in outcome.history
    )


def _auc(outcome: Outcome) -> float:
    """At the selected epoch, of the first of weight, clean probability and loss that the method has; mean over its networks."""
    for signal in ("weight", "clean_probability", "loss"):
        found = [s.auc for s in outcome.signals if s.signal == signal and s.epoch == outcome.selected.epoch]
        if found:
            return sum(found) / len(found)
    return math.nan


def _costs(record: RunRecord) -> dict[str, Any]:
    facts = record.circumstances
    return {
        "seconds": sum(facts.seconds.values()) if facts.seconds else math.nan,
        "joules": facts.joules,
        "peak_memory_bytes": facts.peak_memory_bytes or math.nan,
        "device": facts.device,
        "git_commit": str(facts.git.get("commit", "")),
        "git_dirty": facts.git.get("dirty"),
    }


def _refuse_duplicates(frame: pd.DataFrame) -> None:
    twice = frame[frame.duplicated("cell_id", keep=False)]
    if len(twice):
        first, second = twice[twice["cell_id"] == twice["cell_id"].iloc[0]]["path"].iloc[:2]
        raise AnalysisError(f"the same cell lies in {first} and {second}; load one of the two folders")
