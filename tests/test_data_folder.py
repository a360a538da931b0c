"""The folder format for anybody's own features: what is read, what is refused, and what the command line says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nocobench.datasets import registry
from nocobench.datasets.types import DataError

PROGRAM = Path(__file__).resolve().parents[1] / "run_benchmark.py"
SIZES = {"train": 6, "val": 3, "test": 4}
PER_IMAGE = 2
SPLITS = tuple(SIZES)


def write_split(folder: Path, n: int, per_image: int, dims: tuple[int, int] = (4, 4), dtype: str = "float32") -> None:
    """Random features of one split; captions in the order of images."""
    random = np.random.default_rng(n)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", random.standard_normal((n, dims[0])).astype(dtype))
    np.save(folder / "captions.npy", random.standard_normal((n * per_image, dims[1])).astype(dtype))
    np.save(folder / "image_of_caption.npy", np.repeat(np.arange(n), per_image))


def write_extras(folder: Path) -> None:
    """All the optional files."""
    for split, n in SIZES.items():
        np.save(folder / split / "labels.npy", np.arange(n) % 3)
        names = "".join(f"{split}-{i}.jpg\n" for i in range(n))
        (folder / split / "image_ids.txt").write_text(names, encoding="utf-8")
        texts = "".join(f"caption {i} with\u2028odd ends\n" for i in range(n * PER_IMAGE))
        (folder / split / "captions.txt").write_text(texts, encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps({"shared_space": True, "remark": "drawn, CC0"}), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good folder with every optional file."""
    path = tmp_path / "my_features"
    for split, n in SIZES.items():
        write_split(path / split, n, PER_IMAGE)
    write_extras(path)
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        registry.load(f"{folder}/")
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message, "no remedy"
    return message


def test_everything_is_read_as_it_was_written(folder: Path) -> None:
    dataset = registry.load(f"{folder}/")
    assert (dataset.name, dataset.shared_space, dataset.has_real_noise) == ("my_features", True, False)
    assert dataset.remark == "drawn, CC0"
    for split, n in SIZES.items():
        part = dataset.splits[split]
        for table, file in ((part.images, "images"), (part.captions, "captions")):
            assert table.dtype == np.float32
            np.testing.assert_array_equal(table, np.load(folder / split / f"{file}.npy"))
        assert part.image_of_caption.tolist() == [i // PER_IMAGE for i in range(n * PER_IMAGE)]
        assert part.labels is not None
        assert part.labels.tolist() == [i % 3 for i in range(n)]
        assert part.image_ids == tuple(f"{split}-{i}.jpg" for i in range(n))
        assert part.raw_captions == tuple(f"caption {i} with\u2028odd ends" for i in range(n * PER_IMAGE))
    assert len(dataset.digests) == 3 * 6 + 1


def test_digests_follow_the_content_not_the_place(folder: Path) -> None:
    before = registry.load(f"{folder}/").digests
    moved = folder.rename(folder.parent / "elsewhere")
    (moved.parent / "deeper").mkdir()
    again = moved.rename(moved.parent / "deeper" / "my_features")
    assert registry.load(f"{again}/").digests == before
    (again / "train" / "captions.txt").write_text("x\n" * 12, encoding="utf-8")
    changed = registry.load(f"{again}/").digests
    assert {file for file in before if before[file] != changed[file]} == {"my_features/train/captions.txt"}


def test_the_three_arrays_suffice(folder: Path) -> None:
    for path in [folder / "dataset.json", *folder.glob("*/*.txt"), *folder.glob("*/labels.npy")]:
        path.unlink()
    dataset = registry.load(f"{folder}/")
    assert (dataset.shared_space, dataset.has_real_noise) == (False, False)
    assert dataset.splits["train"].labels is None
    assert dataset.splits["train"].image_ids is None
    assert dataset.splits["train"].raw_captions is None


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floats_become_float32(folder: Path, dtype: str) -> None:
    for path in [*folder.glob("*/images.npy"), *folder.glob("*/captions.npy")]:
        np.save(path, np.load(path).astype(dtype))
    images = registry.load(f"{folder}/").splits["val"].images
    assert images.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(images, np.load(folder / "val" / "images.npy").astype(np.float32))


def test_images_in_any_order_and_numbers_of_any_size(folder: Path) -> None:
    """Captions need not be sorted by image, and images may have different numbers of them; column-major arrays are fine."""
    np.save(folder / "val" / "image_of_caption.npy", np.array([2, 0, 1, 0, 2, 0], dtype=np.uint8))
    np.save(folder / "val" / "images.npy", np.asfortranarray(np.load(folder / "val" / "images.npy")))
    part = registry.load(f"{folder}/").splits["val"]
    assert part.image_of_caption.dtype == np.int64
    assert part.image_of_caption.tolist() == [2, 0, 1, 0, 2, 0]
    assert part.images.flags["C_CONTIGUOUS"]


def test_multi_hot_labels(folder: Path) -> None:
    for split, n in SIZES.items():
        np.save(folder / split / "labels.npy", np.eye(5, dtype=np.uint8)[np.arange(n) % 5])
    labels = registry.load(f"{folder}/").splits["test"].labels
    assert labels is not None
    assert (labels.dtype, labels.shape) == (np.uint8, (4, 5))


def test_files_may_be_links(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "images.npy").rename(tmp_path / "large.npy")
    (folder / "train" / "images.npy").symlink_to(tmp_path / "large.npy")
    (tmp_path / "linked").symlink_to(folder)
    assert registry.load(f"{tmp_path / 'linked'}/").name == "my_features"


Damage = Callable[[Path], object]


def change(file: str, how: Callable[[np.ndarray], object]) -> Damage:
    """Replace an array."""

    def damage(folder: Path) -> None:
        np.save(folder / file, np.asarray(how(np.load(folder / file))), allow_pickle=True)

    return damage


def put(file: str, value: object, at: object = 0) -> Damage:
    """Change one entry of an array."""

    def damage(folder: Path) -> None:
        array = np.load(folder / file)
        array[at] = value
        np.save(folder / file, array)

    return damage


def write(file: str, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def cut(file: str, bytes_kept: int) -> Damage:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:bytes_kept])


def claim(file: str, shape: str) -> Damage:
    """A header that promises another shape than the file holds."""

    def damage(folder: Path) -> None:
        data = (folder / file).read_bytes()
        end = data.index(b"\n") + 1
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(end - 11) + b"\n"
        (folder / file).write_bytes(data[:10] + header + data[end:])

    return damage


DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "no split": (lambda f: (f / "val").rename(f / "valid"), ["no folder val/", "images.npy"]),
    "no array": (lambda f: (f / "test" / "captions.npy").unlink(), ["test/captions.npy not found", "numpy.save"]),
    "no assignment": (lambda f: (f / "val" / "image_of_caption.npy").unlink(), ["val/image_of_caption.npy not found"]),
    "array is a folder": (
        lambda f: ((f / "val" / "images.npy").unlink(), (f / "val" / "images.npy").mkdir()),
        ["val/images.npy: not a readable npy file"],
    ),
    "empty file": (write("train/images.npy", b""), ["train/images.npy: not a readable npy file"]),
    "not numpy": (write("train/images.npy", "caption,1,2\n"), ["train/images.npy: not a readable npy file"]),
    "half a header": (cut("train/images.npy", 40), ["train/images.npy: not a readable npy file"]),
    "cut off": (cut("train/images.npy", 200), ["train/images.npy: claims 96 bytes", "holds 72", "copy or save"]),
    "cut assignment": (cut("test/image_of_caption.npy", 130), ["test/image_of_caption.npy: claims 64 bytes"]),
    "cut labels": (cut("test/labels.npy", 130), ["test/labels.npy: claims 32 bytes"]),
    "too long": (
        lambda f: (f / "val/images.npy").write_bytes((f / "val/images.npy").read_bytes() * 2),
        ["val/images.npy: claims 48 bytes", "holds 224"],
    ),
    "claims terabytes": (
        claim("val/images.npy", "(1000000000000, 4)"),
        ["claims 16,000,000,000,000 bytes", "holds 48"],
    ),
    "claims more than 64 bits": (claim("val/images.npy", "(4611686018427387904, 16)"), ["val/images.npy: claims"]),
    "claims less than nothing": (claim("val/images.npy", "(-3, -4)"), ["impossible shape (-3, -4)"]),
    "objects": (
        change("train/images.npy", lambda a: a.astype(object)),
        ["train/images.npy: holds Python objects", "plain numeric array"],
    ),
    "object assignment": (
        change("train/image_of_caption.npy", lambda a: a.astype(object)),
        ["train/image_of_caption.npy: holds Python objects"],
    ),
    "records": (
        change("train/images.npy", lambda a: np.zeros(6, dtype=[("x", "f4"), ("y", "f4")])),
        ["train/images.npy: void64 instead of float16, float32, float64"],
    ),
    "integers": (
        change("val/captions.npy", lambda a: a.astype("i4")),
        ["val/captions.npy: int32", "astype('float32')"],
    ),
    "complex": (change("val/captions.npy", lambda a: a.astype("c8")), ["val/captions.npy: complex64"]),
    "mixed in a split": (
        change("train/captions.npy", lambda a: a.astype("f2")),
        ["train/images.npy is float32, train/captions.npy is float16", "one dtype"],
    ),
    "mixed between splits": (change("test/images.npy", lambda a: a.astype("f8")), ["test/images.npy is float64"]),
    "one row": (change("val/images.npy", lambda a: a[0]), ["val images: shape (4,)", "one vector per row"]),
    "no dimensions": (change("val/images.npy", lambda a: a[:, :0]), ["val images: shape (3, 0)"]),
    "regions": (change("val/images.npy", lambda a: a[:, None]), ["val images: shape (3, 1, 4)"]),
    "not a number": (put("train/images.npy", np.nan, (4, 1)), ["my_features train images: NaN or inf in row 4"]),
    "infinite": (put("test/captions.npy", -np.inf, (7, 3)), ["my_features test captions: NaN or inf in row 7"]),
    "real assignment": (
        change("train/image_of_caption.npy", lambda a: a.astype("f4")),
        ["train/image_of_caption.npy: float32 instead of integers"],
    ),
    "square assignment": (
        change("train/image_of_caption.npy", lambda a: a[:, None]),
        ["train image_of_caption: int64 (12, 1)", "one integer per caption"],
    ),
    "assignment too short": (
        change("train/image_of_caption.npy", lambda a: a[:-1]),
        ["train image_of_caption: 11 entries for 12 captions"],
    ),
    "one row per caption": (
        change("train/images.npy", lambda a: np.repeat(a, 2, axis=0)),
        ["train: image 6 (6 in all) has no caption", "remove such images"],
    ),
    "caption without image": (
        put("train/image_of_caption.npy", 6, 11),
        ["train image_of_caption: caption 11 has image 6, but images are 0 to 5", "from 0"],
    ),
    "counted from the end": (put("train/image_of_caption.npy", -1, 3), ["caption 3 has image -1"]),
    "image without caption": (
        change("train/image_of_caption.npy", lambda a: np.where(a == 2, 1, a)),
        ["train: image 2 (1 in all) has no caption"],
    ),
    "no images": (
        lambda f: [change(f"val/{x}.npy", lambda a: a[:0])(f) for x in ("images", "captions", "image_of_caption")],
        ["val: 0 images", "at least 2"],
    ),
    "a single image": (
        lambda f: [
            change(f"val/{x}.npy", lambda a, n=n: a[:n])(f)
            for x, n in (("images", 1), ("captions", 2), ("image_of_caption", 2))
        ],
        ["val: 1 images", "at least 2"],
    ),
    "other images at test": (
        change("test/images.npy", lambda a: a[:, :3]),
        ["train images have 4 dimensions, test images 3"],
    ),
    "no shared space": (
        lambda f: [change(f"{split}/captions.npy", lambda a: a[:, :3])(f) for split in SPLITS],
        ["train images have 4 dimensions, train captions 3", "shared space"],
    ),
    "labels too few": (change("val/labels.npy", lambda a: a[:2]), ["val labels: 2 rows for 3 images"]),
    "label zero-d": (change("val/labels.npy", lambda a: a[0]), ["val labels: int64 ()"]),
    "labels real": (change("val/labels.npy", lambda a: a / 2), ["val labels: float64 (3,)", "class number"]),
    "labels only in one": (lambda f: (f / "val/labels.npy").unlink(), ["train has class labels, val no labels"]),
    "multi-hot counts": (
        change("val/labels.npy", lambda a: np.full((3, 2), 2, dtype=np.uint8)),
        ["val labels: uint8 (3, 2)"],
    ),
    "id twice": (write("train/image_ids.txt", "a\nb\nc\nb\ne\nf\n"), ["image 'b' occurs twice in train"]),
    "id in two splits": (
        write("test/image_ids.txt", "train-0.jpg\nx\ny\nz\n"),
        ["image 'train-0.jpg' occurs in train and in test", "one split only"],
    ),
    "ids too few": (write("val/image_ids.txt", "a\nb\n"), ["val: 2 image_ids for 3 rows"]),
    "texts too many": (write("val/captions.txt", "a\n" * 7), ["val: 7 raw_captions for 6 rows"]),
    "not text": (write("val/captions.txt", b"\xff\xfe\n" * 6), ["val/captions.txt: not a readable txt file"]),
    "unknown key": (
        write("dataset.json", '{"shared_spaces": true}'),
        ["dataset.json: unknown key 'shared_spaces'", "did you mean 'shared_space'?"],
    ),
    "unlike any key": (write("dataset.json", '{"zzz": 1}'), ["known: shared_space, has_real_noise, remark"]),
    "truth as text": (
        write("dataset.json", '{"shared_space": "yes"}'),
        ["dataset.json: shared_space is 'yes'", "true or false"],
    ),
    "truth as number": (write("dataset.json", '{"has_real_noise": 1}'), ["has_real_noise is 1"]),
    "remark as number": (write("dataset.json", '{"remark": 1}'), ["remark is 1", "a text"]),
    "no json": (write("dataset.json", "shared_space: true\n"), ["dataset.json: ", "JSON object"]),
    "deep json": (write("dataset.json", "[" * 100_000), ["dataset.json: "]),
    "a list": (write("dataset.json", "[]"), ["dataset.json: a list", "JSON object"]),
    "key twice": (write("dataset.json", '{"remark": "a", "remark": "b"}'), ["a key occurs twice"]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_sentence_with_place_finding_and_remedy(folder: Path, name: str) -> None:
    registry.load(f"{folder}/")
    damage, words = DAMAGES[name]
    damage(folder)
    message = refusal(folder)
    assert "my_features" in message
    assert all(word in message for word in words), message


def test_a_float64_beyond_float32_is_infinite(folder: Path) -> None:
    for path in [*folder.glob("*/images.npy"), *folder.glob("*/captions.npy")]:
        np.save(path, np.load(path).astype(np.float64))
    put("val/images.npy", 1e39, (1, 1))(folder)
    assert "val images: NaN or inf in row 1" in refusal(folder)


def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path) -> None:
    """A file that would write another one if it were unpickled."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    trap = np.empty(6, dtype=object)
    trap[0] = Trap()
    for file in ("images.npy", "labels.npy", "image_of_caption.npy"):
        kept = (folder / "train" / file).read_bytes()
        np.save(folder / "train" / file, trap, allow_pickle=True)
        assert "Python objects" in refusal(folder)
        (folder / "train" / file).write_bytes(kept)
    assert not (tmp_path / "sprung").exists()


CLIP_SETS = {
    "flickr30k-clip": ((29_000, 1_014, 1_000), 5, False),
    "coco-clip": ((113_287, 5_000, 5_000), 5, False),
    "cc120k-clip": ((118_851, 1_000, 1_000), 1, True),
}


@pytest.mark.parametrize("name", CLIP_SETS)
def test_the_field_s_sets_on_features_of_the_user(tmp_path: Path, name: str) -> None:
    images, per_image, real = CLIP_SETS[name]
    for split, n in zip(SPLITS, images, strict=True):
        write_split(tmp_path / name / split, n, per_image, dims=(2, 2), dtype="float16")
    dataset = registry.load(name, tmp_path)
    assert (dataset.name, dataset.shared_space, dataset.has_real_noise) == (name, True, real)
    assert tuple(dataset.splits[split].n_images for split in SPLITS) == images
    assert dataset.splits["train"].n_captions == per_image * images[0]
    assert f"{name}/train/images.npy" in dataset.digests
    assert registry.describe(name, tmp_path) == (True, f"{dataset.remark}{sizes_text(images, per_image)}")


def sizes_text(images: tuple[int, ...], per_image: int) -> str:
    return " (" + ", ".join(f"{s} {n:,} x {n * per_image:,}" for s, n in zip(SPLITS, images, strict=True)) + ")"


@pytest.mark.parametrize("name", CLIP_SETS)
@pytest.mark.parametrize("wrong", ["images", "captions"])
def test_another_size_is_refused(tmp_path: Path, name: str, wrong: str) -> None:
    images, per_image, _ = CLIP_SETS[name]
    for split, n in zip(SPLITS, images, strict=True):
        write_split(tmp_path / name / split, n, per_image, dims=(1, 1))
    change(f"test/{wrong}.npy", lambda a: a[:-1])(tmp_path / name)
    for answer in (lambda: registry.load(name, tmp_path), lambda: registry._get(name).preview(tmp_path)):
        with pytest.raises(DataError, match=rf"{name}/test: .* but the test split of .* has {images[2]:,} and"):
            answer()


def test_an_absent_set_says_where_it_goes_and_what_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        registry.load("coco-clip", tmp_path)
    assert str(caught.value) == (
        f"coco-clip: there is no folder {tmp_path / 'coco-clip'}; make it from your CLIP features of MS-COCO as README.md, "
        '"Bring your own features", shows'
    )


def command(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NOCOBENCH_")}
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean,
        timeout=120,
    )


def test_data_check_says_what_is_there_and_what_to_do_next(folder: Path) -> None:
    result = command("data", "check", "my_features", cwd=folder.parent)
    assert result.returncode == 0, result.stderr
    assert "train: 6 images of 4 dimensions, 12 captions of 4, with labels, image ids, texts" in result.stdout
    assert "share one space" in result.stdout
    assert f"--datasets {folder} --protocol flickr30k-clip-pairs" in result.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["check", "nowhere"], ["nowhere is no folder", "train/, val/ and test/"]),
        (["check", "digits"], ["digits is no folder but the name of a data set", "data fetch digits"]),
        (["check", "my_features/dataset.json"], ["dataset.json is no folder"]),
        (["check", "my_features/train"], ["no folder train/"]),
        (["fetch", "digitz"], ["unknown data set 'digitz'", "did you mean 'digits'?"]),
        (["fetch", "folder"], ["the data set's name is the path of your folder"]),
        (["fetch", "multi30k", "--data-root", "."], ["github.com/multi30k/dataset", "multi30k/task2"]),
        (["fetch", "flickr30k-clip", "--data-root", "."], ['README.md, "Bring your own features"']),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_mistakes_on_the_command_line_are_one_sentence(folder: Path, words: list[str], expected: list[str]) -> None:
    result = command("data", *words, cwd=folder.parent)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert all(text in result.stderr for text in expected), result.stderr


def test_a_folder_named_like_a_known_set_is_that_set_or_refused(folder: Path) -> None:
    """Records are kept under the name, so that one name must mean one thing."""
    taken = folder.rename(folder.parent / "digits")
    result = command("data", "check", taken)
    assert result.returncode == 2
    assert "has the name of a known data set; rename it" in result.stderr
    clip = taken.rename(taken.parent / "flickr30k-clip")
    result = command("data", "check", clip)
    assert result.returncode == 2
    assert "the train split of Flickr30K has 29,000 and 145,000" in result.stderr


def test_data_fetch_shows_what_was_read() -> None:
    result = command("data", "fetch", "digits")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("digits is here: handwritten digits")
    assert "sha256" in result.stdout
