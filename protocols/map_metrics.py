"""Mean average precision of label-based retrieval, expected over random order of ties, with bounds (specs/protocol-noisy-labels.md section 5).

An item is relevant to a query when they share a label. Average precision of one query with R relevant items in the database:
``AP = (1/R) sum_j rel_j * (hits among the first j) / j``. Queries without a relevant item have none: they are left out and counted.

Ties. Codes of b bits have only b + 1 distances, so that most items are tied, and the order that a sort gives them depends on library and
processor. Distances of codes are therefore counted, not sorted: two histograms per query, of all and of the relevant items, decide the
expectation over all orders and both bounds, in closed form. With N items and P relevant ones before a group of n tied items, r of them
relevant, place i of the group contributes ``(r/n) (P + 1 + (i-1) c) / (N + i)``, ``c = (r-1)/(n-1)``; the sum over places needs harmonic
numbers only. Similarities of real-valued embeddings count as tied when they fall into the same step of 16 rounding errors.

Memory: tiles of some 2^17 numbers; the matrix of all queries and items never exists.
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
# Whole numbers up to here are exact in float32.
EXACT = 2**23
MOST_CUTOFFS = 30
RADIUS = 2

Denominator = Literal["possible", "found"]


@dataclass(frozen=True)
class LabelRanks:
    """What one direction of retrieval found; tensors ``[n_queries]`` float64, NaN where a query has no relevant item.

    Attributes:
        expected: average precision over the whole database, expected over random order of ties.
        lower, upper: all ties broken against and for the query.
        at_k: average precision of the first k places, over ``min(k, R)``, expected over random order of ties.
        precision_radius_2: share of relevant items within Hamming distance 2, 0 where nothing is that near; None for real-valued embeddings.
        n_relevant: int64.
        cutoffs: int64 ``[C]``, ranks at which the curve is taken, spread evenly in the logarithm.
        precision, recall: ``[C]`` means over queries with a relevant item, expected over random order of ties.
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
    """Items of equal distance, nearest group first, float64 ``[n_queries, n_groups]``: how many there are, and how many are relevant.

    Groups may be empty.
    """

    items: Tensor
    relevant: Tensor

    @cached_property
    def items_before(self) -> Tensor:
        return self.items.cumsum(1) - self.items

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
        block: items compared at once; changes nothing but speed.

    Raises:
        ValueError: codes that are not -1 and +1, or tables that do not fit together.
    """
    _check_tables(queries, database, query_labels, database_labels)
    for codes in (queries, database):
        if not bool((codes.abs() == 1).all()):
            raise ValueError("codes must be -1 or +1")
    groups = hamming_groups(queries, database, query_labels, database_labels, block)
    near = slice(0, RADIUS + 1)
    found, hits = groups.items[:, near].sum(1), groups.relevant[:, near].sum(1)
    return _ranks(groups, len(database), k, _only_with_relevant(hits / found.clamp(min=1), groups))


def rank_by_similarity(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, *, k: int, block: int = 1024
) -> LabelRanks:
    """Ranking of real-valued embeddings by inner product (of unit rows: by cosine); see :func:`rank_by_hamming`.

    Raises:
        ValueError: embeddings that are not finite, or tables that do not fit together.
    """
    _check_tables(queries, database, query_labels, database_labels)
    if not (bool(queries.isfinite().all()) and bool(database.isfinite().all())):
        raise ValueError("embeddings are not finite")
    largest = queries.norm(dim=1).amax() * database.norm(dim=1).amax()
    step = ROUNDING_STEPS * torch.finfo(queries.dtype).eps * float(largest) or 1.0
    parts = []
    for rows in _row_tiles(queries, len(database)):
        similarity = ((queries[rows] @ database.mT) / step).round()
        relevant = _relevance(query_labels[rows], database_labels)
        parts.append(_ranks(sorted_groups(-similarity, relevant), len(database), k, None))
    return _joined(parts)


def label_scores(i2t: LabelRanks, t2i: LabelRanks, k: int) -> LabelScores:
    """Both directions in percent."""
    ways = [_ranking(ranks) for ranks in (i2t, t2i)]
    return LabelScores(i2t=ways[0], t2i=ways[1], mean_map=(ways[0].map + ways[1].map) / 2, k=k)


def _ranking(ranks: LabelRanks) -> LabelRanking:
    counted = ranks.n_relevant > 0

    def mean(values: Tensor) -> float:
        return 100 * float(values[counted].mean()) if bool(counted.any()) else 0.0

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


def hamming_groups(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, block: int = 1024
) -> TieGroups:
    """For every query the number of items, and of relevant ones, at each distance ``0..bits``; counted without a sort."""
    bits = queries.shape[1]
    items, labels = database.float().mT.contiguous(), database_labels.float().mT.contiguous()
    counts = []
    for rows in _row_tiles(queries, min(block, len(database)), EXACT // (bits + 1)):
        mine, wanted = queries[rows].float(), query_labels[rows].float()
        # One number per query and item tells row, distance and relevance apart: 2 (row (bits+1) + distance) + relevant.
        first = 2 * (bits + 1) * torch.arange(len(mine), device=mine.device, dtype=torch.float32)[:, None] + bits
        total = torch.zeros(len(mine) * (bits + 1) * 2, dtype=torch.int64, device=mine.device)
        for start in range(0, len(database), block):
            columns = slice(start, start + block)
            key = torch.addmm(first, mine, items[:, columns], alpha=-1)
            key += (wanted @ labels[:, columns]) > 0
            total += torch.bincount(key.to(torch.int32).flatten(), minlength=len(total))
        counts.append(total.reshape(len(mine), bits + 1, 2))
    table = torch.cat(counts).double()
    return TieGroups(table.sum(2), table[:, :, 1].contiguous())


def sorted_groups(distance: Tensor, relevant: Tensor) -> TieGroups:
    """Groups of exactly equal ``distance [n_queries, n_items]``, as many columns as items; the last place of a group holds its counts."""
    ordered, order = distance.sort(dim=1, stable=True)
    hits = relevant.gather(1, order).double().cumsum(1)
    places = torch.arange(1, distance.shape[1] + 1, device=distance.device, dtype=torch.float64).expand_as(hits)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    return TieGroups(_gains(places, last), _gains(hits, last))


def _gains(running: Tensor, last: Tensor) -> Tensor:
    """What a running count gained since the end of the group before, at the last place of each group, else 0."""
    at_ends = torch.where(last, running, 0.0)
    before = torch.nn.functional.pad(at_ends.cummax(1).values[:, :-1], (1, 0))
    return torch.where(last, running - before, 0.0)


def expected_precision(groups: TieGroups, k: Tensor | int) -> Tensor:
    """``sum over the first k places of rel_j (hits among the first j) / j``, expected over random order of ties, ``[n_queries]``."""
    n, r = groups.items, groups.relevant
    before, relevant_before = groups.items_before, groups.relevant_before
    places = torch.minimum((k - before).clamp(min=0), n)
    slope = torch.where(n > 1, (r - 1) / (n - 1).clamp(min=1), 0.0)
    reciprocal = _reciprocals(before, places)
    at_places = slope * places + (relevant_before + 1 - slope * (before + 1)) * reciprocal
    return (r / n.clamp(min=1) * at_places).sum(1)


def bounded_precision(groups: TieGroups, relevant_first: bool) -> Tensor:
    """The same over the whole database with all relevant items of a group before, or behind, the others."""
    r, relevant_before = groups.relevant, groups.relevant_before
    before = groups.items_before if relevant_first else groups.items_before + groups.items - r
    return (r + (relevant_before - before) * _reciprocals(before, r)).sum(1)


def expected_hits(groups: TieGroups, cutoffs: Tensor) -> Tensor:
    """Expected relevant items among the first places up to each cut-off (float64 ``[C]``), ``[n_queries, C]``."""
    ends = groups.items_before + groups.items
    wanted = cutoffs.expand(len(ends), -1).contiguous()
    group = torch.searchsorted(ends, wanted)  # the first group that reaches the cut-off holds items
    items, relevant = groups.items.gather(1, group), groups.relevant.gather(1, group)
    places = wanted - groups.items_before.gather(1, group)
    return groups.relevant_before.gather(1, group) + relevant * places / items


def _reciprocals(before: Tensor, places: Tensor) -> Tensor:
    """``sum_{i=1..places} 1 / (before + i)``, by differences of harmonic numbers."""
    most = int((before + places).amax()) + 1
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most + 1, dtype=np.float64))])
    table = torch.from_numpy(harmonic).to(before.device)
    return table[(before + places).long()] - table[before.long()]


def ordered_precision(
    relevant: Tensor, k: int | None = None, denominator: Denominator = "possible", absent: float = float("nan")
) -> Tensor:
    """AP of rankings in a given order, ``relevant [n_queries, n_items]`` bool, best item first.

    Args:
        k: places that count, None = all.
        denominator: the relevant items that are ``possible``, ``min(k, R)``, or those ``found`` within k (conventions of released code).
        absent: value of queries without a relevant item that counts.

    Returns:
        ``[n_queries]`` float64.
    """
    total = relevant.sum(1).double()
    kept = relevant[:, : relevant.shape[1] if k is None else k].double()
    places = torch.arange(1, kept.shape[1] + 1, device=kept.device, dtype=torch.float64)
    found = kept.sum(1)
    number = found if denominator == "found" else total.clamp(max=kept.shape[1])
    precision = (kept * kept.cumsum(1) / places).sum(1)
    return torch.where(number > 0, precision / number.clamp(min=1), absent)


def _ranks(groups: TieGroups, n_items: int, k: int, near: Tensor | None) -> LabelRanks:
    number = groups.n_relevant
    cutoffs = torch.tensor(curve_cutoffs(n_items), dtype=torch.int64, device=number.device)
    places = cutoffs.double()
    hits = expected_hits(groups, places)
    counted = number > 0

    def mean(values: Tensor) -> Tensor:
        # A query without relevant items adds nothing; their number is divided out in _joined and at the end.
        return torch.where(counted[:, None], values, 0.0).sum(0) / counted.sum().clamp(min=1)

    def share(sums: Tensor, most: Tensor) -> Tensor:
        return _only_with_relevant(sums / most.clamp(min=1), groups)

    return LabelRanks(
        expected=share(expected_precision(groups, n_items), number),
        lower=share(bounded_precision(groups, relevant_first=False), number),
        upper=share(bounded_precision(groups, relevant_first=True), number),
        at_k=share(expected_precision(groups, k), number.clamp(max=k)),
        precision_radius_2=near,
        n_relevant=number.long(),
        cutoffs=cutoffs,
        precision=mean(hits / places),
        recall=mean(hits / number.clamp(min=1)[:, None]),
    )


def curve_cutoffs(n_items: int) -> list[int]:
    """Up to 30 ranks from 1 to ``n_items``, spread evenly in the logarithm."""
    return sorted({round(float(rank)) for rank in np.geomspace(1, n_items, MOST_CUTOFFS)})


def _only_with_relevant(values: Tensor, groups: TieGroups) -> Tensor:
    return torch.where(groups.n_relevant > 0, values, float("nan"))


def _joined(parts: list[LabelRanks]) -> LabelRanks:
    """The queries of several tiles after each other; curves are averaged with their numbers of counted queries."""
    counted = torch.stack([(part.n_relevant > 0).sum() for part in parts]).double()
    weight = counted / counted.sum().clamp(min=1)

    def each(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    def mean(name: str) -> Tensor:
        return (torch.stack([getattr(part, name) for part in parts]) * weight[:, None]).sum(0)

    return LabelRanks(
        each("expected"), each("lower"), each("upper"), each("at_k"), None, each("n_relevant"), parts[0].cutoffs, mean("precision"),
        mean("recall"),
    )  # fmt: skip


def _relevance(query_labels: Tensor, database_labels: Tensor) -> Tensor:
    """``[n_queries, n_items]`` bool: share a label."""
    return (query_labels.float() @ database_labels.float().mT) > 0


def _row_tiles(queries: Tensor, columns: int, most: int = EXACT) -> Iterator[slice]:
    rows = min(max(1, (TILE_ON_GPU if queries.is_cuda else TILE) // columns), most)
    for start in range(0, len(queries), rows):
        yield slice(start, start + rows)


def _check_tables(queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor) -> None:
    if queries.shape[1] != database.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, the database {database.shape[1]}")
    if query_labels.shape[1] != database_labels.shape[1]:
        raise ValueError(f"queries have {query_labels.shape[1]} classes, the database {database_labels.shape[1]}")
    if len(queries) != len(query_labels) or len(database) != len(database_labels) or not len(database):
        raise ValueError("one row of labels per item is needed, and a database that is not empty")
