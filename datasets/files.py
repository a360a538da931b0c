"""Reading files that others made: every failure is one sentence, nothing is unpickled, no header is believed before the size is checked.

All functions raise :class:`DataError` for files that are missing, cut off or of another kind than their name says.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from .matrices import read_matrices, reason
from .types import DataError

Header = tuple[tuple[int, ...], np.dtype]
_UNREADABLE = (OSError, ValueError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile, NotImplementedError)


def require(root: Path, name: str, files: Sequence[str], remedy: str) -> list[Path]:
    """The paths of ``files`` (relative to ``root``), all of which exist; otherwise one sentence that ends in ``remedy``."""
    paths = [root / file for file in files]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise DataError(f"{name}: {missing[0]}{more.replace('1 more files', '1 more file')} not found; {remedy}")
    return paths


def digests(paths: Sequence[Path], root: Path) -> dict[str, str]:
    """sha256 of every file, by its name relative to ``root``."""
    result = {}
    for path in paths:
        with path.open("rb") as stream:
            result[path.relative_to(root).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return result


def npy_header(path: Path) -> Header:
    """Shape and dtype of a ``.npy`` file, whose size is compared with what they claim.

    Raises:
        DataError: no such file, not a ``.npy`` file, Python objects, or another size than the header claims.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            return _header(stream, size, str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} not found; save the array there with numpy.save") from error
    except _UNREADABLE as error:
        raise _as_data_error(error, path, "save the array again with numpy.save") from error


def read_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file; see :func:`npy_header` for what is refused."""
    npy_header(path)
    try:
        return np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise _as_data_error(error, path, "save the array again with numpy.save") from error


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a ``.npz`` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for name in names:
                if name not in members:
                    raise DataError(f"{path}: no array {name!r}, only {', '.join(members)}; get the file again")
                with archive.open(members[name]) as stream:
                    _header(stream, members[name].file_size, f"{path}, array {name}")
        with np.load(path, allow_pickle=False) as bundle:
            return {name: bundle[name] for name in names}
    except _UNREADABLE as error:
        raise _as_data_error(error, path, "get the file again") from error


def read_mat(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named matrices of a MATLAB file of version 5 or 7.3, as they are stored; see matrices.py."""
    return read_matrices(path, names)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, gzipped if its name ends in ``.gz``; only line feeds end a line."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = data.decode("utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} not found; put the file there") from error
    except _UNREADABLE as error:
        raise _as_data_error(error, path, "get the file again") from error
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _header(stream: IO[bytes], size: int, where: str) -> Header:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"{where}: no plain array (format {version}); save a plain numeric array")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which are never loaded; save a plain numeric array")
    if any(length < 0 for length in shape):
        raise DataError(f"{where}: claims the impossible shape {shape}; save the array again with numpy.save")
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if claimed != held:
        raise DataError(
            f"{where}: claims {claimed:,} bytes ({dtype} {shape}) but holds {held:,}; copy or save the file again"
        )
    return shape, dtype


def _as_data_error(error: BaseException, path: Path, remedy: str) -> DataError:
    if isinstance(error, DataError):
        return error
    kind = path.name.removesuffix(".gz").rpartition(".")[2] + (" in gzip" if path.suffix == ".gz" else "")
    return DataError(f"{path}: not a readable {kind} file ({reason(error)}); {remedy}")
