"""Labels as matrices, what a database must be, and synthetic items with labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from label_layouts import table
from nocobench.datasets import features, registry
from nocobench.datasets.labels import is_multi_label, label_matrices
from nocobench.datasets.types import DataError, PairDataset, PairSplit


def tiny(labels: np.ndarray | None = None, **facts: Any) -> PairDataset:
    """Three items per split; ``labels`` are those of all splits."""
    given = np.array([0, 2, 1]) if labels is None else labels
    splits = {
        name: PairSplit(
            table(3, 2).astype(np.float32),
            table(3, 2).astype(np.float32),
            np.arange(3),
            given,
            tuple(f"{name}-{i}" for i in range(3)),
        )
        for name in ("train", "val", "test")
    }
    return PairDataset("tiny", splits, **facts)  # type: ignore[arg-type]


def changed(dataset: PairDataset, part: str, **fields: Any) -> PairDataset:
    split = dataclasses.replace(dataset.splits[part], **fields)  # type: ignore[index]
    return dataclasses.replace(dataset, splits={**dataset.splits, part: split})  # type: ignore[dict-item]


def test_class_numbers_become_rows_with_a_single_one() -> None:
    labels = label_matrices(changed(tiny(), "test", labels=np.array([3, 0, 0])))
    assert labels["train"].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert labels["test"].tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert labels["val"].dtype == np.uint8
    assert set(labels) == {"train", "val", "test"}
    assert not is_multi_label(tiny())


def test_classes_that_no_item_shows() -> None:
    assert label_matrices(tiny(n_classes=5))["train"].shape == (3, 5)
    with pytest.raises(DataError, match="tiny: class 2, but classes are 0 to 1; check the labels"):
        label_matrices(tiny(n_classes=2))


def test_rows_of_labels_stay_and_the_database_is_among_them() -> None:
    rows = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=np.uint8)
    dataset = tiny(rows)
    dataset = dataclasses.replace(dataset, database=dataset.splits["train"])
    labels = label_matrices(dataset)
    assert set(labels) == {"train", "val", "test", "database"}
    assert all(part.tolist() == rows.tolist() for part in labels.values())
    assert is_multi_label(dataset)


TWO_CAPTIONS = {"captions": np.zeros((6, 2), dtype=np.float32), "image_of_caption": np.repeat(np.arange(3), 2)}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (changed(tiny(), "val", labels=None), "tiny val: no labels, which label-based retrieval needs"),
        (
            changed(tiny(), "test", **TWO_CAPTIONS),
            "tiny test: 6 captions of 3 images, but label-based retrieval needs one",
        ),
        (changed(tiny(), "test", image_of_caption=np.array([1, 0, 2])), "tiny test: 3 captions of 3 images"),
        (
            changed(tiny(), "val", labels=np.array([0, -1, 1])),
            "tiny val: class -1 is negative; number the classes from 0",
        ),
        (changed(tiny(), "val", labels=np.array([0, 10**12, 1])), "tiny: class 1000000000000 of fewer items"),
        (
            changed(tiny(np.eye(3, dtype=np.uint8)), "val", labels=np.zeros((3, 4), dtype=np.uint8)),
            r"tiny val: labels of shape \(3, 4\) instead of \[items, 3\]",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_one_sentence(dataset: PairDataset, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        label_matrices(dataset)
    assert "\n" not in str(caught.value)


def with_database(**fields: Any) -> PairDataset:
    """A database of the training items."""
    return dataclasses.replace(tiny(), database=dataclasses.replace(tiny().splits["train"], **fields))


def test_a_database_may_have_training_items() -> None:
    features.check_dataset(with_database())
    features.check_dataset(with_database(image_ids=None))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"image_ids": ("train-0", "test-1", "x")},
            r"tiny: image 'test-1' \(1 in all\) is a test query and in the database",
        ),
        ({"image_ids": ("x", "x", "y")}, "tiny database: some image occurs twice"),
        ({"images": np.zeros((3, 5), dtype=np.float32)}, "train images have 2 dimensions, database images 5"),
        ({"images": np.full((3, 2), np.nan, dtype=np.float32)}, "tiny database images: NaN or inf in row 0"),
        ({"labels": None}, "train has class labels, database no labels"),
        ({"image_of_caption": np.zeros(3, dtype=np.int64)}, "tiny database: image 1 .2 in all. has no caption"),
    ],
)
def test_an_unusable_database_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        features.check_dataset(with_database(**fields))


# Synthetic items with labels.

SIZES = {"n_train": 300, "n_val": 40, "n_test": 60}


def test_synthetic_classes() -> None:
    dataset = registry.load("synthetic", n_classes=5, image_dim=256, text_dim=128, **SIZES)
    for part, n in zip(dataset.splits.values(), SIZES.values(), strict=True):
        assert (part.images.shape, part.captions.shape) == ((n, 256), (n, 128))
        assert part.images.min() == 0
        assert part.captions.min() == 0
        assert part.labels is not None
        assert part.labels.dtype == np.int64
    assert dataset.n_classes == 5
    assert {name: rows.shape for name, rows in label_matrices(dataset).items()} == {
        "train": (300, 5),
        "val": (40, 5),
        "test": (60, 5),
    }


def test_synthetic_classes_are_seen_in_both_modalities() -> None:
    """The nearest class mean of the training items names the class of almost every test item, and the wider the better."""
    right = []
    for spread in (0.05, 0.35):
        splits = registry.load(
            "synthetic", n_classes=5, image_dim=256, text_dim=128, class_spread=spread, **SIZES
        ).splits
        train, test = splits["train"], splits["test"]
        for side in ("images", "captions"):
            means = np.stack([getattr(train, side)[train.labels == c].mean(0) for c in range(5)])
            nearest = ((getattr(test, side)[:, None] - means) ** 2).sum(-1).argmin(1)
            right.append((nearest == test.labels).mean())
    assert min(right[2:]) > 0.95
    assert max(right[:2]) < 0.8


def test_synthetic_items_with_several_labels() -> None:
    """Items that share labels are more alike than others; the mean number of labels is as asked for."""
    dataset = registry.load("synthetic", n_classes=8, labels_per_item=2.5, image_dim=128, n_train=2000)
    train = dataset.splits["train"]
    assert train.labels is not None
    assert is_multi_label(dataset)
    assert train.labels.sum(1).min() == 1
    assert train.labels.sum(1).mean() == pytest.approx(2.5, abs=0.1)
    sample, labels = train.images[:300], train.labels[:300].astype(int)
    similar = np.corrcoef(sample)[~np.eye(300, dtype=bool)]
    shared = (labels @ labels.T)[~np.eye(300, dtype=bool)]
    assert similar[shared > 0].mean() > similar[shared == 0].mean() + 0.01


def test_synthetic_labels_depend_on_the_seed_alone() -> None:
    first, again, other = (registry.load("synthetic", n_classes=4, seed=seed, **SIZES) for seed in (0, 0, 1))
    assert first.digests == again.digests != other.digests
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(first.splits[name].labels, again.splits[name].labels)  # type: ignore[index]


def test_synthetic_data_without_classes_are_as_ever() -> None:
    """Written down before there were classes; with a tolerance, because machines multiply matrices differently in the last digits."""
    test = registry.load("synthetic").splits["test"]
    assert test.labels is not None
    assert test.labels[:8].tolist() == [58, 48, 53, 21, 46, 39, 3, 88]
    np.testing.assert_allclose(test.images[0, :3], [1.13975656, -0.96836770, -0.41313857], rtol=1e-5)
    np.testing.assert_allclose(test.captions[-1, :3], [-0.74714541, 0.44988132, -0.19654118], rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"n_classes": 1},
        {"n_classes": -3},
        {"n_classes": 4, "labels_per_item": 0.5},
        {"n_classes": 4, "labels_per_item": 5},
        {"n_classes": 4, "n_val": 0},
    ],
)
def test_synthetic_classes_that_are_impossible(options: dict[str, Any]) -> None:
    with pytest.raises(
        DataError, match=r"synthetic: .* classes and .* labels per item .* impossible; take at least 2 classes"
    ):
        registry.load("synthetic", **options)
