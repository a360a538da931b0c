"""One record as one row of numbers: all that its own bytes say, on both test galleries; and the index that keeps such rows.

What depends on the folder (the protocol's snapshot, the path) is added by ``frame.py``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from ..results import files, index, measures, record, store
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
from ..results.store import BrokenRecord, RecordStore, lacks_sidecar, read_bytes

IDENTITY = (
    "task", "protocol", "version", "overrides", "dataset", "noise", "rate", "method", "variant", "backbone", "track",
    "seed", "bits",
)  # fmt: skip
SCORES = (
    "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum", "mean_r1", "i2t_median_rank", "i2t_mean_rank", "t2i_median_rank",
    "t2i_mean_rank", "i2t_map", "t2i_map", "mean_map", "mean_map_lower", "mean_map_upper", "mean_map_at_k", "mean_precision_radius_2",
)  # fmt: skip
# Numbers that differ between the galleries, beside the scores.
OF_GALLERY = (
    "last_rsum", "best_on_test_rsum", "single_rsum", "noisy_val_rsum", "optimism", "last_mean_map", "best_on_test_mean_map",
    "noisy_val_mean_map", "map_optimism", "tie_width",
)  # fmt: skip
OF_RUN = (
    "full_rsum", "auc", "selected_epoch", "networks_at_test", "parameters", "gradient_steps", "nominal_rate", "realised_rate", "seconds",
    "joules", "peak_memory_bytes", "still_true", "wrong_affinity",
)  # fmt: skip
CIRCUMSTANCES = ("sources", "data", "packages", "machine", "threads", "width", "started", "command")
ALWAYS = (
    "cell_id", *IDENTITY, "status", "reason", "label", "flags", *OF_RUN, "grants", "noise_digest", "device", "git_commit", "git_dirty",
    *CIRCUMSTANCES, "outcome_digest", "noise_level",
)  # fmt: skip
GALLERY = (*SCORES, *OF_GALLERY)
NUMBERS = ("rate", "bits", *SCORES, *OF_GALLERY, *OF_RUN)
TEXTS = frozenset((
    "cell_id", "task", "protocol", "overrides", "dataset", "noise", "method", "variant", "backbone", "track", "status", "reason", "label",
    "noise_digest", "device", "git_commit", "sources", "data", "packages", "machine", "started", "command", "outcome_digest", "noise_level",
    "gallery", "path", "selection", "database", "database_codes",
))  # fmt: skip
# Where the parts of a kept row lie: the record's home, its state of folds, then the columns.
_FIRST = 2
_END, _FULL_END = _FIRST + len(ALWAYS), _FIRST + len(ALWAYS) + len(GALLERY)
_COLUMNS = ("home", "folds", *ALWAYS, *(f"full {name}" for name in GALLERY), *(f"folds {name}" for name in GALLERY))
_NOTHING = (math.nan,) * len(GALLERY)


@dataclass(frozen=True)
class Stored:
    """A record's row; ``values`` are those of :data:`ALWAYS`, ``full`` and ``folds`` of :data:`GALLERY`; ``folds`` is None without any."""

    path: Path
    values: index.Row
    full: index.Row
    folds: index.Row | None


def stored_rows(records: RecordStore, again: bool = False) -> Iterator[tuple[Stored | BrokenRecord, bytes]]:
    """A row, or a complaint, for every file of a folder in order of path, with the file's bytes.

    Each file is read and its digest taken; only what the index does not know is parsed and checked. ``again`` passes the index by.
    """
    kept = _index(records.root, again)
    for path in records.files():
        content = read_bytes(path)
        if isinstance(content, BrokenRecord):
            yield content, b""
            continue
        digest = hashlib.sha256(content).hexdigest()
        row = kept.get(digest)
        if row is None:
            found = records.examine(path, content, sidecars=False)
            if isinstance(found, BrokenRecord):
                yield found, content
                continue
            row = _row(found, records.home(found.cell))
            kept.put(digest, row)
        elif problem := _problem(records, path, row):
            yield problem, content
            continue
        yield Stored(path, row[_FIRST:_END], row[_END:_FULL_END], _folds(row)), content
    kept.save()


def _index(root: Path, again: bool) -> index.Index:
    modules = (index, record, store, files, measures)
    code = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    kept = index.Index(root, _COLUMNS, code, (pydantic.VERSION, str(record.SCHEMA_VERSION)))
    if again:
        kept.forget()
    return kept


def _problem(records: RecordStore, path: Path, row: index.Row) -> BrokenRecord | None:
    """What the bytes of a record cannot say: whether it is at home, and whether its arrays are there."""
    finished = row[1] != "unfinished"
    return (lacks_sidecar(path) if finished else None) or records.misplaced(path, row[0])


def _folds(row: index.Row) -> index.Row | None:
    return None if row[1] == "absent" else row[_FULL_END:]


def _row(record: RunRecord, home: str) -> index.Row:
    cell, outcome = record.cell, record.outcome
    known: dict[str, Any] = cell.model_dump() | {
        "bits": math.nan if cell.bits is None else cell.bits,
        "overrides": _text(cell.overrides),
        "cell_id": record.cell_id,
        "rate": math.nan if cell.rate is None else cell.rate,
        "status": record.status,
        "reason": record.reason,
        "label": record.method_label,
        "flags": record.method_flags,
        "outcome_digest": record.outcome_digest,
        "noise_level": _noise_words(cell),
        **_circumstances(record),
        **({} if outcome is None else _facts(outcome)),
    }
    always = tuple(known.get(name, math.nan) for name in ALWAYS)
    if outcome is None:
        return (home, "unfinished", *always, *_NOTHING, *_NOTHING)
    full, folds = (_on_gallery(outcome, name, HEADLINES[cell.task]) for name in ("full", "folds"))
    return (home, "absent" if folds is None else "present", *always, *(full or _NOTHING), *(folds or _NOTHING))


def _noise_words(cell: CellKey) -> str:
    known = NOISE_LEVELS if cell.task == "pair-retrieval" else LABEL_NOISE
    return known.get(cell.noise, "level as the noise model defines it")


def _on_gallery(outcome: Outcome, gallery: str, headline: str) -> index.Row | None:
    """Scores of the selected epoch and what is compared with them; None where a result lacks this gallery."""
    noisy = outcome.selected if outcome.selected_on_noisy_val is None else outcome.selected_on_noisy_val
    pairs = headline == "rsum"
    results: dict[str, TestResult | None] = {
        f"last_{headline}": outcome.last,
        f"best_on_test_{headline}": outcome.best_on_test,
        f"noisy_val_{headline}": noisy if _looked_at_noisy(outcome) else None,
        "single_rsum": outcome.single_network if pairs else None,
    }
    found: dict[str, Scores | None] = {
        name: getattr(result, gallery) for name, result in results.items() if result is not None
    }
    selected: Scores | None = getattr(outcome.selected, gallery)
    if selected is None or None in found.values():
        return None
    numbers = _scores(selected) | {name: scores.headline for name, scores in found.items() if scores is not None}
    numbers["optimism" if pairs else "map_optimism"] = numbers[f"best_on_test_{headline}"] - selected.headline
    return tuple(numbers.get(name, math.nan) for name in GALLERY)


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


def _facts(outcome: Outcome) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if not isinstance(outcome.selected.full, LabelScores):
        facts["full_rsum"] = outcome.selected.full.headline
    if isinstance(outcome.noise, LabelNoiseFacts):
        facts |= {"still_true": outcome.noise.still_true, "wrong_affinity": outcome.noise.wrong_affinity}
    return facts | {
        "auc": _auc(outcome),
        "selected_epoch": outcome.selected.epoch,
        "networks_at_test": outcome.networks_at_test,
        "parameters": outcome.parameters,
        "gradient_steps": outcome.gradient_steps,
        "grants": outcome.grants,
        "nominal_rate": math.nan if outcome.noise.nominal is None else outcome.noise.nominal,
        "realised_rate": math.nan if outcome.noise.realised is None else outcome.noise.realised,
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


def _circumstances(record: RunRecord) -> dict[str, Any]:
    facts = record.circumstances
    return {
        "seconds": sum(facts.seconds.values()) if facts.seconds else math.nan,
        "joules": math.nan if facts.joules is None else facts.joules,
        "peak_memory_bytes": facts.peak_memory_bytes or math.nan,
        "device": facts.device,
        "git_commit": str(facts.git.get("commit", "")),
        "git_dirty": facts.git.get("dirty"),
        "sources": _text(facts.sources),
        "data": _text(facts.data),
        "packages": _text(facts.packages),
        "machine": _text(facts.machine),
        "threads": facts.threads,
        "width": facts.width,
        "started": facts.started,
        "command": facts.command,
    }


def _text(mapping: dict[str, Any]) -> str:
    """Canonical JSON; empty for an empty mapping."""
    return canonical_json(mapping) if mapping else ""
