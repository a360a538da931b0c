"""A Markdown leaderboard: methods by their mean score, with the ranks that the records leave possible and who cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_lowercase

import pandas as pd
from tabulate import tabulate

from ..results.measures import measure as measure_named
from .diagrams import diagram_of, groups
from .frame import AnalysisError
from .ranking import rank_intervals
from .render import escape_markdown, rounded
from .significance import Comparison
from .summaries import Summary, summarise

# Where the suite's pages lie, seen from a leaderboard in the root of the checkout.
LINKS = {"methods": "docs/methods.md", "reference": "results/reference/README.md"}
MOST_GROUPS = 8  # beyond that letters say nothing to a reader; the ranks do
WORDS = {
    "oracle": "oracle: is told what is clean; out of competition",
    "reconstruction": "reconstruction: no complete official code to check it against",
    "own-generalisation": "this suite's own generalisation",
    "clean-meta-set": "also learns from verified clean pairs",
    "control": "control",
}

INTRODUCTION = (
    "Made by `python run_benchmark.py export --format leaderboard` from records alone. A place in a list is not a finding: *possible "
    "ranks* are those that the comparisons leave open among the methods that compete (95 %, adjusted for the number of pairs), and methods "
    "that share a letter cannot be told apart on these data sets and rates. What holds beyond them (other data sets, or other rates where "
    "there is one set) needs more: see the last column but one. "
    f"Methods are described in [{LINKS['methods']}]({LINKS['methods']}), published records in [{LINKS['reference']}]({LINKS['reference']})."
)


def leaderboard(frame: pd.DataFrame) -> str:
    """One section per protocol (with its overrides) and track, and one per task over its protocols; lists of what is left out.

    Raises:
        AnalysisError: nowhere are there two methods with finished records.
    """
    done = frame[frame["status"] == "done"]
    sections, reasons = [], []
    for title, _, part in groups(done):
        try:
            sections.append(_section(title, part))
        except AnalysisError as error:
            reasons.append(f"- {title}: {error}")
    if not sections:
        raise AnalysisError(
            f"there is nothing to rank: {'; '.join(reason[2:] for reason in reasons) or 'no finished record'}"
        )
    left = ["## Not ranked", "\n".join(reasons)] if reasons else []
    return "\n\n".join(["# Leaderboard", INTRODUCTION, *sections, *left]) + "\n"


def _section(title: str, part: pd.DataFrame) -> str:
    complete = diagram_of(part)  # None: too few methods or blocks for a choice
    found = summarise(part, None if complete is None else complete.table.methods, profiles=False)
    blocks = found.table.blocks().index
    sets = [str(name) for name in blocks.unique("dataset")]
    one = measure_named(found.table.measure)
    task = str(part["task"].iloc[0])
    lines = [
        f"## {escape_markdown(title)} ({task})",
        f"{one.label} ({one.unit}), mean over the blocks that all of these share; a block is one data set, noise model and rate"
        + (" and length of codes" if task == "label-hashing" else "")
        + f": {len(blocks)} blocks of {len(sets)} data set{'s' * (len(sets) != 1)} ({escape_markdown(', '.join(sets))}).",
        "\n".join(f"- {escape_markdown(condition)}" for condition in found.table.conditions),
        tabulate(_rows(found), headers=_heads(found), tablefmt="pipe", disable_numparse=True),
        _notes(found, () if complete is None else complete.left_out),
    ]
    return "\n\n".join(line for line in lines if line)


def _heads(found: Summary) -> list[str]:
    label = measure_named(found.table.measure).label
    heads = ["", "method", "run", label, "possible ranks", "group", "blocks", "runs", "seeds per block"]
    return [*heads, "ranks beyond these", "remarks"]


def _rows(found: Summary) -> Iterator[list[str]]:
    one, place = measure_named(found.table.measure), 0
    letters, here, beyond = _letters(found.groups_here), _ranks(found, here=True), _ranks(found, here=False)
    for standing in found.standings:
        runs = found.table.runs[standing.name].dropna()
        seeds = runs.groupby(level=["dataset", "noise", "rate"]).size()
        if not standing.oracle:
            place += 1
        flags = found.table.flags[standing.name]
        yield [
            "–" if standing.oracle else str(place),
            escape_markdown(standing.label),
            f"`{standing.name}`",
            rounded(standing.mean, one),
            here.get(standing.name, "–"),
            letters.get(standing.name, ""),
            str(len(seeds)),
            str(standing.runs),
            _range(int(seeds.min()), int(seeds.max())),
            beyond.get(standing.name, "–"),
            "; ".join(WORDS.get(flag, flag) for flag in sorted(flags)),
        ]


def _ranks(found: Summary, here: bool) -> dict[str, str]:
    """Ranks that the comparisons leave possible among those who compete, which oracles do not."""
    names = [standing.name for standing in found.standings if not standing.oracle]
    pairs = [pair for pair in found.pairs if {pair.first, pair.second} <= set(names)]
    apart = Comparison.told_apart_here if here else Comparison.told_apart
    return {
        name: str(ranks) for name, ranks in rank_intervals(names, pairs, apart, found.table.higher_is_better).items()
    }


def _letters(tie_groups: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """``a``, ``a b``, ...: methods that share a letter are not told apart; a method told apart from all others has none."""
    several = [group for group in tie_groups if len(group) > 1]
    if len(several) > MOST_GROUPS:
        return {name: "many" for group in several for name in group}
    marks: dict[str, list[str]] = {}
    for letter, group in zip(ascii_lowercase, several, strict=False):
        for name in group:
            marks.setdefault(name, []).append(letter)
    return {name: " ".join(letters) for name, letters in marks.items()}


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _notes(found: Summary, fewer: Sequence[str]) -> str:
    notes = [f"- {escape_markdown(gap)}" for gap in found.table.gaps]
    if fewer:
        notes.append(
            f"- not ranked, because they have runs in fewer blocks: {', '.join(f'`{name}`' for name in fewer)}"
        )
    shared, every = len(found.table.complete_blocks()), len(found.table.blocks())
    if not shared:
        notes.append(
            "- no block has runs of all methods: each mean is over the method's own blocks, so that means do not compare like with like"
        )
    elif shared < every:
        notes.append(
            f"- means are over the {shared} of {every} blocks in which all methods have runs with common seeds"
        )
    return "\n".join(notes)
