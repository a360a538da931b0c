"""``emoji``: 1,644 pictures (Noto emoji) with three English texts each: name, CLDR keywords, emojilib keywords."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .features import SPLITS, check_arrays, check_rows
from .files import digests, read_columns, read_lines, read_npz, require
from .registry import register_dataset
from .types import DataError, PairDataset, PairSplit

FILES = ("emoji/emoji.npz", "emoji/items.tsv", "emoji/captions_en.txt")
REMEDY = "copy the files of the suite's data collection there, or name the folder above emoji with --data-root"
CAPTIONS = 3


@register_dataset
def load(data_root: Path) -> PairDataset:
    """Ready-made features, all statistics from the training split; 1,200 / 144 / 300 pictures, 3 captions each, 256 dimensions.

    Image: histogram of gradients (576), square root of an HSV histogram (192) and a 12x12 thumbnail (432) of the 72x72 picture, each over
    the square root of its variance, reduced by PCA. Caption: TF-IDF of words and character n-grams, reduced by SVD. Labels: the 9 groups of
    Unicode's emoji list; image ids: code points. Three test pictures (families without genders) equal training pictures of another name.
    """
    paths = require(data_root, "emoji", FILES, REMEDY)
    arrays = read_npz(paths[0], ["img_feat", "txt_feat", "group", *SPLITS])
    check_arrays(arrays, {"img_feat": 2, "txt_feat": 3, "group": 1}, str(paths[0]))
    items = read_columns(paths[1], ["codepoints"])
    texts = read_lines(paths[2])
    n = len(arrays["img_feat"])
    of_pictures = arrays["txt_feat"].shape[:2] == (n, CAPTIONS) and len(arrays["group"]) == n
    if not of_pictures or len(items) != n or len(texts) != CAPTIONS * n:
        raise DataError(
            f"emoji: {n} pictures in emoji.npz, {len(items)} in items.tsv, {len(texts)} lines in captions_en.txt; "
            f"get the three files of one version, with {CAPTIONS} lines per picture"
        )
    splits = {}
    for split, rows in check_rows(arrays, n, str(paths[0])).items():
        splits[split] = PairSplit(
            arrays["img_feat"][rows].astype(np.float32),
            arrays["txt_feat"][rows].reshape(len(rows) * CAPTIONS, -1).astype(np.float32),
            np.repeat(np.arange(len(rows)), CAPTIONS),
            arrays["group"][rows],
            tuple(items[row]["codepoints"] for row in rows),
            tuple(texts[CAPTIONS * row + k] for row in rows for k in range(CAPTIONS)),
        )
    remark = "Noto emoji pictures (OFL/Apache 2.0) with CLDR and emojilib texts (Unicode v3, MIT)"
    return PairDataset("emoji", splits, digests=digests(paths, data_root), remark=remark)
