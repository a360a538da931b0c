"""The vocabulary of data: what a loader returns, and what a method, an evaluator and the firewall get to see.

A *pair* is one caption with the image it is assigned to, as in the whole literature on noisy correspondence; caption ``c``
belongs to image ``image_of_caption[c]``. Loaders return :class:`PairDataset` (numpy arrays, true assignment). Noise turns the
true assignment of the training split into a noisy one; only :class:`OracleView` remembers the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

SplitName = Literal["train", "val", "test"]


class DataError(ValueError):
    """Unusable data. The message is one sentence: which file, what was found, what to do about it."""


@dataclass(frozen=True)
class PairSplit:
    """One split of an image-text data set with the *true* assignment of captions to images.

    Attributes:
        images: features of the images, float32 ``[n_images, image_dim]`` (one row per image, never per caption).
        captions: features of the captions, float32 ``[n_captions, text_dim]``.
        image_of_caption: int64 ``[n_captions]``, the image of each caption; every image has at least one caption.
        labels: None, or class ids int64 ``[n_images]``, or multi-hot uint8 ``[n_images, n_classes]``.
        image_ids: None, or one identifier per image, unique over all splits.
        raw_captions: None, or the text of each caption.
    """

    images: np.ndarray
    captions: np.ndarray
    image_of_caption: np.ndarray
    labels: np.ndarray | None = None
    image_ids: tuple[str, ...] | None = None
    raw_captions: tuple[str, ...] | None = None

    @property
    def n_images(self) -> int:
        return len(self.images)

    @property
    def n_captions(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class PairDataset:
    """A data set ready for use: three splits and what a record must say about them.

    Attributes:
        name: the registered name.
        splits: ``train``, ``val`` and ``test``.
        database: the items that test queries search where a protocol says ``database: rest``, the training pairs possibly among them; None
            where the set has no such part.
        n_classes: number of classes where the labels do not show all of them (an empty class in a released file); None = as they show.
        shared_space: image and text features live in one space, so that their cosine means something (CLIP features).
        has_real_noise: the training pairs are mismatched by nature; there is no ground truth of noise and no rate to choose.
        digests: sha256 of every file that was read, by name relative to the data root; for generated data, of the arrays.
        remark: one sentence for tables and ``list datasets`` (origin, licence).
    """

    name: str
    splits: Mapping[SplitName, PairSplit]
    database: PairSplit | None = None
    n_classes: int | None = None
    shared_space: bool = False
    has_real_noise: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True)
class TrainView:
    """What a method may see of the training data of ONE run: features and the (noisy) assignment, on the device.

    Attributes:
        images: ``[n_images, image_dim]`` float.
        captions: ``[n_pairs, text_dim]`` float; pair ``i`` is caption ``i``.
        image_of_pair: ``[n_pairs]`` int64, the image that caption ``i`` is *given* with, right or wrong.
        labels: ``[n_pairs, n_classes]`` float 0/1, the labels that the pairs are *given* with, right or wrong; None without labels.
        text_labels: ``[n_pairs, n_classes]``, those of the texts where noise treats each modality by itself (MRL); otherwise None, and
            ``labels`` hold for both.
    """

    images: torch.Tensor
    captions: torch.Tensor
    image_of_pair: torch.Tensor
    labels: torch.Tensor | None = None
    text_labels: torch.Tensor | None = None

    @property
    def n_pairs(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class MetaView(TrainView):
    """Verified pairs that a protocol grants to methods that ask for them; disjoint by image from every other split."""


@dataclass(frozen=True)
class EvalView:
    """A validation or test split on the device.

    Attributes:
        images: ``[n_images, image_dim]``.
        captions: ``[n_captions, text_dim]``.
        image_of_caption: ``[n_captions]`` int64, the right image of each caption.
    """

    images: torch.Tensor
    captions: torch.Tensor
    image_of_caption: torch.Tensor


@dataclass(frozen=True)
class LabelledView:
    """Labelled items on the device, as queries or as the database of label-based retrieval.

    Attributes:
        images: ``[n, image_dim]``.
        texts: ``[n, text_dim]``; row i belongs to image i.
        labels: ``[n, n_classes]`` float 0/1, the true labels.
    """

    images: torch.Tensor
    texts: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class OracleView:
    """Behind the firewall: which training pairs are wrong. Only evaluator and weight log ever hold one.

    Attributes:
        is_noisy: ``[n_pairs]`` bool; None where nobody knows (real noise).
    """

    is_noisy: torch.Tensor | None
