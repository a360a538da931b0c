"""Mean average precision against brute force over all orders of ties, torchmetrics, known chance levels and a case done by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
import parity_map
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.protocols import map_metrics
from nocobench.protocols.map_metrics import LabelRanks, average_precision
from torch import Tensor
from torchmetrics.functional.retrieval import retrieval_average_precision


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


class Search(NamedTuple):
    """Arguments of a ranking."""

    queries: Tensor
    database: Tensor
    query_labels: Tensor
    database_labels: Tensor

    @property
    def relevant(self) -> Tensor:
        return (self.query_labels[:, None].bool() & self.database_labels[None].bool()).any(2)

    @property
    def hamming(self) -> Tensor:
        return (self.queries[:, None] != self.database[None]).sum(2)


def search(
    seed: int, n_queries: int, n_items: int, bits: int, classes: int = 4, density: float = 0.3, single: bool = False
) -> Search:
    """Random codes; many labels per item, or one."""
    rng = generator(seed)
    codes = [torch.from_numpy(2.0 * rng.integers(0, 2, (n, bits)) - 1).float() for n in (n_queries, n_items)]
    if single:
        labels = [F.one_hot(torch.from_numpy(rng.integers(0, classes, n)), classes) for n in (n_queries, n_items)]
    else:
        labels = [torch.from_numpy(rng.random((n, classes)) < density) for n in (n_queries, n_items)]
    return Search(*codes, *(x.to(torch.uint8) for x in labels))


@st.composite
def searches(draw: st.DrawFn, most_items: int = 30) -> Search:
    return search(
        seed=draw(st.integers(0, 10_000)),
        n_queries=draw(st.integers(1, 6)),
        n_items=draw(st.integers(1, most_items)),
        bits=draw(st.integers(1, 6)),
        classes=draw(st.integers(1, 5)),
        density=draw(st.sampled_from([0.0, 0.2, 0.5, 1.0])),
        single=draw(st.booleans()),
    )


def orders(distance: Sequence[int], relevant: Sequence[bool]) -> Iterator[list[bool]]:
    """Relevance in every order that sorts the distances."""
    groups = [[hit for d, hit in zip(distance, relevant, strict=True) if d == level] for level in sorted(set(distance))]
    for choice in product(*(permutations(group) for group in groups)):
        yield [hit for group in choice for hit in group]


def precision_of_order(order: Sequence[bool], k: int) -> float:
    hits, total = 0, 0.0
    for place, hit in enumerate(order[:k], 1):
        hits += hit
        total += hit * hits / place
    return total / min(k, sum(order)) if any(order) else np.nan


def same(left: LabelRanks, right: LabelRanks, **tolerance: float) -> None:
    """All fields, NaN in the same places; bit by bit without a tolerance."""
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    for name, value in vars(left).items():
        other = getattr(right, name)
        if value is None:
            assert other is None
        else:
            torch.testing.assert_close(
                value, other, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}", **tolerance
            )


@given(searches(most_items=6), st.integers(1, 8))
@settings(deadline=None, max_examples=100)
def test_every_order_of_ties(given_search: Search, k: int) -> None:
    """Expectation, bounds, AP@k, curve and radius against all orders (at most 6! for a query)."""
    ranks = map_metrics.rank_by_hamming(*given_search, k=k)
    curves = []
    for i, (distance, relevant) in enumerate(zip(given_search.hamming, given_search.relevant, strict=True)):
        ordered = list(orders(distance.tolist(), relevant.tolist()))
        full, cut = ([precision_of_order(order, end) for order in ordered] for end in (len(distance), k))
        near = relevant[distance <= 2].double()
        radius = (near.mean() if len(near) else torch.zeros(())) if relevant.any() else torch.tensor(torch.nan)
        expected = [np.mean(full), min(full), max(full), np.mean(cut), float(radius)]
        assert ranks.precision_radius_2 is not None
        found = [x[i] for x in (ranks.expected, ranks.lower, ranks.upper, ranks.at_k, ranks.precision_radius_2)]
        np.testing.assert_allclose([float(x) for x in found], expected, rtol=1e-12, atol=1e-12)
        assert ranks.n_relevant[i] == relevant.sum()
        if relevant.any():
            hits = np.cumsum(ordered, axis=1).mean(axis=0)[ranks.cutoffs.numpy() - 1]
            curves.append([hits / ranks.cutoffs.numpy(), hits / int(relevant.sum())])
    if curves:
        np.testing.assert_allclose(
            torch.stack([ranks.precision, ranks.recall]).numpy(), np.mean(curves, axis=0), rtol=1e-12
        )


def test_large_tie_groups_against_simulation() -> None:
    """Groups of hundreds of items, one of them cut by k: the mean of 4,000 random orders, within five of its standard errors."""
    given_search = search(seed=3, n_queries=2, n_items=600, bits=4, density=0.3)
    k, rng = 100, generator(4)
    ranks = map_metrics.rank_by_hamming(*given_search, k=k)
    for i, (distance, relevant) in enumerate(
        zip(given_search.hamming.numpy(), given_search.relevant.numpy(), strict=True)
    ):
        draws = []
        for _ in range(4000):
            shuffled = rng.permutation(len(distance))
            hits = relevant[shuffled][distance[shuffled].argsort(kind="stable")]
            precision = hits * hits.cumsum() / np.arange(1, len(hits) + 1)
            draws.append([precision.sum() / hits.sum(), precision[:k].sum() / min(k, hits.sum())])
        error = np.std(draws, axis=0) / np.sqrt(len(draws))
        found = np.array([float(ranks.expected[i]), float(ranks.at_k[i])])
        assert (np.abs(found - np.mean(draws, axis=0)) < 5 * error).all()
        assert (error < 2e-3).all()


def test_by_hand() -> None:
    """One query, four items of distance 0, 1, 1, 2; relevant: the first, one of the two tied, not the last.

    For the query: hits at places 1, 2: AP = (1/1 + 2/2) / 2 = 1. Against: places 1, 3: (1 + 2/3) / 2 = 5/6. Expected: 11/12.
    AP@2 over min(2, R) = 2: 1 for the query, 1/2 against: 3/4. Within radius 2 lie all four, two relevant: 1/2.
    """
    query = torch.tensor([[1.0, 1.0]])
    database = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])
    ranks = map_metrics.rank_by_hamming(query, database, torch.tensor([[1, 0]]), labels, k=2)
    found = torch.stack([ranks.lower, ranks.expected, ranks.upper, ranks.at_k, ranks.precision_radius_2]).squeeze(1)  # type: ignore[list-item]
    torch.testing.assert_close(found, torch.tensor([5 / 6, 11 / 12, 1, 3 / 4, 1 / 2], dtype=torch.float64))
    assert ranks.cutoffs.tolist() == [1, 2, 3, 4]
    torch.testing.assert_close(ranks.precision, torch.tensor([1, 1.5 / 2, 2 / 3, 2 / 4], dtype=torch.float64))
    torch.testing.assert_close(ranks.recall, torch.tensor([1 / 2, 1.5 / 2, 1, 1], dtype=torch.float64))


@given(searches(), st.integers(1, 40))
@settings(deadline=None)
def test_tile_size_changes_no_bit(given_search: Search, block: int) -> None:
    same(
        map_metrics.rank_by_hamming(*given_search, k=5, block=block),
        map_metrics.rank_by_hamming(*given_search, k=5),
    )
    mix = torch.from_numpy(generator(block).standard_normal((given_search.queries.shape[1], 3))).float()
    real = given_search._replace(queries=given_search.queries @ mix, database=given_search.database @ mix)
    same(
        map_metrics.rank_by_similarity(*real, k=5, block=block),
        map_metrics.rank_by_similarity(*real, k=5),
    )


def test_many_tiles_change_no_bit() -> None:
    """More queries and items than one tile holds, in both directions of a tile; a float64 matrix decides."""
    given_search = search(seed=5, n_queries=300, n_items=3000, bits=32, density=0.2)
    reference = average_precision(given_search.hamming, given_search.relevant)
    for block in (100, 1024, 5000):
        ranks = map_metrics.rank_by_hamming(*given_search, k=50, block=block)
        same(ranks, map_metrics.rank_by_hamming(*given_search, k=50))
        torch.testing.assert_close(ranks.expected, reference, rtol=1e-12, atol=0, equal_nan=True)
        similar = map_metrics.rank_by_similarity(*given_search, k=50, block=block)
        for name in ("expected", "lower", "upper", "at_k", "precision", "recall"):
            torch.testing.assert_close(getattr(similar, name), getattr(ranks, name), rtol=1e-12, atol=0, equal_nan=True)


@given(searches(), st.integers(1, 12))
@settings(deadline=None)
def test_inner_product_of_codes_ranks_as_hamming_distance(given_search: Search, k: int) -> None:
    by_code = map_metrics.rank_by_hamming(*given_search, k=k)
    by_product = map_metrics.rank_by_similarity(*given_search, k=k)
    assert by_product.precision_radius_2 is None
    for name in ("expected", "lower", "upper", "at_k", "n_relevant", "precision", "recall"):
        torch.testing.assert_close(
            getattr(by_product, name), getattr(by_code, name), rtol=1e-12, atol=1e-14, equal_nan=True
        )


@given(searches(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_the_database_does_not_matter(given_search: Search, random: object) -> None:
    n = len(given_search.database)
    order = torch.tensor(random.sample(range(n), n))  # type: ignore[attr-defined]
    shuffled = given_search._replace(
        database=given_search.database[order], database_labels=given_search.database_labels[order]
    )
    same(map_metrics.rank_by_hamming(*shuffled, k=3), map_metrics.rank_by_hamming(*given_search, k=3))


@given(searches())
@settings(deadline=None)
def test_doubled_bits_and_negated_codes_rank_alike(given_search: Search) -> None:
    plain = map_metrics.rank_by_hamming(*given_search, k=3)
    negated = given_search._replace(queries=-given_search.queries, database=-given_search.database)
    same(map_metrics.rank_by_hamming(*negated, k=3), plain)
    doubled = given_search._replace(
        queries=given_search.queries.repeat(1, 2), database=given_search.database.repeat(1, 2)
    )
    twice = map_metrics.rank_by_hamming(*doubled, k=3)
    for name in ("expected", "lower", "upper", "at_k", "precision", "recall"):
        torch.testing.assert_close(getattr(twice, name), getattr(plain, name), rtol=1e-12, atol=1e-14, equal_nan=True)


@given(searches())
@settings(deadline=None)
def test_bounds_contain_expectation_and_index_order(given_search: Search) -> None:
    ranks = map_metrics.rank_by_hamming(*given_search, k=3)
    counted = ranks.n_relevant > 0
    lower, expected, upper = (x[counted] for x in (ranks.lower, ranks.expected, ranks.upper))
    assert bool(((lower > 0) & (lower <= expected) & (expected <= upper) & (upper <= 1 + 1e-12)).all())
    stable = average_precision(given_search.hamming, given_search.relevant, "stable")[counted]
    assert bool(((lower <= stable + 1e-12) & (stable <= upper + 1e-12)).all())


@pytest.mark.parametrize("rank", [map_metrics.rank_by_hamming, map_metrics.rank_by_similarity])
@pytest.mark.parametrize(("n", "r"), [(1, 1), (2, 1), (10, 3), (462, 46), (500, 500)])
def test_a_collapsed_model_is_at_chance(rank: object, n: int, r: int) -> None:
    """All equal: c + (1 - c) H_n / n with c = (R - 1) / (n - 1), whatever the order of the file."""
    labels = F.one_hot((torch.arange(n) >= r).long(), 2)
    ranks = rank(torch.ones(1, 8), torch.ones(n, 8), torch.tensor([[1, 0]]), labels, k=n)  # type: ignore[operator]
    harmonic = sum(1 / j for j in range(1, n + 1))
    c = (r - 1) / (n - 1) if n > 1 else 0.0
    assert float(ranks.expected) == pytest.approx(c + (1 - c) * harmonic / n, rel=1e-12)
    assert float(ranks.at_k) == pytest.approx(float(ranks.expected), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_embeddings_are_tied_wherever_they_stand(dtype: torch.dtype) -> None:
    """The last bits of a matrix product depend on the position in it; 999 copies of an item that is no round number."""
    rng = generator(6)
    query, item = (F.normalize(torch.from_numpy(rng.standard_normal((1, 301))).to(dtype), dim=1) for _ in range(2))
    labels = F.one_hot((torch.arange(999) >= 111).long(), 2)
    ranks = map_metrics.rank_by_similarity(query, item.expand(999, -1), torch.tensor([[1, 0]]), labels, k=9, block=37)
    flipped = map_metrics.rank_by_similarity(query, item.expand(999, -1), torch.tensor([[1, 0]]), labels.flip(0), k=9)
    same(ranks, flipped)
    c = 110 / 998
    assert float(ranks.expected) == pytest.approx(c + (1 - c) * sum(1 / j for j in range(1, 1000)) / 999, rel=1e-12)


@pytest.mark.parametrize("single", [True, False])
def test_untied_ranking_equals_torchmetrics(single: bool) -> None:
    """Its functions ignore items whose score is not positive, so all scores are."""
    rng = generator(7)
    given_search = search(seed=7, n_queries=20, n_items=90, bits=2, single=single)
    queries, database = (torch.from_numpy(rng.random((n, 8)) + 0.1) for n in (20, 90))
    ranks = map_metrics.rank_by_similarity(queries, database, *given_search[2:], k=10)
    torch.testing.assert_close(ranks.lower, ranks.upper, rtol=0, atol=0, equal_nan=True)
    counted = ranks.n_relevant > 0
    assert counted.any()
    for i in counted.nonzero().squeeze(1).tolist():
        scores, relevant = queries[i] @ database.mT, given_search.relevant[i]
        assert float(ranks.expected[i]) == pytest.approx(float(retrieval_average_precision(scores, relevant)), rel=1e-6)
        # theirs divides by the relevant items among the first k
        found = average_precision(-scores[None], relevant[None], "stable", 10, "found", absent=0.0)
        assert float(found) == pytest.approx(float(retrieval_average_precision(scores, relevant, top_k=10)), rel=1e-6)


def test_negative_similarities_rank_like_their_shifted_copies() -> None:
    """An extra dimension that adds 5 to every similarity changes no order."""
    rng = generator(8)
    given_search = search(seed=8, n_queries=9, n_items=40, bits=2)
    queries, database = (torch.from_numpy(rng.standard_normal((n, 4))) for n in (9, 40))
    assert bool((queries @ database.mT < 0).any())
    plain = map_metrics.rank_by_similarity(queries, database, *given_search[2:], k=4)
    shifted = [torch.cat([x, torch.full((len(x), 1), 5**0.5, dtype=x.dtype)], 1) for x in (queries, database)]
    same(map_metrics.rank_by_similarity(*shifted, *given_search[2:], k=4), plain)


def test_one_hot_labels_are_class_ids() -> None:
    given_search = search(seed=9, n_queries=30, n_items=80, bits=8, classes=7, single=True)
    mine, theirs = (labels.argmax(1) for labels in given_search[2:])
    ranks = map_metrics.rank_by_hamming(*given_search, k=5)
    by_class = average_precision(given_search.hamming, mine[:, None] == theirs)
    torch.testing.assert_close(ranks.expected, by_class, rtol=1e-12, atol=0, equal_nan=True)


def test_codes_and_labels_of_any_dtype() -> None:
    given_search = search(seed=10, n_queries=12, n_items=50, bits=16)
    plain = map_metrics.rank_by_hamming(*given_search, k=5)
    small = [codes.to(torch.int8) for codes in given_search[:2]]
    same(map_metrics.rank_by_hamming(*small, *(labels.float() for labels in given_search[2:]), k=5), plain)
    transposed = [x.T.contiguous().T for x in given_search]
    same(map_metrics.rank_by_hamming(*transposed, k=5), plain)


def test_queries_without_relevant_item_are_left_out_and_counted() -> None:
    codes = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    query_labels, labels = torch.tensor([[1, 0, 0], [0, 0, 1]]), torch.tensor([[0, 1, 0], [1, 0, 0]])
    ranks = map_metrics.rank_by_hamming(codes, codes, query_labels, labels, k=1)
    for values in (ranks.expected, ranks.lower, ranks.upper, ranks.at_k, ranks.precision_radius_2):
        assert values is not None
        assert values.isnan().tolist() == [False, True]
    way = map_metrics.label_scores(ranks, ranks, 1).i2t
    assert (way.queries, way.without_relevant) == (1, 1)
    assert (way.map, way.lower, way.upper, way.map_at_k, way.precision_radius_2) == (50, 50, 50, 0, 50)
    torch.testing.assert_close(ranks.recall, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_scores_are_means_in_percent() -> None:
    first, second = (map_metrics.rank_by_hamming(*search(seed, 25, 60, 8), k=5) for seed in (11, 12))
    scores = map_metrics.label_scores(first, second, 5)
    for way, ranks in ((scores.i2t, first), (scores.t2i, second)):
        assert way.map == pytest.approx(100 * float(ranks.expected.nanmean()))
        assert way.map_at_k == pytest.approx(100 * float(ranks.at_k.nanmean()))
        assert way.lower < way.map < way.upper
    assert scores.mean_map == pytest.approx((scores.i2t.map + scores.t2i.map) / 2)
    assert scores.k == 5
    real = map_metrics.rank_by_similarity(*search(11, 25, 60, 8), k=5)
    assert map_metrics.label_scores(real, real, 5).i2t.precision_radius_2 is None


def test_k_beyond_the_database_is_the_whole_database() -> None:
    given_search = search(seed=13, n_queries=10, n_items=20, bits=6)
    for rank in (map_metrics.rank_by_hamming, map_metrics.rank_by_similarity):
        for k in (20, 1000):
            ranks = rank(*given_search, k=k)
            torch.testing.assert_close(ranks.at_k, ranks.expected, rtol=1e-12, atol=0, equal_nan=True)


def test_no_relevant_item_among_the_first_k() -> None:
    """Neither query finds anything at k = 1: AP@1 is 0, which is not the same as no relevant item at all."""
    codes = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    labels = torch.tensor([[1, 0], [0, 1]])
    for rank in (map_metrics.rank_by_hamming, map_metrics.rank_by_similarity):
        ranks = rank(codes, codes, labels, labels.flip(0), k=1)
        assert ranks.at_k.tolist() == [0, 0]
        assert ranks.expected.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("n_items", [1, 2, 29, 30, 31, 500, 18_015])
def test_cutoffs_run_from_one_to_the_whole_database(n_items: int) -> None:
    cutoffs = map_metrics.curve_cutoffs(n_items)
    assert cutoffs[0] == 1
    assert cutoffs[-1] == n_items
    assert len(cutoffs) <= 30
    assert cutoffs == sorted(set(cutoffs))


def test_conventions_of_released_code() -> None:
    """Relevance 0 1 1 0 1 without ties, R = 3, precision at the hits 1/2, 2/3, 3/5; k = 2.

    possible: (1/2) / min(2, 3); found: (1/2) / 1; first: (1/2 + 2/3) / 2, although the second stands at place 3.
    """
    distance, relevant = torch.arange(5.0)[None], torch.tensor([[False, True, True, False, True]])
    for denominator, value in (("possible", 1 / 4), ("found", 1 / 2), ("first", 7 / 12)):
        found = average_precision(distance, relevant, "stable", 2, denominator)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(value, rel=1e-12)
        whole = average_precision(distance, relevant, "stable", None, denominator)  # type: ignore[arg-type]
        assert float(whole) == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3, rel=1e-12)
    nothing = torch.zeros(1, 5, dtype=torch.bool)
    assert average_precision(distance, nothing, "stable").isnan().all()
    assert float(average_precision(distance, nothing, "expected", absent=0.0)) == 0
    with pytest.raises(ValueError, match="only 'possible'"):
        average_precision(distance, relevant, "expected", 2, "found")


@given(searches(most_items=20), st.integers(1, 12), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_intervals_for_released_values_hold_every_order(given_search: Search, k: int, seed: int) -> None:
    """The intervals of parity_map contain what an arbitrary order of ties gives, for both truncated conventions."""
    distance, relevant = given_search.hamming, given_search.relevant
    order = torch.from_numpy(generator(seed).permutation(distance.shape[1]))
    found, first = (
        average_precision(distance[:, order], relevant[:, order], "stable", k, name)  # type: ignore[arg-type]
        for name in ("found", "first")
    )
    if not found.isnan().all():
        low, high = parity_map._extremes_of_found(distance, relevant, k)
        assert low - 1e-12 <= float(found.nanmean()) <= high + 1e-12
    low, high = (average_precision(distance, relevant, ties, k, "first") for ties in ("lower", "upper"))
    counted = relevant.any(1)
    assert bool(((low <= first + 1e-12) & (first <= high + 1e-12))[counted].all())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_embeddings_that_are_not_finite_are_refused(side: int, bad: float) -> None:
    tables = list(search(seed=14, n_queries=5, n_items=6, bits=3))
    tables[side][2, 1] = bad
    with pytest.raises(ValueError, match=r"1 of . (query|database) embeddings are not finite.*row 2.*diverged"):
        map_metrics.rank_by_similarity(*tables, k=1)
    with pytest.raises(ValueError, match=r"not -1 or \+1 \(first: row 2\)"):
        map_metrics.rank_by_hamming(*tables, k=1)


@pytest.mark.parametrize("value", [0.0, 0.5, 2.0])
def test_codes_other_than_signs_are_refused(value: float) -> None:
    tables = search(seed=15, n_queries=5, n_items=6, bits=3)
    tables.database[4, 0] = value
    with pytest.raises(ValueError, match=r"1 of 6 database codes are not -1 or \+1 \(first: row 4\)"):
        map_metrics.rank_by_hamming(*tables, k=1)


def test_tables_that_do_not_fit_are_refused() -> None:
    queries, database, query_labels, labels = search(seed=16, n_queries=5, n_items=6, bits=3)
    cases = {
        "columns": (queries[:, :2], database, query_labels, labels),
        "classes": (queries, database, query_labels[:, :2], labels),
        "5 query items, 4 rows": (queries, database, query_labels[:4], labels),
        "0 database items": (queries, database[:0], query_labels, labels[:0]),
        "not 0 or 1": (queries, database, 2 * query_labels, labels),
        "same dtype": (queries.double(), database, query_labels, labels),
    }
    for rank in (map_metrics.rank_by_hamming, map_metrics.rank_by_similarity):
        for message, tables in cases.items():
            with pytest.raises(ValueError, match=message):
                rank(*tables, k=1)
        for options in ({"k": 0}, {"k": 1, "block": 0}):
            with pytest.raises(ValueError, match="both must be 1 or more"):
                rank(queries, database, query_labels, labels, **options)


def test_a_direction_without_any_relevant_item_has_no_score() -> None:
    tables = search(seed=17, n_queries=5, n_items=6, bits=3)
    ranks = map_metrics.rank_by_hamming(*tables._replace(query_labels=0 * tables.query_labels), k=1)
    assert ranks.precision.isnan().all()
    with pytest.raises(ValueError, match="none of 5 image queries shares a label"):
        map_metrics.label_scores(ranks, ranks, 1)
