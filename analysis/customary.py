"""The sections of the significance report with the tests that papers expect, and those over queries; no other sentence rests on them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from .per_query import DIRECTIONS, QueryTests, query_tests
from .ranks import holm, nemenyi_p, smallest_wilcoxon_p, wilcoxon_p
from .significance import ALPHA, Scores
from .summaries import Summary
from .verdicts import MANY_METHODS, MANY_NAMES, MANY_PAIRS, Section, is_p, number, overlap_words, p_words, papers_table


def papers_section(found: Summary) -> Section:
    """What papers print of pairs; no sentence elsewhere rests on it."""
    pairs, best = found.pairs, found.table.contenders[0]
    shown = [one for one in pairs if best in (one.first, one.second)] if len(pairs) > MANY_PAIRS else pairs
    smallest = smallest_wilcoxon_p(max((pair.blocks for pair in pairs), default=1))
    sentences = [
        "Bootstrap: percentile interval over data sets, rates and seeds; with few of them it is too narrow or too wide "
        "(docs/statistics.md), so no sentence rests on it.",
        "Wilcoxon: signed-rank p, two-sided over blocks, exact up to 50 (with tied sizes up to 13); Holm: adjusted for "
        f"{number(len(pairs), 'pair')}. Caveat: rates of one data set are not independent, so its p is too small. Effect: matched-pairs "
        "rank-biserial correlation over blocks.",
    ]
    if smallest >= ALPHA:
        sentences.append(
            f"With so few blocks, Wilcoxon's p cannot get below {smallest:.4g}, whatever the data: it cannot reject at {ALPHA}."
        )
    return Section("Pairs as papers test them", tuple(sentences), papers_table(shown, found.table))


def seeds_section(table: Scores) -> Section:
    """Only for a single block, where seeds are all there is."""
    runs = table.runs.dropna()
    n = len(runs)
    sentences = [
        f"There is one block only, so blocks cannot be tested; its {number(n, 'common seed')} can, but they answer whether the methods "
        "differ *here*.",
        f"{number(n, 'seed')} alone can never give a two-sided exact Wilcoxon p below {smallest_wilcoxon_p(n):.4g}"
        + (f": p < {ALPHA} is out of reach." if smallest_wilcoxon_p(n) >= ALPHA else "."),
    ]
    if n and len(table.methods) == 2:
        sentences.append(f"Wilcoxon over the seeds gives p {is_p(wilcoxon_p(runs.iloc[:, 0] - runs.iloc[:, 1]))}.")
    return Section("Seeds of the only block", tuple(sentences))


def ranks_section(found: Summary) -> Section | None:
    table, ranking = found.table, found.ranking
    title = "Ranks as papers test them"
    if len(table.methods) < 3:
        return None
    if ranking is None:
        count = number(len(table.complete_blocks()), "complete block")
        return Section(title, (f"Friedman's test needs at least two complete blocks, there is {count}.",))
    test, difference = ranking.test, ranking.critical_difference
    verdict = (
        "taken by itself, the methods do not all rank alike"
        if test.p < ALPHA
        else "the ranks do not tell any of the methods apart, and Nemenyi's groups below are to be read so"
    )
    sentences = [
        f"Friedman over {test.blocks} complete blocks: chi-square {test.statistic:.2f} with {test.methods - 1} degrees of freedom, "
        f"p {is_p(test.p)}: {verdict}.",
        f"Nemenyi: average ranks must differ by more than {difference:.2f} (critical difference at {ALPHA}).",
    ]
    if sum(map(len, ranking.cliques)) > MANY_NAMES:
        sentences.append(
            f"Not separated by it: {overlap_words(ranking.cliques)}; the critical-difference figure shows them."
        )
    else:
        sentences += [
            f"Not separated by it: {', '.join(table.labels[name] for name in one)}." for one in ranking.cliques
        ]
    if table.complete_blocks().groupby(level="dataset").size().max() > 1:
        sentences.append(
            "Caveat: both tests take blocks for independent, which rates of one data set are not, sharing their seeds. In simulations of "
            "such blocks they find differences between equal methods in 30 % of cases and more (docs/statistics.md), so no other sentence "
            "here rests on them."
        )
    if difference >= test.methods - 1:
        sentences.append(
            f"With {test.methods} methods and {test.blocks} blocks the critical difference is at least the largest possible one: nothing "
            "can be separated."
        )
    if test.methods > MANY_METHODS:
        return Section(title, tuple(sentences))
    p = nemenyi_p(ranking.ranks, test.blocks)
    names = list(ranking.ranks.index)
    rows = [
        {"": str(i), "run": a, "rank": f"{ranking.ranks[a]:.2f}"}
        | {f"p to {j}": "" if a == b else p_words(float(p.loc[a, b])) for j, b in enumerate(names, 1)}
        for i, a in enumerate(names, 1)
    ]
    return Section(title, tuple(sentences), pd.DataFrame(rows))


def queries_section(table: Scores) -> Section | None:
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
        sentences.append(f"{number(count, 'sidecar')} could not be used, the first because: {unreadable[0]}.")
    if not found:
        return Section("Queries within a block", tuple(sentences[-1:])) if unreadable else None
    adjusted = holm([result.p for result in found])
    rows = [_query_row(result) | {"Holm": p_words(float(p))} for result, p in zip(found, adjusted, strict=True)]
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
        row[f"McNemar p < {ALPHA}"] = f"{rejected} of {number(len(tests.mcnemar), 'seed')}"
    return row | {"p": p_words(tests.p)}
