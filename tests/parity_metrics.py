"""Parity with the official retrieval metrics (NCR's and NPC's) and with NCR's split by a mixture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from nocobench.methods.partition import gaussian_mixture_1d, min_max, ncr_clean_mask
from nocobench.protocols import metrics
from nocobench.results.record import Recalls
from parity import Oracle, consumes
from sklearn.cluster import KMeans
from torch import Tensor

DIRECTIONS = ("i2t", "t2i")


def owners(oracle: Oracle, n_images: int) -> Tensor:
    """``image_of_caption`` of the oracles: the captions of an image are neighbours."""
    return torch.arange(n_images).repeat_interleave(int(oracle["in_captions_per_image"]))


def three(recalls: Recalls) -> list[float]:
    return [recalls.r1, recalls.r5, recalls.r10]


@consumes("retrieval_metrics__1cap", "retrieval_metrics__5cap")
def from_similarity(oracle: Oracle) -> None:
    similarity = torch.from_numpy(oracle["in_sim"])
    ranks = metrics.ranks_from_similarity(similarity, owners(oracle, len(similarity)))
    scores = metrics.retrieval_scores(ranks)
    for direction in DIRECTIONS:
        recalls = getattr(scores, direction)
        oracle.check(f"out_{direction}", [*three(recalls), recalls.median_rank, recalls.mean_rank])
        oracle.check(f"out_{direction}_rank", getattr(ranks, direction).expected(), exact=True)
        oracle.check(f"out_npc_{direction}", three(recalls))
    oracle.check("out_rsum", scores.rsum)
    oracle.check("out_mean_r1", scores.mean_r1)
    oracle.check("out_npc_mean_r1", scores.mean_r1)


@consumes("retrieval_metrics__fold5")
def folds(oracle: Oracle) -> None:
    images, texts = (F.normalize(torch.from_numpy(oracle[f"in_{k}_features"]), dim=1) for k in ("image", "text"))
    own = owners(oracle, len(images))
    count = len(images) // int(oracle["in_images_per_fold"])
    parts = metrics.scores_per_fold(images, texts, own, count)
    oracle.check("out_per_fold", [three(part.i2t) + three(part.t2i) for part in parts])
    mean = metrics.fold_scores(images, texts, own, count)
    oracle.check("out_mean", three(mean.i2t) + three(mean.t2i))
    oracle.check("out_rsum", mean.rsum)
    full = metrics.retrieval_scores(metrics.retrieval_ranks(images, texts, own))
    oracle.check("out_full", three(full.i2t) + three(full.t2i))
    # The released evaluate_1K logs two decimals and adds the R@10 of image queries to that of caption queries.
    oracle.check("out_npc_buggy_i2t", three(mean.i2t), atol=0.005)
    oracle.check("out_npc_buggy_t2i", [mean.t2i.r1, mean.t2i.r5, mean.i2t.r10], atol=0.005)
    oracle.check("out_npc_mean_r1", mean.mean_r1)


@consumes("retrieval_metrics__ties")
def ties(oracle: Oracle) -> None:
    similarity = torch.from_numpy(oracle["in_sim"])
    own = owners(oracle, len(similarity))
    ranks = metrics.ranks_from_similarity(similarity, own)
    scores = metrics.retrieval_scores(ranks)
    constant = metrics.retrieval_scores(metrics.ranks_from_similarity(torch.zeros_like(similarity), own))
    for direction in DIRECTIONS:
        hits, recalls, collapsed = (getattr(x, direction) for x in (ranks, scores, constant))
        oracle.check(f"out_{direction}_optimistic_rank", hits.better.double())
        oracle.check(f"out_{direction}_pessimistic_rank", hits.pessimistic().double())
        oracle.check(f"out_{direction}_optimistic", recalls.upper)
        oracle.check(f"out_{direction}_pessimistic", recalls.lower)
        oracle.check(f"out_constant_pessimistic_{direction}", collapsed.lower)
        for code in ("ncr", "npc"):
            _left_to_chance(oracle, f"out_{code}_{direction}", recalls)
            _left_to_chance(oracle, f"out_constant_{code}_{direction}", collapsed)


def _left_to_chance(oracle: Oracle, name: str, recalls: Recalls) -> None:
    oracle.check_between(name, recalls.lower, recalls.upper)


@consumes("ncr__gmm_split")
def gmm_split(oracle: Oracle) -> None:
    generator = np.random.RandomState(int(oracle["in_numpy_seed"]))
    threshold = float(oracle["in_threshold"])
    for network in _networks(oracle):
        normalised = min_max(torch.from_numpy(oracle[f"in_loss_{network}"]))
        oracle.check(f"out_norm_loss_{network}", normalised)
        # scikit-learn's mixture starts from one k-means run, which may stop beside the best split.
        start = KMeans(2, n_init=1, random_state=generator).fit(normalised.numpy()[:, None]).labels_ == 0
        mixture = gaussian_mixture_1d(normalised, max_iter=10, tol=1e-2, reg_covar=5e-4, start=torch.from_numpy(start))
        oracle.check(f"out_prob_{network}", mixture.posterior_low)
        oracle.check(f"out_pred_{network}", ncr_clean_mask(mixture.posterior_low, threshold))
    fallback = ncr_clean_mask(torch.from_numpy(oracle["in_prob_all_above"]), threshold)
    oracle.check("out_pred_fallback", fallback)


def _networks(oracle: Oracle) -> Sequence[str]:
    return sorted(match[1] for match in oracle.inputs(r"in_loss_(\w+)"))
