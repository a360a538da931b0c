"""``nuswide``: pictures of NUS-WIDE with tags and their 21 or 10 most frequent labels, in the features that NRCH and UCCH use."""

from __future__ import annotations

from pathlib import Path

from .files import digests, require
from .label_files import first_rows, last_rows, listing, n_rows, read_three, with_database
from .registry import register_dataset
from .types import DataError, PairDataset

FILES = {
    21: [f"nuswide/nus-wide-tc21-{name}-clean.mat" for name in ("xall-vgg", "yall", "lall")],
    10: [f"nuswide/nus-wide-tc10-{name}.mat" for name in ("xall-vgg", "yall", "lall")],
}
REMARK = "NUS-WIDE (Chua et al. 2009), VGG-19 features and bags of tags; research use"
REMEDY = "ask the authors of github.com/LonganWANG-cs/NRCH (21 classes) or github.com/penghu-cs/UCCH (10) for the files and put them there"
N_QUERIES, N_TRAIN, N_VAL = 2100, 10_500, 500


def preview(data_root: Path) -> str:
    """Sizes with 21 classes, from the header of one file."""
    images, *_ = require(data_root, "nuswide", FILES[21], REMEDY)
    rows = first_rows(n_rows(images, "XAll"), N_QUERIES, N_TRAIN, N_VAL, "nuswide")
    return listing(REMARK, {part: len(chosen) for part, chosen in rows.items()})


@register_dataset(preview=preview)
def load(data_root: Path, classes: int = 21) -> PairDataset:
    """4096-d VGG-19 images and 1000-d bags of tags, as stored; the files hold ``XAll``, ``YAll`` and ``LAll``.

    Args:
        data_root: holds ``nuswide/nus-wide-tc21-{xall-vgg,yall,lall}-clean.mat`` or ``nuswide/nus-wide-tc10-{xall-vgg,yall,lall}.mat``.
        classes: 21, with NRCH's split: the first 2,100 rows are queries, the next 10,500 training items, all but the queries the database;
            or 10, with UCCH's: the last 2,100 of 186,557 are queries, all others training items and database. Scores on the two cannot be
            compared. 500 of the training items are for validation and stay in the database.
    """
    if classes not in (21, 10):
        raise DataError(f"nuswide: classes={classes!r} is unknown; choose 21 or 10")
    paths = require(data_root, "nuswide", FILES[classes], REMEDY)
    part = read_three(paths)
    n = len(part.images)
    if classes == 21:
        rows = first_rows(n, N_QUERIES, N_TRAIN, N_VAL, "nuswide")
    else:
        rows = last_rows(n, N_QUERIES, N_VAL, "nuswide")
    return with_database(part, rows, "nuswide", digests=digests(paths, data_root), remark=REMARK)
