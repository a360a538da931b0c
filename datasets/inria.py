"""``inria``: 14,698 image-text pairs of 100 classes from the web (Krapac et al. 2010), in the features that RSHNL, MRL and NIRNL use."""

from __future__ import annotations

from pathlib import Path

from .features import SPLITS
from .files import digests, require
from .label_files import listing, n_rows, read_part, single_label_splits
from .registry import register_dataset
from .types import PairDataset

FILE = "inria/INRIA-Websearch.mat"
REMARK = "INRIA-Websearch (Krapac et al. 2010), CNN features and topic proportions; research use"
REMEDY = "ask the authors of github.com/perquisite/RSHNL or github.com/penghu-cs/MRL for INRIA-Websearch.mat and put it there"
PREFIX = {"train": "tr", "val": "val", "test": "te"}


def preview(data_root: Path) -> str:
    """Sizes, from the header of the file."""
    [path] = require(data_root, "inria", [FILE], REMEDY)
    return listing(REMARK, {split: n_rows(path, f"{prefix}_img") for split, prefix in PREFIX.items()})


@register_dataset(preview=preview)
def load(data_root: Path) -> PairDataset:
    """4096-d CNN images and 1000-d topic proportions, as stored; 9,000 / 1,332 / 4,366 items, labels 0 to 99.

    ``INRIA-Websearch.mat`` holds ``tr_img, tr_txt, tr_img_lab`` and the same with ``val`` and ``te``.
    """
    [path] = require(data_root, "inria", [FILE], REMEDY)
    parts = {
        split: read_part(path, f"{PREFIX[split]}_img", f"{PREFIX[split]}_txt", f"{PREFIX[split]}_img_lab")
        for split in SPLITS
    }
    return PairDataset("inria", single_label_splits("inria", parts), digests=digests([path], data_root), remark=REMARK)
