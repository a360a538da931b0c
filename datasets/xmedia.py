"""``xmedia``: 5,000 image-text pairs of 20 classes (Zhai et al. 2014), in the features that RSHNL and NIRNL use."""

from __future__ import annotations

from pathlib import Path

from .files import digests, require
from .label_files import halves, listing, n_rows, read_part, single_label_splits
from .registry import register_dataset
from .types import DataError, PairDataset

FILE = "xmedia/XMediaFeatures.mat"
REMARK = "XMedia (Zhai et al. 2014), CNN features and bags of words; research use"
REMEDY = "ask the authors of XMedia or of github.com/perquisite/RSHNL for XMediaFeatures.mat and put it there"
N_VAL = 500


def preview(data_root: Path) -> str:
    """Sizes, from the header of the file."""
    [path] = require(data_root, "xmedia", [FILE], REMEDY)
    n_test = n_rows(path, "I_te_CNN") - N_VAL
    return listing(REMARK, {"train": n_rows(path, "I_tr_CNN"), "val": N_VAL, "test": n_test})


@register_dataset(preview=preview)
def load(data_root: Path, phantom_class: bool = False) -> PairDataset:
    """4096-d CNN images and 3000-d bags of words, as stored; 4,000 / 500 / 500 items, labels 0 to 19.

    ``XMediaFeatures.mat`` holds ``I_tr_CNN, T_tr_BOW, trImgCat`` and the same with ``te``; classes are 1 to 20 there. Validation = the
    first 500 test rows, as in RSHNL (others take the last ones).

    Args:
        data_root: holds ``xmedia/XMediaFeatures.mat``.
        phantom_class: leave the classes at 1 to 20, so that there are 21 and class 0 is empty, as in the released code of RSHNL.
    """
    if not isinstance(phantom_class, bool):
        raise DataError(f"xmedia: phantom_class={phantom_class!r} is unknown; choose true or false")
    [path] = require(data_root, "xmedia", [FILE], REMEDY)
    train = read_part(path, "I_tr_CNN", "T_tr_BOW", "trImgCat")
    val, test = halves(read_part(path, "I_te_CNN", "T_te_BOW", "teImgCat"), N_VAL, "xmedia")
    splits = single_label_splits("xmedia", {"train": train, "val": val, "test": test}, int(phantom_class))
    largest = max(int(split.labels.max()) for split in splits.values() if split.labels is not None)
    n_classes = largest + 1 if phantom_class else None
    return PairDataset("xmedia", splits, n_classes=n_classes, digests=digests([path], data_root), remark=REMARK)
