"""Set images aside, with all their captions, before noise is drawn: the verified pairs of the grant ``clean-meta-set``."""

from __future__ import annotations

import numpy as np

from .noise import Words
from .types import DataError, PairSplit


def reserve_images(split: PairSplit, fraction: float, dataset_name: str, seed: int) -> tuple[PairSplit, PairSplit]:
    """Split off ``round(fraction * n_images)`` images, at least 2.

    Returns:
        The remaining split and the reserved one; they share no image.

    Raises:
        DataError: nothing would remain.
    """
    count = max(2, round(fraction * split.n_images))
    if count > split.n_images - 2:
        raise DataError(
            f"{dataset_name}: cannot reserve {count} of {split.n_images} training images; lower grants.clean_meta_set.share"
        )
    chosen = np.zeros(split.n_images, dtype=bool)
    chosen[Words(dataset_name, "meta set", seed).permutation(split.n_images, "images")[:count]] = True
    return take_images(split, ~chosen), take_images(split, chosen)


def take_images(split: PairSplit, keep: np.ndarray) -> PairSplit:
    """The part of a split with the images marked in ``keep [n_images]`` bool, and all their captions."""
    renumbered = np.cumsum(keep) - 1
    captions = keep[split.image_of_caption]
    return PairSplit(
        images=split.images[keep],
        captions=split.captions[captions],
        image_of_caption=renumbered[split.image_of_caption[captions]],
        labels=None if split.labels is None else split.labels[keep],
        image_ids=None
        if split.image_ids is None
        else tuple(x for x, k in zip(split.image_ids, keep, strict=True) if k),
        raw_captions=None
        if split.raw_captions is None
        else tuple(x for x, k in zip(split.raw_captions, captions, strict=True) if k),
    )
