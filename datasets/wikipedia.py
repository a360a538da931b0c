"""``wikipedia``: 2,866 sections of Wikipedia articles with a picture, 10 topics (Rasiwasia et al. 2010), as the authors released them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .features import hold_out, one_to_one, standardised
from .files import digests, read_lines, read_mat, require
from .registry import register_dataset
from .types import DataError, PairDataset

FOLDER = "wikipedia"
FILES = ("raw_features.mat", "trainset_txt_img_cat.list", "testset_txt_img_cat.list")
REMEDY = (
    "take raw_features.mat and the two lists from Supervised-cross-modal-real-valued/JFSSL/wikipedia_info of "
    "github.com/BMC-SDNU/Cross-Modal-Retrieval"
)
N_VAL = 200


@register_dataset
def load(data_root: Path) -> PairDataset:
    """128-d bags of visual words and 10-d topic proportions, 1 to 1, standardised; 1,973 / 200 / 693 items, labels 0 to 9.

    ``raw_features.mat`` holds ``I_tr, T_tr, I_te, T_te``; class and name of row i stand in line i of the lists. 200 of the 2,173 training
    items are held out for validation (:func:`hold_out`). Ten numbers per text can hardly tell pairs apart: recall is near chance. Three
    pictures stand in the training and the test part, in different articles; items are named after the text, which is unique.
    """
    paths = require(data_root / FOLDER, "wikipedia", FILES, REMEDY)
    arrays = read_mat(paths[0], ["I_tr", "T_tr", "I_te", "T_te"])
    lines = [line.split("\t") for path in paths[1:] for line in read_lines(path)]
    n_train, n = len(arrays["I_tr"]), len(arrays["I_tr"]) + len(arrays["I_te"])
    if len(lines) != n or any(len(line) != 3 or not line[2].isdecimal() for line in lines):
        raise DataError(
            f"wikipedia: the lists have {len(lines)} lines for {n} rows of raw_features.mat, or not 3 columns; get them again"
        )
    train, val = hold_out(n_train, N_VAL)
    splits = one_to_one(
        standardised(np.concatenate([arrays["I_tr"], arrays["I_te"]]), train),
        standardised(np.concatenate([arrays["T_tr"], arrays["T_te"]]), train),
        {"train": train, "val": val, "test": np.arange(n_train, n)},
        [line[0] for line in lines],
        np.array([int(line[2]) - 1 for line in lines]),
    )
    remark = "Wikipedia (Rasiwasia et al. 2010), SIFT words and LDA topics; no licence stated, cite the authors"
    return PairDataset("wikipedia", splits, digests=digests(paths, data_root), remark=remark)
