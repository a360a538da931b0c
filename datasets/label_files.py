"""What the loaders of released label data sets share: tables with labels, cut into splits.

The features of these sets are taken as they are stored, in float32 and without scaling, because the methods that were published on them
train on them as stored. Row i of images, texts and labels is one item; items are named after their row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .features import SPLITS
from .matrices import read_matrices, shapes
from .types import DataError, PairDataset, PairSplit, SplitName

Rows = Mapping[str, range]


class Part(NamedTuple):
    """Some items: images float32 ``[n, image_dim]``, texts float32 ``[n, text_dim]``, and labels as they are stored."""

    images: np.ndarray
    texts: np.ndarray
    labels: np.ndarray

    def cut(self, rows: range) -> Part:
        """Consecutive items; the features are not copied."""
        images, texts, labels = (table[rows.start : rows.stop] for table in self)
        return Part(images, texts, labels)


def read_part(path: Path, images: str, texts: str, labels: str) -> Part:
    """The tables of these names; labels of single numbers become ``[n]``."""
    features = read_matrices(path, [images, texts], np.float32)
    found = read_matrices(path, [labels])[labels]
    return checked(Part(features[images], features[texts], column(found)), str(path))


def read_three(paths: Sequence[Path]) -> Part:
    """A set in three MATLAB files with one table each: images ``XAll``, texts ``YAll``, labels ``LAll``."""
    images, texts = (
        read_matrices(path, [name], np.float32)[name] for path, name in zip(paths, ("XAll", "YAll"), strict=False)
    )
    return checked(Part(images, texts, read_matrices(paths[2], ["LAll"])["LAll"]), str(paths[0].parent))


def column(labels: np.ndarray) -> np.ndarray:
    """Labels of one row or one column as ``[n]``; others unchanged."""
    return labels.ravel() if labels.ndim == 2 and 1 in labels.shape else labels


def checked(part: Part, where: str) -> Part:
    """The same part, whose features are numbers in two dimensions, with as many rows as there are labels."""
    for what, table in (("images", part.images), ("texts", part.texts)):
        if table.ndim != 2 or table.dtype.kind not in "biuf":
            raise DataError(
                f"{where}: {what} {table.shape} of {table.dtype} instead of numbers [items, dimensions]; get the file again"
            )
    if not len(part.images) == len(part.texts) == len(part.labels):
        raise DataError(
            f"{where}: {len(part.images):,} images, {len(part.texts):,} texts and {len(part.labels):,} labels, but row i of each is "
            "item i; get the file again"
        )
    return part


def joined(parts: Sequence[Part], where: str) -> Part:
    """The items of several parts, one after the other."""
    return Part(*(stacked(tables, where) for tables in zip(*parts, strict=True)))


def stacked(tables: Sequence[np.ndarray], where: str) -> np.ndarray:
    """The rows of several tables of one width, one after the other."""
    widths = {table.shape[1:] for table in tables}
    if len(widths) > 1 or tables[0].ndim == 0:
        found = " and ".join(str(table.shape) for table in tables)
        raise DataError(f"{where}: tables {found} that belong together differ in width; get the file again")
    return np.concatenate(tables)


def halves(part: Part, n_first: int, where: str) -> tuple[Part, Part]:
    """The first ``n_first`` items, and all others."""
    n = len(part.images)
    if n < n_first + 2:
        raise DataError(f"{where}: {n:,} test rows, of which {n_first:,} are for validation; get the whole file")
    return part.cut(range(n_first)), part.cut(range(n_first, n))


def class_numbers(labels: np.ndarray, where: str) -> np.ndarray:
    """Classes int64 ``[n]`` as they are numbered in the file, or from 0 where labels are rows ``[n, K]`` with a single 1."""
    if labels.ndim == 2:
        rows = multi_hot(labels, where)
        if not (rows.sum(1) == 1).all():
            raise DataError(f"{where}: some items have no label or several instead of one; get the file again")
        return rows.argmax(1).astype(np.int64)
    with np.errstate(invalid="ignore"):
        numbers = labels.astype(np.int64) if labels.dtype.kind in "biuf" else np.empty(0)
    if labels.ndim != 1 or not np.array_equal(numbers, labels):
        raise DataError(f"{where}: labels {labels.shape} that are no whole numbers, one per item; get the file again")
    return numbers


def multi_hot(labels: np.ndarray, where: str) -> np.ndarray:
    """Rows uint8 ``[n, K]`` of 0 and 1."""
    if labels.ndim != 2 or not ((labels == 0) | (labels == 1)).all():
        raise DataError(f"{where}: labels {labels.shape} that are no rows of 0 and 1; get the file again")
    return np.ascontiguousarray(labels, dtype=np.uint8)


def counted_from(first: int, classes: Mapping[SplitName, np.ndarray], name: str) -> dict[SplitName, np.ndarray]:
    """Class numbers that begin at ``first`` instead of 0 or 1, wherever those of the file begin.

    Raises:
        DataError: the smallest class is another.
    """
    smallest = min(int(numbers.min(initial=1)) for numbers in classes.values())
    if smallest not in (0, 1):
        raise DataError(f"{name}: the smallest class is {smallest}, but classes count from 0 or 1; get the file again")
    return {split: numbers - smallest + first for split, numbers in classes.items()}


def single_label_splits(name: str, parts: Mapping[SplitName, Part], first_class: int = 0) -> dict[SplitName, PairSplit]:
    """Splits of a set with one class per item, counted from ``first_class``; see :func:`class_numbers` and :func:`counted_from`."""
    classes = {split: class_numbers(part.labels, f"{name} {split}") for split, part in parts.items()}
    counted = counted_from(first_class, classes, name)
    return {
        split: _one_to_one(part, counted[split], [f"{split}-{row}" for row in range(len(part.images))])
        for split, part in parts.items()
    }


def with_database(part: Part, rows: Rows, name: str, **facts: Any) -> PairDataset:
    """A data set of items with several labels, whose test queries search ``rows["database"]``.

    Args:
        part: all items.
        rows: of ``train``, ``val``, ``test`` and ``database``; see :func:`first_rows` and :func:`last_rows`.
        name: of the set.
        facts: further fields of :class:`PairDataset`.
    """
    whole = part._replace(labels=multi_hot(part.labels, name))
    cut = {what: _one_to_one(whole.cut(chosen), None, list(map(str, chosen))) for what, chosen in rows.items()}
    return PairDataset(name, {split: cut[split] for split in SPLITS}, database=cut["database"], **facts)


def first_rows(n: int, n_queries: int, n_train: int, n_val: int, name: str) -> dict[str, range]:
    """NRCH: queries are the first rows, training items the next ones, and all rows but the queries are the database.

    The papers have no validation items. Ours are the last ``n_val`` of the training items and stay in the database.
    """
    _refuse_few(n, n_queries + n_train, name)
    end = n_queries + n_train
    return {
        "train": range(n_queries, end - n_val),
        "val": range(end - n_val, end),
        "test": range(n_queries),
        "database": range(n_queries, n),
    }


def last_rows(n: int, n_queries: int, n_val: int, name: str) -> dict[str, range]:
    """UCCH: queries are the last rows; all others are the database and the training items, without the last ``n_val`` of them."""
    _refuse_few(n, n_queries + n_val + 2, name)
    end = n - n_queries
    return {"train": range(end - n_val), "val": range(end - n_val, end), "test": range(end, n), "database": range(end)}


def first_of(path: Path, names: Sequence[str]) -> str:
    """The first of several names under which a table goes that a file really has."""
    found = shapes(path)
    for name in names:
        if name in found:
            return name
    raise DataError(f"{path}: no matrix {' or '.join(map(repr, names))}, only {', '.join(found)}; get the file again")


def n_rows(path: Path, name: str) -> int:
    """Rows of a table, from its header."""
    shape = shapes(path)[first_of(path, [name])]
    if len(shape) != 2:
        raise DataError(f"{path}: {name} {shape} instead of a table [items, dimensions]; get the file again")
    return shape[0]


def listing(remark: str, sizes: Mapping[str, int]) -> str:
    """The sentence for lists: remark and sizes; a database is named where there is one."""
    texts = [f"{part} {n:,}" if part == "database" else f"{part} {n:,} x {n:,}" for part, n in sizes.items()]
    return f"{remark} ({', '.join(texts)})"


def _refuse_few(n: int, needed: int, name: str) -> None:
    if n < needed:
        raise DataError(f"{name}: {n:,} rows, but at least {needed:,} are cut into parts; get the whole files")


def _one_to_one(part: Part, classes: np.ndarray | None, ids: Sequence[str]) -> PairSplit:
    labels = part.labels if classes is None else classes
    return PairSplit(part.images, part.texts, np.arange(len(part.images)), labels, tuple(ids))
