"""``wikipedia``: 2,866 sections of Wikipedia articles with a picture, 10 topics (Rasiwasia et al. 2010), as the authors released them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .features import hold_out, one_to_one, standardised
from .files import digests, read_lines, read_mat, read_npz, require
from .label_files import (
    Part,
    checked,
    class_numbers,
    column,
    counted_from,
    first_of,
    halves,
    joined,
    read_part,
    single_label_splits,
)
from .matrices import shapes
from .registry import register_dataset
from .types import DataError, PairDataset, SplitName

FOLDER = "wikipedia"
CLASSES = frozenset(map(str, range(1, 11)))
FILES = ("raw_features.mat", "trainset_txt_img_cat.list", "testset_txt_img_cat.list")
MATLAB, NUMPY = "wikiData.mat", "wiki.npz"
DEEP = ("wiki.mat", "wiki_deep_doc2vec_data_corr_ae.h5py")
REMEDY = (
    "take raw_features.mat and the two lists from Supervised-cross-modal-real-valued/JFSSL/wikipedia_info of "
    "github.com/BMC-SDNU/Cross-Modal-Retrieval"
)
DEEP_REMEDY = (
    "ask the authors of github.com/perquisite/RSHNL for it, or those of github.com/penghu-cs/MRL for "
    "wiki_deep_doc2vec_data_corr_ae.h5py, and put it there"
)
N_VAL, N_VAL_DEEP = 200, 231
REMARK = "Wikipedia (Rasiwasia et al. 2010), SIFT words and LDA topics; no licence stated, cite the authors"
DEEP_REMARK = "Wikipedia (Rasiwasia et al. 2010), VGG-19 and Doc2Vec; no licence stated, cite the authors"


class Released(NamedTuple):
    """The original features with classes from 0, as one of the layouts holds them, and the files that were read."""

    train: Part
    test: Part
    ids: list[str]
    paths: list[Path]


@register_dataset
def load(data_root: Path, features: str = "original") -> PairDataset:
    """The original features, or the deep ones of papers on noisy labels; labels 0 to 9.

    ``original``: 128-d bags of visual words and 10-d topic proportions, 1 to 1, standardised; 1,973 / 200 / 693 items. The same arrays come
    out of three layouts, the first of which that is complete is read: ``raw_features.mat`` with ``I_tr, T_tr, I_te, T_te`` and two lists
    with text and class of each row; ``wikiData.mat`` with ``L_tr, L_te`` beside the same matrices (its ``sampleInds``, a choice of rows for
    kernels, has no meaning here); ``wiki.npz``. 200 of the 2,173 training items are held out for validation (:func:`hold_out`). Ten numbers
    per text can hardly tell pairs apart: recall is near chance. Three pictures stand in the training and the test part, in different
    articles; with the lists items are named after the text, which is unique, otherwise after their row.

    ``deep``: 4096-d VGG-19 images and 300-d Doc2Vec texts, as stored; 2,173 / 231 / 462 items. ``wiki.mat`` (RSHNL, NIRNL) or
    ``wiki_deep_doc2vec_data_corr_ae.h5py`` (MRL) hold ``{train,test}_{imgs_deep,imgs_labels}`` and the texts as ``texts_doc``, ``text`` or
    ``texts``; without ``valid_...`` the first 231 test rows are for validation.

    Raises:
        DataError: no layout is complete, or one is damaged.
    """
    if features not in ("original", "deep"):
        raise DataError(f"wikipedia: features={features!r} are unknown; choose original or deep")
    return _deep(data_root) if features == "deep" else _original(data_root)


def _original(data_root: Path) -> PairDataset:
    found = _released(data_root)
    where = str(found.paths[0])
    part = joined([checked(found.train, where), checked(found.test, where)], where)
    n_train, n = len(found.train.images), len(part.images)
    train, val = hold_out(n_train, N_VAL)
    splits = one_to_one(
        standardised(part.images, train),
        standardised(part.texts, train),
        {"train": train, "val": val, "test": np.arange(n_train, n)},
        found.ids,
        part.labels,
    )
    return PairDataset("wikipedia", splits, digests=digests(found.paths, data_root), remark=REMARK)


def _released(data_root: Path) -> Released:
    folder = data_root / FOLDER
    if not all((folder / file).is_file() for file in FILES):
        if (folder / MATLAB).is_file():
            return _matlab(*_own(data_root, [MATLAB]))
        if (folder / NUMPY).is_file():
            return _numpy(*_own(data_root, [NUMPY]))
    paths = _own(data_root, FILES)
    arrays = read_mat(paths[0], ["I_tr", "T_tr", "I_te", "T_te"])
    lines = [line.split("\t") for path in paths[1:] for line in read_lines(path)]
    n_train, n = len(arrays["I_tr"]), len(arrays["I_tr"]) + len(arrays["I_te"])
    if len(lines) != n or any(len(line) != 3 or line[2] not in CLASSES for line in lines):
        raise DataError(
            f"wikipedia: the lists have {len(lines)} lines for {n} rows of raw_features.mat, or not 3 columns with a class; get them again"
        )
    classes = np.array([int(line[2]) - 1 for line in lines])
    train = Part(arrays["I_tr"], arrays["T_tr"], classes[:n_train])
    return Released(train, Part(arrays["I_te"], arrays["T_te"], classes[n_train:]), [line[0] for line in lines], paths)


def _matlab(path: Path) -> Released:
    arrays = read_mat(path, ["I_tr", "T_tr", "L_tr", "I_te", "T_te", "L_te"])
    train, test = (Part(*(arrays[f"{table}_{half}"] for table in "ITL")) for half in ("tr", "te"))
    return _numbered(train, test, path)


def _numpy(path: Path) -> Released:
    tables = ("img", "txt", "label")
    arrays = read_npz(path, [f"{table}_{half}" for table in tables for half in ("train", "test")])
    train, test = (Part(*(arrays[f"{table}_{half}"] for table in tables)) for half in ("train", "test"))
    return _numbered(train, test, path)


def _numbered(train: Part, test: Part, path: Path) -> Released:
    """Items named after their row, with classes from 0 whatever the form of the labels."""
    labels: dict[SplitName, np.ndarray] = {"train": train.labels, "test": test.labels}
    classes = {half: class_numbers(column(table), f"{path} {half}") for half, table in labels.items()}
    counted = counted_from(0, classes, str(path))
    ids = list(map(str, range(len(counted["train"]) + len(counted["test"]))))
    return Released(train._replace(labels=counted["train"]), test._replace(labels=counted["test"]), ids, [path])


def _own(data_root: Path, files: Sequence[str], remedy: str = REMEDY) -> list[Path]:
    return require(data_root, "wikipedia", [f"{FOLDER}/{file}" for file in files], remedy)


def _deep(data_root: Path) -> PairDataset:
    present = [file for file in DEEP if (data_root / FOLDER / file).is_file()]
    [path] = _own(data_root, present[:1] or DEEP[:1], DEEP_REMEDY)
    train, test = _deep_part(path, "train"), _deep_part(path, "test")
    if "valid_imgs_deep" in shapes(path):
        val = _deep_part(path, "valid")
    else:
        val, test = halves(test, N_VAL_DEEP, "wikipedia")
    splits = single_label_splits("wikipedia", {"train": train, "val": val, "test": test})
    return PairDataset("wikipedia", splits, digests=digests([path], data_root), remark=DEEP_REMARK)


def _deep_part(path: Path, part: str) -> Part:
    texts = first_of(path, [f"{part}_texts_doc", f"{part}_text", f"{part}_texts"])
    return read_part(path, f"{part}_imgs_deep", texts, f"{part}_imgs_labels")
