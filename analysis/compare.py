"""Two folders of records, cell by cell: the same outcomes, other ones, cells of one side only, and what changed in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ..results.measures import HEADLINES
from ..results.measures import measure as measure_named
from .frame import IDENTITY, AnalysisError
from .pages import Page, Part
from .provenance import Change, changes, facts, verdict

STATES = {
    "same": "same outcome",
    "differing": "another outcome",
    "status": "another status (finished, failed, ...)",
    "unfinished": "unfinished on both sides",
    "only in A": "only in A",
    "only in B": "only in B",
}
MOST_CELLS = 20  # printed one by one; all are in the CSV


@dataclass(frozen=True)
class Compared:
    """What :func:`compare_frames` found.

    Attributes:
        cells: a row per cell, in order of identity: the columns of ``IDENTITY``, ``state`` (a key of :data:`STATES`), ``status_a``,
            ``status_b``, ``digest_a``, ``digest_b``, ``headline`` (name of the measure), ``score_a``, ``score_b`` and ``difference`` (B
            minus A, in points).
        changes: facts about the making of the cells that are finished on both sides.
        unreadable: files that could not be used, on each side.
    """

    cells: pd.DataFrame
    changes: tuple[Change, ...]
    unreadable: tuple[int, int]

    def count(self, state: str) -> int:
        """Cells of one state."""
        return int((self.cells["state"] == state).sum())

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same cells with the same outcomes, and nothing that cannot be read."""
        return not any(map(self.count, ("differing", "status", "only in A", "only in B"))) and not any(self.unreadable)


def compare_frames(a: pd.DataFrame, b: pd.DataFrame) -> Compared:
    """Match cells by their id; outcomes are the same where their digests are.

    Args:
        a, b: as :func:`.frame.load_frame` gives them.

    Raises:
        AnalysisError: no record on either side.
    """
    if a.empty and b.empty:
        raise AnalysisError("neither side has a record of that choice; name other folders, protocols or methods")
    left, right = a.set_index("cell_id"), b.set_index("cell_id")
    every = pd.concat([left, right[~right.index.isin(left.index)]])
    both = left.index.intersection(right.index)
    cells = every[list(IDENTITY)].assign(headline=every["task"].map(HEADLINES))
    for side, frame in (("a", left), ("b", right)):
        cells[f"status_{side}"] = frame["status"].reindex(cells.index).fillna("")
        cells[f"digest_{side}"] = frame["outcome_digest"].reindex(cells.index).fillna("")
        cells[f"score_{side}"] = _headlines(frame).reindex(cells.index)
    cells["difference"] = cells["score_b"] - cells["score_a"]
    columns = [cells[name] for name in ("status_a", "status_b", "digest_a", "digest_b")]
    cells["state"] = [_state(*row) for row in zip(*columns, strict=True)]
    done = both[(left.loc[both, "status"] == "done") & (right.loc[both, "status"] == "done")]
    found = changes(facts(left.loc[done]), facts(right.loc[done]), cells.loc[done, "state"] == "differing")
    ordered = cells.sort_values([*IDENTITY], kind="stable").reset_index()
    broken = (len(a.attrs.get("broken", ())), len(b.attrs.get("broken", ())))
    return Compared(ordered, tuple(found), broken)


def _headlines(frame: pd.DataFrame) -> pd.Series:
    scores = pd.Series(float("nan"), index=frame.index)
    for task, name in HEADLINES.items():
        scores = scores.mask(frame["task"] == task, frame[name])
    return scores


def _state(status_a: str, status_b: str, digest_a: str, digest_b: str) -> str:
    if not status_a or not status_b:
        return "only in B" if status_b else "only in A"
    if status_a == status_b == "done":
        return "same" if digest_a == digest_b else "differing"
    return "unfinished" if status_a == status_b else "status"


def report(found: Compared, names: tuple[str, str]) -> Page:
    """The page; ``names`` are what the user called A and B."""
    made = [_counts(found, names), _differences(found), _cells(found), _provenance(found)]
    return Page("Comparison of two sets of records", tuple(part for part in made if part is not None))


def _counts(found: Compared, names: tuple[str, str]) -> Part:
    rows = [
        {"cells": words, "number": str(found.count(state))} for state, words in STATES.items() if found.count(state)
    ]
    sentences = [f"A is {names[0]}, B is {names[1]}; a cell is known by everything that may influence its numbers."]
    sentences += [
        f"{number} files of {side} cannot be used; `run_benchmark.py results check` says why."
        for side, number in zip("AB", found.unreadable, strict=True)
        if number
    ]
    if found.equal:
        sentences.append(f"Both hold the same {len(found.cells)} cells with the same outcomes, digest by digest.")
    elif not any(map(found.count, ("same", "differing", "status", "unfinished"))):
        sentences.append("They have no cell in common." + _other_versions(found.cells))
    return Part("Cells", tuple(sentences), pd.DataFrame(rows))


def _other_versions(cells: pd.DataFrame) -> str:
    """Why cells that look alike are not the same."""
    alike = [name for name in IDENTITY if name not in ("version", "overrides")]
    left, right = (cells[cells["state"] == f"only in {side}"] for side in "AB")
    pairs = left.merge(right, on=alike, suffixes=("_a", "_b"))
    if pairs.empty:
        return ""
    first = pairs.iloc[0]
    kind = "version" if first["version_a"] != first["version_b"] else "overrides"
    return (
        f" {len(pairs)} cells of A differ from cells of B in the protocol's version or overrides only (the first: {kind} "
        f"{first[f'{kind}_a'] or 'none'} against {first[f'{kind}_b'] or 'none'}), and such numbers are not to be compared."
    )


def _differences(found: Compared) -> Part | None:
    """Of the headline, by protocol and method, where both sides are finished."""
    both = found.cells[found.cells["state"].isin(["same", "differing"])]
    if both.empty or not found.count("differing"):
        return None
    rows = []
    for keys, part in both.groupby(["protocol", "version", "overrides", "method", "variant"], sort=True):
        protocol, version, overrides, method, variant = (str(key) for key in keys)
        gaps = part["difference"]
        rows.append(
            {
                "protocol": f"{protocol} v{version}" + (f" {overrides}" if overrides else ""),
                "run": f"{method}@{variant}",
                "measure": measure_named(str(part["headline"].iloc[0])).label,
                "cells": str(len(part)),
                "differing": str(int((part["state"] == "differing").sum())),
                "mean": f"{gaps.mean():+.2f}",
                "mean size": f"{gaps.abs().mean():.2f}",
                "largest": f"{max(gaps, key=abs):+.2f}",
            }
        )
    silent = both[(both["state"] == "differing") & (both["difference"] == 0)]
    sentences = [
        "B minus A in points of the headline, over the cells that are finished on both sides, equal ones included."
    ]
    if len(silent):
        sentences.append(
            f"{len(silent)} of the differing cells have the same headline: their outcomes differ elsewhere (other scores, history, arrays)."
        )
    return Part("Differences", tuple(sentences), pd.DataFrame(rows))


def _cells(found: Compared) -> Part | None:
    shown = found.cells[found.cells["state"].isin(["differing", "status"])]
    if shown.empty:
        return None
    ordered = shown.assign(size=shown["difference"].abs().fillna(float("inf"))).sort_values(
        "size", ascending=False, kind="stable"
    )
    rows = [
        {
            "data set": one["dataset"],
            "noise": "real" if pd.isna(one["rate"]) else f"{one['rate']:g}",
            "run": f"{one['method']}@{one['variant']}" + ("" if pd.isna(one["bits"]) else f" {one['bits']:.0f} bits"),
            "seed": str(one["seed"]),
            "A": _said(one["status_a"], one["score_a"]),
            "B": _said(one["status_b"], one["score_b"]),
            "digests": f"{one['digest_a'][:8]} {one['digest_b'][:8]}".strip(),
        }
        for one in ordered.head(MOST_CELLS).to_dict("records")
    ]
    sentences = (
        [f"The {MOST_CELLS} largest of {len(shown)} follow; `--format csv` has all."] if len(shown) > MOST_CELLS else []
    )
    return Part("Cells that are not the same", tuple(sentences), pd.DataFrame(rows))


def _said(status: str, score: float) -> str:
    return f"{score:.2f}" if status == "done" else status.replace("_", " ")


def _provenance(found: Compared) -> Part | None:
    equal, differing = found.count("same"), found.count("differing")
    if not equal + differing:
        return None
    rows = [
        {
            "fact": change.what,
            "A": change.before,
            "B": change.after,
            "of equal cells": f"{change.among_equal} of {equal}",
            "of differing cells": f"{change.among_differing} of {differing}",
        }
        for change in found.changes
    ]
    sentences: Sequence[str] = verdict(found.changes, equal, differing)
    return Part("What changed in how they were made", tuple(sentences), pd.DataFrame(rows) if rows else None)
