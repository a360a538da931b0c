"""``digits``: the embedded default, scikit-learn's 1,797 handwritten digits as a real two-view set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from .features import standardised
from .registry import register_dataset
from .types import DataError, PairDataset, PairSplit, SplitName


@register_dataset
def load(data_root: Path, halves: Literal["left-right", "top-bottom"] = "left-right") -> PairDataset:
    """One half of each 8x8 picture is the "image", the other its "caption" (32 values each, standardised with training statistics).

    Split (fixed): ``p = RandomState(0).permutation(1797)``; test = p[:400], validation = p[400:600], training = p[600:].
    """
    from sklearn.datasets import load_digits

    if halves not in ("left-right", "top-bottom"):
        raise DataError(f"digits: halves={halves!r} is unknown; choose left-right or top-bottom")
    bundle = load_digits()
    pictures = bundle.images.astype(np.float32)
    if halves == "top-bottom":
        pictures = pictures.transpose(0, 2, 1)
    order = np.random.RandomState(0).permutation(len(pictures))
    rows: dict[SplitName, np.ndarray] = {"train": order[600:], "val": order[400:600], "test": order[:400]}
    first, second = (
        standardised(view.reshape(len(view), -1), rows["train"]) for view in (pictures[:, :, :4], pictures[:, :, 4:])
    )
    splits = {
        name: PairSplit(
            first[index],
            second[index],
            np.arange(len(index)),
            bundle.target[index].astype(np.int64),
            tuple(map(str, index)),
        )
        for name, index in rows.items()
    }
    digest = hashlib.sha256(bundle.images.astype("<f8").tobytes()).hexdigest()
    remark = f"handwritten digits (UCI optdigits in scikit-learn, BSD), {halves} halves"
    return PairDataset("digits", splits, digests={"sklearn/digits": digest}, remark=remark)
