"""Small files in the layouts of released data sets with labels: MATLAB 5, MATLAB 7.3 as MATLAB writes it, and plain HDF5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

Tables = Mapping[str, Any]
Writer = Callable[[Path, Tables], None]


def table(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Numbers that float32 holds exactly, different in every row."""
    numbers = np.random.default_rng(seed).integers(0, 1000, (n, dim)).astype(np.float64)
    numbers[:, 0] = np.arange(n)
    return numbers


def write_matlab5(path: Path, tables: Tables) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: as_cells(value) if isinstance(value, list) else value for name, value in tables.items()})


def as_cells(values: list[np.ndarray]) -> np.ndarray:
    cells = np.empty((1, len(values)), dtype=object)
    for i, value in enumerate(values):
        cells[0, i] = value
    return cells


def write_matlab73(path: Path, tables: Tables) -> None:
    """Arrays the other way round, behind 512 bytes of text; a cell array is a table of references."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in tables.items():
            if not isinstance(value, list):
                file.create_dataset(name, data=value.T, chunks=True, compression="gzip")
                continue
            references = [file.create_dataset(f"#refs#/{name}{i}", data=cell.T).ref for i, cell in enumerate(value)]
            file.create_dataset(name, data=np.array(references, dtype=h5py.ref_dtype).reshape(-1, 1))
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")


def write_hdf5(path: Path, tables: Tables) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in tables.items():
            file.create_dataset(name, data=value)


MATLAB: dict[str, Writer] = {"5": write_matlab5, "7.3": write_matlab73}
both = pytest.mark.parametrize("write", MATLAB.values(), ids=[f"MATLAB {version}" for version in MATLAB])
