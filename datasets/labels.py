"""Labels of a data set as matrices of 0 and 1, for label-based retrieval."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .limits import refuse_beyond_memory
from .types import DataError, PairDataset, PairSplit

MOST_EMPTY = 1000  # so many classes are never too many, though only few of them are seen


def label_matrices(dataset: PairDataset) -> dict[str, np.ndarray]:
    """Labels uint8 ``[n, n_classes]`` of ``train``, ``val``, ``test`` and, where there is one, of ``database``.

    Class numbers become rows with a single 1; the width is ``dataset.n_classes``, or one more than the largest number in any part.

    Raises:
        DataError: no labels, several captions per image, class numbers out of range, or labels of different widths.
    """
    parts = dict(_parts(dataset))
    for name, split in parts.items():
        _refuse_unusable(dataset.name, name, split)
    labels = {name: split.labels for name, split in parts.items() if split.labels is not None}
    if is_multi_label(dataset):
        return {name: _of_one_width(dataset, name, table) for name, table in labels.items()}
    largest = max(int(numbers.max(initial=0)) for numbers in labels.values())
    n_classes = dataset.n_classes or largest + 1
    if not dataset.n_classes and largest >= max(MOST_EMPTY, sum(map(len, labels.values()))):
        raise DataError(f"{dataset.name}: class {largest} of fewer items; number the classes from 0 without gaps")
    if largest >= n_classes:
        raise DataError(f"{dataset.name}: class {largest}, but classes are 0 to {n_classes - 1}; check the labels")
    for name, numbers in labels.items():
        refuse_beyond_memory(len(numbers) * n_classes, f"{dataset.name} {name}: labels of {n_classes} classes")
    return {name: _rows_with_a_one(numbers, n_classes) for name, numbers in labels.items()}


def _rows_with_a_one(numbers: np.ndarray, n_classes: int) -> np.ndarray:
    table = np.zeros((len(numbers), n_classes), dtype=np.uint8)
    table[np.arange(len(numbers)), numbers] = 1
    return table


def is_multi_label(dataset: PairDataset) -> bool:
    """Whether items may have several labels: labels are rows of 0 and 1 instead of class numbers."""
    labels = dataset.splits["train"].labels
    return labels is not None and labels.ndim == 2


def _parts(dataset: PairDataset) -> Iterator[tuple[str, PairSplit]]:
    yield from dataset.splits.items()
    if dataset.database is not None:
        yield "database", dataset.database


def _refuse_unusable(dataset: str, name: str, split: PairSplit) -> None:
    if split.labels is None:
        raise DataError(
            f"{dataset} {name}: no labels, which label-based retrieval needs; take a data set that has some"
        )
    if not np.array_equal(split.image_of_caption, np.arange(split.n_images)):
        raise DataError(
            f"{dataset} {name}: {split.n_captions} captions of {split.n_images} images, but label-based retrieval needs one text per image "
            "in the images' order; multi30k has the option `texts: item` for that"
        )
    if split.labels.ndim == 1 and split.labels.min(initial=0) < 0:
        raise DataError(f"{dataset} {name}: class {split.labels.min()} is negative; number the classes from 0")


def _of_one_width(dataset: PairDataset, name: str, table: np.ndarray) -> np.ndarray:
    train = dataset.splits["train"].labels
    wanted = dataset.n_classes or (0 if train is None else train.shape[-1])
    if table.ndim != 2 or table.shape[1] != wanted:
        raise DataError(f"{dataset.name} {name}: labels of shape {table.shape} instead of [items, {wanted}]")
    return np.ascontiguousarray(table, dtype=np.uint8)
