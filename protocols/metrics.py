"""Retrieval metrics in both directions, and how well a score separates noisy from clean pairs.

Everything follows from the *first hit* of a query: how many wrong items come before the best of its own items. An image query owns all
its captions, a caption query owns one image; own items never count against their query (specs/protocol-noisy-correspondence.md, section 4).

Ties. A record's recalls are expected over random order of the tied items; ``lower`` and ``upper`` break all ties against and for the query.
Similarities computed here count as tied when they differ by less than the rounding error of the matrix product: the last bits of a
product depend on the processor and on the position in the matrix, and a collapsed model must not be ranked by them.
Similarities that are given are compared exactly.

Memory: tiles of ``128 x block`` similarities (``4096 x block`` on a GPU); the full matrix never exists unless it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..results.record import Recalls, RetrievalScores

CUTOFFS = (1, 5, 10)
# 128 rows keep a tile of 1,024 float32 columns inside a core's cache; a GPU wants fewer and larger kernels.
IMAGES_PER_TILE = 128
IMAGES_PER_TILE_ON_GPU = 4096
# Largest spread seen between kernels, shapes and positions for equal rows: 4 eps in float32, 11 eps in float64 (dimension 4096).
ROUNDING_STEPS = 16

Tile = Callable[[slice, slice], Tensor]


@dataclass(frozen=True)
class FirstHitRanks:
    """Where the queries of one direction find their first own item; all tensors int64 ``[n_queries]``.

    Attributes:
        better: wrong items that are more similar than the best own item.
        tied: wrong items tied with the best own item.
        own_tied: own items tied at the best, itself included (at least 1).
    """

    better: Tensor
    tied: Tensor
    own_tied: Tensor

    def expected(self) -> Tensor:
        """Expected 0-based rank of the first own item under random order of ties, float64."""
        return self.better + self.tied.double() / (self.own_tied + 1)

    def pessimistic(self) -> Tensor:
        """0-based rank when all tied wrong items come first."""
        return self.better + self.tied


@dataclass(frozen=True)
class Ranks:
    """First hits of image queries (``i2t``) and of caption queries (``t2i``)."""

    i2t: FirstHitRanks
    t2i: FirstHitRanks

    def arrays(self) -> dict[str, np.ndarray]:
        """For the sidecar, uint32: from the three numbers of a query, every recall, rank and bound can be computed again."""
        return {
            f"{direction}_{name}": getattr(getattr(self, direction), name).cpu().numpy().astype(np.uint32)
            for direction in ("i2t", "t2i")
            for name in ("better", "tied", "own_tied")
        }


def retrieval_ranks(images: Tensor, captions: Tensor, image_of_caption: Tensor, block: int = 1024) -> Ranks:
    """First hits in both directions, from embeddings compared by inner product.

    Args:
        images: ``[n_images, dim]``, float32 or float64.
        captions: ``[n_captions, dim]``, same dtype and device.
        image_of_caption: ``[n_captions]`` int64; any order, any number of captions per image from one on.
        block: captions per tile.

    Raises:
        ValueError: embeddings that are not finite (a diverged model must not score), shapes that do not fit, an image without caption.
    """
    if images.dtype not in (torch.float32, torch.float64) or images.dtype != captions.dtype:
        raise ValueError(
            f"image embeddings are {images.dtype}, caption embeddings {captions.dtype}; both must be float32 or both float64"
        )
    if images.ndim != 2 or captions.ndim != 2 or images.shape[1] != captions.shape[1]:
        raise ValueError(
            f"embeddings of shapes {tuple(images.shape)} and {tuple(captions.shape)}; expected [n_images, dim] and [n_captions, dim]"
        )
    _check_assignment(image_of_caption, len(images), len(captions))
    own = torch.cat(
        [
            torch.linalg.vecdot(images[index], part)
            for index, part in zip(image_of_caption.split(block), captions.split(block), strict=True)
        ]
    )
    return _count(lambda r, c: images[r] @ captions[c].mT, own, image_of_caption, block, _rounding(images, captions))


def ranks_from_similarity(similarity: Tensor, image_of_caption: Tensor, block: int = 1024) -> Ranks:
    """First hits in both directions, from a given matrix ``[n_images, n_captions]``, ties compared exactly.

    Raises:
        ValueError: a similarity that is not finite, shapes that do not fit, an image without caption.
    """
    if similarity.ndim != 2:
        raise ValueError(f"similarity of shape {tuple(similarity.shape)}; expected [n_images, n_captions]")
    _check_assignment(image_of_caption, *similarity.shape)
    own = _finite(similarity[image_of_caption, torch.arange(len(image_of_caption), device=similarity.device)])
    zero = own.new_zeros(())
    return _count(lambda r, c: _finite(similarity[r, c]).clone(), own, image_of_caption, block, (zero, zero))


def ranks_from_callable(
    similarity: Callable[[Tensor, Tensor], Tensor],
    n_images: int,
    image_of_caption: Tensor,
    block: int = 1024,
    tolerance: float = 1e-6,
) -> Ranks:
    """First hits in both directions for encoders whose similarity is not an inner product (cross-attention).

    Args:
        similarity: called with positions of some images ``[b]`` and of some captions ``[c]``, returns ``[b, c]``.
        n_images: number of images.
        image_of_caption: ``[n_captions]`` int64.
        block: captions per call, together with at most 128 images (4,096 on CUDA).
        tolerance: similarities that are no farther apart count as tied; covers that a network's last bits depend on the block.

    Raises:
        ValueError: a similarity that is not finite, an image without caption.
    """
    _check_assignment(image_of_caption, n_images, len(image_of_caption))
    image, caption = (torch.arange(n, device=image_of_caption.device) for n in (n_images, len(image_of_caption)))
    own = _own_from_callable(similarity, image_of_caption, block)
    spread = own.new_tensor(tolerance)
    return _count(
        lambda r, c: _finite(similarity(image[r], caption[c])).clone(), own, image_of_caption, block, (spread, spread)
    )


def _own_from_callable(similarity: Callable[[Tensor, Tensor], Tensor], image_of_caption: Tensor, block: int) -> Tensor:
    """``[n_captions]``: similarity of every caption with its own image, in small blocks of neighbouring images."""
    size = min(block, IMAGES_PER_TILE)
    order = torch.argsort(image_of_caption, stable=True)
    parts = []
    for captions in order.split(size):
        images, row = torch.unique(image_of_caption[captions], return_inverse=True)
        parts.append(_finite(similarity(images, captions)).gather(0, row[None]).squeeze(0))
    joined = torch.cat(parts)
    return torch.empty_like(joined).scatter(0, order, joined)


def _count(tile: Tile, own: Tensor, image_of_caption: Tensor, block: int, tolerance: tuple[Tensor, Tensor]) -> Ranks:
    """Count, tile by tile, the wrong items above and level with the best own item of every image and of every caption.

    Args:
        tile: gives similarities of some images and captions as a new tensor, which is overwritten here.
        own: ``[n_captions]`` similarity of each caption with its own image.
        image_of_caption: ``[n_captions]``.
        block: captions per tile.
        tolerance: for image and for caption queries, how far apart tied similarities may be; scalars or one per query.
    """
    n, m = int(image_of_caption.max()) + 1, len(own)
    best = own.new_full((n,), -torch.inf).scatter_reduce(0, image_of_caption, own, "amax")
    above_image, level_image = best + tolerance[0], best - tolerance[0]
    above_caption, level_caption = own + tolerance[1], own - tolerance[1]
    own_tied = torch.bincount(image_of_caption[own >= level_image[image_of_caption]], minlength=n)
    counts = (
        torch.zeros(2, n, dtype=torch.int64, device=own.device),
        torch.zeros(2, m, dtype=torch.int64, device=own.device),
    )
    for r in _slices(n, _images_per_tile(own.device)):
        for c in _slices(m, block):
            similarity = _hide_own(tile(r, c), image_of_caption[c] - r.start)
            mask = torch.empty_like(similarity)
            for k, (image_bound, caption_bound, compare) in enumerate(
                ((above_image, above_caption, torch.gt), (level_image, level_caption, torch.ge))
            ):
                # Zeros and ones summed in floating point by a matrix product: exact below 2^24, and faster than integer sums.
                compare(similarity, image_bound[r, None], out=mask)
                counts[0][k, r] += (mask @ mask.new_ones(mask.shape[1])).long()
                compare(similarity, caption_bound[c], out=mask)
                counts[1][k, c] += (mask.mT @ mask.new_ones(mask.shape[0])).long()
    (better_i, level_i), (better_c, level_c) = counts
    return Ranks(
        FirstHitRanks(better_i, level_i - better_i, own_tied),
        FirstHitRanks(better_c, level_c - better_c, torch.ones_like(better_c)),
    )


def _images_per_tile(device: torch.device) -> int:
    return IMAGES_PER_TILE if device.type == "cpu" else IMAGES_PER_TILE_ON_GPU


def _slices(total: int, size: int) -> list[slice]:
    edges = [*range(0, total, size), total]
    return [slice(a, b) for a, b in pairwise(edges)]


def _hide_own(similarity: Tensor, row: Tensor) -> Tensor:
    """Replace the entries of own pairs by -inf, in place; ``row`` is each column's own row, outside the tile for most."""
    inside = (row >= 0) & (row < len(similarity))
    index = row.clamp(0, len(similarity) - 1)[None]
    entry = similarity.gather(0, index)
    return similarity.scatter_(0, index, torch.where(inside, -torch.inf, entry))


def _rounding(images: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
    """Rounding error of the inner products of every image query and of every caption query, from the lengths of the vectors."""
    image_norm, caption_norm = (torch.linalg.vector_norm(x, dim=1) for x in (images, captions))
    for name, norm in (("image", image_norm), ("caption", caption_norm)):
        bad = (~torch.isfinite(norm)).nonzero().squeeze(1)
        if len(bad):
            raise ValueError(
                f"{len(bad)} of {len(norm)} {name} embeddings are not finite or overflow (first: row {int(bad[0])}); "
                "the model has diverged and cannot be scored"
            )
    step = ROUNDING_STEPS * torch.finfo(images.dtype).eps
    return step * image_norm * caption_norm.max(), step * caption_norm * image_norm.max()


def _finite(similarity: Tensor) -> Tensor:
    if not bool(torch.isfinite(similarity).all()):
        kind = "NaN" if bool(similarity.isnan().any()) else "infinite"
        raise ValueError(f"the similarity has {kind} entries; the model has diverged and cannot be scored")
    return similarity


def _check_assignment(image_of_caption: Tensor, n_images: int, n_captions: int) -> None:
    if image_of_caption.shape != (n_captions,) or image_of_caption.dtype != torch.int64:
        raise ValueError(
            f"image_of_caption is {image_of_caption.dtype} {tuple(image_of_caption.shape)}; expected int64 ({n_captions},)"
        )
    if n_captions == 0:
        raise ValueError("there are no captions to score")
    low, high = int(image_of_caption.min()), int(image_of_caption.max())
    if low < 0 or high >= n_images:
        raise ValueError(f"image_of_caption runs from {low} to {high}, but there are {n_images} images")
    without = (torch.bincount(image_of_caption, minlength=n_images) == 0).nonzero().squeeze(1)
    if len(without):
        raise ValueError(
            f"{len(without)} images have no caption (first: image {int(without[0])}) and cannot be queries; leave them out"
        )


def hit_probability(ranks: FirstHitRanks, k: int) -> Tensor:
    """Probability, under random order of ties, that an own item is among the first ``k``, float64 ``[n_queries]``.

    With b better, t tied wrong and o tied own items, ``s = k - b`` places are left for the tied ones:
    ``P = 1 - C(t, s) / C(t + o, s)`` (hypergeometric), and 0 where s <= 0.
    """
    drawn = torch.arange(k, device=ranks.better.device)
    places = (k - ranks.better)[:, None]
    wrong, total = (ranks.tied[:, None] - drawn).clamp(min=0), ranks.tied[:, None] + ranks.own_tied[:, None] - drawn
    miss = torch.where(drawn < places, wrong.double() / total.clamp(min=1), 1.0)
    return 1 - miss.prod(dim=1)


def recall_at_k(ranks: FirstHitRanks, k: int) -> tuple[float, float, float]:
    """Expected recall at ``k`` in percent, and its lower and upper bound (ties against and for the query)."""
    hits = hit_probability(ranks, k), ranks.pessimistic() < k, ranks.better < k
    expected, lower, upper = (100 * float(hit.double().mean()) for hit in hits)
    return expected, lower, upper


def direction_scores(ranks: FirstHitRanks) -> Recalls:
    """Recalls at 1, 5, 10, and ranks in the convention of the field: ``floor(median) + 1`` and ``mean + 1`` of 0-based ranks.

    Median and mean are taken over the expected ranks.
    """
    (r1, r5, r10), lower, upper = zip(*(recall_at_k(ranks, k) for k in CUTOFFS), strict=True)
    rank = ranks.expected().sort().values
    middle = (rank[(len(rank) - 1) // 2] + rank[len(rank) // 2]) / 2
    return Recalls(
        r1=r1,
        r5=r5,
        r10=r10,
        lower=lower,
        upper=upper,
        median_rank=float(middle.floor()) + 1,
        mean_rank=float(rank.mean()) + 1,
    )


def retrieval_scores(ranks: Ranks) -> RetrievalScores:
    """All scores of one gallery."""
    return _both(direction_scores(ranks.i2t), direction_scores(ranks.t2i))


def _both(i2t: Recalls, t2i: Recalls) -> RetrievalScores:
    rsum = i2t.r1 + i2t.r5 + i2t.r10 + t2i.r1 + t2i.r5 + t2i.r10
    return RetrievalScores(i2t=i2t, t2i=t2i, rsum=rsum, mean_r1=(i2t.r1 + t2i.r1) / 2)


def scores_per_fold(
    images: Tensor, captions: Tensor, image_of_caption: Tensor, folds: int, block: int = 1024
) -> list[RetrievalScores]:
    """Scores of ``folds`` consecutive blocks of images, each with its own captions as a gallery of its own (MS-COCO 1K: 5 folds of 1,000).

    Raises:
        ValueError: as :func:`retrieval_ranks`, and if the images do not divide into folds of equal size.
    """
    if folds < 1 or len(images) % folds:
        raise ValueError(f"{len(images)} images cannot be divided into {folds} folds of equal size")
    size, scores = len(images) // folds, []
    for begin in range(0, len(images), size):
        inside = (image_of_caption >= begin) & (image_of_caption < begin + size)
        own = image_of_caption[inside] - begin
        scores.append(retrieval_scores(retrieval_ranks(images[begin : begin + size], captions[inside], own, block)))
    return scores


def fold_scores(
    images: Tensor, captions: Tensor, image_of_caption: Tensor, folds: int, block: int = 1024
) -> RetrievalScores:
    """Mean of every number over consecutive folds; rSum is the sum of the averaged recalls."""
    return mean_scores(scores_per_fold(images, captions, image_of_caption, folds, block))


def mean_scores(scores: Sequence[RetrievalScores]) -> RetrievalScores:
    """Mean of every number over galleries; ``rsum`` and ``mean_r1`` from the averages."""

    def mean(recalls: list[Recalls]) -> Recalls:
        columns = {
            name: np.array([getattr(part, name) for part in recalls]).mean(axis=0) for name in Recalls.model_fields
        }
        return Recalls.model_validate(
            {name: tuple(value.tolist()) if value.ndim else float(value) for name, value in columns.items()}
        )

    return _both(mean([part.i2t for part in scores]), mean([part.t2i for part in scores]))


def auc(scores: Tensor, is_positive: Tensor) -> Tensor:
    """Area under the ROC curve: probability that a positive scores higher than a negative, ties counted half.

    Exact: the doubled mid-ranks are integers. O(n log n).

    Args:
        scores: ``[n]``.
        is_positive: ``[n]`` bool.

    Returns:
        float64 scalar in [0, 1].

    Raises:
        ValueError: a NaN score, or only one class.
    """
    if bool(scores.isnan().any()):
        raise ValueError(
            f"{int(scores.isnan().sum())} of {len(scores)} scores are NaN; leave them out before asking for an AUC"
        )
    positives = int(is_positive.sum())
    negatives = len(scores) - positives
    if positives == 0 or negatives == 0:
        raise ValueError(f"an AUC needs both classes, got {positives} positives and {negatives} negatives")
    _, group, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    end = sizes.cumsum(0)
    doubled_rank = 2 * end - sizes + 1
    wins = doubled_rank[group][is_positive].sum() - positives * (positives + 1)
    return wins.double() / (2 * positives * negatives)
