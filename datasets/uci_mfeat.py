"""``uci_mfeat``: 2,000 handwritten digits seen twice, by Fourier and by Karhunen-Loeve coefficients."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .features import check_arrays, hold_out, one_to_one, standardised
from .files import digests, read_npz, require
from .label_files import stacked
from .registry import register_dataset
from .types import DataError, PairDataset

FILE = "uci_mfeat/uci_mfeat.npz"
REMEDY = "copy the file of the suite's data collection there, or name the folder above uci_mfeat with --data-root"
N_VAL = 200


@register_dataset
def load(data_root: Path) -> PairDataset:
    """ "Image" = 76 Fourier, "caption" = 64 Karhunen-Loeve coefficients of a digit, 1 to 1, standardised with training statistics.

    1,300 / 200 / 500 items, labels 0 to 9. The set has no validation split: 200 of its 1,500 training items are held out
    (:func:`hold_out`), which also mixes the classes that the file lists one after the other. Fourier coefficients cannot tell 6 from 9.
    """
    paths = require(data_root, "uci_mfeat", [FILE], REMEDY)
    arrays = read_npz(paths[0], [f"{view}_{part}" for view in ("fou", "kar", "label") for part in ("train", "test")])
    where = str(paths[0])
    check_arrays(arrays, {name: 1 if name.startswith("label") else 2 for name in arrays}, where)
    images, captions, labels = (
        stacked([arrays[f"{view}_train"], arrays[f"{view}_test"]], where) for view in ("fou", "kar", "label")
    )
    n = len(arrays["fou_train"])
    if not len(images) == len(captions) == len(labels) or n <= N_VAL:
        raise DataError(
            f"{where}: {len(images)} Fourier rows, {len(captions)} Karhunen-Loeve rows and {len(labels)} labels, {n} of them for training; "
            "get the file again"
        )
    train, val = hold_out(n, N_VAL)
    splits = one_to_one(
        standardised(images, train),
        standardised(captions, train),
        {"train": train, "val": val, "test": np.arange(n, len(images))},
        [str(row) for row in range(len(images))],
        labels,
    )
    remark = "UCI Multiple Features (van Breukelen et al. 1998), Fourier and Karhunen-Loeve views; CC BY 4.0"
    return PairDataset("uci_mfeat", splits, digests=digests(paths, data_root), remark=remark)
