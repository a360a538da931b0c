"""MATLAB and HDF5 files, damaged and hostile; read in a process of little memory, because their libraries are written in C."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fuzz.child import Child
from fuzz.counting import attempt, fuzzing
from fuzz.damage import damaged
from hypothesis import given
from hypothesis import strategies as st
from label_layouts import write_hdf5, write_matlab5, write_matlab73
from scipy.io import savemat

NUMBERS = np.arange(12.0).reshape(4, 3)
TABLES: dict[str, Any] = {"a": NUMBERS, "b": NUMBERS.astype(np.uint8), "train": [NUMBERS, NUMBERS.astype(np.float32)]}


def made(write: Callable[[Path, Any], object], tables: Any, tmp: Path) -> bytes:
    path = tmp / "made.mat"
    write(path, tables)
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Good files by layout."""
    tmp = tmp_path_factory.mktemp("good")
    matrices = {name: TABLES[name] for name in "ab"}
    return {
        "five": made(write_matlab5, TABLES, tmp),
        "five packed": made(lambda path, tables: savemat(path, tables, do_compression=True), matrices, tmp),
        "four": made(lambda path, tables: savemat(path, tables, format="4"), matrices, tmp),
        "seven": made(write_matlab73, TABLES, tmp),
        "plain": made(write_hdf5, matrices, tmp),
    }


def read(child: Child, how: str, path: Path) -> str:
    found = child.read(how, path.resolve())
    assert found.error in ("", "DataError"), found
    assert found.grown < 128, found
    return found.message


LAYOUTS = ("five", "five packed", "four", "seven", "plain")
ways = st.sampled_from(("shapes", "matrices", "cells"))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(st.data())
@fuzzing(60)
def test_damaged_files(child: Child, good: dict[str, bytes], layout: str, data: st.DataObject) -> None:
    content = data.draw(damaged(good[layout]))
    how = data.draw(ways)
    path = Path("x.h5" if layout == "plain" else "x.mat")
    with attempt(f"MATLAB {'7.3 and HDF5' if layout in ('seven', 'plain') else '5 and 4'}", content):
        path.write_bytes(content)
        read(child, how, path)


@given(st.data())
@fuzzing(80)
def test_damage_below_the_compression(child: Child, good: dict[str, bytes], data: st.DataObject) -> None:
    """What a compressed variable holds is damaged, and packed again with the right checksum."""
    whole = good["five packed"]
    length = struct.unpack("<I", whole[132:136])[0]
    content = data.draw(damaged(zlib.decompress(whole[136 : 136 + length])))
    packed, how = zlib.compress(content), data.draw(ways)
    with attempt("MATLAB 5 and 4", content):
        Path("x.mat").write_bytes(whole[:128] + struct.pack("<II", 15, len(packed)) + packed)
        read(child, how, Path("x.mat"))


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def head(array_class: int, shape: tuple[int, ...], name: bytes) -> bytes:
    """Flags, dimensions and name of a variable."""
    return (
        element(6, struct.pack("<II", array_class, 0))
        + element(5, struct.pack(f"<{len(shape)}i", *shape))
        + element(1, name)
    )


def matrix(array_class: int, shape: tuple[int, ...], name: bytes = b"", content: bytes = b"") -> bytes:
    return element(14, head(array_class, shape, name) + content)


def mat(*variables: bytes, packed: bool = True) -> bytes:
    start = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    pieces = [element(15, zlib.compress(one))[: 8 + len(zlib.compress(one))] if packed else one for one in variables]
    return start + b"".join(pieces)


def nested(depth: int, name: bytes = b"train") -> bytes:
    """Cell arrays inside cell arrays; each costs 48 bytes, and a frame of the reader's stack."""
    inner = matrix(6, (1, 1), b"", element(9, struct.pack("<d", 1.0)))
    heads, size = [], len(inner)
    for level in range(depth):
        start = head(1, (1, 1), name if level == depth - 1 else b"")
        heads.append(struct.pack("<II", 14, len(start) + size) + start)
        size += len(start) + 8
    return b"".join(reversed(heads)) + inner


DOUBLE = element(9, struct.pack("<2d", 1.0, 2.0))
MATLAB5 = {
    "billions of rows": mat(matrix(6, (2**31 - 1, 2**31 - 1), b"a", DOUBLE), matrix(6, (1, 2), b"b", DOUBLE)),
    "negative rows": mat(matrix(6, (-1, 2), b"a", DOUBLE), matrix(6, (1, 2), b"b", DOUBLE)),
    "no dimensions": mat(matrix(6, (), b"a", DOUBLE), matrix(6, (1, 2), b"b", DOUBLE)),
    "twenty dimensions": mat(matrix(6, (2**20,) * 20, b"a", DOUBLE), matrix(6, (1, 2), b"b", DOUBLE)),
    "content of gigabytes": mat(element(14, head(6, (1, 2), b"a") + struct.pack("<II", 9, 2**32 - 8)), matrix(6, (1, 2), b"b", DOUBLE)),
    "name of gigabytes": mat(element(14, element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<2i", 1,
    2)) + struct.pack("<II", 1, 2**31))),
    "a name twice": mat(nested(30_000, b"a"), matrix(6, (1, 2), b"a", DOUBLE), matrix(6, (1, 2), b"b", DOUBLE)),
    "a cell array twice": mat(nested(30_000), matrix(1, (1, 1), b"train", matrix(6, (1, 2), b"", DOUBLE))),
    "nested cells": mat(nested(30_000)),
    "nested cells, not packed": mat(nested(30_000), packed=False),
    "two levels": mat(nested(2)),
    "an unknown type of numbers": mat(matrix(6, (1, 2), b"a", element(128, bytes(16))), matrix(6, (1, 2), b"b", DOUBLE)),
    "an unknown type in a cell": mat(matrix(1, (1, 1), b"train", matrix(6, (1, 2), b"", element(2**17 + 9, bytes(16)))), packed=False),
    "complex numbers": mat(matrix(6 + 0x800, (1, 2), b"a", DOUBLE + DOUBLE), matrix(6, (1, 2), b"b", DOUBLE)),
    "a cell longer than it says": mat(matrix(1, (2, 1), b"train", matrix(6, (1, 2), b"", DOUBLE)[:-8] + DOUBLE)),
    "many cells": mat(matrix(1, (2**31 - 1, 1), b"train", matrix(6, (1, 2), b"", DOUBLE))),
    "a structure": mat(matrix(2, (1, 1), b"a", DOUBLE), matrix(2, (1, 1), b"train", DOUBLE)),
    "an object": mat(matrix(17, (1, 1), b"a", DOUBLE), matrix(1, (1, 1), b"train", matrix(17, (1, 1), b"", DOUBLE))),
    "a function": mat(matrix(16, (1, 1), b"a", DOUBLE), matrix(1, (1, 1), b"train", matrix(16, (1, 1), b"", DOUBLE))),
    "sparse": mat(matrix(5, (2**30, 2**30), b"a", DOUBLE), matrix(6, (1, 2), b"b", DOUBLE)),
    "packed in packed": mat(element(15, zlib.compress(matrix(6, (1, 2), b"a", DOUBLE)))),
    "bomb": mat(matrix(6, (2**15, 2**13), b"a", element(2, bytes(2**26))), matrix(6, (1, 2), b"b", DOUBLE)),
}  # fmt: skip


@pytest.mark.parametrize("name", MATLAB5)
def test_hostile_matlab_5(child: Child, name: str) -> None:
    Path("x.mat").write_bytes(MATLAB5[name])
    for how in ("shapes", "matrices", "cells"):
        with attempt("MATLAB 5 and 4", name):
            message = read(child, how, Path("x.mat"))
            assert message or how == "shapes", f"{name} was read as {how}"


def hdf5() -> dict[str, Callable[[h5py.File], object]]:
    def external(file: h5py.File) -> None:
        file.create_dataset("a", (4, 3), "<f8", external=[("/etc/hostname", 0, 96)])

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4, 3), "<f8")
        layout[:] = h5py.VirtualSource("/etc/other.h5", "a", (4, 3))
        file.create_virtual_dataset("a", layout)

    def twice(file: h5py.File) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2**20,))
        plist.set_deflate(9)
        plist.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
        space = h5py.h5s.create_simple((2**20,))
        h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F64LE, space, plist).write(space, space, np.zeros(2**20))

    def cells(file: h5py.File) -> None:
        group = file.create_group("#refs#")
        table = file.create_dataset("train", (1, 1), h5py.ref_dtype)
        table[0, 0] = table.ref
        file.create_dataset("a", data=group.ref, dtype=h5py.ref_dtype)

    return {
        "huge": lambda file: file.create_dataset("a", (10**12, 512), "<f4", chunks=(1, 512)),
        "huge chunks": lambda file: file.create_dataset(
            "a", (4, 3), "<f4", chunks=(2**13, 2**15), maxshape=(None, None)
        ),
        "huge and filled": lambda file: file.create_dataset("a", (10**6, 10**6), "<f8", chunks=(4, 4), fillvalue=1.0),
        "soft link": lambda file: file.update(a=h5py.SoftLink("/a")),
        "external link": lambda file: file.update(a=h5py.ExternalLink("/etc/other.h5", "/a")),
        "external storage": external,
        "virtual": virtual,
        "packed twice": twice,
        "scale-offset": lambda file: file.create_dataset("a", (2**20, 8), "<i4", chunks=(2**16, 8), scaleoffset=0),
        "single number": lambda file: file.create_dataset("a", data=1.0),
        "empty": lambda file: file.create_dataset("a", data=h5py.Empty("<f8")),
        "a group": lambda file: file.create_group("a"),
        "a record": lambda file: file.create_dataset("a", (3,), np.dtype([("x", "<f4"), ("y", "<i4")])),
        "texts": lambda file: file.create_dataset("a", data=["x", "y"], dtype=h5py.string_dtype()),
        "a type": lambda file: file.update(a=np.dtype("<f8")),
        "cells of themselves": cells,
    }


@pytest.mark.parametrize("name", hdf5())
def test_hostile_hdf5(child: Child, name: str) -> None:
    for file in ("x.mat", "x.h5"):
        with h5py.File(file, "w") as content:
            hdf5()[name](content)
            if "b" not in content:
                content["b"] = NUMBERS
        for how in ("shapes", "matrices", "cells"):
            with attempt("MATLAB 7.3 and HDF5", name):
                message = read(child, how, Path(file))
                assert message or how == "shapes", f"{name} was read as {how}"
