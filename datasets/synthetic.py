"""``synthetic``: data of any size with known hardness, false negatives and zero-shot quality, for tests and scaling."""

from __future__ import annotations

import hashlib
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np

from .limits import refuse_beyond_memory
from .registry import register_dataset
from .types import DataError, PairDataset, PairSplit, SplitName


@register_dataset
def load(
    data_root: Path,
    n_train: int = 1000,
    n_val: int = 200,
    n_test: int = 500,
    captions_per_image: int = 5,
    image_dim: int = 64,
    text_dim: int = 64,
    latent_dim: int = 32,
    clusters: int = 100,
    cluster_spread: float = 0.7,
    hardness: float = 0.5,
    zero_shot: float = 0.0,
    seed: int = 0,
    n_classes: int = 0,
    labels_per_item: float = 1.0,
    class_spread: float = 0.35,
) -> PairDataset:
    """Images and captions are noisy nonlinear views of one latent vector per image.

    Args:
        clusters: number of latent clusters; images of one cluster are each other's false negatives.
        cluster_spread: distance of an image from its cluster centre (0: all images of a cluster are alike).
        hardness: standard deviation of the noise that each caption adds, per caption drawn between 0 and twice this, so that right pairs
            differ in how hard they are.
        zero_shot: 0: two different feature spaces; above 0 (at most 1): both modalities share one space and their cosine is right to this
            degree (needs image_dim = text_dim).
        seed: of the data, not of a run.
        n_classes: above 0: labelled items instead, one caption each (see :func:`_labelled`); options of latent vectors mean nothing then.
        class_spread: standard deviation of the class means of such items, against 1 within a class.
        labels_per_item: expected number of labels of such an item; 1 gives class numbers, more gives several labels per item.

    Raises:
        DataError: impossible sizes.
    """
    _refuse_impossible({name: value for name, value in locals().items() if name != "data_root"})
    if n_classes:
        sizes_of: dict[SplitName, int] = {"train": n_train, "val": n_val, "test": n_test}
        return _labelled(sizes_of, (image_dim, text_dim), n_classes, labels_per_item, class_spread, seed)
    if zero_shot and image_dim != text_dim:
        raise DataError(f"synthetic: zero_shot={zero_shot} needs image_dim = text_dim, got {image_dim} and {text_dim}")
    if min(n_train, n_val, n_test, captions_per_image) < 1:
        raise DataError("synthetic: every split needs at least one image and every image one caption")
    random = np.random.Generator(np.random.Philox(key=seed))
    views = {side: _view(random, latent_dim, dim) for side, dim in (("image", image_dim), ("text", text_dim))}
    if zero_shot:
        shared = _view(random, latent_dim, image_dim)
        views = {side: _mix(own, shared, zero_shot) for side, own in views.items()}
    centres = random.standard_normal((clusters, latent_dim))
    sizes: dict[SplitName, int] = {"train": n_train, "val": n_val, "test": n_test}
    splits: dict[SplitName, PairSplit] = {}
    for name, size in sizes.items():
        cluster = random.integers(0, clusters, size)
        latent = centres[cluster] + cluster_spread * random.standard_normal((size, latent_dim))
        owner = np.repeat(np.arange(size), captions_per_image)
        effort = 2 * hardness * random.random((len(owner), 1))
        told = latent[owner] + effort * random.standard_normal((len(owner), latent_dim))
        images = _see(latent, views["image"], random)
        captions = _see(told, views["text"], random)
        splits[name] = PairSplit(
            images, captions, owner, cluster.astype(np.int64), tuple(f"{name}-{i}" for i in range(size))
        )
    digest = hashlib.sha256(
        b"".join(split.images.tobytes() + split.captions.tobytes() for split in splits.values())
    ).hexdigest()
    remark = f"synthetic, {captions_per_image} captions per image, {clusters} clusters, hardness {hardness:g}, zero-shot {zero_shot:g}"
    return PairDataset("synthetic", splits, shared_space=zero_shot > 0, digests={"generated": digest}, remark=remark)


def _refuse_impossible(options: dict[str, Any]) -> None:
    """Refuse values that are no numbers of the right kind, and sizes that are not positive or fill the memory."""
    for name, value in options.items():
        wanted = type(DEFAULTS[name].default)
        usable = isinstance(value, (int, float) if wanted is float else int) and not isinstance(value, bool)
        if not usable or not (wanted is int or math.isfinite(value)) or not SMALLEST.get(name, 0) <= value < 2**63:
            kind = "a number" if wanted is float else "an integer"
            raise DataError(f"synthetic: {name}={value!r} is impossible; give {kind} from {SMALLEST.get(name, 0)}")
    if options["zero_shot"] > 1:
        raise DataError(f"synthetic: zero_shot={options['zero_shot']} is impossible; give a number from 0 to 1")
    images = max(options[f"n_{split}"] for split in ("train", "val", "test"))
    widest = max(options[name] for name in ("image_dim", "text_dim", "latent_dim", "n_classes", "clusters"))
    refuse_beyond_memory(16 * images * options["captions_per_image"] * widest, "synthetic: the largest split")
    refuse_beyond_memory(32 * options["latent_dim"] * widest, "synthetic: the views")


def _labelled(
    sizes: dict[SplitName, int],
    dims: tuple[int, int],
    n_classes: int,
    labels_per_item: float,
    class_spread: float,
    seed: int,
) -> PairDataset:
    """Labelled items as in protocol-noisy-labels.md section 7: ``ReLU(mean + N(0, I))`` per modality, class means ``class_spread N(0, I)``.

    Items with several labels have the mean of their classes' means, times the root of their number, so that they are as far apart.
    """
    if n_classes < 2 or not 1 <= labels_per_item <= n_classes or min(sizes.values()) < 1:
        raise DataError(
            f"synthetic: {n_classes} classes and {labels_per_item:g} labels per item in splits of {min(sizes.values())} items and more are "
            "impossible; take at least 2 classes, 1 label and 1 item"
        )
    random = np.random.Generator(np.random.Philox(key=seed))
    means = [class_spread * random.standard_normal((n_classes, dim)) for dim in dims]
    splits: dict[SplitName, PairSplit] = {}
    for name, size in sizes.items():
        first = random.integers(0, n_classes, size)
        labels = np.eye(n_classes, dtype=np.uint8)[first]
        if labels_per_item > 1:
            labels |= random.random((size, n_classes)) < (labels_per_item - 1) / (n_classes - 1)
        share = labels / np.sqrt(labels.sum(1, keepdims=True))
        images, texts = (
            np.maximum(share @ mean + random.standard_normal((size, mean.shape[1])), 0).astype(np.float32)
            for mean in means
        )
        splits[name] = PairSplit(
            images,
            texts,
            np.arange(size),
            labels if labels_per_item > 1 else first.astype(np.int64),
            tuple(f"{name}-{i}" for i in range(size)),
        )
    digest = hashlib.sha256(
        b"".join(split.images.tobytes() + split.captions.tobytes() for split in splits.values())
    ).hexdigest()
    remark = f"synthetic, {n_classes} classes, {labels_per_item:g} labels per item"
    return PairDataset("synthetic", splits, n_classes=n_classes, digests={"generated": digest}, remark=remark)


DEFAULTS = inspect.signature(load).parameters
SMALLEST = dict.fromkeys(("image_dim", "text_dim", "latent_dim", "clusters"), 1) | {"n_classes": -(2**63)}
View = tuple[np.ndarray, np.ndarray]


def _view(random: np.random.Generator, latent_dim: int, dim: int) -> View:
    hidden = 2 * latent_dim
    first = random.standard_normal((latent_dim, hidden)) / np.sqrt(latent_dim)
    return first, random.standard_normal((hidden, dim)) / np.sqrt(hidden)


def _mix(own: View, shared: View, share: float) -> View:
    first, second = (np.sqrt(1 - share) * a + np.sqrt(share) * b for a, b in zip(own, shared, strict=True))
    return first, second


def _see(latent: np.ndarray, view: View, random: np.random.Generator) -> np.ndarray:
    seen = np.tanh(latent @ view[0]) @ view[1]
    return (seen + 0.05 * random.standard_normal(seen.shape)).astype(np.float32)
