"""Retrieval metrics in blocks: ranks of the first hit, recall at K expected over ties with its bounds, and the AUC of noise detection.

Tie rule: a query's recall is the expected value over random order of tied items; ``lower`` and ``upper`` break ties against and for the
query. Only wrong items compete: an image's own other captions never count against it. Never more than one block of similarities in
memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..results.record import Recalls, RetrievalScores

KS = (1, 5, 10)


@dataclass(frozen=True)
class FirstHit:
    """Per query ``[n]`` int64: wrong items better than the best own item, wrong items tied with it, own items tied at the best."""

    better: Tensor
    tied: Tensor
    own_tied: Tensor


@dataclass(frozen=True)
class Ranks:
    """Both directions of one gallery."""

    i2t: FirstHit
    t2i: FirstHit

    def arrays(self) -> dict[str, np.ndarray]:
        """Sidecar arrays, uint32."""
        return {
            f"{direction}_{name}": getattr(getattr(self, direction), name).cpu().numpy().astype(np.uint32)
            for direction in ("i2t", "t2i")
            for name in ("better", "tied", "own_tied")
        }


def retrieval_ranks(images: Tensor, captions: Tensor, image_of_caption: Tensor, block: int = 1024) -> Ranks:
    """First-hit ranks from embeddings compared by inner product.

    Args:
        images: ``[n_images, dim]``.
        captions: ``[n_captions, dim]``.
        image_of_caption: ``[n_captions]`` int64; every image has at least one caption.
        block: images per block of similarities.

    Raises:
        ValueError: similarities that are not finite.
    """
    starts = range(0, len(images), block)
    own = torch.empty(len(captions), dtype=images.dtype, device=images.device)
    better = torch.zeros(len(captions), dtype=torch.int64, device=images.device)
    tied = torch.zeros_like(better)
    image_side: list[FirstHit] = []
    # Each similarity block is computed twice, by the same product, so that equal similarities stay equal bit by bit.
    for rows, similarity in _blocks(images, captions, block):
        mine = (image_of_caption >= rows.start) & (image_of_caption < rows.stop)
        columns = mine.nonzero().squeeze(1)
        own[columns] = similarity[image_of_caption[columns] - rows.start, columns]
        image_side.append(_image_queries(similarity, image_of_caption - rows.start, columns))
    for _, similarity in _blocks(images, captions, block) if len(starts) > 1 else [(None, similarity)]:
        better += (similarity > own).sum(0)
        tied += (similarity == own).sum(0)
    i2t = FirstHit(*(torch.cat([getattr(part, name) for part in image_side]) for name in ("better", "tied", "own_tied")))
    return Ranks(i2t, FirstHit(better, tied - 1, torch.ones_like(better)))


def _blocks(images: Tensor, captions: Tensor, block: int) -> Iterator[tuple[range, Tensor]]:
    for start in range(0, len(images), block):
        similarity = images[start : start + block] @ captions.mT
        if not bool(similarity.isfinite().all()):
            raise ValueError("similarities are not finite; the model has diverged")
        yield range(start, start + len(similarity)), similarity


def _image_queries(similarity: Tensor, row_of_caption: Tensor, columns: Tensor) -> FirstHit:
    rows = row_of_caption[columns]
    own = similarity[rows, columns]
    best = torch.full((len(similarity),), -torch.inf, dtype=own.dtype, device=own.device).scatter_reduce(0, rows, own, "amax")
    own_better = torch.zeros(len(best), dtype=torch.int64, device=own.device)
    own_tied = own_better.index_add(0, rows, (own == best[rows]).long())
    better = (similarity > best[:, None]).sum(1)
    tied = (similarity == best[:, None]).sum(1) - own_tied
    return FirstHit(better, tied, own_tied)


def hit_probability(hits: FirstHit, k: int) -> Tensor:
    """Probability ``[n]`` that an own item is among the first k, over random order of ties.

    With g better wrong items, t tied wrong and o tied own ones, the j = k - g free places miss all own ones with probability
    C(t, j) / C(t + o, j).
    """
    free = (k - hits.better).clamp(min=0)
    miss = torch.ones(len(free), dtype=torch.float64, device=free.device)
    for place in range(k):
        left, own = (hits.tied - place).clamp(min=0).double(), hits.own_tied.double()
        miss = torch.where(place < free, miss * left / (left + own), miss)
    return torch.where(free > 0, 1 - miss, 0.0)


def recalls(hits: FirstHit) -> Recalls:
    """Recalls in percent with bounds, and 1-based ranks: median = floor(median) + 1 and mean + 1 of expected 0-based ranks."""
    expected = [100 * float(hit_probability(hits, k).mean()) for k in KS]
    upper = tuple(100 * float((hits.better < k).double().mean()) for k in KS)
    lower = tuple(100 * float((hits.better + hits.tied < k).double().mean()) for k in KS)
    rank = hits.better.double() + hits.tied.double() / (hits.own_tied.double() + 1)
    median = float(np.median(rank.cpu().numpy()))
    return Recalls(
        r1=expected[0], r5=expected[1], r10=expected[2], lower=lower, upper=upper,
        median_rank=float(np.floor(median)) + 1, mean_rank=float(rank.mean()) + 1,
    )  # fmt: skip


def retrieval_scores(ranks: Ranks) -> RetrievalScores:
    """Both directions, their sum of recalls and mean R@1."""
    return _scores(recalls(ranks.i2t), recalls(ranks.t2i))


def _scores(i2t: Recalls, t2i: Recalls) -> RetrievalScores:
    rsum = i2t.r1 + i2t.r5 + i2t.r10 + t2i.r1 + t2i.r5 + t2i.r10
    return RetrievalScores(i2t=i2t, t2i=t2i, rsum=rsum, mean_r1=(i2t.r1 + t2i.r1) / 2)


def fold_scores(images: Tensor, captions: Tensor, image_of_caption: Tensor, folds: int, block: int = 1024) -> RetrievalScores:
    """Mean over ``folds`` consecutive folds of images with their captions (MS-COCO 1K); rSum from the averages."""
    parts = []
    for rows in torch.arange(len(images), device=images.device).tensor_split(folds):
        columns = ((image_of_caption >= rows[0]) & (image_of_caption <= rows[-1])).nonzero().squeeze(1)
        ranks = retrieval_ranks(images[rows], captions[columns], image_of_caption[columns] - rows[0], block)
        parts.append(retrieval_scores(ranks))
    return _scores(*(_mean_recalls([getattr(part, side) for part in parts]) for side in ("i2t", "t2i")))


def _mean_recalls(parts: list[Recalls]) -> Recalls:
    table = {name: np.mean([getattr(part, name) for part in parts], axis=0) for name in Recalls.model_fields}
    return Recalls(**{k: tuple(map(float, v)) if np.ndim(v) else float(v) for k, v in table.items()})


def auc(score: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve of ``score [n]`` for ``positive [n]`` bool, ties counted half (rank statistic), scalar float64."""
    values, inverse, counts = torch.unique(score, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    mean_rank = (last - counts + last + 1).double() / 2
    n_positive, n = int(positive.sum()), len(score)
    rank_sum = mean_rank[inverse][positive].sum()
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive))
