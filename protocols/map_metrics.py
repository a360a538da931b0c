"""Mean average precision of label-based retrieval, expected over random order of ties, with bounds.

The equations are those of specs/protocol-noisy-labels.md, section 5.

An item is relevant to a query when they share a label. Average precision of one query with R relevant items in the database:
``AP = (1/R) sum_j rel_j * (hits among the first j) / j``. Queries without a relevant item have none: they are left out and counted.

Ties. Codes of b bits have only b + 1 distances, so that most items are tied, and the order that a sort gives them depends on library and
processor. Distances of codes are therefore counted, not sorted: two histograms per query, of all and of the relevant items, decide the
expectation over all orders and both bounds, in closed form. With N items and P relevant ones before a group of n tied items, r of them
relevant, place i of the group contributes ``(r/n) (P + 1 + (i-1) c) / (N + i)``, ``c = (r-1)/(n-1)``; the sum over places needs harmonic
numbers only. Similarities of real-valued embeddings count as tied when they are equal in the precision of the embeddings.

Memory: tiles of some 2^17 numbers, of some 2^21 where a ranking must be sorted; the matrix of all queries and items never exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..results.record import LabelRanking, LabelScores
from .metrics import ROUNDING_STEPS

# A tile of float32 numbers that stays inside a core's cache; a GPU wants fewer and larger kernels.
TILE = 2**17
TILE_ON_GPU = 2**25
# Whole rankings are sorted: larger tiles, and enough queries in each for a matrix product that is not bound by memory.
SORTED_TILE = 2**21
SORTED_QUERIES = 64
# Whole numbers up to twice this are exact in float32.
EXACT = 2**23
MOST_CUTOFFS = 30
RADIUS = 2

Ties = Literal["expected", "lower", "upper", "stable"]
Denominator = Literal["possible", "found", "first"]


@dataclass(frozen=True)
class LabelRanks:
    """What one direction of retrieval found; tensors ``[n_queries]`` float64, NaN where a query has no relevant item.

    Attributes:
        expected: average precision over the whole database, expected over random order of ties.
        lower, upper: all ties broken against and for the query.
        at_k: average precision of the first k places, over ``min(k, R)``, expected over random order of ties.
        precision_radius_2: share of relevant items within Hamming distance 2, 0 where nothing is that near; None for
            real-valued embeddings.
        n_relevant: int64.
        cutoffs: int64 ``[C]``, ranks at which the curve is taken, spread evenly in the logarithm.
        precision, recall: ``[C]`` means over queries with a relevant item, expected over random order of ties; NaN without such a query.
    """

    expected: Tensor
    lower: Tensor
    upper: Tensor
    at_k: Tensor
    precision_radius_2: Tensor | None
    n_relevant: Tensor
    cutoffs: Tensor
    precision: Tensor
    recall: Tensor


@dataclass(frozen=True)
class TieGroups:
    """Items of equal distance, nearest group first, float64 ``[n_queries, n_groups]``.

    Groups without relevant items may be absent, and groups may be empty.

    Attributes:
        before: items in front of the group.
        items: items of the group.
        relevant: relevant ones among them.
    """

    before: Tensor
    items: Tensor
    relevant: Tensor

    @cached_property
    def relevant_before(self) -> Tensor:
        return self.relevant.cumsum(1) - self.relevant

    @cached_property
    def n_relevant(self) -> Tensor:
        return self.relevant.sum(1)


def rank_by_hamming(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, *, k: int, block: int = 1024
) -> LabelRanks:
    """Ranking of codes by Hamming distance.

    Args:
        queries, database: ``[n, bits]`` of -1 and +1.
        query_labels, database_labels: ``[n, n_classes]`` of 0 and 1.
        k: of AP@k.
        block: items compared at once; changes speed and memory, no number.

    Raises:
        ValueError: codes that are not -1 or +1, labels that are not 0 or 1, tables that do not fit together.
    """
    _check(queries, database, query_labels, database_labels, k, block)
    for name, codes in (("query", queries), ("database", database)):
        _refuse_rows(codes.abs() == 1, f"{name} codes are not -1 or +1", "take the sign, and of 0 either one")
    counts = distance_counts(queries, database, query_labels, database_labels, block)
    near = counts[:, : RADIUS + 1].sum(1).double()
    groups = groups_of_counts(counts)
    within = _only_with_relevant(near[:, 1] / near.sum(1).clamp(min=1), groups)
    return _ranks([_measured(groups, len(database), k)], len(database), within)


def rank_by_similarity(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, *, k: int, block: int = 1024
) -> LabelRanks:
    """Ranking of real-valued embeddings by inner product (of unit rows: by cosine); see :func:`rank_by_hamming`.

    Products are taken in float64 and rounded to steps of the embeddings' own precision (eps of their dtype, and at least 16 eps of float64,
    times the largest product of lengths), so that equal items are tied wherever they stand in the database.

    Raises:
        ValueError: embeddings that are not finite, labels that are not 0 or 1, tables that do not fit together.
    """
    _check(queries, database, query_labels, database_labels, k, block)
    step = _similarity_step(queries, database)
    # Steps are whole numbers up to 1 / eps.
    whole = torch.int64 if queries.dtype == torch.float64 else torch.int32
    parts = []
    for rows in _slices(len(queries), _sorted_rows(queries, len(database))):
        key = torch.empty(rows.stop - rows.start, len(database), dtype=whole, device=queries.device)
        for items in _slices(len(database), block):
            similarity = queries[rows].double() @ database[items].double().mT
            key[:, items] = (similarity / -step).round_().to(whole)
            key[:, items] = 2 * key[:, items] + _relevance(query_labels[rows], database_labels[items])
        for part in _sort(key).split(_tile_rows(queries, len(database))):
            parts.append(_measured(groups_of_sorted(part), len(database), k))
    return _ranks(parts, len(database), None)


def average_precision(
    distance: Tensor,
    relevant: Tensor,
    ties: Ties = "expected",
    k: int | None = None,
    denominator: Denominator = "possible",
    absent: float = float("nan"),
) -> Tensor:
    """AP under the conventions of released code, from a given matrix whose ties are exact equalities; for comparison with published code.

    Args:
        distance: ``[n_queries, n_items]``, small = near.
        relevant: ``[n_queries, n_items]`` bool.
        ties: ``expected`` over random order; all against (``lower``) or for (``upper``) the query; ``stable`` = lower index first.
        k: places that count, None = all.
        denominator: over which relevant items precision is averaged. ``possible``: those within the first k places, divided by min(k, R);
            ``found``: the same, divided by their own number; ``first``: the first min(k, R) wherever they are.
        absent: value of queries without a relevant item that counts.

    Returns:
        ``[n_queries]`` float64.

    Raises:
        ValueError: an expectation with k and another denominator than ``possible``.
    """
    k = distance.shape[1] if k is None else min(k, distance.shape[1])
    near = distance.unique(return_inverse=True)[1]
    if ties != "expected":
        second = {"stable": torch.zeros_like(relevant), "upper": ~relevant, "lower": relevant}[ties]
        order = (2 * near + second).argsort(dim=1, stable=True)
        return ordered_precision(relevant.gather(1, order), k, denominator, absent)
    if denominator != "possible" and k < distance.shape[1]:
        raise ValueError(
            f"an expectation over ties of AP@{k} with denominator {denominator!r}; only 'possible' has one"
        )
    groups = groups_of_sorted(_sort(2 * near + relevant))
    number = groups.n_relevant.clamp(max=k)
    return torch.where(number > 0, expected_precision(groups, k) / number.clamp(min=1), absent)


def ordered_precision(
    relevant: Tensor, k: int | None = None, denominator: Denominator = "possible", absent: float = float("nan")
) -> Tensor:
    """AP of rankings in a given order, ``relevant [n_queries, n_items]`` bool, best item first; see :func:`average_precision`."""
    k = relevant.shape[1] if k is None else k
    hits = relevant.cumsum(1)
    places = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    kept = relevant & ((hits if denominator == "first" else places) <= k)
    number = kept.sum(1) if denominator == "found" else relevant.sum(1).clamp(max=k)
    precision = (kept * hits.double() / places).sum(1)
    return torch.where(number > 0, precision / number.clamp(min=1), absent)


def label_scores(i2t: LabelRanks, t2i: LabelRanks, k: int) -> LabelScores:
    """Both directions in percent.

    Raises:
        ValueError: a direction in which no query has a relevant item.
    """
    ways = [_ranking(name, ranks) for name, ranks in (("image", i2t), ("text", t2i))]
    return LabelScores(i2t=ways[0], t2i=ways[1], mean_map=(ways[0].map + ways[1].map) / 2, k=k)


def _ranking(name: str, ranks: LabelRanks) -> LabelRanking:
    counted = ranks.n_relevant > 0
    if not bool(counted.any()):
        raise ValueError(
            f"none of {len(counted)} {name} queries shares a label with an item of the database; check the labels of both"
        )

    def mean(values: Tensor) -> float:
        return 100 * float(values[counted].mean())

    near = ranks.precision_radius_2
    return LabelRanking(
        map=mean(ranks.expected),
        lower=mean(ranks.lower),
        upper=mean(ranks.upper),
        map_at_k=mean(ranks.at_k),
        precision_radius_2=None if near is None else mean(near),
        queries=int(counted.sum()),
        without_relevant=int((~counted).sum()),
    )


def distance_counts(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, block: int = 1024
) -> Tensor:
    """int64 ``[n_queries, bits + 1, 2]``: items at each distance, not relevant and relevant ones; counted without a sort.

    Arguments as in :func:`rank_by_hamming`.
    """
    bits, block = queries.shape[1], min(block, len(database))
    items, labels = database.float().mT.contiguous(), database_labels.float().mT.contiguous()
    # With one label at most on a side, the product of label rows is the relevance, and one matrix product does both.
    single = any(bool((x.sum(1) <= 1).all()) for x in (query_labels, database_labels))
    if single:
        items = torch.cat([items, labels])
    counts = []
    for rows in _slices(len(queries), min(_tile_rows(queries, block), EXACT // (bits + 1))):
        mine, wanted = queries[rows].float(), query_labels[rows].float()
        # One number per query and item tells row, distance and relevance apart: 2 (row (bits+1) + distance) + relevant. All its terms are
        # whole numbers below 2^24, for which float32 is exact in any order of summation.
        first = 2 * (bits + 1) * torch.arange(len(mine), device=mine.device, dtype=torch.float32)[:, None] + bits
        if single:
            mine = torch.cat([mine, -wanted], 1)
        total = torch.zeros(len(mine) * (bits + 1) * 2, dtype=torch.int64, device=mine.device)
        for columns in _slices(len(database), block):
            key = torch.addmm(first, mine, items[:, columns], alpha=-1)
            if not single:
                key += (wanted @ labels[:, columns]).clamp_(max=1)
            total += torch.bincount(key.to(torch.int32).flatten(), minlength=len(total))
        counts.append(total.reshape(len(mine), bits + 1, 2))
    return torch.cat(counts)


def groups_of_counts(counts: Tensor) -> TieGroups:
    """Groups from int64 ``[n_queries, n_distances, 2]``, see :func:`distance_counts`."""
    items = counts.sum(2)
    return TieGroups((items.cumsum(1) - items).double(), items.double(), counts[:, :, 1].double())


def groups_of_sorted(key: Tensor) -> TieGroups:
    """Groups that hold relevant items, from sorted whole numbers ``2 distance + relevant``, ``[n_queries, n_items]``."""
    n_queries, n_items = key.shape
    distance = key >> 1
    starts = torch.ones_like(key, dtype=torch.bool)
    torch.ne(distance[:, 1:], distance[:, :-1], out=starts[:, 1:])
    place = torch.arange(key.numel(), device=key.device).view_as(key)
    start_of = torch.where(starts, place, 0).flatten().cummax(0).values
    # A group ends with its relevant items; all rows are walked as one.
    hit = (key & 1).flatten().nonzero().squeeze(1)
    start = start_of[hit]
    is_end = torch.ones_like(hit, dtype=torch.bool)
    torch.ne(start[1:], start[:-1], out=is_end[:-1])
    last = is_end.nonzero().squeeze(1)
    relevant = last.diff(prepend=last.new_tensor([-1]))
    end, start = hit[last], start[last]
    row = start // n_items
    groups = torch.bincount(row, minlength=n_queries)
    column = torch.arange(len(row), device=row.device) - (groups.cumsum(0) - groups)[row]

    def table(values: Tensor, empty: int) -> Tensor:
        padded = torch.full((n_queries, int(groups.max()) + 1), empty, dtype=torch.float64, device=key.device)
        return padded.index_put_((row, column), values.double())

    return TieGroups(table(start - row * n_items, n_items), table(end + 1 - start, 0), table(relevant, 0))


def expected_precision(groups: TieGroups, k: int) -> Tensor:
    """``sum over the first k places of rel_j (hits among the first j) / j``, expected over random order of ties, ``[n_queries]``."""
    reached = slice(max(1, int((groups.before < k).sum(1).amax())))
    n, r, before = (x[:, reached] for x in (groups.items, groups.relevant, groups.before))
    relevant_before = groups.relevant_before[:, reached]
    places = torch.minimum((k - before).clamp(min=0), n)
    slope = torch.where(n > 1, (r - 1) / (n - 1).clamp(min=1), 0.0)
    # (P + 1 + (i-1) c) / (N + i) = c + (P + 1 - c (N + 1)) / (N + i)
    at_places = slope * places + (relevant_before + 1 - slope * (before + 1)) * _reciprocals(before, places)
    return (r / n.clamp(min=1) * at_places).sum(1)


def bounded_precision(groups: TieGroups, relevant_first: bool) -> Tensor:
    """The same over the whole database with all relevant items of a group before, or behind, the others."""
    r = groups.relevant
    before = groups.before if relevant_first else groups.before + groups.items - r
    return (r + (groups.relevant_before - before) * _reciprocals(before, r)).sum(1)


def expected_hits(groups: TieGroups, cutoffs: Tensor) -> Tensor:
    """Expected relevant items among the first places up to each cut-off (float64 ``[C]``), ``[n_queries, C]``."""
    ends = groups.before + groups.items
    wanted = cutoffs.expand(len(ends), -1).contiguous()
    group = torch.searchsorted(ends, wanted).clamp(max=ends.shape[1] - 1)
    before, items, relevant, relevant_before = (
        x.gather(1, group) for x in (groups.before, groups.items, groups.relevant, groups.relevant_before)
    )
    places = torch.minimum((wanted - before).clamp(min=0), items)
    return relevant_before + relevant * places / items.clamp(min=1)


def curve_cutoffs(n_items: int) -> list[int]:
    """Up to 30 ranks from 1 to ``n_items``, spread evenly in the logarithm."""
    return sorted({round(float(rank)) for rank in np.geomspace(1, n_items, MOST_CUTOFFS)})


def _reciprocals(before: Tensor, places: Tensor) -> Tensor:
    """``sum_{i=1..places} 1 / (before + i)``, by differences of harmonic numbers."""
    most = int((before + places).amax())
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most + 1, dtype=np.float64))])
    table = torch.from_numpy(harmonic).to(before.device)
    return table[(before + places).long()] - table[before.long()]


def _measured(groups: TieGroups, n_items: int, k: int) -> dict[str, Tensor]:
    """Per query, what :class:`LabelRanks` holds, and the expected ``hits`` at the cut-offs of the curve."""
    number = groups.n_relevant
    cutoffs = torch.tensor(curve_cutoffs(n_items), dtype=torch.float64, device=number.device)

    def share(sums: Tensor, most: Tensor) -> Tensor:
        return _only_with_relevant(sums / most.clamp(min=1), groups)

    lower, upper = (share(bounded_precision(groups, relevant_first=first), number) for first in (False, True))
    return {
        # Without ties all three are equal, which rounding must not undo.
        "expected": share(expected_precision(groups, n_items), number).clamp(lower, upper),
        "lower": lower,
        "upper": upper,
        "at_k": share(expected_precision(groups, k), number.clamp(max=k)),
        "n_relevant": number.long(),
        "hits": expected_hits(groups, cutoffs),
    }


def _ranks(parts: list[dict[str, Tensor]], n_items: int, precision_radius_2: Tensor | None) -> LabelRanks:
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    hits, number = joined.pop("hits"), joined["n_relevant"]
    counted = number > 0
    cutoffs = torch.tensor(curve_cutoffs(n_items), dtype=torch.int64, device=hits.device)
    return LabelRanks(
        **joined,
        precision_radius_2=precision_radius_2,
        cutoffs=cutoffs,
        precision=(hits / cutoffs)[counted].mean(0),
        recall=(hits[counted] / number[counted, None]).mean(0),
    )


def _only_with_relevant(values: Tensor, groups: TieGroups) -> Tensor:
    return torch.where(groups.n_relevant > 0, values, float("nan"))


def _relevance(query_labels: Tensor, database_labels: Tensor) -> Tensor:
    """``[n_queries, n_items]`` bool: share a label."""
    return (query_labels.float() @ database_labels.float().mT) > 0


def _similarity_step(queries: Tensor, database: Tensor) -> float:
    largest = 1.0
    for name, rows in (("query", queries), ("database", database)):
        norm = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        _refuse_rows(
            norm.isfinite()[:, None],
            f"{name} embeddings are not finite or overflow",
            "the model has diverged and cannot be scored",
        )
        largest *= float(norm.amax())
    product = torch.finfo(torch.float64)
    return max(max(torch.finfo(queries.dtype).eps, ROUNDING_STEPS * product.eps) * largest, product.tiny)


def _sort(key: Tensor) -> Tensor:
    """Rows in ascending order. numpy sorts whole numbers some ten times as fast as torch on a CPU."""
    if key.is_cuda:
        return key.sort(dim=1).values
    return torch.from_numpy(np.sort(key.numpy(), axis=1))


def _sorted_rows(like: Tensor, n_items: int) -> int:
    return max(SORTED_QUERIES, (TILE_ON_GPU if like.is_cuda else SORTED_TILE) // n_items)


def _tile_rows(like: Tensor, columns: int) -> int:
    return max(1, (TILE_ON_GPU if like.is_cuda else TILE) // columns)


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _refuse_rows(good: Tensor, finding: str, remedy: str) -> None:
    bad = (~good.all(1)).nonzero().squeeze(1)
    if len(bad):
        raise ValueError(f"{len(bad)} of {len(good)} {finding} (first: row {int(bad[0])}); {remedy}")


def _check(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, k: int, block: int
) -> None:
    for what, mine, theirs in (("columns", queries, database), ("classes", query_labels, database_labels)):
        if mine.ndim != 2 or theirs.ndim != 2 or mine.shape[1] != theirs.shape[1]:
            raise ValueError(
                f"queries of shape {tuple(mine.shape)}, database of shape {tuple(theirs.shape)}; both must be [n, {what}]"
            )
    for name, rows, labels in (("query", queries, query_labels), ("database", database, database_labels)):
        if not len(rows) or len(rows) != len(labels):
            raise ValueError(
                f"{len(rows)} {name} items, {len(labels)} rows of labels; expected one row per item, and items"
            )
        _refuse_rows((labels == 0) | (labels == 1), f"{name} labels are not 0 or 1", "a row marks its classes with 1")
    if queries.dtype != database.dtype:
        raise ValueError(
            f"queries are {queries.dtype}, the database is {database.dtype}; both must have the same dtype"
        )
    if k < 1 or block < 1:
        raise ValueError(f"k is {k} and block {block}; both must be 1 or more")
