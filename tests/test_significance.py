"""Tests on ranks and over queries against independent implementations and cases by hand; what the report says, and when."""

from __future__ import annotations

import re
from itertools import chain, combinations, permutations, product
from pathlib import Path

import autorank
import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.analysis import ranks
from nocobench.analysis.frame import AnalysisError
from nocobench.analysis.per_query import FirstHits, first_hits, mcnemar, query_tests
from nocobench.analysis.resampling import separable
from nocobench.analysis.significance import compare_all, rank, scores
from nocobench.analysis.significance_report import sentence_of, significance_report
from nocobench.results.record import Circumstances
from nocobench.results.store import RecordStore
from sample_frames import command, frame_of, grid, stored
from sample_records import make_record
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

NOISE = st.floats(-20, 20).map(lambda x: round(x, 1))
DATA_SETS = ("digits", "emoji", "multi30k", "coco", "flickr", "cc", "cub")


# --- Wilcoxon, its effect, Holm


def wilcoxon_by_enumeration(values: list[float]) -> float:
    """Share of all sign patterns whose smaller rank sum is at most the observed one."""
    values = [value for value in values if value]
    sizes = stats.rankdata(np.abs(values))
    sums = [
        sum(size for size, sign in zip(sizes, signs, strict=True) if sign)
        for signs in product((0, 1), repeat=len(values))
    ]
    smaller = [min(total, sizes.sum() - total) for total in sums]
    observed = sum(size for size, value in zip(sizes, values, strict=True) if value > 0)
    return float(np.mean([one <= min(observed, sizes.sum() - observed) + 1e-9 for one in smaller]))


@settings(max_examples=40, deadline=None)
@given(st.lists(NOISE, min_size=1, max_size=9))
def test_wilcoxon_is_exact_with_ties_and_zeros(values: list[float]) -> None:
    expected = wilcoxon_by_enumeration(values) if any(values) else 1.0
    assert ranks.wilcoxon_p(values) == pytest.approx(expected, abs=1e-12)


def test_wilcoxon_by_hand_and_by_scipy() -> None:
    assert ranks.wilcoxon_p([1.0, 2.0, 3.0]) == 0.25  # 2 of 8 patterns
    assert ranks.wilcoxon_p([1.0, -2.0, 3.0, 4.0, 5.0]) == pytest.approx(
        6 / 32
    )  # rank sums 0, 1, 2 against: 3 patterns, twice
    assert ranks.wilcoxon_p([0.0, 0.0]) == 1.0
    assert ranks.wilcoxon_p([]) == 1.0
    darwin = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]  # Wilcoxon 1945
    assert ranks.wilcoxon_p(darwin) == pytest.approx(0.041259765625)
    rng = np.random.default_rng(0)
    for n in (5, 20, 50):
        values = rng.normal(0.3, 1, n)
        assert ranks.wilcoxon_p(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, rel=1e-12)


def test_last_bits_are_no_differences() -> None:
    """0.1 + 0.2 is not 0.3 in floats; ranks must see a tie and a zero."""
    wobbly, clean = [0.1 + 0.2, -0.3, 1.0, 0.1 + 0.2 - 0.3], [0.3, -0.3, 1.0, 0.0]
    assert ranks.wilcoxon_p(wobbly) == ranks.wilcoxon_p(clean)
    assert ranks.rank_biserial(wobbly) == ranks.rank_biserial(clean) == pytest.approx((1.5 - 1.5 + 3) / 6)
    table = pd.DataFrame({"a": [0.1 + 0.2, 1.0], "b": [0.3, 2.0], "c": [0.2, 3.0]})
    assert ranks.average_ranks(table).to_dict() == {"a": 2.25, "b": 1.75, "c": 2.0}
    assert ranks.friedman(table) == ranks.friedman(table.round(6))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 10])
def test_smallest_p_is_what_equal_signs_give(n: int) -> None:
    """Five: 0.0625, so that five seeds can never give p < 0.05; six blocks can."""
    assert ranks.smallest_wilcoxon_p(n) == pytest.approx(ranks.wilcoxon_p(np.arange(n) + 1.0))
    assert (ranks.smallest_wilcoxon_p(n) < 0.05) == (n >= 6)
    assert ranks.smallest_wilcoxon_p(5) == 0.0625


def test_rank_biserial_by_hand() -> None:
    assert ranks.rank_biserial([1.0, -2.0, 3.0]) == pytest.approx((1 - 2 + 3) / 6)
    assert ranks.rank_biserial([0.5, 4.0, 0.0]) == 1.0
    assert ranks.rank_biserial([-1.0]) == -1.0
    assert ranks.rank_biserial([2.0, -2.0]) == 0.0
    assert ranks.rank_biserial([0.0]) == 0.0
    values = np.random.default_rng(1).normal(size=12)
    against = stats.wilcoxon(values).statistic  # the smaller rank sum
    assert abs(ranks.rank_biserial(values)) == pytest.approx(1 - 2 * against / (12 * 13 / 2))


def test_holm_by_hand() -> None:
    """0.01 * 3; 0.03 * 2; 0.04 * 1 is less than the one before, so it takes that."""
    assert list(ranks.holm([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert list(ranks.holm([0.9, 0.8])) == [1.0, 1.0]
    assert list(ranks.holm([])) == []


@pytest.mark.parametrize("n", [1, 2, 7, 45])
def test_holm_against_statsmodels(n: int) -> None:
    p = np.round(np.random.default_rng(n).random(n) ** 3, 2)  # with ties and zeros
    assert list(ranks.holm(p)) == pytest.approx(list(multipletests(p, method="holm")[1]), abs=1e-12)


# --- Friedman, Nemenyi


def table_of(seed: int, blocks: int, methods: int, ties: bool) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(0, 1, (blocks, methods)) + np.arange(methods) * 0.4
    return pd.DataFrame(np.round(values) if ties else values, columns=[f"m{k}" for k in range(methods)])


def friedman_by_formula(table: pd.DataFrame) -> float:
    """Conover's form, which needs no separate correction for ties."""
    r = np.array([stats.rankdata(row) for row in table.to_numpy()])
    n, k = r.shape
    between = ((r.sum(axis=0) - n * (k + 1) / 2) ** 2).sum()
    return float((k - 1) * between / ((r**2).sum() - n * k * (k + 1) ** 2 / 4))


@pytest.mark.parametrize(("blocks", "methods"), [(2, 3), (7, 4), (12, 6)])
@pytest.mark.parametrize("ties", [False, True])
def test_friedman_against_scipy_and_the_formula(blocks: int, methods: int, ties: bool) -> None:
    table = table_of(blocks, blocks, methods, ties)
    found, by_scipy = ranks.friedman(table), stats.friedmanchisquare(*table.to_numpy().T)
    assert (found.statistic, found.p) == pytest.approx((by_scipy.statistic, by_scipy.pvalue))
    assert found.statistic == pytest.approx(friedman_by_formula(table))
    assert (found.methods, found.blocks) == (methods, blocks)
    lower = ranks.friedman(-table)
    assert (lower.statistic, lower.p) == pytest.approx((found.statistic, found.p))


def test_friedman_by_hand_and_at_its_limits() -> None:
    """Ranks (1, 2, 3) and (1, 3, 2): sums 2, 5, 5; 12 / (2*3*4) * (4 + 25 + 25) - 3*2*4 = 3."""
    table = pd.DataFrame({"a": [9.0, 9.0], "b": [5.0, 1.0], "c": [1.0, 5.0]})
    assert ranks.friedman(table).statistic == pytest.approx(3.0)
    assert ranks.friedman(table * 0).p == 1.0
    for few in (table[["a", "b"]], table.iloc[:1]):
        with pytest.raises(ValueError, match="at least 3 and 2"):
            ranks.friedman(few)


def test_average_ranks_by_hand() -> None:
    """Block 1: c, a, b; block 2: a and b share 1 and 2."""
    table = pd.DataFrame({"a": [2.0, 5.0], "b": [1.0, 5.0], "c": [3.0, 0.0]})
    assert ranks.average_ranks(table).to_dict() == {"a": 1.75, "b": 2.25, "c": 2.0}
    assert list(ranks.average_ranks(table).index) == ["a", "c", "b"]
    assert ranks.average_ranks(table, higher_is_better=False).to_dict() == {"a": 2.25, "b": 1.75, "c": 2.0}


def test_critical_difference_of_demsar() -> None:
    """Table 5(a) and the example of Demsar 2006: 4 classifiers, 14 data sets, 2.569 * sqrt(4*5 / (6*14)) = 1.25. The table has 3 decimals,
    its quantile is that of 0.05 to about 0.001."""
    printed = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for k, q in printed.items():
        assert ranks.critical_difference(k, 14) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=0.0015)
    assert ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert ranks.critical_difference(5, 30, alpha=0.1) == pytest.approx(2.459 * np.sqrt(5 * 6 / (6 * 30)), abs=0.0015)


def test_critical_difference_against_autorank() -> None:
    """autorank looks its quantile up in statsmodels' approximation, good to about three digits."""
    table = table_of(3, 12, 5, ties=False)
    found = autorank.autorank(table, alpha=0.05, verbose=False, force_mode="nonparametric")
    assert found.cd == pytest.approx(ranks.critical_difference(5, 12), rel=2e-3)


@pytest.mark.parametrize("ties", [False, True])
def test_nemenyi_against_scikit_posthocs(ties: bool) -> None:
    table = table_of(8, 10, 5, ties)
    order = ranks.average_ranks(table)
    found = ranks.nemenyi_p(order, len(table))
    expected = scikit_posthocs.posthoc_nemenyi_friedman(table)
    for a, b in combinations(table.columns, 2):
        assert found.loc[a, b] == pytest.approx(float(expected.loc[a, b]), abs=1e-6)
        assert found.loc[a, b] == found.loc[b, a]
        # p and critical difference are two ways of saying the same.
        assert (found.loc[a, b] < 0.05) == (abs(order[a] - order[b]) > ranks.critical_difference(5, 10))
    assert (np.diag(found) == 1).all()


def test_cliques_by_hand() -> None:
    """1.0 and 1.5; 1.5 and 2.4; 3.5 is farther than 1 from all. With 1.4 three are together, and their pairs are not listed again."""
    order = pd.Series({"a": 1.0, "b": 1.5, "c": 2.4, "d": 3.5})
    assert ranks.maximal_cliques(order, 1.0) == [("a", "b"), ("b", "c")]
    assert ranks.maximal_cliques(order, 1.4) == [("a", "b", "c"), ("c", "d")]
    assert ranks.maximal_cliques(order, 9.0) == [("a", "b", "c", "d")]
    assert ranks.maximal_cliques(order, 0.1) == []
    assert ranks.share_a_clique([("a", "b"), ("b", "c")], "c", "b")
    assert not ranks.share_a_clique([("a", "b"), ("b", "c")], "a", "c")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 14), min_size=2, max_size=6), st.integers(1, 8))
def test_cliques_against_all_subsets(halves: list[int], difference: int) -> None:
    order = pd.Series({f"m{k}": value / 2 for k, value in enumerate(halves)})
    subsets = chain.from_iterable(combinations(order.index, size) for size in range(2, len(order) + 1))
    values = order.to_dict()
    fit = [set(one) for one in subsets if max(map(values.get, one)) - min(map(values.get, one)) <= difference]  # type: ignore
    maximal = [one for one in fit if not any(one < other for other in fit)]
    found = ranks.maximal_cliques(order, difference)
    assert len(found) == len(maximal)
    assert all(set(clique) in maximal for clique in found)


# --- over queries


@pytest.mark.parametrize(
    ("better", "tied", "own"), [(0, 0, 1), (0, 3, 1), (1, 2, 2), (2, 4, 1), (0, 1, 4), (3, 0, 2), (0, 0, 5)]
)
def test_ties_against_every_order(better: int, tied: int, own: int) -> None:
    """Wrong (0) and own (1) items of the tie in all orders, behind the better ones."""
    orders = list(permutations([0] * tied + [1] * own))
    first = [better + order.index(1) + 1 for order in orders]
    hits = FirstHits(*(np.array([n]) for n in (better, tied, own)))
    for k in (1, 2, 3, 5, 10):
        assert hits.expected_hit(k)[0] == pytest.approx(np.mean([rank <= k for rank in first]), abs=1e-12)
    assert hits.reciprocal_rank()[0] == pytest.approx(1 / np.mean(first))
    assert bool(hits.certain_hit()[0]) == (max(first) == 1)


def test_collapsed_model() -> None:
    """All 5,000 items tied, 5 of them own: chance of a hit at 10 is 1 - C(4995, 10) / C(5000, 10)."""
    hits = FirstHits(np.array([0]), np.array([4995]), np.array([5]))
    expected = 1 - np.prod([(4995 - j) / (5000 - j) for j in range(10)])
    assert hits.expected_hit(10)[0] == pytest.approx(expected, rel=1e-8)  # logarithms of factorials lose some digits
    assert not hits.certain_hit()[0]


def test_arrays_of_sidecars() -> None:
    arrays = {f"i2t_{name}": np.array([1, 2], dtype=np.uint32) for name in ("better", "tied", "own_tied")}
    found = first_hits(arrays, "i2t")
    assert found is not None
    assert found.better.dtype == np.int64  # unsigned numbers would wrap below zero
    assert first_hits(arrays, "t2i") is None
    with pytest.raises(ValueError, match="differ in length"):
        first_hits(arrays | {"i2t_tied": np.array([1])}, "i2t")


def test_mcnemar_by_hand() -> None:
    """Five queries for a, none for b: 2 / 2^5. Agreement says nothing."""
    a, b = [1] * 5 + [1, 0], [0] * 5 + [1, 0]
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b, found.p) == (5, 0, pytest.approx(2 / 32))
    assert mcnemar([1, 0], [1, 0]).p == 1.0
    with pytest.raises(ValueError, match="cannot be paired"):
        mcnemar([1], [1, 0])


@pytest.mark.parametrize(("only_a", "only_b", "both"), [(3, 9, 20), (10, 10, 0), (0, 1, 5), (40, 22, 100)])
def test_mcnemar_against_statsmodels_and_scipy(only_a: int, only_b: int, both: int) -> None:
    a = [1] * only_a + [0] * only_b + [1] * both
    b = [0] * only_a + [1] * only_b + [1] * both
    found = mcnemar(a, b)
    assert found.p == pytest.approx(statsmodels_mcnemar([[both, only_a], [only_b, 0]], exact=True).pvalue)
    assert found.p == pytest.approx(stats.binomtest(only_b, only_a + only_b).pvalue)


# --- scores


def lead(by: float, data_sets: int, rates: tuple[float, ...] = (0.4,), seeds: int = 5) -> list:
    """``npc`` ahead of ``clip`` by about this much everywhere; seeds wobble."""
    rng, records = np.random.default_rng(4), []
    for dataset in DATA_SETS[:data_sets]:
        for rate in rates:
            base, wobble = 200 + rng.normal(0, 30), rng.normal(0, 1, (2, seeds))
            cells = {("clip", rate): base + wobble[0], ("npc", rate): base + by + wobble[1]}
            records += grid(cells, dataset=dataset)
    return records


def test_scores_order_and_blocks(tmp_path: Path) -> None:
    """Means over common seeds: a block's mean takes seeds that all have; npc has no seed 1 at 0.4."""
    frame = frame_of(
        tmp_path,
        grid({("clip", 0.2): [10, 20], ("npc", 0.2): [30, 50], ("clip", 0.4): [6, 8], ("npc", 0.4): [7, None]}),
    )
    table = scores(frame)
    assert table.methods == ["npc@paper", "clip@paper"]
    assert table.blocks()["clip@paper"].tolist() == [15, 7]
    assert table.complete_blocks()["clip@paper"].tolist() == [15, 6]
    (pair,) = compare_all(table)
    assert pair.interval.mean == pytest.approx(((20 + 30) / 2 + 1) / 2)
    assert (pair.wins, pair.blocks, pair.seeds, pair.data_sets) == (2, 2, (1, 2), 1)
    assert table.gaps == ("1 missing",)


def test_lower_is_better(tmp_path: Path) -> None:
    records = [
        make_record(
            method=method, seed=seed, dataset=dataset, circumstances=Circumstances(seconds={"train": seconds + seed})
        )
        for method, seconds in (("slow", 90.0), ("fast", 10.0))
        for seed in range(5)
        for dataset in DATA_SETS[:3]
    ]
    frame = frame_of(tmp_path, records)
    (pair,) = compare_all(scores(frame, measure="seconds"))
    assert (pair.first, pair.interval.mean, pair.wins, pair.effect) == ("fast@paper", -80.0, 3, 1.0)
    assert (
        "FAST is better than SLOW, on other data sets too (mean difference 80.0 seconds, 95 % interval over seeds +80.0 to +80.0, "
        "over data sets +80.0 to +80.0, 3 blocks of 3 data sets)" in plain(frame, measure="seconds")
    )


def test_refusals(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, lead(5, 1))
    for words, match in (
        ({"measure": "rsun"}, "unknown measure 'rsun'"),
        ({"measure": "best_on_test_rsum"}, "no better direction"),
        ({"methods": ["npx"]}, "no finished record of method 'npx'"),
        ({"methods": ["npc"]}, "needs two methods"),
    ):
        with pytest.raises(AnalysisError, match=match):
            scores(frame, **words)  # type: ignore[arg-type]
    with pytest.raises(AnalysisError, match="found none"):
        scores(frame[frame["status"] == "failed"])


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"overrides": {"epochs": 1}}, {"track": "author-recipe"}, {"backbone": "x"}]
)
def test_mixtures_are_refused(tmp_path: Path, change: dict) -> None:
    records = [*lead(5, 1), make_record(250.0, method="decl", rate=0.4, **change)]
    with pytest.raises(AnalysisError, match=f"mix {next(iter(change))}"):
        scores(frame_of(tmp_path, records))


def test_each_data_set_may_have_its_own_protocol(tmp_path: Path) -> None:
    records = lead(5, 1) + grid({("npc", 0.4): [1, 2], ("clip", 0.4): [1, 2]}, dataset="emoji", protocol="other")
    assert len(scores(frame_of(tmp_path, records)).conditions) == 2


# --- the report


def plain(frame: pd.DataFrame, **options: object) -> str:
    """The text with line breaks taken out."""
    return " ".join(significance_report(frame, **options).text().split())  # type: ignore[arg-type]


def test_single_block(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, lead(30, 1))
    text = plain(frame)
    assert "NPC is ahead of CLIP on this block (mean difference " in text
    assert "cannot be told apart" not in text
    assert "5 seeds alone can never give a two-sided exact Wilcoxon p below 0.0625: p < 0.05 is out of reach." in text
    assert "Wilcoxon over the seeds gives p = 0.062" in text
    assert "With one data set, nothing here says that a difference holds on other data than digits." in text
    assert "Protocol toy v1 (no overrides; track fixed-budget; 5 seeds)." in text
    means = frame.pivot(index="seed", columns="method", values="rsum")
    assert separable(means["npc"], means["clip"])  # the table's dagger and the report agree


def test_words_follow_the_numbers(tmp_path: Path) -> None:
    assert "NPC is better than CLIP, on other data sets too" in plain(frame_of(tmp_path / "a", lead(30, 7)))
    same = plain(frame_of(tmp_path / "b", lead(0, 7)))
    assert "cannot be told apart" in same
    assert "is better than" not in same
    assert "is ahead of" not in same
    two = plain(frame_of(tmp_path / "c", lead(30, 2)))
    assert (
        "NPC is ahead of CLIP on these blocks; on other data sets the two cannot be told apart: 2 data sets are too few to tell"
        in two
    )
    assert "is better than" not in two


def test_one_data_set_with_many_rates_says_its_caveat(tmp_path: Path) -> None:
    text = plain(frame_of(tmp_path, lead(30, 1, rates=(0.0, 0.1, 0.2, 0.4, 0.6, 0.8))))
    assert "NPC is better than CLIP, at other rates too" in text
    assert "rates of one data set are not independent, so its p is too small" in text
    assert "nothing here says that a difference holds on other data" in text


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (1, "share one seed only, which has no spread"),
        (2, "2 seeds are too few to tell, whatever they show; at least 3 are needed"),
    ],
)
def test_few_seeds_tell_nothing_apart(tmp_path: Path, seeds: int, words: str) -> None:
    text = plain(frame_of(tmp_path, lead(300, 1, rates=(0.2, 0.4), seeds=seeds)))
    assert "NPC and CLIP cannot be told apart" in text
    assert words in text
    assert "is ahead" not in text


def test_a_method_that_is_ahead_at_some_rates_only(tmp_path: Path) -> None:
    """Ahead by 30, 20, 0, -10 at four rates of a set: on these rates surely, at others not. Seeds wobble by less than 1."""
    rng = np.random.default_rng(0)
    cells = {}
    for rate, by in ((0.2, 30.0), (0.4, 20.0), (0.6, 0.0), (0.8, -10.0)):
        cells |= {("clip", rate): 200 + rng.normal(0, 0.5, 5), ("npc", rate): 200 + by + rng.normal(0, 0.5, 5)}
    assert (
        "NPC is ahead of CLIP on these blocks; at other rates the two cannot be told apart (mean difference"
        in plain(frame_of(tmp_path, grid(cells)))
    )


def test_adjusting_for_pairs_can_undo_an_interval(tmp_path: Path) -> None:
    """Two equal methods get p = 0.03 or so by the choice of numbers; beside four others, which differ widely, that is nothing."""
    near = [100.0, 101.0, 102.0, 100.5, 101.5], [101.0, 101.5, 103.5, 102.0, 101.9]
    cells = {("clip", 0.4): near[0], ("npc", 0.4): near[1]}
    p = float(stats.ttest_rel(*near).pvalue)
    assert 0.01 < p < 0.05
    assert "NPC is ahead of CLIP on this block" in plain(frame_of(tmp_path / "two", grid(cells)))
    rng = np.random.default_rng(1)
    for k, name in enumerate(("decl", "bicro", "ncr", "msian")):
        cells[name, 0.4] = 100 + rng.normal(0, 20, 5) + k
    table = scores(frame_of(tmp_path / "six", grid(cells)))
    pair = next(one for one in compare_all(table) if {one.first, one.second} == {"clip@paper", "npc@paper"})
    assert pair.family == 15
    assert pair.here.excludes_zero()
    assert not pair.told_apart_here()
    assert pair.here.p() == pytest.approx(p)
    assert "the interval over seeds alone leaves zero out, but not after adjusting for 15 pairs" in sentence_of(
        pair, table
    )


def test_many_comparisons_become_one_sentence_for_each_verdict(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    means = {f"m{k}": 100.0 - 20 * max(k - 4, 0) for k in range(11)}
    text = plain(frame_of(tmp_path, grid({(name, 0.4): mean + rng.normal(0, 1, 5) for name, mean in means.items()})))
    (ahead,) = re.findall(r"- (M\d) is ahead of: (M\d+(?:; M\d+)*)\.", text)
    assert set(ahead[1].split("; ")) == {f"M{k}" for k in range(5, 11)}
    assert re.search(rf"{ahead[0]} cannot be told apart from: M\d(; M\d){{3}}\.", text)


def test_practical_equivalence(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, lead(1, 7))
    assert "Practical equivalence" not in plain(frame)
    assert "on these blocks practically equal (within 5 rSum with probability 1.000)" in plain(frame, points=5)
    assert "NPC is better by more than 0.01 rSum" in plain(frame_of(tmp_path / "b", lead(9, 7)), points=0.01)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(AnalysisError, match="is no region"):
            significance_report(frame, points=bad)


def test_gaps_are_said(tmp_path: Path) -> None:
    records = lead(30, 1, rates=(0.2, 0.4))
    records = [r for r in records if (r.cell.method, r.cell.rate, r.cell.seed) != ("npc", 0.4, 3)]
    failed = make_record(
        None, status="failed", reason="loss became NaN in epoch 3", method="clip", rate=0.4, seed=4, label="CLIP"
    )
    records = [r for r in records if r.cell != failed.cell] + [failed]
    assert "Not all cells are finished: 1 failed (loss became NaN in epoch 3); 1 missing." in plain(
        frame_of(tmp_path, records)
    )


def test_methods_without_common_runs(tmp_path: Path) -> None:
    text = plain(frame_of(tmp_path, grid({("clip", 0.2): [1, 2, 3], ("npc", 0.4): [1, 2, 3]})))
    assert "1 pair of methods have no run in common and cannot be compared" in text


def three(by: float) -> list:
    rng, records = np.random.default_rng(2), []
    for dataset in DATA_SETS:
        cells = {(name, 0.4): 200 + by * k + rng.normal(0, 1, 5) for k, name in enumerate(("clip", "npc", "decl"))}
        records += grid(cells, dataset=dataset)
    return records


def test_many_methods(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, three(20))
    report = significance_report(frame)
    assert report.ranking is not None
    assert report.ranking.test.statistic == pytest.approx(14.0)  # seven times the same order: 7 * (3 - 1)
    assert report.ranking.cliques == [
        ("decl@paper", "npc@paper"),
        ("npc@paper", "clip@paper"),
    ]  # 3.31/sqrt(7) = 1.25 > 1
    text = plain(frame)
    assert "the methods do not all rank alike" in text
    assert "Not separated by it: DECL, NPC." in text
    assert rank(scores(frame, ["npc", "clip"])) is None


def test_equal_methods_rank_alike(tmp_path: Path) -> None:
    text = plain(frame_of(tmp_path, three(0)))
    assert "the ranks do not tell any of the methods apart" in text


def test_oracles_compete_for_nothing(tmp_path: Path) -> None:
    cells = {("clip", 0.4): [100, 101, 102, 100, 99], ("npc", 0.4): [110, 111, 112, 113, 110]}
    records = grid(cells) + grid({("oracle", 0.4): [120, 121, 122, 120, 121]}, flags=("oracle",))
    table = scores(frame_of(tmp_path, records))
    assert table.methods[0] == "oracle@paper"
    assert table.contenders == ["npc@paper", "clip@paper"]
    text = plain(frame_of(tmp_path, records))
    assert "Oracles take part in all tests; the sentences ask for the best of the others." in text
    assert "NPC is ahead of CLIP on this block" in text


def test_report_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    """Neither on the global generator: the same bytes each time."""
    frame = frame_of(tmp_path, three(2))
    expected = significance_report(frame).markdown()
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002
        assert significance_report(frame.sample(frac=1, random_state=seed)).markdown() == expected


def rows_of(markdown: str) -> list[list[str]]:
    """Pipe tables, as a reader of Markdown splits them."""
    groups: list[list[str]] = [[]]
    for line in markdown.splitlines():
        if line.startswith("|"):
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
    return [group for group in groups if group]


def test_markdown_and_text(tmp_path: Path) -> None:
    report = significance_report(frame_of(tmp_path, three(20)))
    tables = rows_of(report.markdown())
    assert len(tables) == 4  # methods, pairs twice, Nemenyi; neighbours are told apart
    assert len(rows_of(significance_report(frame_of(tmp_path / "b", three(0))).markdown())) == 5
    for group in tables:
        assert len({line.count("|") for line in group}) == 1
        assert set(group[1]) <= set("|-:")
    assert report.markdown().startswith(
        "# Significance of differences in rSum\n\n## What is compared\n\n- 3 methods on 7 blocks"
    )
    assert max(map(len, report.text().splitlines())) <= 100


def query_records(root: Path, better: dict[str, list[int]], seeds: int = 2) -> pd.DataFrame:
    from nocobench.analysis.frame import load_frame

    store = RecordStore(root)
    for method, wrong in better.items():
        for seed in range(seeds):
            ranks_of = {"better": wrong, "tied": [0] * len(wrong), "own_tied": [1] * len(wrong)}
            arrays = {f"i2t_{name}": np.array(values, dtype=np.uint32) for name, values in ranks_of.items()}
            record = make_record(200.0 + seed + (method == "npc"), method=method, seed=seed, label=method.upper())
            store.write(record, arrays)
    return load_frame([root])


def test_queries_of_a_block(tmp_path: Path) -> None:
    """npc ranks 8 of 12 queries first that clip ranks second: McNemar 2 / 2^8 in each seed; reciprocal ranks differ by 8 * 0.5 / 12."""
    frame = query_records(tmp_path, {"npc": [0] * 8 + [3] * 4, "clip": [1] * 8 + [3] * 4})
    found = query_tests(scores(frame), "npc@paper", "clip@paper", ("digits", "nested-mismatch", "0.2"), "i2t", [])
    assert found is not None
    assert [test.p for test in found.mcnemar] == pytest.approx([2 / 256] * 2)
    assert found.difference == pytest.approx(8 * 0.5 / 12)
    assert found.p == pytest.approx(
        2 / 256, abs=4 * np.sqrt(2 / 256 / 9999)
    )  # sign flips: only the two extreme patterns
    text = plain(frame)
    assert "whether *these trained models* differ on further queries" in text
    assert "digits, nested-mismatch 0.2 i2t 12 +0.3333 2 of 2 seeds" in text


def test_damaged_sidecars_are_named(tmp_path: Path) -> None:
    frame = query_records(tmp_path, {"npc": [0, 1], "clip": [1, 1]})
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(b"no archive")
    text = plain(frame)
    assert "4 sidecars could not be used, the first because:" in text
    assert "run the cell again" in text


def test_the_command(tmp_path: Path) -> None:
    stored(tmp_path / "runs", lead(30, 7))
    page = tmp_path / "page.md"
    assert command("significance", "--results", tmp_path, "--format", "markdown", "--out", page) == (0, f"{page}\n", "")
    assert "- NPC is better than CLIP" in page.read_text(encoding="utf-8")
    code, out, err = command("significance", "--results", tmp_path, "--equivalence", "60")
    assert (code, err) == (0, "")
    assert "practically equal (within 60 rSum" in " ".join(out.split())
    code, out, err = command("significance", "--results", tmp_path, "--equivalence", "0")
    assert (code, out) == (2, "")
    assert err == (
        "run_benchmark.py: error: --equivalence 0 is no region; give a positive number of points of the measure, such as 1\n"
    )
    code, out, err = command("significance", "--results", tmp_path, "--methods", "npc")
    assert (code, out) == (2, "")
    assert err == (
        "run_benchmark.py: error: a comparison needs two methods with finished records, found npc@paper; run another method\n"
    )
