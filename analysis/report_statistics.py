"""What can be told apart, for the page: the sections of the significance report per group of records, ranks, pairs, paper against release.

Another statistic becomes visible by adding a :class:`.significance_report.Section` there, or an entry to :data:`MORE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..results.measures import measure as measure_named
from .diagrams import Diagram, caption_of, diagram_of, groups
from .frame import AnalysisError
from .report_rows import PageRow, number, shared
from .significance import Comparison, Scores, scores
from .significance_report import Report, Section, pair_table, sentence_of, significance_report

MAIN = ("paper", "default", "released")  # variants that are compared unless others are named
MOST_METHODS = 40  # of a group: pairs grow with the square


@dataclass(frozen=True)
class Group:
    """Records that may be compared with each other, and what came of it; ``problem`` says why nothing did."""

    title: str
    task: str
    records: pd.DataFrame
    left_out: tuple[str, ...] = ()
    table: Scores | None = None
    report: Report | None = None
    diagram: Diagram | None = None
    problem: str = ""

    def sentence(self, pair: Comparison) -> str:
        """A comparison in words."""
        assert self.table is not None
        return sentence_of(pair, self.table)


# Sections for further statistics: each takes a group that has a table, and gives a heading, sentences and maybe a table.
MORE: list[Callable[[Group], Section | None]] = []


def compared(frame: pd.DataFrame, every_variant: bool = False) -> list[Group]:
    """Each group of records that may be compared; a protocol of its own is left out where its track is compared as a whole.

    Args:
        frame: as :func:`.frame.load_frame` gives it.
        every_variant: compare ablations too, not only the variants of :data:`MAIN` (of a method with neither, its first one).
    """
    done = frame[frame["status"] == "done"]
    found = [_group(title, part, every_variant) for title, _, part in groups(done)]
    return sorted(
        found,
        key=lambda one: (one.task != "pair-retrieval", -one.records["dataset"].nunique(), -len(one.records), one.title),
    )


def main_variants(frame: pd.DataFrame) -> set[str]:
    """``method@variant`` of the variants that stand for their method."""
    found = set()
    for method, part in frame.groupby("method"):
        variants = sorted(set(part["variant"]))
        chosen = [one for one in variants if one in MAIN] or variants[:1]
        found |= {f"{method}@{one}" for one in chosen}
    return found


def _group(title: str, part: pd.DataFrame, every_variant: bool) -> Group:
    task, overrides = str(part["task"].iloc[0]), sorted(set(part["overrides"]) - {""})
    if overrides and part["protocol"].nunique() == 1:
        changes = ", ".join(f"{name} = {value}" for name, value in json.loads(overrides[0]).items())
        title = f"{title} (overridden: {changes})"
    names = part["method"] + "@" + part["variant"]
    kept = set(names) if every_variant else main_variants(part)
    if len(kept) > MOST_METHODS:
        often = names[names.isin(kept)].value_counts()
        kept = set(sorted(kept, key=lambda name: (-int(often[name]), name))[:MOST_METHODS])
    left_out = tuple(sorted(set(names) - kept))
    part = part[names.isin(kept)]
    try:
        report = significance_report(part, queries=False)
        return Group(title, task, part, left_out, scores(part), report, diagram_of(part))
    except AnalysisError as error:
        return Group(title, task, part, left_out, problem=str(error))


def groups_payload(found: Sequence[Group], methods: dict[str, int]) -> list[dict[str, Any]]:
    """Ranks, pairs and sections of each group; names of methods are numbers in ``methods``."""
    return [_group_payload(group, methods) for group in found if group.table is not None]


def _group_payload(group: Group, methods: dict[str, int]) -> dict[str, Any]:
    assert group.table is not None
    assert group.report is not None
    more = [section for make in MORE if (section := make(group)) is not None]
    return {
        "title": group.title,
        "task": group.task,
        "measure": measure_named(group.table.measure).label,
        "leftOut": list(group.left_out),
        "sections": [_section(section) for section in (*group.report.sections, *more)],
        "pairs": _pairs(group, methods),
        "ranks": None if group.diagram is None else _ranks(group.diagram, methods),
    }


def _section(section: Section) -> dict[str, Any]:
    table = section.table
    rows = [] if table is None else table.astype(str).to_numpy().tolist()
    return {
        "title": section.title,
        "sentences": list(section.sentences),
        "heads": [] if table is None else list(table.columns),
        "rows": rows,
    }


def _pairs(group: Group, methods: dict[str, int]) -> dict[str, Any]:
    """Every pair as text, as the report prints it, with its sentence."""
    assert group.table is not None
    assert group.report is not None
    pairs = group.report.pairs
    table = pair_table(pairs, group.table)
    facts = [name for name in table.columns if name not in ("first", "second")]
    return {
        "heads": facts,
        "first": [methods[pair.first] for pair in pairs],
        "second": [methods[pair.second] for pair in pairs],
        "sentences": [group.sentence(pair) for pair in pairs],
        "facts": table[facts].astype(str).to_numpy().tolist() if len(pairs) else [],
    }


def _ranks(found: Diagram, methods: dict[str, int]) -> dict[str, Any]:
    ranking = found.ranking
    return {
        "methods": [methods[str(name)] for name in ranking.ranks.index],
        "ranks": [number(value) for value in ranking.ranks],
        "difference": number(ranking.critical_difference),
        "cliques": [[methods[name] for name in clique] for clique in ranking.cliques],
        "caption": caption_of(found),
    }


def audit_payload(rows: Sequence[PageRow], found: Sequence[Group], methods: dict[str, int]) -> list[dict[str, Any]]:
    """``paper`` against ``released`` per method: the rows of both at every place that has both, and what the groups say of the pair."""
    places: dict[str, list[tuple[int, int]]] = {}
    for here in shared(rows):
        numbers = {one.name: place for place, one in here if one.entry.n}
        for name in numbers:
            method, _, variant = name.partition("@")
            if variant == "paper" and f"{method}@released" in numbers:
                places.setdefault(method, []).append((numbers[name], numbers[f"{method}@released"]))
    return [
        {
            "method": method,
            "paper": methods[f"{method}@paper"],
            "released": methods[f"{method}@released"],
            "rows": [list(pair) for pair in pairs],
            "sentences": _audit_sentences(method, found),
        }
        for method, pairs in sorted(places.items())
    ]


def _audit_sentences(method: str, found: Sequence[Group]) -> list[str]:
    names = {f"{method}@paper", f"{method}@released"}
    said: dict[str, str] = {}  # over all data sets and over one, the same sentence may come out
    for group in found:
        for pair in group.report.pairs if group.report is not None else ():
            if {pair.first, pair.second} == names:
                said.setdefault(group.sentence(pair), group.title)
    return [f"{title}: {sentence}" for sentence, title in said.items()]
