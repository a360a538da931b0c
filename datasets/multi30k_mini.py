"""``multi30k-mini``: 1,700 items of Multi30K as ready-made features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .features import SPLITS
from .files import digests, read_npz, require
from .registry import register_dataset
from .text import item_vectors, unit_rows
from .types import PairDataset, PairSplit

FILE = "multi30k/multi30k_mini.npz"
REMEDY = "copy the file of the suite's data collection there, or name the folder above multi30k with --data-root"


@register_dataset(name="multi30k-mini")
def load(data_root: Path) -> PairDataset:
    """German items and English captions as in ``multi30k`` (see there): 1,000 / 200 / 500 items, 5 captions each, 128 dimensions.

    ``multi30k_mini.npz`` holds the first 128 of 256 components of unit sentence vectors, ``{train,val,test}_{de,en} [n, 5, 128]`` float16,
    and ``*_rows [n]``, the lines of the full splits.
    """
    paths = require(data_root, "multi30k-mini", [FILE], REMEDY)
    arrays = read_npz(paths[0], [f"{split}_{part}" for split in SPLITS for part in ("de", "en", "rows")])
    images = item_vectors({split: unit_rows(arrays[f"{split}_de"]) for split in SPLITS})
    splits = {}
    for split in SPLITS:
        captions = unit_rows(arrays[f"{split}_en"])
        n, per_item, dim = captions.shape
        splits[split] = PairSplit(
            images[split],
            captions.reshape(-1, dim),
            np.repeat(np.arange(n), per_item),
            image_ids=tuple(f"{split}-{row}" for row in arrays[f"{split}_rows"]),
        )
    remark = "part of Multi30K task 2 (Elliott et al. 2016), TF-IDF features; non-commercial research"
    return PairDataset("multi30k-mini", splits, digests=digests(paths, data_root), remark=remark)
