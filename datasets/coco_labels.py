"""``coco-labels``: 122,218 pictures of MS-COCO with one text vector and 80 labels each, in the features that NRCH uses."""

from __future__ import annotations

from pathlib import Path

from .files import digests, require
from .label_files import Part, first_of, first_rows, joined, listing, n_rows, read_part, with_database
from .registry import register_dataset
from .types import PairDataset

FILE = "coco-labels/MSCOCO_deep_doc2vec_data.h5py"
REMARK = "MS-COCO (Lin et al. 2014), VGG-19 and Doc2Vec; research use"
REMEDY = (
    "ask the authors of github.com/LonganWANG-cs/NRCH or github.com/penghu-cs/UCCH for MSCOCO_deep_doc2vec_data.h5py "
    "and put it there"
)
N_QUERIES, N_TRAIN, N_VAL = 5000, 10_000, 1000


def preview(data_root: Path) -> str:
    """Sizes, from the header of the file."""
    [path] = require(data_root, "coco-labels", [FILE], REMEDY)
    n = n_rows(path, "train_imgs_deep") + n_rows(path, "test_imgs_deep")
    rows = first_rows(n, N_QUERIES, N_TRAIN, N_VAL, "coco-labels")
    return listing(REMARK, {part: len(chosen) for part, chosen in rows.items()})


@register_dataset(name="coco-labels", preview=preview)
def load(data_root: Path) -> PairDataset:
    """4096-d VGG-19 images and 300-d Doc2Vec texts, as stored, 80 labels; 9,000 / 1,000 / 5,000 items and a database of 117,218.

    ``MSCOCO_deep_doc2vec_data.h5py`` holds ``train_imgs_deep, train_text`` (or ``train_texts``), ``train_imgs_labels`` and the same with
    ``test``. NRCH's split of their rows, training rows first: the first 5,000 are queries, the next 10,000 training items, all but the
    queries the database. 1,000 of the training items are for validation and stay in the database.
    """
    [path] = require(data_root, "coco-labels", [FILE], REMEDY)
    part = joined([_read(path, "train"), _read(path, "test")], str(path))
    rows = first_rows(len(part.images), N_QUERIES, N_TRAIN, N_VAL, "coco-labels")
    return with_database(part, rows, "coco-labels", digests=digests([path], data_root), remark=REMARK)


def _read(path: Path, half: str) -> Part:
    texts = first_of(path, [f"{half}_text", f"{half}_texts"])
    return read_part(path, f"{half}_imgs_deep", texts, f"{half}_imgs_labels")
