"""Comparisons in words and as tables of text: "cannot be told apart" where that is so, and what it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..results.measures import measure as measure_named
from .equivalence import Equivalence, Posterior
from .intervals import FEWEST_SEEDS, Interval
from .power import MOST, POWER, Needed
from .resampling import generator, hierarchical_bootstrap
from .significance import ALPHA, Comparison, Scores
from .summaries import Neighbours

MANY_PAIRS, MANY_METHODS, MANY_NAMES = 30, 8, 24  # beyond these, sentences and tables show a part
BEYOND = {"data sets": "on other data sets", "rates": "at other rates", "seeds": "beyond this block"}


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and maybe a table of text."""

    title: str
    sentences: tuple[str, ...]
    table: pd.DataFrame | None = None


def sentence_of(pair: Comparison, table: Scores) -> str:
    """One comparison in words."""
    ahead = (pair.interval.mean > 0) == table.higher_is_better
    winner, loser = (pair.first, pair.second) if ahead else (pair.second, pair.first)
    winner, loser = table.labels[winner], table.labels[loser]
    size = f"{abs(pair.interval.mean):.{_digits(table)}f} {measure_named(table.measure).label}"
    numbers = f"mean difference {size}{_intervals(pair, table)}, {_where(pair)}"
    further = BEYOND[pair.interval.over]
    if pair.told_apart() and pair.interval.over == "seeds":
        return f"{winner} is ahead of {loser} on this block ({numbers})."
    if pair.told_apart():
        return f"{winner} is better than {loser}, {further} too ({numbers})."
    if pair.told_apart_here():
        few = f": {_too_few(pair.interval)}" if not pair.interval.enough() else ""
        known = f"{numbers}{_adjusted(pair, pair.interval)}"
        return f"{winner} is ahead of {loser} on these blocks; {further} the two cannot be told apart{few} ({known})."
    if pair.seeds[1] == 1:
        return f"{winner} and {loser} cannot be told apart: they share one seed only, which has no spread (difference {size})."
    if not pair.here.enough():
        return f"{winner} and {loser} cannot be told apart: {_too_few(pair.here)} ({numbers})."
    return f"{winner} and {loser} cannot be told apart ({numbers}{_doubts(pair)})."


def _too_few(interval: Interval) -> str:
    kind = "data sets" if interval.over == "data sets" else "seeds"
    return f"{interval.runs} {kind} are too few to tell, whatever they show; at least {FEWEST_SEEDS} are needed"


def _doubts(pair: Comparison) -> str:
    """What seems to say that they differ, and why it does not count."""
    if adjusted := _adjusted(pair, pair.here):
        return adjusted
    if pair.wilcoxon < ALPHA:
        return f"; Wilcoxon alone says p {is_p(pair.wilcoxon)}, see its caveat"
    return ""


def _adjusted(pair: Comparison, interval: Interval) -> str:
    """Why an interval without zero does not count."""
    if not (interval.separates() and pair.family > 1):
        return ""
    return f"; the interval over {interval.over} alone leaves zero out, but not after adjusting for {pair.family} pairs"


def _intervals(pair: Comparison, table: Scores) -> str:
    """Both 95 % intervals, seen from the winner."""
    mirrored, digits = pair.interval.mean < 0, _digits(table)
    shown = [pair.here] if pair.interval.over == "seeds" else [pair.here, pair.interval]
    words = [f"over {one.over} {ends(one, digits, mirrored)}" for one in shown if np.isfinite(one.low)]
    return f", 95 % interval {', '.join(words)}" if words else ""


def _where(pair: Comparison) -> str:
    return f"{number(pair.blocks, 'block')} of {number(pair.data_sets, 'data set')}"


def summary_sentences(best: str, pairs: Sequence[Comparison], table: Scores) -> list[str]:
    """The comparisons of one method with many others, in a sentence per verdict; ``pairs`` all contain it."""
    others: dict[str, list[str]] = {}
    for pair in pairs:
        other = pair.second if pair.first == best else pair.first
        others.setdefault(_verdict_of(pair, best, table), []).append(table.labels[other])
    return [f"{table.labels[best]} {words}: {'; '.join(names)}." for words, names in sorted(others.items(), key=_order)]


def _verdict_of(pair: Comparison, best: str, table: Scores) -> str:
    further = BEYOND[pair.interval.over]
    if not pair.told_apart() and not pair.told_apart_here():
        return "cannot be told apart from"
    if ((pair.interval.mean > 0) == table.higher_is_better) != (pair.first == best):
        return "is behind"
    if pair.told_apart():
        return "is ahead of" if pair.interval.over == "seeds" else f"is better than these, {further} too"
    return f"is ahead of these on the blocks here, which does not show the same {further}"


def _order(verdict: tuple[str, list[str]]) -> tuple[int, str]:
    starts = ("is better", "is ahead", "is behind", "cannot")
    return next(k for k, start in enumerate(starts) if verdict[0].startswith(start)), verdict[0]


def pair_table(pairs: Sequence[Comparison], table: Scores) -> pd.DataFrame:
    """Text, a row per pair; the difference is first minus second."""
    digits = _digits(table)
    rows = []
    for pair in pairs:
        row = {
            "first": pair.first,
            "second": pair.second,
            "diff.": f"{pair.interval.mean:+.{digits}f}",
            "over seeds": ends(pair.here, digits),
        }
        if pair.interval.over != "seeds":
            row[f"over {pair.interval.over}"] = ends(pair.interval, digits)
        row |= {
            "apart": "yes" if pair.told_apart() else "here" if pair.told_apart_here() else "no",
            "p": p_words(pair.p_here),
            "won": f"{pair.wins}/{pair.blocks}",
            "seeds": str(pair.seeds[0]) if pair.seeds[0] == pair.seeds[1] else f"{pair.seeds[0]}-{pair.seeds[1]}",
        }
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def papers_table(pairs: Sequence[Comparison], table: Scores) -> pd.DataFrame:
    """What papers print of each pair, as text: the percentile interval of the bootstrap (20 ms per pair), and tests over blocks."""
    digits = _digits(table)
    rows = [
        {
            "first": pair.first,
            "second": pair.second,
            "bootstrap": ends(_bootstrap(pair, table), digits),
            "Wilcoxon": p_words(pair.wilcoxon),
            "Holm": p_words(pair.holm),
            "effect": f"{pair.effect:+.2f}",
        }
        for pair in pairs
    ]
    return pd.DataFrame(rows)


def _bootstrap(pair: Comparison, table: Scores) -> Interval:
    purpose = f"difference of {pair.first} and {pair.second} in {table.measure}"
    return hierarchical_bootstrap((table.runs[pair.first] - table.runs[pair.second]).dropna(), generator(purpose))


def neighbour_sentence(found: Neighbours, table: Scores) -> str:
    """What would tell two neighbours apart, where nothing did yet."""
    first, second = table.labels[found.pair.first], table.labels[found.pair.second]
    parts = [needed_words(one) for one in (found.seeds, found.data_sets) if one is not None]
    return f"{first} and {second}: {'; '.join(parts)}." if parts else ""


def needed_words(needed: Needed) -> str:
    """``with the difference as seen, 9 more seeds (14 in all) would ..., but from 6 to more than 100 in all are possible``."""
    more = needed.more()
    place = " per data set" if needed.over == "seeds" else ""
    if more is None:
        least = "not even the largest difference that these leave possible would" if needed.low is None else (
            f"at best, {needed.low} in all would"
        )  # fmt: skip
        return f"not within {MOST} {needed.over}{place} with the difference as seen; {least}"
    cases = f"in {100 * POWER:.0f} % of cases with the difference as seen"
    start = f"{more} more {needed.over}{place} ({needed.as_seen} in all) would do {cases}"
    if more == 0:
        start = f"{needed.as_seen} {needed.over}{place} do {cases}, and did not here"
    high = f"more than {MOST}" if needed.high is None else str(needed.high)
    return f"{start}; from {needed.now} {needed.over} its size is so uncertain that it may take {needed.low} to {high}"


def neighbour_table(found: Sequence[Neighbours], table: Scores) -> pd.DataFrame:
    """Text, a row per pair of neighbours: numbers of seeds and data sets in all, with their range."""
    rows = []
    for one in found:
        pair = one.pair
        row = {
            "first": pair.first,
            "second": pair.second,
            "diff.": f"{pair.here.mean:+.{_digits(table)}f}",
            "seeds": str(pair.here.runs),
            "seeds needed": _needed(one.seeds, pair.told_apart_here()),
        }
        if pair.interval.over == "data sets":
            row |= {"data sets": str(pair.data_sets), "data sets needed": _needed(one.data_sets, pair.told_apart())}
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def _needed(needed: Needed | None, apart: bool) -> str:
    """``14 (7 to > 100)``."""
    if needed is None:
        return "told apart" if apart else "-"
    as_seen, low, high = (f"> {MOST}" if n is None else str(n) for n in (needed.as_seen, needed.low, needed.high))
    return f"{as_seen} ({low} to {high})" if low != high else as_seen


def equivalence_sentence(found: Equivalence, table: Scores) -> str:
    """Whether two methods are equal for practical purposes, on these blocks and on other data sets."""
    first, second = table.labels[found.first], table.labels[found.second]
    region = f"{found.points:g} {measure_named(table.measure).label}"
    parts = [
        f"{where} {_verdict(posterior, found, table, region)}"
        for where, posterior in (
            ("on these blocks", found.here),
            ("on other data sets", found.beyond),
            ("by the signed-rank test over data sets", found.signed_rank),
        )
        if posterior is not None
    ]
    return f"{first} and {second}: {'; '.join(parts) or f'fewer than {FEWEST_SEEDS} seeds, which is too few to tell'}."


def _verdict(posterior: Posterior, found: Equivalence, table: Scores, region: str) -> str:
    verdict = posterior.verdict(table.higher_is_better, found.family)
    if verdict == "equal":
        return f"practically equal (within {region} with probability {posterior.equal:.3f})"
    if verdict == "open":
        return f"open (within {region} with probability {posterior.equal:.2f})"
    sure, winner = max(posterior.lower, posterior.higher), found.first if verdict == "first" else found.second
    return f"{table.labels[winner]} is better by more than {region} (probability {sure:.3f})"


def equivalence_table(found: Sequence[Equivalence], higher_is_better: bool) -> pd.DataFrame:
    """Text, a row per pair: probabilities that the first is worse, equal, better, and the verdict; here and over data sets."""
    rows = []
    for one in found:
        row = {"first": one.first, "second": one.second}
        for where, posterior in (("here", one.here), ("data sets", one.beyond), ("signed-rank", one.signed_rank)):
            if posterior is not None:
                sides = (posterior.lower, posterior.higher) if higher_is_better else (posterior.higher, posterior.lower)
                row[f"{where}: worse / equal / better"] = f"{sides[0]:.3f} / {posterior.equal:.3f} / {sides[1]:.3f}"
                verdict = posterior.verdict(higher_is_better, one.family)
                row[where] = verdict if verdict in ("equal", "open") else f"{verdict} better"
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def _digits(table: Scores) -> int:
    return measure_named(table.measure).decimals


def overlap_words(groups: Sequence[Sequence[str]]) -> str:
    """How many groups, where there are too many to name."""
    return f"{len(groups)} groups of up to {max(map(len, groups))} methods overlap"


def ends(interval: Interval, digits: int, mirrored: bool = False) -> str:
    """``-1.2 to +3.4``; ``none`` where there is no interval."""
    if not np.isfinite(interval.low):
        return "none"
    low, high = (-interval.high, -interval.low) if mirrored else (interval.low, interval.high)
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def p_words(p: float) -> str:
    """``0.031`` or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def is_p(p: float) -> str:
    """``= 0.031`` or ``< 0.001``."""
    return p_words(p) if p < 0.001 else f"= {p_words(p)}"


def number(n: int, noun: str) -> str:
    """``1 block``, ``2 blocks``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
