"""The HDF5 side of matrices.py: MATLAB 7.3 files and plain HDF5 files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from .limits import refuse_claim
from .matrices import MOST_CELLS, Kind, missing, reason
from .types import DataError

_BYTES_AT_ONCE = 2**26
_GZIP, _CHECKSUM = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32
_FILTERS = {
    tuple(sorted((*gzip, *shuffle, *checksum)))
    for gzip in ((), (_GZIP,))
    for shuffle in ((), (h5py.h5z.FILTER_SHUFFLE,))
    for checksum in ((), (_CHECKSUM,))
}


def shapes(path: Path, transposed: bool) -> dict[str, tuple[int, ...]]:
    """See :func:`.matrices.shapes`."""
    with _opened(path) as file:
        found = {name: file[name] for name in file if _is_own(file, name)}
        return {
            name: item.shape[::-1] if transposed else item.shape
            for name, item in found.items()
            if isinstance(item, h5py.Dataset)
        }


def read(path: Path, names: Sequence[str], kind: Kind, transposed: bool) -> dict[str, np.ndarray]:
    """See :func:`.matrices.read_matrices`."""
    with _opened(path) as file:
        return {name: _numbers(_own(file, name, path), kind, transposed, f"{path}: {name}") for name in names}


def read_cells(path: Path, name: str, count: int, kind: Kind) -> list[np.ndarray]:
    """See :func:`.matrices.read_cells`; here a cell array is a table of references."""
    with _opened(path) as file:
        cells = _own(file, name, path)
        is_table = isinstance(cells, h5py.Dataset) and cells.dtype == h5py.ref_dtype and not _elsewhere(cells)
        if not is_table or not count <= cells.size <= MOST_CELLS:
            raise DataError(f"{path}: {name} is no cell array of {count} matrices and a few more; get the file again")
        # MATLAB numbers cells column by column, and the file lies the other way round.
        references = cells[()].ravel()[:count]
        return [
            _numbers(file[reference] if reference else None, kind, True, f"{path}: cell {i} of {name}")
            for i, reference in enumerate(references)
        ]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the library fail in many ways
        raise DataError(f"{path}: not a readable HDF5 file ({reason(error)}); get the file again") from error


def _is_own(file: h5py.File, name: str) -> bool:
    """Not a link, which could lead to any other file of this machine."""
    return isinstance(file.get(name, getlink=True), h5py.HardLink)


def _own(file: h5py.File, name: str, path: Path) -> h5py.Dataset | h5py.Group:
    if name not in file:
        raise missing(path, name)
    if not _is_own(file, name):
        raise DataError(f"{path}: {name} is a link to another place; get a file that holds its data itself")
    return file[name]


def _elsewhere(item: h5py.Dataset) -> bool:
    """Whether the numbers lie in other files."""
    return bool(item.external) or item.is_virtual


def _filters(item: h5py.Dataset) -> tuple[int, ...]:
    """Numbers of the filters that every chunk goes through. Two rounds of gzip could unpack a few bytes to gigabytes."""
    plist = item.id.get_create_plist()
    return tuple(sorted(plist.get_filter(i)[0] for i in range(plist.get_nfilters())))


def _numbers(item: h5py.Dataset | h5py.Group | None, kind: Kind, transposed: bool, where: str) -> np.ndarray:
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf" or "MATLAB_empty" in item.attrs:
        raise DataError(f"{where} is not a matrix of numbers; get the file again")
    if _elsewhere(item):
        raise DataError(f"{where} lies in other files; get a file that holds its data itself")
    if _filters(item) not in _FILTERS:
        raise DataError(f"{where} is packed by other filters than gzip and shuffle; get a file without them")
    if item.ndim == 0:
        raise DataError(f"{where} is a single number instead of a matrix; get the file again")
    # A whole chunk is unpacked at once, even if the matrix is only a part of it.
    entries = max(item.size, math.prod(item.chunks or ()))
    held = min(item.id.get_storage_size(), Path(item.file.filename).stat().st_size)
    refuse_claim(entries * item.dtype.itemsize, held, where)
    return _in_blocks(item, item.dtype if kind is None else np.dtype(kind), transposed)


def _in_blocks(item: h5py.Dataset, kind: np.dtype, transposed: bool) -> np.ndarray:
    """The whole matrix as ``kind``, of which the stored form is never in memory as a whole; blocks are whole chunks."""
    result = np.empty(item.shape[::-1] if transposed else item.shape, dtype=kind)
    target = result.T if transposed else result
    chunk = item.chunks[0] if item.chunks else 1
    row = max(1, item.dtype.itemsize * math.prod(item.shape[1:]))
    step = chunk * max(1, _BYTES_AT_ONCE // (row * chunk))
    with np.errstate(over="ignore"):
        for start in range(0, len(item), step):
            target[start : start + step] = item[start : start + step]
    return result
