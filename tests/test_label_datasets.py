"""Every loader of a data set with labels, on small files of its layout and on real data where they are."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_layouts import Tables, Writer, both, table, write_hdf5, write_matlab5, write_matlab73
from nocobench.datasets import files, hdf5, label_files, matrices, multi30k, registry
from nocobench.datasets.labels import is_multi_label, label_matrices
from nocobench.datasets.types import DataError, PairDataset, PairSplit

ROOT = registry.default_data_root()


def need(path: str) -> Path:
    """A file or folder of the data root, or a skip."""
    if not (ROOT / path).exists():
        pytest.skip(f"{ROOT / path} is not here; set NOCOBENCH_DATA to the folder that holds it")
    return ROOT / path


# Single-label sets. Rows are numbered in the first column, so that it shows which went where.


def labelled_like(
    dataset: PairDataset, sizes: tuple[int, int, int], classes: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """Sizes, classes and the general form of a single-label set."""
    for name, n, expected in zip(("train", "val", "test"), sizes, classes, strict=True):
        part = dataset.splits[name]  # type: ignore[index]
        assert (part.n_images, part.images.dtype, part.captions.dtype) == (n, np.float32, np.float32)
        assert part.image_of_caption.tolist() == list(range(n))
        assert part.labels is not None
        assert part.labels.dtype == np.int64
        np.testing.assert_array_equal(part.labels, expected)
    ids = [identifier for part in dataset.splits.values() for identifier in part.image_ids or ()]
    assert len(ids) == len(set(ids)) == sum(sizes)


def xmedia_tables(n_train: int = 60, n_test: int = 540) -> dict[str, np.ndarray]:
    return {
        "I_tr_CNN": table(n_train, 6),
        "T_tr_BOW": table(n_train, 4, 1),
        "trImgCat": (np.arange(n_train) % 20 + 1).reshape(-1, 1).astype(np.uint8),
        "I_te_CNN": table(n_test, 6, 2),
        "T_te_BOW": table(n_test, 4, 3),
        "teImgCat": (np.arange(n_test) % 20 + 1).reshape(-1, 1).astype(np.uint8),
        "V_tr_CNN": table(3, 3),
    }


@both
def test_xmedia(tmp_path: Path, write: Writer) -> None:
    tables = xmedia_tables()
    write(tmp_path / "xmedia" / "XMediaFeatures.mat", tables)
    dataset = registry.load("xmedia", tmp_path)
    train, test = np.arange(60) % 20, np.arange(540) % 20
    labelled_like(dataset, (60, 500, 40), (train, test[:500], test[500:]))
    np.testing.assert_array_equal(dataset.splits["train"].images, tables["I_tr_CNN"])
    np.testing.assert_array_equal(dataset.splits["val"].captions, tables["T_te_BOW"][:500])
    np.testing.assert_array_equal(dataset.splits["test"].images, tables["I_te_CNN"][500:])
    assert (dataset.n_classes, label_matrices(dataset)["train"].shape) == (None, (60, 20))
    assert list(dataset.digests) == ["xmedia/XMediaFeatures.mat"]


@both
def test_xmedia_with_its_phantom_class(tmp_path: Path, write: Writer) -> None:
    write(tmp_path / "xmedia" / "XMediaFeatures.mat", xmedia_tables())
    dataset = registry.load("xmedia", tmp_path, phantom_class=True)
    assert dataset.n_classes == 21
    labels = label_matrices(dataset)
    assert {name: part.shape for name, part in labels.items()} == {
        "train": (60, 21),
        "val": (500, 21),
        "test": (40, 21),
    }
    assert not any(part[:, 0].any() for part in labels.values())
    np.testing.assert_array_equal(labels["train"][:, 1:], label_matrices(registry.load("xmedia", tmp_path))["train"])


BAD_XMEDIA: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"T_tr_BOW": None}, "XMediaFeatures.mat: no matrix 'T_tr_BOW'; get the file again"),
    "no labels": ({"teImgCat": None}, "XMediaFeatures.mat: no matrix 'teImgCat'; get the file again"),
    "fewer labels": ({"trImgCat": np.ones((59, 1))}, "60 images, 60 texts and 59 labels, but row i of each is item i"),
    "fewer texts": ({"T_te_BOW": table(539, 4)}, "540 images, 539 texts and 540 labels"),
    "three dimensions": (
        {"I_tr_CNN": np.ones((60, 2, 2))},
        r"images \(60, 2, 2\) of float32 instead of numbers \[items, dim",
    ),
    "halves of classes": ({"trImgCat": np.full((60, 1), 1.5)}, "xmedia train: labels .* no whole numbers"),
    "no classes": ({"trImgCat": np.full((60, 1), np.nan)}, "xmedia train: labels .* no whole numbers"),
    "negative classes": ({"trImgCat": np.full((60, 1), -1.0)}, "xmedia: the smallest class is -1, but classes count"),
    "several labels": ({"trImgCat": np.ones((60, 20))}, "xmedia train: some items have no label or several"),
    "neither": ({"trImgCat": np.full((60, 20), 2)}, r"xmedia train: labels \(60, 20\) that are no rows of 0 and 1"),
    "NaN": ({"I_tr_CNN": np.full((60, 6), np.nan)}, "xmedia train images: NaN or inf in row 0"),
    "beyond float32": ({"I_tr_CNN": np.full((60, 6), 1e300)}, "xmedia train images: NaN or inf in row 0"),
    "few test rows": (
        {"I_te_CNN": table(501, 6), "T_te_BOW": table(501, 4), "teImgCat": np.ones((501, 1))},
        "xmedia: 501 test rows, of which 500 are for validation",
    ),
}


@pytest.mark.filterwarnings("error")
@both
@pytest.mark.parametrize("name", BAD_XMEDIA)
def test_files_of_another_form_are_one_sentence(tmp_path: Path, write: Writer, name: str) -> None:
    changes, message = BAD_XMEDIA[name]
    tables = {key: value for key, value in (xmedia_tables() | changes).items() if value is not None}
    write(tmp_path / "xmedia" / "XMediaFeatures.mat", tables)
    with pytest.raises(DataError, match=message) as caught:
        registry.load("xmedia", tmp_path)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


@both
def test_inria(tmp_path: Path, write: Writer) -> None:
    """Classes from 0, labels as one row."""
    tables = {}
    for seed, (prefix, n) in enumerate((("tr", 30), ("val", 9), ("te", 12))):
        tables |= {f"{prefix}_img": table(n, 5, seed), f"{prefix}_txt": table(n, 3, seed + 5)}
        tables |= {f"{prefix}_img_lab": (np.arange(n) % 10).reshape(1, -1).astype(float)}
    write(tmp_path / "inria" / "INRIA-Websearch.mat", tables)
    dataset = registry.load("inria", tmp_path)
    labelled_like(dataset, (30, 9, 12), (np.arange(30) % 10, np.arange(9), np.arange(12) % 10))
    np.testing.assert_array_equal(dataset.splits["val"].captions, tables["val_txt"])
    assert registry.describe("inria", tmp_path) == (
        True,
        "INRIA-Websearch (Krapac et al. 2010), CNN features and topic proportions; research use "
        "(train 30 x 30, val 9 x 9, test 12 x 12)",
    )


@both
def test_xmedianet(tmp_path: Path, write: Writer) -> None:
    """Five views per part, of which two are taken; labels of each view as one row."""
    tables: dict[str, list[np.ndarray]] = {}
    for seed, (name, n) in enumerate((("train", 24), ("valid", 8), ("test", 6))):
        tables[name] = [table(n, 5, seed), table(n, 3, seed + 5), *(table(n + 2, 2) for _ in range(3))]
        tables[f"{name}_labels"] = [(np.arange(n) % 6).reshape(1, -1).astype(float) for _ in range(5)]
    write(tmp_path / "xmedianet" / "XMediaNet5View_Doc2Vec.mat", tables)
    dataset = registry.load("xmedianet", tmp_path)
    labelled_like(dataset, (24, 8, 6), (np.arange(24) % 6, np.arange(8) % 6, np.arange(6)))
    np.testing.assert_array_equal(dataset.splits["train"].images, tables["train"][0])
    np.testing.assert_array_equal(dataset.splits["test"].captions, tables["test"][1])
    assert registry.describe("xmedianet", tmp_path)[0]
    tables.pop("valid_labels")
    write(tmp_path / "xmedianet" / "XMediaNet5View_Doc2Vec.mat", tables)
    assert registry.describe("xmedianet", tmp_path)[0] is False
    with pytest.raises(DataError, match="no matrix 'valid_labels'"):
        registry.load("xmedianet", tmp_path)


# Wikipedia: three layouts of the original features, two of the deep ones.


def wikipedia_tables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        **{
            f"{side}_{half}": random.random((n, d))
            for half, n in (("tr", 260), ("te", 30))
            for side, d in (("I", 7), ("T", 4))
        },
        **{
            f"L_{half}": (np.arange(n) % 10 + 1).reshape(-1, 1).astype(np.uint8)
            for half, n in (("tr", 260), ("te", 30))
        },
    }


def write_raw(folder: Path, tables: Tables) -> None:
    write_matlab5(folder / "raw_features.mat", {name: tables[name] for name in ("I_tr", "T_tr", "I_te", "T_te")})
    for half, name in (("tr", "trainset"), ("te", "testset")):
        lines = [f"text-{half}-{i}\tpicture\t{label}\n" for i, label in enumerate(tables[f"L_{half}"].ravel())]
        (folder / f"{name}_txt_img_cat.list").write_text("".join(lines), encoding="utf-8")


def write_wiki_npz(folder: Path, tables: Tables) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{kind}_{half}": np.ascontiguousarray(tables[f"{side}_{short}"])
        for half, short in (("train", "tr"), ("test", "te"))
        for kind, side in (("img", "I"), ("txt", "T"))
    }
    labels = {
        f"label_{half}": tables[f"L_{short}"].ravel().astype(np.int64) - 1
        for half, short in (("train", "tr"), ("test", "te"))
    }
    np.savez(folder / "wiki.npz", **arrays, **labels)  # type: ignore[arg-type]


def one_hot(tables: Tables) -> dict[str, np.ndarray]:
    """The third layout: a row per item, and a choice of rows for kernels."""
    rows = {f"L_{half}": np.eye(10, dtype=np.uint8)[tables[f"L_{half}"].ravel() - 1] for half in ("tr", "te")}
    return {**tables, **rows, "sampleInds": np.arange(260, 0, -1).reshape(1, -1)}


LAYOUTS: dict[str, Callable[[Path, Tables], None]] = {
    "wikiData.mat": lambda folder, tables: write_matlab5(folder / "wikiData.mat", tables),
    "wikiData.mat one-hot": lambda folder, tables: write_matlab5(folder / "wikiData.mat", one_hot(tables)),
    "wikiData.mat 7.3": lambda folder, tables: write_matlab73(folder / "wikiData.mat", tables),
    "wiki.npz": write_wiki_npz,
}


def same_arrays(first: PairDataset, second: PairDataset) -> None:
    for name, part in first.splits.items():
        for field in ("images", "captions", "image_of_caption", "labels"):
            ours, theirs = getattr(part, field), getattr(second.splits[name], field)
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            assert ours.tobytes() == theirs.tobytes(), (name, field)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wikipedia_layouts_give_the_same_bits(tmp_path: Path, layout: str) -> None:
    write_raw(tmp_path / "raw" / "wikipedia", wikipedia_tables())
    LAYOUTS[layout](tmp_path / "other" / "wikipedia", wikipedia_tables())
    first, second = registry.load("wikipedia", tmp_path / "raw"), registry.load("wikipedia", tmp_path / "other")
    same_arrays(first, second)
    assert [part.n_images for part in second.splits.values()] == [60, 200, 30]
    assert second.splits["test"].labels is not None
    assert second.splits["test"].labels.tolist() == [i % 10 for i in range(30)]
    assert list(second.digests) == [f"wikipedia/{layout.split()[0]}"]
    ids = [identifier for part in second.splits.values() for identifier in part.image_ids or ()]
    assert len(set(ids)) == 290


@pytest.mark.parametrize("layout", ["wikiData.mat", "wikiData.mat one-hot", "wiki.npz"])
def test_wikipedia_layouts_of_the_real_data_give_the_same_bits(tmp_path: Path, layout: str) -> None:
    """Also the validation split. The third layout is made of the second."""
    folder = need("wikipedia/raw_features.mat").parent
    (tmp_path / "wikipedia").mkdir()
    if layout == "wikiData.mat one-hot":
        found = files.read_mat(folder / "wikiData.mat", ["I_tr", "T_tr", "L_tr", "I_te", "T_te", "L_te"])
        write_matlab5(tmp_path / "wikipedia" / "wikiData.mat", one_hot(found))
    else:
        (tmp_path / "wikipedia" / layout).write_bytes(need(f"wikipedia/{layout}").read_bytes())
    other = registry.load("wikipedia", tmp_path)
    same_arrays(registry.load("wikipedia", ROOT), other)
    assert [part.n_images for part in other.splits.values()] == [1973, 200, 693]


def test_wikipedia_takes_the_first_complete_layout(tmp_path: Path) -> None:
    folder = tmp_path / "wikipedia"
    write_wiki_npz(folder, wikipedia_tables())
    assert list(registry.load("wikipedia", tmp_path).digests) == ["wikipedia/wiki.npz"]
    write_matlab5(folder / "wikiData.mat", wikipedia_tables())
    assert list(registry.load("wikipedia", tmp_path).digests) == ["wikipedia/wikiData.mat"]
    write_raw(folder, wikipedia_tables())
    assert len(registry.load("wikipedia", tmp_path).digests) == 3
    (folder / "testset_txt_img_cat.list").unlink()
    assert list(registry.load("wikipedia", tmp_path).digests) == ["wikipedia/wikiData.mat"]
    (folder / "wikiData.mat").unlink()
    (folder / "wiki.npz").unlink()
    with pytest.raises(DataError, match=r"wikipedia: .*testset_txt_img_cat\.list not found; take raw_features\.mat"):
        registry.load("wikipedia", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"L_tr": np.ones((259, 1))}, "wikiData.mat: 260 images, 260 texts and 259 labels, but row i"),
        ({"T_te": np.ones((29, 4))}, "wikiData.mat: 30 images, 29 texts and 30 labels"),
        (
            {"I_te": np.ones((30, 6))},
            r"wikiData.mat: tables \(260, 7\) and \(30, 6\) that belong together differ in width",
        ),
        ({"L_te": np.full((30, 1), 0.5)}, "wikiData.mat test: labels .* no whole numbers"),
    ],
)
def test_wikipedia_of_another_form_is_one_sentence(tmp_path: Path, changes: Tables, message: str) -> None:
    write_matlab5(tmp_path / "wikipedia" / "wikiData.mat", wikipedia_tables() | dict(changes))
    with pytest.raises(DataError, match=message):
        registry.load("wikipedia", tmp_path)


def deep_tables(text: str, parts: Mapping[str, int], first_class: int) -> dict[str, np.ndarray]:
    tables = {}
    for seed, (part, n) in enumerate(parts.items()):
        tables[f"{part}_imgs_deep"] = table(n, 6, seed)
        tables[f"{part}_{text}"] = table(n, 3, seed + 7)
        tables[f"{part}_imgs_labels"] = (np.arange(n) % 10 + first_class).reshape(-1, 1)
    return tables


@both
def test_wikipedia_deep_features_of_rshnl(tmp_path: Path, write: Writer) -> None:
    tables = deep_tables("texts_doc", {"train": 40, "test": 250}, 0)
    write(tmp_path / "wikipedia" / "wiki.mat", tables)
    dataset = registry.load("wikipedia", tmp_path, features="deep")
    classes = np.arange(250) % 10
    labelled_like(dataset, (40, 231, 19), (np.arange(40) % 10, classes[:231], classes[231:]))
    np.testing.assert_array_equal(dataset.splits["train"].captions, tables["train_texts_doc"])
    np.testing.assert_array_equal(dataset.splits["test"].images, tables["test_imgs_deep"][231:])


@pytest.mark.parametrize("text", ["text", "texts"])
@pytest.mark.parametrize("with_valid", [False, True])
def test_wikipedia_deep_features_of_mrl(tmp_path: Path, text: str, with_valid: bool) -> None:
    """Plain HDF5, not the other way round; classes from 1."""
    parts = {"train": 40, "test": 250, **({"valid": 12} if with_valid else {})}
    tables = deep_tables(text, parts, 1)
    write_hdf5(tmp_path / "wikipedia" / "wiki_deep_doc2vec_data_corr_ae.h5py", tables)
    dataset = registry.load("wikipedia", tmp_path, features="deep")
    sizes = (40, 12, 250) if with_valid else (40, 231, 19)
    assert tuple(part.n_images for part in dataset.splits.values()) == sizes
    assert dataset.splits["train"].labels is not None
    np.testing.assert_array_equal(dataset.splits["train"].labels, np.arange(40) % 10)
    np.testing.assert_array_equal(
        dataset.splits["val"].images, tables["valid_imgs_deep" if with_valid else "test_imgs_deep"][: sizes[1]]
    )


def test_wikipedia_deep_features_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wikipedia: .*wiki\.mat not found; ask the authors of .*RSHNL"):
        registry.load("wikipedia", tmp_path, features="deep")
    with pytest.raises(DataError, match="features='raw' are unknown; choose original or deep"):
        registry.load("wikipedia", tmp_path, features="raw")
    write_hdf5(tmp_path / "wikipedia" / "wiki_deep_doc2vec_data_corr_ae.h5py", {"train_imgs_deep": table(3, 3)})
    with pytest.raises(
        DataError, match="no matrix 'train_texts_doc' or 'train_text' or 'train_texts', only train_imgs_deep"
    ):
        registry.load("wikipedia", tmp_path, features="deep")


# Multi-label sets with a database.


def labels_of(n: int, classes: int) -> np.ndarray:
    """Item i has label i mod classes, every third also label 0, and item 1 none."""
    rows = np.eye(classes)[np.arange(n) % classes]
    rows[::3, 0] = 1
    rows[1] = 0
    return rows


def three_files(root: Path, names: list[str], n: int, classes: int, write: Writer) -> dict[str, np.ndarray]:
    tables = {"XAll": table(n, 5), "YAll": table(n, 3, 1), "LAll": labels_of(n, classes)}
    for name, file in zip(tables, names, strict=True):
        write(root / file, {name: tables[name]})
    return tables


def rows_of(part: PairSplit) -> list[int]:
    """Which rows of the file, by the first column."""
    assert part.images[:, 0].tolist() == part.captions[:, 0].tolist()
    assert part.image_ids == tuple(str(int(row)) for row in part.images[:, 0])
    return part.images[:, 0].astype(int).tolist()


MIRFLICKR = [f"mirflickr/mirflickr25k-{name}.mat" for name in ("iall-vgg", "yall", "lall")]


@both
@pytest.mark.parametrize("split", ["first-rows", "last-rows"])
def test_mirflickr(tmp_path: Path, write: Writer, split: str) -> None:
    tables = three_files(tmp_path, MIRFLICKR, 12_700, 24, write)
    dataset = registry.load("mirflickr", tmp_path, split=split)
    expected = {
        "first-rows": (range(2000, 11_500), range(11_500, 12_000), range(2000), range(2000, 12_700)),
        "last-rows": (range(10_200), range(10_200, 10_700), range(10_700, 12_700), range(10_700)),
    }[split]
    assert dataset.database is not None
    for part, rows in zip((*dataset.splits.values(), dataset.database), expected, strict=True):
        assert rows_of(part) == list(rows)
        np.testing.assert_array_equal(part.labels, tables["LAll"][rows.start : rows.stop])
        assert part.labels is not None
        assert part.labels.dtype == np.uint8
    assert is_multi_label(dataset)
    assert label_matrices(dataset)["database"].shape == (len(expected[3]), 24)
    assert list(dataset.digests) == MIRFLICKR


def test_mirflickr_shares_memory_between_parts(tmp_path: Path) -> None:
    """The database of NUS-WIDE takes 3 GB; training items are not a second copy."""
    three_files(tmp_path, MIRFLICKR, 12_700, 24, write_matlab5)
    dataset = registry.load("mirflickr", tmp_path)
    assert dataset.database is not None
    assert np.shares_memory(dataset.database.images, dataset.splits["train"].images)


@both
@pytest.mark.parametrize("classes", [21, 10])
def test_nuswide(tmp_path: Path, write: Writer, classes: int) -> None:
    ending = {21: "-clean", 10: ""}[classes]
    names = [f"nuswide/nus-wide-tc{classes}-{name}{ending}.mat" for name in ("xall-vgg", "yall", "lall")]
    three_files(tmp_path, names, 13_000, classes, write)
    dataset = registry.load("nuswide", tmp_path, classes=classes)
    expected = {
        21: (range(2100, 12_100), range(12_100, 12_600), range(2100), range(2100, 13_000)),
        10: (range(10_400), range(10_400, 10_900), range(10_900, 13_000), range(10_900)),
    }[classes]
    assert dataset.database is not None
    for part, rows in zip((*dataset.splits.values(), dataset.database), expected, strict=True):
        assert rows_of(part) == list(rows)
    assert label_matrices(dataset)["test"].shape == (2100, classes)
    with pytest.raises(DataError, match=r"nuswide: .*not found; ask the authors of"):
        registry.load("nuswide", tmp_path, classes=31 - classes)


@pytest.mark.parametrize("text", ["text", "texts"])
def test_coco_labels(tmp_path: Path, text: str) -> None:
    """Training rows of the file come first, then its test rows; queries are the first of them all."""
    whole = {"imgs_deep": table(15_600, 5), text: table(15_600, 3, 1), "imgs_labels": labels_of(15_600, 80)}
    halves = {"train": slice(12_000), "test": slice(12_000, None)}
    tables = {f"{half}_{name}": rows[part] for half, part in halves.items() for name, rows in whole.items()}
    write_hdf5(tmp_path / "coco-labels" / "MSCOCO_deep_doc2vec_data.h5py", tables)
    dataset = registry.load("coco-labels", tmp_path)
    assert dataset.database is not None
    assert rows_of(dataset.splits["test"]) == list(range(5000))
    assert rows_of(dataset.splits["train"]) == list(range(5000, 14_000))
    assert rows_of(dataset.splits["val"]) == list(range(14_000, 15_000))
    assert rows_of(dataset.database) == list(range(5000, 15_600))
    np.testing.assert_array_equal(label_matrices(dataset)["val"], whole["imgs_labels"][14_000:15_000])
    here, text_of_list = registry.describe("coco-labels", tmp_path)
    assert here
    assert "(train 9,000 x 9,000, val 1,000 x 1,000, test 5,000 x 5,000, database 10,600)" in text_of_list


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test_imgs_deep": table(3600, 4)},
            r"tables \(12000, 5\) and \(3600, 4\) that belong together differ in width",
        ),
        ({"test_imgs_labels": labels_of(3600, 79)}, r"tables \(12000, 80\) and \(3600, 79\)"),
        ({"train_imgs_labels": np.full((12_000, 80), 0.5)}, "coco-labels: labels .* that are no rows of 0 and 1"),
        ({"test_text": table(3599, 3)}, "3,600 images, 3,599 texts and 3,600 labels"),
    ],
)
def test_coco_labels_of_another_form_is_one_sentence(tmp_path: Path, changes: Tables, message: str) -> None:
    tables = {}
    for half, n in (("train", 12_000), ("test", 3600)):
        whole = {"imgs_deep": table(n, 5), "text": table(n, 3), "imgs_labels": labels_of(n, 80)}
        tables |= {f"{half}_{name}": rows for name, rows in whole.items()}
    write_hdf5(tmp_path / "coco-labels" / "MSCOCO_deep_doc2vec_data.h5py", tables | dict(changes))
    with pytest.raises(DataError, match=message):
        registry.load("coco-labels", tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("xmedia", {"phantom_class": "yes"}, "xmedia: phantom_class='yes' is unknown; choose true or false"),
        ("nuswide", {"classes": 81}, "nuswide: classes=81 is unknown; choose 21 or 10"),
    ],
)
def test_options_that_are_unknown(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        registry.load(name, tmp_path, **options)


def test_lists_do_not_read_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_files(tmp_path, MIRFLICKR, 12_700, 24, write_matlab73)
    write_matlab5(tmp_path / "xmedia" / "XMediaFeatures.mat", xmedia_tables())
    for module, name in ((hdf5, "_in_blocks"), (matrices, "_loaded")):
        monkeypatch.setattr(module, name, lambda *arguments: pytest.fail("read for a list"))
    assert "(train 60 x 60, val 500 x 500, test 40 x 40)" in registry.describe("xmedia", tmp_path)[1]
    assert "test 2,000 x 2,000, database 10,700)" in registry.describe("mirflickr", tmp_path)[1]


@pytest.mark.parametrize(
    ("n", "labels", "options", "message"),
    [
        (11_999, None, {}, "mirflickr: 11,999 rows, but at least 12,000 are cut into parts; get the whole files"),
        (2501, None, {"split": "last-rows"}, "mirflickr: 2,501 rows, but at least 2,502"),
        (12_700, labels_of(12_699, 24), {}, "12,700 images, 12,700 texts and 12,699 labels"),
        (12_700, np.full((12_700, 24), 2.0), {}, r"mirflickr: labels \(12700, 24\) that are no rows of 0 and 1"),
        (12_700, None, {"split": "random"}, "split='random' is unknown; choose first-rows or last-rows"),
    ],
)
def test_mirflickr_of_another_form_is_one_sentence(
    tmp_path: Path, n: int, labels: np.ndarray | None, options: dict[str, str], message: str
) -> None:
    three_files(tmp_path, MIRFLICKR, n, 24, write_matlab5)
    if labels is not None:
        write_matlab5(tmp_path / MIRFLICKR[2], {"LAll": labels})
    with pytest.raises(DataError, match=message):
        registry.load("mirflickr", tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("xmedia", r"XMediaFeatures\.mat not found; ask the authors of XMedia or of github\.com/perquisite/RSHNL"),
        ("inria", r"INRIA-Websearch\.mat not found; ask the authors of"),
        ("xmedianet", r"XMediaNet5View_Doc2Vec\.mat not found; ask the authors of"),
        ("mirflickr", r"mirflickr25k-iall-vgg\.mat and 2 more files not found; ask the authors of"),
        ("nuswide", r"nus-wide-tc21-xall-vgg-clean\.mat and 2 more files not found; ask the authors of"),
        ("coco-labels", r"MSCOCO_deep_doc2vec_data\.h5py not found; ask the authors of"),
    ],
)
def test_absent_files_say_whom_to_ask(tmp_path: Path, name: str, remedy: str) -> None:
    here, reason = registry.describe(name, tmp_path)
    assert not here
    with pytest.raises(DataError, match=rf"^{name}: .*{remedy}") as caught:
        registry.load(name, tmp_path)
    assert str(caught.value) == reason


# One text per item.


def test_mini_with_one_text_per_item(tmp_path: Path) -> None:
    """Items of a made-up file: the text is made as the picture is, and labels are found by row number."""
    rows = {"train": [5, 0, 3], "val": [1, 0], "test": [2, 6]}
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, numbers in rows.items():
        arrays |= {
            f"{split}_{language}": random.random((len(numbers), 5, 4)).astype(np.float16) for language in ("de", "en")
        }
        arrays[f"{split}_rows"] = np.array(numbers)
        arrays[f"{split}_de"][:] = arrays[f"{split}_en"]
    (tmp_path / "multi30k").mkdir()
    np.savez(tmp_path / "multi30k" / "multi30k_mini.npz", **arrays)  # type: ignore[arg-type]
    dataset = registry.load("multi30k-mini", tmp_path, texts="item")
    assert dataset.splits["train"].labels is None
    concepts = {f"label_{split}": random.integers(0, 2, (7, 24)).astype(np.uint8) for split in rows}
    np.savez(tmp_path / "multi30k" / "concept_labels.npz", **concepts)  # type: ignore[arg-type]
    dataset = registry.load("multi30k-mini", tmp_path, texts="item")
    for split, numbers in rows.items():
        part = dataset.splits[split]  # type: ignore[index]
        assert part.captions.shape == part.images.shape == (len(numbers), 4)
        np.testing.assert_array_equal(part.captions, part.images)
        assert part.image_of_caption.tolist() == list(range(len(numbers)))
        np.testing.assert_array_equal(part.labels, concepts[f"label_{split}"][numbers])
    assert list(dataset.digests) == ["multi30k/multi30k_mini.npz", "multi30k/concept_labels.npz"]
    captions = registry.load("multi30k-mini", tmp_path)
    assert (captions.splits["train"].labels, captions.splits["train"].captions.shape) == (None, (15, 4))
    assert list(captions.digests) == ["multi30k/multi30k_mini.npz"]
    np.savez(tmp_path / "multi30k" / "concept_labels.npz", **{name: table[:5] for name, table in concepts.items()})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"multi30k-mini train: rows up to 5, but concept_labels\.npz has 5"):
        registry.load("multi30k-mini", tmp_path, texts="item")


def test_mini_of_the_real_data() -> None:
    need("multi30k/multi30k_mini.npz")
    concepts = np.load(need("multi30k/concept_labels.npz"), allow_pickle=False)
    rows = np.load(ROOT / "multi30k/multi30k_mini.npz", allow_pickle=False)["test_rows"]
    dataset = registry.load("multi30k-mini", ROOT, texts="item")
    assert [part.n_captions for part in dataset.splits.values()] == [1000, 200, 500]
    labels = label_matrices(dataset)
    np.testing.assert_array_equal(labels["test"], concepts["label_test"][rows])
    assert (labels["test"].sum(1) == 0).any(), "items without any concept stay"
    assert dataset.splits["train"].captions.astype(np.float64).std() == pytest.approx(1, abs=1e-6)


@pytest.fixture
def sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with made-up sentences in the layout of Multi30K."""
    monkeypatch.setenv("NOCOBENCH_CACHE", str(tmp_path / "cache"))
    random, words = np.random.default_rng(0), [f"word{chr(97 + i)}" for i in range(26)]
    root = tmp_path / "data" / "multi30k"
    for split, n in (("train", 60), ("val", 8), ("test", 9)):
        file = multi30k.FILE_OF_SPLIT[split]
        names = [f"task2/{file}.{k}.{language}.gz" for k in range(1, 6) for language in ("de", "en")]
        for name in names:
            write_lines(root / name, [" ".join(random.choice(words, 6)) for _ in range(n)])
        write_lines(root / "image_splits" / f"{file}_images.txt.gz", [f"{split}{i}.jpg" for i in range(n)])
    return tmp_path / "data"


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))


def test_multi30k_with_one_text_per_item(sentences: Path) -> None:
    concepts = {
        f"label_{split}": np.eye(24, dtype=np.uint8)[np.arange(n) % 24]
        for split, n in (("train", 60), ("val", 8), ("test", 9))
    }
    concepts["label_val"][3] = 0
    np.savez(sentences / "multi30k" / "concept_labels.npz", **concepts)  # type: ignore[arg-type]
    captions = registry.load("multi30k", sentences, dim=8, first=50)
    item = registry.load("multi30k", sentences, dim=8, first=50, texts="item")
    assert item.digests == captions.digests
    for split, n in (("train", 50), ("val", 8), ("test", 9)):
        one, five = item.splits[split], captions.splits[split]  # type: ignore[index]
        assert (one.captions.shape, one.captions.dtype) == ((n, 8), np.float32)
        assert one.images.tobytes() == five.images.tobytes()
        np.testing.assert_array_equal(one.labels, concepts[f"label_{split}"][:n])
        assert one.raw_captions is not None
        assert five.raw_captions is not None
        assert one.raw_captions[2] == " ".join(five.raw_captions[10:15])
    train = captions.splits["train"].captions.reshape(50, 5, 8).astype(np.float64).mean(1)
    test = captions.splits["test"].captions.reshape(9, 5, 8).astype(np.float64).mean(1)
    expected = (test - train.mean(0)) / (train - train.mean(0)).std()
    np.testing.assert_allclose(item.splits["test"].captions, expected, rtol=1e-5, atol=1e-6)
    assert label_matrices(item)["val"][3].sum() == 0


@pytest.mark.parametrize("name", ["multi30k", "multi30k-mini"])
def test_texts_of_another_kind_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: texts='words' are unknown; choose captions or item"):
        registry.load(name, tmp_path, texts="words")


def test_parts_are_named_once() -> None:
    """Consecutive parts of one table cover it without overlap."""
    rows = label_files.first_rows(100, 10, 50, 5, "x")
    assert [*rows["test"], *rows["train"], *rows["val"]] == list(range(60))
    rows = label_files.last_rows(100, 10, 5, "x")
    assert [*rows["train"], *rows["val"], *rows["test"]] == list(range(100))
