"""``digits``: the embedded default, scikit-learn's 1,797 handwritten digits as a real two-view set."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np

from .features import standardised
from .registry import register_dataset
from .types import DataError, PairDataset, PairSplit, SplitName

REMARK = "handwritten digits (UCI optdigits in scikit-learn, BSD), {} halves"
COUNT, N_TEST, N_VAL = 1797, 400, 200


def preview(data_root: Path) -> str:
    """Sizes, without loading anything."""
    if importlib.util.find_spec("sklearn") is None:
        raise DataError("digits: scikit-learn, which has the pictures, is not installed; install it")
    sizes = {"train": COUNT - N_TEST - N_VAL, "val": N_VAL, "test": N_TEST}
    told = ", ".join(f"{split} {size:,} x {size:,}" for split, size in sizes.items())
    return f"{REMARK.format('left-right')} ({told})"


@register_dataset(preview=preview)
def load(data_root: Path, halves: Literal["left-right", "top-bottom"] = "left-right") -> PairDataset:
    """One half of each 8x8 picture is the "image", the other its "caption" (32 values each, standardised with training statistics).

    Split (fixed): ``p = RandomState(0).permutation(1797)``; test = p[:400], validation = p[400:600], training = p[600:].
    """
    if halves not in ("left-right", "top-bottom"):
        raise DataError(f"digits: halves={halves!r} is unknown; choose left-right or top-bottom")
    original, target = _digits()
    pictures = original.astype(np.float32)
    if halves == "top-bottom":
        pictures = pictures.transpose(0, 2, 1)
    order = np.random.RandomState(0).permutation(len(pictures))
    rows: dict[SplitName, np.ndarray] = {
        "train": order[N_TEST + N_VAL :],
        "val": order[N_TEST : N_TEST + N_VAL],
        "test": order[:N_TEST],
    }
    first, second = (
        standardised(view.reshape(len(view), -1), rows["train"]) for view in (pictures[:, :, :4], pictures[:, :, 4:])
    )
    splits = {
        name: PairSplit(
            first[index],
            second[index],
            np.arange(len(index)),
            target[index].astype(np.int64),
            tuple(map(str, index)),
        )
        for name, index in rows.items()
    }
    digest = hashlib.sha256(original.astype("<f8").tobytes()).hexdigest()
    return PairDataset("digits", splits, digests={"sklearn/digits": digest}, remark=REMARK.format(halves))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Pictures float64 ``[1797, 8, 8]`` and digits ``[1797]``."""
    # Out of scikit-learn's own file, because importing the library takes every process seconds.
    found = importlib.util.find_spec("sklearn")
    for folder in (found.submodule_search_locations or ()) if found else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return bundle.images, bundle.target
