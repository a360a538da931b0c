"""The loaders of real data against what is known of the sets: sizes, digests, splits, and scores measured independently.

Files are looked for in ``$NOCOBENCH_DATA``, else ``../shared/data``; a test whose files are absent is skipped.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from nocobench.datasets import multi30k, noise, registry
from nocobench.datasets.types import DataError, PairDataset

ROOT = registry.default_data_root()

# Images per split, captions per image, dimensions (image, caption), the folder, and whether there are labels.
FACTS: dict[str, tuple[tuple[int, int, int], int, tuple[int, int], str, bool]] = {
    "emoji": ((1200, 144, 300), 3, (256, 256), "emoji", True),
    "multi30k-mini": ((1000, 200, 500), 5, (128, 128), "multi30k", False),
    "wikipedia": ((1973, 200, 693), 1, (128, 10), "wikipedia", True),
    "uci_mfeat": ((1300, 200, 500), 1, (76, 64), "uci_mfeat", True),
    "cub10": ((350, 50, 200), 1, (1024, 300), "cub10", True),
    "cc_web": ((621, 60, 200), 1, (128, 128), "cc_web", False),
    "digits": ((1197, 200, 400), 1, (32, 32), "", True),
}
# sha256 as published with the files.
DIGESTS = {
    "emoji": {"emoji/emoji.npz": "2a92a08560ededcceb8d7b41d9c713df36feb37690d1df959d31f2bce0da40fc"},
    "multi30k-mini": {"multi30k/multi30k_mini.npz": "341f8cb4235422b645b501ea7ad46a53d7f25be86c16ee14b6b0e97b35c27638"},
    "wikipedia": {
        "wikipedia/raw_features.mat": "ca628f765a69575e168ab29eb97f5ade12fadf47b31de1328c7ff631c7f225ae",
        "wikipedia/trainset_txt_img_cat.list": "30c1ba8afbe90da5986de9b12496b6dd2e4680d3876b79ab7aae2e437d5819a3",
        "wikipedia/testset_txt_img_cat.list": "ec3123ee31cc89dd95fbeb23eb73b2ecfd1d8909bba863723471aad99408c1eb",
    },
    "uci_mfeat": {"uci_mfeat/uci_mfeat.npz": "ac8a3cb2d2a188b1e39db11d6cf644b0bb6a2f04c45add1793f5fd2bc2a834de"},
    "cub10": {"cub10/cub10.npz": "7b0882a7688086d6cf65910bf6cb199cbc5195340b8bef6c7c23a79170660cac"},
    "cc_web": {
        "cc_web/image_features.npz": "1fd153240b0682aa3d501ca0f9d8892b19878c5dcdc1e8c1bfe5eaf8e4ee0ef0",
        "cc_web/pairs.tsv": "3c31ec21ea4d8e0fa721567ece486a795af0c39865323d68835f3b2d71636e45",
    },
}


def need(path: str) -> Path:
    """A file or folder of the data root, or a skip."""
    if not (ROOT / path).exists():
        pytest.skip(f"{ROOT / path} is not here; set NOCOBENCH_DATA to the folder that holds it")
    return ROOT / path


def real(name: str) -> PairDataset:
    need(FACTS[name][3])
    return registry.load(name, ROOT)


@pytest.mark.parametrize("name", FACTS)
def test_sizes_and_assignment(name: str) -> None:
    images, per_image, (image_dim, text_dim), _, labelled = FACTS[name]
    dataset = real(name)
    assert dataset.name == name
    assert not dataset.shared_space
    assert dataset.has_real_noise == (name == "cc_web")
    for split, n in zip(("train", "val", "test"), images, strict=True):
        part = dataset.splits[split]
        assert (part.images.shape, part.captions.shape) == ((n, image_dim), (n * per_image, text_dim))
        assert part.images.dtype == part.captions.dtype == np.float32
        assert part.image_of_caption.dtype == np.int64
        assert part.image_of_caption.tolist() == [c // per_image for c in range(n * per_image)]
        assert part.image_ids is not None
        assert (part.labels is not None) == labelled
        if part.labels is not None:
            assert part.labels.dtype == np.int64


@pytest.mark.parametrize("name", FACTS)
def test_no_image_in_two_splits_and_the_same_data_every_time(name: str) -> None:
    first, second = real(name), real(name)
    ids = [identifier for split in first.splits.values() for identifier in split.image_ids or ()]
    assert len(ids) == len(set(ids)) == sum(FACTS[name][0])
    assert first.digests == second.digests
    for split, part in first.splits.items():
        for field in ("images", "captions", "image_of_caption"):
            assert getattr(part, field).tobytes() == getattr(second.splits[split], field).tobytes(), field
        assert (part.image_ids, part.raw_captions) == (
            second.splits[split].image_ids,
            second.splits[split].raw_captions,
        )


@pytest.mark.parametrize(
    ("name", "pictures"), [("emoji", 3), ("multi30k-mini", 0), ("cub10", 0), ("cc_web", 0), ("wikipedia", 3)]
)
def test_pictures_of_test_in_train(name: str, pictures: int) -> None:
    """By their features, whatever the ids say; these pairs of equal pictures are in the sets as published."""
    splits = real(name).splits
    seen = {row.tobytes() for split in ("train", "val") for row in splits[split].images}
    assert len({row.tobytes() for row in splits["test"].images} & seen) == pictures


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_are_those_of_the_files(name: str) -> None:
    found = real(name).digests
    assert found.items() >= DIGESTS[name].items()
    for file, digest in found.items():
        assert hashlib.sha256((ROOT / file).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", [name for name in FACTS if name not in ("emoji", "multi30k-mini", "cc_web")])
def test_features_are_standardised_on_the_training_split(name: str) -> None:
    """Also no column of any split has run away."""
    splits = real(name).splits
    for side in ("images", "captions"):
        columns = getattr(splits["train"], side).astype(np.float64)
        np.testing.assert_allclose(columns.mean(0), 0, atol=1e-5)
        spread = columns.std(0)
        assert set(np.round(spread[spread > 0], 4)) == {1.0}
        assert abs(getattr(splits["test"], side).std() - columns.std()) < 0.2


def test_emoji_texts_labels_and_names_belong_to_the_pictures() -> None:
    train = real("emoji").splits["train"]
    assert train.labels is not None
    assert train.raw_captions is not None
    assert train.image_ids is not None
    assert np.bincount(train.labels).tolist() == [60, 116, 5, 98, 196, 275, 128, 165, 157]
    face = train.image_ids.index("1f600")
    assert train.raw_captions[3 * face] == "grinning face"
    assert train.raw_captions[3 * face + 2].startswith("face, smile, happy")
    assert len({train.raw_captions[3 * i] for i in range(train.n_images)}) == train.n_images


def test_wikipedia_equals_its_other_copy() -> None:
    """Class counts of the README, and labels and order of wiki.npz, which was made separately."""
    splits = real("wikipedia").splits
    other = np.load(need("wikipedia/wiki.npz"), allow_pickle=False)
    test = splits["test"]
    assert test.labels is not None
    assert np.bincount(test.labels).tolist() == [34, 88, 96, 85, 65, 58, 51, 41, 71, 104]
    np.testing.assert_array_equal(test.labels, other["label_test"])
    held = np.random.RandomState(0).permutation(2173)
    train, val = np.sort(held[200:]), np.sort(held[:200])
    np.testing.assert_array_equal(splits["train"].labels, other["label_train"][train])
    np.testing.assert_array_equal(splits["val"].labels, other["label_train"][val])
    mean, spread = other["txt_train"][train].mean(0), other["txt_train"][train].std(0)
    np.testing.assert_allclose(test.captions, (other["txt_test"] - mean) / spread, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["uci_mfeat", "cub10", "digits", "wikipedia"])
def test_every_class_is_in_every_split(name: str) -> None:
    for split in real(name).splits.values():
        assert split.labels is not None
        assert set(split.labels.tolist()) == set(range(10))


def test_cc_web_pairs_are_those_of_the_list() -> None:
    test = real("cc_web").splits["test"]
    lines = (need("cc_web/pairs.tsv")).read_text(encoding="utf-8").split("\n")[1:]
    rows = [line.split("\t") for line in lines if line]
    listed = {row[2]: row[3] for row in rows if row[1] == "test"}
    assert test.raw_captions is not None
    assert dict(zip(test.image_ids or (), test.raw_captions, strict=True)) == listed


def ridge_cca_rsum(dataset: PairDataset, reg: float, dim: int = 128) -> float:
    """Closed form in numpy, independent of the suite's method and metrics; ranks by counting, ties in favour of the query."""

    def inverse_root(covariance: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(covariance)
        return (vectors / np.sqrt(values.clip(0) + reg * values.clip(0).mean())) @ vectors.T

    train, test = dataset.splits["train"], dataset.splits["test"]
    x, y = train.images[train.image_of_caption].astype(float), train.captions.astype(float)
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    x_root, y_root = inverse_root(x.T @ x / len(x)), inverse_root(y.T @ y / len(y))
    left, correlation, right = np.linalg.svd(x_root @ (x.T @ y / len(x)) @ y_root, full_matrices=False)
    scale = np.sqrt(correlation[:dim])
    a = (test.images - x_mean) @ x_root @ left[:, :dim] * scale
    b = (test.captions - y_mean) @ y_root @ right[:dim].T * scale
    similarity = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    own = test.image_of_caption
    mine = own[None] == np.arange(len(a))[:, None]
    best = np.where(mine, similarity, -2).max(1, keepdims=True)
    from_image = ((similarity > best) & ~mine).sum(1)
    from_text = (similarity > similarity[own, np.arange(len(own))]).sum(0)
    return float(sum(100 * (rank < k).mean() for rank in (from_image, from_text) for k in (1, 5, 10)))


@pytest.mark.parametrize(
    ("name", "reg", "measured"),
    [
        ("emoji", 0.5, 268.9),
        ("multi30k-mini", 0.05, 340.1),
        ("uci_mfeat", 0.05, 145.6),
        ("cub10", 0.05, 100.5),
        ("wikipedia", 0.05, 15.9),
    ],
)
def test_cca_scores_as_measured_before_this_suite(name: str, reg: float, measured: float) -> None:
    """Numbers of the data's READMEs. Theirs also trained on what is validation here, which is worth up to 10 on the small sets."""
    assert ridge_cca_rsum(real(name), reg) == pytest.approx(measured, abs=12)


def test_cc_web_is_far_above_chance_though_its_pairs_are_noisy() -> None:
    """Chance is 2 (0.5 + 2.5 + 5) = 16; measured 65.5 with one more kind of image feature and 681 training pairs."""
    assert 40 < ridge_cca_rsum(real("cc_web"), 0.05) < 90


# Multi30K: the real code on a slice of the real files.

SLICE = {"train": 240, "val": 30, "test": 40}


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))


def head(path: Path, count: int) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().split("\n")[:count]


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the first lines of all files, and a cache of its own."""
    source = need("multi30k/task2").parent
    monkeypatch.setenv("NOCOBENCH_CACHE", str(tmp_path / "cache"))
    for split, file in multi30k.FILE_OF_SPLIT.items():
        names = [f"task2/{file}.{k}.{language}.gz" for k in range(1, 6) for language in ("de", "en")]
        for name in [*names, f"image_splits/{file}_images.txt.gz"]:
            write_lines(tmp_path / "data" / "multi30k" / name, head(source / name, SLICE[split]))
    return tmp_path / "data"


def never(*arguments: object) -> dict[str, np.ndarray]:
    raise AssertionError("computed although the features are kept")


def test_multi30k_follows_its_recipe(little: Path) -> None:
    dataset = registry.load("multi30k", little, dim=16)
    for split, n in SLICE.items():
        part = dataset.splits[split]
        assert (part.images.shape, part.captions.shape) == ((n, 16), (5 * n, 16))
        assert part.image_of_caption.tolist() == [c // 5 for c in range(5 * n)]
        np.testing.assert_allclose(np.linalg.norm(part.captions, axis=1), 1, rtol=1e-5)
        file = little / "multi30k" / "task2" / f"{multi30k.FILE_OF_SPLIT[split]}.4.en.gz"
        assert part.raw_captions is not None
        assert list(part.raw_captions[3::5]) == head(file, n)
    train = dataset.splits["train"].images.astype(np.float64)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    assert train.std() == pytest.approx(1)
    assert len(dataset.digests) == 30 + 3 + 2
    assert dataset.splits["train"].labels is None


def test_multi30k_is_computed_once(little: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "made at first use" in registry.describe("multi30k", little)[1]
    first = registry.load("multi30k", little, dim=16)
    registry.load("multi30k", little)
    monkeypatch.setattr(multi30k, "sentence_vectors", never)
    again = registry.load("multi30k", little, dim=16)
    assert first.digests == again.digests
    assert first.splits["test"].images.tobytes() == again.splits["test"].images.tobytes()
    here, remark = registry.describe("multi30k", little)
    assert here
    assert "features are ready (train 240 x 1,200, val 30 x 150, test 40 x 200)" in remark
    with pytest.raises(AssertionError, match="computed although"):
        registry.load("multi30k", little, dim=17)


def test_multi30k_learns_from_training_sentences_only(little: Path) -> None:
    before = registry.load("multi30k", little, dim=16)
    for language in ("de", "en"):
        file = little / "multi30k" / "task2" / f"test_2016.1.{language}.gz"
        write_lines(file, [*head(file, 39), "zebra zebra quux"])
    after = registry.load("multi30k", little, dim=16)
    assert before.splits["train"].images.tobytes() == after.splits["train"].images.tobytes()
    assert before.splits["train"].captions.tobytes() == after.splits["train"].captions.tobytes()
    changed = np.flatnonzero((before.splits["test"].images != after.splits["test"].images).any(1))
    assert changed.tolist() == [39]


def test_multi30k_first_items(little: Path) -> None:
    whole, part = registry.load("multi30k", little, dim=16), registry.load("multi30k", little, dim=16, first=50)
    assert (part.splits["train"].n_images, part.splits["test"].n_images) == (50, 40)
    np.testing.assert_array_equal(part.splits["train"].captions, whole.splits["train"].captions[:250])
    assert part.splits["train"].image_ids == (whole.splits["train"].image_ids or ())[:50]
    assert part.splits["train"].images.astype(np.float64).std() == pytest.approx(1)


def test_multi30k_takes_its_optional_files(little: Path) -> None:
    """Plain lists of images, as in the repository, and labels."""
    zipped = little / "multi30k" / "image_splits" / "val_images.txt.gz"
    zipped.with_suffix("").write_bytes(gzip.decompress(zipped.read_bytes()))
    zipped.unlink()
    arrays = {f"label_{split}": np.eye(3, dtype=np.uint8)[np.arange(n) % 3] for split, n in SLICE.items()}
    np.savez(little / "multi30k" / "concept_labels.npz", **arrays)  # type: ignore[arg-type]
    dataset = registry.load("multi30k", little, dim=16, first=50)
    np.testing.assert_array_equal(dataset.splits["train"].labels, arrays["label_train"][:50])
    assert {"multi30k/image_splits/val_images.txt", "multi30k/concept_labels.npz"} <= set(dataset.digests)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim=0 is no number of components"),
        ({"dim": "256"}, "dim='256' is no number"),
        ({"dim": 1_000_000}, "no features of 1000000 dimensions .*choose a smaller dim"),
        ({"dim": 16, "first": 1}, "first=1 training items; choose an integer from 2 to 240"),
        ({"dim": 16, "first": 241}, "first=241 training items"),
        ({"frist": 16}, r"unknown option 'frist'; did you mean 'first'\?"),
    ],
)
def test_multi30k_refuses_impossible_options(little: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        registry.load("multi30k", little, **options)


@pytest.mark.parametrize("what", ["shorter", "missing", "damaged", "no list"])
def test_multi30k_refuses_damaged_files(little: Path, what: str) -> None:
    file = little / "multi30k" / "task2" / "val.3.de.gz"
    if what == "shorter":
        write_lines(file, head(file, 29))
        message = r"val\.3\.de\.gz: 29 lines for 30 images; get the text and image_splits of one commit"
    elif what == "missing":
        file.unlink()
        message = r"multi30k: .*val\.3\.de\.gz not found; clone github\.com/multi30k/dataset"
    elif what == "damaged":
        file.write_bytes(file.read_bytes()[:-20])
        message = r"val\.3\.de\.gz: not a readable de in gzip file .*; get the file again"
    else:
        (little / "multi30k" / "image_splits" / "val_images.txt.gz").unlink()
        message = r"multi30k: .*val_images\.txt\.gz not found; clone"
    with pytest.raises(DataError, match=message):
        registry.load("multi30k", little, dim=16)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_multi30k_in_full() -> None:
    """Features equal those that were made separately for the mini set, and CCA scores as measured there (d=256, ridge 0.01)."""
    need("multi30k/task2")
    dataset = registry.load("multi30k", ROOT)
    sizes = [(split.n_images, split.n_captions) for split in dataset.splits.values()]
    assert sizes == [(29_000, 145_000), (1_014, 5_070), (1_000, 5_000)]
    ids = [identifier for split in dataset.splits.values() for identifier in split.image_ids or ()]
    assert len(set(ids)) == 31_014
    mini = np.load(need("multi30k/multi30k_mini.npz"), allow_pickle=False)
    ours = dataset.splits["test"].captions.reshape(1000, 5, 256)[mini["test_rows"]][..., :128]
    ours = ours / np.linalg.norm(ours, axis=-1, keepdims=True)
    theirs = mini["test_en"].astype(np.float64)
    # Similarities, because the signs of singular vectors may differ between machines; float16 keeps three digits.
    np.testing.assert_allclose(ours[:, 0] @ ours[:, 1].T, theirs[:, 0] @ theirs[:, 1].T, atol=5e-3)
    assert ridge_cca_rsum(dataset, 0.01, 256) == pytest.approx(377.0, abs=5)
    assert ridge_cca_rsum(registry.load("multi30k", ROOT, first=5000), 0.01, 256) == pytest.approx(363.6, abs=10)


# Published index files of noise on sets of their sizes.

REPLAYED = {
    "image_level_f30k": (29_000, {0.2: 0.19997, 0.4: 0.4, 0.5: 0.5, 0.6: 0.59993, 0.8: 0.79997}),
    "image_level_coco": (113_287, {0.2: 0.2, 0.4: 0.4, 0.5: 0.5, 0.6: 0.6, 0.8: 0.8}),
    "caption_level_f30k": (29_000, {0.2: 0.19999, 0.4: 0.4, 0.5: 0.49998, 0.6: 0.59997}),
}


@pytest.mark.parametrize(("key", "rate"), [(key, rate) for key, (_, rates) in REPLAYED.items() for rate in rates])
def test_published_noise_is_replayed(key: str, rate: float) -> None:
    """Realised rates as counted in the files' README; image level moves all five captions of an image together."""
    file = need("noise_index/noise_index.npz")
    n_images, rates = REPLAYED[key]
    truth = np.repeat(np.arange(n_images), 5)
    drawn = noise.realise("replay", "any", truth, rate, 0, file=str(file), key=f"{key}_{{rate}}")
    assert drawn.is_noisy is not None
    assert drawn.realised_rate == pytest.approx(rates[rate], abs=1e-4)
    given = np.load(file, allow_pickle=False)[f"{key}_{rate}"]
    wrong = drawn.is_noisy.reshape(-1, 5).sum(1)
    if len(given) == n_images:
        np.testing.assert_array_equal(drawn.target_index, np.repeat(given, 5))
        assert set(Counter(wrong.tolist())) == {0, 5}
    else:
        np.testing.assert_array_equal(drawn.target_index, given)
        assert set(Counter(wrong.tolist())) == {0, 1, 2, 3, 4, 5}
    assert np.bincount(drawn.target_index, minlength=n_images).tolist() == [5] * n_images


@pytest.mark.parametrize(
    ("key", "n_images", "message"),
    [
        ("image_level_f30k_0.4", 1000, "29000 entries, but this data set has 5000 captions of 1000 images"),
        ("image_level_f30k_0.9", 29_000, "no array 'image_level_f30k_0.9'"),
    ],
)
def test_a_published_file_of_another_set_is_refused(key: str, n_images: int, message: str) -> None:
    file = need("noise_index/noise_index.npz")
    truth = np.repeat(np.arange(n_images), 5)
    with pytest.raises(DataError, match=message):
        noise.realise("replay", "any", truth, 0.4, 0, file=str(file), key=key)
