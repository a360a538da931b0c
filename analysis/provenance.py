"""What records say about how they were made, fact by fact, and which of these facts may explain that outcomes differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

# Columns that hold mappings, and what their entries are called.
_MAPPINGS = {
    "sources": "source code of the {}",
    "data": "data file {}",
    "packages": "package {}",
    "machine": "machine: {}",
}
_PLAIN = {"device": "device", "threads": "threads", "width": "runs side by side"}
# Named by every record and different after every change of anything: it dates a run and explains nothing.
_DATES = {"git_commit": "commit", "git_dirty": "uncommitted changes"}
ABSENT = "not recorded"


@dataclass(frozen=True)
class Change:
    """A fact that is not the same on both sides in some of the cells that both have.

    Attributes:
        what: the fact in words.
        before, after: its most frequent values where it changed.
        among_equal, among_differing: in how many cells with the same outcome, and with another one, it changed.
        may_explain: False for what only dates a run.
    """

    what: str
    before: str
    after: str
    among_equal: int
    among_differing: int
    may_explain: bool


def facts(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per record with the same index, one column per fact, text; ``ABSENT`` where a record lacks it."""
    columns: dict[str, pd.Series] = {words: frame[name].map(str) for name, words in (_PLAIN | _DATES).items()}
    for name, words in _MAPPINGS.items():
        known = {text: json.loads(text) if text else {} for text in frame[name].unique()}
        for key in sorted({key for mapping in known.values() for key in mapping}):
            columns[words.format(key)] = frame[name].map(
                {text: str(mapping.get(key, ABSENT)) for text, mapping in known.items()}
            )
    return pd.DataFrame(columns, index=frame.index)


def changes(before: pd.DataFrame, after: pd.DataFrame, differing: pd.Series) -> list[Change]:
    """What changed between two tables of :func:`facts`.

    Args:
        before, after: with the same index.
        differing: by that index, whether the outcomes differ.
    """
    found = []
    for what in dict.fromkeys([*before.columns, *after.columns]):
        a = before[what] if what in before else pd.Series(ABSENT, index=before.index)
        b = after[what] if what in after else pd.Series(ABSENT, index=after.index)
        changed = a != b
        if changed.any():
            counts = int((changed & ~differing).sum()), int((changed & differing).sum())
            found.append(Change(what, _usual(a[changed]), _usual(b[changed]), *counts, what not in _DATES.values()))
    return found


def _usual(values: pd.Series) -> str:
    """The most frequent value, and how many others there are."""
    counts = values.value_counts(sort=True)
    first = min(counts.index[counts == counts.max()])
    shown = first[:12] if len(first) in (40, 64) and set(first) <= set("0123456789abcdef") else first
    return shown + (f" and {len(counts) - 1} others" if len(counts) > 1 else "")


def verdict(found: Sequence[Change], equal: int, differing: int) -> list[str]:
    """What the facts allow to say about the cause, and no more.

    Args:
        found: from :func:`changes`.
        equal, differing: cells with the same and with another outcome, finished on both sides.
    """
    suspects = [change for change in found if change.may_explain]
    if not differing:
        names = _listed([change.what for change in suspects])
        if names:
            return [f"The outcomes are the same although these differ: {names}."]
        return ["No recorded fact that could matter differs either."] if equal else []
    always = [change for change in suspects if change.among_differing == differing]
    exact = [change for change in always if not change.among_equal]
    if exact:
        return [_exact(exact, len(suspects) == 1, equal)]
    if always:
        names = _listed(
            [f"{change.what} (also in {change.among_equal} of {equal} with the same outcome)" for change in always]
        )
        return [
            f"What differs in every cell with another outcome: {names}. It may be the cause, but it does not change every cell in which it "
            "differs."
        ]
    some = [change for change in suspects if change.among_differing]
    if some:
        names = _listed([f"{change.what} ({change.among_differing} of {differing})" for change in some])
        return [f"No single recorded fact differs in every cell with another outcome; in some of them do {names}."]
    return [
        "No recorded fact that could matter differs in the cells with another outcome: either something that is not recorded changed, or "
        "these runs do not repeat; `run_benchmark.py verify` on one of the machines tells which."
    ]


def _exact(found: Sequence[Change], alone: bool, equal: int) -> str:
    """What differs exactly where the outcomes do."""
    several = len(found) > 1
    text = f"{_listed([change.what for change in found])} differ{'' if several else 's'} in every cell with another outcome"
    text += f" and in none of the {equal} with the same" if equal else ""
    if several:
        return f"{text}: the cause is likely among them; these records cannot tell which."
    if equal or alone:
        return f"{text}{', and no other fact does' if alone else ''}: that is the likely cause."
    return f"{text}, and other facts do in some of them: it may be the cause."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
