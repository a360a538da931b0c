"""``cc_web``: 881 pictures from the web with their alt-text (Conceptual Captions): real, unknown noise in all splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .features import SPLITS, check_arrays, check_rows, one_to_one
from .files import digests, read_columns, read_npz, require
from .registry import register_dataset
from .text import TextRecipe, one_thread, sentence_vectors
from .types import DataError, PairDataset

FILES = ("cc_web/image_features.npz", "cc_web/pairs.tsv")
REMEDY = "copy the files of the suite's data collection there, or name the folder above cc_web with --data-root"
REMARK = "881 pairs of Conceptual Captions (Sharma et al. 2018), all splits noisy by nature; captions free to use"
DIM = 128
RECIPE = TextRecipe(dim=DIM, word_min_df=2, char_min_df=2, char_max=None, svd_iterations=5)


def preview(data_root: Path) -> str:
    """Sizes, without making the features, which takes seconds."""
    paths = require(data_root, "cc_web", FILES, REMEDY)
    arrays = read_npz(paths[0], SPLITS)
    sizes = ", ".join(f"{split} {len(arrays[split]):,} x {len(arrays[split]):,}" for split in SPLITS)
    return f"{REMARK} ({sizes})"


@register_dataset(preview=preview)
def load(data_root: Path) -> PairDataset:
    """A pair is a picture and the caption it was found with, right or wrong; 621 / 60 / 200 pairs, 1 to 1, 128 dimensions.

    Image: histogram of gradients (576) and square root of an HSV histogram (192), each over the root of its variance, reduced by PCA.
    Caption: TF-IDF of words and character n-grams, reduced by SVD (:class:`TextRecipe`). All statistics are from the training split, both
    results are divided by one global spread.
    """
    paths = require(data_root, "cc_web", FILES, REMEDY)
    arrays = read_npz(paths[0], ["hog", "hsv_hist", *SPLITS])
    check_arrays(arrays, {"hog": 2, "hsv_hist": 2}, str(paths[0]))
    items = read_columns(paths[1], ["caption", "source_index"])
    if not len(items) == len(arrays["hog"]) == len(arrays["hsv_hist"]):
        raise DataError(
            f"cc_web: {len(arrays['hog'])} pictures, but {len(items)} lines in pairs.tsv; get both files of one version"
        )
    captions = [item["caption"] for item in items]
    rows = check_rows(arrays, len(items), str(paths[0]))
    vectors = _sentence_vectors({split: [captions[row] for row in rows[split]] for split in SPLITS})
    table = np.zeros((len(items), DIM), dtype=np.float32)
    for split in SPLITS:
        table[rows[split]] = vectors[split]
    splits = one_to_one(
        _reduced([arrays["hog"], arrays["hsv_hist"]], rows["train"]),
        table / table[rows["train"]].std(),
        rows,
        [item["source_index"] for item in items],
        raw_captions=captions,
    )
    return PairDataset("cc_web", splits, has_real_noise=True, digests=digests(paths, data_root), remark=REMARK)


def _sentence_vectors(sentences: dict[str, list[str]]) -> dict[str, np.ndarray]:
    try:
        vectors = sentence_vectors(RECIPE, sentences)
    except ValueError as error:
        raise DataError(f"cc_web: the captions give no {DIM} dimensions ({error}); get the files again") from error
    if vectors["train"].shape[1] != DIM:
        raise DataError(
            f"cc_web: the captions give {vectors['train'].shape[1]} dimensions instead of {DIM}; get the files again"
        )
    return vectors


def _reduced(blocks: list[np.ndarray], train: np.ndarray) -> np.ndarray:
    """PCA of blocks ``[n, d_k]`` of equal weight, float32 ``[n, DIM]``, divided by its spread on the training rows."""
    with np.errstate(all="ignore"):
        weighted = [
            block.astype(np.float64) / np.sqrt(block[train].astype(np.float64).var(0).sum()) for block in blocks
        ]
        joined = np.concatenate(weighted, axis=1)
        centred = joined - joined[train].mean(0)
    if not np.isfinite(centred).all() or min(len(train), joined.shape[1]) < DIM:
        raise DataError(
            f"cc_web: the picture features {joined.shape} of {len(train)} training rows are constant, not finite or give no {DIM} "
            "dimensions; get the files again"
        )
    with one_thread():
        directions = np.linalg.svd(centred[train], full_matrices=False)[2][:DIM]
        projected = centred @ directions.T
    return (projected / projected[train].std()).astype(np.float32)
