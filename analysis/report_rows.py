"""The results of the page: a row per method and place (data set, noise, rate, bits), and below it the records that it is made of."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ..results.measures import HEADLINES, MEASURES, RECALLS
from .frame import TABLE_KEYS, parts
from .layout import Coded, Entry, Rate, Row
from .tables import TableOptions, make_table

# What may be shown and sorted by, besides the headline, by task; then what a score cost.
SCORES: dict[str, tuple[str, ...]] = {
    "pair-retrieval": ("rsum", *RECALLS, "mean_r1", "single_rsum", "last_rsum", "best_on_test_rsum", "optimism", "auc"),
    "label-hashing": (
        "mean_map", "i2t_map", "t2i_map", "mean_map_at_k", "mean_precision_radius_2", "tie_width", "last_mean_map",
        "best_on_test_mean_map", "map_optimism", "auc",
    ),
}  # fmt: skip
# What is said of a record.
RECORDED = (
    "cell_id", "seed", "status", "reason", "rsum", "mean_map", "outcome_digest", "realised_rate", "noise_digest", "started", "seconds",
    "stale", "path", "git_commit", "git_dirty", "device", "machine", "packages", "sources", "data", "threads", "width", "command",
)  # fmt: skip
FACTS = (
    "cell", "seed", "status", "reason", "score", "digest", "realised", "noise", "started", "seconds", "stale", "made", "folder",
)  # fmt: skip
# What make_table reads.
NEEDED = (
    "method", "variant", "rate", "bits", "seed", "label", "flags", "status", "reason", "stale", "grants", "noise_level", "nominal_rate",
    "realised_rate", "git_dirty", "tie_width", "rsum", "mean_map",
)  # fmt: skip
COSTS = ("seconds", "parameters", "networks_at_test", "gradient_steps", "peak_memory_bytes")
DIGITS = 16  # of outcome digests and commits: the record has them in full
Item = TypeVar("Item")


class Pool:
    """Things that many rows share, each kept once; rows hold their numbers."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, item: Any) -> int:
        """Of an item that JSON can hold, new or known."""
        key = json.dumps(item, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            self.items.append(item)
        return self._numbers[key]


@dataclass(frozen=True)
class PageRow:
    """One ``method@variant`` at one place of one table; ``records`` are the positions of its rows in the frame, in order of seed."""

    keys: dict[str, Any]
    row: Row
    rate: Rate
    entry: Entry
    notes: tuple[str, ...]
    records: tuple[int, ...]

    @property
    def name(self) -> str:
        """``method@variant``."""
        return self.row.name

    @property
    def plain_rate(self) -> float | None:
        """The noise rate, None for real noise."""
        return self.rate.rate if isinstance(self.rate, Coded) else self.rate

    @property
    def bits(self) -> int | None:
        """Length of codes, None for anything else."""
        return self.rate.bits if isinstance(self.rate, Coded) else None

    @property
    def place(self) -> tuple[Any, ...]:
        """What two methods must share to be compared query by query."""
        return (*(str(self.keys[key]) for key in TABLE_KEYS), self.plain_rate, self.bits)


def page_rows(frame: pd.DataFrame) -> list[PageRow]:
    """All rows, as the tables say them: means, daggers, holes and footnotes come from :func:`.tables.make_table`."""
    found: list[PageRow] = []
    for keys, part in parts(_lean(frame)):
        headline = HEADLINES[str(keys["task"])]
        table = make_table(part, TableOptions())
        by_place = _by_place(part)
        for row in table.rows:
            for rate in table.rates:
                entry = row.entries[rate, headline]
                bits = rate.bits if isinstance(rate, Coded) else None
                records = by_place.get((row.name, rate.rate if isinstance(rate, Coded) else rate, bits), ())
                if entry.expected or records:
                    notes = tuple(table.notes[number - 1] for number in (*row.notes, *entry.notes))
                    found.append(PageRow(keys, row, rate, entry, notes, records))
    return sorted(found, key=_order)


def _order(one: PageRow) -> tuple[Any, ...]:
    """Place by place, mismatched pairs before wrong labels, the best mean of a place first."""
    rate = -1.0 if one.plain_rate is None else one.plain_rate
    table = tuple(str(one.keys[key]) for key in TABLE_KEYS if key != "task")
    mean = -one.entry.mean if one.entry.n else math.inf
    return (one.keys["task"] != "pair-retrieval", table, rate, one.bits or math.inf, mean, one.name)


def _lean(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that tables need, in few blocks of memory: pandas copies each block with every choice of rows."""
    columns = [*TABLE_KEYS, *(name for name in NEEDED if name not in TABLE_KEYS)]
    lean = frame[columns].reset_index(drop=True)
    numbers = set(lean.select_dtypes("number").columns)
    lean = lean.astype({name: object for name in lean.columns if name not in numbers}).copy()
    lean.attrs.update(frame.attrs)
    return lean


def _by_place(part: pd.DataFrame) -> dict[tuple[str, float | None, int | None], tuple[int, ...]]:
    """Positions in the frame, by method, rate and length of codes, in order of seed."""
    found: dict[tuple[str, float | None, int | None], list[int]] = {}
    columns = (part[name] for name in ("method", "variant", "rate", "bits", "seed"))
    for position, method, variant, rate, bits, _ in sorted(
        zip(part.index, *columns, strict=True), key=lambda one: one[-1]
    ):
        key = (
            f"{method}@{variant}",
            None if math.isnan(rate) else float(rate),
            None if math.isnan(bits) else int(bits),
        )
        found.setdefault(key, []).append(int(position))
    return {key: tuple(positions) for key, positions in found.items()}


def settings_payload(rows: Sequence[PageRow], frame: pd.DataFrame) -> tuple[list[dict[str, Any]], list[int]]:
    """What the rows of a table have in common, each once, and the number of it for each row."""
    pool, numbers = Pool(), []
    levels = dict(zip(zip(frame["task"], frame["noise"], strict=True), frame["noise_level"], strict=True))
    for one in rows:
        setting = {key: _plain(one.keys[key]) for key in TABLE_KEYS}
        numbers.append(pool.number(setting | {"level": str(levels[one.keys["task"], one.keys["noise"]])}))
    return pool.items, numbers


def rows_payload(
    rows: Sequence[PageRow], frame: pd.DataFrame, settings: Sequence[int], methods: Mapping[str, int]
) -> dict[str, Any]:
    """Columns of equal length, a place per row; ``notes`` are kept once, records are ``count`` from ``first`` on."""
    notes, first = Pool(), 0
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("method", "rate", "bits", "n", "expected", "mean", "sd", "rank", "tied", "hole", "notes", "first", "count")
    }  # fmt: skip
    for one in rows:
        values = {
            "method": methods[one.name],
            "rate": one.plain_rate,
            "bits": one.bits,
            "n": one.entry.n,
            "expected": one.entry.expected,
            "mean": number(one.entry.mean),
            "sd": number(one.entry.std),
            "rank": {"best": 1, "second": 2}.get(one.entry.rank, 0),
            "tied": int(one.entry.tied),
            "hole": one.entry.hole,
            "notes": [notes.number(note) for note in one.notes],
            "first": first,
            "count": len(one.records),
        }
        for name, value in values.items():
            columns[name].append(value)
        first += len(one.records)
    return {
        **columns,
        "setting": list(settings),
        "noteTexts": notes.items,
        "measures": _measures_payload(rows, frame),
    }


def _measures_payload(rows: Sequence[PageRow], frame: pd.DataFrame) -> dict[str, Any]:
    """``{measure: {mean: [...], sd: [...]}}`` over finished seeds; measures that no row has are left out."""
    if not rows:
        return {}
    names = list(dict.fromkeys([*(name for task in SCORES.values() for name in task), *COSTS]))
    number_of_row = np.full(len(frame), -1)
    for place, one in enumerate(rows):
        number_of_row[list(one.records)] = place
    number_of_row[(frame["status"] != "done").to_numpy()] = -1
    groups = frame[names].reset_index(drop=True).groupby(number_of_row)
    means, spreads = groups.mean().reindex(range(len(rows))), groups.std(ddof=1).reindex(range(len(rows)))
    return {
        name: {"mean": [number(v) for v in means[name]], "sd": [number(v) for v in spreads[name]]}
        for name in names
        if means[name].notna().any()
    }


def records_payload(rows: Sequence[PageRow], frame: pd.DataFrame, page: Path) -> dict[str, Any]:
    """Facts of each record in the order of the rows, one column each; what many share is kept once, as is each folder.

    Args:
        rows: of :func:`page_rows`.
        frame: that they were made from.
        page: the folder that the page is written to, which links start from.
    """
    made, reasons, folders, noises = Pool(), Pool(), Pool(), Pool()
    columns: dict[str, list[Any]] = {name: [] for name in FACTS}
    columns_of = {name: frame[name].tolist() for name in RECORDED}
    for one in rows:
        headline = HEADLINES[str(one.keys["task"])]
        for position in one.records:
            record = {name: values[position] for name, values in columns_of.items()}
            values = {
                "cell": record["cell_id"],
                "seed": int(record["seed"]),
                "status": record["status"],
                "reason": reasons.number(str(record["reason"])),
                "score": number(record[headline]),
                "digest": _text(record["outcome_digest"])[:DIGITS],
                "realised": number(record["realised_rate"]),
                "noise": noises.number(_text(record["noise_digest"])[:DIGITS]),
                "started": str(record["started"]),
                "seconds": number(record["seconds"]),
                "stale": None if record["stale"] is None else bool(record["stale"]),
                "made": made.number(_made(record)),
                "folder": folders.number(str(Path(record["path"]).parent)),
            }
            for name, value in values.items():
                columns[name].append(value)
    return {
        **columns,
        "reasons": reasons.items,
        "noises": noises.items,
        "circumstances": made.items,
        "folders": [_folder(Path(text), page) for text in folders.items],
    }


def _folder(path: Path, page: Path) -> dict[str, str]:
    """Where the page can link to, or a path to look for."""
    link = relative(path, page)
    return {"link": link, "path": link or path.as_posix()}


def _text(value: Any) -> str:
    """Empty for what a record does not have."""
    return value if isinstance(value, str) else ""


def _made(record: Mapping[str, Any]) -> dict[str, Any]:
    """By what, where and how a record was made."""

    def of(name: str) -> dict[str, str]:
        return {str(k): str(v) for k, v in json.loads(_text(record[name]) or "{}").items()}

    dirty = record["git_dirty"]
    return {
        "commit": str(record["git_commit"]),
        "modified": bool(dirty) if dirty is not None and dirty == dirty else None,
        "device": str(record["device"]),
        "machine": of("machine"),
        "packages": of("packages"),
        "sources": {name: digest[:DIGITS] for name, digest in of("sources").items()},
        "data": {name: digest[:DIGITS] for name, digest in of("data").items()},
        "threads": int(record["threads"]),
        "width": int(record["width"]),
        "command": str(record["command"]),
    }


def measures_payload() -> dict[str, Any]:
    """How each measure is printed."""
    names = dict.fromkeys([*(name for task in SCORES.values() for name in task), *COSTS])
    return {
        name: {
            "label": MEASURES[name].label,
            "unit": MEASURES[name].unit,
            "decimals": MEASURES[name].decimals,
            "better": MEASURES[name].better,
        }
        for name in names
    }


def relative(path: Path, page: Path) -> str:
    """From the folder of the page, with forward slashes; empty where the path does not lie beside it (in the folder above it)."""
    path, page = Path(os.path.abspath(path)), Path(os.path.abspath(page))
    if not path.is_relative_to(page.parent):
        return ""
    return Path(os.path.relpath(path, page)).as_posix()


def number(value: Any) -> float | None:
    """For JSON: seven significant digits, None for NaN."""
    if value is None:
        return None
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.item() if hasattr(value, "item") else value


def shared(rows: Sequence[PageRow]) -> Iterator[list[tuple[int, PageRow]]]:
    """Rows that share a place, with their numbers, in order of place."""
    places: dict[tuple[Any, ...], list[tuple[int, PageRow]]] = {}
    for place, one in enumerate(rows):
        places.setdefault(one.place, []).append((place, one))
    yield from places.values()
