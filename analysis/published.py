"""Published numbers beside ours: rows of their own in the same columns, never in the same cell, with every remark kept.

``results/published/nc_retrieval.csv`` has the columns method, source_paper, dataset, split, noise_rate, direction, metric, value, note.
``settings.csv`` says per method (and source, where that matters) how the number was made: method, source_paper (empty = all), networks,
backbone, selection, noise_file, seen_in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..results.measures import RECALLS
from .frame import AnalysisError
from .layout import Entry, Notes, Rate, Row, Table

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published" / "nc_retrieval.csv"
COLUMNS = ("method", "source_paper", "dataset", "split", "noise_rate", "direction", "metric", "value", "note")
# A number whose note says this is shown and stays marked, but nothing is computed from it.
DOUBTFUL = ("WRONG", "SUSPECT", "MISPRINT", "INCONSISTENT")
_SUMMED = "rSum added up here from the six published recalls"
_CAUTION = (
    "Published rows stand as their papers print them, mostly single runs with other backbones, budgets and selection; "
    "they do not compete"
)

_NONE = "No published numbers: the papers have none of these methods on this data set at these rates and this level of noise"


def load_published(path: Path = PUBLISHED) -> pd.DataFrame:
    """The published numbers, with ``rate`` (NaN where the noise is real or there is no training), ``kind`` (``rate``, ``real``, ``none``)
    and ``measure`` (name of ``results/measures.py``) added.

    Raises:
        AnalysisError: missing file, other columns, or an unknown direction or metric.
    """
    try:
        frame = pd.read_csv(path, dtype={"noise_rate": str}, keep_default_na=False)
    except OSError as error:
        raise AnalysisError(f"published numbers {path} cannot be read ({error.strerror}); restore the file") from error
    if tuple(frame.columns) != COLUMNS:
        raise AnalysisError(
            f"published numbers {path} have columns {', '.join(frame.columns)}; expected {', '.join(COLUMNS)}"
        )
    frame["value"] = frame["value"].astype(float)
    frame["kind"] = frame["noise_rate"].where(frame["noise_rate"].isin(["real", "none"]), "rate")
    frame["rate"] = pd.to_numeric(frame["noise_rate"].where(frame["kind"] == "rate"), errors="coerce")
    names = {("both", "rSum"): "rsum"} | {(w, f"R@{k}"): f"{w}_r{k}" for w in ("i2t", "t2i") for k in (1, 5, 10)}
    pairs = list(zip(frame["direction"], frame["metric"], strict=True))
    unknown = sorted(set(pairs) - set(names))
    if unknown:
        raise AnalysisError(
            f"published numbers {path} have an unknown measure {' '.join(unknown[0])}; known are R@1, R@5, R@10, rSum"
        )
    frame["measure"] = [names[pair] for pair in pairs]
    return frame


def with_published(table: Table, published: pd.DataFrame, methods: Sequence[str] | None = None) -> Table:
    """The table with rows for what papers print on the same data set, at the same rates and the same level of noise.

    Args:
        table: of our own records.
        published: from :func:`load_published`.
        methods: names as published; None = those whose name begins with the name of a method in the table (``npc`` finds NPC,
            ``clip`` finds CLIP+OSA).

    Returns:
        the table with the rows below ours; where no paper has such numbers its caption says so.

    Raises:
        AnalysisError: one of ``methods`` is in no paper.
    """
    chosen = _of_methods(_same_setting(published, table), published, table, methods)
    notes = Notes(table.notes)
    rows = []
    for (method, source, split), part in chosen.groupby(["method", "source_paper", "split"], sort=True):
        name = f"{method} ({split})" if split != "test" else str(method)
        # Tried without keeping its footnotes: a row without numbers is not shown.
        if any(entry.n for entry in _row(name, str(source), part, table, Notes()).entries.values()):
            rows.append(_row(name, str(source), part, table, notes))
    if not rows:
        return replace(table, caption=f"{table.caption} {_NONE}.")
    return replace(table, rows=(*table.rows, *rows), notes=notes.texts, caption=f"{table.caption} {_CAUTION}.")


def _of_methods(
    same: pd.DataFrame, published: pd.DataFrame, table: Table, methods: Sequence[str] | None
) -> pd.DataFrame:
    if methods is None:
        ours = {row.name.partition("@")[0].lower() for row in table.rows}
        return same[same["method"].map(first_word).isin(ours)]
    known = {str(name).lower(): str(name) for name in published["method"].unique()}
    unknown = [name for name in methods if name.lower() not in known]
    if unknown:
        raise AnalysisError(
            f"no paper here prints a method {unknown[0]!r}; printed are {', '.join(sorted(known.values()))}"
        )
    return same[same["method"].isin([known[name.lower()] for name in methods])]


def _same_setting(published: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Same data set, split as our gallery, never another level of noise than ours (protocol-noisy-correspondence.md 3.3)."""
    ours = plain_dataset(str(table.keys.get("dataset")))
    same = published[published["dataset"].map(plain_dataset) == ours]
    split = "1K" if table.keys.get("gallery") == "folds" else "5K"
    same = same[same["split"].isin(["test", split])]
    noise = str(table.keys.get("noise"))
    other = "caption-level" if noise.startswith("image") else "image-level"
    return same[~same["note"].str.contains(other, regex=False)]


def plain_dataset(dataset: str) -> str:
    """``MSCOCO`` and ``coco-clip`` are the same data: letters and digits before the first hyphen, without ``ms``."""
    return re.sub(r"[^a-z0-9]", "", dataset.lower().split("-")[0]).removeprefix("ms")


def first_word(method: str) -> str:
    """``npc`` of ``NPC``, ``clip`` of ``CLIP+OSA``: the name of the method that a printed name begins with."""
    return re.split(r"[^a-z0-9_]+", method.lower())[0]


def _row(name: str, source: str, part: pd.DataFrame, table: Table, notes: Notes) -> Row:
    found = {key: _at(part, *key) for key in ((rate, one.name) for rate, one in table.columns)}
    remarks = {note for _, texts in found.values() for note in texts}
    common = {
        note for note in remarks if all(note in texts for value, texts in found.values() if not math.isnan(value))
    }
    common = {note for note in common if not is_doubtful(note)}
    # The source is a footnote because several papers may print the same method.
    texts = [f"as published in {source}", *(f"published: {note}" for note in sorted(common))]
    marks = tuple(notes.number(text) for text in texts)
    entries = {
        key: _entry(value, tuple(notes.number(f"published: {text}") for text in texts if text not in common))
        for key, (value, texts) in found.items()
    }
    return Row(name, source, entries, notes=marks, competes=False, published=True)


def _at(part: pd.DataFrame, rate: Rate, measure: str) -> tuple[float, list[str]]:
    """The published value at one place of the table with its notes; NaN where none is printed."""
    # Without training ("none") the number is the same whatever the noise.
    trained_so = (part["kind"] == "real") if rate is None else (part["rate"] == rate)
    here = part[trained_so | (part["kind"] == "none")]
    printed = here[here["measure"] == measure]
    if len(printed):
        return float(printed["value"].iloc[0]), [note for note in printed["note"].unique() if note]
    recalls = here[here["measure"].isin(RECALLS)]
    if measure != "rsum" or set(recalls["measure"]) != set(RECALLS):
        return math.nan, []
    doubtful = sorted({note for note in recalls["note"] if is_doubtful(note)})
    if doubtful:
        return math.nan, [f"no rSum, because a recall is doubtful: {doubtful[0]}"]
    values = recalls.drop_duplicates("measure")["value"]
    return float(values.sum()), [*sorted({note for note in recalls["note"] if note}), _SUMMED]


def is_doubtful(note: str) -> bool:
    """Whether a remark says that the number is wrong or cannot be relied on."""
    return any(word in note for word in DOUBTFUL)


def _entry(value: float, notes: tuple[int, ...]) -> Entry:
    return Entry(hole="–", notes=notes) if math.isnan(value) else Entry(value, n=1, expected=1, notes=notes)
