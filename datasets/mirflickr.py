"""``mirflickr``: 20,015 pictures of MIRFlickr-25K with tags and 24 labels, in the features that UCCH, NRCH and MGSH use."""

from __future__ import annotations

from pathlib import Path

from .files import digests, require
from .label_files import first_rows, last_rows, listing, n_rows, read_three, with_database
from .registry import register_dataset
from .types import DataError, PairDataset

FILES = [f"mirflickr/mirflickr25k-{name}.mat" for name in ("iall-vgg", "yall", "lall")]
REMARK = "MIRFlickr-25K (Huiskes and Lew 2008), VGG-19 features and bags of tags; research use"
REMEDY = "ask the authors of github.com/penghu-cs/UCCH or github.com/LonganWANG-cs/NRCH for the three files and put them there"
N_QUERIES, N_TRAIN, N_VAL = 2000, 10_000, 500


def preview(data_root: Path) -> str:
    """Sizes of the default split, from the header of one file."""
    images, *_ = require(data_root, "mirflickr", FILES, REMEDY)
    rows = first_rows(n_rows(images, "XAll"), N_QUERIES, N_TRAIN, N_VAL, "mirflickr")
    return listing(REMARK, {part: len(chosen) for part, chosen in rows.items()})


@register_dataset(preview=preview)
def load(data_root: Path, split: str = "first-rows") -> PairDataset:
    """4096-d VGG-19 images and 1386-d bags of tags, as stored, 24 labels; the files hold ``XAll``, ``YAll`` and ``LAll``.

    Args:
        data_root: holds ``mirflickr/mirflickr25k-{iall-vgg,yall,lall}.mat``.
        split: ``first-rows`` (NRCH): the first 2,000 rows are queries, the next 10,000 training items, all but the queries the database;
            ``last-rows`` (UCCH): the last 2,000 are queries, all others training items and database. Scores on the two cannot be compared.
            500 of the training items are for validation and stay in the database.
    """
    if split not in ("first-rows", "last-rows"):
        raise DataError(f"mirflickr: split={split!r} is unknown; choose first-rows or last-rows")
    paths = require(data_root, "mirflickr", FILES, REMEDY)
    part = read_three(paths)
    n = len(part.images)
    if split == "first-rows":
        rows = first_rows(n, N_QUERIES, N_TRAIN, N_VAL, "mirflickr")
    else:
        rows = last_rows(n, N_QUERIES, N_VAL, "mirflickr")
    return with_database(part, rows, "mirflickr", digests=digests(paths, data_root), remark=REMARK)
