"""numpy files, text files and folders of the user's own, damaged and hostile."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.asking import check_sentence, checked, refused
from fuzz.canary import pickled
from fuzz.child import Child
from fuzz.counting import attempt, fuzzing
from fuzz.damage import changed, damaged
from hypothesis import given
from hypothesis import strategies as st
from nocobench.datasets import files, registry
from nocobench.datasets.types import DataError

SIZES = {"train": 4, "val": 3, "test": 2}


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def header(text: str, content: bytes = b"", version: int = 1) -> bytes:
    """A .npy file with this text as its header."""
    raw = text.encode("latin1") + b"\n"
    length = len(raw).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + content


def npz(**arrays: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def my_features(folder: Path) -> Path:
    """A data set that can be used, with every optional part."""
    for split, n in SIZES.items():
        place = folder / split
        place.mkdir(parents=True)
        (place / "images.npy").write_bytes(npy(np.arange(4.0 * n, dtype=np.float32).reshape(n, 4)))
        (place / "captions.npy").write_bytes(npy(np.arange(6.0 * n, dtype=np.float32).reshape(2 * n, 3)))
        (place / "image_of_caption.npy").write_bytes(npy(np.repeat(np.arange(n), 2)))
        (place / "labels.npy").write_bytes(npy(np.arange(n) % 2))
        (place / "image_ids.txt").write_text("".join(f"{split}-{i}\n" for i in range(n)))
        (place / "captions.txt").write_text("a caption\n" * 2 * n)
    (folder / "dataset.json").write_text('{"shared_space": false, "remark": "mine"}')
    return folder


HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 512), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 0), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': [('a', '<f4', (1000000,))], 'fortran_order': False, 'shape': (1000000,), }",
    "{'descr': [], 'fortran_order': False, 'shape': (1000000,), }",
    "{'descr': ('<f4', (-1,)), 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': (3, 2), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, True), }",
    "{[]: 1}", "{{}: 1}", "((((((", "'" * 9, "{'descr': " + "(" * 4000, "-" * 9000 + "1", "(" * 900 + ")" * 900, "1+" * 4000 + "1", "",
    "\x00", "\\",
    "__import__('os').mkdir('x')", "{'descr': __import__('os').mkdir('x'), 'fortran_order': False, 'shape': (1,), }",
)  # fmt: skip


@pytest.mark.parametrize("version", [1, 2, 3, 9])
@pytest.mark.parametrize("text", HEADERS, ids=range(len(HEADERS)))
def test_headers(text: str, version: int) -> None:
    with attempt(".npy", text):
        Path("x.npy").write_bytes(header(text, bytes(24), version))
        _read(files.read_npy, Path("x.npy"))
        Path("x.npz").write_bytes(npz(a=header(text, bytes(24), version)))
        _read(lambda path: files.read_npz(path, ["a"]), Path("x.npz"))
        assert not Path("x").exists()


def _read(reader: Callable[[Path], Any], path: Path) -> None:
    try:
        reader(path)
    except DataError as error:
        check_sentence(error, str(path))


@given(damaged(npy(np.arange(6.0).reshape(3, 2))))
@fuzzing(150)
def test_damaged_npy(content: bytes) -> None:
    with attempt(".npy", content):
        Path("x.npy").write_bytes(content)
        _read(files.read_npy, Path("x.npy"))


@given(damaged(npz(a=npy(np.arange(6.0).reshape(3, 2)), b=npy(np.arange(3)))))
@fuzzing(150)
def test_damaged_npz(content: bytes) -> None:
    with attempt(".npz", content):
        Path("x.npz").write_bytes(content)
        _read(lambda path: files.read_npz(path, ["a", "b"]), Path("x.npz"))


@given(damaged(gzip.compress("eins\nzwei\näöü\n".encode(), mtime=0)), st.booleans())
@fuzzing(60)
def test_damaged_text(content: bytes, packed: bool) -> None:
    path = Path("x.txt.gz" if packed else "x.txt")
    with attempt("text and .gz", content):
        path.write_bytes(content)
        _read(files.read_lines, path)
        path = Path("x.tsv")
        path.write_bytes(b"caption\tsource_index\n" + content)
        _read(lambda path: files.read_columns(path, ["caption"]), path)


TABLES = (
    b"a\tb\n" + b"x" * 200_000 + b"\ty\n",
    b"a\tb\n1\n",
    b"b\na\n",
    b"",
    b"\n\n\n",
    b"a\tb\n1\r2\t3\n",
    b"a\tb\n\x00\t\x00\n",
    b"\xff\xfe",
    b'a\tb\n"x\t"\n',
)


@pytest.mark.parametrize("content", TABLES, ids=range(len(TABLES)))
def test_tables_of_text(content: bytes) -> None:
    with attempt("text and .gz", content):
        Path("x.tsv").write_bytes(content)
        _read(lambda path: files.read_columns(path, ["a", "b"]), Path("x.tsv"))


ARRAYS = ("images.npy", "captions.npy", "image_of_caption.npy", "labels.npy")
FILES = (*ARRAYS, "image_ids.txt", "captions.txt")


@given(st.sampled_from(sorted(SIZES)), st.sampled_from(FILES), st.data())
@fuzzing(30)
def test_a_damaged_folder(split: str, file: str, data: st.DataObject) -> None:
    folder = my_features(Path(f"set{len(os.listdir())}"))
    path = folder / split / file
    content = data.draw(damaged(path.read_bytes()))
    with attempt("folder of features", content):
        path.write_bytes(content)
        checked("data", "check", folder)


kinds = st.sampled_from(
    ("<f2", "<f4", "<f8", ">f4", "<i8", "<u8", "|u1", "|b1", "<c16", "|S3", "<U2", "<M8[s]", "|O", "|V4")
)
shapes = st.lists(st.integers(0, 4), max_size=3)


@given(
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(ARRAYS),
    kinds,
    shapes,
    st.sampled_from((0, 1, -1, 3, 10**9, 2**63 - 1, np.nan, np.inf, 1e300)),
)
@fuzzing(30)
def test_other_arrays_in_a_folder(split: str, file: str, kind: str, shape: list[int], value: float) -> None:
    folder = my_features(Path(f"set{len(os.listdir())}"))
    with attempt("folder of features", (file, kind, shape, value)):
        array = np.zeros(shape, dtype=kind)
        # Where such an array cannot hold it, zeros are as good.
        with np.errstate(all="ignore"), contextlib.suppress(ValueError, OverflowError, TypeError):
            array[...] = value
        (folder / split / file).write_bytes(npy(array))
        checked("data", "check", folder)


@given(changed({"shared_space": True, "has_real_noise": False, "remark": "x"}))
@fuzzing(20)
def test_settings_of_a_folder(content: Any) -> None:
    folder = my_features(Path(f"set{len(os.listdir())}"))
    with attempt("folder of features", content):
        (folder / "dataset.json").write_text(json.dumps(content))
        checked("data", "check", folder)


NESTED = (
    "[" * 100_000,
    '{"a":' * 100_000,
    "1" * 100_000,
    '{"remark": "' + "x" * 10**6 + '"}',
    '{"shared_space": true, "shared_space": false}',
    "\ufeff{}",
)


@pytest.mark.parametrize("text", NESTED, ids=range(len(NESTED)))
def test_hostile_json(text: str) -> None:
    folder = my_features(Path("set"))
    with attempt("folder of features", text[:20]):
        (folder / "dataset.json").write_text(text)
        checked("data", "check", folder)


@pytest.mark.parametrize(
    "place", ["train/images.npy", "val/labels.npy", "test/image_of_caption.npy", "dataset.json", "train/captions.txt"]
)
def test_pickles_in_a_folder(place: str) -> None:
    """The sandbox fixture sees the canary."""
    for content in (pickled(), npy(np.array([1])).replace(b"'<i8'", b"'|O' ")[:80] + pickled(), npz(a=pickled())):
        folder = my_features(Path(f"set{len(os.listdir())}"))
        with attempt("pickle", place):
            (folder / place).write_bytes(content)
            checked("data", "check", folder)


def test_pickles_in_bundles() -> None:
    objects = header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickled())
    for content in (objects, pickled()):
        with attempt("pickle"):
            Path("x.npz").write_bytes(npz(a=content))
            with pytest.raises(DataError):
                files.read_npz(Path("x.npz"), ["a"])
    with attempt("pickle"):
        Path("x.npy").write_bytes(objects)
        with pytest.raises(DataError, match="never loaded"):
            files.read_npy(Path("x.npy"))


@pytest.mark.parametrize("place", ["train/images.npy", "train", "dataset.json", "test/captions.txt", "val/labels.npy"])
def test_a_link_that_leads_out(tmp_path: Path, place: str) -> None:
    """A link may lead to another place under the folder that holds the set, not elsewhere; in a circle it leads nowhere."""
    (Path("root")).mkdir()
    folder = my_features(Path("root/set"))
    for target in (
        Path("elsewhere").resolve() / place,
        Path("../../elsewhere", place) if "/" not in place else Path("../../../elsewhere", place),
    ):
        my_features(Path("elsewhere"))
        with attempt("link", place):
            (folder / place).rename(Path("kept"))
            (folder / place).symlink_to(target)
            assert (folder / place).exists()
            assert "leads out of root" in refused("data", "check", "root/set").replace(str(Path.cwd()) + "/", "")
            (folder / place).unlink()
            Path("kept").rename(folder / place)
        for path in sorted(Path("elsewhere").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        Path("elsewhere").rmdir()
    with attempt("link", place):
        (folder / place).rename(Path("kept"))
        (folder / place).symlink_to(folder.resolve() / place)
        checked("data", "check", "root/set")
    checked("data", "check", "root/set/..")


def test_a_link_of_a_known_set_that_leads_out() -> None:
    Path("data/emoji").mkdir(parents=True)
    for name in ("emoji.npz", "items.tsv", "captions_en.txt"):
        Path(name).write_text("secret")
        Path("data/emoji", name).symlink_to(Path(name).resolve())
    with attempt("link"), pytest.raises(DataError, match="is a link that leads out of data"):
        registry.load("emoji", Path("data"))


def test_the_folder_of_a_set_may_be_a_link() -> None:
    my_features(Path("disk/set"))
    Path("root").mkdir()
    Path("root/set").symlink_to(Path("disk/set").resolve())
    with attempt("link"):
        assert checked("data", "check", "root/set").code == 0


def test_pipes_do_not_wait() -> None:
    for place in ("train/images.npy", "val/labels.npy", "dataset.json", "train/captions.txt", "train"):
        folder = my_features(Path(f"set{len(os.listdir())}"))
        (folder / place).rename("kept")
        os.mkfifo(folder / place)
        with attempt("pipe", place):
            checked("data", "check", folder)
        Path("kept").rename(f"kept{len(os.listdir())}")


def bombs() -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Small files that claim or unpack to much more memory than the child has; how they are read."""
    large = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 512), }"
    gigabyte = "{'descr': '<f4', 'fortran_order': False, 'shape': (268435456,), }"
    zeros = "{'descr': '<f4', 'fortran_order': False, 'shape': (33554432,), }"

    def packed(method: int) -> Callable[[Path], object]:
        """128 MB in a few kilobytes, or bytes."""

        def write(path: Path) -> None:
            with zipfile.ZipFile(path, "w", method) as archive:
                archive.writestr("a.npy", header(zeros, bytes(2**27)))

        return write

    def lying(path: Path) -> None:
        """The directory of the archive believes the header: terabytes."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", header(large))
            archive.infolist()[0].file_size = len(header(large)) + 2048 * 10**12

    def sparse(path: Path) -> None:
        text = "{'descr': '<f4', 'fortran_order': False, 'shape': (549755813888,), }"
        path.write_bytes(header(text))
        os.truncate(path, len(header(text)) + 4 * 2**39)

    def repeated(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(20_000):
                archive.writestr(f"{'n' * 100}{i}.npy", b"")

    return {
        "npy of terabytes": ("npy", lambda path: path.write_bytes(header(large))),
        "npy of a gigabyte": ("npy", lambda path: path.write_bytes(header(gigabyte))),
        "sparse npy of terabytes": ("npy", sparse),
        "npz of terabytes": ("npz", lambda path: path.write_bytes(npz(a=header(large)))),
        "npz whose directory lies": ("npz", lying),
        "npz packed by lzma": ("npz", packed(zipfile.ZIP_LZMA)),
        "npz packed by bzip2": ("npz", packed(zipfile.ZIP_BZIP2)),
        "npz of many names": ("npz", repeated),
        "sidecar of terabytes": ("sidecar", lambda path: path.write_bytes(npz(a=header(large)))),
        "sidecar of a gigabyte": ("sidecar", lambda path: path.write_bytes(npz(a=header(gigabyte)))),
        "sidecar whose directory lies": ("sidecar", lying),
        "sidecar packed by bzip2": ("sidecar", packed(zipfile.ZIP_BZIP2)),
        "text of a gigabyte": ("lines", lambda path: path.write_bytes(gzip.compress(bytes(2**20), mtime=0) * 1024)),
        "text of many lines": ("lines", lambda path: path.write_bytes(gzip.compress(b"\n" * 2**20, mtime=0) * 64)),
        "noise index of terabytes": ("noise index", lambda path: path.write_bytes(header(large.replace("<f4", "<i4")))),
    }  # fmt: skip


@pytest.mark.parametrize("name", bombs())
def test_bombs(child: Child, name: str) -> None:
    how, write = bombs()[name]
    path = Path("bomb.gz" if how == "lines" else "bomb")
    write(path)
    with attempt("bomb", name):
        found = child.read(how, path.resolve())
        assert found.error, "it was read"
        assert found.error in ("DataError", "SidecarError") or how == "noise index", found
        assert found.grown < (320 if how == "lines" else 64), found


def test_a_grid_of_data_that_is_larger_than_the_memory(child: Child) -> None:
    for options in (
        {"n_train": 10**12},
        {"latent_dim": 10**9},
        {"image_dim": 10**12},
        {"n_classes": 10**9},
        {"clusters": 10**12},
    ):
        with attempt("bomb", options):
            found = child.read("synthetic", Path("."), options)
            assert (found.error, found.grown < 32) == ("DataError", True), found
