"""The caption of a table, made by the code that computed it: what the numbers are, over how many seeds, under which protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..results.measures import RECALLS, Measure
from .intervals import FEWEST_SEEDS
from .layout import Row


def caption(
    frame: pd.DataFrame, keys: dict[str, Any], rows: Sequence[Row], wanted: Sequence[Measure], expected: int, many: bool
) -> str:
    """``expected`` cells in all; ``many``: some row has several seeds. ``<best>``, ``<second>`` stand for how a format marks them."""
    sentences = [
        f"{_what(wanted)} on {_key(keys, 'dataset')} ({searched(keys)}), {_spread(rows)}",
        _ties(frame, keys),
        f"Protocol {_protocol(keys)}",
        f"Noise: {_key(keys, 'noise')} ({', '.join(sorted(set(frame['noise_level'])))}){_realised(frame)}",
        f"Selection: {_key(keys, 'selection')}",
        f"Track: {_key(keys, 'track')}; backbone: {_key(keys, 'backbone')}",
        _legend(rows, many),
        _counts(frame, expected),
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _what(wanted: Sequence[Measure]) -> str:
    recalls = [one for one in wanted if one.name in RECALLS]
    others = [f"{one.label} ({one.unit})" if one.unit else one.label for one in wanted if one.name not in RECALLS]
    words = [f"R@{'/'.join(dict.fromkeys(one.label.split('@')[1] for one in recalls))} in %"] if recalls else []
    ways = [
        way
        for key, way in (("i2t", "image to text (i2t)"), ("t2i", "text to image (t2i)"))
        if any(one.name.startswith(key) for one in recalls)
    ]
    if ways:
        words[0] += f", {' and '.join(ways)}"
    return "; ".join([*words, *others])


def _spread(rows: Sequence[Row]) -> str:
    counts = sorted({entry.n for row in rows for entry in row.entries.values() if entry.n})
    if not counts:
        return "no finished run"
    if counts == [1]:
        return "a single seed, so that no spread is known"
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean ± sample standard deviation over n = {n} seeds"


def _key(keys: dict[str, Any], name: str) -> str:
    value = keys.get(name)
    return f"several {name}s, see rows" if value is None else str(value)


def searched(keys: dict[str, Any]) -> str:
    """What test queries search: the gallery of pairs, or the database of label-based retrieval with its codes."""
    if keys.get("task") != "label-hashing":
        return _gallery(keys)
    databases = {
        "test": "test items search the other modality of the test split",
        "train": "test items search the training items",
        "rest": "test items search all other items, training items among them",
    }
    codes = {
        "hash-function": "codes of the database by the hash function",
        "learned": "codes of the database as training learned them, labels included",
        "fused": "codes of the database fused from both modalities",
    }
    database, kind = (str(keys.get(name)) for name in ("database", "database_codes"))
    return f"{databases.get(database, 'several databases, see rows')}; {codes.get(kind, 'several kinds of codes, see rows')}"


def _ties(frame: pd.DataFrame, keys: dict[str, Any]) -> str:
    if keys.get("task") != "label-hashing":
        return ""
    widths = frame.loc[frame["status"] == "done"].groupby("bits")["tie_width"].max()
    words = "; ".join(f"{float(str(bits)):.0f} bits: {width:.1f}" for bits, width in widths.items())
    text = "MAP over the whole database, expected over random order of ties"
    return text + (f", which could shift a run by up to (best minus worst order, points) {words}" if words else "")


def _gallery(keys: dict[str, Any]) -> str:
    words = {"full": "whole test split as one gallery", "folds": "mean over folds of the test split"}
    return words.get(str(keys.get("gallery")), "several galleries, see rows")


def _protocol(keys: dict[str, Any]) -> str:
    changed = keys.get("overrides")
    if keys.get("protocol") is None or keys.get("version") is None or changed is None:
        return "differs between rows: not comparable without care"
    words = ", ".join(f"{name} = {value}" for name, value in json.loads(changed).items()) if changed else ""
    return f"{keys['protocol']} v{keys['version']}" + (f", overridden: {words}" if words else ", no overrides")


def _realised(frame: pd.DataFrame) -> str:
    done = frame[(frame["status"] == "done") & frame["nominal_rate"].notna()]
    means = done.groupby("nominal_rate")["realised_rate"].mean()
    off = [f"{real:.3f} for {rate:g}" for rate, real in means.items() if abs(real - float(str(rate))) > 5e-4]
    return f"; realised rates differ: {', '.join(off)}" if off else ""


def _legend(rows: Sequence[Row], many: bool) -> str:
    entries = [entry for row in rows for entry in row.entries.values()]
    words = ["Best in <best>, second <second>"] if any(entry.rank for entry in entries) else []
    if any(entry.rank for entry in entries) and any(not row.competes for row in rows):
        words.append("oracles do not compete")
    if any(entry.tied for entry in entries):
        words.append(
            "† not separable from the best (on the best: from the second): fewer than "
            f"{FEWEST_SEEDS} common seeds, or a 95 % interval (Student's) of the mean difference, paired by seed, that holds 0"
        )
    elif words and not many:
        words.append("differences of single runs are not tested")
    return "; ".join(words)


def _counts(frame: pd.DataFrame, expected: int) -> str:
    status = frame["status"].value_counts()
    counts = {
        "missing": expected - len(frame),
        "failed": int(status.get("failed", 0)) + int(status.get("timeout", 0)),
        "not applicable": int(status.get("not_applicable", 0)),
    }
    words = [f"{number} {name}" for name, number in counts.items() if number or name != "not applicable"]
    stale = "staleness not checked" if frame["stale"].isna().all() else f"{int(frame['stale'].eq(True).sum())} stale"
    modified = int(frame["git_dirty"].eq(True).sum())
    more = [f"{modified} from a modified working tree"] if modified else []
    broken = len(frame.attrs.get("broken", ()))
    more += [f"{broken} unreadable files beside them"] if broken else []
    return f"Of {expected} cells: {', '.join([*words, stale, *more])}"
