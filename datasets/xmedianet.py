"""``xmedianet``: 40,000 image-text pairs of 200 classes (Peng et al. 2018), in the features that RSHNL and MRL use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .features import SPLITS
from .files import digests, require
from .label_files import Part, checked, column, single_label_splits
from .matrices import read_cells, shapes
from .registry import register_dataset
from .types import DataError, PairDataset

FILE = "xmedianet/XMediaNet5View_Doc2Vec.mat"
REMARK = "XMediaNet (Peng et al. 2018), VGG-19 and Doc2Vec; research use"
REMEDY = (
    "ask the authors of XMediaNet or of github.com/perquisite/RSHNL for XMediaNet5View_Doc2Vec.mat and put it there"
)
CELLS = {"train": "train", "val": "valid", "test": "test"}


def preview(data_root: Path) -> str:
    """Whether the cell arrays are there; their sizes would take reading them."""
    [path] = require(data_root, "xmedianet", [FILE], REMEDY)
    found = shapes(path)
    for name in CELLS.values():
        if name not in found or f"{name}_labels" not in found:
            raise DataError(f"{path}: no cell arrays {name!r} and '{name}_labels'; get the file again")
    return f"{REMARK} ({path.stat().st_size / 1e6:,.0f} MB, read as a whole)"


@register_dataset(preview=preview)
def load(data_root: Path) -> PairDataset:
    """4096-d VGG-19 images and 300-d Doc2Vec texts, as stored; 32,000 / 4,000 / 4,000 items, labels 0 to 199.

    ``XMediaNet5View_Doc2Vec.mat`` holds cell arrays ``train, valid, test`` of features (first cell image, second text, then audio, 3-D and
    video, which are not used) and ``train_labels, valid_labels, test_labels``.
    """
    [path] = require(data_root, "xmedianet", [FILE], REMEDY)
    parts = {}
    for split in SPLITS:
        images, texts = read_cells(path, CELLS[split], 2, np.float32)
        [labels] = read_cells(path, f"{CELLS[split]}_labels", 1)
        parts[split] = checked(Part(images, texts, column(labels)), f"{path}: {CELLS[split]}")
    return PairDataset(
        "xmedianet", single_label_splits("xmedianet", parts), digests=digests([path], data_root), remark=REMARK
    )
