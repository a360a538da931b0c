"""Readers of foreign files, the check that every data set passes, and the cache of derived features."""

from __future__ import annotations

import dataclasses
import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nocobench.datasets import cache, features, files, text
from nocobench.datasets.types import DataError, PairDataset, PairSplit
from scipy.io import savemat


def good() -> PairDataset:
    """Three splits of 4, 3 and 2 images with 2 captions each, in different spaces."""
    splits = {}
    for name, n in (("train", 4), ("val", 3), ("test", 2)):
        random = np.random.default_rng(n)
        splits[name] = PairSplit(
            random.standard_normal((n, 5), dtype=np.float32),
            random.standard_normal((2 * n, 3), dtype=np.float32),
            np.repeat(np.arange(n), 2),
            np.arange(n) % 2,
            tuple(f"{name}-{i}" for i in range(n)),
            tuple("caption" for _ in range(2 * n)),
        )
    return PairDataset("mine", splits)  # type: ignore[arg-type]


def changed(split: str, **parts: Any) -> PairDataset:
    dataset = good()
    return dataclasses.replace(
        dataset, splits={**dataset.splits, split: dataclasses.replace(dataset.splits[split], **parts)}
    )


def test_good_data_pass_with_and_without_the_optional_parts() -> None:
    features.check_dataset(good())
    bare = good()
    for name in features.SPLITS:
        split = dataclasses.replace(bare.splits[name], labels=None, image_ids=None, raw_captions=None)
        bare = dataclasses.replace(bare, splits={**bare.splits, name: split})
    features.check_dataset(bare)


def table(n: int, d: int, value: float = 1.0, dtype: str = "float32") -> np.ndarray:
    return np.full((n, d), value).astype(dtype)


BAD: dict[str, tuple[Callable[[], PairDataset], str]] = {
    "split missing": (
        lambda: dataclasses.replace(good(), splits={"train": good().splits["train"], "test": good().splits["test"]}),
        "mine: splits train, test; exactly train, val and test are needed",
    ),
    "split unknown": (
        lambda: dataclasses.replace(good(), splits={**good().splits, "meta": good().splits["val"]}),  # type: ignore[dict-item]
        "exactly train, val and test",
    ),
    "nan": (lambda: changed("val", images=table(3, 5, np.nan)), "mine val images: NaN or inf in row 0; "),
    "inf": (lambda: changed("test", captions=table(4, 3, np.inf)), "mine test captions: NaN or inf in row 0; "),
    "integers": (
        lambda: changed("val", images=table(3, 5, dtype="int64")),
        "mine val images: int64 instead of float32",
    ),
    "objects": (
        lambda: changed("val", images=table(3, 5, dtype="object")),
        "mine val images: object instead of float32",
    ),
    "texts": (lambda: changed("val", captions=table(6, 3, dtype="U3")), "mine val captions: <U3 instead of float32"),
    "mixed": (
        lambda: changed("test", captions=table(4, 3, dtype="float16")),
        "mine: train images are float32, test captions float16; save all in one dtype",
    ),
    "widths": (
        lambda: changed("val", captions=table(6, 4)),
        "mine: train captions have 3 dimensions, val captions 4; all splits need the same features",
    ),
    "shared space": (
        lambda: dataclasses.replace(good(), shared_space=True),
        "mine: train images have 5 dimensions, train captions 3; a shared space needs one number",
    ),
    "too few": (
        lambda: changed("test", images=table(1, 5), image_of_caption=np.zeros(4, int), image_ids=None),
        "mine test: 1 images, but retrieval needs at least 2",
    ),
    "out of range": (
        lambda: changed("test", image_of_caption=np.array([0, 1, 2, 0])),
        "mine test image_of_caption: caption 2 has image 2, but images are 0 to 1; number the images",
    ),
    "negative": (lambda: changed("test", image_of_caption=np.array([0, 1, 1, -1])), "caption 3 has image -1"),
    "no caption": (
        lambda: changed("train", image_of_caption=np.array([0, 0, 1, 1, 1, 3, 3, 3])),
        r"mine train: image 2 \(1 in all\) has no caption; remove such images",
    ),
    "short": (lambda: changed("train", image_of_caption=np.arange(4)), "4 entries for 8 captions"),
    "reals": (lambda: changed("train", image_of_caption=np.zeros(8)), "float64 .* one integer per caption"),
    "ids": (lambda: changed("val", image_ids=("a", "b")), "mine val: 2 image_ids for 3 rows"),
    "id twice": (lambda: changed("val", image_ids=("a", "b", "a")), "image 'a' occurs twice in val"),
    "id shared": (
        lambda: changed("test", image_ids=("x", "val-1")),
        "image 'val-1' occurs in val and in test; an image may be in one split only",
    ),
    "texts too few": (lambda: changed("val", raw_captions=("a",)), "mine val: 1 raw_captions for 6 rows"),
    "labels too few": (lambda: changed("val", labels=np.arange(2)), "mine val labels: 2 rows for 3 images"),
    "labels real": (lambda: changed("val", labels=np.zeros(3)), "mine val labels: float64"),
    "labels mixed": (
        lambda: changed("val", labels=np.zeros((3, 4), dtype=np.uint8)),
        "train has class labels, val labels of 4 classes; label all splits alike",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_data_are_refused_in_one_sentence(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        features.check_dataset(make())
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_a_bad_row_is_found_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_ROWS_AT_ONCE", 3)
    images = table(4, 5)
    images[3, 4] = np.nan
    with pytest.raises(DataError, match="row 3"):
        features.check_dataset(changed("train", images=images))


def test_standardised_uses_training_rows_only_and_survives_constant_columns() -> None:
    """Column 0 over rows 0 and 1: mean 2, deviation 1; column 1 is constant there."""
    result = features.standardised(np.array([[1.0, 7.0], [3.0, 7.0], [6.0, 9.0]]), np.array([0, 1]))
    assert result.dtype == np.float32
    assert result.tolist() == [[-1, 0], [1, 0], [4, 2]]


def test_hold_out_is_fixed_and_partitions() -> None:
    train, val = features.hold_out(10, 3)
    assert val.tolist() == sorted(np.random.RandomState(0).permutation(10)[:3].tolist()) == [2, 4, 8]
    assert sorted([*train, *val]) == list(range(10))
    assert train.tolist() == sorted(train.tolist())


def npz(path: Path) -> Path:
    np.savez_compressed(path, a=np.arange(500) ** 2, b=np.ones(3))
    return path


def mat(path: Path) -> Path:
    savemat(path, {"a": np.arange(500) ** 2, "b": np.ones(3)}, do_compression=True)
    return path


def zipped(path: Path) -> Path:
    path.write_bytes(gzip.compress("".join(f"line {i}\n" for i in range(500)).encode()))
    return path


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "bundle.npz": (npz, lambda path: files.read_npz(path, ["a", "b"])["a"].tolist()),
    "matrix.mat": (mat, lambda path: files.read_mat(path, ["a", "b"])["a"].tolist()),
    "text.gz": (zipped, files.read_lines),
}


@pytest.mark.parametrize("name", READERS)
def test_files_cut_anywhere_or_overwritten_are_one_sentence(tmp_path: Path, name: str) -> None:
    make, read = READERS[name]
    path = make(tmp_path / name)
    whole, expected = path.read_bytes(), read(path)
    for kept in (0, 1, 3, 10, len(whole) // 4, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:kept])
        if (kept, path.suffix) == (0, ".gz"):
            continue  # an empty file is an empty gzip file
        with pytest.raises(DataError, match="; get the file again") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"<html>404</html>" * 50)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read(path)
    path.write_bytes(whole)
    assert read(path) == expected


@pytest.mark.parametrize("name", READERS)
def test_files_that_are_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        READERS[name][1](tmp_path / name)


def test_arrays_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no array 'c', only a, b"):
        files.read_npz(npz(tmp_path / "x.npz"), ["a", "c"])
    with pytest.raises(DataError, match="no matrix 'c'"):
        files.read_mat(mat(tmp_path / "x.mat"), ["a", "c"])


def test_objects_in_bundles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="array a: holds Python objects, which are never loaded"):
        files.read_npz(tmp_path / "x.npz", ["a"])
    savemat(tmp_path / "x.mat", {"a": np.array([{"b": 1}, "c"], dtype=object)})
    with pytest.raises(DataError, match="a is not a matrix of numbers"):
        files.read_mat(tmp_path / "x.mat", ["a"])


def test_an_array_in_a_bundle_that_claims_terabytes(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    with pytest.raises(DataError, match="array a: claims 8,000,000,000,000 bytes"):
        files.read_npz(tmp_path / "x.npz", ["a"])


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\u2028still one\r\ntwo\n\nfour\x0c".encode())
    assert files.read_lines(tmp_path / "a.txt") == ["one\u2028still one", "two", "", "four\x0c"]
    (tmp_path / "b.txt").write_bytes(b"")
    assert files.read_lines(tmp_path / "b.txt") == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOCOBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counted:
    """A computation that counts how often it is done."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"a": np.arange(3.0), "b": np.eye(2)}


def test_derived_arrays_are_computed_once_per_key(folder: Path) -> None:
    compute = Counted()
    first = cache.cached("x", {"dim": 1, "inputs": ["p", "q"]}, ["a", "b"], compute)
    again = cache.cached("x", {"inputs": ["p", "q"], "dim": 1}, ["a", "b"], compute)
    assert compute.calls == 1
    assert all(np.array_equal(first[name], again[name]) for name in ("a", "b"))
    cache.cached("x", {"dim": 2, "inputs": ["p", "q"]}, ["a", "b"], compute)
    assert compute.calls == 2
    assert sorted(path.suffix for path in folder.iterdir()) == [".npz", ".npz"], "no temporary file is left"


@pytest.mark.parametrize("kept", [0, 50, 400])
def test_a_damaged_cache_is_computed_again(folder: Path, kept: int) -> None:
    compute = Counted()
    cache.cached("x", {}, ["a", "b"], compute)
    path = cache.cache_file("x", {})
    path.write_bytes(path.read_bytes()[:kept])
    assert cache.cached("x", {}, ["a", "b"], compute)["a"].tolist() == [0, 1, 2]
    assert compute.calls == 2
    cache.cached("x", {}, ["a", "b"], compute)
    assert compute.calls == 2, "the damaged file was replaced"


def test_where_nothing_can_be_kept_the_arrays_still_come(folder: Path) -> None:
    folder.write_text("a file stands where the folder should be", encoding="utf-8")
    assert cache.cached("x", {}, ["a"], Counted())["a"].tolist() == [0, 1, 2]


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    assert cache.cached("x", {}, ["a"], Counted())["a"].tolist() == [0, 1, 2]
    assert list(folder.iterdir()) == []


def test_item_vectors_by_hand() -> None:
    """Means of two sentences: train (1, 0), (3, 0), so centre (2, 0), deviations -1, 0, 1, 0 with spread sqrt(1/2)."""
    sentences = {"train": np.array([[[0.0, 1], [2, -1]], [[3, 0], [3, 0]]]), "test": np.array([[[2.0, 1], [2, 1]]])}
    result = text.item_vectors(sentences)
    np.testing.assert_allclose(result["train"], [[-(2**0.5), 0], [2**0.5, 0]], rtol=1e-6)
    np.testing.assert_allclose(result["test"], [[0, 2**0.5]], rtol=1e-6)


def test_unit_rows_survive_empty_sentences() -> None:
    assert text.unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [0.6000000238418579, 0.800000011920929],
        [0, 0],
    ]
