"""Matrices of numbers in MATLAB files of versions 5 and 7.3 and in plain HDF5 files.

A MATLAB 7.3 file is an HDF5 file whose arrays lie the other way round; here ``[rows, columns]`` is what MATLAB shows, whatever the version.
Any other HDF5 file is taken as it is. No header is believed before memory is taken, see :func:`.limits.refuse_claim`.

All functions raise :class:`DataError` for files that are damaged, and for matrices that are missing or hold something else than numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .limits import refuse_claim
from .matlab5 import refuse_unsafe
from .types import DataError

MOST_CELLS = 100
HDF5 = b"\x89HDF\r\n\x1a\n"
ITEM_SIZE = {
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{"double": 8, "single": 4, "logical": 1},
}
Kind = type[np.generic] | None


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every matrix and cell array of a file by name, from the headers alone."""
    if is_hdf5(path):
        from . import hdf5

        return hdf5.shapes(path, _transposed(path))
    return {name: shape for name, (shape, _) in _headers(path).items()}


def read_matrices(path: Path, names: Sequence[str], kind: Kind = None) -> dict[str, np.ndarray]:
    """The named matrices, and no other.

    Args:
        path: a MATLAB or HDF5 file.
        names: of matrices of real numbers.
        kind: what they become, row by row in memory (``np.float32``); None = as they are stored.
    """
    if is_hdf5(path):
        from . import hdf5

        return hdf5.read(path, names, kind, _transposed(path))
    headers = _headers(path)
    for name in names:
        shape, stored = _known(headers, name, path)
        if stored not in ITEM_SIZE:
            raise DataError(f"{path}: {name} is not a matrix of numbers; get the file again")
        refuse_claim(math.prod(shape) * ITEM_SIZE[stored], path.stat().st_size, f"{path}: {name}")
    found = _loaded(path, names)
    return {name: converted(_numbers(found.pop(name), f"{path}: {name}"), kind) for name in names}


def read_cells(path: Path, name: str, count: int, kind: Kind = None) -> list[np.ndarray]:
    """The first ``count`` matrices of a MATLAB cell array; what else is in it is not kept."""
    if is_hdf5(path):
        from . import hdf5

        return hdf5.read_cells(path, name, count, kind)
    shape, stored = _known(_headers(path), name, path)
    cells = math.prod(shape)
    if stored != "cell" or not count <= cells <= MOST_CELLS:
        raise DataError(f"{path}: {name} is no cell array of {count} matrices and a few more; get the file again")
    # MATLAB 5 has no way to read some cells only. Their sizes are bounded by what the compressed bytes hold.
    found = list(_loaded(path, [name])[name].ravel()[:count])
    return [converted(_numbers(cell, f"{path}: cell {i} of {name}"), kind) for i, cell in enumerate(found)]


def is_hdf5(path: Path) -> bool:
    """Whether the signature of HDF5 stands at the start, or after the 512 bytes of text with which MATLAB begins a file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512 + len(HDF5))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); get the file again") from error
    return head.startswith(HDF5) or head[512:] == HDF5


def converted(table: np.ndarray, kind: Kind) -> np.ndarray:
    """As ``kind``, row by row in memory. What is beyond its range becomes inf, which the check of data sets names."""
    if kind is None:
        return table
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(table, dtype=kind)


def missing(path: Path, name: str) -> DataError:
    """The error for a matrix that a file lacks."""
    return DataError(f"{path}: no matrix {name!r}; get the file again")


def reason(error: BaseException) -> str:
    """An error in one line without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _transposed(path: Path) -> bool:
    return path.suffix == ".mat"


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and MATLAB class of every variable of a MATLAB 5 file."""
    from scipy.io import whosmat

    try:
        found = whosmat(path)
    except Exception as error:  # a damaged file makes scipy's parser fail in many ways
        raise _unreadable(path, error) from error
    headers: dict[str, tuple[tuple[int, ...], str]] = {
        name: (tuple(map(int, shape)), kind) for name, shape, kind in found
    }
    if len(headers) < len(found):
        # What is read would be another variable than the one whose header was looked at.
        raise DataError(f"{path}: a name occurs twice; get the file again")
    return headers


def _known(headers: Mapping[str, tuple[tuple[int, ...], str]], name: str, path: Path) -> tuple[tuple[int, ...], str]:
    if name not in headers:
        raise missing(path, name)
    shape, stored = headers[name]
    if any(length < 0 for length in shape):
        raise DataError(f"{path}: {name} claims the impossible shape {shape}; get the file again")
    return shape, stored


def _loaded(path: Path, names: Sequence[str]) -> dict[str, Any]:
    from scipy.io import loadmat

    if not _is_matlab4(path):
        refuse_unsafe(path, names)
    try:
        found = loadmat(path, variable_names=list(names))
    except Exception as error:
        raise _unreadable(path, error) from error
    for name in names:
        if name not in found:
            raise missing(path, name)
    return found


def _is_matlab4(path: Path) -> bool:
    """As scipy tells the versions apart: what is no text at the start is the number that every older file begins with."""
    from scipy.io.matlab import matfile_version

    try:
        return bool(matfile_version(path)[0] == 0)
    except Exception as error:
        raise _unreadable(path, error) from error


def _numbers(found: Any, where: str) -> np.ndarray:
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise DataError(f"{where} is not a matrix of numbers; get the file again")
    return found


def _unreadable(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path}: not a readable MATLAB 5 file ({reason(error)}); get the file again")
