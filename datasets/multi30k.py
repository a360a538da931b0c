"""``multi30k``: 31,014 Flickr30K images described five times in German and five times in English; German stands for the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .cache import cache_file, cached
from .features import SPLITS, check_arrays
from .files import digests, read_lines, read_npz, require
from .registry import register_dataset
from .text import TextRecipe, item_vectors, sentence_vectors, unit_rows
from .types import DataError, PairDataset, PairSplit, SplitName

LANGUAGES = ("de", "en")
DESCRIPTIONS = 5
FILE_OF_SPLIT = {"train": "train", "val": "val", "test": "test_2016"}
REMARK = "Multi30K task 2 (Elliott et al. 2016): German items, English captions; non-commercial research"
REMEDY = (
    "clone github.com/multi30k/dataset (commit a3d2e0d2) and copy data/task2/raw/*.gz to multi30k/task2 and "
    "data/task2/image_splits to multi30k/image_splits under the data root"
)
Sentences = dict[str, list[str]]


def preview(data_root: Path) -> str:
    """Sizes, and whether the features are made already."""
    root = data_root / "multi30k"
    found = digests(_texts(root, "de"), data_root)
    ready = cache_file("multi30k-de", _depends_on(found, TextRecipe())).is_file()
    counts = {split: len(read_lines(root / f"task2/{file}.1.de.gz")) for split, file in FILE_OF_SPLIT.items()}
    _texts(root, "en")
    sizes = ", ".join(f"{split} {count:,} x {count * DESCRIPTIONS:,}" for split, count in counts.items())
    return f"{REMARK}; features are {'ready' if ready else 'made at first use, in minutes'} ({sizes})"


@register_dataset(preview=preview)
def load(data_root: Path, dim: int = 256, first: int | None = None, texts: str = "captions") -> PairDataset:
    """Features per language, fitted on all training sentences (:class:`TextRecipe`), kept in the cache folder (see cache.py).

    Image = mean of the item's five unit sentence vectors in German, centred and scaled with training statistics ``[n, dim]``; captions =
    unit sentence vectors in English ``[5 n, dim]``, item by item. Labels are the weak concepts of ``concept_labels.npz``, if present.

    Args:
        data_root: holds ``multi30k/task2/{train,val,test_2016}.{1..5}.{de,en}.gz`` and ``multi30k/image_splits``.
        dim: components per language.
        first: only so many training items, the first ones (5,000 is known as m30k-5k); the features stay those of all.
        texts: ``captions``; or ``item``: one text per item, made of its five English vectors as the image is of the German ones, 1 to 1.
            Items without any concept stay; they have no relevant item.
    """
    check_texts("multi30k", texts)
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise DataError(f"multi30k: dim={dim!r} is no number of components; choose an integer such as 256")
    root = data_root / "multi30k"
    image_ids = {split: _image_ids(root, split) for split in SPLITS}
    found = digests([path for path, _ in image_ids.values()], data_root)
    text, vectors = {}, {}
    for language in LANGUAGES:
        paths = _texts(root, language)
        read = digests(paths, data_root)
        text[language] = _read(root, language, {split: len(ids) for split, (_, ids) in image_ids.items()})
        vectors[language] = _vectors(language, text[language], TextRecipe(dim=dim), read)
        found |= read | _digest_of(vectors[language], f"multi30k/features {language}")
    labels, labels_path = concept_labels(root)
    count = _training_items(first, len(image_ids["train"][1]))
    german = {split: table.reshape(-1, DESCRIPTIONS, dim) for split, table in vectors["de"].items()}
    german["train"] = german["train"][:count]
    images = item_vectors(german)
    splits = {}
    for split in SPLITS:
        n = len(images[split])
        splits[split] = PairSplit(
            images[split],
            vectors["en"][split][: n * DESCRIPTIONS],
            np.repeat(np.arange(n), DESCRIPTIONS),
            None if labels is None else labels[split][:n],
            tuple(image_ids[split][1][:n]),
            tuple(text["en"][split][: n * DESCRIPTIONS]),
        )
    if texts == "item":
        splits = _one_text_each(splits)
    return PairDataset("multi30k", splits, digests=found | digests(labels_path, data_root), remark=REMARK)


def check_texts(name: str, texts: str) -> None:
    """Refuse other kinds of texts than these two."""
    if texts not in ("captions", "item"):
        raise DataError(f"{name}: texts={texts!r} are unknown; choose captions or item")


def concept_labels(root: Path) -> tuple[dict[SplitName, np.ndarray] | None, list[Path]]:
    """The weak concepts uint8 ``[n, 24]`` of every item of the full splits, and the file; None and no file where it is absent."""
    path = root / "concept_labels.npz"
    if not path.is_file():
        return None, []
    arrays = read_npz(_own(root, [path.name])[0], [f"label_{split}" for split in SPLITS])
    check_arrays(arrays, dict.fromkeys(arrays, 2), str(path))
    return {split: arrays[f"label_{split}"] for split in SPLITS}, [path]


def _one_text_each(splits: dict[SplitName, PairSplit]) -> dict[SplitName, PairSplit]:
    """The five captions of an item as one vector and one text."""
    english: dict[str, np.ndarray] = {
        split: part.captions.reshape(part.n_images, DESCRIPTIONS, -1) for split, part in splits.items()
    }
    items = item_vectors(english)
    return {
        split: replace(
            part,
            captions=items[split],
            image_of_caption=np.arange(part.n_images),
            raw_captions=_joined(part.raw_captions or ()),
        )
        for split, part in splits.items()
    }


def _joined(captions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(captions[i : i + DESCRIPTIONS]) for i in range(0, len(captions), DESCRIPTIONS))


def _texts(root: Path, language: str) -> list[Path]:
    files = [f"task2/{file}.{k}.{language}.gz" for file in FILE_OF_SPLIT.values() for k in range(1, DESCRIPTIONS + 1)]
    return _own(root, files)


def _own(root: Path, files: Sequence[str]) -> list[Path]:
    return require(root.parent, "multi30k", [f"{root.name}/{file}" for file in files], REMEDY)


def _image_ids(root: Path, split: str) -> tuple[Path, list[str]]:
    """The list of image names, plain as in the repository or gzipped."""
    plain = root / f"image_splits/{FILE_OF_SPLIT[split]}_images.txt"
    path = plain if plain.is_file() else plain.with_name(f"{plain.name}.gz")
    _own(root, [str(path.relative_to(root))])
    return path, [line.strip() for line in read_lines(path)]


def _read(root: Path, language: str, sizes: dict[str, int]) -> Sentences:
    """Sentences per split, item-major: entry 5 i + k is description k + 1 of item i."""
    result = {}
    for split, file in FILE_OF_SPLIT.items():
        columns = []
        for k in range(1, DESCRIPTIONS + 1):
            path = root / f"task2/{file}.{k}.{language}.gz"
            columns.append(read_lines(path))
            if len(columns[-1]) != sizes[split]:
                raise DataError(
                    f"{path}: {len(columns[-1])} lines for {sizes[split]} images; get the text and image_splits of one commit"
                )
        result[split] = [sentence for item in zip(*columns, strict=True) for sentence in item]
    return result


def _depends_on(read: dict[str, str], recipe: TextRecipe) -> dict[str, object]:
    return {"inputs": sorted(read.values()), "version": 1, **recipe.depends_on()}


def _vectors(language: str, text: Sentences, recipe: TextRecipe, read: dict[str, str]) -> dict[str, np.ndarray]:
    def compute() -> dict[str, np.ndarray]:
        try:
            return {split: unit_rows(table) for split, table in sentence_vectors(recipe, text).items()}
        except (ValueError, MemoryError) as error:
            raise DataError(
                f"multi30k: no features of {recipe.dim} dimensions ({error}); choose a smaller dim"
            ) from error

    return cached(f"multi30k-{language}", _depends_on(read, recipe), SPLITS, compute)


def _digest_of(arrays: dict[str, np.ndarray], name: str) -> dict[str, str]:
    total = hashlib.sha256()
    for split in SPLITS:
        total.update(arrays[split].astype("<f4").tobytes())
    return {name: total.hexdigest()}


def _training_items(first: int | None, available: int) -> int:
    if first is None:
        return available
    if isinstance(first, bool) or not isinstance(first, int) or not 2 <= first <= available:
        raise DataError(
            f"multi30k: first={first!r} training items; choose an integer from 2 to {available:,}, or leave it out"
        )
    return first
