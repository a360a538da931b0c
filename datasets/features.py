"""Checking and scaling of feature tables, and splits for sets that bring none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .types import DataError, PairDataset, PairSplit, SplitName

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
_ROWS_AT_ONCE = 65_536


def standardised(features: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1 over the training rows, float32; constant columns become 0.

    What is not finite stays so, and :func:`check_dataset` names it.
    """
    with np.errstate(all="ignore"):
        mean, spread = features[train_rows].mean(0), features[train_rows].std(0)
        return ((features - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)


def check_arrays(arrays: Mapping[str, np.ndarray], dimensions: Mapping[str, int], where: str) -> None:
    """Refuse arrays of a file that are no numbers or have another number of dimensions than these; in one dimension only integers.

    Raises:
        DataError: names the first one.
    """
    for name, wanted in dimensions.items():
        found = arrays[name]
        if found.dtype.kind not in ("iu" if wanted == 1 else "biuf") or found.ndim != wanted:
            kind = "integers in one dimension" if wanted == 1 else f"numbers in {wanted} dimensions"
            raise DataError(f"{where}: {name} is {found.dtype} {found.shape} instead of {kind}; get the file again")


def check_rows(arrays: Mapping[str, np.ndarray], n: int, where: str) -> dict[SplitName, np.ndarray]:
    """The rows of each split int64 ``[m]``, as they stand in ``arrays`` under the split's name; at least two, out of ``n``.

    Raises:
        DataError: no row numbers, or such that a table of ``n`` rows does not have.
    """
    rows = {split: arrays[split] for split in SPLITS}
    for split, index in rows.items():
        if index.dtype.kind not in "iu" or index.ndim != 1 or len(index) < 2:
            raise DataError(
                f"{where}: {split} is {index.dtype} {index.shape} instead of two row numbers or more; get the file again"
            )
        if index.min() < 0 or index.max() >= n:
            raise DataError(
                f"{where}: {split} has rows {index.min()} to {index.max()}, but the tables have rows 0 to {n - 1}; get the files again"
            )
    return {split: index.astype(np.int64) for split, index in rows.items()}


def hold_out(n_rows: int, n_val: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and validation, each ascending, for a set without a validation split.

    Validation = the first ``n_val`` of ``RandomState(0).permutation(n_rows)``, the same for ever.
    """
    order = np.random.RandomState(0).permutation(n_rows)
    return np.sort(order[n_val:]), np.sort(order[:n_val])


def one_to_one(
    images: np.ndarray,
    captions: np.ndarray,
    rows: Mapping[SplitName, np.ndarray],
    ids: Sequence[str],
    labels: np.ndarray | None = None,
    raw_captions: Sequence[str] | None = None,
) -> dict[SplitName, PairSplit]:
    """Splits of a set in which row ``i`` of both tables is one pair: ``images [n, d]``, ``captions [n, e]``, ``labels [n]``."""
    return {
        name: PairSplit(
            images[index],
            captions[index],
            np.arange(len(index)),
            None if labels is None else labels[index].astype(np.int64),
            tuple(ids[i] for i in index),
            None if raw_captions is None else tuple(raw_captions[i] for i in index),
        )
        for name, index in rows.items()
    }


def check_dataset(dataset: PairDataset) -> None:
    """Refuse unusable data.

    Raises:
        DataError: one sentence with the split, the finding and the remedy. Unusable are: other splits than train, val, test; tables that
            are not 2-d floats of one dtype and width, or hold NaN or inf; assignments that leave an image or a caption alone; lists of
            another length than their table; image ids that occur twice; fewer than 2 images. The same holds for a database, which may
            have images of train and val, but none of test.
    """
    if set(dataset.splits) != set(SPLITS):
        raise DataError(f"{dataset.name}: splits {', '.join(dataset.splits)}; exactly train, val and test are needed")
    for name, split in _parts(dataset).items():
        where = f"{dataset.name} {name}"
        _check_table(split.images, f"{where} images")
        _check_table(split.captions, f"{where} captions")
        if split.n_images < 2:
            raise DataError(f"{where}: {split.n_images} images, but retrieval needs at least 2; give this split more")
        _check_assignment(split, where)
        _check_labels(split, where)
        for what, entries, count in (
            ("image_ids", split.image_ids, split.n_images),
            ("raw_captions", split.raw_captions, split.n_captions),
        ):
            if entries is not None and len(entries) != count:
                raise DataError(f"{where}: {len(entries)} {what} for {count} rows; give one per row or none")
    _check_kinds(dataset)
    _check_ids(dataset)


def _parts(dataset: PairDataset) -> dict[str, PairSplit]:
    """The three splits, and the database where there is one."""
    parts: dict[str, PairSplit] = {name: dataset.splits[name] for name in SPLITS}
    return parts if dataset.database is None else parts | {"database": dataset.database}


def _check_table(table: np.ndarray, where: str) -> None:
    if table.dtype.kind != "f" or table.dtype.itemsize > 8:
        raise DataError(f"{where}: {table.dtype} instead of float32; convert the features with .astype('float32')")
    if table.ndim != 2 or table.shape[1] == 0:
        raise DataError(f"{where}: shape {table.shape} instead of [rows, dimensions]; give one vector per row")
    # In blocks, because a table may fill most of the memory.
    for start in range(0, len(table), _ROWS_AT_ONCE):
        bad = np.flatnonzero(~np.isfinite(table[start : start + _ROWS_AT_ONCE]).all(1))
        if len(bad):
            raise DataError(
                f"{where}: NaN or inf in row {start + bad[0]}; remove such rows or compute the features again"
            )


def _check_assignment(split: PairSplit, where: str) -> None:
    owner = split.image_of_caption
    if owner.dtype.kind not in "iu" or owner.ndim != 1:
        raise DataError(f"{where} image_of_caption: {owner.dtype} {owner.shape}; one integer per caption is needed")
    if len(owner) != split.n_captions:
        raise DataError(
            f"{where} image_of_caption: {len(owner)} entries for {split.n_captions} captions; give one per caption"
        )
    if len(owner) and (owner.min() < 0 or owner.max() >= split.n_images):
        wrong = np.flatnonzero((owner < 0) | (owner >= split.n_images))[0]
        raise DataError(
            f"{where} image_of_caption: caption {wrong} has image {owner[wrong]}, but images are 0 to {split.n_images - 1}; "
            "number the images of each split from 0"
        )
    alone = np.flatnonzero(np.bincount(owner, minlength=split.n_images) == 0)
    if len(alone):
        raise DataError(f"{where}: image {alone[0]} ({len(alone)} in all) has no caption; remove such images")


def _check_labels(split: PairSplit, where: str) -> None:
    labels = split.labels
    if labels is None:
        return
    classes = labels.ndim == 1 and labels.dtype.kind in "iu"
    several = labels.ndim == 2 and labels.dtype == np.uint8 and bool((labels <= 1).all())
    if not classes and not several:
        raise DataError(
            f"{where} labels: {labels.dtype} {labels.shape}; give one class number per image, or uint8 rows of 0 and 1"
        )
    if len(labels) != split.n_images:
        raise DataError(f"{where} labels: {len(labels)} rows for {split.n_images} images; give one per image or none")


def _check_kinds(dataset: PairDataset) -> None:
    """One dtype in the whole set, one width per modality, one kind of labels, one width in all where the space is shared."""
    parts = _parts(dataset)
    tables = {f"{name} {side}": getattr(part, side) for name, part in parts.items() for side in ("images", "captions")}
    first = next(iter(tables))
    for where, table in tables.items():
        if table.dtype != tables[first].dtype:
            raise DataError(
                f"{dataset.name}: {first} are {tables[first].dtype}, {where} {table.dtype}; save all in one dtype"
            )
        side = where.split()[1]
        own = f"train {'images' if dataset.shared_space else side}"
        if table.shape[1] != tables[own].shape[1]:
            raise DataError(
                f"{dataset.name}: {own} have {tables[own].shape[1]} dimensions, {where} {table.shape[1]}; "
                + ("a shared space needs one number" if side != own.split()[1] else "all splits need the same features")
            )
    kinds = {name: _label_kind(part.labels) for name, part in parts.items()}
    for name, kind in kinds.items():
        if kind != kinds["train"]:
            raise DataError(
                f"{dataset.name}: train has {kinds['train']}, {name} {kind}; label all splits alike or none"
            )


def _label_kind(labels: np.ndarray | None) -> str:
    if labels is None:
        return "no labels"
    return "class labels" if labels.ndim == 1 else f"labels of {labels.shape[1]} classes"


def _check_ids(dataset: PairDataset) -> None:
    seen: dict[str, str] = {}
    for name in SPLITS:
        for identifier in dataset.splits[name].image_ids or ():
            if identifier in seen:
                other = "twice in" if seen[identifier] == name else f"in {seen[identifier]} and in"
                raise DataError(
                    f"{dataset.name}: image {identifier!r} occurs {other} {name}; an image may be in one split only, once"
                )
            seen[identifier] = name
    _check_database_ids(dataset, seen)


def _check_database_ids(dataset: PairDataset, split_of: Mapping[str, str]) -> None:
    ids = (dataset.database.image_ids if dataset.database else None) or ()
    if len(set(ids)) < len(ids):
        raise DataError(f"{dataset.name} database: some image occurs twice; list every image once")
    queries = [identifier for identifier in ids if split_of.get(identifier) == "test"]
    if queries:
        raise DataError(
            f"{dataset.name}: image {queries[0]!r} ({len(queries)} in all) is a test query and in the database; take queries out of it"
        )
