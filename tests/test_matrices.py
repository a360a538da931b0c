"""Matrices of MATLAB and HDF5 files: the same numbers from every version, and no memory for what a file only claims to hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_layouts import MATLAB, Writer, both, table, write_hdf5, write_matlab5, write_matlab73
from nocobench.datasets import files, hdf5, matrices
from nocobench.datasets.types import DataError
from scipy.io import savemat
from scipy.sparse import csc_matrix


@both
def test_matrices_are_read_alike_from_both_versions(tmp_path: Path, write: Writer) -> None:
    """Also through small blocks, whose edges fall into the matrix."""
    write(tmp_path / "x.mat", {"a": table(7, 5), "b": np.array([[3, 1, 2]], dtype=np.uint8)})
    found = files.read_mat(tmp_path / "x.mat", ["a", "b"])
    np.testing.assert_array_equal(found["a"], table(7, 5))
    assert (found["a"].dtype, found["b"].dtype, found["b"].tolist()) == (np.float64, np.uint8, [[3, 1, 2]])
    single = matrices.read_matrices(tmp_path / "x.mat", ["a"], np.float32)["a"]
    assert (single.dtype, single.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(single, table(7, 5))
    assert matrices.shapes(tmp_path / "x.mat") == {"a": (7, 5), "b": (1, 3)}


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("chunks", [None, (3, 2)])
def test_blocks_join_to_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transposed: bool, chunks: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(hdf5, "_BYTES_AT_ONCE", 100)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=table(11, 5), chunks=chunks)
    found = hdf5.read(tmp_path / "x.h5", ["a"], np.float32, transposed)["a"]
    np.testing.assert_array_equal(found, table(11, 5).T if transposed else table(11, 5))


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), kind=st.sampled_from(["<f8", "<f4", "u1", "<i4", "?"]))
def test_any_small_matrix_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, kind: str
) -> None:
    folder, matrix = tmp_path_factory.mktemp("any"), (table(rows, columns) % 2).astype(kind)
    for version, write in MATLAB.items():
        write(folder / f"{version}.mat", {"a": matrix})
        np.testing.assert_array_equal(files.read_mat(folder / f"{version}.mat", ["a"])["a"], matrix)
    write_hdf5(folder / "x.h5py", {"a": matrix})
    np.testing.assert_array_equal(matrices.read_matrices(folder / "x.h5py", ["a"])["a"], matrix)


@both
def test_cells_are_read_alike_from_both_versions(tmp_path: Path, write: Writer) -> None:
    cells = [table(4, 3), table(4, 2, 1), table(9, 1, 2)]
    write(tmp_path / "x.mat", {"c": cells, "a": table(2, 2)})
    found = matrices.read_cells(tmp_path / "x.mat", "c", 2, np.float32)
    assert [cell.dtype for cell in found] == [np.float32, np.float32]
    for cell, expected in zip(found, cells[:2], strict=True):
        np.testing.assert_array_equal(cell, expected)
    for name, count in (("c", 4), ("a", 1)):
        with pytest.raises(DataError, match=f"x.mat: {name} is no cell array of {count} matrices"):
            matrices.read_cells(tmp_path / "x.mat", name, count)
    with pytest.raises(DataError, match="no matrix 'd'"):
        matrices.read_cells(tmp_path / "x.mat", "d", 1)
    with pytest.raises(DataError, match="c is not a matrix of numbers"):
        files.read_mat(tmp_path / "x.mat", ["c"])


def test_a_cell_that_holds_no_numbers_is_named(tmp_path: Path) -> None:
    write_matlab5(tmp_path / "five.mat", {"c": [table(2, 2), np.array(["text"])]})
    with h5py.File(tmp_path / "seven.mat", "w") as file:
        group = file.create_group("#refs#/group")
        references = [file.create_dataset("#refs#/a", data=table(2, 2)).ref, group.ref]
        file.create_dataset("c", data=np.array(references, dtype=h5py.ref_dtype).reshape(-1, 1))
    for name in ("five.mat", "seven.mat"):
        with pytest.raises(DataError, match=f"{name}: cell 1 of c is not a matrix of numbers"):
            matrices.read_cells(tmp_path / name, "c", 2)


def test_a_matlab_5_header_that_claims_terabytes(tmp_path: Path) -> None:
    """The dimensions of the first matrix stand 160 bytes after the start of the file."""
    savemat(tmp_path / "x.mat", {"a": np.ones((2, 3))})
    data = bytearray((tmp_path / "x.mat").read_bytes())
    assert struct.unpack_from("<ii", data, 160) == (2, 3)
    for shape, message in (((2**31 - 1, 4096), "a claims 70,368,744,144,896 bytes"), ((-2, 3), "impossible shape")):
        struct.pack_into("<ii", data, 160, *shape)
        (tmp_path / "x.mat").write_bytes(data)
        with pytest.raises(DataError, match=message):
            files.read_mat(tmp_path / "x.mat", ["a"])


@pytest.mark.parametrize(
    "how",
    [{"chunks": (64, 64), "compression": "gzip"}, {}],
    ids=["chunks that were never written", "one block that was never written"],
)
def test_an_hdf5_header_that_claims_terabytes(tmp_path: Path, how: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("a", shape=(4096, 10**12), dtype="<f8", **how)
    with pytest.raises(DataError, match="a claims 32,768,000,000,000,000 bytes but 0 are stored"):
        files.read_mat(tmp_path / "x.mat", ["a"])


def test_a_chunk_that_is_larger_than_its_matrix_is_counted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        item = file.create_dataset(
            "a", shape=(2, 2), maxshape=(None, None), chunks=(4096, 4096), dtype="<f4", compression="gzip"
        )
        item.id.write_direct_chunk((0, 0), b"x" * 50)
    with pytest.raises(DataError, match="a claims 67,108,864 bytes but 50 are stored"):
        files.read_mat(tmp_path / "x.mat", ["a"])


def test_what_compresses_well_is_believed(tmp_path: Path) -> None:
    """Zeros, about a thousand to one."""
    zeros = np.zeros((1000, 1000))
    write_matlab73(tmp_path / "seven.mat", {"a": zeros})
    savemat(tmp_path / "five.mat", {"a": zeros}, do_compression=True)
    for name in ("seven.mat", "five.mat"):
        assert (tmp_path / name).stat().st_size < zeros.nbytes / 100
        assert files.read_mat(tmp_path / name, ["a"])["a"].shape == (1000, 1000)


def test_data_of_other_files_are_refused(tmp_path: Path) -> None:
    """A file of features must not make this machine open whatever it names."""
    write_hdf5(tmp_path / "secret.h5", {"a": table(2, 2)})
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "a")
        file["soft"] = h5py.SoftLink("/link")
        raw = [(str(tmp_path / "secret.h5"), 0, 32)]
        file.create_dataset("raw", shape=(2, 2), dtype="<f8", external=raw)
        layout = h5py.VirtualLayout((2, 2), "<f8")
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "a", (2, 2))
        file.create_virtual_dataset("virtual", layout)
    for name, message in (
        ("link", "link is a link to another place"),
        ("soft", "soft is a link to another place"),
        ("raw", "raw lies in other files"),
        ("virtual", "virtual lies in other files"),
    ):
        with pytest.raises(DataError, match=message):
            files.read_mat(tmp_path / "x.mat", [name])
    assert set(matrices.shapes(tmp_path / "x.mat")) == {"raw", "virtual"}


def test_what_is_no_matrix_of_numbers_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "five.mat", {"text": "abc", "sparse": csc_matrix(np.eye(3)), "complex": np.eye(2) * 1j})
    with h5py.File(tmp_path / "seven.mat", "w") as file:
        file["text"] = "abc"
        file.create_group("sparse")
        file["complex"] = np.eye(2) * 1j
        file["empty"] = np.array([0, 0], dtype=np.uint64)
        file["empty"].attrs["MATLAB_empty"] = 1
    for path, names in (
        ("five.mat", ["text", "sparse", "complex"]),
        ("seven.mat", ["text", "sparse", "complex", "empty"]),
    ):
        for name in names:
            with pytest.raises(DataError, match=f"{path}: {name} is not a matrix of numbers; get the file again"):
                files.read_mat(tmp_path / path, [name])
    with h5py.File(tmp_path / "one.mat", "w") as file:
        file["a"] = 3.0
    with pytest.raises(DataError, match="a is a single number instead of a matrix"):
        files.read_mat(tmp_path / "one.mat", ["a"])


def test_an_hdf5_file_cut_anywhere_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    write_matlab73(path, {"a": table(50, 20)})
    whole = path.read_bytes()
    for kept in (520, 600, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"x\.mat: not a readable HDF5 file .*; get the file again") as caught:
            files.read_mat(path, ["a"])
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"x\.mat: no matrix 'c'; get the file again"):
        files.read_mat(path, ["a", "c"])
