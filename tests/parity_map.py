"""Parity with the mean average precisions of released code, whose conventions differ in truncation, denominators and missing queries."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from nocobench.protocols.map_metrics import LabelRanks, ordered_precision, rank_by_hamming, rank_by_similarity
from official_networks import one_hot, tensor
from parity import Oracle, consumes
from torch import Tensor

WAYS = ("i2t", "t2i")


def shares(query_labels: Tensor, database_labels: Tensor) -> Tensor:
    return (query_labels.double() @ database_labels.double().mT) > 0


def in_order(distance: Tensor, relevant: Tensor) -> Tensor:
    """Relevance in order of distance, items of equal distance by index."""
    return relevant.gather(1, distance.argsort(dim=1, stable=True))


def mean(values: Tensor) -> float:
    return float(values[~values.isnan()].mean())


def reference(oracle: Oracle, way: str, distance: Tensor, relevant: Tensor, ranks: LabelRanks) -> None:
    stable = ordered_precision(in_order(distance, relevant))
    values = [mean(one) for one in (stable, ranks.upper, ranks.lower, ranks.expected)]
    oracle.check(f"out_ref_{way}", values)


@consumes("map_metrics__hamming")
def hamming(oracle: Oracle) -> None:
    labels = tensor(oracle["in_query_label"]), tensor(oracle["in_db_label"])
    relevant = shares(*labels)
    sides = {"i2t": ("img", "txt"), "t2i": ("txt", "img")}
    for way, (mine, theirs) in sides.items():
        queries, database = tensor(oracle[f"in_query_{mine}"]), tensor(oracle[f"in_db_{theirs}"])
        distance = (queries.shape[1] - queries @ database.mT) / 2
        ranks = rank_by_hamming(queries, database, *labels, k=20)
        if way == "i2t":
            oracle.check("out_hamming_i2t", distance)
            _truncated(oracle, distance, relevant)
            _curve(oracle, distance, relevant)
        reference(oracle, way, distance, relevant, ranks)
        for code in ("ucch", "nrch"):
            oracle.check_between(f"out_{code}_{way}", mean(ranks.lower), mean(ranks.upper))


def _extremes(distance: Tensor, relevant: Tensor) -> list[Tensor]:
    """Relevance in order of distance with the relevant items of a tie last, and first."""
    return [in_order(2 * distance + side * relevant.double(), relevant) for side in (1, -1)]


def _truncated(oracle: Oracle, distance: Tensor, relevant: Tensor) -> None:
    """Cut at k: UCCH divides by what is found there; NRCH takes the first min(k, R) relevant items wherever they are."""
    for match in list(oracle.names):
        if not match.startswith(("out_ucch_i2t_k", "out_nrch_i2t_k")):
            continue
        k = int(match.rpartition("k")[2])
        # A better order may bring a further, deeper hit into the cut and so lower the mean: take the bounds of each query over both.
        if "ucch" in match:
            values = torch.stack([_found_within(order, k) for order in _all_orders(distance, relevant)])
        else:
            values = torch.stack([_first_relevant(order, k) for order in _extremes(distance, relevant)])
        oracle.check_between(match, mean(values.amin(0)), mean(values.amax(0)))


def _found_within(order: Tensor, k: int) -> Tensor:
    return ordered_precision(order, k, "found")


def _all_orders(distance: Tensor, relevant: Tensor) -> list[Tensor]:
    """Extreme orders, and many random ones: the mean over what is found in the cut has its extremes in between."""
    generator = torch.Generator().manual_seed(0)
    shuffled = [
        in_order(distance + 0.9 * torch.rand(distance.shape, generator=generator, dtype=torch.float64), relevant)
        for _ in range(500)
    ]
    return [*_extremes(distance, relevant), *shuffled]


def _first_relevant(order: Tensor, k: int) -> Tensor:
    hits = order.double().cumsum(1)
    counted = order & (hits <= k)
    places = torch.arange(1, order.shape[1] + 1, dtype=torch.float64)
    number = counted.sum(1)
    return torch.where(number > 0, (counted * hits / places).sum(1) / number.clamp(min=1), float("nan"))


def _curve(oracle: Oracle, distance: Tensor, relevant: Tensor) -> None:
    n = distance.shape[1]
    points = len(oracle.arrays["out_nrch_pr_k"])
    cutoffs = torch.linspace(1, n + 1, points).int() if points > 1 else torch.tensor([1])
    oracle.check("out_nrch_pr_k", cutoffs.long())
    low, high = (order[relevant.any(1)].double().cumsum(1) for order in _extremes(distance, relevant))
    total = relevant.sum(1)[relevant.any(1)].double()
    places = cutoffs.clamp(max=n).long() - 1
    bounds = [(hits[:, places] / cutoffs).mean(0).numpy() for hits in (low, high)]
    oracle.check_between("out_nrch_pr_precision", *bounds)
    bounds = [(hits[:, places] / total[:, None]).mean(0).numpy() for hits in (low, high)]
    oracle.check_between("out_nrch_pr_recall", *bounds)


@consumes("map_metrics__hamming_square")
def hamming_square(oracle: Oracle) -> None:
    labels = tensor(oracle["in_label"])
    sides = {"i2t": ("img", "txt"), "t2i": ("txt", "img")}
    for way, (mine, theirs) in sides.items():
        queries, database = tensor(oracle[f"in_{mine}"]), tensor(oracle[f"in_{theirs}"])
        ranks = rank_by_hamming(queries, database, labels, labels, k=20)
        reference(oracle, way, (queries.shape[1] - queries @ database.mT) / 2, shares(labels, labels), ranks)
        oracle.check_between(f"out_rshnl_{way}", mean(ranks.lower), mean(ranks.upper))


@consumes("map_metrics__real_valued")
def real_valued(oracle: Oracle) -> None:
    images, texts, further = (tensor(oracle[f"in_{k}"]) for k in ("img", "txt", "db_txt"))
    classes = 1 + max(int(oracle["in_label"].max()), int(oracle["in_db_label"].max()))
    own, other = one_hot(oracle["in_label"], classes), one_hot(oracle["in_db_label"], classes)
    unit = {name: F.normalize(x, dim=1) for name, x in (("i", images), ("t", texts), ("d", further))}

    def all_places(queries: Tensor, database: Tensor, labels: Tensor) -> float:
        return mean(rank_by_similarity(queries, database, own, labels, k=10).expected)

    i2t = all_places(unit["i"], unit["t"], own)
    for name in ("i2t_cos", "i2t_multilabel_cos", "i2t_multilabel_k10_ignored"):
        oracle.check(f"out_{name}", i2t)
    oracle.check("out_mrl_i2t", i2t)
    oracle.check("out_t2i_cos", all_places(unit["t"], unit["i"], own))
    larger = all_places(unit["i"], unit["d"], other)
    oracle.check("out_mrl_db_all", larger)
    # Released: what is found within the cut divides, and queries without a relevant item count as 0.
    within = in_order(-unit["i"] @ unit["t"].mT, shares(own, own))
    oracle.check("out_i2t_cos_k10", ordered_precision(within, 10, "found", absent=0.0).mean())
    deeper = in_order(-unit["i"] @ unit["d"].mT, shares(own, other))
    oracle.check("out_mrl_ks_50_all", [float(ordered_precision(deeper, 50, "found", absent=0.0).mean()), larger])
    euclidean = in_order(torch.cdist(images, texts), shares(own, own))
    oracle.check("out_i2t_l2", ordered_precision(euclidean).nan_to_num(0.0).mean())


@consumes("hcch__map")
def hcch(oracle: Oracle) -> None:
    relevant = shares(tensor(oracle["in_query_labels"]), tensor(oracle["in_db_labels"]))
    order = in_order(tensor(oracle["in_distance"]), relevant)
    oracle.check("out_map_hcch_all", ordered_precision(order, absent=0.0).mean())
    oracle.check("out_map_hcch_top5", ordered_precision(order, 5, "found", absent=0.0).mean())
    oracle.check("out_map_wash", ordered_precision(order, absent=0.0).mean())


@consumes("mgsh__map")
def mgsh(oracle: Oracle) -> None:
    queries, database = tensor(oracle["in_query"]), tensor(oracle["in_database"])
    labels = tensor(oracle["in_query_labels"]), tensor(oracle["in_database_labels"])
    order = in_order(-queries @ database.mT, shares(*labels))
    oracle.check("out_map_all", ordered_precision(order, absent=0.0).mean())
    oracle.check("out_map_10", ordered_precision(order, 10, "found", absent=0.0).mean())
    ranks = rank_by_similarity(queries, database, *labels, k=10)
    assert np.isclose(mean(ranks.expected), mean(ordered_precision(order)))
