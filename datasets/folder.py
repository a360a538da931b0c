"""``folder``: features of your own, in a folder that is then the data set's name: ``--datasets ./my_features``.

::

    my_features/
        dataset.json              optional
        train/ val/ test/         each with
            images.npy            float [n_images, image_dim], one row per image
            captions.npy          float [n_captions, text_dim]
            image_of_caption.npy  integer [n_captions], the row of images.npy that each caption belongs to, from 0
            labels.npy            optional: integer [n_images], one class each, or uint8 0/1 [n_images, n_classes]
            image_ids.txt         optional: one name per image, a line each, unique over all splits
            captions.txt          optional: one caption per line

Features are float16, float32 or float64, the same in all files of a set, and become float32. Every image has a caption, every split has at
least two images, and no image is in two splits. ``dataset.json`` may say

    {"shared_space": true, "has_real_noise": false, "remark": "..."}

that is, whether image and text features live in one space (CLIP), whether training pairs are mismatched by nature, and one sentence of
origin and licence. The first two are false where the file is silent. Record and noise are named after the folder, not after where it lies.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .features import SPLITS
from .files import Header, digests, npy_header, read_lines, read_npy, refuse_special
from .limits import refuse_outside
from .registry import register_dataset
from .types import DataError, PairDataset, PairSplit, SplitName

ARRAYS = ("images.npy", "captions.npy", "image_of_caption.npy")
OPTIONAL = ("labels.npy", "image_ids.txt", "captions.txt")
FLOATS = ("float16", "float32", "float64")
KEYS = {"shared_space": bool, "has_real_noise": bool, "remark": str}


@register_dataset
def load(data_root: Path, path: str = "") -> PairDataset:
    """The data set in the folder ``path`` (see the module's docstring).

    Raises:
        DataError: files that are missing, damaged or at odds with each other.
    """
    if not isinstance(path, str) or not path:
        raise DataError("folder: the data set's name is the path of your folder, such as ./my_features")
    return read_folder(Path(path).expanduser())


def read_folder(folder: Path, name: str = "") -> PairDataset:
    """Read a folder; ``name`` is the folder's unless given."""
    refuse_links(folder)
    headers = feature_headers(folder)
    settings = _settings(folder / "dataset.json")
    kinds = {file: header[1].name for file, header in headers.items()}
    for file, kind in kinds.items():
        if kind not in FLOATS:
            raise DataError(
                f"{folder / file}: {kind} instead of {', '.join(FLOATS)}; convert it with .astype('float32')"
            )
        first = next(iter(kinds))
        if kind != kinds[first]:
            raise DataError(f"{folder}: {first} is {kinds[first]}, {file} is {kind}; save all features in one dtype")
    splits = {split: _read_split(folder / split) for split in SPLITS}
    files = [folder / "dataset.json", *(folder / split / file for split in SPLITS for file in (*ARRAYS, *OPTIONAL))]
    name = name or folder.resolve().name
    return PairDataset(
        name,
        splits,
        shared_space=settings.get("shared_space", False),
        has_real_noise=settings.get("has_real_noise", False),
        digests={
            f"{name}/{file}": digest for file, digest in digests([f for f in files if f.is_file()], folder).items()
        },
        remark=settings.get("remark", "") or f"features in the folder {name}",
    )


def refuse_links(folder: Path) -> None:
    """Refuse files of the set that are links to places outside of the folder that holds it, see :func:`.limits.refuse_outside`."""
    for path in (
        folder / "dataset.json",
        *(folder / split / file for split in SPLITS for file in (*ARRAYS, *OPTIONAL)),
    ):
        if path.exists():
            refuse_outside(path, folder)


def feature_headers(folder: Path) -> dict[str, Header]:
    """Shape and dtype of ``<split>/images.npy`` and ``<split>/captions.npy``, without reading them.

    Raises:
        DataError: a folder or file is missing, or is not what its header claims.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the path of a folder with train/, val/ and test/")
    for split in SPLITS:
        if not (folder / split).is_dir():
            raise DataError(f"{folder}: no folder {split}/; train/, val/ and test/ each hold {', '.join(ARRAYS)}")
    return {f"{split}/{file}": npy_header(folder / split / file) for split in SPLITS for file in ARRAYS[:2]}


def _read_split(folder: Path) -> PairSplit:
    owner = read_npy(folder / "image_of_caption.npy")
    if owner.dtype.kind not in "iu":
        raise DataError(
            f"{folder / 'image_of_caption.npy'}: {owner.dtype} instead of integers; save row numbers from 0"
        )
    labels = folder / "labels.npy"
    return PairSplit(
        images=_features(folder / "images.npy"),
        captions=_features(folder / "captions.npy"),
        image_of_caption=owner.astype(np.int64),
        labels=_labels(labels) if labels.is_file() else None,
        image_ids=_lines(folder / "image_ids.txt"),
        raw_captions=_lines(folder / "captions.txt"),
    )


def _features(path: Path) -> np.ndarray:
    # A float64 beyond the range of float32 becomes inf, which check_dataset names.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(read_npy(path), dtype=np.float32)


def _labels(path: Path) -> np.ndarray:
    labels = read_npy(path)
    return labels.astype(np.int64) if labels.ndim == 1 and labels.dtype.kind in "iu" else labels


def _lines(path: Path) -> tuple[str, ...] | None:
    return tuple(read_lines(path)) if path.is_file() else None


def _settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    refuse_special(path)
    try:
        given = json.loads("\n".join(read_lines(path)), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{path}: {error}; write one JSON object such as {{"shared_space": true}}') from error
    if not isinstance(given, dict):
        raise DataError(f'{path}: a {type(given).__name__}; write one JSON object such as {{"shared_space": true}}')
    for key, value in given.items():
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(KEYS)}"
            raise DataError(f"{path}: unknown key {key!r}; {hint}")
        if not isinstance(value, KEYS[key]):
            wanted = "true or false" if KEYS[key] is bool else "a text"
            raise DataError(f"{path}: {key} is {value!r}; it must be {wanted}")
    return given


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key occurs twice")
    return result


def sizes(folder: Path) -> dict[SplitName, tuple[int, int]]:
    """(images, captions) per split, from the headers."""
    headers = feature_headers(folder)
    rows = {file: (header[0] or (0,))[0] for file, header in headers.items()}
    return {split: (rows[f"{split}/images.npy"], rows[f"{split}/captions.npy"]) for split in SPLITS}
