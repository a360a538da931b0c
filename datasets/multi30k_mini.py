"""``multi30k-mini``: 1,700 items of Multi30K as ready-made features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .features import SPLITS, check_arrays
from .files import digests, read_npz, require
from .multi30k import check_texts, concept_labels
from .registry import register_dataset
from .text import item_vectors, unit_rows
from .types import DataError, PairDataset, PairSplit

FILE = "multi30k/multi30k_mini.npz"
REMEDY = "copy the file of the suite's data collection there, or name the folder above multi30k with --data-root"


@register_dataset(name="multi30k-mini")
def load(data_root: Path, texts: str = "captions") -> PairDataset:
    """German items and English captions as in ``multi30k`` (see there): 1,000 / 200 / 500 items, 5 captions each, 128 dimensions.

    ``multi30k_mini.npz`` holds the first 128 of 256 components of unit sentence vectors, ``{train,val,test}_{de,en} [n, 5, 128]`` float16,
    and ``*_rows [n]``, the lines of the full splits.

    Args:
        data_root: holds ``multi30k/multi30k_mini.npz``.
        texts: ``captions``; or ``item``: one text per item, see ``multi30k``, with labels of ``multi30k/concept_labels.npz``, if present.
    """
    check_texts("multi30k-mini", texts)
    paths = require(data_root, "multi30k-mini", [FILE], REMEDY)
    arrays = read_npz(paths[0], [f"{split}_{part}" for split in SPLITS for part in ("de", "en", "rows")])
    check_arrays(arrays, {name: 1 if name.endswith("_rows") else 3 for name in arrays}, str(paths[0]))
    for split in SPLITS:
        german, captions = (arrays[f"{split}_{part}"].shape[:2] for part in ("de", "en"))
        if german != captions or 0 in german or german[0] != len(arrays[f"{split}_rows"]):
            raise DataError(f"{paths[0]}: no {split} items, or others in one language and in rows; get the file again")
    images = item_vectors({split: unit_rows(arrays[f"{split}_de"]) for split in SPLITS})
    english: dict[str, np.ndarray] = {split: unit_rows(arrays[f"{split}_en"]) for split in SPLITS}
    ids = {split: tuple(f"{split}-{row}" for row in arrays[f"{split}_rows"]) for split in SPLITS}
    splits = {}
    if texts == "captions":
        for split in SPLITS:
            n, per_item, dim = english[split].shape
            owner = np.repeat(np.arange(n), per_item)
            splits[split] = PairSplit(
                images[split], english[split].reshape(n * per_item, dim), owner, image_ids=ids[split]
            )
    else:
        labels, labels_path = concept_labels(data_root / "multi30k")
        paths += labels_path
        items = item_vectors(english)
        for split in SPLITS:
            own = None if labels is None else _labels_of(labels[split], arrays[f"{split}_rows"], split)
            splits[split] = PairSplit(images[split], items[split], np.arange(len(items[split])), own, ids[split])
    remark = "part of Multi30K task 2 (Elliott et al. 2016), TF-IDF features; non-commercial research"
    return PairDataset("multi30k-mini", splits, digests=digests(paths, data_root), remark=remark)


def _labels_of(labels: np.ndarray, rows: np.ndarray, split: str) -> np.ndarray:
    if rows.min(initial=0) < 0 or rows.max(initial=0) >= len(labels):
        raise DataError(
            f"multi30k-mini {split}: rows up to {rows.max()}, but concept_labels.npz has {len(labels)}; get both files of one version"
        )
    return labels[rows]
