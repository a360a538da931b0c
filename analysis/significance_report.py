"""The page on significance: sentences whose wording follows the numbers, tables beside them, as terminal text or Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tabulate import tabulate

from ..results.measures import measure as measure_named
from .customary import papers_section, queries_section, ranks_section, seeds_section
from .frame import AnalysisError
from .significance import Comparison, Ranking, Scores
from .summaries import Standing, Summary, summarise
from .verdicts import (
    BEYOND,
    MANY_METHODS,
    MANY_NAMES,
    MANY_PAIRS,
    Section,
    equivalence_sentence,
    equivalence_table,
    neighbour_sentence,
    neighbour_table,
    number,
    overlap_words,
    pair_table,
    sentence_of,
    summary_sentences,
)

__all__ = ["Report", "Section", "pair_table", "sentence_of", "significance_report"]

FEW_DATA_SETS = 6
WIDTH = 100  # of terminal text, in characters


@dataclass(frozen=True)
class Report:
    """What :func:`significance_report` found; ``pairs`` and ``ranking`` hold the numbers behind the sentences."""

    title: str
    sections: tuple[Section, ...]
    pairs: tuple[Comparison, ...]
    ranking: Ranking | None = field(default=None)

    def text(self) -> str:
        """For a terminal."""
        parts = [f"{self.title}\n{'=' * len(self.title)}"]
        for section in self.sections:
            parts.append(f"{section.title}\n{'-' * len(section.title)}")
            parts += [textwrap.fill(f"- {sentence}", WIDTH, subsequent_indent="  ") for sentence in section.sentences]
            parts += _rendered(section.table, "simple")
        return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"

    def markdown(self) -> str:
        """For a file."""
        parts = [f"# {self.title}"]
        for section in self.sections:
            parts.append(f"## {section.title}")
            parts += ["\n".join(f"- {sentence}" for sentence in section.sentences)] if section.sentences else []
            parts += _rendered(section.table, "github")
        return "\n\n".join(parts) + "\n"


def _rendered(table: pd.DataFrame | None, style: str) -> list[str]:
    if table is None or table.empty:
        return []
    return [
        tabulate(
            table.astype(str).to_dict("list"), headers="keys", tablefmt=style, showindex=False, disable_numparse=True
        )
    ]


def significance_report(
    frame: pd.DataFrame,
    methods: Sequence[str] | None = None,
    measure: str | None = None,
    queries: bool = True,
    points: float | None = None,
) -> Report:
    """Compare methods over the records of a frame.

    Args:
        frame: as :func:`.frame.load_frame` gives it.
        methods: ``npc`` (all its variants) or ``npc@paper``; None compares all.
        measure: what to compare by; None = the headline of the task.
        queries: whether to read the sidecars for tests over queries.
        points: half width of a region of practical equivalence, in the unit of the measure; None asks no such question.

    Raises:
        AnalysisError: as :func:`.significance.scores`, or a region that is none.
    """
    if points is not None and not 0 < points < np.inf:
        raise AnalysisError(
            f"--equivalence {points:g} is no region; give a positive number of points of the measure, such as 1"
        )
    found = summarise(frame, methods, measure, points, profiles=False)
    table = found.table
    sections = [_what(table), _methods(found), _ties(found), _pairs(found), _neighbours(found), _equivalence(found)]
    if len(table.blocks()) == 1:
        sections.append(seeds_section(table))
    sections += [papers_section(found), ranks_section(found)]
    if queries:
        sections.append(queries_section(table))
    title = f"Significance of differences in {measure_named(table.measure).label}"
    return Report(title, tuple(s for s in sections if s is not None), found.pairs, found.ranking)


def _what(table: Scores) -> Section:
    blocks, complete = table.blocks(), table.complete_blocks()
    names = [str(name) for name in blocks.index.unique("dataset")]
    count = number(len(blocks), "block")
    sentences = [
        f"{len(table.methods)} methods on {count} of {number(len(names), 'data set')} ({', '.join(names)}); a block is one data set, "
        "noise model and rate, the seeds are averaged inside it.",
        *[f"Protocol {condition}." for condition in table.conditions],
    ]
    if table.gaps:
        sentences.append(f"Not all cells are finished: {'; '.join(table.gaps)}.")
    if len(complete) < len(blocks):
        sentences.append(
            f"{len(complete)} of the blocks have runs of every method with a common seed; pairs are compared on what both have, ranks "
            "on these blocks only."
        )
    if len(names) == 1:
        sentences.append(f"With one data set, nothing here says that a difference holds on other data than {names[0]}.")
    elif len(names) < FEW_DATA_SETS:
        sentences.append(
            f"With only {len(names)} data sets, intervals over seeds speak about these; how far differences carry to others, "
            "those over data sets say, which are wide with so few."
        )
    return Section("What is compared", tuple(sentences))


def _methods(found: Summary) -> Section:
    table, common = found.table, found.table.complete_blocks()
    where = "complete blocks" if len(common) else "each method's own blocks"
    digits = measure_named(table.measure).decimals
    rows = [_method_row(one, found, digits) for one in found.standings]
    sentences = [
        f"Mean over {where}. IQM: interquartile mean over all runs of a method, which a collapsed run does not move; in brackets its "
        "95 % interval over seeds."
    ]
    if found.ranking is not None:
        sentences.append("Rank: average over complete blocks, 1 is best.")
    if len(table.methods) > 2:
        sentences.append(
            "May rank: what the pairs below leave possible, for all methods at once in 95 % of cases: 'here' on these data sets and rates, "
            f"'beyond' {_beyond(found)}."
            if _beyond(found)
            else "May rank: what the pairs below leave possible, for all methods at once in 95 % of cases."
        )
    if found.anchors is not None:
        blind, oracle = (table.labels[name] for name in found.anchors)
        sentences.append(
            f"Of gap: share of the gap between {blind}, which ignores the noise (0 %), and {oracle}, which is told what is clean (100 %); "
            "in brackets its 95 % interval over seeds."
        )
    if any(one.oracle for one in found.standings):
        sentences.append("Oracles take part in all tests; the sentences ask for the best of the others.")
    return Section("Methods", tuple(sentences), pd.DataFrame(rows))


def _beyond(found: Summary) -> str:
    """``on other data sets``; empty where there is nothing beyond."""
    kinds = [pair.interval.over for pair in found.pairs if pair.interval.over != "seeds"]
    return BEYOND[kinds[0]] if kinds else ""


def _method_row(one: Standing, found: Summary, digits: int) -> dict[str, str]:
    row = {"run": one.name, "method": one.label, "mean": f"{one.mean:.{digits}f}"}
    inside = f" [{one.iqm.low:.{digits}f}, {one.iqm.high:.{digits}f}]" if np.isfinite(one.iqm.low) else ""
    row |= {"IQM": f"{one.iqm.mean:.{digits}f}{inside}", "runs": str(one.runs)}
    if found.ranking is not None:
        row["rank"] = f"{one.average_rank:.2f}"
    if len(found.standings) > 2:
        row["may rank here"] = str(one.here)
        if _beyond(found):
            row["beyond"] = str(one.beyond)
    if found.anchors is not None:
        row["of gap"] = "-" if one.gap is None else _percent(one.gap.mean)
        if one.gap is not None and one.name not in found.anchors and np.isfinite(one.gap.low):
            row["of gap"] += f" [{_percent(one.gap.low)}, {_percent(one.gap.high)}]"
    return row


def _ties(found: Summary) -> Section | None:
    """Groups of methods that cannot be told apart."""
    if len(found.standings) < 3:
        return None
    sentences = [
        "A group holds methods of which no two can be told apart; two methods are told apart exactly if no group holds both.",
        *_groups("On these data sets and rates", found.groups_here, found.table),
    ]
    if _beyond(found):
        sentences += _groups(_beyond(found).capitalize(), found.groups_beyond, found.table)
    return Section("Ties", tuple(sentences))


def _groups(where: str, groups: Sequence[Sequence[str]], table: Scores) -> list[str]:
    if len(groups) == 1:
        return [f"{where}: no two methods can be told apart."]
    if sum(map(len, groups)) > MANY_NAMES:
        return [f"{where}: {overlap_words(groups)}; see which ranks a method may have above."]
    named = [f"({k}) {'; '.join(table.labels[name] for name in group)}" for k, group in enumerate(groups, 1)]
    return [f"{where}: {', '.join(named)}."]


def _pairs(found: Summary) -> Section:
    table, pairs = found.table, found.pairs
    best = table.contenders[0]
    with_best = [pair for pair in pairs if best in (pair.first, pair.second)]
    if len(pairs) <= 3:
        sentences = [sentence_of(pair, table) for pair in pairs]
    elif len(with_best) <= MANY_METHODS:
        sentences = [sentence_of(pair, table) for pair in with_best]
    else:
        sentences = summary_sentences(best, with_best, table)
    missing = len(table.methods) * (len(table.methods) - 1) // 2 - len(pairs)
    if missing:
        sentences.append(f"{number(missing, 'pair')} of methods have no run in common and cannot be compared.")
    sentences += _how_pairs(pairs)
    shown = with_best if len(pairs) > MANY_PAIRS else pairs
    if len(shown) < len(pairs):
        sentences.append(
            f"The table shows the {len(shown)} pairs of {table.labels[best]}; name two methods to see another pair."
        )
    return Section("Pairs", tuple(sentences), pair_table(shown, table))


def _how_pairs(pairs: Sequence[Comparison]) -> list[str]:
    further = {pair.interval.over for pair in pairs} - {"seeds"}
    sentences = [
        "Over seeds: 95 % interval (Student's) of the mean difference on these data sets and rates, for other seeds; a seed counts once "
        "per data set, whose rates share it."
    ]
    if "data sets" in further:
        sentences.append(
            "Over data sets: the same for other data sets, from the mean of each; far wider with few of them."
        )
    if "rates" in further:
        sentences.append(
            "Over rates: the same for other rates of this data set, which counts a method that wins at some rates only."
        )
    sentences += [
        "Apart: 'yes' also beyond these blocks, 'here' on them; p and apart are adjusted by Holm for "
        f"{number(len(pairs), 'pair')}, intervals are not. Equal methods are called apart in about 5 % of cases, with three seeds as with "
        "five (docs/statistics.md).",
    ]
    return sentences


def _neighbours(found: Summary) -> Section | None:
    """What it would take to tell apart methods that follow each other."""
    asked = [one for one in found.neighbours if one.seeds is not None or one.data_sets is not None]
    if not asked:
        return None
    sentences = [neighbour_sentence(one, found.table) for one in asked[:3]]
    sentences += [
        "Needed, in all: runs with which Student's test would tell the two apart in 80 % of cases at the level of one pair, 0.05"
        + (f" / {len(found.pairs)}" if len(found.pairs) > 1 else "")
        + ", if the difference is as large as seen; in brackets for the largest and the smallest difference, in units of its spread, that "
        "a 95 % interval leaves possible. '> 100': not within 100.",
        "A difference that few runs show is uncertain itself, so that the range counts, not the number before it.",
    ]
    return Section("What would tell neighbours apart", tuple(sentences), neighbour_table(found.neighbours, found.table))


def _equivalence(found: Summary) -> Section | None:
    """Only where a region was given."""
    if not found.equivalences:
        return None
    best, points, family = found.table.contenders[0], found.equivalences[0].points, len(found.pairs)
    with_best = [one for one in found.equivalences if best in (one.first, one.second)]
    shown = with_best if len(found.equivalences) > MANY_PAIRS else found.equivalences
    told = found.equivalences if len(found.equivalences) <= 3 else with_best if len(with_best) <= MANY_METHODS else []
    sentences = [equivalence_sentence(one, found.table) for one in told]
    sentences += [
        f"Region of practical equivalence: differences of at most {points:g} {measure_named(found.table.measure).label}, as asked for. "
        "Equal: within it with a probability of 95 %; better: beyond it with 97.5 %; else open"
        + (f". With {family} pairs, what these leave to 100 % is divided by {family}." if family > 1 else "."),
        "Probabilities are those of Student's posterior (flat prior) from the same errors as the intervals; with "
        "six data sets and more also of the Bayesian signed-rank test.",
    ]
    return Section("Practical equivalence", tuple(sentences), equivalence_table(shown, found.table.higher_is_better))


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f} %"
