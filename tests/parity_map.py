"""Parity with official functions of mean average precision: RSHNL, UCCH, NRCH, MRL, HCCH, WASH and MGSH.

Released values of codes depend on the order that an unstable sort gave to ties: they must lie between the extremes over all orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from nocobench.protocols import map_metrics
from nocobench.protocols.map_metrics import LabelRanks, Ties, average_precision
from parity import Oracle, consumes
from torch import Tensor

CURVE_POINTS = 15  # of NRCH's pr_curve


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


def shared(labels: Tensor, others: Tensor) -> Tensor:
    """``[n, m]`` bool, by counting common classes."""
    return (labels[:, None, :].bool() & others[None, :, :].bool()).any(2)


def hamming(queries: Tensor, database: Tensor) -> Tensor:
    return (queries[:, None, :] != database[None, :, :]).sum(2)


def counted_mean(values: Tensor) -> Tensor:
    """Over queries with a relevant item, the others are NaN."""
    return values.nanmean()


def hamming_references(oracle: Oracle, name: str, ranks: LabelRanks, distance: Tensor, relevant: Tensor) -> None:
    """MAP with ties in index order, for, against the query, and expected; from the matrix and from the codes."""
    stable, upper, lower, expected = (
        counted_mean(average_precision(distance, relevant, ties)) for ties in ("stable", "upper", "lower", "expected")
    )
    by_codes = [counted_mean(values) for values in (ranks.upper, ranks.lower, ranks.expected)]
    for values in ([upper, lower, expected], by_codes):
        oracle.check(name, torch.stack([stable, *values]), rtol=1e-12, atol=1e-12)


def between(oracle: Oracle, name: str, ranks: LabelRanks) -> None:
    oracle.check_between(name, float(counted_mean(ranks.lower)), float(counted_mean(ranks.upper)))


@consumes("map_metrics__hamming")
def multi_label(oracle: Oracle) -> None:
    labels, database_labels = tensor(oracle["in_query_label"]), tensor(oracle["in_db_label"])
    relevant = shared(labels, database_labels)
    for way, mine, other in (("i2t", "img", "txt"), ("t2i", "txt", "img")):
        queries, database = tensor(oracle[f"in_query_{mine}"]), tensor(oracle[f"in_db_{other}"])
        distance = hamming(queries, database)
        ranks = map_metrics.rank_by_hamming(queries, database, labels, database_labels, k=len(database))
        hamming_references(oracle, f"out_ref_{way}", ranks, distance, relevant)
        for code in ("ucch", "nrch"):
            between(oracle, f"out_{code}_{way}", ranks)
        if way == "i2t":
            _check_distances(oracle, queries, database, distance)
            _truncated(oracle, distance, relevant)
            _curve(oracle, distance, relevant)


def _check_distances(oracle: Oracle, queries: Tensor, database: Tensor, distance: Tensor) -> None:
    """One by one from the codes, and from our histograms: with one item in the database, the filled place is the distance."""
    one = torch.ones(1, 1)
    counted = [
        map_metrics.distance_counts(queries, item[None], one.expand(len(queries), 1), one)[:, :, 1].argmax(1)
        for item in database
    ]
    oracle.check("out_hamming_i2t", distance.double(), rtol=1e-12, atol=1e-12)
    oracle.check("out_hamming_i2t", torch.stack(counted, 1).double(), rtol=1e-12, atol=1e-12)


def _truncated(oracle: Oracle, distance: Tensor, relevant: Tensor) -> None:
    """AP@20 as released: NRCH averages over the first relevant items wherever they are, UCCH over those among the first 20."""
    counted = relevant.any(1)
    low, high = (
        float(average_precision(distance, relevant, ties, 20, "first")[counted].mean()) for ties in ("lower", "upper")
    )
    oracle.check_between("out_nrch_i2t_k20", low, high)
    oracle.check_between("out_ucch_i2t_k20", *_extremes_of_found(distance, relevant, 20))


def _extremes_of_found(distance: Tensor, relevant: Tensor, k: int) -> tuple[float, float]:
    """Smallest and largest mean of AP over the relevant items among the first k, over all orders of ties.

    How many relevant items enter decides the denominator, so that neither extreme order is the worst or the best: for each number that can
    enter, the nearer groups are put in the extreme order and the entering items at the end or the start of the group that k cuts. A
    query without hits is left out by the released code.
    """
    lowest, highest = [], []
    for row, hits in zip(distance, relevant, strict=True):
        lowest.append(list(_found_values(row, hits, k, "lower")))
        highest.append(list(_found_values(row, hits, k, "upper")))
    return _mean_of_extremes(lowest, min), _mean_of_extremes(highest, max)


def _found_values(row: Tensor, hits: Tensor, k: int, ties: Ties) -> Iterator[float | None]:
    """AP for each number of relevant items that the cut group can bring in; None = no hit, not counted."""
    edge = row.sort().values[min(k, len(row)) - 1]
    inner, cut = row < edge, row == edge
    places, total = min(k, len(row)) - int(inner.sum()), int(hits[cut].sum())
    for entering in range(max(0, places - (int(cut.sum()) - total)), min(total, places) + 1):
        kept = torch.tensor([1.0] * entering + [0.0] * (places - entering)).bool()
        flags = torch.cat([hits[inner], kept])[None]
        ranks = torch.cat([row[inner], edge.expand(places)])[None]
        value = float(average_precision(ranks, flags, ties))
        yield None if np.isnan(value) else value


def _mean_of_extremes(values: list[list[float | None]], extreme: Callable[[Iterable[float]], float]) -> float:
    """Mean over queries of the extreme value of each; those that may be left out count where that makes the mean more extreme."""
    certain = [[v for v in row if v is not None] for row in values if None not in row]
    uncertain = [[v for v in row if v is not None] for row in values if None in row]
    counted = [extreme(row) for row in certain]
    for value in sorted((extreme(row) for row in uncertain if row), reverse=extreme is max):
        if not counted or extreme([value, float(np.mean(counted))]) == value:
            counted.append(value)
    return float(np.mean(counted))


def _curve(oracle: Oracle, distance: Tensor, relevant: Tensor) -> None:
    """NRCH's curve: 15 cut-offs up to one more than there are items, precision divided by the cut-off."""
    counted = relevant.any(1)
    cutoffs = np.linspace(1, relevant.shape[1] + 1, CURVE_POINTS).astype(np.int64)
    oracle.check("out_nrch_pr_k", cutoffs)
    number = relevant[counted].sum(1, keepdim=True)
    curves = []
    for second in (relevant, ~relevant):  # all against, all for the query
        order = (2 * distance + second)[counted].argsort(dim=1, stable=True)
        hits = relevant[counted].gather(1, order).double().cumsum(1)
        curves.append(hits[:, torch.from_numpy(cutoffs - 1).clamp(max=hits.shape[1] - 1)])
    groups = map_metrics.groups_of_sorted((2 * distance + relevant)[counted].sort(1).values)
    expected = map_metrics.expected_hits(groups, torch.from_numpy(cutoffs).double())
    assert bool(((curves[0] <= expected + 1e-9) & (expected <= curves[1] + 1e-9)).all())
    for name, divisor in (("precision", torch.from_numpy(cutoffs)), ("recall", number)):
        oracle.check_between(f"out_nrch_pr_{name}", *((hits / divisor).mean(0).numpy() for hits in curves))


@consumes("map_metrics__hamming_square")
def square(oracle: Oracle) -> None:
    labels = tensor(oracle["in_label"])
    images, texts = tensor(oracle["in_img"]), tensor(oracle["in_txt"])
    for way, queries, database in (("i2t", images, texts), ("t2i", texts, images)):
        ranks = map_metrics.rank_by_hamming(queries, database, labels, labels, k=len(labels))
        hamming_references(oracle, f"out_ref_{way}", ranks, hamming(queries, database), shared(labels, labels))
        between(oracle, f"out_rshnl_{way}", ranks)


@consumes("map_metrics__real_valued")
def real_valued(oracle: Oracle) -> None:
    labels, wide_labels = (tensor(oracle[name]) for name in ("in_label", "in_db_label"))
    n_classes = int(max(labels.max(), wide_labels.max())) + 1
    images, texts, wide = (F.normalize(tensor(oracle[f"in_{name}"]), dim=1) for name in ("img", "txt", "db_txt"))
    one_hot, wide_hot = (F.one_hot(x, n_classes) for x in (labels, wide_labels))

    def ranked(queries: Tensor, database: Tensor, database_labels: Tensor) -> LabelRanks:
        return map_metrics.rank_by_similarity(queries, database, one_hot, database_labels, k=len(database))

    i2t, t2i = ranked(images, texts, one_hot), ranked(texts, images, one_hot)
    # fx_calc_map_label counts a query without a relevant item as 0; the own counterpart of each query makes this impossible here.
    for name in ("out_i2t_cos", "out_i2t_multilabel_cos", "out_i2t_multilabel_k10_ignored", "out_mrl_i2t"):
        oracle.check(name, i2t.expected.mean())
    oracle.check("out_t2i_cos", t2i.expected.mean())
    relevant = labels[:, None] == labels
    l2 = torch.cdist(tensor(oracle["in_img"]), tensor(oracle["in_txt"]), compute_mode="donot_use_mm_for_euclid_dist")
    oracle.check("out_i2t_l2", average_precision(l2, relevant).mean())
    oracle.check("out_i2t_cos_k10", average_precision(-images @ texts.mT, relevant, "stable", 10, "found", 0.0).mean())
    _larger_database(oracle, -images @ wide.mT, labels[:, None] == wide_labels, ranked(images, wide, wide_hot))


def _larger_database(oracle: Oracle, distance: Tensor, relevant: Tensor, ranks: LabelRanks) -> None:
    at_50 = average_precision(distance, relevant, "stable", 50, "found", 0.0).mean()
    at_all = ranks.expected.nan_to_num(0.0).mean()
    oracle.check("out_mrl_ks_50_all", torch.stack([at_50, at_all]))
    oracle.check("out_mrl_db_all", at_all)


@consumes("hcch__map")
def hcch(oracle: Oracle) -> None:
    distance = tensor(oracle["in_distance"])
    relevant = shared(tensor(oracle["in_query_labels"]), tensor(oracle["in_db_labels"]))
    total = average_precision(distance, relevant, absent=0.0).mean()
    oracle.check("out_map_hcch_all", total)
    oracle.check("out_map_wash", total)
    oracle.check("out_map_hcch_top5", average_precision(distance, relevant, "stable", 5, "found", 0.0).mean())


@consumes("mgsh__map")
def mgsh(oracle: Oracle) -> None:
    """A query without a relevant item counts as 0."""
    queries, database = tensor(oracle["in_query"]), tensor(oracle["in_database"])
    labels, database_labels = tensor(oracle["in_query_labels"]), tensor(oracle["in_database_labels"])
    ranks = map_metrics.rank_by_similarity(queries, database, labels, database_labels, k=len(database))
    oracle.check("out_map_all", ranks.expected.nan_to_num(0.0).mean())
    distance, relevant = -queries @ database.mT, shared(labels, database_labels)
    oracle.check("out_map_10", average_precision(distance, relevant, "stable", 10, "found", 0.0).mean())
