"""Every registered loader on small files in its layout, some of whose arrays or lines are others."""

from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.asking import check_sentence, checked
from fuzz.counting import attempt, fuzzing
from fuzz.damage import damaged
from hypothesis import given
from hypothesis import strategies as st
from label_layouts import write_matlab5, write_matlab73
from nocobench.datasets import inria, mirflickr, nuswide, registry, xmedia, xmedianet
from nocobench.datasets.labels import label_matrices
from nocobench.datasets.types import DataError

RNG = np.random.default_rng(0)
ROWS = {"train": np.arange(8), "val": np.arange(8, 10), "test": np.arange(10, 12)}


def table(n: int, dim: int) -> np.ndarray:
    return RNG.standard_normal((n, dim)).astype(np.float32)


def classes(n: int) -> np.ndarray:
    return np.arange(n) % 2


Arrays = dict[str, np.ndarray]
BUNDLES: dict[str, tuple[str, str, Arrays]] = {
    "cub10": ("cub10", "cub10/cub10.npz", {"img": table(12, 4), "txt": table(12, 3), "label": classes(12), **ROWS}),
    "emoji": ("emoji", "emoji/emoji.npz", {"img_feat": table(12, 4), "txt_feat": table(36, 3).reshape(12, 3, 3), "group": classes(12),
    **ROWS}),
    "cc_web": ("cc_web", "cc_web/image_features.npz", {"hog": table(12, 5), "hsv_hist": table(12, 4), **ROWS}),
    "uci_mfeat": (
        "uci_mfeat",
        "uci_mfeat/uci_mfeat.npz",
        {
            f"{view}_{half}": classes(n) if view == "label" else table(n, 3)
            for view in ("fou", "kar", "label")
            for half, n in (("train", 206), ("test", 4))
        },
    ),
    "multi30k-mini": (
        "multi30k-mini",
        "multi30k/multi30k_mini.npz",
        {f"{split}_{part}": table(10, 4).reshape(2, 5, 4) for split in ROWS for part in ("de",
            "en")} | {f"{split}_rows": np.arange(2) for split in ROWS},
    ),
    "wikipedia": (
        "wikipedia",
        "wikipedia/wiki.npz",
        {
            f"{part}_{half}": classes(n) if part == "label" else table(n, 3)
            for part in ("img", "txt", "label")
            for half, n in (("train", 206), ("test", 4))
        },
    ),
}  # fmt: skip
TEXTS = {
    "emoji/items.tsv": "codepoints\tgroup\n" + "".join(f"1f60{i}\tx\n" for i in range(12)),
    "emoji/captions_en.txt": "a smile\n" * 36,
    "cc_web/pairs.tsv": "source_index\tcaption\n" + "".join(f"{i}\ta man in a hat {i}\n" for i in range(12)),
}


def write(root: Path, file: str, arrays: Arrays) -> Path:
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return path


def load(name: str, root: Path, **options: Any) -> bool:
    """Whether the set was loaded: refused in one sentence otherwise, without a warning on the screen."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = registry.load(name, root, **options)
            with contextlib.suppress(DataError):  # several captions per image
                label_matrices(dataset)
    except DataError as error:
        check_sentence(error)
        return False
    return True


@pytest.mark.parametrize("name", [name for name in BUNDLES if name != "cc_web"])
def test_good_files_are_read(name: str) -> None:
    """Otherwise the tests below would try nothing; the captions of cc_web would have to be many."""
    dataset, file, arrays = BUNDLES[name]
    write(Path("root"), file, arrays)
    assert load(dataset, Path("root"))


kinds = st.sampled_from(("<f2", "<f4", "<f8", "<i8", "<u8", "|u1", "|b1", "<c16", "|S3", "<U2", "<M8[s]", "|O"))
numbers = st.sampled_from((0, 1, -1, 11, 12, 10**6, 2**63 - 1, np.nan, np.inf, -np.inf, 1e300))


@st.composite
def other(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """An array of another kind or shape, or with other numbers in it."""
    how = draw(st.sampled_from(("kind", "shape", "number", "numbers", "rows", "empty")))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if how == "kind":
                return array.astype(draw(kinds))
            if how == "shape":
                return np.resize(array, draw(st.lists(st.integers(0, 6), max_size=4)))
            if how == "rows":
                return array[: draw(st.integers(0, len(array)))]
            if how == "empty":
                return array[:0]
            changed = array.copy()
            changed.flat[draw(st.integers(0, array.size - 1)) if how == "number" else slice(None)] = draw(numbers)
            return changed
        except (ValueError, OverflowError, TypeError):
            return array[::-1]


@given(st.sampled_from(sorted(BUNDLES)), st.data())
@fuzzing(80)
def test_other_arrays(name: str, data: st.DataObject) -> None:
    dataset, file, arrays = BUNDLES[name]
    chosen = data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=3, unique=True))
    changed = {key: data.draw(other(arrays[key])) for key in chosen}
    options = {"texts": data.draw(st.sampled_from(("captions", "item")))} if name == "multi30k-mini" else {}
    with attempt("loader", (name, changed)):
        write(Path("root"), file, arrays | changed)
        load(dataset, Path("root"), **options)


@given(st.sampled_from(sorted(TEXTS)), st.data())
@fuzzing(50)
def test_other_lines(file: str, data: st.DataObject) -> None:
    name = file.partition("/")[0]
    content = data.draw(damaged(TEXTS[file].encode()))
    with attempt("loader", content):
        write(Path("root"), BUNDLES[name][1], BUNDLES[name][2])
        (Path("root") / file).write_bytes(content)
        load(name, Path("root"))


RELEASED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "xmedia": (xmedia, "xmedia/XMediaFeatures.mat", {
        f"{prefix}": value for half, cat, n in (("tr", "trImgCat", 6), ("te", "teImgCat", 8))
        for prefix, value in ((f"I_{half}_CNN", table(n, 3)), (f"T_{half}_BOW", table(n, 2)), (cat, classes(n)[:, None] + 1))
    }),
    "inria": (inria, "inria/INRIA-Websearch.mat", {
        f"{half}_{part}": value for half in ("tr", "val", "te")
        for part, value in (("img", table(4, 3)), ("txt", table(4, 2)), ("img_lab", classes(4)[:, None]))
    }),
    "xmedianet": (xmedianet, "xmedianet/XMediaNet5View_Doc2Vec.mat", {
        key: value for half in ("train", "valid", "test")
        for key, value in ((half, [table(4, 3), table(4, 2)]), (f"{half}_labels", [classes(4)[:, None], classes(4)[:, None]]))
    }),
}  # fmt: skip
SEVERAL = {"XAll": table(12, 3), "YAll": table(12, 2), "LAll": np.eye(12, 3)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmedia, "N_VAL", 3)
    for module in (mirflickr, nuswide):
        for name, value in (("N_QUERIES", 3), ("N_TRAIN", 6), ("N_VAL", 2)):
            monkeypatch.setattr(module, name, value)


def change(data: st.DataObject, tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables, one of which is another one; of cell arrays, one cell."""
    key = data.draw(st.sampled_from(sorted(tables)))
    value = tables[key]
    if isinstance(value, list):
        changed: Any = [data.draw(other(np.asarray(value[0]))), *value[1:]]
    else:
        changed = data.draw(other(np.asarray(value)))
    return dict(tables) | {key: changed}


def released(root: Path, data: st.DataObject, write: Callable[[Path, Any], None], name: str) -> None:
    """The files of a released set, one of them changed. What neither writer can write is no input."""
    if name in RELEASED:
        _, file, tables = RELEASED[name]
        write(root / file, change(data, tables))
        return
    tables = change(data, SEVERAL)
    files = mirflickr.FILES if name == "mirflickr" else nuswide.FILES[21]
    for file, key in zip(files, SEVERAL, strict=True):
        write(root / file, {key: tables[key]})


@pytest.mark.usefixtures("small")
@given(
    st.sampled_from(sorted([*RELEASED, "mirflickr", "nuswide"])),
    st.sampled_from((write_matlab5, write_matlab73)),
    st.data(),
)
@fuzzing(40)
def test_released_layouts(name: str, write: Callable[[Path, Any], None], data: st.DataObject) -> None:
    root = Path("root")
    try:
        released(root, data, write, name)
    except (TypeError, ValueError, AttributeError, NotImplementedError, OSError):
        return
    with attempt("loader", name):
        load(name, root)
        registry.describe(name, root)


HOSTILE_DATA = {
    "emoji/emoji.npz": b"PK\x03\x04", "cub10/cub10.npz": b"", "cc_web/image_features.npz": b"\x80\x04.",
    "multi30k/multi30k_mini.npz": b"x" * 100,
    "wikipedia/raw_features.mat": b"MATLAB 5.0", "inria/INRIA-Websearch.mat": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "coco-labels/MSCOCO_deep_doc2vec_data.h5py": b"\x00" * 600, "xmedia/XMediaFeatures.mat": b"\xff" * 300,
    "mirflickr/mirflickr25k-iall-vgg.mat": b"", "mirflickr/mirflickr25k-yall.mat": b"", "mirflickr/mirflickr25k-lall.mat": b"",
    "xmedianet/XMediaNet5View_Doc2Vec.mat": b"\x01" * 200, "flickr30k-clip/train/images.npy": b"\x93NUMPY",
    "uci_mfeat/uci_mfeat.npz": b"PK\x05\x06",
}  # fmt: skip


def test_lists_survive_hostile_files() -> None:
    write(Path("root"), BUNDLES["emoji"][1], BUNDLES["emoji"][2])
    for file, content in HOSTILE_DATA.items():
        path = Path("root") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for words in (("list", "datasets"), ("list", "protocols"), ("data", "list")):
        with attempt("loader", words):
            assert checked(*words, "--data-root", "root").code == 0
    for name in registry.names():
        if name not in ("digits", "synthetic"):
            with attempt("loader", name):
                assert checked("data", "fetch", name, "--data-root", "root").code == 2


MEMBERS = (
    "../escaped.npy",
    "/tmp/nocobench-escaped.npy",
    "a/../../escaped.npy",
    "img.npy",
    "..\\escaped.npy",
    "C:\\escaped.npy",
)


def archives() -> list[Path]:
    """Archives whose members would land outside of the folder that they are unpacked in."""
    with zipfile.ZipFile("slip.zip", "w") as archive:
        for name in MEMBERS:
            archive.writestr(name, b"escaped")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    with tarfile.open("slip.tar", "w") as tar:
        for name in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size = 7
            tar.addfile(info, io.BytesIO(b"escaped"))
        for name, kind, target in (
            ("link", tarfile.SYMTYPE, "/etc"),
            ("link/passwd", tarfile.LNKTYPE, "/etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    Path("slip.tar.gz").write_bytes(gzip.compress(Path("slip.tar").read_bytes()))
    Path("slip.npz").write_bytes(Path("slip.zip").read_bytes())
    return [Path(name) for name in ("slip.zip", "slip.tar", "slip.tar.gz", "slip.npz")]


def test_archives_are_never_unpacked() -> None:
    """Neither where a folder is expected nor where a file of a known set is; the sandbox fixture looks beside the folder too."""
    for archive in archives():
        before = set(Path().rglob("*"))
        for words in (("data", "check", f"./{archive}"), ("--methods", "clip", "--datasets", f"./{archive}", "--dry-run"), ("list",
            "runs", "--results", f"./{archive}"),
                      ("--methods", "clip", "--protocol", f"./{archive}", "--dry-run"), ("worker", "--plan", f"./{archive}", "--shard",
                          "0")):  # fmt: skip
            with attempt("archive", (archive, words)):
                assert checked(*words).code in (0, 2)
        for name, (dataset, file, arrays) in BUNDLES.items():
            root = Path("data")
            with attempt("archive", (archive, name)):
                write(root, file, arrays)
                shutil.copy(archive, root / file)
                assert not load(dataset, root)
            shutil.rmtree(root)
        assert set(Path().rglob("*")) <= before | {Path("results")}
        assert not Path("/tmp/nocobench-escaped.npy").exists()
