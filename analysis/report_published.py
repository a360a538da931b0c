"""Published numbers beside ours, for the page: one line per printed result, with what may explain the gap to ours."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..results.measures import RECALLS
from .frame import AnalysisError
from .published import PUBLISHED, first_word, is_doubtful, load_published, plain_dataset
from .published_labels import DOUBTFUL as DOUBTFUL_LABELS
from .published_labels import OURS, SOURCES, Source, load_published_labels
from .report_rows import PageRow, Pool, number
from .report_statistics import MAIN

SETTINGS = PUBLISHED.with_name("settings.csv")
SETTING_COLUMNS = ("method", "source_paper", "networks", "backbone", "selection", "noise_file", "seen_in")
UNSTATED = "not stated here"
_SINGLE = "one of the two"  # a remark's words for a network out of two


def load_settings(path: Path = SETTINGS) -> dict[tuple[str, str], dict[str, str]]:
    """How published numbers were made, by method and source; source ``""`` holds for all that have no line of their own.

    Raises:
        AnalysisError: missing file or other columns.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise AnalysisError(f"published settings {path} cannot be read ({error.strerror}); restore the file") from error
    if tuple(frame.columns) != SETTING_COLUMNS:
        raise AnalysisError(
            f"published settings {path} have columns {', '.join(frame.columns)}; expected {', '.join(SETTING_COLUMNS)}"
        )
    lines = [dict(zip(SETTING_COLUMNS, map(str, line), strict=True)) for line in frame.itertuples(index=False)]
    return {(line["method"], line["source_paper"]): line for line in lines}


def published_payload(rows: Sequence[PageRow]) -> dict[str, Any]:
    """Every printed result; texts are kept once, ``ours`` lists the numbers of our rows (of :func:`.report_rows.page_rows`) at the same
    place."""
    texts = Pool()
    columns: dict[str, list[Any]] = {}
    main: dict[str, list[tuple[int, PageRow]]] = {}
    for place, one in enumerate(rows):
        method, _, variant = one.name.partition("@")
        if one.entry.n and variant in MAIN:
            main.setdefault(method.lower(), []).append((place, one))
    for line in _printed():
        ours = [place for place, one in main.get(our_name(line.shown["method"]), ()) if line.is_of(one)]
        for name, value in {**line.shown, "ours": ours}.items():
            keep = name in ("ours", "rate", "bits", "measure", "value", "doubtful", "recalls")
            columns.setdefault(name, []).append(value if keep else texts.number(value))
    return {"columns": columns, "texts": texts.items}


@dataclass(frozen=True)
class Printed:
    """A printed result: what is shown of it, and whether a row of its method is of the same data set, rate and level of noise."""

    shown: dict[str, Any]
    is_of: Callable[[PageRow], bool]


@functools.cache
def _printed() -> tuple[Printed, ...]:
    return (*_pair_lines(), *_label_lines())


def _pair_lines() -> list[Printed]:
    settings, found = load_settings(), []
    keys = ["source_paper", "dataset", "split", "method", "kind", "rate"]
    for key, part in load_published().groupby(keys, sort=True, dropna=False):
        source, dataset, split, method, kind = map(str, key[:-1])
        rate = float(str(key[-1]))
        printed = dict(zip(part["measure"], part["value"], strict=True))
        notes = sorted({note for note in part["note"] if note})
        doubtful = sorted({name for name, note in zip(part["measure"], part["note"], strict=True) if is_doubtful(note)})
        value = printed.get("rsum", math.nan)
        if math.isnan(value) and set(RECALLS) <= set(printed) and not doubtful:
            value, notes = sum(printed[name] for name in RECALLS), [*notes, "rSum added up here from the six recalls"]
        known = settings.get((method, source)) or settings.get((method, "")) or {}
        shown = {
            "method": method,
            "source": source,
            "dataset": f"{dataset} {split}" if split != "test" else dataset,
            "rate": None if math.isnan(rate) else rate,
            "kind": kind,
            "bits": None,
            "measure": "rsum",
            "value": number(value),
            "recalls": [number(printed.get(name, math.nan)) for name in RECALLS],
            "doubtful": doubtful,
            "networks": _networks(notes, known),
            "backbone": known.get("backbone", UNSTATED) if "zero-shot" not in method else method,
            "selection": known.get("selection", UNSTATED) if kind != "none" else "no training",
            "noise": "none added" if rate == 0 else _noise_words(kind, notes, known),
            "database": "",
            "notes": "; ".join(notes),
        }
        found.append(Printed(shown, functools.partial(_is_pair, (dataset, split, kind, rate), tuple(notes))))
    return found


def _networks(notes: Sequence[str], known: Mapping[str, str]) -> str:
    return "1 of 2" if any(_SINGLE in note for note in notes) else known.get("networks", UNSTATED)


def _noise_words(kind: str, notes: Sequence[str], known: Mapping[str, str]) -> str:
    """File and level, as far as they are known; the remark on this number goes before what its method usually has."""
    if kind != "rate":
        return {"real": "as it comes with the data", "none": "none"}[kind]
    levels = [one for one in ("caption-level", "image-level") if any(one in note for note in notes)]
    level = levels[0].replace("-", " ") if len(levels) == 1 else "level not stated"
    return f"{level}; {known['noise_file']}" if "noise_file" in known else level


def _is_pair(what: tuple[str, str, str, float], notes: Sequence[str], one: PageRow) -> bool:
    """The same data set, split and rate, never another level of noise."""
    dataset, split, kind, rate = what
    if one.keys["task"] != "pair-retrieval":
        return False
    gallery = "1K" if one.keys["gallery"] == "folds" else "5K"
    other = "caption-level" if str(one.keys["noise"]).startswith("image") else "image-level"
    same_rate = kind == "none" or (one.plain_rate is None if kind == "real" else one.plain_rate == rate)
    same_data = plain_dataset(str(one.keys["dataset"])) == plain_dataset(dataset) and split in ("test", gallery)
    return same_rate and same_data and not any(other in note for note in notes)


def our_name(method: str) -> str:
    """What a printed method is called here; empty for a combination with another one (``CLIP+OSA``)."""
    if "zero-shot" in method:
        return f"{first_word(method)}_zeroshot"
    return "" if "+" in method else first_word(method)


def _label_lines() -> list[Printed]:
    lines: list[dict[str, Any]] = [
        {str(name): value for name, value in one.items()} for one in load_published_labels().to_dict("records")
    ]
    return [Printed(_label_line(line, SOURCES[line["source"]]), functools.partial(_is_label, line)) for line in lines]


def _label_line(line: Mapping[str, Any], source: Source) -> dict[str, Any]:
    doubtful = any(word in line["note"] for word in DOUBTFUL_LABELS)
    return {
        "method": line["method"],
        "source": f"{source.paper}, table {line['table'].removeprefix('Table ')}",
        "dataset": line["dataset"],
        "rate": float(line["rate"]),
        "kind": "rate",
        "bits": int(line["bits"]),
        "measure": line["measure"],
        "value": number(line["value"]),
        "recalls": [],
        "doubtful": [line["measure"]] if doubtful else [],
        "networks": UNSTATED,
        "backbone": UNSTATED,
        "selection": source.selection,
        "noise": source.noise,
        "database": source.database,
        "notes": line["note"],
    }


def _is_label(line: Mapping[str, Any], one: PageRow) -> bool:
    return (
        one.keys["task"] == "label-hashing"
        and OURS.get(str(one.keys["dataset"])) == line["dataset"]
        and (one.plain_rate, one.bits) == (line["rate"], line["bits"])
    )
