"""Noise models for pairs: named ways to give captions a wrong image, with realised rate and digest.

Named semantics, never one "noise" (specs/protocol-noisy-correspondence.md section 3):

``nested-mismatch``
    Default of our protocols. One permutation of all pairs per seed is cut into groups of 50; the first ``floor(rate * N)`` pairs are noisy,
    so the noisy set of a smaller rate is contained in that of a larger one. Inside a group, pairs sorted by image (under a random key) are
    shifted by the largest number of captions that one image has there: no pair stays right by accident, the images are only
    permuted, and the realised rate is ``floor(rate * N) / N``. A partner given at one rate is kept at every larger rate, except in the one
    group per rate that the noisy set ends in (fewer than 50 pairs, or 100 when that remainder cannot be deranged within itself).
``caption-shuffle``
    NCR, NPC and most others: the images of a random subset of captions are permuted. Fixed points remain, so the realised rate is a
    little below the nominal one.
``image-shuffle``
    DECL, RCL: images are permuted among a random subset of images, and all captions of an image move together. Harder.
``replay``
    A published index file, one entry per caption or per image.
``none``
    Real noise: the assignment stays as it is, and nobody knows which pairs are wrong.

A realisation depends on (data set, noise model, seed), neither on the method nor, as far as the model allows, on the rate. Permutations are
the stable argsort of raw Philox words, so that they do not change with library versions.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .types import DataError

GROUP = 50
ENTRY_POINT_GROUP = "nocobench.noise"


@dataclass(frozen=True)
class NoiseRealisation:
    """A noisy assignment.

    Attributes:
        target_index: int64 ``[n_captions]``, the image each caption is given with.
        is_noisy: bool ``[n_captions]``, None for real noise.
        nominal_rate: what was asked for; None for real noise.
        realised_rate: share of captions whose image is wrong; None for real noise.
        digest: sha256 of ``target_index`` as little-endian int64.
    """

    target_index: np.ndarray
    is_noisy: np.ndarray | None
    nominal_rate: float | None
    realised_rate: float | None
    digest: str


@dataclass(frozen=True)
class Words:
    """Random words of one (data set, noise model, seed); each purpose has its own."""

    dataset: str
    model: str
    seed: int

    def permutation(self, n: int, purpose: str) -> np.ndarray:
        """A permutation of ``0..n-1``, int64."""
        text = f"noise|{self.dataset}|{self.model}|{self.seed}|{purpose}"
        key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")
        return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable").astype(np.int64)


NoiseModel = Callable[..., np.ndarray]
"""``model(image_of_caption, rate, words, **options) -> target_index``."""

_models: dict[str, NoiseModel] = {}


def register_noise(name: str) -> Callable[[NoiseModel], NoiseModel]:
    """Decorator; refuses a second model under a known name."""

    def add(model: NoiseModel) -> NoiseModel:
        if name in _models:
            raise DataError(
                f"noise model {name!r} exists twice: {_models[name].__module__} and {model.__module__}; rename one"
            )
        _models[name] = model
        return model

    return add


def names() -> list[str]:
    """All noise models, built in and installed."""
    return sorted(
        {*_models, "none", *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))}
    )


def level(model: str) -> str:
    """What moves: ``caption`` or ``image``; tables say it and never mix the two."""
    return {"image-shuffle": "image", "none": "real"}.get(model, "caption")


def realise(
    model: str, dataset_name: str, image_of_caption: np.ndarray, rate: float | None, seed: int, **options: Any
) -> NoiseRealisation:
    """Draw the noise of one run.

    Args:
        model: a registered name.
        dataset_name: names the random words.
        image_of_caption: int64 ``[n_captions]``, the true images.
        rate: nominal share of wrong captions in [0, 1]; None only for ``none``.
        seed: names the random words.
        options: of the model (``replay``: file, key, sha256).

    Raises:
        DataError: unknown model, impossible rate or unusable index file.
    """
    truth = np.asarray(image_of_caption, dtype=np.int64)
    if model == "none":
        if rate is not None:
            raise DataError(f"noise model 'none' is real noise and has no rate, but {rate} was asked for; drop --noise")
        return NoiseRealisation(truth, None, None, None, _digest(truth))
    if rate is None or not 0 <= rate <= 1:
        raise DataError(f"noise rate {rate} is not a number from 0 to 1; give a share such as 0.4")
    target = np.asarray(_model(model)(truth, float(rate), Words(dataset_name, model, seed), **options), dtype=np.int64)
    wrong = target != truth
    return NoiseRealisation(target, wrong, float(rate), float(wrong.mean()), _digest(target))


def _model(name: str) -> NoiseModel:
    if name not in _models:
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            if point.name == name:
                _models[name] = point.load()
    if name not in _models:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"unknown noise model {name!r}{hint} Known: {', '.join(names())}")
    return _models[name]


def _digest(target: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(target, dtype="<i8").tobytes()).hexdigest()


@register_noise("nested-mismatch")
def nested_mismatch(image_of_caption: np.ndarray, rate: float, words: Words) -> np.ndarray:
    """See the module docstring.

    Raises:
        DataError: so few images that some pair would keep its image.
    """
    n = len(image_of_caption)
    order = words.permutation(n, "pairs")
    key = np.argsort(words.permutation(int(image_of_caption.max()) + 1, "images"))
    target = image_of_caption.copy()
    for group in _groups(order[: math.floor(rate * n + 1e-9)], image_of_caption):
        target[group] = _deranged(group, image_of_caption, key)
    return target


def _groups(noisy: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """Cut into groups of 50 that can be deranged; one that cannot joins the group before it."""
    groups: list[np.ndarray] = []
    for start in range(0, len(noisy), GROUP):
        groups.append(noisy[start : start + GROUP])
        while not _can_derange(images[groups[-1]]) and len(groups) > 1:
            last = groups.pop()
            groups[-1] = np.concatenate([groups[-1], last])
    if groups and not _can_derange(images[groups[0]]):
        raise DataError(
            f"{len(groups[0])} noisy pairs cannot all get a wrong image, because one image holds more than half of them; "
            "choose another rate or a data set with more images"
        )
    return groups


def _can_derange(images: np.ndarray) -> bool:
    return 2 * _largest(images) <= len(images)


def _largest(images: np.ndarray) -> int:
    return int(np.unique(images, return_counts=True)[1].max())


def _deranged(group: np.ndarray, image_of_caption: np.ndarray, key: np.ndarray) -> np.ndarray:
    images = image_of_caption[group]
    by_image = np.lexsort((group, key[images]))
    shifted = np.empty_like(images)
    shifted[by_image] = np.roll(images[by_image], -_largest(images))
    return shifted


def shuffled_subset(
    values: np.ndarray, count: int, chosen: np.ndarray, shuffle: Callable[[np.ndarray], None]
) -> np.ndarray:
    """A copy of ``values`` in which those at ``chosen[:count]`` are permuted among each other by ``shuffle`` (in place)."""
    moved = values[chosen[:count]].copy()
    shuffle(moved)
    result = values.copy()
    result[chosen[:count]] = moved
    return result


@register_noise("caption-shuffle")
def caption_shuffle(image_of_caption: np.ndarray, rate: float, words: Words) -> np.ndarray:
    """NCR's procedure (protocol-noisy-correspondence.md 3.1) on our random words; fixed points remain."""
    n = len(image_of_caption)
    count = int(rate * n)

    def shuffle(moved: np.ndarray) -> None:
        moved[:] = moved[words.permutation(count, f"partners of {count}")]

    return shuffled_subset(image_of_caption, count, words.permutation(n, "pairs"), shuffle)


@register_noise("image-shuffle")
def image_shuffle(image_of_caption: np.ndarray, rate: float, words: Words) -> np.ndarray:
    """All captions of an image move together (protocol-noisy-correspondence.md 3.2)."""
    n = int(image_of_caption.max()) + 1
    count = int(rate * n)

    def shuffle(moved: np.ndarray) -> None:
        moved[:] = moved[words.permutation(count, f"partners of {count}")]

    return shuffled_subset(np.arange(n), count, words.permutation(n, "images"), shuffle)[image_of_caption]


def legacy_caption_shuffle(values: np.ndarray, rate: float, random_state: np.random.RandomState) -> np.ndarray:
    """The released generators of NCR (values = image indices) and NPC (values = captions): two legacy numpy shuffles."""
    chosen = np.arange(len(values))
    random_state.shuffle(chosen)
    return shuffled_subset(values, int(rate * len(values)), chosen, random_state.shuffle)


@register_noise("replay")
def replay(
    image_of_caption: np.ndarray,
    rate: float,
    words: Words,
    *,
    file: str,
    key: str = "",
    sha256: str = "",
    files: Mapping[str, str] | None = None,
) -> np.ndarray:
    """A published index file, one entry per caption (used as it is) or per image (caption c gets ``index[image_of_caption[c]]``).

    ``file`` and ``key`` may contain ``{rate}``; ``files`` maps rates to files of other names.

    Raises:
        DataError: a file that is missing, changed, of the wrong length, out of range or not a permutation of the images.
    """
    path = Path((files or {}).get(f"{rate:g}", file).format(rate=f"{rate:g}")).expanduser()
    index = _read_index(path, key.format(rate=f"{rate:g}"), sha256)
    n_captions, n_images = len(image_of_caption), int(image_of_caption.max()) + 1
    if len(index) not in (n_captions, n_images):
        raise DataError(
            f"{path}: {len(index)} entries, but this data set has {n_captions} captions of {n_images} images; "
            "take the index file made for this data set and split"
        )
    if index.min() < 0 or index.max() >= n_images:
        raise DataError(
            f"{path}: entry {int(index.max())} names an image outside 0..{n_images - 1}; the file belongs to another data set"
        )
    if len(index) == n_images and n_images != n_captions:
        index = index[image_of_caption]
    if not np.array_equal(np.bincount(index, minlength=n_images), np.bincount(image_of_caption, minlength=n_images)):
        raise DataError(
            f"{path}: images do not keep their number of captions, so this is no permutation; check the file"
        )
    return index


def _read_index(path: Path, key: str, sha256: str) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"{path}: no such noise index file; give the path of a published .npy or .npz file")
    if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DataError(f"{path}: the sha256 differs from the protocol's {sha256[:12]}...; download the file again")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable index file ({error}); it must be a plain integer array") from error
    if isinstance(loaded, np.lib.npyio.NpzFile):
        if key not in loaded.files:
            raise DataError(f"{path}: no array {key!r}; it holds {', '.join(loaded.files)}")
        loaded = loaded[key]
    if loaded.ndim != 1 or not np.issubdtype(loaded.dtype, np.integer):
        raise DataError(f"{path}: {loaded.dtype} of shape {loaded.shape}; an index file is one row of integers")
    return loaded.astype(np.int64)
