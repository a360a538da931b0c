"""The page on significance: sentences whose wording follows the numbers, tables beside them, as terminal text or Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tabulate import tabulate

from ..results.measures import measure as measure_named
from .per_query import DIRECTIONS, QueryTests, query_tests
from .ranks import holm, nemenyi_p, smallest_wilcoxon_p, wilcoxon_p
from .resampling import FEWEST_SEEDS, Interval, gap_share, interquartile_mean
from .significance import ALPHA, Comparison, Ranking, Scores, compare_all, rank, scores

NOISE_BLIND = (
    "clip@paper",
    "ce@paper",
)  # the lower end of the gap, by task; the upper one is the method flagged `oracle`
FEW_DATA_SETS = 6
MANY_PAIRS, MANY_METHODS = 30, 8  # beyond these, tables show a part
WIDTH = 100  # of terminal text, in characters


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and maybe a table of text."""

    title: str
    sentences: tuple[str, ...]
    table: pd.DataFrame | None = None


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
    frame: pd.DataFrame, methods: Sequence[str] | None = None, measure: str | None = None, queries: bool = True
) -> Report:
    """Compare methods over the records of a frame.

    Args:
        frame: as :func:`.frame.load_frame` gives it.
        methods: ``npc`` (all its variants) or ``npc@paper``; None compares all.
        measure: what to compare by; None = the headline of the task.
        queries: whether to read the sidecars for tests over queries.

    Raises:
        AnalysisError: as :func:`.significance.scores`.
    """
    table = scores(frame, methods, measure)
    pairs, ranking = compare_all(table), rank(table)
    sections: list[Section | None] = [_what(table), _summary(table, ranking), _pairs(table, pairs)]
    if len(table.blocks()) == 1:
        sections.append(_seeds(table))
    sections.append(_many(table, ranking))
    if queries:
        sections.append(_queries(table))
    title = f"Significance of differences in {measure_named(table.measure).label}"
    return Report(title, tuple(s for s in sections if s is not None), tuple(pairs), ranking)


def _what(table: Scores) -> Section:
    blocks, complete = table.blocks(), table.complete_blocks()
    names = [str(name) for name in blocks.index.unique("dataset")]
    count = _number(len(blocks), "block")
    sentences = [
        f"{len(table.methods)} methods on {count} of {_number(len(names), 'data set')} ({', '.join(names)}); a block is one data set, "
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
            f"With only {len(names)} data sets, the intervals speak about these; how far differences carry to others stays open."
        )
    return Section("What is compared", tuple(sentences))


def _summary(table: Scores, ranking: Ranking | None) -> Section:
    means, common = table.blocks().mean(), table.complete_blocks()
    shares, note = _shares(table)
    rows = []
    for name in table.methods:
        values = table.runs[name].dropna()
        row = {
            "run": name,
            "method": table.labels[name],
            "mean": f"{(common[name].mean() if len(common) else means[name]):.1f}",
            "IQM": f"{interquartile_mean(values):.1f}",
            "runs": str(len(values)),
        }
        if ranking is not None:
            row["rank"] = f"{ranking.ranks[name]:.2f}"
        if shares:
            row["of gap"] = _percent(shares.get(name, np.nan))
        rows.append(row)
    where = "complete blocks" if len(common) else "each method's own blocks"
    sentences = [
        f"Mean over {where}; IQM is the interquartile mean over all runs of a method, which a collapsed run does not move"
        + ("; rank is the average over complete blocks, 1 is best." if ranking is not None else "."),
    ]
    if _oracles(table):
        sentences.append("Oracles take part in all tests; the sentences ask for the best of the others.")
    return Section("Methods", (*sentences, *note), pd.DataFrame(rows))


def _shares(table: Scores) -> tuple[dict[str, float], list[str]]:
    """Share of the gap between the noise-blind method and the oracle, per method, over blocks that have all three."""
    oracles = _oracles(table)
    blind = [name for name in NOISE_BLIND if name in table.methods]
    if len(blind) != 1 or len(oracles) != 1 or not table.higher_is_better:
        return {}, []
    anchors, shares = [blind[0], oracles[0]], {}
    blocks = table.blocks()
    for name in table.methods:
        part = blocks[list(dict.fromkeys([name, *anchors]))].dropna()
        shares[name] = gap_share(part[name], part[blind[0]], part[oracles[0]]) if len(part) else np.nan
    return shares, [
        f"Of gap: share of the gap between {table.labels[blind[0]]}, which ignores the noise (0 %), and "
        f"{table.labels[oracles[0]]}, which is told what is clean (100 %)."
    ]


def _oracles(table: Scores) -> list[str]:
    return [name for name in table.methods if "oracle" in table.flags[name]]


def _pairs(table: Scores, pairs: Sequence[Comparison]) -> Section:
    best = table.contenders[0]
    sentences = [sentence_of(pair, table) for pair in pairs if len(pairs) <= 3 or best in (pair.first, pair.second)]
    missing = len(table.methods) * (len(table.methods) - 1) // 2 - len(pairs)
    if missing:
        sentences.append(f"{_number(missing, 'pair')} of methods have no run in common and cannot be compared.")
    sentences += _how_pairs(pairs)
    shown = [pair for pair in pairs if best in (pair.first, pair.second)] if len(pairs) > MANY_PAIRS else pairs
    if len(shown) < len(pairs):
        sentences.append(
            f"The table shows the {len(shown)} pairs of {table.labels[best]}; name two methods to see another pair."
        )
    return Section("Pairs", tuple(sentences), pair_table(shown, table))


def _how_pairs(pairs: Sequence[Comparison]) -> list[str]:
    smallest = smallest_wilcoxon_p(max((pair.blocks for pair in pairs), default=1))
    sentences = [
        "Intervals: 95 %, bootstrap over data sets, then rates, then seeds (seeds paired, shared by the rates of a data set), not "
        "adjusted for the number of pairs. A method that wins at some rates only is not told apart by them; what holds at one rate "
        "is in the tables.",
        "p: Wilcoxon's signed-rank test, two-sided over blocks, exact up to 50 (with tied sizes up to 13), as papers print it. Caveat: "
        "rates of one data set are not independent, so its p is too small.",
        f"Holm: p adjusted for {_number(len(pairs), 'pair')}. Effect: matched-pairs rank-biserial correlation over blocks.",
    ]
    if smallest >= ALPHA:
        sentences.append(
            f"With so few blocks, Wilcoxon's p cannot get below {smallest:.4g}, whatever the data: it cannot reject at {ALPHA}."
        )
    return sentences


def sentence_of(pair: Comparison, table: Scores) -> str:
    """One comparison in words."""
    label, digits = measure_named(table.measure).label, measure_named(table.measure).decimals
    ahead = (pair.interval.mean > 0) == table.higher_is_better
    winner, loser = (pair.first, pair.second) if ahead else (pair.second, pair.first)
    winner, loser = table.labels[winner], table.labels[loser]
    size = f"{abs(pair.interval.mean):.{digits}f} {label}"
    if not np.isfinite(pair.interval.low):
        return f"{winner} and {loser} cannot be told apart: they share one seed only, which has no spread (difference {size})."
    numbers = (
        f"mean difference {size}, 95 % interval {_ends(pair.interval, digits, pair.interval.mean < 0)}, "
        f"{_number(pair.blocks, 'block')} of {_number(pair.data_sets, 'data set')}"
    )
    if pair.interval.excludes_zero() and not pair.told_apart():
        return (
            f"{winner} and {loser} cannot be told apart: {pair.interval.runs} independent runs (seeds of a data set) are too few to "
            f"be evidence, whatever they show; at least {FEWEST_SEEDS} are needed ({numbers})."
        )
    if not pair.told_apart():
        extra = "" if pair.wilcoxon >= ALPHA else f"; Wilcoxon alone says p {_is(pair.wilcoxon)}, see its caveat"
        return f"{winner} and {loser} cannot be told apart ({numbers}{extra})."
    if pair.holm < ALPHA:
        return f"{winner} is better than {loser} ({numbers}; Holm-adjusted Wilcoxon p {_is(pair.holm)})."
    if smallest_wilcoxon_p(pair.blocks) >= ALPHA:
        return f"{winner} is ahead of {loser} by the interval ({numbers}); that is too few blocks for Wilcoxon's test to confirm it."
    return (
        f"{winner} is ahead of {loser} by the interval ({numbers}), but the Wilcoxon test over blocks does not confirm it "
        f"(Holm-adjusted p {_is(pair.holm)})."
    )


def pair_table(pairs: Sequence[Comparison], table: Scores) -> pd.DataFrame:
    """Text, a row per pair; the difference is first minus second."""
    digits = measure_named(table.measure).decimals
    rows = [
        {
            "first": pair.first,
            "second": pair.second,
            "diff.": f"{pair.interval.mean:+.{digits}f}",
            "95 % interval": _ends(pair.interval, digits) if np.isfinite(pair.interval.low) else "none",
            "apart": "yes" if pair.told_apart() else "no",
            "p": _p(pair.wilcoxon),
            "Holm": _p(pair.holm),
            "effect": f"{pair.effect:+.2f}",
            "won": f"{pair.wins}/{pair.blocks}",
            "seeds": str(pair.seeds[0]) if pair.seeds[0] == pair.seeds[1] else f"{pair.seeds[0]}-{pair.seeds[1]}",
        }
        for pair in pairs
    ]
    return pd.DataFrame(rows)


def _seeds(table: Scores) -> Section:
    """Only for a single block, where seeds are all there is."""
    runs = table.runs.dropna()
    n = len(runs)
    sentences = [
        f"There is one block only, so blocks cannot be tested; its {_number(n, 'common seed')} can, but they answer whether the methods "
        "differ *here*.",
        f"{n} seeds alone can never give a two-sided exact Wilcoxon p below {smallest_wilcoxon_p(n):.4g}"
        + (f": p < {ALPHA} is out of reach." if smallest_wilcoxon_p(n) >= ALPHA else "."),
    ]
    if n and len(table.methods) == 2:
        sentences.append(f"Wilcoxon over the seeds gives p {_is(wilcoxon_p(runs.iloc[:, 0] - runs.iloc[:, 1]))}.")
    return Section("Seeds of the only block", tuple(sentences))


def _many(table: Scores, ranking: Ranking | None) -> Section | None:
    if len(table.methods) < 3:
        return None
    if ranking is None:
        found = _number(len(table.complete_blocks()), "complete block")
        return Section("All methods", (f"Friedman's test needs at least two complete blocks, there is {found}.",))
    test, difference = ranking.test, ranking.critical_difference
    verdict = (
        "the methods do not all rank alike"
        if test.p < ALPHA
        else "the ranks do not tell any of the methods apart, and Nemenyi's groups below are to be read so"
    )
    sentences = [
        f"Friedman over {test.blocks} complete blocks: chi-square {test.statistic:.2f} with {test.methods - 1} degrees of freedom, "
        f"p {_is(test.p)}: {verdict}.",
        f"Nemenyi: average ranks must differ by more than {difference:.2f} (critical difference at {ALPHA}).",
        *[f"Not separated by it: {', '.join(table.labels[name] for name in clique)}." for clique in ranking.cliques],
        "Caveat: both tests take blocks for independent, which rates of one data set are not.",
    ]
    if difference >= test.methods - 1:
        sentences.append(
            f"With {test.methods} methods and {test.blocks} blocks the critical difference is at least the largest possible one: nothing "
            "can be separated."
        )
    if test.methods > MANY_METHODS:
        return Section("All methods", tuple(sentences))
    p = nemenyi_p(ranking.ranks, test.blocks)
    names = list(ranking.ranks.index)
    rows = [
        {"": str(i), "run": a, "rank": f"{ranking.ranks[a]:.2f}"}
        | {f"p to {j}": "" if a == b else _p(float(p.loc[a, b])) for j, b in enumerate(names, 1)}
        for i, a in enumerate(names, 1)
    ]
    return Section("All methods", tuple(sentences), pd.DataFrame(rows))


def _queries(table: Scores) -> Section | None:
    """The two best methods, block by block, over the queries of the test split."""
    first, second = table.contenders[:2]
    unreadable: list[str] = []
    results = [
        query_tests(table, first, second, block, way, unreadable)
        for block in table.blocks().index
        for way in DIRECTIONS
    ]
    found = [result for result in results if result is not None]
    sentences = [
        f"{table.labels[first]} against {table.labels[second]}; name two methods to see another pair.",
        "This answers a different question: whether *these trained models* differ on further queries of this kind, not whether the methods "
        "differ on other data. It can be certain where the tests above are open.",
        f"p: randomisation test (sign flips) on the difference of the {_query_measure(results)}, averaged over common seeds; Holm over "
        "this table.",
    ]
    if any(result is not None and result.mcnemar for result in results):
        sentences.append(
            "McNemar, exact, per seed, on R@1 (a tie for the first place is no hit). Captions of one image count as independent queries, "
            "which they are not quite."
        )
    if unreadable:
        count = len(set(unreadable))
        sentences.append(f"{_number(count, 'sidecar')} could not be used, the first because: {unreadable[0]}.")
    if not found:
        return Section("Queries within a block", tuple(sentences[-1:])) if unreadable else None
    adjusted = holm([result.p for result in found])
    rows = [_query_row(result) | {"Holm": _p(float(p))} for result, p in zip(found, adjusted, strict=True)]
    return Section("Queries within a block", tuple(sentences), pd.DataFrame(rows))


def _query_measure(results: Sequence[QueryTests | None]) -> str:
    return next((result.measure for result in results if result is not None), "reciprocal first-hit rank")


def _query_row(tests: QueryTests) -> dict[str, str]:
    dataset, noise, rate = tests.block
    rejected = sum(test.p < ALPHA for test in tests.mcnemar)
    row = {
        "block": f"{dataset}, {noise}" + ("" if rate == "real" else f" {rate}"),
        "direction": tests.way,
        "queries": str(tests.queries),
        tests.measure.replace(" first-hit", ""): f"{tests.difference:+.4f}",
    }
    if tests.mcnemar:
        row[f"McNemar p < {ALPHA}"] = f"{rejected} of {_number(len(tests.mcnemar), 'seed')}"
    return row | {"p": _p(tests.p)}


def _ends(interval: Interval, digits: int, mirrored: bool = False) -> str:
    low, high = (-interval.high, -interval.low) if mirrored else (interval.low, interval.high)
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _is(p: float) -> str:
    """``= 0.031`` or ``< 0.001``."""
    return _p(p) if p < 0.001 else f"= {_p(p)}"


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f} %"


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
