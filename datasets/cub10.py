"""``cub10``: 600 bird pictures of 10 species as GoogLeNet features, with doc2vec features of their descriptions."""

from __future__ import annotations

from pathlib import Path

from .features import SPLITS, check_arrays, check_rows, one_to_one, standardised
from .files import digests, read_npz, require
from .registry import register_dataset
from .types import PairDataset

FILE = "cub10/cub10.npz"
REMEDY = "copy the file of the suite's data collection there, or name the folder above cub10 with --data-root"


@register_dataset
def load(data_root: Path) -> PairDataset:
    """1024-d images and 300-d captions, 1 to 1, standardised with training statistics; 350 / 50 / 200 items, labels 0 to 9.

    The split is that of the file (``RandomState(0).permutation(600)``: first 200 test, next 50 validation).
    """
    paths = require(data_root, "cub10", [FILE], REMEDY)
    arrays = read_npz(paths[0], ["img", "txt", "label", *SPLITS])
    where = str(paths[0])
    check_arrays(arrays, {"img": 2, "txt": 2, "label": 1}, where)
    n = min(len(arrays[name]) for name in ("img", "txt", "label"))
    rows = check_rows(arrays, n, where)
    splits = one_to_one(
        standardised(arrays["img"], rows["train"]),
        standardised(arrays["txt"], rows["train"]),
        rows,
        [str(row) for row in range(n)],
        arrays["label"],
    )
    remark = "first 10 classes of CUB-200-2011 (Wah et al. 2011), GoogLeNet and doc2vec; research use"
    return PairDataset("cub10", splits, digests=digests(paths, data_root), remark=remark)
